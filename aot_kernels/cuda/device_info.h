// SPDX-License-Identifier: Apache-2.0
// What the host asks of the current device.
#ifndef MS_DEFORM_CUDA_DEVICE_INFO_H_
#define MS_DEFORM_CUDA_DEVICE_INFO_H_

#include <cstdint>
#include <string>

namespace ms_deform {
namespace cuda {

int CurrentDevice();
int64_t Multiprocessors();
int64_t SharedMemoryOfBlock();  // bytes, of a block that asks for as much as it can
std::string Architecture();     // such as sm_90

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_DEVICE_INFO_H_
