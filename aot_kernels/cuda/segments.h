// SPDX-License-Identifier: Apache-2.0
// How the channels of a convolution's groups and its offset groups overlap, and with it the order
// of the steps that a product sums over.
//
// A segment is a run of channels that share a group and an offset group: gcd(C_in / groups, C_in /
// offset_groups) of them. A group's samples are ordered by (segment, tap, channel of the segment):
// a (segment, tap) is a row of the sampling plan, and a row's channels are neighbours in memory.
#ifndef MS_DEFORM_CUDA_SEGMENTS_H_
#define MS_DEFORM_CUDA_SEGMENTS_H_

#include "cuda/plan.h"

namespace ms_deform {
namespace cuda {

struct Segments {
  int32_t channels;  // of a segment
  int32_t of_group;  // segments
  int32_t of_offset_group;
  int32_t rows;  // of the plan, for one group: of_group * taps
};

static inline int64_t GreatestCommonDivisor(int64_t a, int64_t b) {
  return b == 0 ? a : GreatestCommonDivisor(b, a % b);
}

static inline Segments MakeSegments(const Geometry& g) {
  const int64_t channels = GreatestCommonDivisor(g.group_in_channels, g.offset_group_channels);
  const int64_t of_group = g.group_in_channels / channels;
  return {static_cast<int32_t>(channels), static_cast<int32_t>(of_group),
          static_cast<int32_t>(g.offset_group_channels / channels),
          static_cast<int32_t>(of_group * g.taps)};
}

// The first channel of the input that a group's plan row reads.
MS_DEFORM_DEVICE int64_t FirstChannel(const Geometry& g, const Segments& segments, int64_t group,
                                      int32_t row) {
  return group * g.group_in_channels +
         int64_t{row / static_cast<int32_t>(g.taps)} * segments.channels;
}

MS_DEFORM_DEVICE PlanRow MakePlanRow(const Geometry& g, const Segments& segments, int64_t image,
                                     int64_t group, int32_t row) {
  const auto channel = static_cast<int32_t>(FirstChannel(g, segments, group, row));
  return {image, channel / static_cast<int32_t>(g.offset_group_channels),
          row % static_cast<int32_t>(g.taps)};
}

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_SEGMENTS_H_
