// SPDX-License-Identifier: Apache-2.0
// Moves tensors between their storage (any dtype, channels first) and the kernels' working form
// (float or double, channels last).
#ifndef MS_DEFORM_CPU_STORAGE_H_
#define MS_DEFORM_CPU_STORAGE_H_

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include <cstdint>
#include <type_traits>

#include "common/dtype.h"
#include "cpu/product.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// Calls `visit` with `data` as a pointer to the dtype's storage type, one that is computed in Real.
template <typename Real, typename Void, typename Visitor>
static inline void VisitStorage(DType dtype, Void* data, Visitor visit) {
  VisitType(dtype, [&](auto example) {
    using Storage = decltype(example);
    using Target =
        typename std::conditional<std::is_const<Void>::value, const Storage, Storage>::type;
    if constexpr (std::is_same<Compute<Storage>, Real>::value) {
      visit(static_cast<Target*>(data));
    }
  });
}

#ifdef __AVX2__
// What Load and Store of common/dtype.h do, for a vector: a line of the loops below is stored in
// parts and read as a whole, for which a processor waits. Of AVX-512 those with a mask, of all
// lanes: GCC 12 warns of its own header for those without.
constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

template <int kLanes>
static inline Vector<float, kLanes> LoadHalves(const Float16* from) {
  if constexpr (kLanes == 4) {
    return Vector<float, 4>(_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
  } else if constexpr (kLanes == 8) {
    return Vector<float, 8>(
        _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#ifdef __AVX512F__
  } else {
    return Vector<float, 16>(
        _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#endif
  }
}

template <int kLanes>
static inline Vector<float, kLanes> LoadHalves(const BFloat16* from) {
  if constexpr (kLanes == 4) {
    const __m128i halves = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return Vector<float, 4>(_mm_slli_epi32(_mm_cvtepu16_epi32(halves), 16));
  } else if constexpr (kLanes == 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return Vector<float, 8>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
#ifdef __AVX512F__
  } else {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return Vector<float, 16>(
        _mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, halves), 16));
#endif
  }
}

template <int kLanes>
static inline void StoreHalves(Vector<float, kLanes> values, Float16* to) {
  if constexpr (kLanes == 4) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_cvtps_ph(__m128(values), kNearest));
  } else if constexpr (kLanes == 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(__m256(values), kNearest));
#ifdef __AVX512F__
  } else {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm512_maskz_cvtps_ph(0xffff, __m512(values), kNearest));
#endif
  }
}

template <int kLanes>
static inline void StoreHalves(Vector<float, kLanes> values, BFloat16* to) {
  typedef uint32_t Bits __attribute__((vector_size(4 * kLanes)));
  const Bits bits = Bits(values);
  const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Bits halves = values != values ? (bits >> 16) | 0x40u : rounded;
  if constexpr (kLanes == 4) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to),
                     _mm_packus_epi32(__m128i(halves), __m128i(halves)));
  } else if constexpr (kLanes == 8) {
    const __m256i packed = _mm256_packus_epi32(__m256i(halves), __m256i(halves));
    // The halves of each part of 128 bits are its lower ones.
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
#ifdef __AVX512F__
  } else {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm512_maskz_cvtepi32_epi16(0xffff, __m512i(halves)));
#endif
  }
}
#endif

// Storage is Real or a half.
template <int kLanes, typename Real, typename Storage>
static inline Vector<Real, kLanes> LoadLine(const Storage* from) {
  if constexpr (std::is_same<Storage, Real>::value) {
    return LoadVector<Real, kLanes>(from);
  } else {
#ifdef __AVX2__
    return LoadHalves<kLanes>(from);
#else
    Real line[kLanes];
#pragma omp simd
    for (int i = 0; i < kLanes; ++i) {
      line[i] = Load(from[i]);
    }
    return LoadVector<Real, kLanes>(line);
#endif
  }
}

template <int kLanes, typename Real, typename Storage>
static inline void StoreLine(Vector<Real, kLanes> values, Storage* to) {
  if constexpr (std::is_same<Storage, Real>::value) {
    StoreVector<Real, kLanes>(to, values);
  } else {
#ifdef __AVX2__
    StoreHalves<kLanes>(values, to);
#else
    Real line[kLanes];
    StoreVector<Real, kLanes>(line, values);
#pragma omp simd
    for (int i = 0; i < kLanes; ++i) {
      Store(line[i], to + i);
    }
#endif
  }
}

template <typename Real>
static void LoadValues(DType dtype, const void* from, int64_t first, int64_t count, Real* to) {
  constexpr int kLanes = Lanes<Real>();
  VisitStorage<Real>(dtype, from, [=](auto* storage) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      StoreVector<Real, kLanes>(to + i, LoadLine<kLanes, Real>(storage + first + i));
    }
    for (; i < count; ++i) {
      to[i] = Load(storage[first + i]);
    }
  });
}

// Asks for values that will soon be loaded. GCC drops calls of functions that do nothing but
// prefetch: they must be inlined.
[[gnu::always_inline]] static inline void PrefetchValues(DType dtype, const void* from,
                                                         int64_t first, int64_t count) {
  const int64_t bytes = ElementBytes(dtype);
  const char* const values = static_cast<const char*>(from) + first * bytes;
  for (int64_t i = 0; i < count * bytes; i += kCacheLine) {
    __builtin_prefetch(values + i);
  }
}

