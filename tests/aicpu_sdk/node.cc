// SPDX-License-Identifier: Apache-2.0
#include "node.h"

#include <sstream>

namespace ascend_private {
namespace protobuf {

std::shared_ptr<aicpu::CpuKernelContext> ParseNode(const std::string& text) {
  std::istringstream stream(text);
  std::string type, direction, listed;
  std::getline(stream, type);
  aicpu::Tensors inputs, outputs;
  for (int dtype; stream >> direction >> dtype >> listed;) {
    std::vector<int64_t> sizes;
    std::istringstream numbers(listed);
    for (std::string number; std::getline(numbers, number, ',');) {
      sizes.push_back(std::stoll(number));
    }
    (direction == "input" ? inputs : outputs)
        .push_back(std::make_shared<aicpu::Tensor>(static_cast<aicpu::DataType>(dtype), sizes));
  }
  return std::make_shared<aicpu::CpuKernelContext>(type, inputs, outputs);
}

}  // namespace protobuf
}  // namespace ascend_private
