// SPDX-License-Identifier: Apache-2.0
// Storage types and their conversion to the type that kernels compute in: float for the two halves,
// the type itself otherwise.
//
// A new dtype touches this file, and
// - cpu/storage.h, cuda/device.h: its conversions by the processor's own instructions
// - cuda/product.h: MatrixUnitType, if the matrix unit multiplies it
// - cuda/kernels.cu: its unit, which CUDA_DTYPES of ms_deform/install/builder.py names
// - ms_deform/geometry.py: SUPPORTED_DTYPES
// - ms_deform/backends/aot.py: what the primitives are registered for
// - ms_deform/export/mindir.py: the tolerance of its proof
// - ms_deform/port/checkpoint.py: its way through NumPy, if that lacks it
// - tests: element_types.py, operator_under_test.py, tolerances.py, cuda_emulation/mma.h
// - scripts, README.md, README_CN.md: the benchmark's dtypes and tolerances; what users are told
// and, where the other ways to Ascend take it,
// - aicpu: call.cc, entry.cc, op_proto/operators.cc
// - ms_deform/install/aicpu_operators.py
// - ms_deform/backends: aicpu.py, aclnn.py, composition.py
#ifndef MS_DEFORM_COMMON_DTYPE_H_
#define MS_DEFORM_COMMON_DTYPE_H_

#include <cstdint>
#include <cstring>

namespace ms_deform {

struct Float16 {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

enum class DType { kFloat32, kFloat64, kFloat16, kBFloat16 };

struct NamedDType {
  const char* name;  // MindSpore's
  DType dtype;
};

constexpr NamedDType kDTypes[] = {{"float32", DType::kFloat32},
                                  {"float64", DType::kFloat64},
                                  {"float16", DType::kFloat16},
                                  {"bfloat16", DType::kBFloat16}};

// Calls visit(T()) with the type T that stores the dtype.
template <typename Visitor>
static inline void VisitType(DType dtype, Visitor visit) {
  switch (dtype) {
    case DType::kFloat32:
      return visit(float());
    case DType::kFloat64:
      return visit(double());
    case DType::kFloat16:
      return visit(Float16());
    case DType::kBFloat16:
      return visit(BFloat16());
  }
}

static inline int64_t ElementBytes(DType dtype) {
  int64_t bytes = 0;
  VisitType(dtype, [&](auto example) { bytes = sizeof(example); });
  return bytes;
}

// The type that kernels compute in.
template <typename Storage>
struct ComputeOf {
  using Type = float;
};
template <>
struct ComputeOf<double> {
  using Type = double;
};
template <typename Storage>
using Compute = typename ComputeOf<Storage>::Type;

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

// Exponent and fraction move into float's place, the exponent to float's bias. A subnormal half is
// a fraction of 2^-14, which a subtraction leaves of normal floats: MindSpore's threads take
// subnormal floats for zero in graph mode.
static inline float Load(Float16 value) {
  const uint32_t shifted = (uint32_t{value.bits} & 0x7fffu) << 13;
  const uint32_t normal = shifted + (112u << 23);
  const uint32_t subnormal = BitsOf(FloatOf(shifted + (113u << 23)) - FloatOf(113u << 23));
  const uint32_t special = shifted >= (31u << 23) ? 112u << 23 : 0u;
  const uint32_t magnitude = shifted < (1u << 23) ? subnormal : normal + special;
  return FloatOf(magnitude | (uint32_t{value.bits} & 0x8000u) << 16);
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
