// SPDX-License-Identifier: Apache-2.0
// Gradients of input, offset and mask. With grad_column[p, t, c] = sum_o weight[o, c, t] *
// grad_output[o, p], and for each sample the products dot[i] = sum_c grad_column[c] * corner i[c]:
//   grad_mask   = sum_i corner weight[i] * dot[i]
//   grad_offset = mask * slope of the sample, with dot in place of the corner values
//   grad_input[corner i, c] += mask * corner weight[i] * grad_column[c]
#ifndef MS_DEFORM_CPU_BACKWARD_INPUT_H_
#define MS_DEFORM_CPU_BACKWARD_INPUT_H_

#include "cpu/blocks.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// The gradients of a sampling point: offset y, offset x and mask.
constexpr int64_t kPointGradients = 3;

// dot[i] += grad * corner[i] and target[i] += weight[i] * grad over `count` channels. Targets may
// be the same address, so each is stored before the next is loaded.
template <typename Real>
static inline void GradSample(const Real* const corner[kCorners], const Real weight[kCorners],
                              const Real* grad, int64_t count, Real* const target[kCorners],
                              Real dot[kCorners]) {
  constexpr int kLanes = Lanes<Real>();
  typename VectorOf<Real, kLanes>::type sum[kCorners] = {};
  int64_t c = 0;
  for (; c + kLanes <= count; c += kLanes) {
    const auto value = LoadVector<Real, kLanes>(grad + c);
    for (int i = 0; i < kCorners; ++i) {
      sum[i] += value * LoadVector<Real, kLanes>(corner[i] + c);
      StoreVector<Real, kLanes>(target[i] + c,
                                LoadVector<Real, kLanes>(target[i] + c) + weight[i] * value);
    }
  }
  for (int i = 0; i < kCorners; ++i) {
    dot[i] = SumLanes<Real, kLanes>(sum[i]);
  }
  for (; c < count; ++c) {
    for (int i = 0; i < kCorners; ++i) {
      dot[i] += grad[c] * corner[i][c];
      target[i][c] += weight[i] * grad[c];
    }
  }
}

template <typename Real>
class BackwardInput {
 public:
  explicit BackwardInput(const BackwardInputCall& call)
      : call_(call),
        g_(call.geometry),
        threads_(ChooseThreads(MultiplyAdds(g_))),
        blocks_(g_),
        weights_(WeightOffset(blocks_.count())) {}

  void Run() {
    if (!g_.use_mask) {
      const Real zero = 0;
      StoreValues(call_.dtype, &zero, 1, call_.grad_mask, 0);
    }
    PackWeights();
    ChannelsLastImages<Real> images(g_, threads_);
    const int64_t partial_size = kPointGradients * g_.taps * g_.out_pixels;
    const Scratch<Real> partials(Split() ? images.capacity() * blocks_.count() * partial_size : 0);
    const WorkspaceSizes sizes = MeasureWorkspace();
    const Scratch<Real> memory(threads_ * sizes.total);
    for (int64_t image = 0; image < g_.batch; image += images.capacity()) {
      const int64_t count = Minimum(images.capacity(), g_.batch - image);
      images.Load(g_, call_.dtype, call_.inputs.input, image, count);
#pragma omp parallel for num_threads(threads_) schedule(dynamic)
      for (int64_t index = 0; index < count * blocks_.count(); ++index) {
        const Workspace workspace =
            sizes.Divide(memory.data() + omp_get_thread_num() * sizes.total);
        RunBlock(images.Image(image + index / blocks_.count()), image + index / blocks_.count(),
                 index % blocks_.count(), partials.data() + index * partial_size, workspace);
      }
      if (Split()) {
        SumPartials(image, count, partials.data());
      }
    }
  }

 private:
  struct Workspace {
    Real*
        grad_image;  // [in_pixels + 1, channel of the block]; outside corners write to the last row
    Real* grad_output;   // [output of the block's groups, kTilePixels]
    Real* grad_columns;  // [pixel, tap, channel of the block], rows padded
    Real* member;        // [pixel, tap, channel of one group], rows padded
  };

  struct WorkspaceSizes {
    int64_t grad_image;
    int64_t grad_output;
    int64_t grad_columns;
    int64_t total;

