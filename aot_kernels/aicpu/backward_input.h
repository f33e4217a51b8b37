// SPDX-License-Identifier: Apache-2.0
// Gradients of input, offset and mask. With grad_column[c, t, p] = sum over outputs o of c's group
// of weight[o, c, t] * grad_output[o, p], and each sample's corner weights and slopes:
//   grad_mask   = sum_c grad_column[c] * sample[c]
//   grad_offset = mask * sum_c grad_column[c] * slope of sample[c]
//   grad_input[corner i, c] += mask * corner weight[i] * grad_column[c]
// The first two are sums over channels, with a tile of one image as the unit of work; the third is
// a scatter over pixels, with a channel of one image. grad_columns are computed for both: that
// costs a second product, and spares every core an image of its own and their sum.
#ifndef MS_DEFORM_AICPU_BACKWARD_INPUT_H_
#define MS_DEFORM_AICPU_BACKWARD_INPUT_H_

#include "aicpu/plan.h"
#include "aicpu/product.h"

namespace ms_deform {
namespace aicpu_backend {

// grad_column[tap, p] of one channel.
inline void FillGradColumns(const Geometry& g, const std::vector<float>& weight, int64_t channel,
                            const std::vector<float>& grad_output, std::vector<float>* columns) {
  columns->assign(static_cast<size_t>(g.taps * kTilePixels), 0.0f);
  const int64_t group = channel / g.group_in_channels;
  const int64_t terms = g.group_in_channels * g.taps;
  const float* first =
      weight.data() + group * g.group_out_channels * terms + channel % g.group_in_channels * g.taps;
  Multiply({first, 1, terms}, g.taps, g.group_out_channels, grad_output.data(), columns->data());
}

template <typename Element>
class BackwardInput {
 public:
  explicit BackwardInput(const Call& call)
      : call_(call),
        g_(call.geometry),
        weight_(Loaded(call.Input<Element>(kWeight),
                       g_.out_channels * g_.group_in_channels * g_.taps)) {}

  void Run() const {
    if (!g_.use_mask) {
      Store(0.0f, call_.Output<Element>(2));
    }
    ForEach(call_, g_.batch * TilesOf(g_), [this](int64_t unit) {
      OffsetAndMask(unit / TilesOf(g_), Tile(g_, unit % TilesOf(g_)));
    });
    ForEach(call_, g_.batch * g_.in_channels,
            [this](int64_t unit) { Input(unit / g_.in_channels, unit % g_.in_channels); });
  }

 private:
  // The gradients of a sample, before the mask.
  struct Sums {
    float y = 0;
    float x = 0;
    float mask = 0;
  };

  void OffsetAndMask(int64_t image_index, const Tile& tile) const {
    const GradientImage<Element> image(call_, image_index);
    TilePoints<Element> points(g_);
    std::vector<Sums> sums;
    std::vector<float> grad_output, columns;
    int64_t loaded = -1;
    for (int64_t offset_group = 0; offset_group < g_.offset_groups; ++offset_group) {
      points.Locate(image.offset, image.mask, offset_group, tile);
      sums.assign(static_cast<size_t>(g_.taps * kTilePixels), Sums());
      for (int64_t c = 0; c < g_.offset_group_channels; ++c) {
        const int64_t channel = offset_group * g_.offset_group_channels + c;
        const int64_t group = channel / g_.group_in_channels;
        if (group != loaded) {
          LoadGradOutput(g_, image.grad_output, group, tile, &grad_output);
          loaded = group;
        }
        FillGradColumns(g_, weight_, channel, grad_output, &columns);
        AddChannel(points, tile, image.input + channel * g_.in_pixels, columns, &sums);
      }
      StoreSums(image, offset_group, points, tile, sums);
    }
  }

  void AddChannel(const TilePoints<Element>& points, const Tile& tile, const Element* plane,
                  const std::vector<float>& columns, std::vector<Sums>* sums) const {
    for (int64_t tap = 0; tap < g_.taps; ++tap) {
      for (int64_t p = 0; p < tile.size; ++p) {
        const Point& point = points.point(tap, p);
        float values[kCorners];
        CornerValues(g_, plane, point, values);
        float slope_y, slope_x;
        SampleSlopes(point.fraction_y, point.fraction_x, values, &slope_y, &slope_x);
        const size_t index = static_cast<size_t>(tap * kTilePixels + p);
        Sums& sum = (*sums)[index];
        sum.y += columns[index] * slope_y;
        sum.x += columns[index] * slope_x;
        sum.mask += columns[index] * Interpolate(point, values);
      }
    }
  }

  void StoreSums(const GradientImage<Element>& image, int64_t offset_group,
                 const TilePoints<Element>& points, const Tile& tile,
                 const std::vector<Sums>& sums) const {
    Element* grad_offset = call_.Output<Element>(1) + 2 * image.first_sample;
    Element* grad_mask = call_.Output<Element>(2);
    for (int64_t tap = 0; tap < g_.taps; ++tap) {
      const int64_t sample = offset_group * g_.taps + tap;
      for (int64_t p = 0; p < tile.size; ++p) {
        const Sums& sum = sums[static_cast<size_t>(tap * kTilePixels + p)];
        const int64_t pixel = tile.first + p;
        const float mask = points.mask(tap, p);
        Store(mask * sum.y, grad_offset + 2 * sample * g_.out_pixels + pixel);
        Store(mask * sum.x, grad_offset + (2 * sample + 1) * g_.out_pixels + pixel);
        if (g_.use_mask) {
          Store(sum.mask, grad_mask + image.first_sample + sample * g_.out_pixels + pixel);
        }
      }
    }
  }

  void Input(int64_t image_index, int64_t channel) const {
    const GradientImage<Element> image(call_, image_index);
    TilePoints<Element> points(g_);
    std::vector<float> grad_output, columns;
    std::vector<float> plane(static_cast<size_t>(g_.in_pixels), 0.0f);
    for (int64_t index = 0; index < TilesOf(g_); ++index) {
      const Tile tile(g_, index);
      points.Locate(image.offset, image.mask, channel / g_.offset_group_channels, tile);
      LoadGradOutput(g_, image.grad_output, channel / g_.group_in_channels, tile, &grad_output);
      FillGradColumns(g_, weight_, channel, grad_output, &columns);
      Scatter(points, tile, columns, &plane);
    }
    StoreAll(plane.data(), g_.in_pixels,
             call_.Output<Element>(0) + (image_index * g_.in_channels + channel) * g_.in_pixels);
  }

  void Scatter(const TilePoints<Element>& points, const Tile& tile,
               const std::vector<float>& columns, std::vector<float>* plane) const {
    for (int64_t tap = 0; tap < g_.taps; ++tap) {
      for (int64_t p = 0; p < tile.size; ++p) {
        const Point& point = points.point(tap, p);
        if (!point.inside) {
          continue;
        }
        const float value =
            points.mask(tap, p) * columns[static_cast<size_t>(tap * kTilePixels + p)];
        int64_t corners[kCorners];
        float weights[kCorners];
        CornersOf(g_, point, corners);
        CornerWeights(point.fraction_y, point.fraction_x, weights);
        for (int i = 0; i < kCorners; ++i) {
          if (corners[i] >= 0) {
            (*plane)[static_cast<size_t>(corners[i])] += weights[i] * value;
          }
        }
      }
    }
  }

  const Call& call_;
  const Geometry& g_;
  const std::vector<float> weight_;
};

}  // namespace aicpu_backend
}  // namespace ms_deform

#endif  // MS_DEFORM_AICPU_BACKWARD_INPUT_H_
