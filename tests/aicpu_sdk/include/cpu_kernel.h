// SPDX-License-Identifier: Apache-2.0
#ifndef MS_DEFORM_TESTS_AICPU_SDK_CPU_KERNEL_H_
#define MS_DEFORM_TESTS_AICPU_SDK_CPU_KERNEL_H_

#include <functional>
#include <memory>
#include <string>

#include "cpu_context.h"

namespace aicpu {

class CpuKernel {
 public:
  virtual ~CpuKernel() = default;
  virtual uint32_t Compute(CpuKernelContext& context) = 0;
};

using KernelCreator = std::function<std::shared_ptr<CpuKernel>()>;

bool RegistCpuKernel(const std::string& type, const KernelCreator& creator);

}  // namespace aicpu

// Names what is in namespace aicpu without it, as the SDK's own does.
#define REGISTER_CPU_KERNEL(type, Class)                                                     \
  std::shared_ptr<CpuKernel> Creator_##type##_Kernel() { return std::make_shared<Class>(); } \
  bool g_##type##_Kernel_Creator __attribute__((unused)) =                                   \
      RegistCpuKernel(type, Creator_##type##_Kernel)

#endif  // MS_DEFORM_TESTS_AICPU_SDK_CPU_KERNEL_H_
