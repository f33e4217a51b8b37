// SPDX-License-Identifier: Apache-2.0
// Matrix products of tiles that live in cache: C[rows, columns] = or += A[rows, depth] B[depth,
// columns]. Vectors run along the columns, so B and C are contiguous there; columns come in panels
// of kPanelVectors vectors, and what is left in a narrower one. Products write whole vectors: the
// rows of C must have room for PaddedColumns.
#ifndef MS_DEFORM_CPU_PRODUCT_H_
#define MS_DEFORM_CPU_PRODUCT_H_

#include <cstdint>

#include "cpu/simd.h"
#include "cpu/workspace.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// A full panel: 6 x 4 accumulators, a row of B and one broadcast of A fill 32 registers, 6 x 2 fill
// 16. Narrower panels have more rows in a block, so that there are always some ten independent
// sums to hide the latency of a multiply-add behind.
constexpr int kPanelVectors = kVectorRegisters == 32 ? 4 : 2;

template <typename Real>
constexpr int64_t PanelWidth() {
  return kPanelVectors * Lanes<Real>();
}

// The width of some columns in memory: full vectors, or half a one if that is enough for all.
template <typename Real>
static inline int64_t PaddedColumns(int64_t columns) {
  return columns > 0 && columns <= HalfLanes<Real>() ? HalfLanes<Real>()
                                                     : RoundUp(columns, Lanes<Real>());
}

// A packed B is a sequence of panels, each [depth, width of the panel].
template <typename Real>
static inline int64_t PackedPanelWidth(int64_t columns, int64_t first_column) {
  return Minimum(PanelWidth<Real>(), PaddedColumns<Real>(columns) - first_column);
}

// A: element (row r, run u, step k) is data[r * row + u * run + k * step]; the depth is `runs`
// times `steps`.
template <typename Real>
struct Factor {
  const Real* data;
  int64_t rows;
  int64_t row;
  int64_t steps;
  int64_t step = 1;
  int64_t runs = 1;
  int64_t run = 0;

  Factor FromRow(int64_t first) const {
    return {data + first * row, rows - first, row, steps, step, runs, run};
  }
};

template <typename Real>
struct Rows {
  Real* data;
  int64_t row;  // distance between rows
};

// A packed B of `depth` rows, of which a product takes those from `first` on.
template <typename Real>
struct PackedRows {
  const Real* data;
  int64_t depth;
  int64_t first;
  int64_t columns;
};

// Some columns of a product.
struct ColumnRun {
  int64_t first;
  int64_t end;
};

// One block of C, [kRows, kVectors * kLanes].
template <int kLanes, int kRows, int kVectors, typename Real>
static inline void MultiplyBlock(Factor<Real> a, Rows<const Real> b, Rows<Real> c,
                                 bool accumulate) {
  static_assert(kRows * kVectors + kVectors + 1 <= kVectorRegisters,
                "sums, a row of B and a broadcast must stay in registers");
  Vector<Real, kLanes> sum[kRows][kVectors] = {};
  if (accumulate) {
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = LoadVector<Real, kLanes>(c.data + r * c.row + v * kLanes);
      }
    }
  }
  for (int64_t u = 0; u < a.runs; ++u) {
    // A pointer for three rows: with the stride as an index, scaled by 1 or 2, they fit the general
    // registers.
    const Real* factor[CeilDivide(kRows, 3)];
    for (int i = 0; i < CeilDivide(kRows, 3); ++i) {
      factor[i] = a.data + u * a.run + 3 * i * a.row;
    }
    for (int64_t k = 0; k < a.steps; ++k) {
      Vector<Real, kLanes> row_of_b[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        row_of_b[v] = LoadVector<Real, kLanes>(b.data + v * kLanes);
      }
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
        const Real broadcast = factor[r / 3][r % 3 * a.row];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          sum[r][v] += broadcast * row_of_b[v];
        }
      }
      b.data += b.row;
      for (int i = 0; i < CeilDivide(kRows, 3); ++i) {
        factor[i] += a.step;
      }
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      StoreVector<Real, kLanes>(c.data + r * c.row + v * kLanes, sum[r][v]);
    }
  }
}

// Blocks of kRows while there are as many, then of ever fewer.
template <int kLanes, int kRows, int kVectors, typename Real>
static void MultiplyRows(Factor<Real> a, Rows<const Real> b, Rows<Real> c, bool accumulate) {
  int64_t row = 0;
  for (; row + kRows <= a.rows; row += kRows) {
    MultiplyBlock<kLanes, kRows, kVectors>(a.FromRow(row), b, {c.data + row * c.row, c.row},
                                           accumulate);
  }
  if constexpr (kRows > 1) {
    constexpr int kFewer = kRows > 8 ? 8 : kRows > 4 ? 4 : kRows / 2;
    if (row < a.rows) {
      MultiplyRows<kLanes, kFewer, kVectors>(a.FromRow(row), b,
                                             Rows<Real>{c.data + row * c.row, c.row}, accumulate);
    }
  }
}

// One panel of columns.
template <typename Real>
static void MultiplyPanel(Factor<Real> a, Rows<const Real> b, int64_t columns, Rows<Real> c,
                          bool accumulate) {
  constexpr int kLanes = Lanes<Real>();
  constexpr int kHalf = HalfLanes<Real>();
  if (columns <= kHalf) {
    return MultiplyRows<kHalf, 12, 1>(a, b, c, accumulate);
  }
  const int64_t vectors = CeilDivide(columns, kLanes);
  if constexpr (kPanelVectors == 4) {
    switch (vectors) {
      case 1:
        return MultiplyRows<kLanes, 12, 1>(a, b, c, accumulate);
      case 2:
        return MultiplyRows<kLanes, 12, 2>(a, b, c, accumulate);
      case 3:
        return MultiplyRows<kLanes, 8, 3>(a, b, c, accumulate);
      default:
        return MultiplyRows<kLanes, 6, 4>(a, b, c, accumulate);
    }
  } else {
    return vectors == 1 ? MultiplyRows<kLanes, 12, 1>(a, b, c, accumulate)
                        : MultiplyRows<kLanes, 6, 2>(a, b, c, accumulate);
  }
}

// B is a matrix with rows.
template <typename Real>
static void Multiply(Factor<Real> a, Rows<const Real> b, int64_t columns, Rows<Real> c,
                     bool accumulate) {
  for (int64_t column = 0; column < columns; column += PanelWidth<Real>()) {
    MultiplyPanel(a, Rows<const Real>{b.data + column, b.row},
                  Minimum(columns - column, PanelWidth<Real>()), Rows<Real>{c.data + column, c.row},
                  accumulate);
  }
}

// B is packed.
template <typename Real>
static void MultiplyPacked(Factor<Real> a, PackedRows<Real> b, const ColumnRun& columns,
                           Rows<Real> c, bool accumulate) {
  for (int64_t column = columns.first; column < columns.end;) {
    const int64_t in_panel = column % PanelWidth<Real>();
    const int64_t width = PackedPanelWidth<Real>(b.columns, column - in_panel);
    const Real* panel = b.data + (column - in_panel) * b.depth + b.first * width;
    const int64_t end = Minimum(columns.end, column - in_panel + width);
    MultiplyPanel(a, Rows<const Real>{panel + in_panel, width}, end - column,
                  Rows<Real>{c.data + column, c.row}, accumulate);
    column = end;
  }
}

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_PRODUCT_H_
