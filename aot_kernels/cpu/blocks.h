// SPDX-License-Identifier: Apache-2.0
// How the kernels cut the channels into blocks. It depends on the geometry alone, never on the
// number of threads: sums keep their order, and results their bits.
#ifndef MS_DEFORM_CPU_BLOCKS_H_
#define MS_DEFORM_CPU_BLOCKS_H_

#include "cpu/product.h"
#include "cpu/storage.h"
#include "cpu/threads.h"
#include "cpu/tiles.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// Channels of a block: a panel's width, so that one tap of a block is one panel of a product.
constexpr int64_t kBlockChannels = 64;
// Bytes of a tile's columns that are worked on together: a part of L2, beside the weights.
constexpr int64_t kColumnBytes = 256 << 10;

// Consecutive channels of one offset group that are sampled together. Slabs and columns hold them
// in `pitch` places, the channels first, then zeros.
struct Slice {
  int64_t channel;
  int64_t width;
  int64_t offset_group;
  int64_t pitch;
  int64_t column;  // its place in a row of its block's columns
};

// Consecutive channels that are multiplied together: a part of one group and offset group, or
// several whole groups of one offset group (members), or several whole offset groups of one group.
struct ChannelBlock {
  int64_t channel;
  int64_t width;
  int64_t group;  // the first one
  int64_t members;
  int64_t member_columns;  // columns of a member group in this block, empty ones included
  int64_t offset_group;    // the first one
  int64_t offset_groups;
  int64_t first_slice;   // one for each offset group
  int64_t pitch;         // of a row of columns
  int64_t packed;        // columns of all members' packed matrices
  int64_t pitch_before;  // sums over the blocks before this one
  int64_t packed_before;
  int64_t block_taps;  // taps worked on together
};

// The places for some channels of an offset group: a power of two of whole or half vectors, so that
// loops over them are unrolled code.
template <typename Real>
static inline int64_t SlicePitch(int64_t width) {
  int64_t pitch = HalfLanes<Real>();
  while (pitch < width) {
    pitch *= 2;
  }
  return pitch;
}

// What is left of a channel's group and offset group, itself included.
struct ChannelsLeft {
  int64_t in_group;
  int64_t in_offset_group;
};

// Products write whole vectors: the last member of a block needs room for them.
template <typename Real>
static inline int64_t LastMemberPitch(const Geometry& g) {
  return PaddedColumns<Real>(g.group_in_channels);
}

// Whether at least two whole groups fit a block that starts at the channel.
template <typename Real>
static inline bool StartsWholeGroups(const Geometry& g, int64_t channel, const ChannelsLeft& left) {
  return channel % g.group_in_channels == 0 && left.in_offset_group >= 2 * g.group_in_channels &&
         g.group_in_channels + LastMemberPitch<Real>(g) <= kBlockChannels;
}

template <typename Real>
static inline void TakeWholeGroups(const Geometry& g, const ChannelsLeft& left,
                                   ChannelBlock* block) {
  const int64_t last_member = LastMemberPitch<Real>(g);
  const int64_t fitting = (kBlockChannels - last_member) / g.group_in_channels + 1;
  block->members = Minimum(left.in_offset_group / g.group_in_channels, fitting);
  block->width = block->members * g.group_in_channels;
  block->member_columns = g.group_in_channels;
  block->pitch = SlicePitch<Real>(block->width - g.group_in_channels + last_member);
}

// Whether at least two whole offset groups fit a block that starts at the channel.
template <typename Real>
static inline bool StartsWholeOffsetGroups(const Geometry& g, int64_t channel,
                                           const ChannelsLeft& left) {
  return channel % g.offset_group_channels == 0 && left.in_group >= 2 * g.offset_group_channels &&
         2 * SlicePitch<Real>(g.offset_group_channels) <= kBlockChannels;
}

