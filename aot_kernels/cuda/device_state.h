// SPDX-License-Identifier: Apache-2.0
// What the host asks of devices, and the pools that scratch comes from: one of our own on each.
#ifndef MS_DEFORM_CUDA_DEVICE_STATE_H_
#define MS_DEFORM_CUDA_DEVICE_STATE_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <string>

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
std::string Architecture();  // such as sm_90

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_DEVICE_STATE_H_
