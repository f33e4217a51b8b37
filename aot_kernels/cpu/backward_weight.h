// SPDX-License-Identifier: Apache-2.0
// grad_weight[o, c, t] = sum over images and pixels of grad_output[o, p] * column[p, t, c]
#ifndef MS_DEFORM_CPU_BACKWARD_WEIGHT_H_
#define MS_DEFORM_CPU_BACKWARD_WEIGHT_H_

#include "cpu/blocks.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// Pieces of work, at least, where there are enough tiles: the tiles are split into as many ranges
// as make the channel blocks this many, each range with sums of its own.
constexpr int64_t kWeightItems = 16;

template <typename Real>
class BackwardWeight {
 public:
  explicit BackwardWeight(const BackwardWeightCall& call)
      : call_(call),
        g_(call.geometry),
        threads_(ChooseThreads(MultiplyAdds(g_))),
        blocks_(g_),
        padded_outputs_(PaddedColumns<Real>(g_.group_out_channels)),
        tiles_(g_.batch * TilesPerImage(g_)),
        splits_(Maximum(1, Minimum(tiles_, CeilDivide(kWeightItems, blocks_.count())))),
        split_size_(g_.taps * g_.in_channels * padded_outputs_),
        sums_(splits_ * split_size_) {}

  void Run() {
    ChannelsLastImages<Real> images(g_, threads_);
    const WorkspaceSizes sizes = MeasureWorkspace();
    const Scratch<Real> memory(threads_ * sizes.total);
    const Scratch<ColumnSample<Real>> samples(threads_ * sizes.samples);
    const int64_t items = splits_ * blocks_.count();
#pragma omp parallel for num_threads(threads_) schedule(static)
    for (int64_t item = 0; item < items; ++item) {
      StartSums(item);
    }
    for (int64_t image = 0; image < g_.batch; image += images.capacity()) {
      const int64_t count = Minimum(images.capacity(), g_.batch - image);
      images.Load(g_, call_.dtype, call_.inputs.input, image, count);
#pragma omp parallel for num_threads(threads_) schedule(dynamic)
      for (int64_t item = 0; item < items; ++item) {
        const int64_t thread = omp_get_thread_num();
        Real* of_thread = memory.data() + thread * sizes.total;
        const Workspace workspace = {TilePlan<Real>(samples.data() + thread * sizes.samples),
                                     of_thread, of_thread + sizes.columns};
        RunItem(images, item, image, image + count, workspace);
      }
    }
    SumSplits();
  }

 private:
  struct Workspace {
    TilePlan<Real> plan;
    Real* columns;      // [pixel, tap, channel of the block]
    Real* grad_output;  // one group: packed [pixel][output]
  };

  struct WorkspaceSizes {
    int64_t samples;
    int64_t columns;
    int64_t total;
  };

  WorkspaceSizes MeasureWorkspace() const {
    WorkspaceSizes sizes = {0, 0, 0};
    for (int64_t i = 0; i < blocks_.count(); ++i) {
      const ChannelBlock& block = blocks_[i];
      sizes.samples =
          Maximum(sizes.samples, TilePlan<Real>::Samples(g_, block.block_taps, block.width));
      sizes.columns =
          Maximum(sizes.columns, ThreadShare<Real>(kTilePixels * block.block_taps * block.width));
    }
    sizes.total = sizes.columns + ThreadShare<Real>(kTilePixels * padded_outputs_);
    return sizes;
  }

  // [tap, channel of the group in the block, padded output] of a member group, in one split.
  Real* Sums(int64_t split, const ChannelBlock& block, int64_t member) const {
    const int64_t channel = block.channels.begin + member * block.member_width;
    return sums_.data() + split * split_size_ + channel * g_.taps * padded_outputs_;
  }

  void StartSums(int64_t item) const {
    const ChannelBlock& block = blocks_[item % blocks_.count()];
    Real* sums = Sums(item / blocks_.count(), block, 0);
    for (int64_t i = 0; i < block.width * g_.taps * padded_outputs_; ++i) {
      sums[i] = Real(0);
    }
  }

