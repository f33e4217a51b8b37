// SPDX-License-Identifier: Apache-2.0
// grad_weight[o, c, t] = sum over images and pixels of grad_output[o, p] * column[p, t, c]
//
// The tiles are split into ranges with sums of their own, which are added up in order: the result
// has the same bits on any number of threads. A piece of work is one tap of one block for a part of
// the outputs, over a range.
//
// Scratch: channels-last copies of a pass of images, the sums (at most kSumBytes, or the weights
// once), and for each thread the columns of a tile and block (kColumnBytes) and its grad_output
// (kTilePixels x outputs).
#ifndef MS_DEFORM_CPU_BACKWARD_WEIGHT_H_
#define MS_DEFORM_CPU_BACKWARD_WEIGHT_H_

#include "cpu/plan.h"
#include "cpu/threads.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

constexpr int64_t kSumBytes = 16 << 20;
// Of a range, at least: adding its sums to the others takes as long as the products of two pixels.
constexpr int64_t kLeastTiles = 4;

template <typename Real>
class BackwardWeight {
 public:
  explicit BackwardWeight(const BackwardWeightCall& call)
      : call_(call),
        g_(call.geometry),
        threads_(ChooseThreads(MultiplyAdds(g_))),
        blocks_(g_),
        images_(g_, blocks_, {g_, call.dtype, call.inputs.input, blocks_}),
        tiles_(g_, 1),
        parts_(g_.group_out_channels, blocks_.count() * g_.taps),
        split_size_(blocks_.packed() * g_.taps * g_.group_out_channels),
        splits_(CountSplits()),
        sampler_(g_, {g_, call.dtype, call.inputs}, blocks_) {}

  void Run() {
    if (tiles_.count() == 0) {
      StoreZeros();
      return;
    }
    const Workspace workspace([this](ArrayPlacer* placer) { Place(placer); });
    blocks_.Fill();
    RunThreads(threads_, [this](Worker& worker) {
      for (int64_t image = 0; image < g_.batch; image += images_.capacity()) {
        const int64_t end = Minimum(image + images_.capacity(), g_.batch);
        images_.Load(image, end, &worker);
        worker.Wait();
        RunSplits(image, end, &worker);
        worker.Wait();
      }
      StoreSums(&worker);
    });
  }

 private:
  // What a thread works in.
  struct Memory {
    BlockSamples<Real> samples;
    Real* grad_output;  // [output of the block's groups, kTilePixels]
  };

  // A block's share of the work: some taps and outputs, over one range of the tiles.
  struct Share {
    const ChannelBlock& block;
    int64_t split;
    TapRun taps;
    ColumnRun outputs;
  };

  int64_t CountSplits() const {
    const int64_t pieces = blocks_.count() * g_.taps * parts_.count();
    const int64_t bytes = split_size_ * static_cast<int64_t>(sizeof(Real));
    const int64_t most = Minimum(tiles_.count() / kLeastTiles, kSumBytes / Maximum(1, bytes));
    return Maximum(1, Minimum(most, CeilDivide(kPieces, Maximum(1, pieces))));
  }

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
  Real* SumsOf(const ChannelBlock& block, int64_t split, int64_t member, int64_t tap) const {
    const int64_t columns = PaddedColumns<Real>(block.member_columns);
    return sums_ + split * split_size_ +
           (block.packed_before * g_.taps + (member * g_.taps + tap) * columns) *
               g_.group_out_channels;
  }

  // The images from `image` to `image_end`.
  void RunSplits(int64_t image, int64_t image_end, Worker* worker) const {
    const int64_t thread = worker->thread();
    const Memory memory = {
        {samples_ + thread * blocks_.most_taps(), columns_ + thread * ColumnsSize()},
        grad_outputs_ + thread * GradOutputSize()};
    const int64_t parts = parts_.count();
    const int64_t plane = g_.taps * parts;
    worker->ShareRuns(blocks_.count() * splits_ * plane, {parts, plane}, [&](const PieceRun& run) {
      const int64_t count = run.end - run.first;
      const int64_t index = run.first / plane;
      const int64_t part = run.first % parts;
      const TapRun taps = {run.first % plane / parts, CeilDivide(count, parts)};
      const ColumnRun outputs = parts_.Outputs({part, Minimum(part + count, parts)});
      RunShare({blocks_[index / splits_], index % splits_, taps, outputs}, image, image_end,
               memory);
    });
  }

