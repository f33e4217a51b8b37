// SPDX-License-Identifier: Apache-2.0
#include "aicpu/call.h"

#include <exception>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "aicpu/log.h"
#include "aicpu/parallel.h"
#include "common/fail.h"

namespace ms_deform {
namespace aicpu_backend {
namespace {

const char* const kForwardNames[] = {"input", "offset", "mask", "weight", "bias", "geometry"};
const char* const kGradientNames[] = {"input",  "offset",      "mask",
                                      "weight", "grad_output", "geometry"};

// As what the user called; the log line names the operator.
constexpr char kCaller[] = "deform_conv2d";

Shape ShapeOf(const aicpu::Tensor& tensor, const std::string& name) {
  const auto shape = tensor.GetTensorShape();
  if (shape == nullptr) {
    Fail(kCaller, "'", name, "' has no shape");
  }
  return shape->GetDimSizes();
}

const aicpu::Tensor& Present(const aicpu::Tensor* tensor, const std::string& name) {
  if (tensor == nullptr) {
    Fail(kCaller, "'", name, "' is missing");
  }
  return *tensor;
}

// Checks that the tensor's memory holds the elements of its shape.
void CheckData(const aicpu::Tensor& tensor, const std::string& name, const Shape& shape,
               int64_t element_bytes) {
  for (int64_t dimension : shape) {
    if (dimension < 0) {
      Fail(kCaller, "'", name, "' has an unknown dimension");
    }
  }
  const uint64_t bytes = static_cast<uint64_t>(Count(shape) * element_bytes);
  if (bytes > 0 && tensor.GetData() == nullptr) {
    Fail(kCaller, "'", name, "' has no data");
  }
  if (tensor.GetDataSize() < bytes) {
    Fail(kCaller, "'", name, "' needs ", bytes, " bytes, got ", tensor.GetDataSize());
  }
}

DType ReadDType(const aicpu::Tensor& input) {
  switch (input.GetDataType()) {
    case aicpu::DT_FLOAT:
      return DType::kFloat32;
    case aicpu::DT_FLOAT16:
      return DType::kFloat16;
    default:
      Fail(kCaller, "the dtype must be float32 or float16, got ", input.GetDataType());
  }
}

Attributes ReadAttributes(const aicpu::Tensor& tensor) {
  const Shape shape = ShapeOf(tensor, "geometry");
  if (tensor.GetDataType() != aicpu::DT_INT64 || shape != Shape{kGeometryElements}) {
    Fail(kCaller, "'geometry' must be ", static_cast<int>(kGeometryElements), " int64 numbers");
  }
  CheckData(tensor, "geometry", shape, sizeof(int64_t));
  const int64_t* numbers = static_cast<const int64_t*>(tensor.GetData());
  for (int i = 0; i < kGeometryElements; ++i) {
    const bool positive = i <= kStrideWidth || i == kDilationHeight || i == kDilationWidth;
    const bool flag = i >= kUseMask;
    const int64_t most = flag ? 1 : std::numeric_limits<int32_t>::max();
    if (numbers[i] < (positive ? 1 : 0) || numbers[i] > most) {
      Fail(kCaller, "'geometry' must be stride, padding, dilation, use_mask, use_bias; element ", i,
           " is ", numbers[i]);
    }
  }
  return {{numbers[kStrideHeight], numbers[kStrideWidth]},
          {numbers[kPadTop], numbers[kPadBottom], numbers[kPadLeft], numbers[kPadRight]},
          {numbers[kDilationHeight], numbers[kDilationWidth]},
          numbers[kUseMask] != 0,
          numbers[kUseBias] != 0,
          kCaller};
}

void CheckOutputs(const aicpu::CpuKernelContext& context, const std::vector<Shape>& shapes,
                  DType dtype, aicpu::DataType type) {
  for (size_t i = 0; i < shapes.size(); ++i) {
    const std::string name = "output " + std::to_string(i);
    const aicpu::Tensor& tensor = Present(context.Output(static_cast<uint32_t>(i)), name);
    if (tensor.GetDataType() != type) {
      Fail(kCaller, "'", name, "' must have the dtype of input");
    }
    CheckData(tensor, name, shapes[i], ElementBytes(dtype));
  }
}

// The call without its outputs, and the shapes of all inputs.
Call ReadInputs(const aicpu::CpuKernelContext& context, const char* const* names, bool forward,
                std::vector<Shape>* shapes) {
  Call call;
  call.context = &context;
  const aicpu::Tensor& input = Present(context.Input(kInput), names[kInput]);
  call.dtype = ReadDType(input);
  for (int i = 0; i < kGeometry; ++i) {
    const aicpu::Tensor& tensor = Present(context.Input(static_cast<uint32_t>(i)), names[i]);
    if (tensor.GetDataType() != input.GetDataType()) {
      Fail(kCaller, "'", names[i], "' must have the dtype of input");
    }
    shapes->push_back(ShapeOf(tensor, names[i]));
    CheckData(tensor, names[i], shapes->back(), ElementBytes(call.dtype));
  }
  Attributes attributes = ReadAttributes(Present(context.Input(kGeometry), names[kGeometry]));
  attributes.use_bias = attributes.use_bias && forward;
  const Shape& bias = forward ? (*shapes)[kBias] : Shape{};
  call.geometry = MakeGeometry(
      {(*shapes)[kInput], (*shapes)[kOffset], (*shapes)[kMask], (*shapes)[kWeight], bias},
      attributes);
  return call;
}

Call ReadGradientCall(const aicpu::CpuKernelContext& context, std::vector<Shape>* shapes) {
  const Call call = ReadInputs(context, kGradientNames, false, shapes);
  const Geometry& g = call.geometry;
  if ((*shapes)[kGradOutput] != Shape{g.batch, g.out_channels, g.out_height, g.out_width}) {
    Fail(kCaller, "'grad_output' must have the shape of the output");
  }
  return call;
}

}  // namespace

int64_t Count(const Shape& shape) {
  int64_t count = 1;
  for (int64_t dimension : shape) {
    if (dimension > 0 && count > std::numeric_limits<int64_t>::max() / 8 / dimension) {
      Fail(kCaller, "a tensor has more elements than any memory");
    }
    count *= dimension;
  }
  return count;
}

Call ReadForwardCall(const aicpu::CpuKernelContext& context) {
  std::vector<Shape> shapes;
  const Call call = ReadInputs(context, kForwardNames, true, &shapes);
  const Geometry& g = call.geometry;
  CheckOutputs(context, {{g.batch, g.out_channels, g.out_height, g.out_width}}, call.dtype,
               context.Input(kInput)->GetDataType());
  return call;
}

Call ReadGradInputCall(const aicpu::CpuKernelContext& context) {
  std::vector<Shape> shapes;
  const Call call = ReadGradientCall(context, &shapes);
  CheckOutputs(context, {shapes[kInput], shapes[kOffset], shapes[kMask]}, call.dtype,
               context.Input(kInput)->GetDataType());
  return call;
}

Call ReadGradWeightCall(const aicpu::CpuKernelContext& context) {
  std::vector<Shape> shapes;
  const Call call = ReadGradientCall(context, &shapes);
  CheckOutputs(context, {shapes[kWeight]}, call.dtype, context.Input(kInput)->GetDataType());
  return call;
}

uint32_t Guarded(const aicpu::CpuKernelContext& context, const std::function<void()>& work) {
  try {
    work();
    return kOk;
  } catch (const std::invalid_argument& error) {
    LogError(context.GetOpType(), error.what());
    return kBadParameter;
  } catch (const std::exception& error) {
    LogError(context.GetOpType(), error.what());
    return kInnerError;
  }
}

void ForEach(const Call& call, int64_t units, const std::function<void(int64_t)>& work) {
  if (units == 0) {
    return;
  }
  // An exception must not leave a thread of the SDK.
  std::mutex mutex;
  std::exception_ptr thrown;
  const uint32_t status =
      aicpu::CpuKernelUtils::ParallelFor(*call.context, units, 1, [&](int64_t begin, int64_t end) {
        try {
          for (int64_t unit = begin; unit < end; ++unit) {
            work(unit);
          }
        } catch (...) {
          const std::lock_guard<std::mutex> lock(mutex);
          thrown = std::current_exception();
        }
      });
  if (thrown != nullptr) {
    std::rethrow_exception(thrown);
  }
  if (status != kOk) {
    throw std::runtime_error("ParallelFor failed with status " + std::to_string(status));
  }
}

}  // namespace aicpu_backend
}  // namespace ms_deform
