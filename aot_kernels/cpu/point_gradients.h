// SPDX-License-Identifier: Apache-2.0
// The gradients of the sampling points, which are those of offset and mask. A block of channels has
// its share of them; where several blocks share an offset group, the shares are kept, and added up
// in the order of the blocks once all are known.
//
// Scratch: for each block of a wave, and once more, the points of an image, if blocks share an
// offset group.
#ifndef MS_DEFORM_CPU_POINT_GRADIENTS_H_
#define MS_DEFORM_CPU_POINT_GRADIENTS_H_

#include "cpu/plan.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

constexpr int64_t kPointGradients = 3;

// Of one tap and the points of a run: offset y, offset x and mask.
template <typename Real>
struct TapGradients {
  Real values[kPointGradients][kTilePixels];
};

// dots[p, i] = sum over channels c of grad_column[p, c] * corner i[c]
template <typename Real>
static void GradPoints(int64_t pixels, const TapPoints<Real>& points,
                       const Real dots[kTilePixels][kCorners], TapGradients<Real>* gradients) {
  for (int64_t p = 0; p < pixels; ++p) {
    const Real* dot = dots[p];
    Real slope_y, slope_x, weight[kCorners];
    SampleSlopes(points.fraction_y[p], points.fraction_x[p], dot, &slope_y, &slope_x);
    CornerWeights(points.fraction_y[p], points.fraction_x[p], weight);
    const Real value =
        weight[0] * dot[0] + weight[1] * dot[1] + weight[2] * dot[2] + weight[3] * dot[3];
    gradients->values[0][p] = points.mask[p] * slope_y;
    gradients->values[1][p] = points.mask[p] * slope_x;
    gradients->values[2][p] = points.inside[p] ? value : Real(0);
  }
}

// The blocks of the images are numbered through (items); a wave works on some consecutive ones.
template <typename Real>
class PointGradients {
 public:
  PointGradients(const BackwardInputCall& call, const ChannelBlocks<Real>& blocks)
      : call_(call),
        g_(call.geometry),
        blocks_(blocks),
        size_(blocks.split() ? kPointGradients * g_.taps * g_.out_pixels : 0) {}

  // Elements that an item takes.
  int64_t size() const { return size_; }

  void Place(int64_t wave, ArrayPlacer* placer) {
    shares_ = placer->Place<Real>(wave * size_);
    carried_ = placer->Place<Real>(size_);
  }

  // Takes the gradients of a tile through one tap of a slice. slot: the item's place in the wave.
  void Take(const Tile& tile, const Slice& slice, int64_t tap, int64_t slot,
            const TapGradients<Real>& gradients) const {
    if (slice.width == g_.offset_group_channels) {
      Store(tile, slice.offset_group, tap, gradients);
      return;
    }
    for (int64_t i = 0; i < kPointGradients; ++i) {
      Real* to = shares_ + slot * size_ + Index(tap, i, tile.first);
      for (int64_t p = 0; p < tile.pixels; ++p) {
        to[p] = gradients.values[i][p];
      }
    }
  }

  // Adds up the shares of the items from `first` to `end`, a whole wave.
  void AddShares(int64_t first, int64_t end, Worker* worker) const {
    const int64_t runs = CeilDivide(g_.out_pixels, kTilePixels);
    for (int64_t begin = first; blocks_.split() && begin < end;) {
      const int64_t last = LastOfOffsetGroup(begin, end);
      if (BlockOf(begin).width < g_.offset_group_channels) {
        worker->ShareShort(g_.taps * runs, [&](int64_t piece) {
          AddSharesOf({begin, last, shares_ + (begin - first) * size_}, piece / runs,
                      piece % runs * kTilePixels);
        });
      }
      begin = last + 1;
    }
  }

 private:
  const ChannelBlock& BlockOf(int64_t item) const { return blocks_[item % blocks_.count()]; }

  int64_t Index(int64_t tap, int64_t gradient, int64_t pixel) const {
    return (tap * kPointGradients + gradient) * g_.out_pixels + pixel;
  }

  int64_t EndOfOffsetGroup(int64_t item) const {
    const int64_t offset_group = BlockOf(item).channel / g_.offset_group_channels;
    return (offset_group + 1) * g_.offset_group_channels;
  }

  // Whether the item's block reaches the end of the offset group of `begin`.
  bool Ends(int64_t item, int64_t begin) const {
    return BlockOf(item).channel + BlockOf(item).width >= EndOfOffsetGroup(begin);
  }

  // The last item before `end` that shares an offset group with `begin`.
  int64_t LastOfOffsetGroup(int64_t begin, int64_t end) const {
    int64_t last = begin;
    while (last + 1 < end && !Ends(last, begin)) {
      ++last;
    }
    return last;
  }

  // Consecutive items of one offset group in a wave.
  struct Sharing {
    int64_t begin;
    int64_t last;
    const Real* shares;
  };

  // The sums of the shares, after those that earlier waves carried over, for the points of a tap
  // from `first` on; they are stored if the offset group ends here, and carried over otherwise.
  void AddSharesOf(const Sharing& sharing, int64_t tap, int64_t first) const {
    const int64_t begin = sharing.begin;
    const bool continues = BlockOf(begin).channel % g_.offset_group_channels != 0;
    const bool ends = Ends(sharing.last, begin);
    const PixelRun run = {begin / blocks_.count(), first,
                          Minimum(kTilePixels, g_.out_pixels - first)};
    TapGradients<Real> sums;
    for (int64_t i = 0; i < kPointGradients; ++i) {
      const int64_t offset = Index(tap, i, first);
      for (int64_t p = 0; p < run.pixels; ++p) {
        Real sum = continues ? carried_[offset + p] : Real(0);
        for (int64_t share = 0; share <= sharing.last - begin; ++share) {
          sum += sharing.shares[share * size_ + offset + p];
        }
        sums.values[i][p] = sum;
      }
      for (int64_t p = 0; p < (ends ? 0 : run.pixels); ++p) {
        carried_[offset + p] = sums.values[i][p];
      }
    }
    if (ends) {
      Store(run, BlockOf(begin).channel / g_.offset_group_channels, tap, sums);
    }
  }

  void Store(const PixelRun& run, int64_t offset_group, int64_t tap,
             const TapGradients<Real>& gradients) const {
    const int64_t channel = (run.image * g_.offset_groups + offset_group) * g_.taps + tap;
    const int64_t first_y = 2 * channel * g_.out_pixels + run.first;
    StoreValues(call_.dtype, gradients.values[0], run.pixels, call_.grad_offset, first_y);
    StoreValues(call_.dtype, gradients.values[1], run.pixels, call_.grad_offset,
                first_y + g_.out_pixels);
    if (g_.use_mask) {
      StoreValues(call_.dtype, gradients.values[2], run.pixels, call_.grad_mask,
                  channel * g_.out_pixels + run.first);
    }
  }

  const BackwardInputCall& call_;
  const Geometry& g_;
  const ChannelBlocks<Real>& blocks_;
  int64_t size_;
  Real* shares_ = nullptr;   // [slot], each [tap, kPointGradients, out_pixels]
  Real* carried_ = nullptr;  // as a share: of an offset group that goes on in the next wave
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_POINT_GRADIENTS_H_
