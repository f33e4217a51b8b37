// SPDX-License-Identifier: Apache-2.0
// A test double of CANN's shape and dtype inference, as far as the project uses it.
#ifndef MS_DEFORM_TESTS_AICPU_SDK_REGISTER_OP_IMPL_REGISTRY_H_
#define MS_DEFORM_TESTS_AICPU_SDK_REGISTER_OP_IMPL_REGISTRY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph/operator_reg.h"

namespace ge {

using graphStatus = uint32_t;
constexpr graphStatus GRAPH_SUCCESS = 0;
constexpr graphStatus GRAPH_FAILED = 0xffffffff;

}  // namespace ge

namespace gert {

class Shape {
 public:
  void SetDimNum(size_t count) { sizes.resize(count); }
  void SetDim(size_t index, int64_t size) { sizes.at(index) = size; }
  int64_t GetDim(size_t index) const { return sizes.at(index); }
  std::vector<int64_t> sizes;
};

struct InferShapeContext {
  const Shape* GetInputShape(size_t index) const { return &inputs.at(index); }
  Shape* GetOutputShape(size_t index) { return &outputs.at(index); }
  std::vector<Shape> inputs;
  std::vector<Shape> outputs;
};

struct InferDataTypeContext {
  ge::DataType GetInputDataType(size_t index) const { return inputs.at(index); }
  ge::graphStatus SetOutputDataType(size_t index, ge::DataType type) {
    outputs.at(index) = type;
    return ge::GRAPH_SUCCESS;
  }
  std::vector<ge::DataType> inputs;
  std::vector<ge::DataType> outputs;
};

class Inference {
 public:
  explicit Inference(const char* operator_type) : type(operator_type) {}
  Inference(const Inference& other);
  Inference& InferShape(ge::graphStatus (*function)(InferShapeContext*)) {
    shape = function;
    return *this;
  }
  Inference& InferDataType(ge::graphStatus (*function)(InferDataTypeContext*)) {
    dtype = function;
    return *this;
  }
  const char* type;
  ge::graphStatus (*shape)(InferShapeContext*) = nullptr;
  ge::graphStatus (*dtype)(InferDataTypeContext*) = nullptr;
};

// What a library says of an operator when CANN asks it.
struct OperatorInference {
  const char* type;
  ge::graphStatus (*shape)(InferShapeContext*);
  ge::graphStatus (*dtype)(InferDataTypeContext*);
};

}  // namespace gert

extern "C" {
size_t GetRegisteredOpNum();
int GetOpImplFunctions(gert::OperatorInference* inferences, size_t count);
}

// Copying registers, as the last of the calls that make an operator's inference.
#define IMPL_OP(type) static const gert::Inference type##_inference = gert::Inference(#type)

#endif  // MS_DEFORM_TESTS_AICPU_SDK_REGISTER_OP_IMPL_REGISTRY_H_
