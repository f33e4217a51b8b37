// SPDX-License-Identifier: Apache-2.0
#include "common/geometry.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "common/fail.h"

namespace ms_deform {
namespace {

std::string ToString(const Shape& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + TextOf(shape[i]);
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

bool HasKnownRank(const Shape& shape) { return shape.size() != 1 || shape[0] != kUnknownRank; }

bool Known(int64_t dimension) { return dimension != kUnknownDimension; }

bool Known(int64_t first, int64_t second) { return Known(first) && Known(second); }

int64_t FirstKnown(int64_t first, int64_t second) { return Known(first) ? first : second; }

// Whether all is known of a shape, and it has four dimensions.
bool IsImage(const Shape& shape) {
  return shape.size() == 4 && std::count(shape.begin(), shape.end(), kUnknownDimension) == 0;
}

// One axis of an input.
struct Axis {
  const char* name;  // "height" or "width"
  int64_t size;
  int64_t kernel;
  int64_t stride;
  int64_t padding;  // on both sides together
  int64_t dilation;
};

// The checks of a call, in the name of what the user called.
class Checks {
 public:
  explicit Checks(const std::string& caller) : caller_(caller) {}

  // The named tensor's shape, with every dimension unknown where the rank is.
  Shape Rank(const char* name, const Shape& shape, size_t rank, const char* layout) const {
    if (!HasKnownRank(shape)) {
      return Shape(rank, kUnknownDimension);
    }
    if (shape.size() != rank) {
      Fail("'", name, "' must be a ", rank, "-D tensor ", layout, ", got shape ", ToString(shape));
    }
    return shape;
  }

  // mmcv has mask and weight where weight and bias belong here.
  void Order(const Shape& offset, const Shape& weight, const Shape& bias) const {
    if (!IsImage(weight) || !IsImage(bias)) {
      return;
    }
    const Shape mask_like = {weight[0], 2 * weight[1], weight[2], weight[3]};
    const int64_t taps = bias[2] * bias[3];
    if (mask_like == offset && taps > 0 && weight[1] % taps == 0) {
      Fail("'bias' must be a 1-D tensor [C_out], got shape ", ToString(bias),
           "; it looks like mmcv's order of arguments, here it is deform_conv2d(input, offset, ",
           "weight, bias, stride, padding, dilation, mask)");
    }
  }

  void Weight(int64_t in_channels, const Shape& weight) const {
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

  int64_t OffsetChannels(int64_t in_channels, const Shape& offset, const Shape& weight) const {
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
      Fail("input.shape[1] must be a multiple of the offset groups = offset.shape[1] / ", unit,
           " = ", offset_groups, ", got ", in_channels);
    }
    return offset_groups;
  }

  // Output extent along one axis, or unknown.
  int64_t Extent(const Axis& axis) const {
    if (axis.size == 0) {
      Fail("input ", axis.name, " must be positive, got 0");
    }
    if (!Known(axis.size, axis.kernel)) {
      return kUnknownDimension;
    }
    const int64_t padded = axis.size + axis.padding;
    const int64_t window = axis.dilation * (axis.kernel - 1) + 1;
    if (padded < window) {
      Fail("the output would be empty: padded input ", axis.name, " ", padded,
           " is smaller than the dilated kernel ", axis.name, " ", window);
    }
    return (padded - window) / axis.stride + 1;
  }

  // Kernels count the pixels of an image, with a border of their own, in 32 bits.
  void Pixels(const Shape& input, const std::vector<int64_t>& padding) const {
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

  // output: of which the channels do not count.
  void Sampled(const char* name, const Shape& shape, const Shape& output) const {
    if (Known(shape[0], output[0]) && shape[0] != output[0]) {
      Fail(name, ".shape[0] must be the batch size of the input = ", output[0], ", got ", shape[0]);
    }
    const bool height_differs = Known(shape[2], output[2]) && shape[2] != output[2];
    const bool width_differs = Known(shape[3], output[3]) && shape[3] != output[3];
    if (height_differs || width_differs) {
      Fail(name, ".shape[2:] must be the output size (", output[2], ", ", output[3], "), got (",
           shape[2], ", ", shape[3], ")");
    }
  }

  template <typename... Parts>
  [[noreturn]] void Fail(const Parts&... parts) const {
    ms_deform::Fail(caller_, parts...);
  }

 private:
  const std::string& caller_;
};

Shape CheckedOutputShape(const InputShapes& shapes, const Attributes& attributes) {
  const Checks checks(attributes.caller);
  const Shape input = checks.Rank("input", shapes.input, 4, "[N, C_in, H, W]");
  const Shape offset =
      checks.Rank("offset", shapes.offset, 4, "[N, 2 * offset_groups * kh * kw, H_out, W_out]");
  const Shape weight = checks.Rank("weight", shapes.weight, 4, "[C_out, C_in / groups, kh, kw]");
  checks.Weight(input[1], weight);
  const int64_t offset_groups = checks.OffsetChannels(input[1], offset, weight);
  const std::vector<int64_t>& padding = attributes.padding;
  const int64_t out_height = checks.Extent({"height", input[2], weight[2], attributes.stride[0],
                                            padding[0] + padding[1], attributes.dilation[0]});
  const int64_t out_width = checks.Extent({"width", input[3], weight[3], attributes.stride[1],
                                           padding[2] + padding[3], attributes.dilation[1]});
  checks.Pixels(input, padding);
  checks.Sampled("offset", offset, {input[0], weight[0], out_height, out_width});
  const Shape output = {FirstKnown(input[0], offset[0]), weight[0],
                        FirstKnown(out_height, offset[2]), FirstKnown(out_width, offset[3])};
  if (attributes.use_mask) {
    const Shape mask =
        checks.Rank("mask", shapes.mask, 4, "[N, offset_groups * kh * kw, H_out, W_out]");
    if (Known(mask[1], offset_groups) && mask[1] != offset_groups * weight[2] * weight[3]) {
      checks.Fail(
          "mask.shape[1] is not valid: it must be offset groups * kernel height * kernel width = ",
          offset_groups * weight[2] * weight[3], ", got ", mask[1]);
    }
    checks.Sampled("mask", mask, output);
  }
  if (attributes.use_bias) {
    const Shape bias = checks.Rank("bias", shapes.bias, 1, "[C_out]");
    if (Known(bias[0], weight[0]) && bias[0] != weight[0]) {
      checks.Fail("bias.shape[0] must be weight.shape[0] = ", weight[0], ", got ", bias[0]);
    }
  }
  return output;
}

bool IsValid(const InputShapes& shapes, const Attributes& attributes) {
  try {
    CheckedOutputShape(shapes, attributes);
    return true;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

Shape Transposed(const Shape& shape) { return {shape[0], shape[3], shape[1], shape[2]}; }

// What to do about a refused call, or nothing. A hint must not lead astray: a mistake is named only
// where the call would be valid without it.
std::string Hint(const InputShapes& shapes, const Attributes& attributes) {
  if (!IsImage(shapes.offset) || (attributes.use_mask && !IsImage(shapes.mask))) {
    return "";
  }
  InputShapes split = shapes;
  split.offset[1] = shapes.offset[1] / 3 * 2;
  if (shapes.offset[1] % 3 == 0 && IsValid(split, attributes)) {
    return "; it looks like offsets and masks in one tensor: split that of mmcv's conv_offset by "
           "`o1, o2, mask = ops.chunk(offset, 3, axis=1)`, `offset = ops.cat((o1, o2), axis=1)`, "
           "`mask = ops.sigmoid(mask)`, that of ops.deformable_conv2d by "
           "`offset, mask = ms_deform.unpack_offset(offset)`";
  }
  if (!IsImage(shapes.input)) {
    return "";
  }
  const std::string mend = "; it looks like [N, H, W, C]: pass input.transpose(0, 3, 1, 2)";
  InputShapes transposed = shapes;
  transposed.input = Transposed(shapes.input);
  if (IsValid(transposed, attributes)) {
    return mend;
  }
  transposed.offset = Transposed(shapes.offset);
  if (attributes.use_mask) {
    transposed.mask = Transposed(shapes.mask);
  }
  if (IsValid(transposed, attributes)) {
    return mend + ", offset.transpose(0, 3, 1, 2)" +
           (attributes.use_mask ? ", mask.transpose(0, 3, 1, 2)" : "");
  }
  return "";
}

}  // namespace

Shape InferOutputShape(const InputShapes& shapes, const Attributes& attributes) {
  if (attributes.use_bias) {
    Checks(attributes.caller).Order(shapes.offset, shapes.weight, shapes.bias);
  }
  try {
    return CheckedOutputShape(shapes, attributes);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(error.what() + Hint(shapes, attributes));
  }
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
