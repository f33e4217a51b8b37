// SPDX-License-Identifier: Apache-2.0
#ifndef MS_DEFORM_COMMON_GEOMETRY_H_
#define MS_DEFORM_COMMON_GEOMETRY_H_

#include <cstdint>
#include <string>
#include <vector>

namespace ms_deform {

// Every size and constant of one deformable convolution, filled and checked once by MakeGeometry.
// Plain data without member functions: translation units compiled for different instruction sets
// share this header, and an inline member could be merged into the wrong one by the linker.
struct Geometry {
  int64_t batch;
  int64_t in_channels;
  int64_t in_height;
  int64_t in_width;
  int64_t out_channels;
  int64_t out_height;
  int64_t out_width;
  int64_t kernel_height;
  int64_t kernel_width;
  int64_t stride_height;
  int64_t stride_width;
  int64_t pad_top;
  int64_t pad_left;
  int64_t dilation_height;
  int64_t dilation_width;
  int64_t groups;
  int64_t offset_groups;
  bool use_mask;
  bool use_bias;
  // Derived.
  int64_t taps;                   // kernel_height * kernel_width
  int64_t in_pixels;              // in_height * in_width
  int64_t out_pixels;             // out_height * out_width
  int64_t group_in_channels;      // in_channels / groups
  int64_t group_out_channels;     // out_channels / groups
  int64_t offset_group_channels;  // in_channels / offset_groups
};

// The constants of a call, as the primitive's attributes carry them.
struct Attributes {
  std::vector<int64_t> stride;    // height, width
  std::vector<int64_t> padding;   // top, bottom, left, right
  std::vector<int64_t> dilation;  // height, width
  bool use_mask;
  bool use_bias;
  std::string caller;  // what the user called, for error texts
};

// A dimension is -1 while it is unknown; a shape of unknown rank is {-2} (MindSpore's convention).
constexpr int64_t kUnknownDimension = -1;
constexpr int64_t kUnknownRank = -2;
using Shape = std::vector<int64_t>;

// `mask` and `bias` are read only where the attributes say that they are used.
struct InputShapes {
  Shape input;   // [N, C_in, H, W]
  Shape offset;  // [N, 2 * offset_groups * kh * kw, H_out, W_out]
  Shape mask;    // [N, offset_groups * kh * kw, H_out, W_out]
  Shape weight;  // [C_out, C_in / groups, kh, kw]
  Shape bias;    // [C_out]
};

// Throws std::invalid_argument in the words of ms_deform/geometry.py for what is known to be wrong;
// returns the output shape [N, C_out, H_out, W_out] as far as it is known.
Shape InferOutputShape(const InputShapes& shapes, const Attributes& attributes);

// The geometry of fully known shapes that InferOutputShape accepts.
Geometry MakeGeometry(const InputShapes& shapes, const Attributes& attributes);

}  // namespace ms_deform

#endif  // MS_DEFORM_COMMON_GEOMETRY_H_
