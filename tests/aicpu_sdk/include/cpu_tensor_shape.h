// SPDX-License-Identifier: Apache-2.0
#ifndef MS_DEFORM_TESTS_AICPU_SDK_CPU_TENSOR_SHAPE_H_
#define MS_DEFORM_TESTS_AICPU_SDK_CPU_TENSOR_SHAPE_H_

#include <cstdint>
#include <vector>

namespace aicpu {

// Reads and writes the sizes of the tensor that it is of.
class TensorShape {
 public:
  explicit TensorShape(std::vector<int64_t>* sizes) : sizes_(sizes) {}
  std::vector<int64_t> GetDimSizes() const { return *sizes_; }
  void SetDimSizes(const std::vector<int64_t>& sizes) { *sizes_ = sizes; }

 private:
  std::vector<int64_t>* sizes_;
};

}  // namespace aicpu

#endif  // MS_DEFORM_TESTS_AICPU_SDK_CPU_TENSOR_SHAPE_H_
