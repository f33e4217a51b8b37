// SPDX-License-Identifier: Apache-2.0
// What every AOT entry point does before and after its kernels: reading MindSpore's arguments.
//
// All primitives take five inputs in the order of the enumeration below, so that one registration
// serves every combination of optional ones; an absent mask or bias is a placeholder of one element
// that is never read. The shape and type inference functions of the primitives are defined in
// aot_call.cc, which every library that is loaded by MindSpore links.
#ifndef MS_DEFORM_COMMON_AOT_CALL_H_
#define MS_DEFORM_COMMON_AOT_CALL_H_

#include "common/aot_extra.h"
#include "common/dtype.h"
#include "common/geometry.h"

#define MS_DEFORM_EXPORT extern "C" __attribute__((visibility("default")))

namespace ms_deform {

enum ForwardParameter { kInput, kOffset, kMask, kWeight, kBias, kOutput, kForwardParameters };

// The gradients take grad_output where the forward takes bias.
enum GradInputParameter {
  kGradOutput = kBias,
  kGradInput,
  kGradOffset,
  kGradMask,
  kGradInputParameters
};
enum GradWeightParameter { kGradWeight = kGradOutput + 1, kGradWeightParameters };
enum GradBiasParameter { kGradBias = kGradOutput + 1, kGradBiasParameters };

// The arguments of an AOT function, as MindSpore passes them; throws where they do not fit.
struct AotCall {
  int parameter_count;
  void** parameters;
  int* ranks;
  int64_t** shapes;
  const char** dtypes;
  AotExtra* extra;
};

// The geometry of a forward call, or of a gradient, where nothing is in the place of bias.
Geometry ReadForwardGeometry(const AotCall& call);
Geometry ReadGradientGeometry(const AotCall& call);
DType ReadDType(const AotCall& call, int expected_parameters);
bool ReadDeterministic(const AotCall& call);

}  // namespace ms_deform

#endif  // MS_DEFORM_COMMON_AOT_CALL_H_
