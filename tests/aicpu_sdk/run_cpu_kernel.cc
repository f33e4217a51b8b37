// SPDX-License-Identifier: Apache-2.0
// The functions of the SDK that a device calls, by name only.
#include <cstdint>

extern "C" {
uint32_t RunCpuKernel(void*) { return 0; }
uint32_t RunCpuKernelWithBlock(void*, void*) { return 0; }
}
