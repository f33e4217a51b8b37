// SPDX-License-Identifier: Apache-2.0
// CUDA's errors as exceptions.
#ifndef MS_DEFORM_CUDA_CHECK_H_
#define MS_DEFORM_CUDA_CHECK_H_

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace ms_deform {
namespace cuda {

static inline void Check(cudaError_t status, const std::string& what) {
  if (status != cudaSuccess) {
    throw std::runtime_error("deform_conv2d: CUDA: " + what + ": " + cudaGetErrorString(status));
  }
}

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_CHECK_H_
