// SPDX-License-Identifier: Apache-2.0
// Moves tensors between their storage and the kernels' working form, float.
#ifndef MS_DEFORM_AICPU_STORAGE_H_
#define MS_DEFORM_AICPU_STORAGE_H_

#include <vector>

#include "aicpu/call.h"
#include "aicpu/tiles.h"
#include "common/dtype.h"

namespace ms_deform {
namespace aicpu_backend {

// A float copy of a tensor.
template <typename Element>
std::vector<float> Loaded(const Element* data, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    values[static_cast<size_t>(i)] = Load(data[i]);
  }
  return values;
}

template <typename Element>
void StoreAll(const float* values, int64_t count, Element* to) {
  for (int64_t i = 0; i < count; ++i) {
    Store(values[i], to + i);
  }
}

// One image of a call of the gradients.
template <typename Element>
struct GradientImage {
  GradientImage(const Call& call, int64_t image)
      : samples(call.geometry.offset_groups * call.geometry.taps * call.geometry.out_pixels),
        first_sample(image * samples),
        input(call.Input<Element>(kInput) +
              image * call.geometry.in_channels * call.geometry.in_pixels),
        offset(call.Input<Element>(kOffset) + 2 * first_sample),
        mask(call.Input<Element>(kMask) + (call.geometry.use_mask ? first_sample : 0)),
        grad_output(call.Input<Element>(kGradOutput) +
                    image * call.geometry.out_channels * call.geometry.out_pixels) {}
  int64_t samples;  // of an image
  int64_t first_sample;
  const Element* input;        // [C_in, H, W]
  const Element* offset;       // [2 * offset_groups * taps, H_out, W_out]
  const Element* mask;         // [offset_groups * taps, H_out, W_out], read if use_mask
  const Element* grad_output;  // [C_out, H_out, W_out]
};

// grad_output of a tile and a group, [group_out_channels, kTilePixels], zeros after the last pixel.
template <typename Element>
void LoadGradOutput(const Geometry& g, const Element* grad_output, int64_t group, const Tile& tile,
                    std::vector<float>* to) {
  to->assign(static_cast<size_t>(g.group_out_channels * kTilePixels), 0.0f);
  for (int64_t o = 0; o < g.group_out_channels; ++o) {
    const Element* row =
        grad_output + (group * g.group_out_channels + o) * g.out_pixels + tile.first;
    for (int64_t p = 0; p < tile.size; ++p) {
      (*to)[static_cast<size_t>(o * kTilePixels + p)] = Load(row[p]);
    }
  }
}

}  // namespace aicpu_backend
}  // namespace ms_deform

#endif  // MS_DEFORM_AICPU_STORAGE_H_
