// SPDX-License-Identifier: Apache-2.0
// The channel blocks that the backward kernels share out between threads. How work is cut depends
// on the geometry alone, never on the number of threads: sums keep their order, and results their
// bits.
#ifndef MS_DEFORM_CPU_BLOCKS_H_
#define MS_DEFORM_CPU_BLOCKS_H_

#include "cpu/columns.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// Wide enough to fill a panel with one tap, narrow enough to give every thread a block.
constexpr int64_t kBlockChannels = 64;
// Outputs of a block's groups: a tile of their gradients, kTilePixels wide, must stay in L2.
constexpr int64_t kBlockOutputs = 1024;
// Columns of a block (taps * channels) that are worked on together, kTilePixels high, in L2.
constexpr int64_t kBlockColumns = 1024;

// Channels of one offset group: whole groups, or a part of one.
struct ChannelBlock {
  Channels channels;
  int64_t width;  // channels.end - channels.begin
  int64_t offset_group;
  int64_t group;         // the first group
  int64_t members;       // number of groups
  int64_t member_width;  // channels of each of them in this block
  int64_t block_taps;    // taps worked on together
};

static inline ChannelBlock BlockAt(const Geometry& g, int64_t begin) {
  ChannelBlock block;
  block.offset_group = begin / g.offset_group_channels;
  block.group = begin / g.group_in_channels;
  const int64_t end = (block.offset_group + 1) * g.offset_group_channels;
  const int64_t groups_left = (end - begin) / g.group_in_channels;
  const int64_t groups_fitting = Minimum(kBlockChannels / g.group_in_channels,
                                         kBlockOutputs / Maximum(1, g.group_out_channels));
  if (begin % g.group_in_channels == 0 && Minimum(groups_left, groups_fitting) > 0) {
    block.members = Minimum(groups_left, groups_fitting);
    block.member_width = g.group_in_channels;
  } else {
    const int64_t group_end = (block.group + 1) * g.group_in_channels;
    block.members = 1;
    block.member_width = Minimum(kBlockChannels, Minimum(end, group_end) - begin);
  }
  block.width = block.members * block.member_width;
  block.channels = {begin, begin + block.width};
  block.block_taps = Minimum(g.taps, Maximum(1, kBlockColumns / block.width));
  return block;
}

// All blocks, in the order of their channels.
class ChannelBlocks {
 public:
  explicit ChannelBlocks(const Geometry& g) : blocks_(g.in_channels) {
    for (int64_t begin = 0; begin < g.in_channels;
         begin = blocks_.data()[count_ - 1].channels.end) {
      blocks_.data()[count_++] = BlockAt(g, begin);
    }
  }

  int64_t count() const { return count_; }
  const ChannelBlock& operator[](int64_t index) const { return blocks_.data()[index]; }

 private:
  Scratch<ChannelBlock> blocks_;
  int64_t count_ = 0;
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_BLOCKS_H_
