// SPDX-License-Identifier: Apache-2.0
// The memory that kernels work in, kept between calls: fresh pages cost more than a small call. The
// pool holds one block for each call that was ever in progress at the same time as others, as large
// as the largest call needed; kernels say in their own files how much that is.
#ifndef MS_DEFORM_CPU_SCRATCH_H_
#define MS_DEFORM_CPU_SCRATCH_H_

#include <cstdint>

namespace ms_deform {

constexpr int64_t kCacheLine = 64;

struct ScratchBlock {
  void* data;  // aligned to a cache line, uninitialised
  int64_t bytes;
};

// A block of at least this many bytes; throws std::bad_alloc. Thread-safe, as all functions here.
ScratchBlock TakeScratch(int64_t bytes);

// Puts a block back.
void GiveScratch(ScratchBlock block);

// The bytes of all blocks, in use or not.
int64_t ScratchBytes();

// Frees the blocks that are not in use.
void ReleaseScratch();

}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_SCRATCH_H_
