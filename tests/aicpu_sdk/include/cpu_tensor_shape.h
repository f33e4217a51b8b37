// SPDX-License-Identifier: Apache-2.0
#ifndef MS_DEFORM_TESTS_AICPU_SDK_CPU_TENSOR_SHAPE_H_
#define MS_DEFORM_TESTS_AICPU_SDK_CPU_TENSOR_SHAPE_H_

#include <cstdint>
#include <utility>
#include <vector>

namespace aicpu {

class TensorShape {
 public:
  explicit TensorShape(std::vector<int64_t> sizes) : sizes_(std::move(sizes)) {}
  std::vector<int64_t> GetDimSizes() const { return sizes_; }

 private:
  std::vector<int64_t> sizes_;
};

}  // namespace aicpu

#endif  // MS_DEFORM_TESTS_AICPU_SDK_CPU_TENSOR_SHAPE_H_