template <typename Real>
static inline void TakeWholeOffsetGroups(const Geometry& g, const ChannelsLeft& left,
                                         ChannelBlock* block) {
  const int64_t slice_pitch = SlicePitch<Real>(g.offset_group_channels);
  block->offset_groups =
      Minimum(left.in_group / g.offset_group_channels, kBlockChannels / slice_pitch);
  block->width = block->offset_groups * g.offset_group_channels;
  block->member_columns = block->offset_groups * slice_pitch;
  block->pitch = PaddedColumns<Real>(block->member_columns);
}

// As much as a block holds of one group and offset group.
template <typename Real>
static inline void TakePartOfGroup(const ChannelsLeft& left, ChannelBlock* block) {
  block->width = Minimum(kBlockChannels, Minimum(left.in_group, left.in_offset_group));
  block->pitch = block->member_columns = SlicePitch<Real>(block->width);
}

// The block that starts at a channel, but for its place among the others.
template <typename Real>
static inline ChannelBlock BlockAt(const Geometry& g, int64_t channel) {
  ChannelBlock block = {};
  block.channel = channel;
  block.group = channel / g.group_in_channels;
  block.offset_group = channel / g.offset_group_channels;
  block.members = 1;
  block.offset_groups = 1;
  const ChannelsLeft left = {(block.group + 1) * g.group_in_channels - channel,
                             (block.offset_group + 1) * g.offset_group_channels - channel};
  if (StartsWholeGroups<Real>(g, channel, left)) {
    TakeWholeGroups<Real>(g, left, &block);
  } else if (StartsWholeOffsetGroups<Real>(g, channel, left)) {
    TakeWholeOffsetGroups<Real>(g, left, &block);
  } else {
    TakePartOfGroup<Real>(left, &block);
  }
  block.packed = block.members * PaddedColumns<Real>(block.member_columns);
  const int64_t tap_bytes = kTilePixels * block.pitch * static_cast<int64_t>(sizeof(Real));
  block.block_taps = Minimum(g.taps, Maximum(1, kColumnBytes / tap_bytes));
  return block;
}

// A chain is the blocks of one group, or one block of several groups.
static inline bool EndsChain(const Geometry& g, const ChannelBlock& block) {
  return (block.channel + block.width) % g.group_in_channels == 0;
}

// All blocks and their slices, in the order of their channels.
template <typename Real>
class ChannelBlocks {
 public:
  explicit ChannelBlocks(const Geometry& g) : g_(g) {
    for (int64_t channel = 0; channel < g.in_channels;) {
      const ChannelBlock block = BlockAt<Real>(g, channel);
      ++count_;
      chains_ += EndsChain(g, block);
      slice_count_ += block.offset_groups;
      most_slices_ = Maximum(most_slices_, block.offset_groups);
      pitch_ += block.pitch;
      packed_ += block.packed;
      split_ = split_ || block.width < g.offset_group_channels;
      widest_ = Maximum(widest_, block.pitch);
      most_taps_ = Maximum(most_taps_, block.block_taps);
      columns_ = Maximum(columns_, block.block_taps * kTilePixels * block.pitch);
      most_outputs_ = Maximum(most_outputs_, block.members * g.group_out_channels);
      channel += block.width;
    }
  }

  void Place(ArrayPlacer* placer) {
    blocks_ = placer->Place<ChannelBlock>(count_);
    slices_ = placer->Place<Slice>(slice_count_);
  }

  // To be called once there is memory.
  void Fill() {
    int64_t channel = 0, pitch = 0, packed = 0;
    int64_t slice = 0;
    for (int64_t index = 0; index < count_; ++index) {
      ChannelBlock block = BlockAt<Real>(g_, channel);
      block.first_slice = slice;
      block.pitch_before = pitch;
      block.packed_before = packed;
      blocks_[index] = block;
      for (int64_t i = 0; i < block.offset_groups; ++i) {
        slices_[slice++] = SliceOf(block, i);
      }
      channel += block.width;
      pitch += block.pitch;
      packed += block.packed;
    }
  }

  int64_t count() const { return count_; }
  int64_t chains() const { return chains_; }
  const ChannelBlock& operator[](int64_t index) const { return blocks_[index]; }

  const Slice* SlicesOf(const ChannelBlock& block) const { return slices_ + block.first_slice; }

