// SPDX-License-Identifier: Apache-2.0
// Device memory beside the tensors, from a pool of our own on each device.
#ifndef MS_DEFORM_CUDA_SCRATCH_H_
#define MS_DEFORM_CUDA_SCRATCH_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace ms_deform {
namespace cuda {

// The current device's pool. It keeps freed memory for the next call, where the device's default
// pool gives it back at every synchronisation.
cudaMemPool_t ScratchPool();

// Of all devices: what the pools hold, and giving back what no queued work uses.
int64_t ScratchBytes();
void ReleaseScratch();

// Of the current device.
int64_t Multiprocessors();

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_SCRATCH_H_
