// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels for one dtype: compiled once for each, with MS_DEFORM_DTYPE_<NAME> defined.
#include "cuda/backward_bias.h"
#include "cuda/backward_input.h"
#include "cuda/backward_weight.h"
#include "cuda/forward.h"
#include "cuda/kernels.h"

namespace ms_deform {
namespace cuda {
namespace {

template <typename T>
constexpr Kernels KernelsOf() {
  return {RunForward<T>, RunBackwardInput<T>, RunBackwardWeight<T>, RunBackwardBias<T>};
}

}  // namespace

#if defined(MS_DEFORM_DTYPE_FLOAT32)
extern const Kernels kFloat32Kernels = KernelsOf<float>();
#elif defined(MS_DEFORM_DTYPE_FLOAT64)
extern const Kernels kFloat64Kernels = KernelsOf<double>();
#elif defined(MS_DEFORM_DTYPE_FLOAT16)
extern const Kernels kFloat16Kernels = KernelsOf<Float16>();
#elif defined(MS_DEFORM_DTYPE_BFLOAT16)
extern const Kernels kBFloat16Kernels = KernelsOf<BFloat16>();
#endif

}  // namespace cuda
}  // namespace ms_deform
