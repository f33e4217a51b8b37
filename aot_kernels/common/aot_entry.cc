// SPDX-License-Identifier: Apache-2.0
// The AOT functions that MindSpore calls, the same for every backend.
#include "common/aot_call.h"
#include "common/backend.h"

namespace ms_deform {
namespace {

Inputs ReadInputs(const AotCall& call) {
  return {call.parameters[kInput], call.parameters[kOffset], call.parameters[kMask],
          call.parameters[kWeight]};
}

}  // namespace
}  // namespace ms_deform

using ms_deform::AotCall;
using ms_deform::AotExtra;

MS_DEFORM_EXPORT int MsDeformForward(int parameter_count, void** parameters, int* ranks,
                                     int64_t** shapes, const char** dtypes, void* stream,
                                     void* extra) {
  const AotCall call = {parameter_count, parameters, ranks,
                        shapes,          dtypes,     static_cast<AotExtra*>(extra)};
  const ms_deform::DType dtype = ReadDType(call, ms_deform::kForwardParameters);
  ms_deform::Run(
      ms_deform::ForwardCall{ReadForwardGeometry(call), dtype, ms_deform::ReadInputs(call),
                             parameters[ms_deform::kBias], parameters[ms_deform::kOutput]},
      stream);
  return 0;
}

MS_DEFORM_EXPORT int MsDeformGradInput(int parameter_count, void** parameters, int* ranks,
                                       int64_t** shapes, const char** dtypes, void* stream,
                                       void* extra) {
  const AotCall call = {parameter_count, parameters, ranks,
                        shapes,          dtypes,     static_cast<AotExtra*>(extra)};
  const ms_deform::DType dtype = ReadDType(call, ms_deform::kGradInputParameters);
  ms_deform::Run(
      ms_deform::BackwardInputCall{ReadGradientGeometry(call), dtype, ms_deform::ReadInputs(call),
                                   parameters[ms_deform::kGradOutput],
                                   parameters[ms_deform::kGradInput],
                                   parameters[ms_deform::kGradOffset],
                                   parameters[ms_deform::kGradMask], ReadDeterministic(call)},
      stream);
  return 0;
}

MS_DEFORM_EXPORT int MsDeformGradWeight(int parameter_count, void** parameters, int* ranks,
                                        int64_t** shapes, const char** dtypes, void* stream,
                                        void* extra) {
  const AotCall call = {parameter_count, parameters, ranks,
                        shapes,          dtypes,     static_cast<AotExtra*>(extra)};
  const ms_deform::DType dtype = ReadDType(call, ms_deform::kGradWeightParameters);
  ms_deform::Run(
      ms_deform::BackwardWeightCall{ReadGradientGeometry(call), dtype, ms_deform::ReadInputs(call),
                                    parameters[ms_deform::kGradOutput],
                                    parameters[ms_deform::kGradWeight]},
      stream);
  return 0;
}

MS_DEFORM_EXPORT int MsDeformGradBias(int parameter_count, void** parameters, int* ranks,
                                      int64_t** shapes, const char** dtypes, void* stream,
                                      void* extra) {
  const AotCall call = {parameter_count, parameters, ranks,
                        shapes,          dtypes,     static_cast<AotExtra*>(extra)};
  const ms_deform::DType dtype = ReadDType(call, ms_deform::kGradBiasParameters);
  ms_deform::Run(ms_deform::BackwardBiasCall{ReadGradientGeometry(call), dtype,
                                             parameters[ms_deform::kGradOutput],
                                             parameters[ms_deform::kGradBias]},
                 stream);
  return 0;
}
