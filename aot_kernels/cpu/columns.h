// SPDX-License-Identifier: Apache-2.0
// The sampling plan of a tile of output pixels, and the columns that it gives. A column holds what
// one output pixel sees through the kernel: a value for every tap and channel. Only the columns of
// a tile exist at a time.
#ifndef MS_DEFORM_CPU_COLUMNS_H_
#define MS_DEFORM_CPU_COLUMNS_H_

#include <omp.h>

#include "common/sampling.h"
#include "cpu/kernels.h"
#include "cpu/layout.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

// A multiple of kBlockRows; large enough that a panel of weights in L2 is read once for many
// pixels, small enough that columns and accumulators stay there beside it.
constexpr int64_t kTilePixels = 96;
static_assert(kTilePixels % kBlockRows == 0, "full tiles should leave no rest");

// Consecutive output pixels of one image, in row-major order.
struct Tile {
  int64_t image;
  int64_t first;
  int64_t pixels;
};

static inline int64_t TilesPerImage(const Geometry& g) {
  return CeilDivide(g.out_pixels, kTilePixels);
}

// The tile with this index, counting through all images.
static inline Tile TileAt(const Geometry& g, int64_t index) {
  const int64_t tiles = TilesPerImage(g);
  const int64_t first = index % tiles * kTilePixels;
  return {index / tiles, first, Minimum(kTilePixels, g.out_pixels - first)};
}

// Waking a thread costs microseconds; each gets at least this many multiply-adds, some ten of them.
constexpr int64_t kThreadWork = 1 << 19;

// Threads for that many multiply-adds, OMP_NUM_THREADS at the most. Results do not depend on it.
static inline int ChooseThreads(int64_t work) {
  return static_cast<int>(Minimum(omp_get_max_threads(), work / kThreadWork + 1));
}

static inline int64_t MultiplyAdds(const Geometry& g) {
  return g.batch * g.out_pixels * g.taps * g.group_in_channels * g.out_channels;
}

// Images are worked on in passes, so that their channels-last copies stay within this many bytes
// unless a single one is larger.
constexpr int64_t kPassBytes = 32 << 20;

// Channels-last copies [in_pixels + 1, C_in] of the images of a pass. The last row is zero: corners
// outside the image read it, so that nothing of the image can leak through them.
template <typename Real>
class ChannelsLastImages {
 public:
  ChannelsLastImages(const Geometry& g, int threads)
      : threads_(threads),
        image_size_((g.in_pixels + 1) * g.in_channels),
        capacity_(Minimum(g.batch, Maximum(1, kPassBytes / (image_size_ * sizeof(Real))))),
        buffer_(capacity_ * image_size_) {}

  int64_t capacity() const { return capacity_; }

  // Loads `count` images from `first` on.
  void Load(const Geometry& g, DType dtype, const void* input, int64_t first, int64_t count) {
    first_ = first;
    const int64_t strip = 256;  // pixels moved at a time by a thread
    const int64_t strips = CeilDivide(g.in_pixels, strip);
#pragma omp parallel for num_threads(threads_) schedule(static)
    for (int64_t index = 0; index < count * strips; ++index) {
      const int64_t image = index / strips;
      const int64_t pixel = index % strips * strip;
      Real* to = buffer_.data() + image * image_size_;
      LoadTransposed(dtype, input, (first + image) * g.in_channels * g.in_pixels + pixel,
                     g.in_pixels, g.in_channels, Minimum(strip, g.in_pixels - pixel),
                     to + pixel * g.in_channels, g.in_channels);
      if (pixel == 0) {
        for (int64_t c = 0; c < g.in_channels; ++c) {
          to[g.in_pixels * g.in_channels + c] = Real(0);
        }
      }
    }
  }

  const Real* Image(int64_t image) const { return buffer_.data() + (image - first_) * image_size_; }

 private:
  int threads_;
  int64_t image_size_;
  int64_t capacity_;
  Scratch<Real> buffer_;
  int64_t first_ = 0;
};

// The points where (offset group, tap) samples for the pixels of a tile, and their mask.
template <typename Real>
static void LocateTile(const Geometry& g, DType dtype, const Inputs& inputs, const Tile& tile,
                       int64_t offset_group, int64_t tap, SamplePoint<Real>* points, Real* mask) {
  Real offset_y[kTilePixels];
  Real offset_x[kTilePixels];
  const int64_t channel = (tile.image * g.offset_groups + offset_group) * g.taps + tap;
  LoadValues(dtype, inputs.offset, 2 * channel * g.out_pixels + tile.first, tile.pixels, offset_y);
  LoadValues(dtype, inputs.offset, (2 * channel + 1) * g.out_pixels + tile.first, tile.pixels,
             offset_x);
  if (g.use_mask) {
    LoadValues(dtype, inputs.mask, channel * g.out_pixels + tile.first, tile.pixels, mask);
  } else {
    for (int64_t p = 0; p < tile.pixels; ++p) {
      mask[p] = Real(1);
    }
  }
  const int64_t tap_y = tap / g.kernel_width * g.dilation_height - g.pad_top;
  const int64_t tap_x = tap % g.kernel_width * g.dilation_width - g.pad_left;
  int64_t out_y = tile.first / g.out_width;
  int64_t out_x = tile.first % g.out_width;
  for (int64_t p = 0; p < tile.pixels; ++p) {
    const Real y = Real(out_y * g.stride_height + tap_y) + offset_y[p];
    const Real x = Real(out_x * g.stride_width + tap_x) + offset_x[p];
    points[p] = LocateSample(y, x, g.in_height, g.in_width);
    if (++out_x == g.out_width) {
      out_x = 0;
      ++out_y;
    }
  }
}

