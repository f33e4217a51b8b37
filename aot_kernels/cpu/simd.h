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

// Lanes of 128 bits, within which x86's cheapest shuffles work.
template <typename Real>
constexpr int PartLanes() {
  return 16 / static_cast<int>(sizeof(Real));
}

// Within each block of kBlock lanes: kUnit lanes of a, of b, the next ones of a, ... from lane
// kFirst of each block on.
template <typename Real, int kLanes, int kUnit, int kBlock, int kFirst, int... kIndex>
static inline Vector<Real, kLanes> ZipFrom(Vector<Real, kLanes> a, Vector<Real, kLanes> b,
                                           std::integer_sequence<int, kIndex...>) {
  return Shuffle<Real, kLanes>(
      a, b,
      std::integer_sequence<int, (kIndex / kBlock * kBlock + kFirst +
                                  kIndex % kBlock / (2 * kUnit) * kUnit + kIndex % kUnit +
                                  kIndex % kBlock / kUnit % 2 * kLanes)...>());
}

template <typename Real, int kLanes, int kUnit, int kBlock>
static inline Vector<Real, kLanes> ZipLow(Vector<Real, kLanes> a, Vector<Real, kLanes> b) {
  return ZipFrom<Real, kLanes, kUnit, kBlock, 0>(a, b, std::make_integer_sequence<int, kLanes>());
}

template <typename Real, int kLanes, int kUnit, int kBlock>
static inline Vector<Real, kLanes> ZipHigh(Vector<Real, kLanes> a, Vector<Real, kLanes> b) {
  return ZipFrom<Real, kLanes, kUnit, kBlock, kBlock / 2>(
      a, b, std::make_integer_sequence<int, kLanes>());
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

// Transposes all squares of kBlock / kUnit rows, kUnit rows apart, and as many units of kUnit
// lanes. A zip of rows i and i + half of them rotates the bits of (row, unit) by one; after as many
// rounds as there are bits of a row they have changed places.
template <typename Real, int kLanes, int kUnit, int kBlock>
[[gnu::always_inline]] static inline void TransposeUnits(Vector<Real, kLanes> rows[kLanes]) {
  constexpr int kRows = kBlock / kUnit;
#pragma GCC unroll 8
  for (int round = 1; round < kRows; round *= 2) {
    Vector<Real, kLanes> zipped[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes / 2; ++i) {
      const int square = i / (kRows / 2) / kUnit * kBlock + i / (kRows / 2) % kUnit;
      const int row = i % (kRows / 2);
      const auto a = rows[square + row * kUnit];
      const auto b = rows[square + (row + kRows / 2) * kUnit];
      zipped[square + 2 * row * kUnit] = ZipLow<Real, kLanes, kUnit, kBlock>(a, b);
      zipped[square + (2 * row + 1) * kUnit] = ZipHigh<Real, kLanes, kUnit, kBlock>(a, b);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      rows[i] = zipped[i];
    }
  }
}

// Transposes a square: within parts first, then the parts.
template <typename Real, int kLanes>
[[gnu::always_inline]] static inline void TransposeSquare(Vector<Real, kLanes> rows[kLanes]) {
  constexpr int kPart = PartLanes<Real>();
  TransposeUnits<Real, kLanes, 1, kPart>(rows);
  if constexpr (kLanes > kPart) {
    TransposeUnits<Real, kLanes, kPart, kLanes>(rows);
  }
}

// Of each part a and b in turn: the sums of their pairs of lanes.
template <typename Real, int kLanes>
static inline Vector<Real, kLanes> AddPairs(Vector<Real, kLanes> a, Vector<Real, kLanes> b) {
  constexpr int kPart = PartLanes<Real>();
  return ZipLow<Real, kLanes, 1, kPart>(a, b) + ZipHigh<Real, kLanes, 1, kPart>(a, b);
}

// The sum of all parts, in the first.
template <typename Real, int kLanes>
static inline void AddParts(Vector<Real, kLanes>* sum) {
  constexpr int kPart = PartLanes<Real>();
  if constexpr (kLanes > kPart) {
    *sum += Rotate<Real, kLanes, kLanes / 2>(*sum);
  }
  if constexpr (kLanes > 2 * kPart) {
    *sum += Rotate<Real, kLanes, kLanes / 4>(*sum);
  }
}

// sums[i] is the sum of the lanes of rows[i], always paired in the same way.
template <typename Real, int kLanes>
static inline void SumFourRows(const Vector<Real, kLanes> rows[4], Real sums[4]) {
  if constexpr (sizeof(Real) == 8) {
    auto first = AddPairs<Real, kLanes>(rows[0], rows[1]);
    auto second = AddPairs<Real, kLanes>(rows[2], rows[3]);
    AddParts<Real, kLanes>(&first);
    AddParts<Real, kLanes>(&second);
    std::memcpy(sums, &first, 16);
    std::memcpy(sums + 2, &second, 16);
  } else {
    auto sum = AddPairs<Real, kLanes>(AddPairs<Real, kLanes>(rows[0], rows[2]),
                                      AddPairs<Real, kLanes>(rows[1], rows[3]));
    AddParts<Real, kLanes>(&sum);
    std::memcpy(sums, &sum, 16);
  }
}

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_SIMD_H_
