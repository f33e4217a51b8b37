// SPDX-License-Identifier: Apache-2.0
// Moves tensors between their storage (any dtype, channels first) and the kernels' working form
// (float or double, channels last, scratch memory).
#ifndef MS_DEFORM_CPU_LAYOUT_H_
#define MS_DEFORM_CPU_LAYOUT_H_

#include <cstdint>
#include <cstdlib>
#include <new>
#include <type_traits>

#include "common/dtype.h"
#include "cpu/multiply.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

constexpr int64_t kCacheLine = 64;

// Uninitialised memory aligned to a cache line; throws std::bad_alloc.
template <typename Real>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : data_(static_cast<Real*>(std::aligned_alloc(
            kCacheLine, RoundUp(Maximum(count, 1) * sizeof(Real), kCacheLine)))) {
    if (data_ == nullptr) {
      throw std::bad_alloc();
    }
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  Real* data() const { return data_; }

 private:
  Real* data_;
};

// Elements of one thread's share of a scratch buffer, so that shares do not share a cache line.
template <typename Real>
static inline int64_t ThreadShare(int64_t count) {
  return RoundUp(count, kCacheLine / sizeof(Real));
}

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

// A square of this side is moved at a time: its lines of source and target fit the L1 cache.
constexpr int64_t kTransposeSide = 16;

// Calls visit(row, column) for every element of a matrix, square by square.
template <typename Visitor>
static inline void VisitSquares(int64_t rows, int64_t columns, Visitor visit) {
  for (int64_t row = 0; row < rows; row += kTransposeSide) {
    const int64_t row_end = Minimum(row + kTransposeSide, rows);
    for (int64_t column = 0; column < columns; column += kTransposeSide) {
      const int64_t column_end = Minimum(column + kTransposeSide, columns);
      for (int64_t j = column; j < column_end; ++j) {
        for (int64_t i = row; i < row_end; ++i) {
          visit(i, j);
        }
      }
    }
  }
}

// to[column * to_row + row] = from[first + row * from_row + column]
template <typename Real>
static void LoadTransposed(DType dtype, const void* from, int64_t first, int64_t from_row,
                           int64_t rows, int64_t columns, Real* to, int64_t to_row) {
  VisitStorage<Real>(dtype, from, [=](auto* storage) {
    VisitSquares(rows, columns, [=](int64_t i, int64_t j) {
      to[j * to_row + i] = Load(storage[first + i * from_row + j]);
    });
  });
}

// to[first + column * to_row + row] = from[row * from_row + column]
template <typename Real>
static void StoreTransposed(DType dtype, const Real* from, int64_t from_row, int64_t rows,
                            int64_t columns, void* to, int64_t first, int64_t to_row) {
  VisitStorage<Real>(dtype, to, [=](auto* storage) {
    VisitSquares(rows, columns, [=](int64_t i, int64_t j) {
      Store(from[i * from_row + j], &storage[first + j * to_row + i]);
    });
  });
}

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_LAYOUT_H_
