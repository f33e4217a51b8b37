// SPDX-License-Identifier: Apache-2.0
// The sampling rule, the one place where the border exists. A tap of the kernel reads the image at
// a fractional point by bilinear interpolation, equations (3) and (4) of "Deformable Convolutional
// Networks" (Dai et al., 2017, arXiv:1703.06211), times the mask of equation (1) of "Deformable
// ConvNets v2" (Zhu et al., 2018, arXiv:1811.11168). Plain C++14, for host and device alike.
#ifndef MS_DEFORM_COMMON_SAMPLING_H_
#define MS_DEFORM_COMMON_SAMPLING_H_

#include <cmath>
#include <cstdint>

// `static`: translation units compiled for different instruction sets must not share one copy.
#ifdef __CUDACC__
#define MS_DEFORM_FUNCTION static inline __host__ __device__
#else
#define MS_DEFORM_FUNCTION static inline
#endif

namespace ms_deform {

constexpr int kCorners = 4;  // top left, top right, bottom left, bottom right
constexpr int64_t kOutsideCorner = -1;

template <typename Real>
struct SamplePoint {
  int64_t corner[kCorners];  // y * width + x, or kOutsideCorner
  Real fraction_y;           // distance from the top corners, in [0, 1); NaN for a NaN point
  Real fraction_x;           // distance from the left corners, likewise
  bool inside;               // whether the sample has a value: -1 < y < height and -1 < x < width
};

// At exactly y = -1 or x = -1 a sample has no value, yet the slope towards the image is not zero:
// the derivative is the one from the right, as at every integer coordinate. `corner` therefore is
// set there although `inside` is false. A NaN coordinate gives a NaN sample that touches no pixel;
// an infinite or huge one lies outside, with no value and no slope.
template <typename Real>
MS_DEFORM_FUNCTION SamplePoint<Real> LocateSample(Real y, Real x, int64_t height, int64_t width) {
  SamplePoint<Real> point;
  for (int i = 0; i < kCorners; ++i) {
    point.corner[i] = kOutsideCorner;
  }
  point.fraction_y = Real(0);
  point.fraction_x = Real(0);
  point.inside = false;
  if (y != y || x != x) {
    point.fraction_y = point.fraction_x = Real(NAN);
    point.inside = true;
    return point;
  }
  if (!(y >= Real(-1) && y < Real(height) && x >= Real(-1) && x < Real(width))) {
    return point;
  }
  const Real floor_y = std::floor(y);
  const Real floor_x = std::floor(x);
  const int64_t top = static_cast<int64_t>(floor_y);
  const int64_t left = static_cast<int64_t>(floor_x);
  const bool has_top = top >= 0, has_bottom = top + 1 < height;
  const bool has_left = left >= 0, has_right = left + 1 < width;
  const int64_t first = top * width + left;
  point.corner[0] = has_top && has_left ? first : kOutsideCorner;
  point.corner[1] = has_top && has_right ? first + 1 : kOutsideCorner;
  point.corner[2] = has_bottom && has_left ? first + width : kOutsideCorner;
  point.corner[3] = has_bottom && has_right ? first + width + 1 : kOutsideCorner;
  point.fraction_y = y - floor_y;
  point.fraction_x = x - floor_x;
  point.inside = y > Real(-1) && x > Real(-1);
  return point;
}

// value = sum_i weights[i] * image[corner i]
template <typename Real>
MS_DEFORM_FUNCTION void CornerWeights(const SamplePoint<Real>& point, Real weights[kCorners]) {
  const Real low_y = Real(1) - point.fraction_y;
  const Real low_x = Real(1) - point.fraction_x;
  weights[0] = low_y * low_x;
  weights[1] = low_y * point.fraction_x;
  weights[2] = point.fraction_y * low_x;
  weights[3] = point.fraction_y * point.fraction_x;
}

// d value / dy and d value / dx from values[i] = image[corner i], 0 for an outside corner.
template <typename Real>
MS_DEFORM_FUNCTION void SampleSlopes(const SamplePoint<Real>& point, const Real values[kCorners],
                                     Real* slope_y, Real* slope_x) {
  const Real low_y = Real(1) - point.fraction_y;
  const Real low_x = Real(1) - point.fraction_x;
  *slope_y = low_x * (values[2] - values[0]) + point.fraction_x * (values[3] - values[1]);
  *slope_x = low_y * (values[1] - values[0]) + point.fraction_y * (values[3] - values[2]);
}

}  // namespace ms_deform

#endif  // MS_DEFORM_COMMON_SAMPLING_H_
