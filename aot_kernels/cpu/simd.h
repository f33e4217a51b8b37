// SPDX-License-Identifier: Apache-2.0
// The vector vocabulary: GCC and Clang vector types as wide as the instruction set's registers,
// with the ordinary operators. Products and sums contract to fused multiply-adds
// (-ffp-contract=fast).
#ifndef MS_DEFORM_CPU_SIMD_H_
#define MS_DEFORM_CPU_SIMD_H_

#include <cstdint>
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

// Lanes 0, 0, 1, 1, ... of a and b in turn, from lane `kFirst` of each on.
template <typename Real, int kLanes, int kFirst, size_t... kIndex>
static inline Vector<Real, kLanes> Zip(Vector<Real, kLanes> a, Vector<Real, kLanes> b,
                                       std::index_sequence<kIndex...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (kFirst + kIndex / 2 + kIndex % 2 * kLanes)...);
#else
  using Integer = typename std::conditional<sizeof(Real) == 8, int64_t, int32_t>::type;
  typedef Integer Order __attribute__((vector_size(kLanes * sizeof(Real))));
  return __builtin_shuffle(
      a, b, Order{static_cast<Integer>(kFirst + kIndex / 2 + kIndex % 2 * kLanes)...});
#endif
}

template <typename Real, int kLanes>
static inline Vector<Real, kLanes> ZipLow(Vector<Real, kLanes> a, Vector<Real, kLanes> b) {
  return Zip<Real, kLanes, 0>(a, b, std::make_index_sequence<kLanes>());
}

template <typename Real, int kLanes>
static inline Vector<Real, kLanes> ZipHigh(Vector<Real, kLanes> a, Vector<Real, kLanes> b) {
  return Zip<Real, kLanes, kLanes / 2>(a, b, std::make_index_sequence<kLanes>());
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

// Lane i of the result is the sum of the lanes of rows[i], always paired in the same way.
template <typename Real, int kLanes>
static inline Vector<Real, kLanes> SumRows(Vector<Real, kLanes> rows[kLanes]) {
#pragma GCC unroll 8
  for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < half; ++i) {
      rows[i] = ZipLow<Real, kLanes>(rows[i], rows[i + half]) +
                ZipHigh<Real, kLanes>(rows[i], rows[i + half]);
    }
  }
  return rows[0];
}

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_SIMD_H_