  int64_t pitch() const { return pitch_; }                // sum over the blocks
  int64_t packed() const { return packed_; }              // sum over the blocks
  int64_t widest() const { return widest_; }              // pitch of a block
  int64_t most_slices() const { return most_slices_; }    // of a block
  int64_t most_taps() const { return most_taps_; }        // worked on together
  int64_t columns() const { return columns_; }            // elements of a tile's columns
  int64_t most_outputs() const { return most_outputs_; }  // of a block's groups
  bool split() const { return split_; }                   // whether blocks share an offset group

 private:
  static Slice SliceOf(const ChannelBlock& block, int64_t index) {
    const int64_t width = block.width / block.offset_groups;
    const int64_t pitch = block.offset_groups == 1 ? block.pitch : SlicePitch<Real>(width);
    return {block.channel + index * width, width, block.offset_group + index, pitch, index * pitch};
  }

  const Geometry& g_;
  int64_t count_ = 0;
  int64_t chains_ = 0;
  int64_t slice_count_ = 0;
  int64_t pitch_ = 0;
  int64_t packed_ = 0;
  int64_t widest_ = 0;
  int64_t most_slices_ = 0;
  int64_t most_taps_ = 0;
  int64_t columns_ = 0;
  int64_t most_outputs_ = 0;
  bool split_ = false;
  ChannelBlock* blocks_ = nullptr;
  Slice* slices_ = nullptr;
};

// Channels of a member that lie together in its columns.
struct ChannelRun {
  int64_t channel;  // of the group
  int64_t width;
  int64_t column;
};

// Calls visit(ChannelRun) for each run of a block's members; they are the same for all members.
template <typename Real, typename Visitor>
static inline void VisitRuns(const Geometry& g, const ChannelBlock& block, Visitor visit) {
  const int64_t width = Minimum(block.member_columns, block.width / block.offset_groups);
  for (int64_t i = 0; i < block.offset_groups; ++i) {
    visit(ChannelRun{block.channel % g.group_in_channels + i * width, width,
                     i * SlicePitch<Real>(width)});
  }
}

// Whether a member's packed matrices have columns without a channel.
static inline bool HasEmptyColumns(const ChannelBlock& block) {
  return block.members == 1 && block.width < block.member_columns;
}

// The parts of a group's outputs that are pieces of work of their own.
class OutputParts {
 public:
  // As many as make kPieces of that many pieces, if each gets kLeastOutputs.
  OutputParts(int64_t outputs, int64_t pieces) : outputs_(outputs) {
    const int64_t wanted = CeilDivide(kPieces, Maximum(1, pieces));
    width_ = RoundUp(CeilDivide(Maximum(1, outputs), wanted), kLeastOutputs);
    count_ = CeilDivide(outputs, width_);
  }

  int64_t count() const { return count_; }

  // The outputs of some parts, as far as there are such parts.
  ColumnRun Outputs(const PieceRun& parts) const {
    return {Minimum(Maximum(0, parts.first) * width_, outputs_),
            Minimum(Maximum(0, parts.end) * width_, outputs_)};
  }

 private:
  // A part samples for itself, which takes as long as the products of some six outputs. A multiple
  // of a panel's width.
  static constexpr int64_t kLeastOutputs = 64;

  int64_t outputs_;
  int64_t width_;
  int64_t count_;
};

// grad_output[output of the block's groups, kTilePixels], for these outputs of each group.
template <typename Real, typename Call>
static void LoadGradOutput(const Call& call, const PixelRun& run, const ChannelBlock& block,
                           const ColumnRun& outputs, Real* grad_output) {
  const Geometry& g = call.geometry;
  for (int64_t member = 0; member < block.members; ++member) {
    const int64_t group = run.image * g.groups + block.group + member;
    for (int64_t o = outputs.first; o < outputs.end; ++o) {
      LoadValues(call.dtype, call.grad_output,
                 (group * g.group_out_channels + o) * g.out_pixels + run.first, run.pixels,
                 grad_output + (member * g.group_out_channels + o) * kTilePixels);
    }
  }
}

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_BLOCKS_H_
