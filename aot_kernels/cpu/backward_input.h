// SPDX-License-Identifier: Apache-2.0
// Gradients of input, offset and mask. With grad_column[p, t, c] = sum_o weight[o, c, t] *
// grad_output[o, p], and for each sample the products dot[i] = sum_c grad_column[c] * corner i[c]:
//   grad_mask   = sum_i corner weight[i] * dot[i]
//   grad_offset = mask * slope of the sample, with dot in place of the corner values
//   grad_input[corner i, c] += mask * corner weight[i] * grad_column[c]
//
// The blocks of the images are worked on in waves. Each block's pixels are cut into bands that add
// to slabs of their own, which are added up in order: the result has the same bits on any number of
// threads.
//
// Scratch: for each block of a wave an image slab, `bands` gradient slabs and, if several blocks
// share an offset group, its point gradients, together at most kWaveBytes unless a single block
// needs more; the packed weights; for each thread a tile's grad_output (kTilePixels x outputs) and
// its columns of one tap and block.
#ifndef MS_DEFORM_CPU_BACKWARD_INPUT_H_
#define MS_DEFORM_CPU_BACKWARD_INPUT_H_

#include "cpu/plan.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// The gradients of a sampling point: offset y, offset x and mask.
constexpr int64_t kPointGradients = 3;
constexpr int64_t kWaveBytes = 54 << 20;
// Pieces of work for threads to share, as far as bands can make them.
constexpr int64_t kPieces = 8;
constexpr int64_t kMostBands = 2;

template <typename Real>
class BackwardInput {
 public:
  explicit BackwardInput(const BackwardInputCall& call)
      : call_(call),
        g_(call.geometry),
        threads_(ChooseThreads(MultiplyAdds(g_))),
        blocks_(g_),
        slab_size_(blocks_.widest() * SlabPixels(g_)),
        points_size_(blocks_.split() ? kPointGradients * g_.taps * g_.out_pixels : 0) {
    const int64_t items = Maximum(1, g_.batch * blocks_.count());
    bands_ = Minimum(kMostBands, CeilDivide(kPieces, items));
    while (bands_ > 1 && ItemBytes() > kWaveBytes) {
      --bands_;
    }
    const int64_t fitting = Minimum(items, Maximum(1, kWaveBytes / ItemBytes()));
    wave_ = CeilDivide(items, CeilDivide(items, fitting));
  }

  void Run() {
    if (!g_.use_mask) {
      const Real zero = 0;
      StoreValues(call_.dtype, &zero, 1, call_.grad_mask, 0);
    }
    if (g_.batch == 0) {
      return;
    }
    const Workspace workspace([this](ArrayPlacer* placer) { Place(placer); });
    blocks_.Fill();
    RunThreads(threads_, [this](Team& team) {
      PackWeights();
      const int64_t items = g_.batch * blocks_.count();
      for (int64_t item = 0; item < items; item += wave_) {
        RunWave(item, Minimum(item + wave_, items), team);
      }
    });
  }

 private:
  // A block of an image in a wave.
  struct Item {
    int64_t image;
    const ChannelBlock* block;
    Real* slab;
    Real* grad_slabs;  // [band]
    Real* points;      // [tap, kPointGradients, out_pixels], if blocks share an offset group
  };

  int64_t ItemBytes() const {
    return ((1 + bands_) * slab_size_ + points_size_) * static_cast<int64_t>(sizeof(Real));
  }

  void Place(ArrayPlacer* placer) {
    blocks_.Place(placer);
    slabs_ = placer->Place<Real>(wave_ * slab_size_);
    grad_slabs_ = placer->Place<Real>(wave_ * bands_ * slab_size_);
    // One more: for the sums of an offset group that goes on in the next wave.
    points_ = placer->Place<Real>((wave_ + 1) * points_size_);
    weights_ = placer->Place<Real>(blocks_.packed() * g_.taps * g_.group_out_channels);
    grad_outputs_ = placer->Place<Real>(threads_ * GradOutputSize());
    grad_columns_ = placer->Place<Real>(threads_ * ColumnsSize());
  }

