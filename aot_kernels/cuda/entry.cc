// SPDX-License-Identifier: Apache-2.0
// The CUDA backend: the choice of the dtype, and what Python asks for.
#include <stdexcept>
#include <string>

#include "common/calls.h"
#include "common/last_error.h"
#include "common/library_info.h"
#include "cuda/device_info.h"
#include "cuda/scratch.h"

MS_DEFORM_LIBRARY_INFO("cuda");

namespace ms_deform {
namespace cuda {

// Those of each dtype's unit of cuda/kernels.cu.
template <typename T>
const Kernels& KernelsOf();

}  // namespace cuda

const Kernels& KernelsFor(DType dtype) {
  const Kernels* kernels = nullptr;
  VisitType(dtype, [&](auto example) { kernels = &cuda::KernelsOf<decltype(example)>(); });
  return *kernels;
}

}  // namespace ms_deform

// The GPU's architecture, or why there is none.
MS_DEFORM_EXPORT const char* ms_deform_cuda_isa() {
  static const std::string text = [] {
    try {
      return ms_deform::cuda::Architecture();
    } catch (const std::exception& error) {
      return std::string(error.what());
    }
  }();
  return text.c_str();
}

MS_DEFORM_EXPORT const char* ms_deform_cuda_last_error() { return ms_deform::LastError(); }

MS_DEFORM_EXPORT int64_t ms_deform_cuda_scratch_bytes() { return ms_deform::cuda::ScratchBytes(); }

MS_DEFORM_EXPORT void ms_deform_cuda_release_scratch() { ms_deform::cuda::ReleaseScratch(); }
