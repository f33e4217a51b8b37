// SPDX-License-Identifier: Apache-2.0
// The division of a call's scratch into arrays.
#ifndef MS_DEFORM_CPU_WORKSPACE_H_
#define MS_DEFORM_CPU_WORKSPACE_H_

#include <cstdint>

#include "common/integers.h"
#include "cpu/scratch.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace ms_deform {
namespace MS_DEFORM_ISA {

// Hands out arrays one after the other, each aligned to a cache line; or, without memory behind it,
// adds up what they take.
class ArrayPlacer {
 public:
  ArrayPlacer() : address_(0) {}
  explicit ArrayPlacer(void* memory) : address_(reinterpret_cast<uintptr_t>(memory)) {}

  template <typename Element>
  Element* Place(int64_t count) {
    const uintptr_t array = address_ + bytes_;
    const int64_t size = count * static_cast<int64_t>(sizeof(Element));
    bytes_ += RoundUp(size, kCacheLine);
#if defined(__SANITIZE_ADDRESS__)
    // A gap that the sanitizer guards: the arrays are one block to it otherwise.
    if (address_ != 0) {
      ASAN_POISON_MEMORY_REGION(reinterpret_cast<void*>(array + size),
                                RoundUp(size, kCacheLine) - size + kCacheLine);
    }
    bytes_ += kCacheLine;
#endif
    return reinterpret_cast<Element*>(array);
  }

  int64_t bytes() const { return bytes_; }

 private:
  uintptr_t address_;
  int64_t bytes_ = 0;
};

// The scratch of a call: `place(ArrayPlacer*)` runs twice, to measure and to place.
class Workspace {
 public:
  template <typename PlaceArrays>
  explicit Workspace(PlaceArrays place) {
    ArrayPlacer measuring;
    place(&measuring);
    block_ = TakeScratch(measuring.bytes());
    ArrayPlacer placing(block_.data);
    place(&placing);
  }
  ~Workspace() {
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(block_.data, block_.bytes);
#endif
    GiveScratch(block_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

 private:
  ScratchBlock block_;
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_WORKSPACE_H_
