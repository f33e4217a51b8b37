// SPDX-License-Identifier: Apache-2.0
// The functions that MindSpore calls, the same for every backend: an operator's own, and those that
// infer its shapes and dtypes.
//
// All primitives take five inputs in the order of the enumeration below, so that one registration
// serves every combination of optional ones; an absent mask or bias is a placeholder of one element
// that is never read.
#include <cstring>
#include <exception>

#include "common/aot_extra.h"
#include "common/calls.h"
#include "common/fail.h"
#include "common/last_error.h"
#include "common/library_info.h"

namespace ms_deform {
namespace {

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

// The arguments of an operator, as MindSpore passes them.
struct Arguments {
  int count;
  void** tensors;
  int* ranks;
  int64_t** shapes;
  const char** dtypes;
  AotExtra* extra;
};

std::string ReadCaller(AotExtra* extra) { return extra->GetAttrStr("caller"); }

Attributes ReadAttributes(AotExtra* extra) {
  Attributes attributes;
  attributes.caller = ReadCaller(extra);
  attributes.stride = extra->GetAttrIntVec("stride");
  attributes.padding = extra->GetAttrIntVec("padding");
  attributes.dilation = extra->GetAttrIntVec("dilation");
  attributes.use_mask = extra->GetAttrBool("use_mask");
  attributes.use_bias = extra->GetAttrBool("use_bias");
  return attributes;
}

Shape ReadShape(const int* ranks, int64_t* const* shapes, int index) {
  return Shape(shapes[index], shapes[index] + ranks[index]);
}

InputShapes ReadShapes(const int* ranks, int64_t* const* shapes) {
  return {ReadShape(ranks, shapes, kInput), ReadShape(ranks, shapes, kOffset),
          ReadShape(ranks, shapes, kMask), ReadShape(ranks, shapes, kWeight),
          ReadShape(ranks, shapes, kBias)};
}

Geometry ReadForwardGeometry(const Arguments& arguments) {
  return MakeGeometry(ReadShapes(arguments.ranks, arguments.shapes),
                      ReadAttributes(arguments.extra));
}

// Nothing is in the place of bias.
Geometry ReadGradientGeometry(const Arguments& arguments) {
  Attributes attributes = ReadAttributes(arguments.extra);
  attributes.use_bias = false;
  return MakeGeometry(ReadShapes(arguments.ranks, arguments.shapes), attributes);
}

DType ReadDType(const Arguments& arguments, int expected_count) {
  const std::string caller = ReadCaller(arguments.extra);
  if (arguments.count != expected_count) {
    Fail(caller,
         "the library and the Python package disagree on the number of parameters; run: python -m "
         "ms_deform build");
  }
  for (int i = 1; i < expected_count; ++i) {
    if (std::strcmp(arguments.dtypes[i], arguments.dtypes[0]) != 0) {
      Fail(caller, "all tensors must have one dtype, got ", arguments.dtypes[0], " and ",
           arguments.dtypes[i]);
    }
  }
  for (const NamedDType& known : kDTypes) {
    if (std::strcmp(arguments.dtypes[0], known.name) == 0) {
      return known.dtype;
    }
  }
  Fail(caller, "unsupported dtype ", arguments.dtypes[0]);
}

Inputs ReadInputs(const Arguments& arguments) {
  return {arguments.tensors[kInput], arguments.tensors[kOffset], arguments.tensors[kMask],
          arguments.tensors[kWeight]};
}

ForwardCall ReadForward(const Arguments& arguments) {
  ForwardCall call;
  call.dtype = ReadDType(arguments, kForwardParameters);
  call.geometry = ReadForwardGeometry(arguments);
  call.inputs = ReadInputs(arguments);
  call.bias = arguments.tensors[kBias];
  call.output = arguments.tensors[kOutput];
  return call;
}

BackwardInputCall ReadBackwardInput(const Arguments& arguments) {
  BackwardInputCall call;
  call.dtype = ReadDType(arguments, kGradInputParameters);
  call.geometry = ReadGradientGeometry(arguments);
  call.inputs = ReadInputs(arguments);
  call.grad_output = arguments.tensors[kGradOutput];
  call.grad_input = arguments.tensors[kGradInput];
  call.grad_offset = arguments.tensors[kGradOffset];
  call.grad_mask = arguments.tensors[kGradMask];
  call.deterministic = arguments.extra->GetAttrBool("deterministic");
  return call;
}

BackwardWeightCall ReadBackwardWeight(const Arguments& arguments) {
  BackwardWeightCall call;
  call.dtype = ReadDType(arguments, kGradWeightParameters);
  call.geometry = ReadGradientGeometry(arguments);
  call.inputs = ReadInputs(arguments);
  call.grad_output = arguments.tensors[kGradOutput];
  call.grad_weight = arguments.tensors[kGradWeight];
  return call;
}

BackwardBiasCall ReadBackwardBias(const Arguments& arguments) {
  BackwardBiasCall call;
  call.dtype = ReadDType(arguments, kGradBiasParameters);
  call.geometry = ReadGradientGeometry(arguments);
  call.grad_output = arguments.tensors[kGradOutput];
  call.grad_bias = arguments.tensors[kGradBias];
  return call;
}

// MindSpore's enumeration; outputs repeat the inputs' dtype, whatever it is.
enum TypeId : int {};

}  // namespace
}  // namespace ms_deform

