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

template <typename Real>
class Forward {
 public:
  explicit Forward(const ForwardCall& call)
      : call_(call),
        g_(call.geometry),
        threads_(ChooseThreads(MultiplyAdds(g_))),
        blocks_(g_),
        images_(g_, blocks_, {g_, call.dtype, call.inputs.input, blocks_}),
        member_outputs_(PaddedColumns<Real>(g_.group_out_channels)),
        most_members_(CeilDivide(blocks_.most_outputs(), Maximum(1, g_.group_out_channels))),
        sampler_(g_, {g_, call.dtype, call.inputs}, blocks_) {}

  void Run() {
    const Workspace workspace([this](ArrayPlacer* placer) { Place(placer); });
    blocks_.Fill();
    if (g_.use_bias) {
      LoadValues(call_.dtype, call_.bias, 0, g_.out_channels, bias_);
    }
    RunThreads(threads_, [this](Team& team) {
      PackWeights();
      for (int64_t image = 0; image < g_.batch; image += images_.capacity()) {
        const int64_t end = Minimum(image + images_.capacity(), g_.batch);
        images_.Load(image, end);
        team.Wait();
        RunTiles(image * TilesPerImage(g_), end * TilesPerImage(g_));
        team.Wait();
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

  // Shared out among the threads.
  void PackWeights() const {
    VisitStorage<Real>(call_.dtype, call_.inputs.weight, [this](const auto* weight) {
#pragma omp for schedule(dynamic) collapse(2) nowait
      for (int64_t index = 0; index < blocks_.count(); ++index) {
        for (int64_t panel = 0; panel < member_outputs_; panel += PanelWidth<Real>()) {
          const ChannelBlock& block = blocks_[index];
          for (int64_t member = 0; member < block.members; ++member) {
            PackPanel(weight, block, member, panel);
          }
        }
      }
    });
  }

  template <typename Storage>
  void PackPanel(const Storage* weight, const ChannelBlock& block, int64_t member,
                 int64_t panel) const {
    const int64_t width = PackedPanelWidth<Real>(g_.group_out_channels, panel);
    const int64_t depth = g_.taps * block.member_columns;
    Real* packed = WeightsOf(block, member) + panel * depth;
    FillZeros(packed, HasEmptyColumns(block) ? depth * width : 0);
    const int64_t group = block.group + member;
    const int64_t present = Minimum(width, g_.group_out_channels - panel);
    const int64_t row = g_.group_in_channels * g_.taps;
    const Storage* of_panel = weight + (group * g_.group_out_channels + panel) * row;
    VisitRuns<Real>(g_, block, [&](const ChannelRun& run) {
      const Matrix<const Storage> from = {of_panel + run.channel * g_.taps, row, present,
                                          run.width * g_.taps};
      const Rows<Real> to = {packed + run.column * width, width};
      WithLanes<Real>(width, [&](auto lanes) { PackRun<lanes>(from, block.member_columns, to); });
    });
  }

  // to[tap * columns + channel, output] = from[output, (channel, tap)]
  template <int kLanes, typename Storage>
  void PackRun(const Matrix<const Storage>& from, int64_t columns, const Rows<Real>& to) const {
    for (int64_t first = 0; first < from.columns; first += kLanes) {
      for (int64_t output = 0; output < to.row; output += kLanes) {
        Vector<Real, kLanes> square[kLanes];
        LoadSquare<kLanes, Real>(from.From(output, first), square);
        int64_t channel = first / g_.taps;
        int64_t tap = first % g_.taps;
        for (int64_t j = 0; j < Minimum(kLanes, from.columns - first); ++j) {
          StoreVector<Real, kLanes>(to.data + (tap * columns + channel) * to.row + output,
                                    square[j]);
          if (++tap == g_.taps) {
            tap = 0;
            ++channel;
          }
        }
      }
    }
  }

  // Shared out among the threads.
  void RunTiles(int64_t begin, int64_t end) const {
    const int64_t thread = omp_get_thread_num();
#pragma omp for schedule(dynamic) nowait
    for (int64_t index = begin; index < end; ++index) {
      RunTile(index, {samples_ + thread * blocks_.most_taps(), columns_ + thread * ColumnsSize()},
              sums_ + thread * SumsSize());
    }
  }

  void RunTile(int64_t index, const BlockSamples<Real>& samples, Real* sums) const {
    Tile tile;
    SetTile(g_, index, &tile);
    for (int64_t i = 0; i < blocks_.count(); ++i) {
      const ChannelBlock& block = blocks_[i];
      const bool starts_group = block.channel % g_.group_in_channels == 0;
      const bool ends_group = (block.channel + block.width) % g_.group_in_channels == 0;
      for (int64_t tap = 0; tap < g_.taps; tap += block.block_taps) {
        const TapRun run = {tap, Minimum(block.block_taps, g_.taps - tap)};
        sampler_.Run(tile, block, run, images_.Slab(tile.image, block), samples);
        MultiplyTaps(tile, block, run, samples.columns, {sums, !starts_group || tap > 0});
      }
      if (ends_group) {
        StoreOutputs(tile, block, sums);
      }
    }
  }

  // The sums of a tile, and whether a product adds to them.
  struct Sums {
    Real* data;
    bool accumulate;
  };

  // A function of its own, so that the pointers of a product's inner loop stay in registers.
  [[gnu::noinline]] void MultiplyTaps(const Tile& tile, const ChannelBlock& block,
                                      const TapRun& run, const Real* columns,
                                      const Sums& sums) const {
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
                                      run.first * block.member_columns},
                     g_.group_out_channels,
                     Rows<Real>{sums.data + member * member_outputs_, SumsRow()}, sums.accumulate);
    }
  }

  void StoreOutputs(const Tile& tile, const ChannelBlock& block, const Real* sums) const {
    VisitStorage<Real>(call_.dtype, call_.output, [&](auto* output) {
      using Storage = std::remove_pointer_t<decltype(output)>;
      for (int64_t member = 0; member < block.members; ++member) {
        const int64_t first = (block.group + member) * g_.group_out_channels;
        const Matrix<const Real> from = {sums + member * member_outputs_, SumsRow(), tile.pixels,
                                         g_.group_out_channels};
        Storage* to = output + (tile.image * g_.out_channels + first) * g_.out_pixels + tile.first;
        StoreTransposed<Lanes<Real>()>(from, g_.use_bias ? bias_ + first : nullptr,
                                       Rows<Storage>{to, g_.out_pixels});
      }
    });
  }

  const ForwardCall& call_;
  const Geometry& g_;
  int threads_;
  ChannelBlocks<Real> blocks_;
  ImageSlabs<Real> images_;
  int64_t member_outputs_;  // of one group, padded
  int64_t most_members_;    // of a block
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
