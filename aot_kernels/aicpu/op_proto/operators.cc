// SPDX-License-Identifier: Apache-2.0
// What CANN's graph needs to know of the operators: their parameters, shapes and dtypes. The names
// are those of ms_deform/install/aicpu_operators.py.
#include "graph/operator_reg.h"
#include "register/op_impl_registry.h"

#define MS_DEFORM_DATA TensorType({DT_FLOAT, DT_FLOAT16})

namespace ge {

REG_OP(MsDeformAicpuForward)
    .INPUT(input, MS_DEFORM_DATA)
    .INPUT(offset, MS_DEFORM_DATA)
    .INPUT(mask, MS_DEFORM_DATA)
    .INPUT(weight, MS_DEFORM_DATA)
    .INPUT(bias, MS_DEFORM_DATA)
    .INPUT(geometry, TensorType({DT_INT64}))
    .OUTPUT(output, MS_DEFORM_DATA)
    .OP_END_FACTORY_REG(MsDeformAicpuForward)

        REG_OP(MsDeformAicpuGradInput)
    .INPUT(input, MS_DEFORM_DATA)
    .INPUT(offset, MS_DEFORM_DATA)
    .INPUT(mask, MS_DEFORM_DATA)
    .INPUT(weight, MS_DEFORM_DATA)
    .INPUT(grad_output, MS_DEFORM_DATA)
    .INPUT(geometry, TensorType({DT_INT64}))
    .OUTPUT(grad_input, MS_DEFORM_DATA)
    .OUTPUT(grad_offset, MS_DEFORM_DATA)
    .OUTPUT(grad_mask, MS_DEFORM_DATA)
    .OP_END_FACTORY_REG(MsDeformAicpuGradInput)

        REG_OP(MsDeformAicpuGradWeight)
    .INPUT(input, MS_DEFORM_DATA)
    .INPUT(offset, MS_DEFORM_DATA)
    .INPUT(mask, MS_DEFORM_DATA)
    .INPUT(weight, MS_DEFORM_DATA)
    .INPUT(grad_output, MS_DEFORM_DATA)
    .INPUT(geometry, TensorType({DT_INT64}))
    .OUTPUT(grad_weight, MS_DEFORM_DATA)
    .OP_END_FACTORY_REG(MsDeformAicpuGradWeight)

}  // namespace ge

namespace {

enum Input { kInput, kOffset, kMask, kWeight };

ge::graphStatus InferForwardShape(gert::InferShapeContext* context) {
  const gert::Shape* input = context->GetInputShape(kInput);
  const gert::Shape* offset = context->GetInputShape(kOffset);
  const gert::Shape* weight = context->GetInputShape(kWeight);
  gert::Shape* output = context->GetOutputShape(0);
  if (input == nullptr || offset == nullptr || weight == nullptr || output == nullptr) {
    return ge::GRAPH_FAILED;
  }
  output->SetDimNum(4);
  output->SetDim(0, input->GetDim(0));
  output->SetDim(1, weight->GetDim(0));
  output->SetDim(2, offset->GetDim(2));
  output->SetDim(3, offset->GetDim(3));
  return ge::GRAPH_SUCCESS;
}

// A gradient has the shape of what it is the gradient of.
ge::graphStatus CopyShape(gert::InferShapeContext* context, size_t input, size_t output) {
  const gert::Shape* from = context->GetInputShape(input);
  gert::Shape* to = context->GetOutputShape(output);
  if (from == nullptr || to == nullptr) {
    return ge::GRAPH_FAILED;
  }
  *to = *from;
  return ge::GRAPH_SUCCESS;
}

ge::graphStatus InferGradInputShape(gert::InferShapeContext* context) {
  for (size_t i = kInput; i <= kMask; ++i) {
    if (CopyShape(context, i, i) != ge::GRAPH_SUCCESS) {
      return ge::GRAPH_FAILED;
    }
  }
  return ge::GRAPH_SUCCESS;
}

ge::graphStatus InferGradWeightShape(gert::InferShapeContext* context) {
  return CopyShape(context, kWeight, 0);
}

template <size_t Outputs>
ge::graphStatus InferDType(gert::InferDataTypeContext* context) {
  for (size_t i = 0; i < Outputs; ++i) {
    context->SetOutputDataType(i, context->GetInputDataType(kInput));
  }
  return ge::GRAPH_SUCCESS;
}

IMPL_OP(MsDeformAicpuForward).InferShape(InferForwardShape).InferDataType(InferDType<1>);
IMPL_OP(MsDeformAicpuGradInput).InferShape(InferGradInputShape).InferDataType(InferDType<3>);
IMPL_OP(MsDeformAicpuGradWeight).InferShape(InferGradWeightShape).InferDataType(InferDType<1>);

}  // namespace
