// SPDX-License-Identifier: Apache-2.0
// What the kernels use of CUDA beyond C++ and the matrix unit of <mma.h>: launches, shared memory
// and the instructions that have no C++ name. Nothing else here writes PTX or <<<>>>, so that the
// tests can put an emulation in the place of this header and run the kernels on a CPU.
#ifndef MS_DEFORM_CUDA_DEVICE_H_
#define MS_DEFORM_CUDA_DEVICE_H_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <mma.h>

#include <cstdint>

#include "common/dtype.h"

#define MS_DEFORM_DEVICE static __device__ __forceinline__
// blocks: that run at a time on a multiprocessor; the compiler keeps registers to what allows it.
#define MS_DEFORM_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)

namespace ms_deform {
namespace cuda {

// The block's shared memory, as large as the launch asked for.
template <typename Shared>
MS_DEFORM_DEVICE Shared& SharedMemory() {
  extern __shared__ __align__(128) unsigned char shared_memory[];
  return *reinterpret_cast<Shared*>(shared_memory);
}

template <typename Arguments>
static inline void Launch(void (*kernel)(Arguments), int64_t blocks, int threads,
                          int64_t shared_bytes, cudaStream_t stream, const Arguments& arguments) {
  kernel<<<static_cast<unsigned>(blocks), threads, shared_bytes, stream>>>(arguments);
}

MS_DEFORM_DEVICE float LoadOnDevice(Float16 value) {
  return __half2float(__ushort_as_half(value.bits));
}

MS_DEFORM_DEVICE float LoadOnDevice(BFloat16 value) {
  return __uint_as_float(uint32_t{value.bits} << 16);
}

MS_DEFORM_DEVICE float LoadOnDevice(float value) { return value; }
MS_DEFORM_DEVICE double LoadOnDevice(double value) { return value; }

MS_DEFORM_DEVICE void StoreOnDevice(float value, Float16* to) {
  to->bits = __half_as_ushort(__float2half_rn(value));
}

MS_DEFORM_DEVICE void StoreOnDevice(float value, BFloat16* to) {
  to->bits = __nv_bfloat16_raw(__float2bfloat16_rn(value)).x;
}

MS_DEFORM_DEVICE void StoreOnDevice(float value, float* to) { *to = value; }
MS_DEFORM_DEVICE void StoreOnDevice(double value, double* to) { *to = value; }

// Two neighbouring halves, by one instruction.
MS_DEFORM_DEVICE void LoadPair(const Float16* from, float* to) {
  const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(from));
  to[0] = pair.x;
  to[1] = pair.y;
}

MS_DEFORM_DEVICE void LoadPair(const BFloat16* from, float* to) {
  const uint32_t pair = *reinterpret_cast<const uint32_t*>(from);
  to[0] = __uint_as_float(pair << 16);
  to[1] = __uint_as_float(pair & 0xffff0000u);
}

MS_DEFORM_DEVICE void StorePair(const float* from, Float16* to) {
  *reinterpret_cast<__half2*>(to) = __floats2half2_rn(from[0], from[1]);
}

MS_DEFORM_DEVICE void StorePair(const float* from, BFloat16* to) {
  *reinterpret_cast<__nv_bfloat162*>(to) = __floats2bfloat162_rn(from[0], from[1]);
}

template <typename T, int kLanes>
constexpr bool kInPairs = sizeof(T) == 2 && kLanes % 2 == 0;

// kLanes neighbouring elements.
template <int kLanes, typename T>
MS_DEFORM_DEVICE void LoadLanes(const T* from, Compute<T>* to) {
#pragma unroll
  for (int lane = 0; lane < kLanes; lane += kInPairs<T, kLanes> ? 2 : 1) {
    if constexpr (kInPairs<T, kLanes>) {
      LoadPair(from + lane, to + lane);
    } else {
      to[lane] = LoadOnDevice(from[lane]);
    }
  }
}

template <int kLanes, typename T>
MS_DEFORM_DEVICE void StoreLanes(const Compute<T>* from, T* to) {
#pragma unroll
  for (int lane = 0; lane < kLanes; lane += kInPairs<T, kLanes> ? 2 : 1) {
    if constexpr (kInPairs<T, kLanes>) {
      StorePair(from + lane, to + lane);
    } else {
      StoreOnDevice(from[lane], to + lane);
    }
  }
}

// Adds four consecutive floats, 16-byte aligned, each atomically.
MS_DEFORM_DEVICE void AtomicAddFour(float* to, const float* values) {
#if __CUDA_ARCH__ >= 900 && CUDART_VERSION >= 12010
  asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)),
               "f"(values[0]), "f"(values[1]), "f"(values[2]), "f"(values[3])
               : "memory");
#else
  for (int i = 0; i < 4; ++i) {
    atomicAdd(to + i, values[i]);
  }
#endif
}

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_DEVICE_H_
