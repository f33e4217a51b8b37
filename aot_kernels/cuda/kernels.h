// SPDX-License-Identifier: Apache-2.0
// The seam between the entry points and the kernels, which are compiled once for each dtype.
#ifndef MS_DEFORM_CUDA_KERNELS_H_
#define MS_DEFORM_CUDA_KERNELS_H_

#include "common/calls.h"

struct CUstream_st;  // what cudaStream_t points to

namespace ms_deform {
namespace cuda {

// All work is queued on the stream; nothing waits for it.
struct Kernels {
  void (*forward)(const ForwardCall&, CUstream_st*);
  void (*backward_input)(const BackwardInputCall&, CUstream_st*);
  void (*backward_weight)(const BackwardWeightCall&, CUstream_st*);
  void (*backward_bias)(const BackwardBiasCall&, CUstream_st*);
};

// Defined by cuda/kernels.cu.
extern const Kernels kFloat32Kernels;
extern const Kernels kFloat64Kernels;
extern const Kernels kFloat16Kernels;
extern const Kernels kBFloat16Kernels;

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_KERNELS_H_
