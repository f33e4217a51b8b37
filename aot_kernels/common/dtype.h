// SPDX-License-Identifier: Apache-2.0
// Storage types and their conversion to the type that kernels compute in: float for the two halves,
// the type itself otherwise.
#ifndef MS_DEFORM_COMMON_DTYPE_H_
#define MS_DEFORM_COMMON_DTYPE_H_

#include <cstdint>
#include <cstring>

namespace ms_deform {

enum class DType { kFloat32, kFloat64, kFloat16, kBFloat16 };

struct Float16 {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

static inline uint32_t BitsOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

static inline float FloatOf(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

template <typename Real>
static inline Real Load(Real value) {
  return value;
}

static inline float Load(BFloat16 value) { return FloatOf(uint32_t{value.bits} << 16); }

// Exponent and fraction move into float's place; the product with 2^112 rebiases the exponent and
// normalises subnormals. Infinity and NaN come out at 65536 or more and get float's top exponent.
static inline float Load(Float16 value) {
  const uint32_t sign = (uint32_t{value.bits} & 0x8000u) << 16;
  const float two_to_112 = FloatOf(0x77800000u);
  const float magnitude = FloatOf((uint32_t{value.bits} & 0x7fffu) << 13) * two_to_112;
  const uint32_t special = magnitude >= 65536.0f ? 0x7f800000u : 0u;
  return FloatOf(BitsOf(magnitude) | special | sign);
}

template <typename Real>
static inline void Store(Real value, Real* to) {
  *to = value;
}

// Both halves round to nearest, ties to even; a NaN stays a NaN.
static inline void Store(float value, BFloat16* to) {
  const uint32_t bits = BitsOf(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to->bits = static_cast<uint16_t>(value != value ? (bits >> 16) | 0x40u : rounded);
}

static inline void Store(float value, Float16* to) {
  const uint32_t bits = BitsOf(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Below 2^-14 a half is subnormal: adding 0.5 leaves its fraction, rounded, in the lowest bits.
  const uint32_t subnormal = BitsOf(FloatOf(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const uint32_t half = magnitude >= 0x47800000u ? special : finite;
  to->bits = static_cast<uint16_t>(half | ((bits >> 16) & 0x8000u));
}

}  // namespace ms_deform

#endif  // MS_DEFORM_COMMON_DTYPE_H_
