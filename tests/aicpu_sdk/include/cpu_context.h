// SPDX-License-Identifier: Apache-2.0
#ifndef MS_DEFORM_TESTS_AICPU_SDK_CPU_CONTEXT_H_
#define MS_DEFORM_TESTS_AICPU_SDK_CPU_CONTEXT_H_

#include <string>
#include <utility>
#include <vector>

#include "cpu_tensor.h"

namespace aicpu {

using Tensors = std::vector<std::shared_ptr<Tensor>>;

class CpuKernelContext {
 public:
  CpuKernelContext(std::string type, Tensors inputs, Tensors outputs)
      : type_(std::move(type)), inputs_(std::move(inputs)), outputs_(std::move(outputs)) {}
  std::string GetOpType() const { return type_; }
  // Null where there is no tensor.
  Tensor* Input(uint32_t index) const { return At(inputs_, index); }
  Tensor* Output(uint32_t index) const { return At(outputs_, index); }
  uint32_t GetInputsSize() const { return static_cast<uint32_t>(inputs_.size()); }
  uint32_t GetOutputsSize() const { return static_cast<uint32_t>(outputs_.size()); }

 private:
  static Tensor* At(const Tensors& tensors, uint32_t index) {
    return index < tensors.size() ? tensors[index].get() : nullptr;
  }

  std::string type_;
  Tensors inputs_;
  Tensors outputs_;
};

}  // namespace aicpu

#endif  // MS_DEFORM_TESTS_AICPU_SDK_CPU_CONTEXT_H_
