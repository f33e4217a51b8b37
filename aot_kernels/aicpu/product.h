// SPDX-License-Identifier: Apache-2.0
// The small products that all kernels use, on rows of a tile's width.
#ifndef MS_DEFORM_AICPU_PRODUCT_H_
#define MS_DEFORM_AICPU_PRODUCT_H_

#include <algorithm>

#include "aicpu/tiles.h"

namespace ms_deform {
namespace aicpu_backend {

// A matrix of which rows and terms may lie at any distance.
struct StridedMatrix {
  const float* data;
  int64_t row_stride;
  int64_t term_stride;
};

// sums[r, p] += sum over terms t of a[r, t] * b[t, p], for Rows rows and a whole tile's width: the
// compiler keeps the rows of `sums` in vector registers.
template <int Rows>
void MultiplyRows(const StridedMatrix& a, int64_t terms, const float* b, float* sums) {
  constexpr int64_t kStrip = 16;
  for (int64_t strip = 0; strip < kTilePixels; strip += kStrip) {
    float held[Rows][kStrip];
    for (int r = 0; r < Rows; ++r) {
      std::copy_n(sums + r * kTilePixels + strip, kStrip, held[r]);
    }
    for (int64_t t = 0; t < terms; ++t) {
      for (int r = 0; r < Rows; ++r) {
        const float factor = a.data[r * a.row_stride + t * a.term_stride];
        for (int64_t p = 0; p < kStrip; ++p) {
          held[r][p] += factor * b[t * kTilePixels + strip + p];
        }
      }
    }
    for (int r = 0; r < Rows; ++r) {
      std::copy_n(held[r], kStrip, sums + r * kTilePixels + strip);
    }
  }
}

inline void Multiply(StridedMatrix a, int64_t rows, int64_t terms, const float* b, float* sums) {
  constexpr int kRows = 4;
  for (; rows >= kRows; rows -= kRows) {
    MultiplyRows<kRows>(a, terms, b, sums);
    a.data += kRows * a.row_stride;
    sums += kRows * kTilePixels;
  }
  for (; rows > 0; --rows) {
    MultiplyRows<1>(a, terms, b, sums);
    a.data += a.row_stride;
    sums += kTilePixels;
  }
}

// The sum of a tile's products, in lanes that the compiler can keep in a vector register.
inline float Dot(const float* a, const float* b) {
  constexpr int64_t kLanes = 16;
  float lanes[kLanes] = {};
  for (int64_t strip = 0; strip < kTilePixels; strip += kLanes) {
    for (int64_t i = 0; i < kLanes; ++i) {
      lanes[i] += a[strip + i] * b[strip + i];
    }
  }
  float sum = 0;
  for (float lane : lanes) {
    sum += lane;
  }
  return sum;
}

}  // namespace aicpu_backend
}  // namespace ms_deform

#endif  // MS_DEFORM_AICPU_PRODUCT_H_