template <typename Real>
static void StoreValues(DType dtype, const Real* from, int64_t count, void* to, int64_t first) {
  constexpr int kLanes = Lanes<Real>();
  VisitStorage<Real>(dtype, to, [=](auto* storage) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      StoreLine<kLanes, Real>(LoadVector<Real, kLanes>(from + i), storage + first + i);
    }
    for (; i < count; ++i) {
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

template <typename Element>
struct Matrix {
  Element* data;  // [rows, columns]
  int64_t row;    // distance between rows
  int64_t rows;
  int64_t columns;

  Matrix From(int64_t first_row, int64_t first_column) const {
    return {data + first_row * row + first_column, row, rows - first_row, columns - first_column};
  }
};

// As much of a square as a matrix has; the rest is 0.
template <int kLanes, typename Real, typename Storage>
[[gnu::noinline]] static void LoadPartOfSquare(Matrix<const Storage> from,
                                               Vector<Real, kLanes> square[kLanes]) {
  Real lines[kLanes][kLanes] = {};
  for (int64_t i = 0; i < Minimum(from.rows, kLanes); ++i) {
    for (int64_t j = 0; j < Minimum(from.columns, kLanes); ++j) {
      lines[i][j] = Load(from.data[i * from.row + j]);
    }
  }
  for (int i = 0; i < kLanes; ++i) {
    square[i] = LoadVector<Real, kLanes>(lines[i]);
  }
}

// The first square of a stored matrix, transposed: lane i of square[j] is from[i, j]. Rows and
// columns that the matrix does not have are 0. Inlined, so that a square stays in registers.
template <int kLanes, typename Real, typename Storage>
[[gnu::always_inline]] static inline void LoadSquare(Matrix<const Storage> from,
                                                     Vector<Real, kLanes> square[kLanes]) {
  if (from.rows >= kLanes && from.columns >= kLanes) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      square[i] = LoadLine<kLanes, Real>(from.data + i * from.row);
    }
  } else {
    LoadPartOfSquare<kLanes, Real>(from, square);
  }
  TransposeSquare<Real, kLanes>(square);
}

// to[column, row] = from[row, column], and 0 for the rest of each row of `to`, of whole vectors.
template <int kLanes, typename Real, typename Storage>
static inline void LoadTransposed(Matrix<const Storage> from, Rows<Real> to) {
  // Along the columns first: few rows at a time, which the prefetcher can follow.
  for (int64_t row = 0; row < to.row; row += kLanes) {
    for (int64_t column = 0; column < from.columns; column += kLanes) {
      Vector<Real, kLanes> square[kLanes];
      LoadSquare<kLanes, Real>(from.From(row, column), square);
      Real* corner = to.data + column * to.row + row;
      for (int64_t j = 0; j < Minimum(kLanes, from.columns - column); ++j) {
        StoreVector<Real, kLanes>(corner + j * to.row, square[j]);
      }
    }
  }
}

// The first `count` values.
template <int kLanes, typename Real, typename Storage>
static inline void StoreLine(Vector<Real, kLanes> values, int64_t count, Storage* to) {
  if (count >= kLanes) {
    StoreLine<kLanes, Real>(values, to);
    return;
  }
  Real line[kLanes];
  StoreVector<Real, kLanes>(line, values);
  for (int64_t i = 0; i < count; ++i) {
    Store(line[i], to + i);
  }
}

// to[column, row] = from[row, column] + addend[column], where `addend` may be null. Whole vectors
// of kLanes are read of each row of `from` and of `addend`.
template <int kLanes, typename Real, typename Storage>
static inline void StoreTransposed(Matrix<const Real> from, const Real* addend, Rows<Storage> to) {
  for (int64_t column = 0; column < from.columns; column += kLanes) {
    Vector<Real, kLanes> added = {};
    if (addend != nullptr) {
      added = LoadVector<Real, kLanes>(addend + column);
    }
    for (int64_t row = 0; row < from.rows; row += kLanes) {
      const Real* corner = from.data + row * from.row + column;
      Vector<Real, kLanes> square[kLanes];
      if (row + kLanes <= from.rows) {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) {
          square[i] = LoadVector<Real, kLanes>(corner + i * from.row) + added;
        }
      } else {
        for (int64_t i = 0; i < kLanes; ++i) {
          square[i] = added;
        }
        for (int64_t i = 0; i < from.rows - row; ++i) {
          square[i] += LoadVector<Real, kLanes>(corner + i * from.row);
        }
      }
      TransposeSquare<Real, kLanes>(square);
      Storage* target = to.data + column * to.row + row;
      if (column + kLanes <= from.columns && row + kLanes <= from.rows) {
#pragma GCC unroll 16
        for (int j = 0; j < kLanes; ++j) {
          StoreLine<kLanes, Real>(square[j], target + j * to.row);
        }
      } else {
        for (int64_t j = 0; j < Minimum(kLanes, from.columns - column); ++j) {
          StoreLine<kLanes, Real>(square[j], from.rows - row, target + j * to.row);
        }
      }
    }
  }
}

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_STORAGE_H_
