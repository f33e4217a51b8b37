// SPDX-License-Identifier: Apache-2.0
// A slab: the pixels of an image, channels last, with a border of zeros, so that the four corners
// of any sample are at one distance from each other and need no check.
//
// Rows have SlabWidth pixels: a row and a column of zeros before the image, two rows after it. The
// column also serves as the right border of the row before. With the second row a sample outside,
// at (height, -1), reads zeros only. A slab's pixels are counted in 32 bits: Checks::Pixels in
// common/geometry.cc refuses what has more.
#ifndef MS_DEFORM_COMMON_SLAB_H_
#define MS_DEFORM_COMMON_SLAB_H_

#include "common/geometry.h"
#include "common/sampling.h"

namespace ms_deform {

MS_DEFORM_FUNCTION int64_t SlabWidth(const Geometry& g) { return g.in_width + 1; }
MS_DEFORM_FUNCTION int64_t SlabPixels(const Geometry& g) {
  return (g.in_height + 3) * SlabWidth(g);
}
MS_DEFORM_FUNCTION int64_t SlabPixel(const Geometry& g, int64_t y, int64_t x) {
  return (y + 1) * SlabWidth(g) + x + 1;
}

}  // namespace ms_deform

#endif  // MS_DEFORM_COMMON_SLAB_H_
