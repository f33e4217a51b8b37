// SPDX-License-Identifier: Apache-2.0
// output[o, p] = bias[o] + sum over channels c of o's group and taps t of
//                weight[o, c, t] * mask[t, p] * sample[c, t, p]
// A unit of work is a tile of one image.
#ifndef MS_DEFORM_AICPU_FORWARD_H_
#define MS_DEFORM_AICPU_FORWARD_H_

#include <algorithm>
#include <vector>

#include "aicpu/plan.h"
#include "aicpu/product.h"

namespace ms_deform {
namespace aicpu_backend {

template <typename Element>
void Forward(const Call& call) {
  const Geometry& g = call.geometry;
  const int64_t terms = g.group_in_channels * g.taps;
  const std::vector<float> weight = Loaded(call.Input<Element>(kWeight), g.out_channels * terms);
  ForEach(call, g.batch * TilesOf(g), [&](int64_t unit) {
    const int64_t image = unit / TilesOf(g);
    const Tile tile(g, unit % TilesOf(g));
    const Element* input = call.Input<Element>(kInput) + image * g.in_channels * g.in_pixels;
    const int64_t samples = g.offset_groups * g.taps * g.out_pixels;
    const Element* offset = call.Input<Element>(kOffset) + 2 * image * samples;
    const Element* mask = call.Input<Element>(kMask) + (g.use_mask ? image * samples : 0);
    Element* output = call.Output<Element>(0) + image * g.out_channels * g.out_pixels + tile.first;
    TilePoints<Element> points(g);
    int64_t located = -1;
    std::vector<float> columns(static_cast<size_t>(terms * kTilePixels));
    std::vector<float> sums(static_cast<size_t>(g.group_out_channels * kTilePixels));
    for (int64_t group = 0; group < g.groups; ++group) {
      for (int64_t c = 0; c < g.group_in_channels; ++c) {
        const int64_t channel = group * g.group_in_channels + c;
        const int64_t offset_group = channel / g.offset_group_channels;
        if (offset_group != located) {
          points.Locate(offset, mask, offset_group, tile);
          located = offset_group;
        }
        FillColumns(g, points, tile, input + channel * g.in_pixels,
                    columns.data() + c * g.taps * kTilePixels);
      }
      std::fill(sums.begin(), sums.end(), 0.0f);
      const int64_t first = group * g.group_out_channels;
      Multiply({weight.data() + first * terms, terms, 1}, g.group_out_channels, terms,
               columns.data(), sums.data());
      for (int64_t o = 0; o < g.group_out_channels; ++o) {
        const float bias = g.use_bias ? Load(call.Input<Element>(kBias)[first + o]) : 0.0f;
        float* row = sums.data() + o * kTilePixels;
        std::for_each(row, row + tile.size, [bias](float& sum) { sum += bias; });
        StoreAll(row, tile.size, output + (first + o) * g.out_pixels);
      }
    }
  });
}

}  // namespace aicpu_backend
}  // namespace ms_deform

#endif  // MS_DEFORM_AICPU_FORWARD_H_
