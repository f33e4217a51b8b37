// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>
#include <mma.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

EmulatedIndex threadIdx;
EmulatedIndex blockIdx;
EmulatedIndex gridDim;

namespace emulation {
namespace {

constexpr int kWarp = 32;
constexpr int kMostThreads = 1024;
constexpr int64_t kSharedByDefault = 48 << 10;
constexpr int64_t kSharedAtMost = 99 << 10;  // of the smaller GPUs from compute capability 8 on
constexpr size_t kStackBytes = 128 << 10;
constexpr int kNaNByte = 0xff;  // makes a NaN of every floating type

[[noreturn]] void Die(const std::string& why) {
  std::fprintf(stderr, "CUDA emulation: %s\n", why.c_str());
  std::abort();
}

bool Asked(const char* variable, const char* value) {
  const char* set = std::getenv(variable);
  return set != nullptr && std::strcmp(set, value) == 0;
}

// Threads that wait for each other. Those that have ended count as arrived nowhere: a GPU would
// hang, or worse.
struct Barrier {
  int waiting = 0;
  int64_t generation = 0;
};

// Where a thread or the scheduler goes on. The compiler's own setjmp: unlike swapcontext it makes
// no system call, which would be half of the time.
struct Place {
  void* buffer[5];
};

[[gnu::noinline, noreturn]] void GoTo(Place* place) { __builtin_longjmp(place->buffer, 1); }

[[gnu::noinline]] void Switch(Place* from, Place* to) {
  if (__builtin_setjmp(from->buffer) == 0) {
    GoTo(to);
  }
}

[[gnu::noinline]] void Start(Place* from, const ucontext_t* to) {
  if (__builtin_setjmp(from->buffer) == 0) {
    setcontext(to);
  }
}

struct Thread {
  ucontext_t start;
  Place place;
  bool started = false;
  bool ended = false;
};

// Of thread i of every block, one after the other.
char* StackOf(size_t i) {
  static std::vector<std::unique_ptr<char[]>> stacks;
  while (stacks.size() <= i) {
    stacks.emplace_back(new char[kStackBytes]);
  }
  return stacks[i].get();
}

class Block {
 public:
  Block(int threads, int64_t shared_bytes, const std::function<void()>& body)
      : threads_(threads),
        warps_((threads + kWarp - 1) / kWarp),
        exchange_(static_cast<size_t>(threads)),
        // Exactly as large as asked for, so that the address sanitizer sees its end.
        shared_(static_cast<char*>(std::aligned_alloc(128, (shared_bytes + 127) / 128 * 128)),
                &std::free),
        body_(body) {
    std::memset(shared_.get(), kNaNByte, static_cast<size_t>((shared_bytes + 127) / 128 * 128));
    for (size_t i = 0; i < threads_.size(); ++i) {
      Prepare(&threads_[i].start, StackOf(i));
    }
  }

  void Run(bool descending) {
    current_ = this;
    const int count = static_cast<int>(threads_.size());
    for (int alive = count; alive > 0;) {
      const int64_t before = progress_;
      for (int i = 0; i < count; ++i) {
        const int index = descending ? count - 1 - i : i;
        if (!threads_[index].ended) {
          Resume(index);
          alive -= threads_[index].ended ? 1 : 0;
        }
      }
      if (progress_ == before) {
        Die("the threads of a block wait for each other forever");
      }
    }
    current_ = nullptr;
  }

  void Wait(Barrier* barrier, int members) {
    const int64_t generation = barrier->generation;
    if (++barrier->waiting == members) {
      barrier->waiting = 0;
      ++barrier->generation;
      ++progress_;
    }
    while (barrier->generation == generation) {
      Yield();
    }
  }

  void WaitForBlock() { Wait(&block_, static_cast<int>(threads_.size())); }

  void WaitForWarp() {
    const int first = static_cast<int>(threadIdx.x) / kWarp * kWarp;
    Wait(&warps_[threadIdx.x / kWarp], std::min(kWarp, static_cast<int>(threads_.size()) - first));
  }

  void ReadLane(const void* own, int lane, void* result, size_t size) {
    exchange_[threadIdx.x] = own;
    WaitForWarp();
    std::memcpy(result, exchange_[threadIdx.x / kWarp * kWarp + lane], size);
    WaitForWarp();
  }

  void* shared() const { return shared_.get(); }

  static Block* Current() {
    if (current_ == nullptr) {
      Die("device code outside of a kernel");
    }
    return current_;
  }

 private:
  static void Prepare(ucontext_t* context, char* stack) {
    getcontext(context);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = kStackBytes;
    makecontext(context, &Block::Enter, 0);
  }

  static void Enter() {
    Block* block = current_;
    block->Switched();
    block->body_();
    block->threads_[threadIdx.x].ended = true;
    ++block->progress_;
    block->Yield();
  }

  void Resume(int index) {
    threadIdx.x = static_cast<unsigned>(index);
    Thread& thread = threads_[index];
    Switching(StackOf(static_cast<size_t>(index)), kStackBytes);
    if (thread.started) {
      Switch(&scheduler_, &thread.place);
    } else {
      thread.started = true;
      Start(&scheduler_, &thread.start);
    }
    Switched();
  }

  void Yield() {
    Thread& thread = threads_[threadIdx.x];
    Switching(scheduler_stack_, scheduler_stack_bytes_);
    Switch(&thread.place, &scheduler_);
    Switched();
  }

