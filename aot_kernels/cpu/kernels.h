// SPDX-License-Identifier: Apache-2.0
// The seam between the entry points, compiled once, and the kernels, compiled once for every
// instruction set. Plain data and function pointers only: see the note in common/geometry.h.
#ifndef MS_DEFORM_CPU_KERNELS_H_
#define MS_DEFORM_CPU_KERNELS_H_

#include "common/calls.h"

namespace ms_deform {

struct Kernels {
  const char* isa;
  void (*forward)(const ForwardCall&);
  void (*backward_input)(const BackwardInputCall&);
  void (*backward_weight)(const BackwardWeightCall&);
  void (*backward_bias)(const BackwardBiasCall&);
};

// One for each instruction set that the library was built for; cpu/kernels.cc defines them.
namespace avx512 {
extern const Kernels kKernels;
}
namespace avx2 {
extern const Kernels kKernels;
}
namespace baseline {
extern const Kernels kKernels;
}
namespace neon {
extern const Kernels kKernels;
}

}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_KERNELS_H_
