// SPDX-License-Identifier: Apache-2.0
// The operators' kernels, as CANN's AICPU finds them. Their names and parameters are those of
// ms_deform/backends/aicpu.py.
#include "aicpu/backward_input.h"
#include "aicpu/backward_weight.h"
#include "aicpu/forward.h"
#include "cpu_kernel.h"

namespace ms_deform {
namespace aicpu_backend {
namespace {

const char* const kForward = "MsDeformAicpuForward";
const char* const kGradInput = "MsDeformAicpuGradInput";
const char* const kGradWeight = "MsDeformAicpuGradWeight";

class ForwardKernel : public aicpu::CpuKernel {
 public:
  uint32_t Compute(aicpu::CpuKernelContext& context) override {
    return Guarded(context, [&context] {
      const Call call = ReadForwardCall(context);
      call.dtype == DType::kFloat32 ? Forward<float>(call) : Forward<Float16>(call);
    });
  }
};

class GradInputKernel : public aicpu::CpuKernel {
 public:
  uint32_t Compute(aicpu::CpuKernelContext& context) override {
    return Guarded(context, [&context] {
      const Call call = ReadGradInputCall(context);
      call.dtype == DType::kFloat32 ? BackwardInput<float>(call).Run()
                                    : BackwardInput<Float16>(call).Run();
    });
  }
};

class GradWeightKernel : public aicpu::CpuKernel {
 public:
  uint32_t Compute(aicpu::CpuKernelContext& context) override {
    return Guarded(context, [&context] {
      const Call call = ReadGradWeightCall(context);
      call.dtype == DType::kFloat32 ? BackwardWeight<float>(call) : BackwardWeight<Float16>(call);
    });
  }
};

REGISTER_CPU_KERNEL(kForward, ForwardKernel);
REGISTER_CPU_KERNEL(kGradInput, GradInputKernel);
REGISTER_CPU_KERNEL(kGradWeight, GradWeightKernel);

}  // namespace
}  // namespace aicpu_backend
}  // namespace ms_deform
