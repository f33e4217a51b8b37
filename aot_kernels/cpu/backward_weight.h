// SPDX-License-Identifier: Apache-2.0
// grad_weight[o, c, t] = sum over images and pixels of grad_output[o, p] * column[p, t, c]
//
// The tiles are split into ranges with sums of their own, which are added up in order: the result
// has the same bits on any number of threads.
//
// Scratch: channels-last copies of a pass of images, the sums (kMostSplits times the weights at
// most), and for each thread the columns of a tile and block (kColumnBytes) and its grad_output
// (kTilePixels x outputs).
#ifndef MS_DEFORM_CPU_BACKWARD_WEIGHT_H_
#define MS_DEFORM_CPU_BACKWARD_WEIGHT_H_

#include "cpu/plan.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// Pieces of work, one for each block and range of tiles, for threads to share.
constexpr int64_t kMostSplits = 8;

template <typename Real>
class BackwardWeight {
 public:
  explicit BackwardWeight(const BackwardWeightCall& call)
      : call_(call),
        g_(call.geometry),
        threads_(ChooseThreads(MultiplyAdds(g_))),
        blocks_(g_),
        images_(g_, blocks_),
        tiles_(g_.batch * TilesPerImage(g_)),
        splits_(Minimum(tiles_, CeilDivide(kMostSplits, blocks_.count()))),
        split_size_(blocks_.packed() * g_.taps * g_.group_out_channels),
        sampler_(g_, call.dtype, call.inputs) {}

  void Run() {
    if (tiles_ == 0) {
      StoreZeros();
      return;
    }
    const Workspace workspace([this](ArrayPlacer* placer) { Place(placer); });
    blocks_.Fill();
    RunThreads(threads_, [this](Team& team) {
      for (int64_t image = 0; image < g_.batch; image += images_.capacity()) {
        const int64_t end = Minimum(image + images_.capacity(), g_.batch);
        images_.Load(call_.dtype, call_.inputs.input, image, end);
        team.Wait();
        RunSplits(image, end);
        team.Wait();
      }
      SumSplits();
      team.Wait();
      StoreSums();
    });
  }

 private:
  // What a thread works in.
  struct Memory {
    TapSamples<Real>* samples;  // [tap of the block]
    Real* grad_output;          // [output of the block's groups, kTilePixels]
    Real* columns;              // [tap of the block, pixel, column]
  };

  int64_t GradOutputSize() const { return blocks_.most_outputs() * kTilePixels; }
  // Reading whole vectors past a row's end needs one more.
  int64_t ColumnsSize() const { return blocks_.columns() + kBlockChannels; }

  void Place(ArrayPlacer* placer) {
    blocks_.Place(placer);
    images_.Place(placer);
    sums_ = placer->Place<Real>(splits_ * split_size_);
    samples_ = placer->Place<TapSamples<Real>>(threads_ * blocks_.most_taps());
    grad_outputs_ = placer->Place<Real>(threads_ * GradOutputSize());
    columns_ = placer->Place<Real>(threads_ * ColumnsSize());
  }

  void StoreZeros() const {
    const Real zero = 0;
    for (int64_t i = 0; i < g_.out_channels * g_.group_in_channels * g_.taps; ++i) {
      StoreValues(call_.dtype, &zero, 1, call_.grad_weight, i);
    }
  }

  // [output, padded column] of a member group and tap.
  Real* SumsOf(int64_t split, const ChannelBlock& block, int64_t member, int64_t tap) const {
    const int64_t columns = PaddedColumns<Real>(block.member_columns);
    return sums_ + split * split_size_ +
           (block.packed_before * g_.taps + (member * g_.taps + tap) * columns) *
               g_.group_out_channels;
  }

  // The share of the images from `image` to `image_end`, shared out among the threads.
  void RunSplits(int64_t image, int64_t image_end) const {
    const int64_t thread = omp_get_thread_num();
    const Memory memory = {samples_ + thread * blocks_.most_taps(),
                           grad_outputs_ + thread * GradOutputSize(),
                           columns_ + thread * ColumnsSize()};
#pragma omp for schedule(dynamic) collapse(2) nowait
    for (int64_t index = 0; index < blocks_.count(); ++index) {
      for (int64_t split = 0; split < splits_; ++split) {
        RunSplit(blocks_[index], split, image, image_end, memory);
      }
    }
  }

