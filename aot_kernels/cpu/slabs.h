// SPDX-License-Identifier: Apache-2.0
// Slabs (common/slab.h) of the channels of one block of one image: one for each slice of the block.
#ifndef MS_DEFORM_CPU_SLABS_H_
#define MS_DEFORM_CPU_SLABS_H_

#include <type_traits>

#include "common/calls.h"
#include "common/slab.h"
#include "cpu/blocks.h"
#include "cpu/threads.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// Lanes of the vectors that make up a pitch.
template <typename Real>
constexpr int LanesOfPitch(int pitch) {
  return pitch < Lanes<Real>() ? HalfLanes<Real>() : Lanes<Real>();
}

// Calls body(std::integral_constant<int, pitch>): code with a slice's pitch known to the compiler.
template <typename Real, int kPitch = HalfLanes<Real>(), typename Body>
static inline void WithPitch(int64_t pitch, Body body) {
  if constexpr (kPitch < kBlockChannels) {
    if (pitch > kPitch) {
      return WithPitch<Real, 2 * kPitch>(pitch, body);
    }
  }
  body(std::integral_constant<int, kPitch>());
}

// Rows of a slab, borders included: they are counted from -1.
static inline int64_t SlabRows(const Geometry& g) { return g.in_height + 3; }

// Loads images into slabs, a row at a time.
template <typename Real>
class SlabLoader {
 public:
  SlabLoader(const Geometry& g, DType dtype, const void* input, const ChannelBlocks<Real>& blocks)
      : g_(g), dtype_(dtype), input_(input), blocks_(blocks) {}

  // Loads one row into the slab of a block, with the borders that belong to it.
  void LoadRow(int64_t image, const ChannelBlock& block, int64_t y, Real* slab) const {
    for (int64_t i = 0; i < block.offset_groups; ++i) {
      const Slice& slice = blocks_.SlicesOf(block)[i];
      Real* row = slab + slice.column * SlabPixels(g_) + SlabPixel(g_, y, -1) * slice.pitch;
      if (y < 0 || y >= g_.in_height) {
        FillZeros(row, SlabWidth(g_) * slice.pitch);
        continue;
      }
      FillZeros(row, slice.pitch);
      const int64_t first =
          (image * g_.in_channels + slice.channel) * g_.in_pixels + y * g_.in_width;
      VisitStorage<Real>(dtype_, input_, [&](const auto* storage) {
        using Storage = std::remove_reference_t<decltype(*storage)>;
        const Matrix<Storage> pixels = {storage + first, g_.in_pixels, slice.width, g_.in_width};
        WithPitch<Real>(slice.pitch, [&](auto pitch) {
          LoadTransposed<LanesOfPitch<Real>(pitch)>(pixels, Rows<Real>{row + pitch, pitch});
        });
      });
    }
  }

 private:
  const Geometry& g_;
  DType dtype_;
  const void* input_;  // [N, C_in, H, W]
  const ChannelBlocks<Real>& blocks_;
};

// Slabs of several images, [image][block], loaded in passes: as many images at a time as fit
// `kPassBytes`, one at least.
constexpr int64_t kPassBytes = 32 << 20;

template <typename Real>
class ImageSlabs {
 public:
  ImageSlabs(const Geometry& g, const ChannelBlocks<Real>& blocks, const SlabLoader<Real>& loader)
      : g_(g), blocks_(blocks), loader_(loader) {
    const int64_t bytes = blocks.pitch() * SlabPixels(g) * static_cast<int64_t>(sizeof(Real));
    capacity_ = Maximum(1, Minimum(g.batch, kPassBytes / Maximum(1, bytes)));
  }

  void Place(ArrayPlacer* placer) {
    slabs_ = placer->Place<Real>(capacity_ * blocks_.pitch() * SlabPixels(g_));
  }

  int64_t capacity() const { return capacity_; }

  // Loads the images of a pass, from `first` to `end`.
  void Load(int64_t first, int64_t end, Worker* worker) const {
    const int64_t rows = SlabRows(g_);
    worker->ShareShort((end - first) * blocks_.count() * rows, [&](int64_t row) {
      const int64_t image = first + row / rows / blocks_.count();
      const ChannelBlock& block = blocks_[row / rows % blocks_.count()];
      loader_.LoadRow(image, block, row % rows - 1, Slab(image, block));
    });
  }

  // Every pass starts with a multiple of the capacity.
  Real* Slab(int64_t image, const ChannelBlock& block) const {
    return slabs_ + (image % capacity_ * blocks_.pitch() + block.pitch_before) * SlabPixels(g_);
  }

 private:
  const Geometry& g_;
  const ChannelBlocks<Real>& blocks_;
  SlabLoader<Real> loader_;
  int64_t capacity_;
  Real* slabs_ = nullptr;
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_SLABS_H_
