// SPDX-License-Identifier: Apache-2.0
// How the kernels cut the output pixels into tiles. Where sums run over pixels this depends on the
// geometry alone, never on the number of threads: sums keep their order, and results their bits.
#ifndef MS_DEFORM_CPU_TILES_H_
#define MS_DEFORM_CPU_TILES_H_

#include <cstdint>

#include "common/geometry.h"
#include "cpu/workspace.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// Pixels of a tile at most: a multiple of the rows of a product's block, and enough to read a panel
// of weights once for many of them.
constexpr int64_t kTilePixels = 96;

// Consecutive output pixels of one image, in row-major order.
struct PixelRun {
  int64_t image;
  int64_t first;
  int64_t pixels;  // kTilePixels at most
};

// A run, and where the kernel's first tap lies for each of its pixels.
struct Tile : PixelRun {
  int32_t origin_y[kTilePixels];
  int32_t origin_x[kTilePixels];
};

class Tiles {
 public:
  // Smaller ones, to half of kTilePixels, where the pixels do not make `wanted` tiles.
  Tiles(const Geometry& g, int64_t wanted) : g_(g) {
    const int64_t pixels = RoundUp(CeilDivide(g.batch * g.out_pixels, wanted), 12);
    pixels_ = Minimum(kTilePixels, Maximum(kTilePixels / 2, pixels));
    per_image_ = CeilDivide(g.out_pixels, pixels_);
  }

  int64_t per_image() const { return per_image_; }
  int64_t count() const { return g_.batch * per_image_; }

  // Of the tile with this index in an image.
  int64_t PixelsOf(int64_t index) const {
    return Minimum(pixels_, g_.out_pixels - index * pixels_);
  }

  // The tile with this index, counting through all images.
  void Set(int64_t index, Tile* tile) const {
    tile->image = index / per_image_;
    tile->first = index % per_image_ * pixels_;
    tile->pixels = PixelsOf(index % per_image_);
    int64_t y = tile->first / g_.out_width;
    int64_t x = tile->first % g_.out_width;
    for (int64_t p = 0; p < tile->pixels; ++p) {
      tile->origin_y[p] = static_cast<int32_t>(y * g_.stride_height - g_.pad_top);
      tile->origin_x[p] = static_cast<int32_t>(x * g_.stride_width - g_.pad_left);
      if (++x == g_.out_width) {
        x = 0;
        ++y;
      }
    }
  }

 private:
  const Geometry& g_;
  int64_t pixels_;  // of a tile, but for the last one of an image
  int64_t per_image_;
};

static inline int64_t MultiplyAdds(const Geometry& g) {
  return g.batch * g.out_pixels * g.taps * g.group_in_channels * g.out_channels;
}

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_TILES_H_