    Workspace Divide(Real* memory) const {
      return {memory, memory + grad_image, memory + grad_image + grad_output,
              memory + grad_image + grad_output + grad_columns};
    }
  };

  // Whether several blocks add to the gradients of one offset group.
  bool Split() const { return blocks_.count() > g_.offset_groups; }

  static int64_t ColumnsRow(const ChannelBlock& block) {
    return PaddedColumns<Real>(block.block_taps * block.width);
  }

  WorkspaceSizes MeasureWorkspace() const {
    int64_t width = 0, outputs = 0, row = 0;
    for (int64_t i = 0; i < blocks_.count(); ++i) {
      width = Maximum(width, blocks_[i].width);
      outputs = Maximum(outputs, blocks_[i].members * g_.group_out_channels);
      row = Maximum(row, ColumnsRow(blocks_[i]));
    }
    WorkspaceSizes sizes;
    sizes.grad_image = ThreadShare<Real>((g_.in_pixels + 1) * width);
    sizes.grad_output = ThreadShare<Real>(outputs * kTilePixels);
    sizes.grad_columns = ThreadShare<Real>(kTilePixels * row);
    sizes.total = sizes.grad_image + sizes.grad_output + 2 * sizes.grad_columns;
    return sizes;
  }

  // Packed weights of a block: for each run of its taps and each member group a matrix with a row
  // for every output and a column for every (tap, channel).
  int64_t MatrixSize(const ChannelBlock& block, int64_t taps) const {
    return PaddedColumns<Real>(taps * block.member_width) * g_.group_out_channels;
  }

  int64_t MatrixOffset(const ChannelBlock& block, int64_t tap, int64_t taps, int64_t member) const {
    return tap / block.block_taps * block.members * MatrixSize(block, block.block_taps) +
           member * MatrixSize(block, taps);
  }

  int64_t WeightOffset(int64_t block_count) const {
    int64_t offset = 0;
    for (int64_t i = 0; i < block_count; ++i) {
      const ChannelBlock& block = blocks_[i];
      offset += MatrixOffset(block, g_.taps, g_.taps % block.block_taps, block.members);
    }
    return offset;
  }

  void PackWeights() {
    VisitStorage<Real>(call_.dtype, call_.inputs.weight, [this](const auto* weight) {
#pragma omp parallel for num_threads(threads_) schedule(dynamic)
      for (int64_t index = 0; index < blocks_.count(); ++index) {
        const ChannelBlock& block = blocks_[index];
        Real* of_block = weights_.data() + WeightOffset(index);
        for (int64_t tap = 0; tap < g_.taps; tap += block.block_taps) {
          const int64_t taps = Minimum(block.block_taps, g_.taps - tap);
          for (int64_t member = 0; member < block.members; ++member) {
            PackMatrix(weight, block, tap, taps, member,
                       of_block + MatrixOffset(block, tap, taps, member));
          }
        }
      }
    });
  }

  template <typename Storage>
  void PackMatrix(const Storage* weight, const ChannelBlock& block, int64_t tap, int64_t taps,
                  int64_t member, Real* matrix) const {
    const int64_t outputs = g_.group_out_channels;
    const int64_t columns = taps * block.member_width;
    const int64_t group = block.group + member;
    const int64_t first_channel =
        block.channels.begin + member * block.member_width - group * g_.group_in_channels;
    for (int64_t panel = 0; panel < columns; panel += PanelWidth<Real>()) {
      const int64_t width = Minimum(PanelWidth<Real>(), PaddedColumns<Real>(columns) - panel);
      for (int64_t o = 0; o < outputs; ++o) {
        const Storage* of_output =
            weight + ((group * outputs + o) * g_.group_in_channels + first_channel) * g_.taps + tap;
        Real* to = matrix + panel * outputs + o * width;
        for (int64_t i = 0; i < width; ++i) {
          const int64_t t = (panel + i) / block.member_width;
          const int64_t c = (panel + i) % block.member_width;
          to[i] = panel + i < columns ? Load(of_output[c * g_.taps + t]) : Real(0);
        }
      }
    }
  }

