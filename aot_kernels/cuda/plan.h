// SPDX-License-Identifier: Apache-2.0
// The sampling plan of a block's tile, in shared memory: worked out once for each (image, offset
// group, tap, pixel) and read by all channels, forward and backward.
#ifndef MS_DEFORM_CUDA_PLAN_H_
#define MS_DEFORM_CUDA_PLAN_H_

#include "common/calls.h"
#include "common/sampling.h"
#include "common/slab.h"
#include "cuda/product.h"

namespace ms_deform {
namespace cuda {

// Read by one 16-byte load in float, which leaves no room for a flag: where a point has a slope but
// no value (see LocateSample), the top left corner's pixel is stored as its bitwise complement.
template <typename Real>
struct alignas(4 * sizeof(Real)) PlanEntry {
  Real fraction_y;
  Real fraction_x;
  Real mask;
  int32_t marked_pixel;
};

MS_DEFORM_FUNCTION int32_t MarkedPixel(int32_t pixel, bool has_value) {
  return has_value ? pixel : ~pixel;
}

template <typename Real>
MS_DEFORM_DEVICE bool HasValue(const PlanEntry<Real>& entry) {
  return entry.marked_pixel >= 0;
}

// The top left corner, a pixel of the slab.
template <typename Real>
MS_DEFORM_DEVICE int32_t CornerPixel(const PlanEntry<Real>& entry) {
  return HasValue(entry) ? entry.marked_pixel : ~entry.marked_pixel;
}

// sample = sum_i weights[i] * image[corner i]
template <typename Real>
MS_DEFORM_DEVICE void MaskedWeights(const PlanEntry<Real>& entry, Real weights[kCorners]) {
  CornerWeights(entry.fraction_y, entry.fraction_x, weights);
#pragma unroll
  for (int i = 0; i < kCorners; ++i) {
    weights[i] *= entry.mask;
  }
}

// A row of the plan: the samples of one tap in one offset group.
struct PlanRow {
  int64_t image;
  int32_t offset_group;
  int32_t tap;
};

// Where samples that count nothing read zeros.
MS_DEFORM_DEVICE int32_t OutsidePixel(const Geometry& g) {
  return static_cast<int32_t>(SlabPixel(g, g.in_height, -1));
}

template <typename T>
struct Sampling {
  const T* offset;  // [N, 2 * offset_groups * taps, H_out, W_out]
  const T* mask;    // [N, offset_groups * taps, H_out, W_out], nullptr for ones
};

template <typename T>
static inline Sampling<T> SamplingOf(const Geometry& g, const Inputs& inputs) {
  return {static_cast<const T*>(inputs.offset),
          g.use_mask ? static_cast<const T*>(inputs.mask) : nullptr};
}

// A pixel beyond the output (the rest of a tile) samples outside, with mask 0.
template <typename T>
MS_DEFORM_DEVICE PlanEntry<Compute<T>> MakePlanEntry(const Geometry& g, const Sampling<T>& sampling,
                                                     const PlanRow& row, int32_t pixel) {
  using Real = Compute<T>;
  if (pixel >= g.out_pixels) {
    return {Real(0), Real(0), Real(0), OutsidePixel(g)};
  }
  const int64_t channel = (row.image * g.offset_groups + row.offset_group) * g.taps + row.tap;
  const T* offset = sampling.offset + 2 * channel * g.out_pixels + pixel;
  const Real offset_y = LoadOnDevice(offset[0]);
  const Real offset_x = LoadOnDevice(offset[g.out_pixels]);
  const Real mask = sampling.mask == nullptr
                        ? Real(1)
                        : Real(LoadOnDevice(sampling.mask[channel * g.out_pixels + pixel]));
  const auto out_width = static_cast<int32_t>(g.out_width);
  const auto kernel_width = static_cast<int32_t>(g.kernel_width);
  const int64_t y =
      pixel / out_width * g.stride_height - g.pad_top + row.tap / kernel_width * g.dilation_height;
  const int64_t x =
      pixel % out_width * g.stride_width - g.pad_left + row.tap % kernel_width * g.dilation_width;
  const SamplePoint<Real> point =
      LocateSample(Real(y) + offset_y, Real(x) + offset_x, static_cast<int32_t>(g.in_height),
                   static_cast<int32_t>(g.in_width));
  const auto at = static_cast<int32_t>(SlabPixel(g, point.top, point.left));
  return {point.fraction_y, point.fraction_x, mask, MarkedPixel(at, point.inside)};
}

// The same for those that need the value alone: outside of a point's value they read zeros.
template <typename Real>
MS_DEFORM_DEVICE PlanEntry<Real> ForValue(const Geometry& g, const PlanEntry<Real>& entry) {
  return {entry.fraction_y, entry.fraction_x, entry.mask,
          HasValue(entry) ? entry.marked_pixel : OutsidePixel(g)};
}

// Of neighbouring channels.
template <typename T, int kLanes>
struct CornerPacks {
  Pack<T, kLanes> corner[kCorners];
};

// The distances of the corners from the top left one, in elements of a slab. A kernel finds them
// among its arguments, where an address costs no register.
struct CornerDistances {
  int64_t row;
  int32_t pixel;
};

static inline CornerDistances DistancesOf(const Geometry& g) {
  return {SlabWidth(g) * g.in_channels, static_cast<int32_t>(g.in_channels)};
}

// `at` points to the wanted channels of the top left corner.
template <int kLanes, typename T>
MS_DEFORM_DEVICE CornerPacks<T, kLanes> LoadCorners(const CornerDistances& distances, const T* at) {
  const T* const below = at + distances.row;
  const T* const corners[kCorners] = {at, at + distances.pixel, below, below + distances.pixel};
  CornerPacks<T, kLanes> packs;
#pragma unroll
  for (int i = 0; i < kCorners; ++i) {
    packs.corner[i] = *reinterpret_cast<const Pack<T, kLanes>*>(corners[i]);
  }
  return packs;
}

// Samples of a thread on their way to shared memory: Fetch starts the loads of the corners, Place
// interpolates.
template <typename T, int kLanes, int kSamples>
class SampleRegisters {
 public:
  // plan: of entries for values, see ForValue.
  __device__ SampleRegisters(const CornerDistances& distances, const PlanEntry<Compute<T>>* plan)
      : distances_(distances), plan_(plan) {}

