// SPDX-License-Identifier: Apache-2.0
#include "common/geometry.h"

#include <limits>
#include <stdexcept>
#include <string>

namespace ms_deform {
namespace {

std::string ToString(int64_t number) { return std::to_string(number); }

std::string ToString(const std::string& text) { return text; }

std::string ToString(const Shape& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + ToString(shape[i]);
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

template <typename... Parts>
[[noreturn]] void Fail(const Parts&... parts) {
  std::string text = "deform_conv2d: ";
  const int written[] = {(text += ToString(parts), 0)...};
  static_cast<void>(written);
  throw std::invalid_argument(text);
}

bool HasKnownRank(const Shape& shape) { return shape.size() != 1 || shape[0] != kUnknownRank; }

// The named tensor's shape, with every dimension unknown where the rank is.
Shape CheckRank(const char* name, const Shape& shape, size_t rank, const char* layout) {
  if (!HasKnownRank(shape)) {
    return Shape(rank, kUnknownDimension);
  }
  if (shape.size() != rank) {
    Fail("'", name, "' must be a ", rank, "-D tensor ", layout, ", got shape ", ToString(shape));
  }
  return shape;
}

bool Known(int64_t dimension) { return dimension != kUnknownDimension; }

bool Known(int64_t first, int64_t second) { return Known(first) && Known(second); }

int64_t FirstKnown(int64_t first, int64_t second) { return Known(first) ? first : second; }

void CheckWeight(int64_t in_channels, const Shape& weight) {
  if (weight[2] == 0 || weight[3] == 0 || weight[1] == 0) {
    Fail("'weight' must have at least one input channel and a kernel of at least 1x1, got shape ",
         ToString(weight));
  }
  if (!Known(in_channels, weight[1])) {
    return;
  }
  if (in_channels == 0 || in_channels % weight[1] != 0) {
    Fail("input.shape[1] must be a positive multiple of weight.shape[1] = C_in / groups, got ",
         in_channels, " and ", weight[1]);
  }
  const int64_t groups = in_channels / weight[1];
  if (Known(weight[0]) && weight[0] % groups != 0) {
    Fail("weight.shape[0] must be a multiple of groups = input.shape[1] / weight.shape[1] = ",
         groups, ", got ", weight[0]);
  }
}

int64_t CheckOffsetChannels(int64_t in_channels, const Shape& offset, const Shape& weight) {
  if (!Known(weight[2], weight[3]) || !Known(offset[1])) {
    return kUnknownDimension;
  }
  const int64_t unit = 2 * weight[2] * weight[3];
  if (offset[1] == 0 || offset[1] % unit != 0) {
    Fail("the shape of the offset is not valid: offset.shape[1] must be a positive multiple of ",
         "2 * kernel height * kernel width = ", unit, ", got ", offset[1]);
  }
  const int64_t offset_groups = offset[1] / unit;
  if (Known(in_channels) && in_channels % offset_groups != 0) {
    Fail("input.shape[1] must be a multiple of the offset groups = offset.shape[1] / ", unit, " = ",
         offset_groups, ", got ", in_channels);
  }
  return offset_groups;
}

// Output extent along one axis ("height" or "width"), or unknown.
int64_t CheckExtent(const char* axis, int64_t size, int64_t kernel, int64_t stride, int64_t pad_low,
                    int64_t pad_high, int64_t dilation) {
  if (size == 0) {
    Fail("input ", axis, " must be positive, got 0");
  }
  if (!Known(size, kernel)) {
    return kUnknownDimension;
  }
  const int64_t padded = size + pad_low + pad_high;
  const int64_t window = dilation * (kernel - 1) + 1;
  if (padded < window) {
    Fail("the output would be empty: padded input ", axis, " ", padded,
         " is smaller than the dilated kernel ", axis, " ", window);
  }
  return (padded - window) / stride + 1;
}

// Kernels count the pixels of an image, with a border of their own, in 32 bits.
void CheckPixels(const Shape& input, const std::vector<int64_t>& padding) {
  if (!Known(input[2], input[3])) {
    return;
  }
  const int64_t height = input[2] + padding[0] + padding[1];
  const int64_t width = input[3] + padding[2] + padding[3];
  const int64_t most = std::numeric_limits<int32_t>::max();
  if (height > most || width > most || (height + 3) * (width + 1) > most) {
    Fail("the padded input has ", height, " x ", width, " pixels, more than the ", most,
         " that are supported; cut it into parts");
  }
}

void CheckSampled(const char* name, const Shape& shape, int64_t batch, int64_t out_height,
                  int64_t out_width) {
  if (Known(shape[0], batch) && shape[0] != batch) {
    Fail(name, ".shape[0] must be the batch size of the input = ", batch, ", got ", shape[0]);
  }
  const bool height_differs = Known(shape[2], out_height) && shape[2] != out_height;
  const bool width_differs = Known(shape[3], out_width) && shape[3] != out_width;
  if (height_differs || width_differs) {
    Fail(name, ".shape[2:] must be the output size (", out_height, ", ", out_width, "), got (",
         shape[2], ", ", shape[3], ")");
  }
}

}  // namespace

Shape InferOutputShape(const InputShapes& shapes, const Attributes& attributes) {
  const Shape input = CheckRank("input", shapes.input, 4, "[N, C_in, H, W]");
  const Shape offset =
      CheckRank("offset", shapes.offset, 4, "[N, 2 * offset_groups * kh * kw, H_out, W_out]");
  const Shape weight = CheckRank("weight", shapes.weight, 4, "[C_out, C_in / groups, kh, kw]");
  CheckWeight(input[1], weight);
  const int64_t offset_groups = CheckOffsetChannels(input[1], offset, weight);
  const int64_t out_height =
      CheckExtent("height", input[2], weight[2], attributes.stride[0], attributes.padding[0],
                  attributes.padding[1], attributes.dilation[0]);
  const int64_t out_width =
      CheckExtent("width", input[3], weight[3], attributes.stride[1], attributes.padding[2],
                  attributes.padding[3], attributes.dilation[1]);
  CheckPixels(input, attributes.padding);
  CheckSampled("offset", offset, input[0], out_height, out_width);
  Shape output = {FirstKnown(input[0], offset[0]), weight[0], FirstKnown(out_height, offset[2]),
                  FirstKnown(out_width, offset[3])};
  if (attributes.use_mask) {
    const Shape mask =
        CheckRank("mask", shapes.mask, 4, "[N, offset_groups * kh * kw, H_out, W_out]");
    if (Known(mask[1], offset_groups) && mask[1] != offset_groups * weight[2] * weight[3]) {
      Fail("mask.shape[1] is not valid: it must be offset groups * kernel height * kernel width = ",
           offset_groups * weight[2] * weight[3], ", got ", mask[1]);
    }
    CheckSampled("mask", mask, output[0], output[2], output[3]);
  }
  if (attributes.use_bias) {
    const Shape bias = CheckRank("bias", shapes.bias, 1, "[C_out]");
    if (Known(bias[0], weight[0]) && bias[0] != weight[0]) {
      Fail("bias.shape[0] must be weight.shape[0] = ", weight[0], ", got ", bias[0]);
    }
  }
  return output;
}

Geometry MakeGeometry(const InputShapes& shapes, const Attributes& attributes) {
  const Shape output = InferOutputShape(shapes, attributes);
  Geometry g;
  g.batch = shapes.input[0];
  g.in_channels = shapes.input[1];
  g.in_height = shapes.input[2];
  g.in_width = shapes.input[3];
  g.out_channels = output[1];
  g.out_height = output[2];
  g.out_width = output[3];
  g.kernel_height = shapes.weight[2];
  g.kernel_width = shapes.weight[3];
  g.stride_height = attributes.stride[0];
  g.stride_width = attributes.stride[1];
  g.pad_top = attributes.padding[0];
  g.pad_left = attributes.padding[2];
  g.dilation_height = attributes.dilation[0];
  g.dilation_width = attributes.dilation[1];
  g.use_mask = attributes.use_mask;
  g.use_bias = attributes.use_bias;
  g.taps = g.kernel_height * g.kernel_width;
  g.in_pixels = g.in_height * g.in_width;
  g.out_pixels = g.out_height * g.out_width;
  g.groups = g.in_channels / shapes.weight[1];
  g.offset_groups = shapes.offset[1] / (2 * g.taps);
  g.group_in_channels = g.in_channels / g.groups;
  g.group_out_channels = g.out_channels / g.groups;
  g.offset_group_channels = g.in_channels / g.offset_groups;
  return g;
}

}  // namespace ms_deform
