// SPDX-License-Identifier: Apache-2.0
// What one tap of a slice gives to the gradients of the points and of the image, from the gradients
// of its columns: grad_columns[pixel, place].
#ifndef MS_DEFORM_CPU_SCATTER_H_
#define MS_DEFORM_CPU_SCATTER_H_

#include "cpu/plan.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// A slice's slabs of an image, of which the rows are image rows.
template <typename Real>
struct SliceSlabs {
  const Real* image;
  Real* grad_image;
  int64_t row;
};

// For each pixel dots[i] = grad_column * corner i of the image, and, with kScatter, corner i of
// grad_image += weight[i] * grad_column.
template <int kPitch, bool kScatter, typename Real>
static void VisitCorners(const TapPoints<Real>& points, const TapSamples<Real>& samples,
                         Matrix<const Real> grad_columns, SliceSlabs<Real> slabs,
                         Real dots[kTilePixels][kCorners]) {
  constexpr int kLanes = LanesOfPitch<Real>(kPitch);
  using Values = Vector<Real, kLanes>;
  for (int64_t p = 0; p < grad_columns.rows; ++p) {
    const Real* grad_column = grad_columns.data + p * grad_columns.row;
    const Real* top = slabs.image + int64_t{points.pixel[p]} * kPitch;
    const Real* bottom = top + slabs.row;
    Real* grad_top = slabs.grad_image + int64_t{samples.pixel[p]} * kPitch;
    Real* grad_bottom = grad_top + slabs.row;
    const Real weight[kCorners] = {samples.weight[0][p], samples.weight[1][p], samples.weight[2][p],
                                   samples.weight[3][p]};
    Values sum[kCorners] = {};
#pragma GCC unroll 4
    for (int c = 0; c < kPitch; c += kLanes) {
      const Values grad = LoadVector<Real, kLanes>(grad_column + c);
      sum[0] += grad * LoadVector<Real, kLanes>(top + c);
      sum[1] += grad * LoadVector<Real, kLanes>(top + kPitch + c);
      sum[2] += grad * LoadVector<Real, kLanes>(bottom + c);
      sum[3] += grad * LoadVector<Real, kLanes>(bottom + kPitch + c);
      if constexpr (kScatter) {
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
    }
    SumFourRows<Real, kLanes>(sum, dots[p]);
  }
}

// Pixels of a slab.
struct SlabRange {
  int32_t first;
  int32_t end;
};

// Those of the corners of some samples that are in the image: of the top left ones.
template <typename Real>
static SlabRange CornersOf(int64_t pixels, const TapPoints<Real>& points) {
  SlabRange range = {INT32_MAX, 0};
  for (int64_t p = 0; p < pixels; ++p) {
    const bool inside = points.inside[p] != 0;
    range.first = inside && points.pixel[p] < range.first ? points.pixel[p] : range.first;
    range.end = inside && points.pixel[p] >= range.end ? points.pixel[p] + 1 : range.end;
  }
  return range;
}

// The scattering of VisitCorners, as far as corners lie in whole rows of the slab: for each of
// their elements the same additions in the same order.
template <int kPitch, typename Real>
static void ScatterToRows(const TapSamples<Real>& samples, Matrix<const Real> grad_columns,
                          Real* grad_slab, int32_t slab_width, const SlabRange& rows) {
  constexpr int kLanes = LanesOfPitch<Real>(kPitch);
  int32_t chosen[kTilePixels];
  int64_t count = 0;
  const auto span = static_cast<uint32_t>(rows.end - rows.first + slab_width);
  for (int64_t p = 0; p < grad_columns.rows; ++p) {
    chosen[count] = static_cast<int32_t>(p);
    count += static_cast<uint32_t>(samples.pixel[p] - rows.first + slab_width) < span;
  }
  for (int64_t k = 0; k < count; ++k) {
    const int64_t p = chosen[k];
    const Real* grad_column = grad_columns.data + p * grad_columns.row;
    for (int i = 0; i < kCorners; ++i) {
      // A right corner beyond the rows is the border of the next one.
      const int32_t pixel = samples.pixel[p] + (i / 2) * slab_width + i % 2;
      if (pixel < rows.first || pixel >= rows.end) {
        continue;
      }
      Real* to = grad_slab + int64_t{pixel} * kPitch;
      const Real weight = samples.weight[i][p];
#pragma GCC unroll 4
      for (int c = 0; c < kPitch; c += kLanes) {
        const auto grad = LoadVector<Real, kLanes>(grad_column + c);
        StoreVector<Real, kLanes>(to + c, LoadVector<Real, kLanes>(to + c) + weight * grad);
      }
    }
  }
}

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_SCATTER_H_