using ms_deform::AotExtra;
using ms_deform::Shape;
using ms_deform::TypeId;

// An operator: reads its call and has one of the backend's kernels run it.
#define MS_DEFORM_OPERATOR(name, read, kernel)                                                     \
  MS_DEFORM_EXPORT int name(int count, void** tensors, int* ranks, int64_t** shapes,               \
                            const char** dtypes, void* stream, void* extra) {                      \
    try {                                                                                          \
      const auto call =                                                                            \
          ms_deform::read({count, tensors, ranks, shapes, dtypes, static_cast<AotExtra*>(extra)}); \
      ms_deform::KernelsFor(call.dtype).kernel(call, stream);                                      \
      return 0;                                                                                    \
    } catch (const std::exception& error) {                                                        \
      ms_deform::KeepError(error.what());                                                          \
      throw;                                                                                       \
    }                                                                                              \
  }

MS_DEFORM_OPERATOR(MsDeformForward, ReadForward, forward)
MS_DEFORM_OPERATOR(MsDeformGradInput, ReadBackwardInput, backward_input)
MS_DEFORM_OPERATOR(MsDeformGradWeight, ReadBackwardWeight, backward_weight)
MS_DEFORM_OPERATOR(MsDeformGradBias, ReadBackwardBias, backward_bias)

MS_DEFORM_EXPORT Shape MsDeformForwardInferShape(int* ranks, int64_t** shapes, AotExtra* extra) {
  return ms_deform::InferOutputShape(ms_deform::ReadShapes(ranks, shapes),
                                     ms_deform::ReadAttributes(extra));
}

MS_DEFORM_EXPORT TypeId MsDeformForwardInferType(std::vector<TypeId> types, AotExtra*) {
  return types[ms_deform::kInput];
}

// A gradient has the shape of what it is the gradient of; the forward has checked them all.
MS_DEFORM_EXPORT std::vector<Shape> MsDeformGradInputInferShape(int* ranks, int64_t** shapes,
                                                                AotExtra*) {
  return {ms_deform::ReadShape(ranks, shapes, ms_deform::kInput),
          ms_deform::ReadShape(ranks, shapes, ms_deform::kOffset),
          ms_deform::ReadShape(ranks, shapes, ms_deform::kMask)};
}

MS_DEFORM_EXPORT std::vector<TypeId> MsDeformGradInputInferType(std::vector<TypeId> types,
                                                                AotExtra*) {
  return {types[ms_deform::kInput], types[ms_deform::kOffset], types[ms_deform::kMask]};
}

MS_DEFORM_EXPORT Shape MsDeformGradWeightInferShape(int* ranks, int64_t** shapes, AotExtra*) {
  return ms_deform::ReadShape(ranks, shapes, ms_deform::kWeight);
}

MS_DEFORM_EXPORT TypeId MsDeformGradWeightInferType(std::vector<TypeId> types, AotExtra*) {
  return types[ms_deform::kWeight];
}

MS_DEFORM_EXPORT Shape MsDeformGradBiasInferShape(int* ranks, int64_t** shapes, AotExtra*) {
  const Shape weight = ms_deform::ReadShape(ranks, shapes, ms_deform::kWeight);
  return {weight.size() == 4 ? weight[0] : ms_deform::kUnknownDimension};
}

MS_DEFORM_EXPORT TypeId MsDeformGradBiasInferType(std::vector<TypeId> types, AotExtra*) {
  return types[ms_deform::kWeight];
}
