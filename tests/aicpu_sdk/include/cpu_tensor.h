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
  Tensor(DataType type, std::vector<int64_t> sizes) : type_(type), sizes_(std::move(sizes)) {}
  // A new object each time (hicann/opbase v9.0.0, aicpu_common/context/cpu_proto/tensor_impl.cc).
  std::shared_ptr<TensorShape> GetTensorShape() const {
    return std::make_shared<TensorShape>(&sizes_);
  }
  DataType GetDataType() const { return type_; }
  void* GetData() const { return data_; }
  void SetData(void* data) { data_ = data; }
  uint64_t GetDataSize() const { return bytes_; }
  void SetDataSize(uint64_t bytes) { bytes_ = bytes; }

 private:
  DataType type_;
  mutable std::vector<int64_t> sizes_;
  void* data_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace aicpu

#endif  // MS_DEFORM_TESTS_AICPU_SDK_CPU_TENSOR_H_
