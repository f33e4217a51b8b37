// SPDX-License-Identifier: Apache-2.0
// grad_bias[o] = sum over images and pixels of grad_output. A block sums one output, its threads in
// a fixed order.
#ifndef MS_DEFORM_CUDA_BACKWARD_BIAS_H_
#define MS_DEFORM_CUDA_BACKWARD_BIAS_H_

#include "common/calls.h"
#include "cuda/launch.h"
#include "cuda/product.h"

namespace ms_deform {
namespace cuda {

constexpr int kBiasThreads = 512;

template <typename T>
struct BackwardBiasArguments {
  Geometry g;
  const T* grad_output;  // [N, C_out, H_out, W_out]
  T* grad_bias;          // [C_out]
};

template <typename Real>
struct BackwardBiasShared {
  Real of_warp[kBiasThreads / kWarp];
};

template <typename Real>
MS_DEFORM_DEVICE Real SumOfWarp(Real sum) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  }
  return sum;
}

template <typename T>
MS_DEFORM_KERNEL(kBiasThreads, 1)
BackwardBiasKernel(BackwardBiasArguments<T> arguments) {
  using Real = Compute<T>;
  auto& shared = SharedMemory<BackwardBiasShared<Real>>();
  const Geometry& g = arguments.g;
  MS_DEFORM_FOR_WORK(output, g.out_channels) {
    Real sum = Real(0);
    for (int64_t image = 0; image < g.batch; ++image) {
      const T* from = arguments.grad_output + (image * g.out_channels + output) * g.out_pixels;
      for (int64_t pixel = threadIdx.x; pixel < g.out_pixels; pixel += kBiasThreads) {
        sum += LoadOnDevice(from[pixel]);
      }
    }
    sum = SumOfWarp(sum);
    if (threadIdx.x % kWarp == 0) {
      shared.of_warp[WarpIndex()] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      Real all = Real(0);
      for (int warp = 0; warp < kBiasThreads / kWarp; ++warp) {
        all += shared.of_warp[warp];
      }
      StoreOnDevice(all, arguments.grad_bias + output);
    }
    __syncthreads();
  }
}

template <typename T>
static void RunBackwardBias(const BackwardBiasCall& call, cudaStream_t stream) {
  const Geometry& g = call.geometry;
  LaunchBlocks(
      BackwardBiasKernel<T>,
      {g.out_channels, kBiasThreads, sizeof(BackwardBiasShared<Compute<T>>), "gradient of bias"},
      BackwardBiasArguments<T>{g, static_cast<const T*>(call.grad_output),
                               static_cast<T*>(call.grad_bias)},
      stream);
}

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_BACKWARD_BIAS_H_
