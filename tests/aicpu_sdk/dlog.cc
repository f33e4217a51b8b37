// SPDX-License-Identifier: Apache-2.0
// Stands for CANN's log in the process that runs kernels: prints what it is given.
#include <cstdarg>
#include <cstdint>
#include <cstdio>

extern "C" __attribute__((format(printf, 3, 4))) void DlogRecord(int32_t module, int32_t level,
                                                                 const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::printf("module %d level %d ", module, level);
  std::vprintf(format, arguments);
  std::printf("\n");
  va_end(arguments);
}
