// SPDX-License-Identifier: Apache-2.0
// The vector vocabulary: GCC and Clang vector types as wide as the instruction set's registers,
// with the ordinary operators. Products and sums contract to fused multiply-adds
// (-ffp-contract=fast).
#ifndef MS_DEFORM_CPU_SIMD_H_
#define MS_DEFORM_CPU_SIMD_H_

#include <cstdint>

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

template <typename Real>
constexpr int Lanes() {
  return kVectorBytes / static_cast<int>(sizeof(Real));
}

template <typename Real, int kLanes>
static inline typename VectorOf<Real, kLanes>::type LoadVector(const Real* from) {
  return *reinterpret_cast<const typename VectorOf<Real, kLanes>::type*>(from);
}

template <typename Real, int kLanes>
static inline void StoreVector(Real* to, typename VectorOf<Real, kLanes>::type value) {
  *reinterpret_cast<typename VectorOf<Real, kLanes>::type*>(to) = value;
}

// The sum of all lanes, always paired in the same way.
template <typename Real, int kLanes>
static inline Real SumLanes(typename VectorOf<Real, kLanes>::type value) {
  Real lanes[kLanes];
  StoreVector<Real, kLanes>(lanes, value);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) {
      lanes[i] += lanes[i + width];
    }
  }
  return lanes[0];
}

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_SIMD_H_
