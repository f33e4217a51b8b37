// SPDX-License-Identifier: Apache-2.0
// grad_weight[o, c, t] = sum over images and pixels p of grad_output[o, p] * column[c, t, p]
// A unit of work is an input channel: its columns, and the weights that read it, are its own.
#ifndef MS_DEFORM_AICPU_BACKWARD_WEIGHT_H_
#define MS_DEFORM_AICPU_BACKWARD_WEIGHT_H_

#include <algorithm>
#include <vector>

#include "aicpu/plan.h"
#include "aicpu/product.h"

namespace ms_deform {
namespace aicpu_backend {

template <typename Element>
void BackwardWeight(const Call& call) {
  const Geometry& g = call.geometry;
  ForEach(call, g.in_channels, [&](int64_t channel) {
    const int64_t group = channel / g.group_in_channels;
    TilePoints<Element> points(g);
    std::vector<float> grad_output;
    // Zeros after a tile's last pixel.
    std::vector<float> columns(static_cast<size_t>(g.taps * kTilePixels));
    std::vector<float> sums(static_cast<size_t>(g.group_out_channels * g.taps), 0.0f);
    for (int64_t unit = 0; unit < g.batch * TilesOf(g); ++unit) {
      const GradientImage<Element> image(call, unit / TilesOf(g));
      const Tile tile(g, unit % TilesOf(g));
      points.Locate(image.offset, image.mask, channel / g.offset_group_channels, tile);
      std::fill(columns.begin(), columns.end(), 0.0f);
      FillColumns(g, points, tile, image.input + channel * g.in_pixels, columns.data());
      LoadGradOutput(g, image.grad_output, group, tile, &grad_output);
      for (int64_t o = 0; o < g.group_out_channels; ++o) {
        for (int64_t tap = 0; tap < g.taps; ++tap) {
          sums[static_cast<size_t>(o * g.taps + tap)] +=
              Dot(grad_output.data() + o * kTilePixels, columns.data() + tap * kTilePixels);
        }
      }
    }
    for (int64_t o = 0; o < g.group_out_channels; ++o) {
      const int64_t row = (group * g.group_out_channels + o) * g.group_in_channels;
      StoreAll(sums.data() + o * g.taps, g.taps,
               call.Output<Element>(0) + (row + channel % g.group_in_channels) * g.taps);
    }
  });
}

}  // namespace aicpu_backend
}  // namespace ms_deform

#endif  // MS_DEFORM_AICPU_BACKWARD_WEIGHT_H_
