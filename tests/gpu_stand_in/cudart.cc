// SPDX-License-Identifier: Apache-2.0
// The part of the CUDA 11 runtime that MindSpore's GPU plugin calls: device memory is host memory,
// filled with NaN bytes when it is allocated, and all work is done when its call returns.
//
// GPU_STAND_IN_STREAMS=1 writes the streams that are made.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace {

enum Error { kSuccess = 0, kInvalidValue = 1, kMemoryAllocation = 2, kInvalidDevice = 101 };

constexpr size_t kTotalBytes = size_t{4} << 30;
constexpr size_t kPoisonedBytes = size_t{64} << 20;  // at the beginning of an allocation
constexpr int kNaNByte = 0xff;                       // makes a NaN of every floating type

std::mutex guard;
std::map<void*, size_t> allocations;
size_t used = 0;

// Of a stream or an event.
Error NewHandle(void** handle) {
  static uintptr_t last = 0;
  const std::lock_guard<std::mutex> lock(guard);
  *handle = reinterpret_cast<void*>(last += 0x10);
  return kSuccess;
}

// The head of CUDA 11's cudaDeviceProp; test_gpu_stand_in.py reads it through MindSpore.
struct DeviceProperties {
  char name[256];
  char ids[28];
  size_t total_memory;
  size_t shared_memory_per_block;
  int registers_per_block;
  int warp_size;
  size_t memory_pitch;
  int max_threads_per_block;
  int max_threads[3];
  int max_grid[3];
  int clock_rate;
  size_t constant_memory;
  int major;
  int minor;
  size_t texture[2];
  int device_overlap;
  int multiprocessors;
};

}  // namespace

extern "C" {

Error cudaGetDeviceCount(int* count) {
  *count = 1;
  return kSuccess;
}

Error cudaSetDevice(int device) { return device == 0 ? kSuccess : kInvalidDevice; }

Error cudaGetDeviceProperties(DeviceProperties* properties, int) {
  *properties = {};
  std::strcpy(properties->name, "GPU stand-in");
  properties->total_memory = kTotalBytes;
  properties->shared_memory_per_block = 48 << 10;
  properties->warp_size = 32;
  properties->max_threads_per_block = 1024;
  properties->major = 8;
  properties->multiprocessors = 3;
  return kSuccess;
}

const char* cudaGetErrorString(Error error) {
  return error == kMemoryAllocation ? "out of memory" : "invalid argument";
}
const char* cudaGetErrorName(Error error) {
  return error == kMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaErrorInvalidValue";
}
Error cudaGetLastError() { return kSuccess; }
Error cudaDeviceSynchronize() { return kSuccess; }

Error cudaMemGetInfo(size_t* free, size_t* total) {
  const std::lock_guard<std::mutex> lock(guard);
  *total = kTotalBytes;
  *free = kTotalBytes - used;
  return kSuccess;
}

Error cudaMalloc(void** data, size_t bytes) {
  const std::lock_guard<std::mutex> lock(guard);
  if (bytes > kTotalBytes - used || posix_memalign(data, 512, bytes) != 0) {
    return kMemoryAllocation;
  }
  std::memset(*data, kNaNByte, std::min(bytes, kPoisonedBytes));
  allocations[*data] = bytes;
  used += bytes;
  return kSuccess;
}

Error cudaFree(void* data) {
  const std::lock_guard<std::mutex> lock(guard);
  const auto found = allocations.find(data);
  if (found == allocations.end()) {
    return data == nullptr ? kSuccess : kInvalidValue;
  }
  used -= found->second;
  allocations.erase(found);
  std::free(data);
  return kSuccess;
}

Error cudaHostAlloc(void** data, size_t bytes, unsigned) {
  return posix_memalign(data, 512, bytes) == 0 ? kSuccess : kMemoryAllocation;
}
Error cudaFreeHost(void* data) {
  std::free(data);
  return kSuccess;
}
Error cudaHostRegister(void*, size_t, unsigned) { return kSuccess; }
Error cudaHostUnregister(void*) { return kSuccess; }

Error cudaMemcpy(void* to, const void* from, size_t bytes, int) {
  std::memmove(to, from, bytes);
  return kSuccess;
}
Error cudaMemcpyAsync(void* to, const void* from, size_t bytes, int kind, void*) {
  return cudaMemcpy(to, from, bytes, kind);
}
Error cudaMemset(void* data, int value, size_t bytes) {
  std::memset(data, value, bytes);
  return kSuccess;
}
Error cudaMemsetAsync(void* data, int value, size_t bytes, void*) {
  return cudaMemset(data, value, bytes);
}

Error cudaStreamCreate(void** stream) {
  NewHandle(stream);
  if (std::getenv("GPU_STAND_IN_STREAMS") != nullptr) {
    std::fprintf(stderr, "made stream %p\n", *stream);
  }
  return kSuccess;
}
Error cudaStreamCreateWithFlags(void** stream, unsigned) { return cudaStreamCreate(stream); }
Error cudaStreamCreateWithPriority(void** stream, unsigned, int) {
  return cudaStreamCreate(stream);
}
Error cudaStreamDestroy(void*) { return kSuccess; }
Error cudaStreamQuery(void*) { return kSuccess; }
Error cudaStreamSynchronize(void*) { return kSuccess; }
Error cudaStreamWaitEvent(void*, void*, unsigned) { return kSuccess; }

Error cudaEventCreate(void** event) { return NewHandle(event); }
Error cudaEventCreateWithFlags(void** event, unsigned) { return NewHandle(event); }
Error cudaEventDestroy(void*) { return kSuccess; }
Error cudaEventElapsedTime(float* milliseconds, void*, void*) {
  *milliseconds = 0;
  return kSuccess;
}
Error cudaEventQuery(void*) { return kSuccess; }
Error cudaEventRecord(void*, void*) { return kSuccess; }
Error cudaEventSynchronize(void*) { return kSuccess; }

// What MindSpore 2.7 registers of its own kernels when its plugin is loaded.
void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, void*, void*, void*,
                            void*, int*) {}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
void __cudaUnregisterFatBinary(void**) {}

}  // extern "C"
