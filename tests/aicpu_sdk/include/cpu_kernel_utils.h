// SPDX-License-Identifier: Apache-2.0
#ifndef MS_DEFORM_TESTS_AICPU_SDK_CPU_KERNEL_UTILS_H_
#define MS_DEFORM_TESTS_AICPU_SDK_CPU_KERNEL_UTILS_H_

#include <functional>

#include "cpu_context.h"

namespace aicpu {

class CpuKernelUtils {
 public:
  // Calls work(begin, end) for parts of [0, total), on several threads; 0 if that could be done.
  static uint32_t ParallelFor(const CpuKernelContext& context, int64_t total, int64_t per_unit_size,
                              const std::function<void(int64_t, int64_t)>& work);
  static uint32_t GetCPUNum(const CpuKernelContext& context);
};

}  // namespace aicpu

#endif  // MS_DEFORM_TESTS_AICPU_SDK_CPU_KERNEL_UTILS_H_
