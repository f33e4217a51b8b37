// SPDX-License-Identifier: Apache-2.0
// Tiles of output pixels, the sampling points of a tile, and the small product that all kernels
// use. Everything is computed in float; each element of a result belongs to one unit of work and is
// summed up in one order, so that the bits do not depend on the number of cores.
#ifndef MS_DEFORM_AICPU_PLAN_H_
#define MS_DEFORM_AICPU_PLAN_H_

#include <algorithm>
#include <vector>

#include "aicpu/call.h"
#include "common/sampling.h"

namespace ms_deform {
namespace aicpu_backend {

// A tile's columns of one group stay in a core's cache up to 256 channels with 3x3 taps.
constexpr int64_t kTilePixels = 64;

inline int64_t TilesOf(const Geometry& g) { return (g.out_pixels + kTilePixels - 1) / kTilePixels; }

// Output pixels of one image that are worked on together.
struct Tile {
  Tile(const Geometry& g, int64_t index)
      : first(index * kTilePixels), size(std::min(kTilePixels, g.out_pixels - first)) {}
  int64_t first;
  int64_t size;
};

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

// A float copy of a tensor.
template <typename Element>
std::vector<float> Loaded(const Element* data, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    values[static_cast<size_t>(i)] = Load(data[i]);
  }
  return values;
}

template <typename Element>
void StoreAll(const float* values, int64_t count, Element* to) {
  for (int64_t i = 0; i < count; ++i) {
    Store(values[i], to + i);
  }
}

// A matrix of which rows and terms may lie at any distance.
struct StridedMatrix {
  const float* data;
  int64_t row_stride;
  int64_t term_stride;
};

// sums[r, p] += sum over terms t of a[r, t] * b[t, p], for Rows rows and a whole tile's width: the
// compiler keeps the rows of `sums` in vector registers.
template <int Rows>
void MultiplyRows(const StridedMatrix& a, int64_t terms, const float* b, float* sums) {
  constexpr int64_t kStrip = 16;
  for (int64_t strip = 0; strip < kTilePixels; strip += kStrip) {
    float held[Rows][kStrip];
    for (int r = 0; r < Rows; ++r) {
      std::copy_n(sums + r * kTilePixels + strip, kStrip, held[r]);
    }
    for (int64_t t = 0; t < terms; ++t) {
      for (int r = 0; r < Rows; ++r) {
        const float factor = a.data[r * a.row_stride + t * a.term_stride];
        for (int64_t p = 0; p < kStrip; ++p) {
          held[r][p] += factor * b[t * kTilePixels + strip + p];
        }
      }
    }
    for (int r = 0; r < Rows; ++r) {
      std::copy_n(held[r], kStrip, sums + r * kTilePixels + strip);
    }
  }
}

inline void Multiply(StridedMatrix a, int64_t rows, int64_t terms, const float* b, float* sums) {
  constexpr int kRows = 4;
  for (; rows >= kRows; rows -= kRows) {
    MultiplyRows<kRows>(a, terms, b, sums);
    a.data += kRows * a.row_stride;
    sums += kRows * kTilePixels;
  }
  for (; rows > 0; --rows) {
    MultiplyRows<1>(a, terms, b, sums);
    a.data += a.row_stride;
    sums += kTilePixels;
  }
}

}  // namespace aicpu_backend
}  // namespace ms_deform

#endif  // MS_DEFORM_AICPU_PLAN_H_
