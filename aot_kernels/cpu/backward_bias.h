// SPDX-License-Identifier: Apache-2.0
// grad_bias[o] = sum over images and pixels of grad_output[o, p]
//
// MindSpore's own ReduceSum on a CPU leaves its output unwritten for an empty batch.
#ifndef MS_DEFORM_CPU_BACKWARD_BIAS_H_
#define MS_DEFORM_CPU_BACKWARD_BIAS_H_

#include "common/calls.h"
#include "cpu/storage.h"
#include "cpu/threads.h"
#include "cpu/tiles.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

template <typename Real>
class BackwardBias {
 public:
  explicit BackwardBias(const BackwardBiasCall& call)
      : call_(call),
        g_(call.geometry),
        segments_(CeilDivide(g_.out_pixels, kSegmentPixels)),
        sums_of_channel_(g_.batch * segments_) {}

  void Run() {
    const Workspace workspace([this](ArrayPlacer* placer) {
      sums_ = placer->Place<Real>(g_.out_channels * sums_of_channel_);
    });
    const int threads = ChooseThreads(kAdditionWork * g_.batch * g_.out_channels * g_.out_pixels);
    RunThreads(threads, [this](Worker& worker) {
      worker.ShareShort(g_.out_channels * sums_of_channel_,
                        [&](int64_t piece) { sums_[piece] = SumSegment(piece); });
      worker.Wait();
      worker.ShareShort(g_.out_channels, [&](int64_t channel) {
        const Real sum = Sum(sums_ + channel * sums_of_channel_, sums_of_channel_);
        StoreValues(call_.dtype, &sum, 1, call_.grad_bias, channel);
      });
    });
  }

 private:
  static constexpr int64_t kSegmentPixels = 48 * kTilePixels;
  // An addition waits for memory, for as long as so many multiply-adds take.
  static constexpr int64_t kAdditionWork = 8;

  // Sums of runs before the sum of all: the error grows with their number, not with that of pixels.
  Real SumSegment(int64_t piece) const {
    const int64_t channel = piece / sums_of_channel_;
    const int64_t image = piece % sums_of_channel_ / segments_;
    const int64_t first = piece % segments_ * kSegmentPixels;
    const int64_t end = Minimum(first + kSegmentPixels, g_.out_pixels);
    const int64_t plane = (image * g_.out_channels + channel) * g_.out_pixels;
    Real sum = 0;
    for (int64_t run = first; run < end; run += kTilePixels) {
      Real values[kTilePixels];
      const int64_t count = Minimum(kTilePixels, end - run);
      LoadValues(call_.dtype, call_.grad_output, plane + run, count, values);
      sum += Sum(values, count);
    }
    return sum;
  }

  // By lanes first, which do not wait for each other.
  static Real Sum(const Real* values, int64_t count) {
    constexpr int kLanes = Lanes<Real>();
    Vector<Real, kLanes> of_lane = {};
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      of_lane += LoadVector<Real, kLanes>(values + i);
    }
    Real sum = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
      sum += of_lane[lane];
    }
    for (; i < count; ++i) {
      sum += values[i];
    }
    return sum;
  }

  const BackwardBiasCall& call_;
  const Geometry& g_;
  int64_t segments_;  // of an image
  int64_t sums_of_channel_;
  Real* sums_ = nullptr;  // [C_out, N, segment]
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_BACKWARD_BIAS_H_
