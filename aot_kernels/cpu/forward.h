// SPDX-License-Identifier: Apache-2.0
// output[n, o, p] = bias[o] + sum over taps t and channels c of weight[o, c, t] * column[p, t, c]
//
// Scratch: channels-last copies of a pass of images, the packed weights, and for each thread the
// columns of a tile and block (kColumnBytes) and the sums of a tile (kTilePixels x outputs).
#ifndef MS_DEFORM_CPU_FORWARD_H_
#define MS_DEFORM_CPU_FORWARD_H_

#include "cpu/plan.h"
#include "cpu/threads.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// Of each thread, at least, where pixels allow: large tiles read the weights less often, small ones
// make the threads end at one time. A pixel's sums are the same in any tile.
constexpr int64_t kThreadTiles = 4;

template <typename Real>
class Forward {
 public:
  explicit Forward(const ForwardCall& call)
      : call_(call),
        g_(call.geometry),
        threads_(ChooseThreads(MultiplyAdds(g_))),
        tiles_(g_, threads_ * kThreadTiles),
        blocks_(g_),
        images_(g_, blocks_, {g_, call.dtype, call.inputs.input, blocks_}),
        member_outputs_(PaddedColumns<Real>(g_.group_out_channels)),
        most_members_(CeilDivide(blocks_.most_outputs(), Maximum(1, g_.group_out_channels))),
        parts_(g_.group_out_channels, tiles_.count() * blocks_.chains()),
        sampler_(g_, {g_, call.dtype, call.inputs}, blocks_) {}

  void Run() {
    const Workspace workspace([this](ArrayPlacer* placer) { Place(placer); });
    blocks_.Fill();
    if (g_.use_bias) {
      LoadValues(call_.dtype, call_.bias, 0, g_.out_channels, bias_);
    }
    RunThreads(threads_, [this](Worker& worker) {
      PackWeights(&worker);
      for (int64_t image = 0; image < g_.batch; image += images_.capacity()) {
        const int64_t end = Minimum(image + images_.capacity(), g_.batch);
        images_.Load(image, end, &worker);
        worker.Wait();
        RunTiles(image * tiles_.per_image(), end * tiles_.per_image(), &worker);
        worker.Wait();
      }
    });
  }

 private:
  // Reading whole vectors past a row's end needs one more.
  int64_t ColumnsSize() const { return blocks_.columns() + kBlockChannels; }
  int64_t SumsSize() const { return kTilePixels * SumsRow() + kBlockChannels; }
  int64_t SumsRow() const { return most_members_ * member_outputs_; }

  void Place(ArrayPlacer* placer) {
    blocks_.Place(placer);
    images_.Place(placer);
    weights_ = placer->Place<Real>(blocks_.pitch() * g_.taps * member_outputs_);
    bias_ = placer->Place<Real>(g_.out_channels + kBlockChannels);
    samples_ = placer->Place<TapSamples<Real>>(threads_ * blocks_.most_taps());
    columns_ = placer->Place<Real>(threads_ * ColumnsSize());
    sums_ = placer->Place<Real>(threads_ * SumsSize());
  }

  // A member's packed matrix, with a row for each (tap, column of the member) and a column for each
  // output of its group.
  Real* WeightsOf(const ChannelBlock& block, int64_t member) const {
    return weights_ +
           (block.pitch_before + member * block.member_columns) * g_.taps * member_outputs_;
  }

  // A piece packs a block's weights for one vector of outputs.
  void PackWeights(Worker* worker) const {
    const int64_t vectors = CeilDivide(member_outputs_, Lanes<Real>());
    VisitStorage<Real>(call_.dtype, call_.inputs.weight, [&](const auto* weight) {
      worker->Share(blocks_.count() * vectors, [&](int64_t piece) {
        const ChannelBlock& block = blocks_[piece / vectors];
        for (int64_t member = 0; member < block.members; ++member) {
          PackOutputs(weight, block, member, piece % vectors * Lanes<Real>());
        }
      });
    });
  }

  // Those of one vector, from `first` on.
  template <typename Storage>
  void PackOutputs(const Storage* weight, const ChannelBlock& block, int64_t member,
                   int64_t first) const {
    const int64_t panel = first / PanelWidth<Real>() * PanelWidth<Real>();
    const int64_t width = PackedPanelWidth<Real>(g_.group_out_channels, panel);
    const int64_t depth = g_.taps * block.member_columns;
    Real* packed = WeightsOf(block, member) + panel * depth + (first - panel);
    const int64_t output = (block.group + member) * g_.group_out_channels + first;
    const int64_t present = g_.group_out_channels - first;
    const int64_t row = g_.group_in_channels * g_.taps;
    WithLanes<Real>(width, [&](auto lanes) {
      for (int64_t i = 0; i < (HasEmptyColumns(block) ? depth : 0); ++i) {
        FillZeros(packed + i * width, lanes);
      }
      VisitRuns<Real>(g_, block, [&](const ChannelRun& run) {
        const Matrix<const Storage> from = {weight + output * row + run.channel * g_.taps, row,
                                            present, run.width * g_.taps};
        PackRun<lanes>(from, block.member_columns, Rows<Real>{packed + run.column * width, width});
      });
    });
  }

