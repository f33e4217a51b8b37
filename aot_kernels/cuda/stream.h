// SPDX-License-Identifier: Apache-2.0
// The host's side of a call: errors become exceptions, launches and scratch belong to the stream.
#ifndef MS_DEFORM_CUDA_STREAM_H_
#define MS_DEFORM_CUDA_STREAM_H_

#include <limits>
#include <string>

#include "cuda/check.h"
#include "cuda/device.h"
#include "cuda/device_state.h"

namespace ms_deform {
namespace cuda {

// Device memory that lives until the work queued on the stream so far is done.
class Scratch {
 public:
  Scratch(cudaStream_t stream, int64_t bytes) : stream_(stream) {
    if (bytes > 0) {
      Check(cudaMallocFromPoolAsync(&data_, static_cast<size_t>(bytes), ScratchPool(), stream),
            "cannot allocate " + std::to_string(bytes) + " bytes of scratch");
    }
  }
  ~Scratch() {
    if (data_ != nullptr) {
      cudaFreeAsync(data_, stream_);  // a failure here would be reported by the next call
    }
  }
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

static inline void FillZeros(void* data, int64_t bytes, cudaStream_t stream) {
  if (bytes > 0) {
    Check(cudaMemsetAsync(data, 0, static_cast<size_t>(bytes), stream), "cannot clear memory");
  }
}

// Runs a kernel whose blocks share out `work` among them; none if there is no work.
template <typename Arguments>
static inline void LaunchBlocks(void (*kernel)(Arguments), int64_t work, int threads,
                                int64_t shared_bytes, cudaStream_t stream,
                                const Arguments& arguments, const char* what) {
  if (work == 0) {
    return;
  }
  // What a block may use without being asked to; a larger amount is refused where it does not fit.
  if (shared_bytes > 48 * 1024) {
    Check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          what);
  }
  const int64_t most = std::numeric_limits<int32_t>::max();
  Launch(kernel, work < most ? work : most, threads, shared_bytes, stream, arguments);
  Check(cudaGetLastError(), what);
}

// for (work of this block): every kernel takes its work this way, so that a grid has any size.
#define MS_DEFORM_FOR_WORK(work, count) \
  for (int64_t work = blockIdx.x; work < (count); work += gridDim.x)

// Images whose slabs are held at a time: as many as fit, one at least. Beside the tensors a call so
// needs no more than this or one image's slabs, and the packed weights.
constexpr int64_t kPassBytes = int64_t{64} << 20;

static inline int64_t ImagesOfPass(int64_t batch, int64_t bytes_of_image) {
  const int64_t fitting = kPassBytes / (bytes_of_image > 0 ? bytes_of_image : 1);
  return fitting < 1 ? 1 : fitting < batch ? fitting : batch;
}

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_STREAM_H_
