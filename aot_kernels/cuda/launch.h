// SPDX-License-Identifier: Apache-2.0
// Queues work on a stream; errors become exceptions.
#ifndef MS_DEFORM_CUDA_LAUNCH_H_
#define MS_DEFORM_CUDA_LAUNCH_H_

#include <limits>

#include "cuda/check.h"
#include "cuda/device.h"

namespace ms_deform {
namespace cuda {

static inline void FillZeros(void* data, int64_t bytes, cudaStream_t stream) {
  if (bytes > 0) {
    Check(cudaMemsetAsync(data, 0, static_cast<size_t>(bytes), stream), "cannot clear memory");
  }
}

// How a kernel's blocks are launched, and what for: the text of an error.
struct Blocks {
  int64_t work;  // is shared out among the blocks
  int threads;
  int64_t shared_bytes;
  const char* what;
};

// Runs a kernel, unless there is no work for it.
template <typename Arguments>
static inline void LaunchBlocks(void (*kernel)(Arguments), const Blocks& blocks,
                                const Arguments& arguments, cudaStream_t stream) {
  if (blocks.work == 0) {
    return;
  }
  // What a block may use without being asked to; a larger amount is refused where it does not fit.
  if (blocks.shared_bytes > 48 * 1024) {
    Check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(blocks.shared_bytes)),
          blocks.what);
  }
  const int64_t most = std::numeric_limits<int32_t>::max();
  Launch(kernel, blocks.work < most ? blocks.work : most, blocks.threads, blocks.shared_bytes,
         stream, arguments);
  Check(cudaGetLastError(), blocks.what);
}

// for (work of this block): every kernel takes its work this way, so that a grid has any size.
#define MS_DEFORM_FOR_WORK(work, count) \
  for (int64_t work = blockIdx.x; work < (count); work += gridDim.x)

// Kernels of one thread an element, of `count` elements.
constexpr int kElementThreads = 256;

template <typename Arguments>
static inline void LaunchElements(void (*kernel)(Arguments), int64_t count, const char* what,
                                  const Arguments& arguments, cudaStream_t stream) {
  LaunchBlocks(kernel, {(count + kElementThreads - 1) / kElementThreads, kElementThreads, 0, what},
               arguments, stream);
}

// for (element of this thread)
#define MS_DEFORM_FOR_ELEMENTS(index, count)                                                 \
  for (int64_t index = int64_t{blockIdx.x} * kElementThreads + threadIdx.x; index < (count); \
       index += int64_t{gridDim.x} * kElementThreads)

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_LAUNCH_H_
