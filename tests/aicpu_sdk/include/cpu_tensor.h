// SPDX-License-Identifier: Apache-2.0
#ifndef MS_DEFORM_TESTS_AICPU_SDK_CPU_TENSOR_H_
#define MS_DEFORM_TESTS_AICPU_SDK_CPU_TENSOR_H_

#include <memory>
#include <utility>

#include "cpu_tensor_shape.h"
#include "cpu_types.h"

namespace aicpu {

class Tensor {
 public:
  Tensor(DataType type, std::shared_ptr<TensorShape> shape, void* data, uint64_t bytes)
      : type_(type), shape_(std::move(shape)), data_(data), bytes_(bytes) {}
  std::shared_ptr<TensorShape> GetTensorShape() const { return shape_; }
  DataType GetDataType() const { return type_; }
  void* GetData() const { return data_; }
  uint64_t GetDataSize() const { return bytes_; }

 private:
  DataType type_;
  std::shared_ptr<TensorShape> shape_;
  void* data_;
  uint64_t bytes_;
};

}  // namespace aicpu

#endif  // MS_DEFORM_TESTS_AICPU_SDK_CPU_TENSOR_H_