  int64_t GradOutputSize() const { return blocks_.most_outputs() * kTilePixels; }
  int64_t ColumnsSize() const { return kTilePixels * blocks_.widest(); }

  Item ItemAt(int64_t first, int64_t index) const {
    const int64_t slot = index - first;
    return {index / blocks_.count(), &blocks_[index % blocks_.count()], slabs_ + slot * slab_size_,
            grad_slabs_ + slot * bands_ * slab_size_, points_ + slot * points_size_};
  }

  // For each member of a block and each tap a packed matrix, with a row for each output of the
  // group and a column for each column of the member.
  Real* WeightsOf(const ChannelBlock& block, int64_t member, int64_t tap) const {
    const int64_t columns = PaddedColumns<Real>(block.member_columns);
    return weights_ + (block.packed_before * g_.taps + (member * g_.taps + tap) * columns) *
                          g_.group_out_channels;
  }

  // Shared out among the threads.
  void PackWeights() const {
    VisitStorage<Real>(call_.dtype, call_.inputs.weight, [this](const auto* weight) {
#pragma omp for schedule(dynamic) nowait
      for (int64_t index = 0; index < blocks_.count(); ++index) {
        const ChannelBlock& block = blocks_[index];
        if (HasEmptyColumns(block)) {
          FillZeros(WeightsOf(block, 0, 0), block.packed * g_.taps * g_.group_out_channels);
        }
        for (int64_t member = 0; member < block.members; ++member) {
          VisitRuns<Real>(g_, block, [&](int64_t channel, int64_t width, int64_t column) {
            WithLanes<Real>(width, [&](auto lanes) {
              PackRun<lanes>(weight, block, member, channel, width, column);
            });
          });
        }
      }
    });
  }

  template <int kLanes, typename Storage>
  void PackRun(const Storage* weight, const ChannelBlock& block, int64_t member, int64_t channel,
               int64_t width, int64_t column) const {
    for (int64_t c = 0; c < width; c += kLanes) {
      const int64_t panel = (column + c) / PanelWidth<Real>() * PanelWidth<Real>();
      const int64_t panel_width = PackedPanelWidth<Real>(block.member_columns, panel);
      for (int64_t output = 0; output < g_.group_out_channels; ++output) {
        const int64_t row = (block.group + member) * g_.group_out_channels + output;
        const Storage* from = weight + (row * g_.group_in_channels + channel + c) * g_.taps;
        const int64_t to =
            panel * g_.group_out_channels + output * panel_width + (column + c - panel);
        for (int64_t tap = 0; tap < g_.taps; tap += kLanes) {
          Vector<Real, kLanes> square[kLanes];
          LoadSquare<kLanes, Real>(from + tap, g_.taps, width - c, g_.taps - tap, square);
          for (int64_t t = 0; t < Minimum(kLanes, g_.taps - tap); ++t) {
            StoreVector<Real, kLanes>(WeightsOf(block, member, tap + t) + to, square[t]);
          }
        }
      }
    }
  }

  // Shared out among the threads.
  void RunWave(int64_t first, int64_t end, Team& team) const {
    const int64_t thread = omp_get_thread_num();
    const int64_t rows = g_.in_height + 3;
#pragma omp for schedule(static) collapse(2) nowait
    for (int64_t index = first; index < end; ++index) {
      for (int64_t y = -1; y < rows - 1; ++y) {
        const Item item = ItemAt(first, index);
        LoadSlabRow(g_, call_.dtype, call_.inputs.input, item.image, blocks_, *item.block, y,
                    item.slab);
      }
    }
    team.Wait();
#pragma omp for schedule(dynamic) collapse(2) nowait
    for (int64_t index = first; index < end; ++index) {
      for (int64_t band = 0; band < bands_; ++band) {
        RunBand(ItemAt(first, index), band, grad_outputs_ + thread * GradOutputSize(),
                grad_columns_ + thread * ColumnsSize());
      }
    }
    team.Wait();
#pragma omp for schedule(static) collapse(2) nowait
    for (int64_t index = first; index < end; ++index) {
      for (int64_t y = 0; y < g_.in_height; ++y) {
        StoreGradRow(ItemAt(first, index), y);
      }
    }
    if (blocks_.split()) {
      SumPoints(first, end);
    }
    team.Wait();
  }

