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
#include "cpu/threads.h"

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
        images_(g_, blocks_, {g_, call.dtype, call.inputs.input, blocks_}),
        tiles_(g_.batch * TilesPerImage(g_)),
        splits_(Minimum(tiles_, CeilDivide(kMostSplits, blocks_.count()))),
        split_size_(blocks_.packed() * g_.taps * g_.group_out_channels),
        sampler_(g_, {g_, call.dtype, call.inputs}, blocks_) {}

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
        images_.Load(image, end);
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
    BlockSamples<Real> samples;
    Real* grad_output;  // [output of the block's groups, kTilePixels]
  };

  // A block's share of the work: one range of the tiles.
  struct Share {
    const ChannelBlock& block;
    int64_t split;
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
  Real* SumsOf(const Share& share, int64_t member, int64_t tap) const {
    const ChannelBlock& block = share.block;
    const int64_t columns = PaddedColumns<Real>(block.member_columns);
    return sums_ + share.split * split_size_ +
           (block.packed_before * g_.taps + (member * g_.taps + tap) * columns) *
               g_.group_out_channels;
  }

  // The share of the images from `image` to `image_end`, shared out among the threads.
  void RunSplits(int64_t image, int64_t image_end) const {
    const int64_t thread = omp_get_thread_num();
    const Memory memory = {
        {samples_ + thread * blocks_.most_taps(), columns_ + thread * ColumnsSize()},
        grad_outputs_ + thread * GradOutputSize()};
#pragma omp for schedule(dynamic) collapse(2) nowait
    for (int64_t index = 0; index < blocks_.count(); ++index) {
      for (int64_t split = 0; split < splits_; ++split) {
        RunSplit({blocks_[index], split}, image, image_end, memory);
      }
    }
  }

  // As much of a share as lies in the images from `image` to `image_end`.
  void RunSplit(const Share& share, int64_t image, int64_t image_end, const Memory& memory) const {
    const ChannelBlock& block = share.block;
    const int64_t tiles = TilesPerImage(g_);
    const int64_t first = share.split * tiles_ / splits_;
    const int64_t end = Minimum((share.split + 1) * tiles_ / splits_, image_end * tiles);
    Tile tile;
    for (int64_t index = Maximum(first, image * tiles); index < end; ++index) {
      SetTile(g_, index, &tile);
      LoadGradOutput(call_, tile, block, memory.grad_output);
      for (int64_t tap = 0; tap < g_.taps; tap += block.block_taps) {
        const TapRun run = {tap, Minimum(block.block_taps, g_.taps - tap)};
        sampler_.Run(tile, block, run, images_.Slab(tile.image, block), memory.samples);
        for (int64_t t = 0; t < run.taps; ++t) {
          const Matrix<const Real> columns = {
              memory.samples.columns + t * kTilePixels * block.pitch, block.pitch, tile.pixels,
              block.pitch};
          MultiplyTap(share, tap + t, memory.grad_output, columns, index > first);
        }
      }
    }
  }

  // columns: [pixel, column of the block]
  void MultiplyTap(const Share& share, int64_t tap, const Real* grad_output,
                   const Matrix<const Real>& columns, bool accumulate) const {
    const ChannelBlock& block = share.block;
    for (int64_t member = 0; member < block.members; ++member) {
      Factor<Real> a;
      a.data = grad_output + member * g_.group_out_channels * kTilePixels;
      a.rows = g_.group_out_channels;
      a.row = kTilePixels;
      a.steps = columns.rows;
      Multiply(a, Rows<const Real>{columns.data + member * block.member_columns, columns.row},
               block.member_columns,
               Rows<Real>{SumsOf(share, member, tap), PaddedColumns<Real>(block.member_columns)},
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
          VisitRuns<Real>(
              g_, block, [&](const ChannelRun& run) { StoreRun(block, member, run, grad_weight); });
        }
      }
    });
  }

  template <typename Storage>
  void StoreRun(const ChannelBlock& block, int64_t member, const ChannelRun& run,
                Storage* grad_weight) const {
    const int64_t row = PaddedColumns<Real>(block.member_columns);
    for (int64_t output = 0; output < g_.group_out_channels; ++output) {
      const int64_t of_output = (block.group + member) * g_.group_out_channels + output;
      const Matrix<const Real> from = {SumsOf({block, 0}, member, 0) + output * row + run.column,
                                       g_.group_out_channels * row, g_.taps, run.width};
      Storage* to = grad_weight + (of_output * g_.group_in_channels + run.channel) * g_.taps;
      WithLanes<Real>(run.width, [&](auto lanes) {
        StoreTransposed<lanes>(from, static_cast<const Real*>(nullptr), Rows<Storage>{to, g_.taps});
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
  TapSamples<Real>* samples_ = nullptr;  // [thread, tap of the block]
  Real* grad_outputs_ = nullptr;  // [thread], each [output of the block's groups, kTilePixels]
  Real* columns_ = nullptr;       // [thread], each [tap of the block, pixel, column]
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_BACKWARD_WEIGHT_H_