  void RunBlock(const Real* image, int64_t image_index, int64_t block_index, Real* partial,
                const Workspace& workspace) const {
    const ChannelBlock& block = blocks_[block_index];
    const Real* weights = weights_.data() + WeightOffset(block_index);
    for (int64_t i = 0; i < (g_.in_pixels + 1) * block.width; ++i) {
      workspace.grad_image[i] = Real(0);
    }
    const int64_t tiles = TilesPerImage(g_);
    for (int64_t index = image_index * tiles; index < (image_index + 1) * tiles; ++index) {
      const Tile tile = TileAt(g_, index);
      LoadGradOutput(tile, block, workspace.grad_output);
      for (int64_t tap = 0; tap < g_.taps; tap += block.block_taps) {
        const int64_t taps = Minimum(block.block_taps, g_.taps - tap);
        GradColumns(tile, block, taps, weights + MatrixOffset(block, tap, taps, 0), workspace);
        for (int64_t t = 0; t < taps; ++t) {
          RunTap(image, tile, block, tap + t, workspace.grad_columns + t * block.width,
                 workspace.grad_image, partial);
        }
      }
    }
    StoreTransposed(
        call_.dtype, workspace.grad_image, block.width, g_.in_pixels, block.width, call_.grad_input,
        (image_index * g_.in_channels + block.channels.begin) * g_.in_pixels, g_.in_pixels);
  }

  void LoadGradOutput(const Tile& tile, const ChannelBlock& block, Real* grad_output) const {
    const int64_t outputs = block.members * g_.group_out_channels;
    const int64_t first = tile.image * g_.out_channels + block.group * g_.group_out_channels;
    for (int64_t o = 0; o < outputs; ++o) {
      LoadValues(call_.dtype, call_.grad_output, (first + o) * g_.out_pixels + tile.first,
                 tile.pixels, grad_output + o * kTilePixels);
    }
  }

  // grad_columns[pixel, tap, channel] of `taps` taps, whose packed weights are given.
  void GradColumns(const Tile& tile, const ChannelBlock& block, int64_t taps, const Real* weights,
                   const Workspace& workspace) const {
    const int64_t outputs = g_.group_out_channels;
    const int64_t columns = taps * block.member_width;
    const int64_t row = ColumnsRow(block);
    Real* product = block.members == 1 ? workspace.grad_columns : workspace.member;
    for (int64_t member = 0; member < block.members; ++member) {
      for (int64_t i = 0; i < tile.pixels * row; ++i) {
        product[i] = Real(0);
      }
      const Strided<Real> a = {workspace.grad_output + member * outputs * kTilePixels, 1,
                               kTilePixels};
      const PackedRows<Real> b = {weights + member * MatrixSize(block, taps), outputs, 0, outputs};
      Multiply(a, tile.pixels, b, columns, product, row);
      if (block.members > 1) {
        PlaceMember(tile, block, taps, member, workspace);
      }
    }
  }

  // Moves one group's grad_columns to its channels in the block.
  void PlaceMember(const Tile& tile, const ChannelBlock& block, int64_t taps, int64_t member,
                   const Workspace& workspace) const {
    const int64_t row = ColumnsRow(block);
    for (int64_t p = 0; p < tile.pixels; ++p) {
      for (int64_t t = 0; t < taps; ++t) {
        const Real* from = workspace.member + p * row + t * block.member_width;
        Real* to = workspace.grad_columns + p * row + t * block.width + member * block.member_width;
        for (int64_t c = 0; c < block.member_width; ++c) {
          to[c] = from[c];
        }
      }
    }
  }

  // Point gradients of one tap over a tile, and its share of grad_image.
  void RunTap(const Real* image, const Tile& tile, const ChannelBlock& block, int64_t tap,
              const Real* grad_columns, Real* grad_image, Real* partial) const {
    SamplePoint<Real> points[kTilePixels];
    Real mask[kTilePixels];
    Real gradients[kPointGradients][kTilePixels];
    LocateTile(g_, call_.dtype, call_.inputs, tile, block.offset_group, tap, points, mask);
    for (int64_t p = 0; p < tile.pixels; ++p) {
      Real dot[kCorners];
      ScatterSample(image + block.channels.begin, points[p], mask[p],
                    grad_columns + p * ColumnsRow(block), block.width, grad_image, dot);
      Real slope_y, slope_x, weight[kCorners];
      SampleSlopes(points[p], dot, &slope_y, &slope_x);
      CornerWeights(points[p], weight);
      gradients[0][p] = mask[p] * slope_y;
      gradients[1][p] = mask[p] * slope_x;
      gradients[2][p] = points[p].inside ? weight[0] * dot[0] + weight[1] * dot[1] +
                                               weight[2] * dot[2] + weight[3] * dot[3]
                                         : Real(0);
    }
    if (Split()) {
      for (int64_t i = 0; i < kPointGradients; ++i) {
        Real* to = partial + (tap * kPointGradients + i) * g_.out_pixels + tile.first;
        for (int64_t p = 0; p < tile.pixels; ++p) {
          to[p] = gradients[i][p];
        }
      }
    } else {
      StorePointGradients(tile, block.offset_group, tap, gradients[0], gradients[1], gradients[2]);
    }
  }