  // Sample `index` of neighbouring channels: `entry` of the plan, -1 for 0; slab: of the image,
  // from the first of the channels on.
  __device__ void Fetch(int index, int32_t entry, const T* slab) {
    entries_[index] = entry;
    if (entry >= 0) {
      const int64_t corner = int64_t{plan_[entry].marked_pixel} * distances_.pixel;
      corners_[index] = LoadCorners<kLanes>(distances_, slab + corner);
    }
  }

  __device__ void Place(int index, T* samples) const {
    Compute<T> sums[kLanes] = {};
    if (entries_[index] >= 0) {
      const PlanEntry<Compute<T>> entry = plan_[entries_[index]];
      Compute<T> weights[kCorners];
      MaskedWeights(entry, weights);
#pragma unroll
      for (int i = 0; i < kCorners; ++i) {
        Compute<T> values[kLanes];
        LoadLanes<kLanes>(corners_[index].corner[i].values, values);
#pragma unroll
        for (int lane = 0; lane < kLanes; ++lane) {
          sums[lane] += weights[i] * values[lane];
        }
      }
    }
    StoreLanes<kLanes>(sums, samples);
  }

 private:
  const CornerDistances& distances_;
  const PlanEntry<Compute<T>>* plan_;
  int32_t entries_[kSamples];
  CornerPacks<T, kLanes> corners_[kSamples];
};

// The threads' shares of a tile [kTileRows, kTileColumns] of samples; a thread's vectors are loaded
// in parts of kLanes neighbouring columns.
template <typename T, int kTileRows, int kTileColumns, int kBlockThreads, int kLanes>
class SampleLoader {
 public:
  using Share = TileShare<T, kTileRows, kTileColumns, kBlockThreads>;
  static constexpr int kParts = kVector<T> / kLanes;

  __device__ SampleLoader(const CornerDistances& distances, const PlanEntry<Compute<T>>* plan)
      : samples_(distances, plan) {}

  // Of the thread's vector i: see SampleRegisters.
  __device__ void Fetch(int i, int part, int32_t entry, const T* slab) {
    samples_.Fetch(i * kParts + part, entry, slab);
  }

  __device__ void Place(T* to, int pitch) const {
    Vector vectors[Share::kCount];
#pragma unroll
    for (int i = 0; i < Share::kCount; ++i) {
      alignas(16) T samples[kVector<T>];
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        samples_.Place(i * kParts + part, samples + part * kLanes);
      }
      memcpy(&vectors[i], samples, sizeof(samples));
    }
    Share::Place(vectors, to, pitch);
  }

 private:
  SampleRegisters<T, kLanes, Share::kCount * kParts> samples_;
};

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_PLAN_H_
