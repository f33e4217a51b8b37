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

inline int GetSizeByDataType(DataType type) {
  switch (type) {
    case DT_FLOAT:
    case DT_INT32:
      return 4;
    case DT_FLOAT16:
      return 2;
    case DT_INT64:
    case DT_DOUBLE:
      return 8;
  }
  return -1;
}

}  // namespace aicpu

#endif  // MS_DEFORM_TESTS_AICPU_SDK_CPU_TYPES_H_
