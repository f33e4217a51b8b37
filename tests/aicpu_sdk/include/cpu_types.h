// SPDX-License-Identifier: Apache-2.0
// A test double of CANN's AICPU SDK: its public API, as far as the kernels use it.
#ifndef MS_DEFORM_TESTS_AICPU_SDK_CPU_TYPES_H_
#define MS_DEFORM_TESTS_AICPU_SDK_CPU_TYPES_H_

namespace aicpu {

enum DataType : int {
  DT_FLOAT = 0,
  DT_FLOAT16 = 1,
  DT_INT32 = 3,
  DT_INT64 = 9,
  DT_DOUBLE = 11,
};

}  // namespace aicpu

#endif  // MS_DEFORM_TESTS_AICPU_SDK_CPU_TYPES_H_