// One sample as the column loop wants it: value = sum_i weight[i] * image[corner[i] + channel].
template <typename Real>
struct ColumnSample {
  int64_t corner[kCorners];  // element offsets into a channels-last image
  Real weight[kCorners];     // mask included
};

template <typename Real>
static inline ColumnSample<Real> FoldSample(const Geometry& g, const SamplePoint<Real>& point,
                                            Real mask) {
  ColumnSample<Real> sample;
  CornerWeights(point, sample.weight);
  for (int i = 0; i < kCorners; ++i) {
    const bool has_value = point.inside && point.corner[i] != kOutsideCorner;
    sample.corner[i] = (has_value ? point.corner[i] : g.in_pixels) * g.in_channels;
    sample.weight[i] *= mask;
  }
  return sample;
}

// A range of the input's channels.
struct Channels {
  int64_t begin;
  int64_t end;
};

template <typename Real, int kLanes>
static inline int64_t SampleChannels(const Real* const corner[kCorners],
                                     const Real weight[kCorners], int64_t begin, int64_t count,
                                     Real* column) {
  int64_t c = begin;
  for (; c + kLanes <= count; c += kLanes) {
    auto value = weight[0] * LoadVector<Real, kLanes>(corner[0] + c);
    for (int i = 1; i < kCorners; ++i) {
      value += weight[i] * LoadVector<Real, kLanes>(corner[i] + c);
    }
    StoreVector<Real, kLanes>(column + c, value);
  }
  return c;
}

// column[0, count) of one sample; ever narrower vectors take what is left of the channels.
template <typename Real>
static inline void SampleColumn(const Real* image, const ColumnSample<Real>& sample, int64_t count,
                                Real* column) {
  const Real* const corner[kCorners] = {image + sample.corner[0], image + sample.corner[1],
                                        image + sample.corner[2], image + sample.corner[3]};
  constexpr int kLanes = Lanes<Real>();
  int64_t c = SampleChannels<Real, kLanes>(corner, sample.weight, 0, count, column);
  if constexpr (kLanes > 8) {
    c = SampleChannels<Real, 8>(corner, sample.weight, c, count, column);
  }
  if constexpr (kLanes > 4) {
    c = SampleChannels<Real, 4>(corner, sample.weight, c, count, column);
  }
  for (; c < count; ++c) {
    column[c] = sample.weight[0] * corner[0][c] + sample.weight[1] * corner[1][c] +
                sample.weight[2] * corner[2][c] + sample.weight[3] * corner[3][c];
  }
}

// The folded plan of a tile for some taps and the offset groups that some channels belong to; it is
// worked out once and serves every range of channels in the same offset groups.
template <typename Real>
class TilePlan {
 public:
  // Elements of storage for `taps` taps and any range of at most `channels` channels.
  static int64_t Samples(const Geometry& g, int64_t taps, int64_t channels) {
    return taps * MostOffsetGroups(g, channels) * kTilePixels;
  }

  explicit TilePlan(ColumnSample<Real>* storage) : samples_(storage) {}

  void Forget() { taps_ = 0; }

  void Locate(const Geometry& g, DType dtype, const Inputs& inputs, const Tile& tile,
              int64_t first_tap, int64_t taps, Channels channels) {
    const int64_t begin = channels.begin / g.offset_group_channels;
    const int64_t end = (channels.end - 1) / g.offset_group_channels + 1;
    if (taps_ == taps && first_tap_ == first_tap && begin == group_begin_ && end == group_end_) {
      return;
    }
    taps_ = taps;
    first_tap_ = first_tap;
    group_begin_ = begin;
    group_end_ = end;
    SamplePoint<Real> points[kTilePixels];
    Real mask[kTilePixels];
    for (int64_t group = begin; group < end; ++group) {
      for (int64_t t = 0; t < taps; ++t) {
        LocateTile(g, dtype, inputs, tile, group, first_tap + t, points, mask);
        ColumnSample<Real>* samples = At(group, t);
        for (int64_t p = 0; p < tile.pixels; ++p) {
          samples[p] = FoldSample(g, points[p], mask[p]);
        }
      }
    }
  }

  // columns[pixel, tap, channel - channels.begin] for the located taps.
  void Sample(const Geometry& g, const Real* image, const Tile& tile, Channels channels,
              Real* columns) const {
    const int64_t width = channels.end - channels.begin;
    for (int64_t group = group_begin_; group < group_end_; ++group) {
      const int64_t begin = Maximum(channels.begin, group * g.offset_group_channels);
      const int64_t end = Minimum(channels.end, (group + 1) * g.offset_group_channels);
      for (int64_t t = 0; t < taps_; ++t) {
        const ColumnSample<Real>* samples = At(group, t);
        for (int64_t p = 0; p < tile.pixels; ++p) {
          SampleColumn(image + begin, samples[p], end - begin,
                       columns + (p * taps_ + t) * width + (begin - channels.begin));
        }
      }
    }
  }

 private:
  static int64_t MostOffsetGroups(const Geometry& g, int64_t channels) {
    return Minimum(g.offset_groups, CeilDivide(channels - 1, g.offset_group_channels) + 1);
  }

  ColumnSample<Real>* At(int64_t group, int64_t tap) const {
    return samples_ + ((group - group_begin_) * taps_ + tap) * kTilePixels;
  }

  ColumnSample<Real>* samples_;
  int64_t first_tap_ = 0;
  int64_t taps_ = 0;
  int64_t group_begin_ = 0;
  int64_t group_end_ = 0;
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_COLUMNS_H_
