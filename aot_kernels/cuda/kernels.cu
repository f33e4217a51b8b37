// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels for one dtype: compiled once for each, with MS_DEFORM_DTYPE_<NAME> defined.
#include "common/calls.h"
#include "cuda/backward_bias.h"
#include "cuda/backward_input.h"
#include "cuda/backward_weight.h"
#include "cuda/forward.h"

namespace ms_deform {
namespace cuda {

#if defined(MS_DEFORM_DTYPE_FLOAT32)
using Storage = float;
#elif defined(MS_DEFORM_DTYPE_FLOAT64)
using Storage = double;
#elif defined(MS_DEFORM_DTYPE_FLOAT16)
using Storage = Float16;
#elif defined(MS_DEFORM_DTYPE_BFLOAT16)
using Storage = BFloat16;
#endif

namespace {

template <typename Call, void (*kRun)(const Call&, cudaStream_t)>
void Run(const Call& call, void* stream) {
  kRun(call, static_cast<cudaStream_t>(stream));
}

const Kernels kKernels = {
    Run<ForwardCall, RunForward<Storage>>,
    Run<BackwardInputCall, RunBackwardInput<Storage>>,
    Run<BackwardWeightCall, RunBackwardWeight<Storage>>,
    Run<BackwardBiasCall, RunBackwardBias<Storage>>,
};

}  // namespace

// cuda/entry.cc chooses among them.
template <typename T>
const Kernels& KernelsOf();
template <>
const Kernels& KernelsOf<Storage>() {
  return kKernels;
}

}  // namespace cuda
}  // namespace ms_deform
