// SPDX-License-Identifier: Apache-2.0
// Moves tensors between their storage (any dtype, channels first) and the kernels' working form
// (float or double, channels last).
#ifndef MS_DEFORM_CPU_LAYOUT_H_
#define MS_DEFORM_CPU_LAYOUT_H_

#include <cstdint>
#include <type_traits>

#include "common/dtype.h"
#include "cpu/multiply.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// Calls `visit` with `data` as a pointer to the dtype's storage type.
template <typename Real, typename Void, typename Visitor>
static inline void VisitStorage(DType dtype, Void* data, Visitor visit) {
  constexpr bool kConst = std::is_const<Void>::value;
  const auto as = [data](auto example) {
    using Storage = decltype(example);
    using Target = typename std::conditional<kConst, const Storage, Storage>::type;
    return static_cast<Target*>(data);
  };
  if constexpr (std::is_same<Real, double>::value) {
    visit(as(double()));
  } else if (dtype == DType::kFloat16) {
    visit(as(Float16()));
  } else if (dtype == DType::kBFloat16) {
    visit(as(BFloat16()));
  } else {
    visit(as(float()));
  }
}

template <typename Real>
static void LoadValues(DType dtype, const void* from, int64_t first, int64_t count, Real* to) {
  VisitStorage<Real>(dtype, from, [=](auto* storage) {
    for (int64_t i = 0; i < count; ++i) {
      to[i] = Load(storage[first + i]);
    }
  });
}

template <typename Real>
static void StoreValues(DType dtype, const Real* from, int64_t count, void* to, int64_t first) {
  VisitStorage<Real>(dtype, to, [=](auto* storage) {
    for (int64_t i = 0; i < count; ++i) {
      Store(from[i], &storage[first + i]);
    }
  });
}

template <typename Real>
static inline void FillZeros(Real* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    to[i] = Real(0);
  }
}

// Calls body(std::integral_constant<int, lanes>): full vectors, or half ones where they are enough.
template <typename Real, typename Body>
static inline void WithLanes(int64_t width, Body body) {
  if (width <= HalfLanes<Real>()) {
    body(std::integral_constant<int, HalfLanes<Real>()>());
  } else {
    body(std::integral_constant<int, Lanes<Real>()>());
  }
}

// A square of a stored matrix, transposed: lane i of square[j] is from[i * from_row + j]. Rows and
// columns that the matrix does not have are 0.
template <int kLanes, typename Real, typename Storage>
static inline void LoadSquare(const Storage* from, int64_t from_row, int64_t rows, int64_t columns,
                              Vector<Real, kLanes> square[kLanes]) {
  if (rows >= kLanes && columns >= kLanes) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      Real line[kLanes];
#pragma omp simd
      for (int j = 0; j < kLanes; ++j) {
        line[j] = Load(from[i * from_row + j]);
      }
      square[i] = LoadVector<Real, kLanes>(line);
    }
  } else {
    Real lines[kLanes][kLanes] = {};
    for (int64_t i = 0; i < Minimum(rows, kLanes); ++i) {
      for (int64_t j = 0; j < Minimum(columns, kLanes); ++j) {
        lines[i][j] = Load(from[i * from_row + j]);
      }
    }
    for (int i = 0; i < kLanes; ++i) {
      square[i] = LoadVector<Real, kLanes>(lines[i]);
    }
  }
  TransposeSquare<Real, kLanes>(square);
}

// to[column * to_row + row] = from[row * from_row + column]. The rows are padded with zeros to
// whole vectors of kLanes.
template <int kLanes, typename Real, typename Storage>
static inline void LoadTransposed(const Storage* from, int64_t from_row, int64_t rows,
                                  int64_t columns, Real* to, int64_t to_row) {
  // Along the columns first: few rows at a time, which the prefetcher can follow.
  for (int64_t row = 0; row < to_row; row += kLanes) {
    for (int64_t column = 0; column < columns; column += kLanes) {
      Vector<Real, kLanes> square[kLanes];
      LoadSquare<kLanes, Real>(from + row * from_row + column, from_row, rows - row,
                               columns - column, square);
      Real* corner = to + column * to_row + row;
      for (int64_t j = 0; j < Minimum(kLanes, columns - column); ++j) {
        StoreVector<Real, kLanes>(corner + j * to_row, square[j]);
      }
    }
  }
}

template <int kLanes, typename Real, typename Storage>
static inline void StoreLine(Vector<Real, kLanes> values, int64_t count, Storage* to) {
  Real line[kLanes];
  StoreVector<Real, kLanes>(line, values);
  if (count >= kLanes) {
#pragma omp simd
    for (int i = 0; i < kLanes; ++i) {
      Store(line[i], to + i);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      Store(line[i], to + i);
    }
  }
}

// to[column * to_row + row] = from[row * from_row + column] + addend[column], where `addend` may be
// null. Whole vectors of kLanes are read of each row of `from` and of `addend`.
template <int kLanes, typename Real, typename Storage>
static inline void StoreTransposed(const Real* from, int64_t from_row, int64_t rows,
                                   int64_t columns, const Real* addend, Storage* to,
                                   int64_t to_row) {
  for (int64_t column = 0; column < columns; column += kLanes) {
    Vector<Real, kLanes> added = {};
    if (addend != nullptr) {
      added = LoadVector<Real, kLanes>(addend + column);
    }
    for (int64_t row = 0; row < rows; row += kLanes) {
      const Real* corner = from + row * from_row + column;
      Vector<Real, kLanes> square[kLanes];
      if (row + kLanes <= rows) {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) {
          square[i] = LoadVector<Real, kLanes>(corner + i * from_row) + added;
        }
      } else {
        for (int64_t i = 0; i < kLanes; ++i) {
          square[i] = added;
        }
        for (int64_t i = 0; i < rows - row; ++i) {
          square[i] += LoadVector<Real, kLanes>(corner + i * from_row);
        }
      }
      TransposeSquare<Real, kLanes>(square);
      Storage* target = to + column * to_row + row;
      if (column + kLanes <= columns && row + kLanes <= rows) {
#pragma GCC unroll 16
        for (int j = 0; j < kLanes; ++j) {
          StoreLine<kLanes, Real>(square[j], kLanes, target + j * to_row);
        }
      } else {
        for (int64_t j = 0; j < Minimum(kLanes, columns - column); ++j) {
          StoreLine<kLanes, Real>(square[j], rows - row, target + j * to_row);
        }
      }
    }
  }
}

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_LAYOUT_H_
