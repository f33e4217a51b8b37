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
  explicit BackwardBias(const BackwardBiasCall& call) : call_(call), g_(call.geometry) {}

  void Run() {
    const int threads = ChooseThreads(g_.batch * g_.out_channels * g_.out_pixels);
    RunThreads(threads, [this](Team&) {
#pragma omp for schedule(static) nowait
      for (int64_t channel = 0; channel < g_.out_channels; ++channel) {
        const Real sum = SumChannel(channel);
        StoreValues(call_.dtype, &sum, 1, call_.grad_bias, channel);
      }
    });
  }

 private:
  // Sums of runs before the sum of all: the error grows with their number, not with that of pixels.
  Real SumChannel(int64_t channel) const {
    Real sum = 0;
    for (int64_t image = 0; image < g_.batch; ++image) {
      const int64_t first = (image * g_.out_channels + channel) * g_.out_pixels;
      for (int64_t run = 0; run < g_.out_pixels; run += kTilePixels) {
        Real values[kTilePixels];
        const int64_t count = Minimum(kTilePixels, g_.out_pixels - run);
        LoadValues(call_.dtype, call_.grad_output, first + run, count, values);
        Real sum_of_run = 0;
        for (int64_t i = 0; i < count; ++i) {
          sum_of_run += values[i];
        }
        sum += sum_of_run;
      }
    }
    return sum;
  }

  const BackwardBiasCall& call_;
  const Geometry& g_;
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_BACKWARD_BIAS_H_
