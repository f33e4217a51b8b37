// SPDX-License-Identifier: Apache-2.0
#include "common/aot_call.h"

#include <cstring>
#include <stdexcept>

namespace ms_deform {
namespace {

Attributes ReadAttributes(AotExtra* extra) {
  Attributes attributes;
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

}  // namespace

Geometry ReadForwardGeometry(const AotCall& call) {
  return MakeGeometry(ReadShapes(call.ranks, call.shapes), ReadAttributes(call.extra));
}

Geometry ReadGradientGeometry(const AotCall& call) {
  Attributes attributes = ReadAttributes(call.extra);
  attributes.use_bias = false;
  return MakeGeometry(ReadShapes(call.ranks, call.shapes), attributes);
}

bool ReadDeterministic(const AotCall& call) { return call.extra->GetAttrBool("deterministic"); }

DType ReadDType(const AotCall& call, int expected_parameters) {
  if (call.parameter_count != expected_parameters) {
    throw std::invalid_argument(
        std::string("deform_conv2d: the library and the Python package disagree on the "
                    "number of parameters; run: python -m ms_deform build"));
  }
  for (int i = 1; i < expected_parameters; ++i) {
    if (std::strcmp(call.dtypes[i], call.dtypes[0]) != 0) {
      throw std::invalid_argument(
          std::string("deform_conv2d: all tensors must have one dtype, got ") + call.dtypes[0] +
          " and " + call.dtypes[i]);
    }
  }
  const struct {
    const char* name;
    DType dtype;
  } known[] = {{"float32", DType::kFloat32},
               {"float64", DType::kFloat64},
               {"float16", DType::kFloat16},
               {"bfloat16", DType::kBFloat16}};
  for (const auto& entry : known) {
    if (std::strcmp(call.dtypes[0], entry.name) == 0) {
      return entry.dtype;
    }
  }
  throw std::invalid_argument(std::string("deform_conv2d: unsupported dtype ") + call.dtypes[0]);
}

}  // namespace ms_deform

namespace {

using ms_deform::AotExtra;
using ms_deform::Shape;
enum TypeId : int {};  // MindSpore's enumeration; outputs repeat the inputs' dtype, whatever it is

}  // namespace

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