  // The address sanitizer is told which stack is in use.
#if defined(__SANITIZE_ADDRESS__)
  void Switching(const void* stack, size_t bytes) {
    __sanitizer_start_switch_fiber(nullptr, stack, bytes);
  }
  void Switched() {
    const void* stack = nullptr;
    size_t bytes = 0;
    __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
    // The first thread to run comes from the scheduler's stack.
    if (scheduler_stack_ == nullptr) {
      scheduler_stack_ = stack;
      scheduler_stack_bytes_ = bytes;
    }
  }
#else
  void Switching(const void*, size_t) {}
  void Switched() {}
#endif

  static Block* current_;

  std::vector<Thread> threads_;
  Barrier block_;
  std::vector<Barrier> warps_;
  std::vector<const void*> exchange_;
  std::unique_ptr<char, decltype(&std::free)> shared_;
  const std::function<void()>& body_;
  Place scheduler_;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_bytes_ = 0;
  int64_t progress_ = 0;
};

Block* Block::current_ = nullptr;

// Grids run one after the other, whoever launches them.
std::mutex device;
cudaError_t last_error = cudaSuccess;
std::map<const void*, int64_t> shared_allowed;

bool CanRun(const void* kernel, int64_t blocks, int threads, int64_t shared_bytes) {
  const auto allowed = shared_allowed.find(kernel);
  const int64_t most = allowed == shared_allowed.end() ? kSharedByDefault : allowed->second;
  return blocks > 0 && blocks <= INT32_MAX && threads > 0 && threads <= kMostThreads &&
         shared_bytes <= most && !Asked("MS_EMULATION_FAIL", "launch");
}

}  // namespace

void RunGrid(const void* kernel, int64_t blocks, int threads, int64_t shared_bytes,
             const std::function<void()>& thread) {
  const std::lock_guard<std::mutex> lock(device);
  if (!CanRun(kernel, blocks, threads, shared_bytes)) {
    last_error = cudaErrorInvalidConfiguration;
    return;
  }
  const bool descending = Asked("MS_EMULATION_ORDER", "descending");
  gridDim.x = static_cast<unsigned>(blocks);
  for (int64_t i = 0; i < blocks; ++i) {
    blockIdx.x = static_cast<unsigned>(descending ? blocks - 1 - i : i);
    Block(threads, shared_bytes, thread).Run(descending);
  }
}

void* SharedMemory() { return Block::Current()->shared(); }

void ReadLane(const void* own, int lane, void* result, size_t size) {
  Block::Current()->ReadLane(own, lane, result, size);
}

}  // namespace emulation

void __syncthreads() { emulation::Block::Current()->WaitForBlock(); }
void __syncwarp() { emulation::Block::Current()->WaitForWarp(); }

void nvcuda::wmma::emulated::CheckMatrix(const void* data, unsigned leading, size_t element) {
  // CUDA C++ Programming Guide, Warp Matrix Functions: 256-bit pointers, rows of whole 16 bytes.
  if (reinterpret_cast<uintptr_t>(data) % 32 != 0 || leading * element % 16 != 0) {
    emulation::Die("a matrix that is not aligned for the matrix unit");
  }
}

struct EmulatedPool {
  std::map<void*, size_t> blocks;
  size_t used = 0;
  size_t reserved = 0;  // grows with what is in use and is given back by a trim only
};

namespace {

// One device, one pool: the guard is that of emulation::device, or the caller's.
EmulatedPool the_pool;
std::mutex pool_guard;

}  // namespace

const char* cudaGetErrorString(cudaError_t status) {
  return status == cudaErrorMemoryAllocation ? "out of memory" : "invalid configuration argument";
}

cudaError_t cudaGetLastError() {
  const std::lock_guard<std::mutex> lock(emulation::device);
  const cudaError_t status = emulation::last_error;
  emulation::last_error = cudaSuccess;
  return status;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 3;  // of anything
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  const std::lock_guard<std::mutex> lock(emulation::device);
  if (value > emulation::kSharedAtMost) {
    return cudaErrorInvalidConfiguration;
  }
  emulation::shared_allowed[kernel] = value;
  return cudaSuccess;
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
  *pool = &the_pool;
  return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr, void* value) {
  const std::lock_guard<std::mutex> lock(pool_guard);
  *static_cast<uint64_t*>(value) = pool->reserved;
  return cudaSuccess;
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t) {
  const std::lock_guard<std::mutex> lock(pool_guard);
  pool->reserved = pool->used;
  return cudaSuccess;
}

cudaError_t cudaMallocFromPoolAsync(void** data, size_t bytes, cudaMemPool_t pool,
                                    cudaStream_t stream) {
  if (std::getenv("MS_EMULATION_STREAMS") != nullptr) {
    std::fprintf(stderr, "emulation: stream %p\n", static_cast<void*>(stream));
  }
  const std::lock_guard<std::mutex> lock(pool_guard);
  if (emulation::Asked("MS_EMULATION_FAIL", "allocate")) {
    return cudaErrorMemoryAllocation;
  }
  // Of exactly this size: the address sanitizer then sees its end.
  if (posix_memalign(data, 256, bytes) != 0) {
    return cudaErrorMemoryAllocation;
  }
  std::memset(*data, emulation::kNaNByte, bytes);
  pool->blocks[*data] = bytes;
  pool->used += bytes;
  pool->reserved = std::max(pool->reserved, pool->used);
  return cudaSuccess;
}

cudaError_t cudaFreeAsync(void* data, cudaStream_t) {
  const std::lock_guard<std::mutex> lock(pool_guard);
  the_pool.used -= the_pool.blocks.at(data);
  the_pool.blocks.erase(data);
  std::free(data);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t) {
  std::memset(data, value, bytes);
  return cudaSuccess;
}
