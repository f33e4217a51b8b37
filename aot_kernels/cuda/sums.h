// SPDX-License-Identifier: Apache-2.0
// How the gradient of the input is summed up, where blocks meet at one pixel in any order.
#ifndef MS_DEFORM_CUDA_SUMS_H_
#define MS_DEFORM_CUDA_SUMS_H_

#include <type_traits>

#include "cuda/launch.h"
#include "cuda/product.h"

namespace ms_deform {
namespace cuda {

// Atomic additions: the fastest, and the last bits of a sum depend on the order.
template <typename T>
struct AtomicSums {
  using Element = Compute<T>;

  template <int kLanes>
  __device__ void Add(Element* sums, int64_t first, const Element* values) const {
    AddLanes<kLanes>(sums + first, values, std::integral_constant < bool,
                     kLanes % 4 == 0 && sizeof(Element) == 4 > ());
  }

  __device__ double Read(const Element* sums, int64_t index) const { return sums[index]; }

 private:
  template <int kLanes>
  static __device__ void AddLanes(Element* to, const Element* values, std::true_type) {
#pragma unroll
    for (int lane = 0; lane < kLanes; lane += 4) {
      AtomicAddFour(to + lane, values + lane);
    }
  }

  template <int kLanes>
  static __device__ void AddLanes(Element* to, const Element* values, std::false_type) {
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      atomicAdd(to + lane, values[lane]);
    }
  }
};

// Exponents e with |every element| < 2^e, plus kExponentBias, so that cleared memory says that all
// elements are 0; kNotFinite if one is infinite or NaN.
constexpr int kExponentBias = 1 << 14;
constexpr int kNotFinite = 1 << 20;
struct Exponents {
  int grad_output;
  int mask;
  int weight;
};

// Additions of integers, the same in any order. A sum is a multiple of 2^-scale: with `terms` terms
// below 2^e in all, it stays below 2^61 units for scale = 61 - e, and the unit is far below what
// float resolves. In double a second integer takes what the first leaves, in units of 2^-32.
// A grad_output, mask or weight that is not finite makes the whole gradient NaN.
template <typename T>
struct FixedPointSums {
  using Element = unsigned long long;  // what atomicAdd takes; two's complement
  static constexpr int kIntegers = sizeof(T) == 8 ? 2 : 1;

  const Exponents* exponents;
  int terms_exponent;  // of the number of terms in all, and what is known of the rest

  template <int kLanes>
  __device__ void Add(Element* sums, int64_t first, const Compute<T>* values) const {
    const double unit = ldexp(1.0, Scale());
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      Element* to = sums + (first + lane) * kIntegers;
      const double scaled = values[lane] * unit;
      const double whole = rint(scaled);
      atomicAdd(to, static_cast<Element>(static_cast<long long>(whole)));
      if (kIntegers == 2) {
        const double rest = rint((scaled - whole) * 4294967296.0);
        atomicAdd(to + 1, static_cast<Element>(static_cast<long long>(rest)));
      }
    }
  }

  __device__ double Read(const Element* sums, int64_t index) const {
    if (Exponent() >= kNotFinite / 2) {
      return nan("");
    }
    const Element* from = sums + index * kIntegers;
    double value = static_cast<double>(static_cast<long long>(from[0]));
    if (kIntegers == 2) {
      value += static_cast<double>(static_cast<long long>(from[1])) / 4294967296.0;
    }
    return ldexp(value, -Scale());
  }

 private:
  __device__ int Exponent() const {
    return exponents->grad_output + exponents->mask + exponents->weight - 3 * kExponentBias +
           terms_exponent;
  }
  // Limited to what a double can be scaled by.
  __device__ int Scale() const {
    const int scale = 61 - Exponent();
    return scale > 1000 ? 1000 : scale < -1000 ? -1000 : scale;
  }
};

template <typename T>
struct FindExponent {
  const T* values;
  int64_t count;
  int* exponent;  // raised to that of the values
};

template <typename T>
MS_DEFORM_KERNEL(kElementThreads, 1)
FindExponentKernel(FindExponent<T> find) {
  int most = 0;
  MS_DEFORM_FOR_ELEMENTS(index, find.count) {
    const double value = LoadOnDevice(find.values[index]);
    int exponent = 0;
    if (!isfinite(value)) {
      exponent = kNotFinite;
    } else if (value != 0) {
      frexp(value, &exponent);
      exponent += kExponentBias;
    }
    most = exponent > most ? exponent : most;
  }
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const int other = __shfl_xor_sync(0xffffffffu, most, distance);
    most = other > most ? other : most;
  }
  if (threadIdx.x % kWarp == 0) {
    atomicMax(find.exponent, most);
  }
}

template <typename T>
static void FindExponentOf(const void* values, int64_t count, int* exponent, cudaStream_t stream) {
  // Few blocks: each ends with one atomic a warp.
  constexpr int64_t kMostBlocks = 256;
  LaunchElements(FindExponentKernel<T>, Minimum(count, kMostBlocks * kElementThreads),
                 "bounding the gradient",
                 FindExponent<T>{static_cast<const T*>(values), count, exponent}, stream);
}

// The smallest e with 2^e >= count.
static inline int CeilLog2(int64_t count) {
  int exponent = 0;
  while ((int64_t{1} << exponent) < count) {
    ++exponent;
  }
  return exponent;
}

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_SUMS_H_
