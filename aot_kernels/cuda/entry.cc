// SPDX-License-Identifier: Apache-2.0
// The CUDA backend: the choice of the dtype, and scratch from Python.
#include <stdexcept>
#include <string>

#include "common/aot_call.h"
#include "common/backend.h"
#include "common/library_info.h"
#include "cuda/device_state.h"
#include "cuda/kernels.h"

MS_DEFORM_LIBRARY_INFO("cuda");

namespace ms_deform {
namespace {

const cuda::Kernels& KernelsOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return cuda::kFloat32Kernels;
    case DType::kFloat64:
      return cuda::kFloat64Kernels;
    case DType::kFloat16:
      return cuda::kFloat16Kernels;
    case DType::kBFloat16:
      return cuda::kBFloat16Kernels;
  }
  throw std::invalid_argument("deform_conv2d: unsupported dtype");
}

}  // namespace

void Run(const ForwardCall& call, void* stream) {
  KernelsOf(call.dtype).forward(call, static_cast<CUstream_st*>(stream));
}

void Run(const BackwardInputCall& call, void* stream) {
  KernelsOf(call.dtype).backward_input(call, static_cast<CUstream_st*>(stream));
}

void Run(const BackwardWeightCall& call, void* stream) {
  KernelsOf(call.dtype).backward_weight(call, static_cast<CUstream_st*>(stream));
}

void Run(const BackwardBiasCall& call, void* stream) {
  KernelsOf(call.dtype).backward_bias(call, static_cast<CUstream_st*>(stream));
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

MS_DEFORM_EXPORT int64_t ms_deform_cuda_scratch_bytes() { return ms_deform::cuda::ScratchBytes(); }

MS_DEFORM_EXPORT void ms_deform_cuda_release_scratch() { ms_deform::cuda::ReleaseScratch(); }