  // The share of one split and block in the images from `image` to `image_end`.
  void RunSplit(const ChannelBlock& block, int64_t split, int64_t image, int64_t image_end,
                const Memory& memory) const {
    const int64_t tiles = TilesPerImage(g_);
    const int64_t first = split * tiles_ / splits_;
    const int64_t end = Minimum((split + 1) * tiles_ / splits_, image_end * tiles);
    Tile tile;
    for (int64_t index = Maximum(first, image * tiles); index < end; ++index) {
      SetTile(g_, index, &tile);
      LoadGradOutput(g_, call_.dtype, call_.grad_output, tile, block, memory.grad_output);
      for (int64_t tap = 0; tap < g_.taps; tap += block.block_taps) {
        const int64_t taps = Minimum(block.block_taps, g_.taps - tap);
        sampler_.Run(tile, blocks_, block, tap, taps, images_.Slab(tile.image, block),
                     memory.samples, memory.columns);
        for (int64_t t = 0; t < taps; ++t) {
          MultiplyTap(tile, block, split, tap + t, memory.grad_output,
                      memory.columns + t * kTilePixels * block.pitch, index > first);
        }
      }
    }
  }

  void MultiplyTap(const Tile& tile, const ChannelBlock& block, int64_t split, int64_t tap,
                   const Real* grad_output, const Real* columns, bool accumulate) const {
    const int64_t outputs = g_.group_out_channels;
    for (int64_t member = 0; member < block.members; ++member) {
      const Factor<Real> a = {grad_output + member * outputs * kTilePixels, kTilePixels,
                              tile.pixels};
      Multiply(
          a, outputs, Rows<const Real>{columns + member * block.member_columns, block.pitch},
          block.member_columns,
          Rows<Real>{SumsOf(split, block, member, tap), PaddedColumns<Real>(block.member_columns)},
          accumulate);
    }
  }

  void SumSplits() const {
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < split_size_; ++i) {
      Real sum = sums_[i];
      for (int64_t split = 1; split < splits_; ++split) {
        sum += sums_[split * split_size_ + i];
      }
      sums_[i] = sum;
    }
  }

  void StoreSums() const {
    VisitStorage<Real>(call_.dtype, call_.grad_weight, [this](auto* grad_weight) {
#pragma omp for schedule(dynamic) nowait
      for (int64_t index = 0; index < blocks_.count(); ++index) {
        const ChannelBlock& block = blocks_[index];
        for (int64_t member = 0; member < block.members; ++member) {
          VisitRuns<Real>(g_, block, [&](int64_t channel, int64_t width, int64_t column) {
            StoreRun(block, member, channel, width, column, grad_weight);
          });
        }
      }
    });
  }

  template <typename Storage>
  void StoreRun(const ChannelBlock& block, int64_t member, int64_t channel, int64_t width,
                int64_t column, Storage* grad_weight) const {
    const int64_t row = PaddedColumns<Real>(block.member_columns);
    for (int64_t output = 0; output < g_.group_out_channels; ++output) {
      const int64_t of_output = (block.group + member) * g_.group_out_channels + output;
      const Real* from = SumsOf(0, block, member, 0) + output * row + column;
      Storage* to = grad_weight + (of_output * g_.group_in_channels + channel) * g_.taps;
      WithLanes<Real>(width, [&](auto lanes) {
        StoreTransposed<lanes>(from, g_.group_out_channels * row, g_.taps, width,
                               static_cast<const Real*>(nullptr), to, g_.taps);
      });
    }
  }

  const BackwardWeightCall& call_;
  const Geometry& g_;
  int threads_;
  ChannelBlocks<Real> blocks_;
  ImageSlabs<Real> images_;
  int64_t tiles_;  // of all images
  int64_t splits_;
  int64_t split_size_;  // elements of the sums of one split
  Sampler<Real> sampler_;
  Real* sums_ = nullptr;  // [split, block, member, tap], each [output, padded column]
  TapSamples<Real>* samples_ = nullptr;
  Real* grad_outputs_ = nullptr;
  Real* columns_ = nullptr;
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_BACKWARD_WEIGHT_H_