  void RunBand(const Item& item, int64_t band, Real* grad_output, Real* grad_columns) const {
    const ChannelBlock& block = *item.block;
    Real* grad_slab = item.grad_slabs + band * slab_size_;
    FillZeros(grad_slab, block.pitch * SlabPixels(g_));
    // Columns without a channel stay 0.
    FillZeros(grad_columns, ColumnsSize());
    const int64_t tiles = TilesPerImage(g_);
    Tile tile;
    for (int64_t i = band * tiles / bands_; i < (band + 1) * tiles / bands_; ++i) {
      SetTile(g_, item.image * tiles + i, &tile);
      LoadGradOutput(g_, call_.dtype, call_.grad_output, tile, block, grad_output);
      for (int64_t tap = 0; tap < g_.taps; ++tap) {
        GradColumns(tile, block, tap, grad_output, grad_columns);
        for (int64_t slice = 0; slice < block.offset_groups; ++slice) {
          RunSlice(tile, item, blocks_.SlicesOf(block)[slice], tap, grad_columns, grad_slab);
        }
      }
    }
  }

  // grad_columns[pixel, column] of one tap.
  void GradColumns(const Tile& tile, const ChannelBlock& block, int64_t tap,
                   const Real* grad_output, Real* grad_columns) const {
    const int64_t outputs = g_.group_out_channels;
    for (int64_t member = 0; member < block.members; ++member) {
      const Factor<Real> a = {grad_output + member * outputs * kTilePixels, 1, outputs,
                              kTilePixels};
      MultiplyPacked(a, tile.pixels, WeightsOf(block, member, tap), outputs, 0,
                     block.member_columns,
                     Rows<Real>{grad_columns + member * block.member_columns, block.pitch}, false);
    }
  }

  // Point gradients of one tap and slice over a tile, and their share of the gradient slab.
  void RunSlice(const Tile& tile, const Item& item, const Slice& slice, int64_t tap,
                const Real* grad_columns, Real* grad_slab) const {
    TapPoints<Real> points;
    TapSamples<Real> samples;
    Real dots[kTilePixels][kCorners];
    Real gradients[kPointGradients][kTilePixels];
    LocateTap(g_, call_.dtype, call_.inputs, tile, slice.offset_group, tap, &points);
    FoldTap(g_, tile, points, &samples);
    const int64_t of_slice = slice.column * SlabPixels(g_);
    WithPitch<Real>(slice.pitch, [&](auto pitch) {
      ScatterTap<pitch>(tile, points, samples, grad_columns + slice.column, item.block->pitch,
                        item.slab + of_slice, grad_slab + of_slice, SlabWidth(g_) * pitch, dots);
    });
    GradPoints(tile, points, dots, gradients);
    if (slice.width == g_.offset_group_channels) {
      StorePoints(tile.image, tile.first, tile.pixels, slice.offset_group, tap, gradients);
    } else {
      KeepPoints(tile, tap, gradients, item.points);
    }
  }

  void KeepPoints(const Tile& tile, int64_t tap, const Real gradients[kPointGradients][kTilePixels],
                  Real* points) const {
    for (int64_t i = 0; i < kPointGradients; ++i) {
      Real* to = points + (tap * kPointGradients + i) * g_.out_pixels + tile.first;
      for (int64_t p = 0; p < tile.pixels; ++p) {
        to[p] = gradients[i][p];
      }
    }
  }

