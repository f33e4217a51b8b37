// SPDX-License-Identifier: Apache-2.0
#include "cuda/scratch.h"

#include <map>
#include <mutex>
#include <string>

#include "cuda/check.h"
#include "cuda/device_info.h"

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

cudaMemPool_t PoolOfCurrentDevice() {
  const int device = CurrentDevice();
  Pools& pools = AllPools();
  const std::lock_guard<std::mutex> lock(pools.guard);
  auto found = pools.of_device.find(device);
  if (found == pools.of_device.end()) {
    found = pools.of_device.emplace(device, MakePool(device)).first;
  }
  return found->second;
}

}  // namespace

Scratch::Scratch(cudaStream_t stream, int64_t bytes) : stream_(stream) {
  if (bytes > 0) {
    Check(
        cudaMallocFromPoolAsync(&data_, static_cast<size_t>(bytes), PoolOfCurrentDevice(), stream),
        "cannot allocate " + std::to_string(bytes) + " bytes of scratch");
  }
}

Scratch::~Scratch() {
  if (data_ != nullptr) {
    cudaFreeAsync(data_, stream_);  // a failure here would be reported by the next call
  }
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

}  // namespace cuda
}  // namespace ms_deform
