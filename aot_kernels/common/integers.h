// SPDX-License-Identifier: Apache-2.0
// Small integer arithmetic, in 64 bits.
#ifndef MS_DEFORM_COMMON_INTEGERS_H_
#define MS_DEFORM_COMMON_INTEGERS_H_

#include <cstdint>

#include "common/function.h"

namespace ms_deform {

MS_DEFORM_FUNCTION constexpr int64_t Minimum(int64_t a, int64_t b) { return a < b ? a : b; }
MS_DEFORM_FUNCTION constexpr int64_t Maximum(int64_t a, int64_t b) { return a > b ? a : b; }
MS_DEFORM_FUNCTION constexpr int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }
MS_DEFORM_FUNCTION constexpr int64_t RoundUp(int64_t a, int64_t unit) {
  return CeilDivide(a, unit) * unit;
}

}  // namespace ms_deform

#endif  // MS_DEFORM_COMMON_INTEGERS_H_