  // dots[i] = grad_column * corner i of the image, and corner i of grad_image += weight[i] *
  // grad_column, for each pixel. `row` is the distance between rows of a slab.
  template <int kPitch>
  static void ScatterTap(const Tile& tile, const TapPoints<Real>& points,
                         const TapSamples<Real>& samples, const Real* grad_columns,
                         int64_t columns_row, const Real* image, Real* grad_image, int64_t row,
                         Real dots[kTilePixels][kCorners]) {
    constexpr int kLanes = LanesOfPitch<Real>(kPitch);
    using Values = Vector<Real, kLanes>;
    for (int64_t p = 0; p < tile.pixels; ++p) {
      const Real* top = image + int64_t{points.pixel[p]} * kPitch;
      const Real* bottom = top + row;
      Real* grad_top = grad_image + int64_t{samples.pixel[p]} * kPitch;
      Real* grad_bottom = grad_top + row;
      const Real weight[kCorners] = {samples.weight[0][p], samples.weight[1][p],
                                     samples.weight[2][p], samples.weight[3][p]};
      Values sum[kCorners] = {};
#pragma GCC unroll 4
      for (int c = 0; c < kPitch; c += kLanes) {
        const Values grad = LoadVector<Real, kLanes>(grad_columns + c);
        sum[0] += grad * LoadVector<Real, kLanes>(top + c);
        sum[1] += grad * LoadVector<Real, kLanes>(top + kPitch + c);
        sum[2] += grad * LoadVector<Real, kLanes>(bottom + c);
        sum[3] += grad * LoadVector<Real, kLanes>(bottom + kPitch + c);
        // The corners are different pixels: all are loaded before the first is stored.
        const Values value[kCorners] = {
            LoadVector<Real, kLanes>(grad_top + c) + weight[0] * grad,
            LoadVector<Real, kLanes>(grad_top + kPitch + c) + weight[1] * grad,
            LoadVector<Real, kLanes>(grad_bottom + c) + weight[2] * grad,
            LoadVector<Real, kLanes>(grad_bottom + kPitch + c) + weight[3] * grad};
        StoreVector<Real, kLanes>(grad_top + c, value[0]);
        StoreVector<Real, kLanes>(grad_top + kPitch + c, value[1]);
        StoreVector<Real, kLanes>(grad_bottom + c, value[2]);
        StoreVector<Real, kLanes>(grad_bottom + kPitch + c, value[3]);
      }
      SumFourRows<Real, kLanes>(sum, dots[p]);
      grad_columns += columns_row;
    }
  }

  static void GradPoints(const Tile& tile, const TapPoints<Real>& points,
                         const Real dots[kTilePixels][kCorners],
                         Real gradients[kPointGradients][kTilePixels]) {
    for (int64_t p = 0; p < tile.pixels; ++p) {
      const Real* dot = dots[p];
      Real slope_y, slope_x, weight[kCorners];
      SampleSlopes(points.fraction_y[p], points.fraction_x[p], dot, &slope_y, &slope_x);
      CornerWeights(points.fraction_y[p], points.fraction_x[p], weight);
      const Real value =
          weight[0] * dot[0] + weight[1] * dot[1] + weight[2] * dot[2] + weight[3] * dot[3];
      gradients[0][p] = points.mask[p] * slope_y;
      gradients[1][p] = points.mask[p] * slope_x;
      gradients[2][p] = points.inside[p] ? value : Real(0);
    }
  }

  void StorePoints(int64_t image, int64_t first, int64_t count, int64_t offset_group, int64_t tap,
                   const Real gradients[kPointGradients][kTilePixels]) const {
    const int64_t channel = (image * g_.offset_groups + offset_group) * g_.taps + tap;
    StoreValues(call_.dtype, gradients[0], count, call_.grad_offset,
                2 * channel * g_.out_pixels + first);
    StoreValues(call_.dtype, gradients[1], count, call_.grad_offset,
                (2 * channel + 1) * g_.out_pixels + first);
    if (g_.use_mask) {
      StoreValues(call_.dtype, gradients[2], count, call_.grad_mask,
                  channel * g_.out_pixels + first);
    }
  }

