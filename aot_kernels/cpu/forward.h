// SPDX-License-Identifier: Apache-2.0
// output[n, o, p] = bias[o] + sum over taps t and channels c of weight[o, c, t] * column[p, t, c]
#ifndef MS_DEFORM_CPU_FORWARD_H_
#define MS_DEFORM_CPU_FORWARD_H_

#include "cpu/columns.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// Depth of one product: the columns of a tile, kTilePixels * kBlockDepth, must stay in L2.
constexpr int64_t kBlockDepth = 256;
// Channels sampled together; what they leave of kBlockDepth is filled with taps.
constexpr int64_t kSlabChannels = 128;
// Outputs of whole groups that are accumulated together, beside the columns in L2.
constexpr int64_t kBatchOutputs = 1024;

template <typename Real>
class Forward {
 public:
  explicit Forward(const ForwardCall& call)
      : call_(call),
        g_(call.geometry),
        threads_(ChooseThreads(MultiplyAdds(g_))),
        padded_outputs_(PaddedColumns<Real>(g_.group_out_channels)),
        batch_groups_(ChooseBatchGroups()),
        slab_channels_(Minimum(batch_groups_ * g_.group_in_channels, kSlabChannels)),
        block_taps_(Minimum(g_.taps, Maximum(1, kBlockDepth / slab_channels_))),
        weights_(g_.groups * GroupWeights()),
        bias_(g_.out_channels) {}

  void Run() {
    PackWeights();
    LoadBias();
    ChannelsLastImages<Real> images(g_, threads_);
    const int64_t columns_share = ThreadShare<Real>(kTilePixels * block_taps_ * slab_channels_);
    const int64_t sums_share = ThreadShare<Real>(kTilePixels * batch_groups_ * padded_outputs_);
    const int64_t samples_share = TilePlan<Real>::Samples(g_, block_taps_, slab_channels_);
    const Scratch<Real> columns(threads_ * columns_share);
    const Scratch<Real> sums(threads_ * sums_share);
    const Scratch<ColumnSample<Real>> samples(threads_ * samples_share);
    for (int64_t image = 0; image < g_.batch; image += images.capacity()) {
      const int64_t count = Minimum(images.capacity(), g_.batch - image);
      images.Load(g_, call_.dtype, call_.inputs.input, image, count);
#pragma omp parallel for num_threads(threads_) schedule(dynamic)
      for (int64_t index = 0; index < count * TilesPerImage(g_); ++index) {
        const Tile tile = TileAt(g_, image * TilesPerImage(g_) + index);
        const int64_t thread = omp_get_thread_num();
        const Workspace workspace = {TilePlan<Real>(samples.data() + thread * samples_share),
                                     columns.data() + thread * columns_share,
                                     sums.data() + thread * sums_share};
        RunTile(images.Image(tile.image), tile, workspace);
      }
    }
  }

 private:
  struct Workspace {
    TilePlan<Real> plan;
    Real* columns;  // [pixel, tap of the block, channel of the slab]
    Real* sums;     // [pixel, group of the batch, padded output]
  };

  int64_t ChooseBatchGroups() const {
    const int64_t by_channels = kSlabChannels / g_.group_in_channels;
    const int64_t by_outputs = kBatchOutputs / Maximum(padded_outputs_, 1);
    return Minimum(g_.groups, Maximum(1, Minimum(by_channels, by_outputs)));
  }

  int64_t GroupDepth() const { return g_.taps * g_.group_in_channels; }

  int64_t GroupWeights() const { return GroupDepth() * padded_outputs_; }

  // Each group's weights become a packed matrix with a row for every (tap, channel) and a column
  // for every output. Reading runs along the weights of a panel's outputs at once.
  void PackWeights() {
    VisitStorage<Real>(call_.dtype, call_.inputs.weight, [this](const auto* weight) {
      const int64_t outputs = g_.group_out_channels;
#pragma omp parallel for num_threads(threads_) collapse(2) schedule(static)
      for (int64_t group = 0; group < g_.groups; ++group) {
        for (int64_t c = 0; c < g_.group_in_channels; ++c) {
          for (int64_t panel = 0; panel < padded_outputs_; panel += PanelWidth<Real>()) {
            const int64_t width = Minimum(PanelWidth<Real>(), padded_outputs_ - panel);
            Real* to = weights_.data() + group * GroupWeights() + panel * GroupDepth() + c * width;
            for (int64_t tap = 0; tap < g_.taps; ++tap) {
              for (int64_t o = 0; o < width; ++o) {
                const int64_t row = (group * outputs + panel + o) * g_.group_in_channels + c;
                to[tap * g_.group_in_channels * width + o] =
                    panel + o < outputs ? Load(weight[row * g_.taps + tap]) : Real(0);
              }
            }
          }
        }
      }
    });
  }

