// SPDX-License-Identifier: Apache-2.0
// The sampling plan of a block's tile, in shared memory: worked out once for each (image, offset
// group, tap, pixel) and read by all channels, forward and backward.
#ifndef MS_DEFORM_CUDA_PLAN_H_
#define MS_DEFORM_CUDA_PLAN_H_

#include "common/calls.h"
#include "common/sampling.h"
#include "common/slab.h"
#include "cuda/device.h"

namespace ms_deform {
namespace cuda {

MS_DEFORM_FUNCTION int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What sums of T are kept in, and coordinates: float for the halves, as on the CPU.
template <typename T>
struct SumOf {
  using Type = float;
};
template <>
struct SumOf<double> {
  using Type = double;
};
template <typename T>
using Sum = typename SumOf<T>::Type;

// Read by one 16-byte load in float. `pixel` of the slab is the top left corner; it is bitwise
// complemented where a point has a slope but no value, see LocateSample.
template <typename Real>
struct alignas(4 * sizeof(Real)) PlanEntry {
  Real fraction_y;
  Real fraction_x;
  Real mask;
  int32_t pixel;
};

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
MS_DEFORM_DEVICE PlanEntry<Sum<T>> MakePlanEntry(const Geometry& g, const Sampling<T>& sampling,
                                                 const PlanRow& row, int32_t pixel) {
  using Real = Sum<T>;
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
  return {point.fraction_y, point.fraction_x, mask, point.inside ? at : ~at};
}

// Where an entry's value is read.
template <typename Real>
MS_DEFORM_DEVICE int32_t ValuePixel(const Geometry& g, const PlanEntry<Real>& entry) {
  return entry.pixel < 0 ? OutsidePixel(g) : entry.pixel;
}

// Neighbouring channels that a lane loads at once.
template <typename T, int kLanes>
struct alignas(sizeof(T) * kLanes) Pack {
  T values[kLanes];
};

template <typename T, int kLanes>
struct CornerPacks {
  Pack<T, kLanes> corner[kCorners];
};

// `at` points to the wanted channels of the top left corner in a slab of `channels`.
template <int kLanes, typename T>
MS_DEFORM_DEVICE CornerPacks<T, kLanes> LoadCorners(const Geometry& g, const T* at) {
  const int64_t row = SlabWidth(g) * g.in_channels;
  const T* const corners[kCorners] = {at, at + g.in_channels, at + row, at + row + g.in_channels};
  CornerPacks<T, kLanes> packs;
#pragma unroll
  for (int i = 0; i < kCorners; ++i) {
    packs.corner[i] = *reinterpret_cast<const Pack<T, kLanes>*>(corners[i]);
  }
  return packs;
}

// Samples of a thread on their way to shared memory: Fetch starts the loads of the corners, Place
// interpolates. Entry -1 stands for a sample that is 0.
template <typename T, int kLanes, int kSamples>
class SampleRegisters {
 public:
  __device__ SampleRegisters(const Geometry& g, const PlanEntry<Sum<T>>* plan)
      : g_(g), plan_(plan) {}

  // slab: of the image, from the first of the wanted channels on.
  __device__ void Fetch(int index, int32_t entry, const T* slab) {
    entries_[index] = entry;
    if (entry >= 0) {
      const int64_t pixel = ValuePixel(g_, plan_[entry]);
      corners_[index] = LoadCorners<kLanes>(g_, slab + pixel * g_.in_channels);
    }
  }

  __device__ void Place(int index, T* samples) const {
    Sum<T> sums[kLanes] = {};
    if (entries_[index] >= 0) {
      const PlanEntry<Sum<T>> entry = plan_[entries_[index]];
      Sum<T> weights[kCorners];
      CornerWeights(entry.fraction_y, entry.fraction_x, weights);
#pragma unroll
      for (int i = 0; i < kCorners; ++i) {
        weights[i] *= entry.mask;
#pragma unroll
        for (int lane = 0; lane < kLanes; ++lane) {
          sums[lane] += weights[i] * LoadOnDevice(corners_[index].corner[i].values[lane]);
        }
      }
    }
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      StoreOnDevice(sums[lane], samples + lane);
    }
  }

 private:
  const Geometry& g_;
  const PlanEntry<Sum<T>>* plan_;
  int32_t entries_[kSamples];
  CornerPacks<T, kLanes> corners_[kSamples];
};

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_PLAN_H_
