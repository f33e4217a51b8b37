// SPDX-License-Identifier: Apache-2.0
// The sampling plan of a tile: where each of its pixels samples through one tap of the kernel, for
// one offset group; and the samples themselves. Forward and backward use the same one.
#ifndef MS_DEFORM_CPU_PLAN_H_
#define MS_DEFORM_CPU_PLAN_H_

#include "common/sampling.h"
#include "cpu/slabs.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// One tap's samples: value = sum_i weight[i] * corner i.
template <typename Real>
struct TapSamples {
  int32_t pixel[kTilePixels];          // of the slab: the top left corner
  Real weight[kCorners][kTilePixels];  // mask included
};

// What the gradients need beside them.
template <typename Real>
struct TapPoints {
  int32_t pixel[kTilePixels];  // as in TapSamples, and where a point without value has a slope
  Real fraction_y[kTilePixels];
  Real fraction_x[kTilePixels];
  Real mask[kTilePixels];
  int32_t inside[kTilePixels];
};

template <typename Real>
class Plan {
 public:
  Plan(const Geometry& g, DType dtype, const Inputs& inputs)
      : g_(g), dtype_(dtype), inputs_(inputs) {}

  void Locate(const Tile& tile, int64_t offset_group, int64_t tap, TapPoints<Real>* points) const {
    Real offset_y[kTilePixels];
    Real offset_x[kTilePixels];
    const int64_t channel = (tile.image * g_.offset_groups + offset_group) * g_.taps + tap;
    const int64_t first = channel * g_.out_pixels + tile.first;
    const int64_t first_y = 2 * channel * g_.out_pixels + tile.first;
    PrefetchPoints(tile, channel + 1);
    LoadValues(dtype_, inputs_.offset, first_y, tile.pixels, offset_y);
    LoadValues(dtype_, inputs_.offset, first_y + g_.out_pixels, tile.pixels, offset_x);
    if (g_.use_mask) {
      LoadValues(dtype_, inputs_.mask, first, tile.pixels, points->mask);
    } else {
      for (int64_t p = 0; p < tile.pixels; ++p) {
        points->mask[p] = Real(1);
      }
    }
    const auto tap_y = static_cast<int32_t>(tap / g_.kernel_width * g_.dilation_height);
    const auto tap_x = static_cast<int32_t>(tap % g_.kernel_width * g_.dilation_width);
    const auto height = static_cast<int32_t>(g_.in_height);
    const auto width = static_cast<int32_t>(g_.in_width);
    const auto slab_width = static_cast<int32_t>(SlabWidth(g_));
    for (int64_t p = 0; p < tile.pixels; ++p) {
      const SamplePoint<Real> point =
          LocateSample(Real(tile.origin_y[p] + tap_y) + offset_y[p],
                       Real(tile.origin_x[p] + tap_x) + offset_x[p], height, width);
      points->pixel[p] = (point.top + 1) * slab_width + point.left + 1;
      points->fraction_y[p] = point.fraction_y;
      points->fraction_x[p] = point.fraction_x;
      points->inside[p] = point.inside;
    }
  }

  void Fold(int64_t pixels, const TapPoints<Real>& points, TapSamples<Real>* samples) const {
    const auto outside = static_cast<int32_t>(SlabPixel(g_, g_.in_height, -1));
    for (int64_t p = 0; p < pixels; ++p) {
      samples->pixel[p] = points.inside[p] ? points.pixel[p] : outside;
    }
    for (int64_t p = 0; p < pixels; ++p) {
      Real weight[kCorners];
      CornerWeights(points.fraction_y[p], points.fraction_x[p], weight);
      for (int i = 0; i < kCorners; ++i) {
        samples->weight[i][p] = weight[i] * points.mask[p];
      }
    }
  }

 private:
  // Of the tap that most likely comes next: its points lie so far from the others that no processor
  // foresees them (5 to 10 % of a call with many offset groups).
  [[gnu::always_inline]] void PrefetchPoints(const PixelRun& run, int64_t channel) const {
    if (channel == g_.batch * g_.offset_groups * g_.taps) {
      return;
    }
    const int64_t first_y = 2 * channel * g_.out_pixels + run.first;
    PrefetchValues(dtype_, inputs_.offset, first_y, run.pixels);
    PrefetchValues(dtype_, inputs_.offset, first_y + g_.out_pixels, run.pixels);
    if (g_.use_mask) {
      PrefetchValues(dtype_, inputs_.mask, channel * g_.out_pixels + run.first, run.pixels);
    }
  }

  const Geometry& g_;
  DType dtype_;
  const Inputs& inputs_;
};

// Some consecutive taps of the kernel.
struct TapRun {
  int64_t first;
  int64_t taps;
};

// What sampling a block leaves behind.
template <typename Real>
struct BlockSamples {
  TapSamples<Real>* samples;  // [tap], of the block's last slice
  Real* columns;              // [tap, kTilePixels, block.pitch]
};

// columns[tap, pixel, kPitch] of one slice, with taps kTilePixels rows apart; the rows of the slab
// are image rows.
template <int kPitch, typename Real>
static void SampleTaps(const TapSamples<Real>* samples, int64_t taps, int64_t pixels,
                       Rows<const Real> slab, Rows<Real> columns) {
  constexpr int kLanes = LanesOfPitch<Real>(kPitch);
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t t = 0; t < taps; ++t) {
      const TapSamples<Real>& of_tap = samples[t];
      const Real* top = slab.data + int64_t{of_tap.pixel[p]} * kPitch;
      const Real* bottom = top + slab.row;
      const Real weight[kCorners] = {of_tap.weight[0][p], of_tap.weight[1][p], of_tap.weight[2][p],
                                     of_tap.weight[3][p]};
      Real* column = columns.data + (t * kTilePixels + p) * columns.row;
#pragma GCC unroll 4
      for (int c = 0; c < kPitch; c += kLanes) {
        StoreVector<Real, kLanes>(column + c,
                                  weight[0] * LoadVector<Real, kLanes>(top + c) +
                                      weight[1] * LoadVector<Real, kLanes>(top + kPitch + c) +
                                      weight[2] * LoadVector<Real, kLanes>(bottom + c) +
                                      weight[3] * LoadVector<Real, kLanes>(bottom + kPitch + c));
      }
    }
  }
}

// Samples blocks of channels.
template <typename Real>
class Sampler {
 public:
  Sampler(const Geometry& g, const Plan<Real>& plan, const ChannelBlocks<Real>& blocks)
      : g_(g), plan_(plan), blocks_(blocks) {}

  // slab: of the tile's image and the block.
  void Run(const Tile& tile, const ChannelBlock& block, const TapRun& run, const Real* slab,
           const BlockSamples<Real>& to) const {
    for (int64_t i = 0; i < block.offset_groups; ++i) {
      const Slice& slice = blocks_.SlicesOf(block)[i];
      for (int64_t t = 0; t < run.taps; ++t) {
        TapPoints<Real> points;
        plan_.Locate(tile, slice.offset_group, run.first + t, &points);
        plan_.Fold(tile.pixels, points, &to.samples[t]);
      }
      WithPitch<Real>(slice.pitch, [&](auto pitch) {
        SampleTaps<pitch>(
            to.samples, run.taps, tile.pixels,
            Rows<const Real>{slab + slice.column * SlabPixels(g_), SlabWidth(g_) * pitch},
            Rows<Real>{to.columns + slice.column, block.pitch});
      });
    }
  }

 private:
  const Geometry& g_;
  Plan<Real> plan_;
  const ChannelBlocks<Real>& blocks_;
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_PLAN_H_