  void LoadBias() {
    if (g_.use_bias) {
      LoadValues(call_.dtype, call_.bias, 0, g_.out_channels, bias_.data());
    } else {
      for (int64_t o = 0; o < g_.out_channels; ++o) {
        bias_.data()[o] = Real(0);
      }
    }
  }

  void RunTile(const Real* image, const Tile& tile, Workspace workspace) const {
    for (int64_t group = 0; group < g_.groups; group += batch_groups_) {
      const int64_t group_end = Minimum(group + batch_groups_, g_.groups);
      StartSums(tile, group, group_end, workspace.sums);
      for (int64_t tap = 0; tap < g_.taps; tap += block_taps_) {
        const int64_t taps = Minimum(block_taps_, g_.taps - tap);
        const int64_t channel_end = group_end * g_.group_in_channels;
        for (int64_t c = group * g_.group_in_channels; c < channel_end; c += slab_channels_) {
          const Channels slab = {c, Minimum(c + slab_channels_, channel_end)};
          workspace.plan.Locate(g_, call_.dtype, call_.inputs, tile, tap, taps, slab);
          workspace.plan.Sample(g_, image, tile, slab, workspace.columns);
          for (int64_t member = group; member < group_end; ++member) {
            MultiplySlab(tile, tap, taps, slab, member, workspace.columns,
                         workspace.sums + (member - group) * padded_outputs_);
          }
        }
      }
      StoreOutputs(tile, group, group_end, workspace.sums);
    }
  }

  int64_t SumsRow() const { return batch_groups_ * padded_outputs_; }

  void StartSums(const Tile& tile, int64_t group, int64_t group_end, Real* sums) const {
    for (int64_t p = 0; p < tile.pixels; ++p) {
      for (int64_t member = group; member < group_end; ++member) {
        Real* to = sums + p * SumsRow() + (member - group) * padded_outputs_;
        for (int64_t o = 0; o < padded_outputs_; ++o) {
          to[o] = o < g_.group_out_channels ? bias_.data()[member * g_.group_out_channels + o]
                                            : Real(0);
        }
      }
    }
  }

  // Adds to a group's sums what the columns of a slab, whole groups or a part of one, give.
  void MultiplySlab(const Tile& tile, int64_t tap, int64_t taps, Channels slab, int64_t group,
                    const Real* columns, Real* sums) const {
    const int64_t slab_width = slab.end - slab.begin;
    const int64_t group_begin = group * g_.group_in_channels;
    const int64_t begin = Maximum(slab.begin, group_begin);
    const int64_t width = Minimum(slab.end, group_begin + g_.group_in_channels) - begin;
    // The columns of all taps are one run of the depth if the slab is just this group.
    const bool one_run = slab_width == g_.group_in_channels;
    const int64_t run_depth = one_run ? taps * width : width;
    for (int64_t t = 0; t < (one_run ? 1 : taps); ++t) {
      const Strided<Real> a = {columns + t * slab_width + (begin - slab.begin), taps * slab_width,
                               1};
      const PackedRows<Real> b = {weights_.data() + group * GroupWeights(), GroupDepth(),
                                  (tap + t) * g_.group_in_channels + (begin - group_begin),
                                  run_depth};
      Multiply(a, tile.pixels, b, g_.group_out_channels, sums, SumsRow());
    }
  }

  void StoreOutputs(const Tile& tile, int64_t group, int64_t group_end, const Real* sums) const {
    for (int64_t member = group; member < group_end; ++member) {
      const int64_t channel = tile.image * g_.out_channels + member * g_.group_out_channels;
      StoreTransposed(call_.dtype, sums + (member - group) * padded_outputs_, SumsRow(),
                      tile.pixels, g_.group_out_channels, call_.output,
                      channel * g_.out_pixels + tile.first, g_.out_pixels);
    }
  }

  const ForwardCall& call_;
  const Geometry& g_;
  int threads_;
  int64_t padded_outputs_;  // of a group
  int64_t batch_groups_;    // groups accumulated together
  int64_t slab_channels_;   // channels sampled together: whole groups or a part of one
  int64_t block_taps_;      // taps sampled together
  Scratch<Real> weights_;   // [group], each packed [tap, channel][output]
  Scratch<Real> bias_;      // [C_out]
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_FORWARD_H_
