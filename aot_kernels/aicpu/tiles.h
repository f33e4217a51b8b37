// SPDX-License-Identifier: Apache-2.0
// Tiles of output pixels. Each element of a result belongs to one unit of work and is summed up in
// one order, so that the bits do not depend on the number of cores.
#ifndef MS_DEFORM_AICPU_TILES_H_
#define MS_DEFORM_AICPU_TILES_H_

#include "common/geometry.h"
#include "common/integers.h"

namespace ms_deform {
namespace aicpu_backend {

// A tile's columns of one group stay in a core's cache up to 256 channels with 3x3 taps.
constexpr int64_t kTilePixels = 64;

inline int64_t TilesOf(const Geometry& g) { return CeilDivide(g.out_pixels, kTilePixels); }

// Output pixels of one image that are worked on together.
struct Tile {
  Tile(const Geometry& g, int64_t index)
      : first(index * kTilePixels), size(Minimum(kTilePixels, g.out_pixels - first)) {}
  int64_t first;
  int64_t size;
};

}  // namespace aicpu_backend
}  // namespace ms_deform

#endif  // MS_DEFORM_AICPU_TILES_H_
