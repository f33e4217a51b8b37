// SPDX-License-Identifier: Apache-2.0
// The part of CUDA that aot_kernels/cuda uses, on a CPU: kernels compile as C++ and run a block at
// a time, each of its threads on a stack of its own, switched at barriers. Device memory is host
// memory, and filled with NaN bytes when it is allocated; so is a block's shared memory. What a GPU
// would refuse or hang at is an error here: no blocks, too much shared memory, a barrier that some
// threads never reach.
//
// MS_EMULATION_ORDER=descending runs the threads and the blocks in the opposite order: results that
// then differ show a race. MS_EMULATION_FAIL=allocate or launch makes these fail.
// MS_EMULATION_STREAMS=1 writes the stream of every kernel.
// MS_EMULATION_RECORD=FILE writes what is launched, a line each of blocks, threads and bytes of
// shared memory, runs nothing and touches no memory. MS_EMULATION_MULTIPROCESSORS is how many the
// GPU has.
#ifndef MS_DEFORM_TESTS_CUDA_EMULATION_CUDA_RUNTIME_H_
#define MS_DEFORM_TESTS_CUDA_EMULATION_CUDA_RUNTIME_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline

using std::isfinite;

// Those of the thread that runs. Only x is ever used.
struct EmulatedIndex {
  unsigned x;
};
extern EmulatedIndex threadIdx;
extern EmulatedIndex blockIdx;
extern EmulatedIndex gridDim;

void __syncthreads();
void __syncwarp();

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
};
enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold, cudaMemPoolAttrReservedMemCurrent };
enum cudaMemAllocationType { cudaMemAllocationTypePinned };
enum cudaMemLocationType { cudaMemLocationTypeDevice };
struct cudaMemPoolProps {
  cudaMemAllocationType allocType;
  struct {
    cudaMemLocationType type;
    int id;
  } location;
};
using cudaStream_t = struct CUstream_st*;
using cudaMemPool_t = struct EmulatedPool*;

const char* cudaGetErrorString(cudaError_t status);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value);
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value);
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t keep);
cudaError_t cudaMallocFromPoolAsync(void** data, size_t bytes, cudaMemPool_t pool,
                                    cudaStream_t stream);
cudaError_t cudaFreeAsync(void* data, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream);

namespace emulation {

// Runs `thread` once for every thread of every block; its error is for cudaGetLastError.
void RunGrid(const void* kernel, int64_t blocks, int threads, int64_t shared_bytes,
             cudaStream_t stream, const std::function<void()>& thread);

void* SharedMemory();

// What a lane of the warp gave: every lane calls this, with values of the same size.
void ReadLane(const void* own, int lane, void* result, size_t size);

}  // namespace emulation

template <typename T>
T __shfl_xor_sync(unsigned, T value, int distance) {
  T result;
  emulation::ReadLane(&value, static_cast<int>(threadIdx.x % 32) ^ distance, &result, sizeof(T));
  return result;
}

// Beyond the last lane a lane reads itself.
template <typename T>
T __shfl_down_sync(unsigned, T value, int distance) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  T result;
  emulation::ReadLane(&value, lane + distance < 32 ? lane + distance : lane, &result, sizeof(T));
  return result;
}

// Threads switch at barriers only, so that plain additions are atomic.
template <typename T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  *to += value;
  return before;
}

inline int atomicMax(int* to, int value) {
  const int before = *to;
  *to = std::max(before, value);
  return before;
}

#endif  // MS_DEFORM_TESTS_CUDA_EMULATION_CUDA_RUNTIME_H_
