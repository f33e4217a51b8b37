// SPDX-License-Identifier: Apache-2.0
// The memory of a call, as a device's scheduler hands it to RunCpuKernel: a Head, the address of
// each input and output, the length of the node's description and the description; elsewhere, its
// extension of Pieces. As in hicann/runtime at 681ef761, pkg_inc/aicpu_sched/common; but that the
// description, which CANN has in protobuf, is text here.
#ifndef MS_DEFORM_TESTS_AICPU_SDK_CALL_BLOCK_H_
#define MS_DEFORM_TESTS_AICPU_SDK_CALL_BLOCK_H_

#include <cstddef>
#include <cstdint>
#include <limits>

namespace call_block {

#pragma pack(push, 1)
struct Head {
  uint32_t bytes;  // with all that follows it
  uint32_t addresses;
  uint32_t extension_bytes;
  uint64_t extension;
};

struct Piece {
  int32_t kind;
  uint32_t bytes;  // of what follows it
};

struct Session {
  uint64_t session;
  uint64_t kernel;
  bool by_session;
};
#pragma pack(pop)

// A shape: the dtype of the tensor in 4 bytes, then its sizes in 8 bytes each, kNoDimension after
// the last.
constexpr size_t kMostDimensions = 8;
constexpr size_t kSizesOfShape = sizeof(int32_t);
constexpr size_t kBytesOfShape = kSizesOfShape + kMostDimensions * sizeof(int64_t);
constexpr int64_t kNoDimension = std::numeric_limits<int64_t>::min();

enum PieceKind : int32_t { kUnknownShapes = 0, kInputShapes = 1, kOutputShapes = 2, kSession = 5 };

struct Block {
  uint32_t count;
  uint32_t index;
};

}  // namespace call_block

extern "C" {
uint32_t RunCpuKernel(void* call);
uint32_t RunCpuKernelWithBlock(void* call, call_block::Block* block);
}

#endif  // MS_DEFORM_TESTS_AICPU_SDK_CALL_BLOCK_H_
