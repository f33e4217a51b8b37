// SPDX-License-Identifier: Apache-2.0
// Errors go to CANN's log, where the process that runs the kernels has it: KERNEL_LOG_ERROR of
// CANN's own kernels writes there, too. Its function and numbers are declared in dlog_pub.h of
// hicann/runtime at 681ef761 (pkg_inc/base), and with the same meaning in toolchain/slog.h and
// base/log_types.h of CANN 8.1; neither is among the headers of the AICPU SDK.
#ifndef MS_DEFORM_AICPU_LOG_H_
#define MS_DEFORM_AICPU_LOG_H_

#include <cstdint>
#include <cstdio>
#include <string>

extern "C" __attribute__((weak, visibility("default"), format(printf, 3, 4))) void DlogRecord(
    int32_t module, int32_t level, const char* format, ...);

namespace ms_deform {
namespace aicpu_backend {

constexpr int32_t kLogModule = 36;  // AICPU
constexpr int32_t kLogLevel = 3;    // DLOG_ERROR

inline void LogError(const std::string& operator_type, const char* reason) {
  if (DlogRecord != nullptr) {
    DlogRecord(kLogModule, kLogLevel, "[ms_deform] %s: %s", operator_type.c_str(), reason);
  } else {
    std::fprintf(stderr, "[ERROR] %s: %s\n", operator_type.c_str(), reason);
  }
}

}  // namespace aicpu_backend
}  // namespace ms_deform

#endif  // MS_DEFORM_AICPU_LOG_H_