  // Adds up the bands of one row of grad_input.
  void StoreGradRow(const Item& item, int64_t y) const {
    for (int64_t i = 0; i < item.block->offset_groups; ++i) {
      const Slice& slice = blocks_.SlicesOf(*item.block)[i];
      Real* row =
          item.grad_slabs + slice.column * SlabPixels(g_) + SlabPixel(g_, y, 0) * slice.pitch;
      for (int64_t band = 1; band < bands_; ++band) {
        const Real* of_band = row + band * slab_size_;
        for (int64_t j = 0; j < g_.in_width * slice.pitch; ++j) {
          row[j] += of_band[j];
        }
      }
      const int64_t first = (item.image * g_.in_channels + slice.channel) * g_.in_pixels;
      VisitStorage<Real>(call_.dtype, call_.grad_input, [&](auto* grad_input) {
        WithLanes<Real>(slice.pitch, [&](auto lanes) {
          StoreTransposed<lanes>(row, slice.pitch, g_.in_width, slice.width,
                                 static_cast<const Real*>(nullptr),
                                 grad_input + first + y * g_.in_width, g_.in_pixels);
        });
      });
    }
  }

  // Adds up the point gradients of blocks that share an offset group, in the order of the blocks.
  void SumPoints(int64_t first, int64_t end) const {
    for (int64_t begin = first; begin < end;) {
      const Item item = ItemAt(first, begin);
      const int64_t offset_group = item.block->channel / g_.offset_group_channels;
      const int64_t group_end = (offset_group + 1) * g_.offset_group_channels;
      int64_t last = begin;
      while (last + 1 < end &&
             blocks_[last % blocks_.count()].channel + blocks_[last % blocks_.count()].width <
                 group_end) {
        ++last;
      }
      const ChannelBlock& last_block = blocks_[last % blocks_.count()];
      if (item.block->width < g_.offset_group_channels) {
        const bool continues = item.block->channel % g_.offset_group_channels != 0;
        const bool ends = last_block.channel + last_block.width == group_end;
        SumBlocks(item, last - begin + 1, offset_group, continues, ends);
      }
      begin = last + 1;
    }
  }

  // The point gradients of `count` blocks from `item` on, after those that earlier waves carried
  // over; they are stored if the offset group ends here, and carried over otherwise.
  void SumBlocks(const Item& item, int64_t count, int64_t offset_group, bool continues,
                 bool ends) const {
    Real* carried = points_ + wave_ * points_size_;
    const int64_t tiles = CeilDivide(g_.out_pixels, kTilePixels);
#pragma omp for schedule(static) collapse(2) nowait
    for (int64_t tap = 0; tap < g_.taps; ++tap) {
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t first = tile * kTilePixels;
        const int64_t pixels = Minimum(kTilePixels, g_.out_pixels - first);
        Real sums[kPointGradients][kTilePixels];
        for (int64_t i = 0; i < kPointGradients; ++i) {
          const int64_t offset = (tap * kPointGradients + i) * g_.out_pixels + first;
          for (int64_t p = 0; p < pixels; ++p) {
            Real sum = continues ? carried[offset + p] : Real(0);
            for (int64_t block = 0; block < count; ++block) {
              sum += item.points[block * points_size_ + offset + p];
            }
            sums[i][p] = sum;
          }
          for (int64_t p = 0; p < (ends ? 0 : pixels); ++p) {
            carried[offset + p] = sums[i][p];
          }
        }
        if (ends) {
          StorePoints(item.image, first, pixels, offset_group, tap, sums);
        }
      }
    }
  }

  const BackwardInputCall& call_;
  const Geometry& g_;
  int threads_;
  ChannelBlocks<Real> blocks_;
  int64_t slab_size_;
  int64_t points_size_;
  int64_t bands_;
  int64_t wave_;  // blocks of images worked on at a time
  Real* slabs_ = nullptr;
  Real* grad_slabs_ = nullptr;
  Real* points_ = nullptr;
  Real* weights_ = nullptr;
  Real* grad_outputs_ = nullptr;  // [thread], each [output of the block's groups, kTilePixels]
  Real* grad_columns_ = nullptr;  // [thread], each [pixel, column of the block]
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_BACKWARD_INPUT_H_
