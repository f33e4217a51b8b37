// SPDX-License-Identifier: Apache-2.0
// The device memory that kernels work in, from a pool of our own on each device: it keeps freed
// memory for the next call, where the device's default pool gives it back at every synchronisation.
#ifndef MS_DEFORM_CUDA_SCRATCH_H_
#define MS_DEFORM_CUDA_SCRATCH_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace ms_deform {
namespace cuda {

// Memory of the current device that lives until the work queued on the stream so far is done.
class Scratch {
 public:
  Scratch(cudaStream_t stream, int64_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <typename T>
  T* As() const {
    return static_cast<T*>(data_);
  }

 private:
  cudaStream_t stream_;
  void* data_ = nullptr;
};

// Of all devices: what the pools hold, and giving back what no queued work uses.
int64_t ScratchBytes();
void ReleaseScratch();

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_SCRATCH_H_