  // As much of a share as lies in the images from `image` to `image_end`.
  void RunShare(const Share& share, int64_t image, int64_t image_end, const Memory& memory) const {
    const ChannelBlock& block = share.block;
    const int64_t tiles = tiles_.per_image();
    const int64_t first = share.split * tiles_.count() / splits_;
    const int64_t end = Minimum((share.split + 1) * tiles_.count() / splits_, image_end * tiles);
    const int64_t taps_end = share.taps.first + share.taps.taps;
    Tile tile;
    for (int64_t index = Maximum(first, image * tiles); index < end; ++index) {
      tiles_.Set(index, &tile);
      LoadGradOutput(call_, tile, block, share.outputs, memory.grad_output);
      for (int64_t tap = share.taps.first; tap < taps_end; tap += block.block_taps) {
        const TapRun run = {tap, Minimum(block.block_taps, taps_end - tap)};
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
    const int64_t row = PaddedColumns<Real>(block.member_columns);
    for (int64_t member = 0; member < block.members; ++member) {
      const int64_t first = member * g_.group_out_channels + share.outputs.first;
      Factor<Real> a;
      a.data = grad_output + first * kTilePixels;
      a.rows = share.outputs.end - share.outputs.first;
      a.row = kTilePixels;
      a.steps = columns.rows;
      Real* sums = SumsOf(block, share.split, member, tap) + share.outputs.first * row;
      Multiply(a, Rows<const Real>{columns.data + member * block.member_columns, columns.row},
               block.member_columns, Rows<Real>{sums, row}, accumulate);
    }
  }

  // A piece is one output of each group of a block.
  void StoreSums(Worker* worker) const {
    const int64_t outputs = g_.group_out_channels;
    VisitStorage<Real>(call_.dtype, call_.grad_weight, [&](auto* grad_weight) {
      worker->ShareShort(blocks_.count() * outputs, [&](int64_t piece) {
        const ChannelBlock& block = blocks_[piece / outputs];
        for (int64_t member = 0; member < block.members; ++member) {
          StoreOutput(block, member, piece % outputs, grad_weight);
        }
      });
    });
  }

  template <typename Storage>
  void StoreOutput(const ChannelBlock& block, int64_t member, int64_t output,
                   Storage* grad_weight) const {
    const int64_t row = PaddedColumns<Real>(block.member_columns);
    for (int64_t tap = 0; tap < g_.taps; ++tap) {
      AddSplits(SumsOf(block, 0, member, tap) + output * row, row);
    }
    const int64_t of_output = (block.group + member) * g_.group_out_channels + output;
    const Real* sums = SumsOf(block, 0, member, 0) + output * row;
    VisitRuns<Real>(g_, block, [&](const ChannelRun& run) {
      const Matrix<const Real> from = {sums + run.column, g_.group_out_channels * row, g_.taps,
                                       run.width};
      Storage* to = grad_weight + (of_output * g_.group_in_channels + run.channel) * g_.taps;
      WithLanes<Real>(run.width, [&](auto lanes) {
        StoreTransposed<lanes>(from, static_cast<const Real*>(nullptr), Rows<Storage>{to, g_.taps});
      });
    });
  }

  // To the sums of the first split those of the others.
  void AddSplits(Real* sums, int64_t count) const {
    for (int64_t split = 1; split < splits_; ++split) {
      const Real* of_split = sums + split * split_size_;
      for (int64_t i = 0; i < count; ++i) {
        sums[i] += of_split[i];
      }
    }
  }

  const BackwardWeightCall& call_;
  const Geometry& g_;
  int threads_;
  ChannelBlocks<Real> blocks_;
  ImageSlabs<Real> images_;
  Tiles tiles_;
  OutputParts parts_;
  int64_t split_size_;  // elements of the sums of one split
  int64_t splits_;
  Sampler<Real> sampler_;
  Real* sums_ = nullptr;  // [split, block, member, tap], each [output, padded column]
  TapSamples<Real>* samples_ = nullptr;  // [thread, tap of the block]
  Real* grad_outputs_ = nullptr;  // [thread], each [output of the block's groups, kTilePixels]
  Real* columns_ = nullptr;       // [thread], each [tap of the block, pixel, column]
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_BACKWARD_WEIGHT_H_
