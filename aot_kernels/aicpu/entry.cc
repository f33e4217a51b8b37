// SPDX-License-Identifier: Apache-2.0
// The AICPU backend: the operators' kernels, as CANN finds them. Their names and parameters are
// those of ms_deform/install/aicpu_operators.py.
//
// It shares common/ with the other backends, and has kernels of its own because those of cpu/
// cannot run here: CANN's device compiler is GCC 7.3, for which these are C++14, and cpu/ is C++17;
// threads come from the SDK's ParallelFor and not from OpenMP, and it gives out independent pieces
// of work, without the barriers that the passes and waves of cpu/ need.
#include "aicpu/backward_input.h"
#include "aicpu/backward_weight.h"
#include "aicpu/forward.h"
#include "cpu_kernel.h"

// The SDK's macro for registration names what is in this namespace without it.
namespace aicpu {
namespace {

using ms_deform::DType;
using ms_deform::Float16;
using namespace ms_deform::aicpu_backend;

const char* const kForward = "MsDeformAicpuForward";
const char* const kGradInput = "MsDeformAicpuGradInput";
const char* const kGradWeight = "MsDeformAicpuGradWeight";

class MsDeformForward : public CpuKernel {
 public:
  uint32_t Compute(CpuKernelContext& context) override {
    return Guarded(context, [&context] {
      const Call call = ReadForwardCall(context);
      call.dtype == DType::kFloat32 ? Forward<float>(call) : Forward<Float16>(call);
    });
  }
};

class MsDeformGradInput : public CpuKernel {
 public:
  uint32_t Compute(CpuKernelContext& context) override {
    return Guarded(context, [&context] {
      const Call call = ReadGradInputCall(context);
      call.dtype == DType::kFloat32 ? BackwardInput<float>(call).Run()
                                    : BackwardInput<Float16>(call).Run();
    });
  }
};

class MsDeformGradWeight : public CpuKernel {
 public:
  uint32_t Compute(CpuKernelContext& context) override {
    return Guarded(context, [&context] {
      const Call call = ReadGradWeightCall(context);
      call.dtype == DType::kFloat32 ? BackwardWeight<float>(call) : BackwardWeight<Float16>(call);
    });
  }
};

REGISTER_CPU_KERNEL(kForward, MsDeformForward);
REGISTER_CPU_KERNEL(kGradInput, MsDeformGradInput);
REGISTER_CPU_KERNEL(kGradWeight, MsDeformGradWeight);

}  // namespace
}  // namespace aicpu
