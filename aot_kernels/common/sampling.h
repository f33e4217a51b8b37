// SPDX-License-Identifier: Apache-2.0
// The sampling rule, the one place where the border exists. A tap of the kernel reads the image at
// a fractional point by bilinear interpolation, equations (3) and (4) of "Deformable Convolutional
// Networks" (Dai et al., 2017, arXiv:1703.06211), times the mask of equation (1) of "Deformable
// ConvNets v2" (Zhu et al., 2018, arXiv:1811.11168). Plain C++14, for host and device alike, and
// without branches, so that a loop over points becomes vector code.
#ifndef MS_DEFORM_COMMON_SAMPLING_H_
#define MS_DEFORM_COMMON_SAMPLING_H_

#include <cmath>
#include <cstdint>

#include "common/function.h"

namespace ms_deform {

constexpr int kCorners = 4;  // top left, top right, bottom left, bottom right

// The corners are the pixels (top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1);
// those outside the image count as 0. A point without corners in the image is (height, -1).
template <typename Real>
struct SamplePoint {
  int32_t top;
  int32_t left;
  Real fraction_y;  // distance from the top corners, in [0, 1); NaN for a NaN point
  Real fraction_x;  // distance from the left corners, likewise
  bool inside;      // whether the sample has a value: -1 < y < height and -1 < x < width
};

// At exactly y = -1 or x = -1 a sample has no value, yet the slope towards the image is not zero:
// the derivative is the one from the right, as at every integer coordinate. The corners therefore
// are those of the image there although `inside` is false. A NaN coordinate gives a NaN sample that
// touches no pixel; an infinite or huge one lies outside, with no value and no slope.
template <typename Real>
MS_DEFORM_FUNCTION SamplePoint<Real> LocateSample(Real y, Real x, int32_t height, int32_t width) {
  // A clamp that makes a NaN -1, so that the conversion to an integer is defined.
  const Real above = y > Real(-1) ? y : Real(-1);
  const Real right = x > Real(-1) ? x : Real(-1);
  const Real near_y = above < Real(height) ? above : Real(height);
  const Real near_x = right < Real(width) ? right : Real(width);
  // Conversion rounds towards zero, which is up for negative coordinates.
  const int32_t whole_y = static_cast<int32_t>(near_y);
  const int32_t whole_x = static_cast<int32_t>(near_x);
  const int32_t top = whole_y - (Real(whole_y) > near_y ? 1 : 0);
  const int32_t left = whole_x - (Real(whole_x) > near_x ? 1 : 0);
  // `&` and `|`: the short-circuit operators are branches.
  const bool has_corner = (near_y == y) & (near_x == x) & (top < height) & (left < width);
  const Real nan_or_zero = (y == y ? Real(0) : y) + (x == x ? Real(0) : x);
  SamplePoint<Real> point;
  point.top = has_corner ? top : height;
  point.left = has_corner ? left : -1;
  point.fraction_y = near_y - Real(top) + nan_or_zero;
  point.fraction_x = near_x - Real(left) + nan_or_zero;
  point.inside =
      (has_corner & (near_y > Real(-1)) & (near_x > Real(-1))) | (nan_or_zero != Real(0));
  return point;
}

// value = sum_i weights[i] * image[corner i]
template <typename Real>
MS_DEFORM_FUNCTION void CornerWeights(Real fraction_y, Real fraction_x, Real weights[kCorners]) {
  const Real low_y = Real(1) - fraction_y;
  const Real low_x = Real(1) - fraction_x;
  weights[0] = low_y * low_x;
  weights[1] = low_y * fraction_x;
  weights[2] = fraction_y * low_x;
  weights[3] = fraction_y * fraction_x;
}

// d value / dy and d value / dx from values[i] = image[corner i], 0 for an outside corner.
template <typename Real>
MS_DEFORM_FUNCTION void SampleSlopes(Real fraction_y, Real fraction_x, const Real values[kCorners],
                                     Real* slope_y, Real* slope_x) {
  const Real low_y = Real(1) - fraction_y;
  const Real low_x = Real(1) - fraction_x;
  *slope_y = low_x * (values[2] - values[0]) + fraction_x * (values[3] - values[1]);
  *slope_x = low_y * (values[1] - values[0]) + fraction_y * (values[3] - values[2]);
}

}  // namespace ms_deform

#endif  // MS_DEFORM_COMMON_SAMPLING_H_
