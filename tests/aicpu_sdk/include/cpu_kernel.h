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

#define REGISTER_CPU_KERNEL(type, Class)             \
  static const bool type##_##Class##_is_registered = \
      aicpu::RegistCpuKernel(type, [] { return std::shared_ptr<aicpu::CpuKernel>(new Class()); })

#endif  // MS_DEFORM_TESTS_AICPU_SDK_CPU_KERNEL_H_
