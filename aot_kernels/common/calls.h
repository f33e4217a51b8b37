// SPDX-License-Identifier: Apache-2.0
// The calls that a backend serves, one a primitive, and what it serves them with. Plain data and
// function pointers: see the note in common/geometry.h.
#ifndef MS_DEFORM_COMMON_CALLS_H_
#define MS_DEFORM_COMMON_CALLS_H_

#include "common/dtype.h"
#include "common/geometry.h"

namespace ms_deform {

// Contiguous tensors of the call's dtype.
struct Inputs {
  const void* input;   // [N, C_in, H, W]
  const void* offset;  // [N, 2 * offset_groups * taps, H_out, W_out]: y, x of each tap
  const void* mask;    // [N, offset_groups * taps, H_out, W_out], read if geometry.use_mask
  const void* weight;  // [C_out, C_in / groups, kh, kw]
};

struct ForwardCall {
  Geometry geometry;
  DType dtype;
  Inputs inputs;
  const void* bias;  // [C_out], read if geometry.use_bias
  void* output;      // [N, C_out, H_out, W_out]
};

struct BackwardInputCall {
  Geometry geometry;
  DType dtype;
  Inputs inputs;
  const void* grad_output;  // [N, C_out, H_out, W_out]
  void* grad_input;         // as input
  void* grad_offset;        // as offset
  void* grad_mask;          // as mask; a single 0 if not geometry.use_mask
  bool deterministic;       // the same bits in every run; the CPU's kernels always are
};

struct BackwardWeightCall {
  Geometry geometry;
  DType dtype;
  Inputs inputs;
  const void* grad_output;  // [N, C_out, H_out, W_out]
  void* grad_weight;        // as weight
};

struct BackwardBiasCall {
  Geometry geometry;
  DType dtype;
  const void* grad_output;  // [N, C_out, H_out, W_out]
  void* grad_bias;          // [C_out]
};

// Kernels for one instruction set or dtype. `stream` is MindSpore's: the CUDA stream, on which all
// work is queued; a CPU has none. Failures are exceptions: see common/last_error.h for their text.
struct Kernels {
  void (*forward)(const ForwardCall&, void* stream);
  void (*backward_input)(const BackwardInputCall&, void* stream);
  void (*backward_weight)(const BackwardWeightCall&, void* stream);
  void (*backward_bias)(const BackwardBiasCall&, void* stream);
};

// Each backend's entry.cc defines it for common/aot_entry.cc.
const Kernels& KernelsFor(DType dtype);

}  // namespace ms_deform

#endif  // MS_DEFORM_COMMON_CALLS_H_
