// SPDX-License-Identifier: Apache-2.0
// How the kernels cut the work: channels into blocks, output pixels into tiles. It depends on the
// geometry alone, never on the number of threads: sums keep their order, and results their bits.
#ifndef MS_DEFORM_CPU_BLOCKS_H_
#define MS_DEFORM_CPU_BLOCKS_H_

#include "cpu/kernels.h"
#include "cpu/multiply.h"
#include "cpu/threads.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// Channels of a block: a panel's width, so that one tap of a block is one panel of a product.
constexpr int64_t kBlockChannels = 64;
// Bytes of a tile's columns that are worked on together: a part of L2, beside the weights.
constexpr int64_t kColumnBytes = 256 << 10;
// Pixels of a tile at most: a multiple of the rows of a product's block, and enough to read a panel
// of weights once for many of them.
constexpr int64_t kTilePixels = 96;
// Tiles at least, where pixels allow, so that threads end at the same time.
constexpr int64_t kTiles = 32;

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

// The block that starts at a channel, but for its place among the others.
template <typename Real>
static inline ChannelBlock BlockAt(const Geometry& g, int64_t channel) {
  ChannelBlock block = {};
  block.channel = channel;
  block.group = channel / g.group_in_channels;
  block.offset_group = channel / g.offset_group_channels;
  block.members = 1;
  block.offset_groups = 1;
  const int64_t in_group = (block.group + 1) * g.group_in_channels - channel;
  const int64_t in_offset_group = (block.offset_group + 1) * g.offset_group_channels - channel;
  // Products write whole vectors: the last member needs room for them.
  const int64_t last_member = PaddedColumns<Real>(g.group_in_channels);
  const int64_t slice_pitch = SlicePitch<Real>(g.offset_group_channels);
  if (channel % g.group_in_channels == 0 && in_offset_group >= 2 * g.group_in_channels &&
      g.group_in_channels + last_member <= kBlockChannels) {
    const int64_t fitting = (kBlockChannels - last_member) / g.group_in_channels + 1;
    block.members = Minimum(in_offset_group / g.group_in_channels, fitting);
    block.width = block.members * g.group_in_channels;
    block.member_columns = g.group_in_channels;
    block.pitch = SlicePitch<Real>(block.width - g.group_in_channels + last_member);
  } else if (channel % g.offset_group_channels == 0 && in_group >= 2 * g.offset_group_channels &&
             2 * slice_pitch <= kBlockChannels) {
    block.offset_groups = Minimum(in_group / g.offset_group_channels, kBlockChannels / slice_pitch);
    block.width = block.offset_groups * g.offset_group_channels;
    block.member_columns = block.offset_groups * slice_pitch;
    block.pitch = PaddedColumns<Real>(block.member_columns);
  } else {
    block.width = Minimum(kBlockChannels, Minimum(in_group, in_offset_group));
    block.pitch = block.member_columns = SlicePitch<Real>(block.width);
  }
  block.packed = block.members * PaddedColumns<Real>(block.member_columns);
  const int64_t tap_bytes = kTilePixels * block.pitch * static_cast<int64_t>(sizeof(Real));
  block.block_taps = Minimum(g.taps, Maximum(1, kColumnBytes / tap_bytes));
  return block;
}

// All blocks and their slices, in the order of their channels.
template <typename Real>
class ChannelBlocks {
 public:
  explicit ChannelBlocks(const Geometry& g) : g_(g) {
    for (int64_t channel = 0; channel < g.in_channels;) {
      const ChannelBlock block = BlockAt<Real>(g, channel);
      ++count_;
      slice_count_ += block.offset_groups;
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
  const ChannelBlock& operator[](int64_t index) const { return blocks_[index]; }

  const Slice* SlicesOf(const ChannelBlock& block) const { return slices_ + block.first_slice; }

  int64_t pitch() const { return pitch_; }                // sum over the blocks
  int64_t packed() const { return packed_; }              // sum over the blocks
  int64_t widest() const { return widest_; }              // pitch of a block
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
  int64_t slice_count_ = 0;
  int64_t pitch_ = 0;
  int64_t packed_ = 0;
  int64_t widest_ = 0;
  int64_t most_taps_ = 0;
  int64_t columns_ = 0;
  int64_t most_outputs_ = 0;
  bool split_ = false;
  ChannelBlock* blocks_ = nullptr;
  Slice* slices_ = nullptr;
};

// Calls visit(channel of the group, width, column) for each run of a member's channels that lies
// together in its columns.
template <typename Real, typename Visitor>
static inline void VisitRuns(const Geometry& g, const ChannelBlock& block, Visitor visit) {
  const int64_t width = Minimum(block.member_columns, block.width / block.offset_groups);
  for (int64_t i = 0; i < block.offset_groups; ++i) {
    visit(block.channel % g.group_in_channels + i * width, width, i * SlicePitch<Real>(width));
  }
}

// Whether a member's packed matrices have columns without a channel.
static inline bool HasEmptyColumns(const ChannelBlock& block) {
  return block.members == 1 && block.width < block.member_columns;
}

// Consecutive output pixels of one image, in row-major order, and where the kernel's first tap lies
// for each of them.
struct Tile {
  int64_t image;
  int64_t first;
  int64_t pixels;
  int32_t origin_y[kTilePixels];
  int32_t origin_x[kTilePixels];
};

static inline int64_t TilePixels(const Geometry& g) {
  const int64_t pixels = CeilDivide(g.batch * g.out_pixels, kTiles);
  return Minimum(kTilePixels, Maximum(kTilePixels / 2, RoundUp(pixels, 12)));
}

static inline int64_t TilesPerImage(const Geometry& g) {
  return CeilDivide(g.out_pixels, TilePixels(g));
}

// The tile with this index, counting through all images.
static inline void SetTile(const Geometry& g, int64_t index, Tile* tile) {
  const int64_t tiles = TilesPerImage(g);
  tile->image = index / tiles;
  tile->first = index % tiles * TilePixels(g);
  tile->pixels = Minimum(TilePixels(g), g.out_pixels - tile->first);
  int64_t y = tile->first / g.out_width;
  int64_t x = tile->first % g.out_width;
  for (int64_t p = 0; p < tile->pixels; ++p) {
    tile->origin_y[p] = static_cast<int32_t>(y * g.stride_height - g.pad_top);
    tile->origin_x[p] = static_cast<int32_t>(x * g.stride_width - g.pad_left);
    if (++x == g.out_width) {
      x = 0;
      ++y;
    }
  }
}

static inline int64_t MultiplyAdds(const Geometry& g) {
  return g.batch * g.out_pixels * g.taps * g.group_in_channels * g.out_channels;
}

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_BLOCKS_H_
