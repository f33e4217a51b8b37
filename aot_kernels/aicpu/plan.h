// SPDX-License-Identifier: Apache-2.0
// The sampling plan of a tile: its points and masks for one offset group, and the samples
// themselves.
#ifndef MS_DEFORM_AICPU_PLAN_H_
#define MS_DEFORM_AICPU_PLAN_H_

#include <vector>

#include "aicpu/storage.h"
#include "aicpu/tiles.h"
#include "common/sampling.h"

namespace ms_deform {
namespace aicpu_backend {

using Point = SamplePoint<float>;

// The sampling points [taps, kTilePixels] of a tile for one offset group, and their masks.
template <typename Element>
class TilePoints {
 public:
  explicit TilePoints(const Geometry& g)
      : g_(g),
        points_(static_cast<size_t>(g.taps * kTilePixels)),
        masks_(static_cast<size_t>(g.taps * kTilePixels), 1.0f) {}

  // offset and mask: those of one image.
  void Locate(const Element* offset, const Element* mask, int64_t offset_group, const Tile& tile) {
    for (int64_t tap = 0; tap < g_.taps; ++tap) {
      const int64_t sample = offset_group * g_.taps + tap;
      const Element* offset_y = offset + 2 * sample * g_.out_pixels + tile.first;
      const Element* offset_x = offset_y + g_.out_pixels;
      for (int64_t p = 0; p < tile.size; ++p) {
        const int64_t pixel = tile.first + p;
        const int64_t y = pixel / g_.out_width * g_.stride_height - g_.pad_top +
                          tap / g_.kernel_width * g_.dilation_height;
        const int64_t x = pixel % g_.out_width * g_.stride_width - g_.pad_left +
                          tap % g_.kernel_width * g_.dilation_width;
        points_[Index(tap, p)] = LocateSample(
            static_cast<float>(y) + Load(offset_y[p]), static_cast<float>(x) + Load(offset_x[p]),
            static_cast<int32_t>(g_.in_height), static_cast<int32_t>(g_.in_width));
        if (g_.use_mask) {
          masks_[Index(tap, p)] = Load(mask[sample * g_.out_pixels + pixel]);
        }
      }
    }
  }

  const Point& point(int64_t tap, int64_t p) const { return points_[Index(tap, p)]; }
  float mask(int64_t tap, int64_t p) const { return masks_[Index(tap, p)]; }

 private:
  static size_t Index(int64_t tap, int64_t p) { return static_cast<size_t>(tap * kTilePixels + p); }

  const Geometry& g_;
  std::vector<Point> points_;
  std::vector<float> masks_;
};

// The pixels' indices in an image plane of a point's corners; -1 for those outside.
inline void CornersOf(const Geometry& g, const Point& point, int64_t corners[kCorners]) {
  for (int i = 0; i < kCorners; ++i) {
    const int64_t row = point.top + i / 2;
    const int64_t column = point.left + i % 2;
    const bool in_image = row >= 0 && row < g.in_height && column >= 0 && column < g.in_width;
    corners[i] = in_image ? row * g.in_width + column : -1;
  }
}

template <typename Element>
void CornerValues(const Geometry& g, const Element* plane, const Point& point,
                  float values[kCorners]) {
  int64_t corners[kCorners];
  CornersOf(g, point, corners);
  for (int i = 0; i < kCorners; ++i) {
    values[i] = corners[i] < 0 ? 0.0f : Load(plane[corners[i]]);
  }
}

inline float Interpolate(const Point& point, const float values[kCorners]) {
  if (!point.inside) {
    return 0;
  }
  float weights[kCorners];
  CornerWeights(point.fraction_y, point.fraction_x, weights);
  return weights[0] * values[0] + weights[1] * values[1] + weights[2] * values[2] +
         weights[3] * values[3];
}

// columns[tap, p] = mask * sample of one channel's plane.
template <typename Element>
void FillColumns(const Geometry& g, const TilePoints<Element>& points, const Tile& tile,
                 const Element* plane, float* columns) {
  for (int64_t tap = 0; tap < g.taps; ++tap) {
    for (int64_t p = 0; p < tile.size; ++p) {
      float values[kCorners];
      CornerValues(g, plane, points.point(tap, p), values);
      columns[tap * kTilePixels + p] =
          points.mask(tap, p) * Interpolate(points.point(tap, p), values);
    }
  }
}

}  // namespace aicpu_backend
}  // namespace ms_deform

#endif  // MS_DEFORM_AICPU_PLAN_H_
