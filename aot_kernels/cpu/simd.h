// SPDX-License-Identifier: Apache-2.0
// The vector vocabulary: GCC and Clang vector types as wide as the instruction set's registers,
// with the ordinary operators. Products and sums contract to fused multiply-adds
// (-ffp-contract=fast).
#ifndef MS_DEFORM_CPU_SIMD_H_
#define MS_DEFORM_CPU_SIMD_H_

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace ms_deform {
namespace MS_DEFORM_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kVectorRegisters = 32;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kVectorRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16;
constexpr int kVectorRegisters = 32;
#else
constexpr int kVectorBytes = 16;
constexpr int kVectorRegisters = 16;
#endif

// `kLanes` values at any address that is aligned for one of them.
template <typename Real, int kLanes>
struct VectorOf {
  typedef Real type
      __attribute__((vector_size(kLanes * sizeof(Real)), aligned(sizeof(Real)), may_alias));
};

template <typename Real, int kLanes>
using Vector = typename VectorOf<Real, kLanes>::type;

// Lanes of a full register, and of the half one that serves narrow matrices.
template <typename Real>
constexpr int Lanes() {
  return kVectorBytes / static_cast<int>(sizeof(Real));
}
template <typename Real>
constexpr int HalfLanes() {
  return kVectorBytes > 16 ? Lanes<Real>() / 2 : Lanes<Real>();
}

template <typename Real, int kLanes>
static inline Vector<Real, kLanes> LoadVector(const Real* from) {
  return *reinterpret_cast<const Vector<Real, kLanes>*>(from);
}

template <typename Real, int kLanes>
static inline void StoreVector(Real* to, Vector<Real, kLanes> value) {
  *reinterpret_cast<Vector<Real, kLanes>*>(to) = value;
}

// The lanes of a and b, numbered through, in the order of kIndex.
template <typename Real, int kLanes, int... kIndex>
static inline Vector<Real, kLanes> Shuffle(Vector<Real, kLanes> a, Vector<Real, kLanes> b,
                                           std::integer_sequence<int, kIndex...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, kIndex...);
#else
  using Integer = typename std::conditional<sizeof(Real) == 8, int64_t, int32_t>::type;
  typedef Integer Order __attribute__((vector_size(kLanes * sizeof(Real))));
  return __builtin_shuffle(a, b, Order{kIndex...});
#endif
}

// Lane 0 of a, lane 0 of b, lane 1 of a, ... from lane `kFirst` of each on.
template <typename Real, int kLanes, int kFirst, int... kIndex>
static inline Vector<Real, kLanes> Zip(Vector<Real, kLanes> a, Vector<Real, kLanes> b,
                                       std::integer_sequence<int, kIndex...>) {
  return Shuffle<Real, kLanes>(
      a, b, std::integer_sequence<int, (kFirst + kIndex / 2 + kIndex % 2 * kLanes)...>());
}

template <typename Real, int kLanes>
static inline Vector<Real, kLanes> ZipLow(Vector<Real, kLanes> a, Vector<Real, kLanes> b) {
  return Zip<Real, kLanes, 0>(a, b, std::make_integer_sequence<int, kLanes>());
}

template <typename Real, int kLanes>
static inline Vector<Real, kLanes> ZipHigh(Vector<Real, kLanes> a, Vector<Real, kLanes> b) {
  return Zip<Real, kLanes, kLanes / 2>(a, b, std::make_integer_sequence<int, kLanes>());
}

template <typename Real, int kLanes, int kBy, int... kIndex>
static inline Vector<Real, kLanes> RotateBy(Vector<Real, kLanes> a,
                                            std::integer_sequence<int, kIndex...>) {
  return Shuffle<Real, kLanes>(a, a, std::integer_sequence<int, ((kIndex + kBy) % kLanes)...>());
}

// Lane i of the result is lane i + kBy of a, around the end.
template <typename Real, int kLanes, int kBy>
static inline Vector<Real, kLanes> Rotate(Vector<Real, kLanes> a) {
  return RotateBy<Real, kLanes, kBy>(a, std::make_integer_sequence<int, kLanes>());
}

// Transposes a square. A zip of rows i and i + kLanes / 2 rotates the bits of (row, lane) by one;
// after log2(kLanes) rounds row and lane have changed places.
template <typename Real, int kLanes>
static inline void TransposeSquare(Vector<Real, kLanes> rows[kLanes]) {
#pragma GCC unroll 8
  for (int round = 1; round < kLanes; round *= 2) {
    Vector<Real, kLanes> zipped[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes / 2; ++i) {
      zipped[2 * i] = ZipLow<Real, kLanes>(rows[i], rows[i + kLanes / 2]);
      zipped[2 * i + 1] = ZipHigh<Real, kLanes>(rows[i], rows[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      rows[i] = zipped[i];
    }
  }
}

// sums[i] is the sum of the lanes of rows[i], always paired in the same way.
template <typename Real, int kLanes>
static inline void SumFourRows(const Vector<Real, kLanes> rows[4], Real sums[4]) {
  if constexpr (kLanes < 4) {
    for (int i = 0; i < 4; ++i) {
      sums[i] = rows[i][0] + rows[i][1];
    }
  } else {
    const auto even =
        ZipLow<Real, kLanes>(rows[0], rows[2]) + ZipHigh<Real, kLanes>(rows[0], rows[2]);
    const auto odd =
        ZipLow<Real, kLanes>(rows[1], rows[3]) + ZipHigh<Real, kLanes>(rows[1], rows[3]);
    // Lanes of rows 0, 1, 2, 3 in turn.
    auto sum = ZipLow<Real, kLanes>(even, odd) + ZipHigh<Real, kLanes>(even, odd);
    if constexpr (kLanes > 4) {
      sum += Rotate<Real, kLanes, kLanes / 2>(sum);
    }
    if constexpr (kLanes > 8) {
      sum += Rotate<Real, kLanes, kLanes / 4>(sum);
    }
    std::memcpy(sums, &sum, 4 * sizeof(Real));
  }
}

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_SIMD_H_
