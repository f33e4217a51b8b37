// SPDX-License-Identifier: Apache-2.0
// Matrix products of tiles that live in cache: C[rows, columns] += A[rows, depth] B[depth,
// columns]. B is packed into panels of columns, [panel][depth][panel width], so that the inner
// kernel reads it contiguously; A may have any two strides, so that columns and their transpose
// serve alike.
#ifndef MS_DEFORM_CPU_MULTIPLY_H_
#define MS_DEFORM_CPU_MULTIPLY_H_

#include <cstdint>

#include "cpu/simd.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// kBlockRows x kPanelVectors accumulators, a row of B and one broadcast of A fill the registers:
// 6 x 4 + 4 + 1 of 32, or 6 x 2 + 2 + 1 of 16.
constexpr int kBlockRows = 6;
constexpr int kPanelVectors = kVectorRegisters == 32 ? 4 : 2;
static_assert(kBlockRows * kPanelVectors + kPanelVectors + 1 <= kVectorRegisters,
              "the accumulators of a block must stay in registers");

template <typename Real>
constexpr int64_t PanelWidth() {
  return kPanelVectors * Lanes<Real>();
}

static inline int64_t Minimum(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t Maximum(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t RoundUp(int64_t a, int64_t unit) { return CeilDivide(a, unit) * unit; }

// Columns of a packed matrix: a multiple of the vector, the last panel being narrower.
template <typename Real>
static inline int64_t PaddedColumns(int64_t columns) {
  return RoundUp(columns, Lanes<Real>());
}

template <typename Real>
struct Strided {
  const Real* data;
  int64_t row;    // distance between rows
  int64_t depth;  // distance between steps of the sum
};

// C[kRows, kVectors] += A B. `panel` is [depth, kVectors * Lanes].
template <typename Real, int kRows, int kVectors>
static inline void MultiplyBlock(Strided<Real> a, const Real* panel, int64_t depth, Real* c,
                                 int64_t c_row) {
  constexpr int kLanes = Lanes<Real>();
  using Vector = typename VectorOf<Real, kLanes>::type;
  Vector sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = LoadVector<Real, kLanes>(c + r * c_row + v * kLanes);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vector row_of_b[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      row_of_b[v] = LoadVector<Real, kLanes>(panel + (k * kVectors + v) * kLanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Real factor = a.data[r * a.row + k * a.depth];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] += factor * row_of_b[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      StoreVector<Real, kLanes>(c + r * c_row + v * kLanes, sum[r][v]);
    }
  }
}

template <typename Real, int kVectors>
static void MultiplyPanel(Strided<Real> a, int64_t rows, const Real* panel, int64_t depth, Real* c,
                          int64_t c_row) {
  int64_t row = 0;
  for (; row + kBlockRows <= rows; row += kBlockRows) {
    const Strided<Real> block = {a.data + row * a.row, a.row, a.depth};
    MultiplyBlock<Real, kBlockRows, kVectors>(block, panel, depth, c + row * c_row, c_row);
  }
  const Strided<Real> rest = {a.data + row * a.row, a.row, a.depth};
  Real* rest_of_c = c + row * c_row;
  static_assert(kBlockRows == 6, "one case for each number of rows that can be left");
  switch (rows - row) {
    case 5:
      return MultiplyBlock<Real, 5, kVectors>(rest, panel, depth, rest_of_c, c_row);
    case 4:
      return MultiplyBlock<Real, 4, kVectors>(rest, panel, depth, rest_of_c, c_row);
    case 3:
      return MultiplyBlock<Real, 3, kVectors>(rest, panel, depth, rest_of_c, c_row);
    case 2:
      return MultiplyBlock<Real, 2, kVectors>(rest, panel, depth, rest_of_c, c_row);
    case 1:
      return MultiplyBlock<Real, 1, kVectors>(rest, panel, depth, rest_of_c, c_row);
    default:
      return;
  }
}

// A row range of a packed matrix: `packed` points at its first panel, whose panels are
// `panel_depth` rows apart, and the product takes `depth` rows from row `first` on.
template <typename Real>
struct PackedRows {
  const Real* packed;
  int64_t panel_depth;
  int64_t first;
  int64_t depth;
};

// C[rows, padded columns] += A B
template <typename Real>
static void Multiply(Strided<Real> a, int64_t rows, PackedRows<Real> b, int64_t columns, Real* c,
                     int64_t c_row) {
  constexpr int64_t kLanes = Lanes<Real>();
  for (int64_t column = 0; column < columns; column += PanelWidth<Real>()) {
    const int64_t vectors = CeilDivide(Minimum(columns - column, PanelWidth<Real>()), kLanes);
    const Real* panel = b.packed + column * b.panel_depth + b.first * vectors * kLanes;
    switch (vectors) {
      case 1:
        MultiplyPanel<Real, 1>(a, rows, panel, b.depth, c + column, c_row);
        break;
      case 2:
        MultiplyPanel<Real, 2>(a, rows, panel, b.depth, c + column, c_row);
        break;
      case 3:
        MultiplyPanel<Real, 3>(a, rows, panel, b.depth, c + column, c_row);
        break;
      default:
        MultiplyPanel<Real, kPanelVectors>(a, rows, panel, b.depth, c + column, c_row);
    }
  }
}

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_MULTIPLY_H_
