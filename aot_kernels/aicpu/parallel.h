// SPDX-License-Identifier: Apache-2.0
// The part of the AICPU SDK's cpu_kernel_utils.h that the kernels use, declared here, because the
// header is not in every SDK: CANN 8.1 has it only among the samples of msopgen
// (tools/msopgen/template/custom_operator_sample/AICPU/*/cpukernel/context/inc). The function is in
// the libraries of all, and has had this signature, which is all of a static function that the
// linker sees, from CANN 8.1 to hicann/opbase v9.0.0 and aa3cd74b. No other header of the SDK
// includes the SDK's.
#ifndef MS_DEFORM_AICPU_PARALLEL_H_
#define MS_DEFORM_AICPU_PARALLEL_H_

#include <cstdint>
#include <functional>

#include "cpu_context.h"

namespace aicpu {

class CpuKernelUtils {
 public:
  // Calls work(begin, end) for parts of [0, total), on several threads; 0 if that could be done.
  static uint32_t ParallelFor(const CpuKernelContext& context, int64_t total, int64_t per_unit_size,
                              const std::function<void(int64_t, int64_t)>& work);
};

}  // namespace aicpu

#endif  // MS_DEFORM_AICPU_PARALLEL_H_
