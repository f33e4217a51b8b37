// SPDX-License-Identifier: Apache-2.0
// How the kernels cut the output pixels into tiles. It depends on the geometry alone, never on the
// number of threads: sums keep their order, and results their bits.
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
// Tiles at least, where pixels allow, so that threads end at the same time.
constexpr int64_t kTiles = 32;

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

#endif  // MS_DEFORM_CPU_TILES_H_
