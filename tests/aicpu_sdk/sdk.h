// SPDX-License-Identifier: Apache-2.0
// What the device's scheduler does, for tests: finding an operator's kernel by its name.
#ifndef MS_DEFORM_TESTS_AICPU_SDK_SDK_H_
#define MS_DEFORM_TESTS_AICPU_SDK_SDK_H_

#include "cpu_kernel.h"

namespace aicpu {

std::shared_ptr<CpuKernel> CreateKernel(const std::string& type);

}  // namespace aicpu

#endif  // MS_DEFORM_TESTS_AICPU_SDK_SDK_H_
