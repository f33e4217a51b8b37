// SPDX-License-Identifier: Apache-2.0
#ifndef MS_DEFORM_TESTS_AICPU_SDK_CPU_CONTEXT_H_
#define MS_DEFORM_TESTS_AICPU_SDK_CPU_CONTEXT_H_

#include <string>
#include <utility>
#include <vector>

#include "cpu_tensor.h"

namespace aicpu {

class CpuKernelContext {
 public:
  CpuKernelContext(std::string type, std::vector<Tensor*> inputs, std::vector<Tensor*> outputs)
      : type_(std::move(type)), inputs_(std::move(inputs)), outputs_(std::move(outputs)) {}
  std::string GetOpType() const { return type_; }
  // Null where there is no tensor.
  Tensor* Input(uint32_t index) const { return At(inputs_, index); }
  Tensor* Output(uint32_t index) const { return At(outputs_, index); }

 private:
  static Tensor* At(const std::vector<Tensor*>& tensors, uint32_t index) {
    return index < tensors.size() ? tensors[index] : nullptr;
  }

  std::string type_;
  std::vector<Tensor*> inputs_;
  std::vector<Tensor*> outputs_;
};

}  // namespace aicpu

#endif  // MS_DEFORM_TESTS_AICPU_SDK_CPU_CONTEXT_H_
