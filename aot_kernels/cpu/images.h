// SPDX-License-Identifier: Apache-2.0
// Slabs (common/slab.h) of the channels of one block of one image: one for each slice of the block.
#ifndef MS_DEFORM_CPU_IMAGES_H_
#define MS_DEFORM_CPU_IMAGES_H_

#include "common/slab.h"
#include "cpu/blocks.h"
#include "cpu/layout.h"

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

// Loads one row of an image into the slab of a block, with the borders that belong to it; rows are
// counted from -1 to in_height + 1.
template <typename Real>
static void LoadSlabRow(const Geometry& g, DType dtype, const void* input, int64_t image,
                        const ChannelBlocks<Real>& blocks, const ChannelBlock& block, int64_t y,
                        Real* slab) {
  for (int64_t i = 0; i < block.offset_groups; ++i) {
    const Slice& slice = blocks.SlicesOf(block)[i];
    Real* row = slab + slice.column * SlabPixels(g) + SlabPixel(g, y, -1) * slice.pitch;
    if (y < 0 || y >= g.in_height) {
      FillZeros(row, SlabWidth(g) * slice.pitch);
      continue;
    }
    FillZeros(row, slice.pitch);
    const int64_t first = (image * g.in_channels + slice.channel) * g.in_pixels + y * g.in_width;
    VisitStorage<Real>(dtype, input, [&](auto* storage) {
      WithPitch<Real>(slice.pitch, [&](auto pitch) {
        LoadTransposed<LanesOfPitch<Real>(pitch)>(storage + first, g.in_pixels, slice.width,
                                                  g.in_width, row + pitch, pitch);
      });
    });
  }
}

// Slabs of several images, [image][block], loaded in passes: as many images at a time as fit
// `kPassBytes`, one at least.
constexpr int64_t kPassBytes = 32 << 20;

template <typename Real>
class ImageSlabs {
 public:
  ImageSlabs(const Geometry& g, const ChannelBlocks<Real>& blocks) : g_(g), blocks_(blocks) {
    const int64_t bytes = blocks.pitch() * SlabPixels(g) * static_cast<int64_t>(sizeof(Real));
    capacity_ = Maximum(1, Minimum(g.batch, kPassBytes / Maximum(1, bytes)));
  }

  void Place(ArrayPlacer* placer) {
    slabs_ = placer->Place<Real>(capacity_ * blocks_.pitch() * SlabPixels(g_));
  }

  int64_t capacity() const { return capacity_; }

  // Loads the images of a pass, from `first` to `end`, shared out among the threads.
  void Load(DType dtype, const void* input, int64_t first, int64_t end) const {
    const int64_t rows = g_.in_height + 3;
#pragma omp for schedule(static) collapse(3) nowait
    for (int64_t image = first; image < end; ++image) {
      for (int64_t index = 0; index < blocks_.count(); ++index) {
        for (int64_t y = -1; y < rows - 1; ++y) {
          const ChannelBlock& block = blocks_[index];
          LoadSlabRow(g_, dtype, input, image, blocks_, block, y, Slab(image, block));
        }
      }
    }
  }

  // Every pass starts with a multiple of the capacity.
  Real* Slab(int64_t image, const ChannelBlock& block) const {
    return slabs_ + (image % capacity_ * blocks_.pitch() + block.pitch_before) * SlabPixels(g_);
  }

 private:
  const Geometry& g_;
  const ChannelBlocks<Real>& blocks_;
  int64_t capacity_;
  Real* slabs_ = nullptr;
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_IMAGES_H_
