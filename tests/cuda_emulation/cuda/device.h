// SPDX-License-Identifier: Apache-2.0
// Stands for aot_kernels/cuda/device.h in the emulation.
#ifndef MS_DEFORM_CUDA_DEVICE_H_
#define MS_DEFORM_CUDA_DEVICE_H_

#include <cuda_runtime.h>
#include <mma.h>

#include "common/dtype.h"

#define MS_DEFORM_DEVICE static inline
#define MS_DEFORM_KERNEL(threads, blocks) void

namespace ms_deform {
namespace cuda {

template <typename Shared>
MS_DEFORM_DEVICE Shared& SharedMemory() {
  return *static_cast<Shared*>(emulation::SharedMemory());
}

template <typename Arguments>
static inline void Launch(void (*kernel)(Arguments), int64_t blocks, int threads,
                          int64_t shared_bytes, cudaStream_t stream, const Arguments& arguments) {
  emulation::RunGrid(reinterpret_cast<const void*>(kernel), blocks, threads, shared_bytes, stream,
                     [&] { kernel(arguments); });
}

template <typename T>
MS_DEFORM_DEVICE auto LoadOnDevice(T value) {
  return Load(value);
}

template <typename Real, typename T>
MS_DEFORM_DEVICE void StoreOnDevice(Real value, T* to) {
  Store(value, to);
}

template <int kLanes, typename T>
MS_DEFORM_DEVICE void LoadLanes(const T* from, Compute<T>* to) {
  std::transform(from, from + kLanes, to, LoadOnDevice<T>);
}

template <int kLanes, typename T>
MS_DEFORM_DEVICE void StoreLanes(const Compute<T>* from, T* to) {
  for (int lane = 0; lane < kLanes; ++lane) {
    Store(from[lane], to + lane);
  }
}

MS_DEFORM_DEVICE void AtomicAddFour(float* to, const float* values) {
  for (int i = 0; i < 4; ++i) {
    atomicAdd(to + i, values[i]);
  }
}

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_DEVICE_H_
