// SPDX-License-Identifier: Apache-2.0
#include "cuda/device_state.h"

#include <map>
#include <mutex>

#include "cuda/check.h"

namespace ms_deform {
namespace cuda {
namespace {

struct Pools {
  std::mutex guard;
  std::map<int, cudaMemPool_t> of_device;
};

Pools& AllPools() {
  static auto* pools = new Pools;  // never destroyed: CUDA may be gone when the process ends
  return *pools;
}

int CurrentDevice() {
  int device = 0;
  Check(cudaGetDevice(&device), "no current device");
  return device;
}

int Attribute(cudaDeviceAttr attribute) {
  int value = 0;
  Check(cudaDeviceGetAttribute(&value, attribute, CurrentDevice()), "cannot ask the device");
  return value;
}

cudaMemPool_t MakePool(int device) {
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool = nullptr;
  Check(cudaMemPoolCreate(&pool, &properties), "cannot create a memory pool");
  uint64_t keep_all = UINT64_MAX;
  Check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep_all),
        "cannot set up a memory pool");
  return pool;
}

}  // namespace

cudaMemPool_t ScratchPool() {
  const int device = CurrentDevice();
  Pools& pools = AllPools();
  const std::lock_guard<std::mutex> lock(pools.guard);
  auto found = pools.of_device.find(device);
  if (found == pools.of_device.end()) {
    found = pools.of_device.emplace(device, MakePool(device)).first;
  }
  return found->second;
}

int64_t ScratchBytes() {
  Pools& pools = AllPools();
  const std::lock_guard<std::mutex> lock(pools.guard);
  int64_t all = 0;
  for (const auto& entry : pools.of_device) {
    uint64_t bytes = 0;
    Check(cudaMemPoolGetAttribute(entry.second, cudaMemPoolAttrReservedMemCurrent, &bytes),
          "cannot read a memory pool");
    all += static_cast<int64_t>(bytes);
  }
  return all;
}

void ReleaseScratch() {
  Pools& pools = AllPools();
  const std::lock_guard<std::mutex> lock(pools.guard);
  for (const auto& entry : pools.of_device) {
    Check(cudaMemPoolTrimTo(entry.second, 0), "cannot release scratch");
  }
}

int64_t Multiprocessors() { return Attribute(cudaDevAttrMultiProcessorCount); }

std::string Architecture() {
  return "sm_" + std::to_string(Attribute(cudaDevAttrComputeCapabilityMajor)) +
         std::to_string(Attribute(cudaDevAttrComputeCapabilityMinor));
}

}  // namespace cuda
}  // namespace ms_deform
