// SPDX-License-Identifier: Apache-2.0
#include "cuda/device_info.h"

#include "cuda/check.h"

namespace ms_deform {
namespace cuda {
namespace {

int Attribute(cudaDeviceAttr attribute) {
  int value = 0;
  Check(cudaDeviceGetAttribute(&value, attribute, CurrentDevice()), "cannot ask the device");
  return value;
}

}  // namespace

int CurrentDevice() {
  int device = 0;
  Check(cudaGetDevice(&device), "no current device");
  return device;
}

int64_t Multiprocessors() { return Attribute(cudaDevAttrMultiProcessorCount); }

int64_t SharedMemoryOfBlock() { return Attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

std::string Architecture() {
  return "sm_" + std::to_string(Attribute(cudaDevAttrComputeCapabilityMajor)) +
         std::to_string(Attribute(cudaDevAttrComputeCapabilityMinor));
}

}  // namespace cuda
}  // namespace ms_deform