  // to[tap * columns + channel, output] = from[output, (channel, tap)], for one vector of outputs.
  template <int kLanes, typename Storage>
  void PackRun(const Matrix<const Storage>& from, int64_t columns, const Rows<Real>& to) const {
    for (int64_t first = 0; first < from.columns; first += kLanes) {
      Vector<Real, kLanes> square[kLanes];
      LoadSquare<kLanes, Real>(from.From(0, first), square);
      int64_t channel = first / g_.taps;
      int64_t tap = first % g_.taps;
      for (int64_t j = 0; j < Minimum(kLanes, from.columns - first); ++j) {
        StoreVector<Real, kLanes>(to.data + (tap * columns + channel) * to.row, square[j]);
        if (++tap == g_.taps) {
          tap = 0;
          ++channel;
        }
      }
    }
  }

  // A piece is a part of the outputs of a chain, for one tile.
  void RunTiles(int64_t begin, int64_t end, Worker* worker) const {
    const int64_t thread = worker->thread();
    const int64_t of_tile = blocks_.chains() * parts_.count();
    const BlockSamples<Real> samples = {samples_ + thread * blocks_.most_taps(),
                                        columns_ + thread * ColumnsSize()};
    worker->ShareRuns((end - begin) * of_tile, {of_tile, of_tile}, [&](const PieceRun& run) {
      const int64_t tile = run.first / of_tile;
      RunTile(begin + tile, {run.first - tile * of_tile, run.end - tile * of_tile}, samples,
              sums_ + thread * SumsSize());
    });
  }

  // pieces: of the tile
  void RunTile(int64_t index, const PieceRun& pieces, const BlockSamples<Real>& samples,
               Real* sums) const {
    Tile tile;
    tiles_.Set(index, &tile);
    int64_t chain = 0;
    for (int64_t i = 0; i < blocks_.count(); ++i) {
      const ChannelBlock& block = blocks_[i];
      const ColumnRun outputs = parts_.Outputs(
          {pieces.first - chain * parts_.count(), pieces.end - chain * parts_.count()});
      if (outputs.first < outputs.end) {
        RunBlock(tile, block, outputs, samples, sums);
      }
      chain += EndsChain(g_, block);
    }
  }

  void RunBlock(const Tile& tile, const ChannelBlock& block, const ColumnRun& outputs,
                const BlockSamples<Real>& samples, Real* sums) const {
    const bool starts_chain = block.channel % g_.group_in_channels == 0;
    for (int64_t tap = 0; tap < g_.taps; tap += block.block_taps) {
      const TapRun run = {tap, Minimum(block.block_taps, g_.taps - tap)};
      sampler_.Run(tile, block, run, images_.Slab(tile.image, block), samples);
      MultiplyTaps(tile, block, run, outputs, samples.columns, {sums, !starts_chain || tap > 0});
    }
    if (EndsChain(g_, block)) {
      StoreOutputs(tile, block, outputs, sums);
    }
  }

  // The sums of a tile, and whether a product adds to them.
  struct Sums {
    Real* data;
    bool accumulate;
  };

  // A function of its own, so that the pointers of a product's inner loop stay in registers.
  [[gnu::noinline]] void MultiplyTaps(const Tile& tile, const ChannelBlock& block,
                                      const TapRun& run, const ColumnRun& outputs,
                                      const Real* columns, const Sums& sums) const {
    for (int64_t member = 0; member < block.members; ++member) {
      Factor<Real> a;
      a.data = columns + member * block.member_columns;
      a.rows = tile.pixels;
      a.row = block.pitch;
      a.steps = block.member_columns;
      a.runs = run.taps;
      a.run = kTilePixels * block.pitch;
      MultiplyPacked(a,
                     PackedRows<Real>{WeightsOf(block, member), g_.taps * block.member_columns,
                                      run.first * block.member_columns, g_.group_out_channels},
                     outputs, Rows<Real>{sums.data + member * member_outputs_, SumsRow()},
                     sums.accumulate);
    }
  }

  void StoreOutputs(const Tile& tile, const ChannelBlock& block, const ColumnRun& outputs,
                    const Real* sums) const {
    VisitStorage<Real>(call_.dtype, call_.output, [&](auto* output) {
      using Storage = std::remove_pointer_t<decltype(output)>;
      for (int64_t member = 0; member < block.members; ++member) {
        const int64_t first = (block.group + member) * g_.group_out_channels + outputs.first;
        const Matrix<const Real> from = {sums + member * member_outputs_ + outputs.first, SumsRow(),
                                         tile.pixels, outputs.end - outputs.first};
        Storage* to = output + (tile.image * g_.out_channels + first) * g_.out_pixels + tile.first;
        StoreTransposed<Lanes<Real>()>(from, g_.use_bias ? bias_ + first : nullptr,
                                       Rows<Storage>{to, g_.out_pixels});
      }
    });
  }

  const ForwardCall& call_;
  const Geometry& g_;
  int threads_;
  Tiles tiles_;
  ChannelBlocks<Real> blocks_;
  ImageSlabs<Real> images_;
  int64_t member_outputs_;  // of one group, padded
  int64_t most_members_;    // of a block
  OutputParts parts_;
  Sampler<Real> sampler_;
  Real* weights_ = nullptr;              // [block, member], each packed [tap, column][output]
  Real* bias_ = nullptr;                 // [C_out]
  TapSamples<Real>* samples_ = nullptr;  // [thread, tap of the block]
  Real* columns_ = nullptr;              // [thread], each [tap of the block, pixel, column]
  Real* sums_ = nullptr;                 // [thread], each [pixel, member, padded output]
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_FORWARD_H_
