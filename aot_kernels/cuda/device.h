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

// Neighbouring elements, of the halves in pairs: one instruction takes both.
template <int kLanes, typename T>
MS_DEFORM_DEVICE void LoadLanes(const T* from, Compute<T>* to) {
#pragma unroll
  for (int lane = 0; lane < kLanes; ++lane) {
    to[lane] = LoadOnDevice(from[lane]);
  }
}

template <int kLanes>
MS_DEFORM_DEVICE void LoadLanes(const Float16* from, float* to) {
#pragma unroll
  for (int lane = 0; lane + 1 < kLanes; lane += 2) {
    const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(from + lane));
    to[lane] = pair.x;
    to[lane + 1] = pair.y;
  }
  if (kLanes % 2 != 0) {
    to[kLanes - 1] = LoadOnDevice(from[kLanes - 1]);
  }
}

template <int kLanes>
MS_DEFORM_DEVICE void LoadLanes(const BFloat16* from, float* to) {
#pragma unroll
  for (int lane = 0; lane + 1 < kLanes; lane += 2) {
    const uint32_t pair = *reinterpret_cast<const uint32_t*>(from + lane);
    to[lane] = __uint_as_float(pair << 16);
    to[lane + 1] = __uint_as_float(pair & 0xffff0000u);
  }
  if (kLanes % 2 != 0) {
    to[kLanes - 1] = LoadOnDevice(from[kLanes - 1]);
  }
}

template <int kLanes, typename T>
MS_DEFORM_DEVICE void StoreLanes(const Compute<T>* from, T* to) {
#pragma unroll
  for (int lane = 0; lane < kLanes; ++lane) {
    StoreOnDevice(from[lane], to + lane);
  }
}

template <int kLanes>
MS_DEFORM_DEVICE void StoreLanes(const float* from, Float16* to) {
#pragma unroll
  for (int lane = 0; lane + 1 < kLanes; lane += 2) {
    *reinterpret_cast<__half2*>(to + lane) = __floats2half2_rn(from[lane], from[lane + 1]);
  }
  if (kLanes % 2 != 0) {
    StoreOnDevice(from[kLanes - 1], to + kLanes - 1);
  }
}

template <int kLanes>
MS_DEFORM_DEVICE void StoreLanes(const float* from, BFloat16* to) {
#pragma unroll
  for (int lane = 0; lane + 1 < kLanes; lane += 2) {
    *reinterpret_cast<__nv_bfloat162*>(to + lane) =
        __floats2bfloat162_rn(from[lane], from[lane + 1]);
  }
  if (kLanes % 2 != 0) {
    StoreOnDevice(from[kLanes - 1], to + kLanes - 1);
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