  // The share of one split and block in the images from `image` to `image_end`.
  void RunItem(const ChannelsLastImages<Real>& images, int64_t item, int64_t image,
               int64_t image_end, Workspace workspace) const {
    const ChannelBlock& block = blocks_[item % blocks_.count()];
    const int64_t split = item / blocks_.count();
    const int64_t tiles = TilesPerImage(g_);
    const int64_t begin = Maximum(split * tiles_ / splits_, image * tiles);
    const int64_t end = Minimum((split + 1) * tiles_ / splits_, image_end * tiles);
    for (int64_t index = begin; index < end; ++index) {
      const Tile tile = TileAt(g_, index);
      workspace.plan.Forget();
      for (int64_t tap = 0; tap < g_.taps; tap += block.block_taps) {
        const int64_t taps = Minimum(block.block_taps, g_.taps - tap);
        workspace.plan.Locate(g_, call_.dtype, call_.inputs, tile, tap, taps, block.channels);
        workspace.plan.Sample(g_, images.Image(tile.image), tile, block.channels,
                              workspace.columns);
        for (int64_t member = 0; member < block.members; ++member) {
          PackGradOutput(tile, block.group + member, workspace.grad_output);
          MultiplyMember(tile, block, tap, taps, member, workspace, Sums(split, block, member));
        }
      }
    }
  }

  void PackGradOutput(const Tile& tile, int64_t group, Real* packed) const {
    const int64_t outputs = g_.group_out_channels;
    const int64_t channel = tile.image * g_.out_channels + group * outputs;
    for (int64_t panel = 0; panel < outputs; panel += PanelWidth<Real>()) {
      const int64_t width = Minimum(PanelWidth<Real>(), padded_outputs_ - panel);
      const int64_t present = Minimum(width, outputs - panel);
      Real* to = packed + panel * tile.pixels;
      LoadTransposed(call_.dtype, call_.grad_output, (channel + panel) * g_.out_pixels + tile.first,
                     g_.out_pixels, present, tile.pixels, to, width);
      for (int64_t p = 0; p < tile.pixels; ++p) {
        for (int64_t o = present; o < width; ++o) {
          to[p * width + o] = Real(0);
        }
      }
    }
  }

  void MultiplyMember(const Tile& tile, const ChannelBlock& block, int64_t tap, int64_t taps,
                      int64_t member, const Workspace& workspace, Real* sums) const {
    const PackedRows<Real> b = {workspace.grad_output, tile.pixels, 0, tile.pixels};
    const int64_t columns_row = taps * block.width;
    // A single group's rows (tap, channel) lie in one run, several groups' in one run a tap.
    const int64_t runs = block.members == 1 ? 1 : taps;
    const int64_t rows = taps / runs * block.member_width;
    for (int64_t run = 0; run < runs; ++run) {
      const Strided<Real> a = {workspace.columns + run * block.width + member * block.member_width,
                               1, columns_row};
      Multiply(a, rows, b, g_.group_out_channels,
               sums + (tap + run) * block.member_width * padded_outputs_, padded_outputs_);
    }
  }

  // Adds the splits in their order and brings the sums into the weight's layout.
  void SumSplits() const {
    VisitStorage<Real>(call_.dtype, call_.grad_weight, [this](auto* grad_weight) {
#pragma omp parallel for num_threads(threads_) schedule(dynamic)
      for (int64_t index = 0; index < blocks_.count(); ++index) {
        const ChannelBlock& block = blocks_[index];
        for (int64_t member = 0; member < block.members; ++member) {
          SumMember(block, member, grad_weight);
        }
      }
    });
  }

  template <typename Storage>
  void SumMember(const ChannelBlock& block, int64_t member, Storage* grad_weight) const {
    const int64_t group = block.group + member;
    const int64_t first_channel =
        block.channels.begin + member * block.member_width - group * g_.group_in_channels;
    const Real* of_first_split = Sums(0, block, member);
    for (int64_t o = 0; o < g_.group_out_channels; ++o) {
      Storage* of_output =
          grad_weight +
          ((group * g_.group_out_channels + o) * g_.group_in_channels + first_channel) * g_.taps;
      for (int64_t c = 0; c < block.member_width; ++c) {
        for (int64_t tap = 0; tap < g_.taps; ++tap) {
          const Real* sums = of_first_split + (tap * block.member_width + c) * padded_outputs_ + o;
          Real sum = sums[0];
          for (int64_t split = 1; split < splits_; ++split) {
            sum += sums[split * split_size_];
          }
          Store(sum, &of_output[c * g_.taps + tap]);
        }
      }
    }
  }

  const BackwardWeightCall& call_;
  const Geometry& g_;
  int threads_;
  ChannelBlocks blocks_;
  int64_t padded_outputs_;  // of a group
  int64_t tiles_;           // of all images
  int64_t splits_;
  int64_t split_size_;  // elements of the sums of one split
  Scratch<Real> sums_;
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_BACKWARD_WEIGHT_H_
