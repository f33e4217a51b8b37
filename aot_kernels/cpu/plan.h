// SPDX-License-Identifier: Apache-2.0
// The sampling plan of a tile: where each of its pixels samples through one tap of the kernel, for
// one offset group. Forward and backward use the same one.
#ifndef MS_DEFORM_CPU_PLAN_H_
#define MS_DEFORM_CPU_PLAN_H_

#include "common/sampling.h"
#include "cpu/images.h"

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
static void LocateTap(const Geometry& g, DType dtype, const Inputs& inputs, const Tile& tile,
                      int64_t offset_group, int64_t tap, TapPoints<Real>* points) {
  Real offset_y[kTilePixels];
  Real offset_x[kTilePixels];
  const int64_t channel = (tile.image * g.offset_groups + offset_group) * g.taps + tap;
  LoadValues(dtype, inputs.offset, 2 * channel * g.out_pixels + tile.first, tile.pixels, offset_y);
  LoadValues(dtype, inputs.offset, (2 * channel + 1) * g.out_pixels + tile.first, tile.pixels,
             offset_x);
  if (g.use_mask) {
    LoadValues(dtype, inputs.mask, channel * g.out_pixels + tile.first, tile.pixels, points->mask);
  } else {
    for (int64_t p = 0; p < tile.pixels; ++p) {
      points->mask[p] = Real(1);
    }
  }
  const auto tap_y = static_cast<int32_t>(tap / g.kernel_width * g.dilation_height);
  const auto tap_x = static_cast<int32_t>(tap % g.kernel_width * g.dilation_width);
  const auto height = static_cast<int32_t>(g.in_height);
  const auto width = static_cast<int32_t>(g.in_width);
  const auto slab_width = static_cast<int32_t>(SlabWidth(g));
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

template <typename Real>
static void FoldTap(const Geometry& g, const Tile& tile, const TapPoints<Real>& points,
                    TapSamples<Real>* samples) {
  const auto outside = static_cast<int32_t>(SlabPixel(g, g.in_height, -1));
  for (int64_t p = 0; p < tile.pixels; ++p) {
    samples->pixel[p] = points.inside[p] ? points.pixel[p] : outside;
  }
  for (int64_t p = 0; p < tile.pixels; ++p) {
    Real weight[kCorners];
    CornerWeights(points.fraction_y[p], points.fraction_x[p], weight);
    for (int i = 0; i < kCorners; ++i) {
      samples->weight[i][p] = weight[i] * points.mask[p];
    }
  }
}

// columns[tap, pixel, kPitch] of one slice, with pixels `columns_row` apart and taps kTilePixels
// pixels; `row` is the distance between rows of the slab.
template <typename Real, int kPitch>
static void SampleTaps(const Tile& tile, const TapSamples<Real>* samples, int64_t taps,
                       const Real* slab, int64_t row, Real* columns, int64_t columns_row) {
  constexpr int kLanes = LanesOfPitch<Real>(kPitch);
  for (int64_t p = 0; p < tile.pixels; ++p) {
    for (int64_t t = 0; t < taps; ++t) {
      const TapSamples<Real>& of_tap = samples[t];
      const Real* top = slab + int64_t{of_tap.pixel[p]} * kPitch;
      const Real* bottom = top + row;
      const Real weight[kCorners] = {of_tap.weight[0][p], of_tap.weight[1][p], of_tap.weight[2][p],
                                     of_tap.weight[3][p]};
      Real* column = columns + (t * kTilePixels + p) * columns_row;
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

// grad_output[output of the block's groups, kTilePixels]
template <typename Real>
static void LoadGradOutput(const Geometry& g, DType dtype, const void* from, const Tile& tile,
                           const ChannelBlock& block, Real* grad_output) {
  const int64_t first = tile.image * g.out_channels + block.group * g.group_out_channels;
  for (int64_t o = 0; o < block.members * g.group_out_channels; ++o) {
    LoadValues(dtype, from, (first + o) * g.out_pixels + tile.first, tile.pixels,
               grad_output + o * kTilePixels);
  }
}

// Samples a block into columns [tap, pixel, block.pitch].
template <typename Real>
class Sampler {
 public:
  Sampler(const Geometry& g, DType dtype, const Inputs& inputs)
      : g_(g), dtype_(dtype), inputs_(inputs) {}

  void Run(const Tile& tile, const ChannelBlocks<Real>& blocks, const ChannelBlock& block,
           int64_t first_tap, int64_t taps, const Real* slab, TapSamples<Real>* samples,
           Real* columns) const {
    for (int64_t i = 0; i < block.offset_groups; ++i) {
      const Slice& slice = blocks.SlicesOf(block)[i];
      for (int64_t t = 0; t < taps; ++t) {
        TapPoints<Real> points;
        LocateTap(g_, dtype_, inputs_, tile, slice.offset_group, first_tap + t, &points);
        FoldTap(g_, tile, points, &samples[t]);
      }
      WithPitch<Real>(slice.pitch, [&](auto pitch) {
        SampleTaps<Real, pitch>(tile, samples, taps, slab + slice.column * SlabPixels(g_),
                                SlabWidth(g_) * pitch, columns + slice.column, block.pitch);
      });
    }
  }

 private:
  const Geometry& g_;
  DType dtype_;
  const Inputs& inputs_;
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_PLAN_H_