  void ScatterSample(const Real* image, const SamplePoint<Real>& point, Real mask,
                     const Real* grad_column, int64_t width, Real* grad_image,
                     Real dot[kCorners]) const {
    const ColumnSample<Real> sample = FoldSample(g_, point, mask);
    const Real* corner[kCorners];
    Real* target[kCorners];
    for (int i = 0; i < kCorners; ++i) {
      const bool exists = point.corner[i] != kOutsideCorner;
      corner[i] = image + (exists ? point.corner[i] : g_.in_pixels) * g_.in_channels;
      target[i] = grad_image + (exists && point.inside ? point.corner[i] : g_.in_pixels) * width;
    }
    GradSample(corner, sample.weight, grad_column, width, target, dot);
  }

  void StorePointGradients(const Tile& tile, int64_t offset_group, int64_t tap, const Real* grad_y,
                           const Real* grad_x, const Real* grad_mask) const {
    const int64_t channel = (tile.image * g_.offset_groups + offset_group) * g_.taps + tap;
    StoreValues(call_.dtype, grad_y, tile.pixels, call_.grad_offset,
                2 * channel * g_.out_pixels + tile.first);
    StoreValues(call_.dtype, grad_x, tile.pixels, call_.grad_offset,
                (2 * channel + 1) * g_.out_pixels + tile.first);
    if (g_.use_mask) {
      StoreValues(call_.dtype, grad_mask, tile.pixels, call_.grad_mask,
                  channel * g_.out_pixels + tile.first);
    }
  }

  // Adds the blocks of each offset group, in their order. `partials` is
  // [image of the pass, block, tap, point gradient, out_pixels].
  void SumPartials(int64_t first_image, int64_t images, const Real* partials) const {
#pragma omp parallel for num_threads(threads_) collapse(2) schedule(static)
    for (int64_t image = 0; image < images; ++image) {
      for (int64_t tap = 0; tap < g_.taps; ++tap) {
        for (int64_t block = 0; block < blocks_.count();) {
          const int64_t group = blocks_[block].offset_group;
          int64_t end = block;
          while (end < blocks_.count() && blocks_[end].offset_group == group) {
            ++end;
          }
          SumTap(first_image + image, group, tap,
                 partials +
                     (image * blocks_.count() + block) * g_.taps * kPointGradients * g_.out_pixels,
                 end - block);
          block = end;
        }
      }
    }
  }

  void SumTap(int64_t image, int64_t offset_group, int64_t tap, const Real* partials,
              int64_t blocks) const {
    for (int64_t first = 0; first < g_.out_pixels; first += kTilePixels) {
      const Tile tile = {image, first, Minimum(kTilePixels, g_.out_pixels - first)};
      Real gradients[kPointGradients][kTilePixels] = {};
      for (int64_t block = 0; block < blocks; ++block) {
        const Real* of_tap = partials + (block * g_.taps + tap) * kPointGradients * g_.out_pixels;
        for (int64_t i = 0; i < kPointGradients; ++i) {
          for (int64_t p = 0; p < tile.pixels; ++p) {
            gradients[i][p] += of_tap[i * g_.out_pixels + first + p];
          }
        }
      }
      StorePointGradients(tile, offset_group, tap, gradients[0], gradients[1], gradients[2]);
    }
  }

  const BackwardInputCall& call_;
  const Geometry& g_;
  int threads_;
  ChannelBlocks blocks_;
  Scratch<Real> weights_;
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_BACKWARD_INPUT_H_
