// SPDX-License-Identifier: Apache-2.0
// What stands for protobuf: the description of a node as text. A line with the operator's type,
// then one for each tensor: input or output, the number of its dtype, its sizes with commas.
#ifndef MS_DEFORM_TESTS_AICPU_SDK_NODE_H_
#define MS_DEFORM_TESTS_AICPU_SDK_NODE_H_

#include <string>

#include "cpu_context.h"

// Where CANN's copy of protobuf is.
namespace ascend_private {
namespace protobuf {

std::shared_ptr<aicpu::CpuKernelContext> ParseNode(const std::string& text);

}  // namespace protobuf
}  // namespace ascend_private

#endif  // MS_DEFORM_TESTS_AICPU_SDK_NODE_H_
