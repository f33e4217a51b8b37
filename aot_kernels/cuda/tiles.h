// SPDX-License-Identifier: Apache-2.0
// How a call's work is cut into the tiles of blocks.
#ifndef MS_DEFORM_CUDA_TILES_H_
#define MS_DEFORM_CUDA_TILES_H_

#include "common/geometry.h"
#include "cuda/device_info.h"
#include "cuda/product.h"

namespace ms_deform {
namespace cuda {

// A block's tile has kRows rows of sums; its samples are loaded kLanes channels at a time.
template <int kTileRows, int kTileLanes>
struct TileShape {
  static constexpr int kRows = kTileRows;
  static constexpr int kLanes = kTileLanes;
};

// What the tallest tiles take with their plan; GPUs of compute capability 7.5 give a block less.
constexpr int64_t kSharedOfTallest = int64_t{82} << 10;

// Calls visit(TileShape) for a product of `rows` rows, in tiles of kMostRows at the most, that
// samples segments of so many channels: vectors of channels must not cross a segment's end, and the
// taller a tile, the fewer samples it reads a sum, which pays where its rows are used. The tallest
// is for the halves, whose products by the matrix unit take less time than their samples.
template <typename T, int kMostRows, typename Visitor>
static void WithTileShape(int64_t rows, int32_t segment_channels, Visitor visit) {
  constexpr int kTallest = sizeof(T) == 2 ? kMostRows : Minimum(kMostRows, 128);
  const bool fills_tallest = CeilDivide(rows, 128) % 2 == 0;
  if (segment_channels % kVector<T> != 0) {
    visit(TileShape<64, 1>());
  } else if (kTallest > 128 && fills_tallest && SharedMemoryOfBlock() >= kSharedOfTallest) {
    visit(TileShape<kTallest, kVector<T>>());
  } else if (rows > 64) {
    visit(TileShape<128, kVector<T>>());
  } else {
    visit(TileShape<64, kVector<T>>());
  }
}

// Tiles along the outputs of a group, the pixels of an image, and the (tap, channel) pairs of a
// group.
template <int kRows>
MS_DEFORM_FUNCTION int64_t OutputTiles(const Geometry& g) {
  return CeilDivide(g.group_out_channels, kRows);
}
MS_DEFORM_FUNCTION int64_t PixelTiles(const Geometry& g) {
  return CeilDivide(g.out_pixels, kColumns);
}
MS_DEFORM_FUNCTION int64_t GroupColumns(const Geometry& g) { return g.group_in_channels * g.taps; }
MS_DEFORM_FUNCTION int64_t ColumnTiles(const Geometry& g) {
  return CeilDivide(GroupColumns(g), kColumns);
}

// Takes the last digit, of the given base, off a number: a piece of work is numbered through by
// such digits.
MS_DEFORM_DEVICE int64_t TakeDigit(int64_t base, int64_t* number) {
  const int64_t digit = *number % base;
  *number /= base;
  return digit;
}

// The gradient of the output, [N, C_out, H_out, W_out].
template <typename T>
struct GradOutput {
  const T* data;
  bool aligned;  // every channel is 16-byte aligned
};

template <typename T>
static inline GradOutput<T> GradOutputOf(const Geometry& g, const void* data) {
  return {static_cast<const T*>(data),
          g.out_pixels % kVector<T> == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0};
}

// The outputs of a group in one image: [output, pixel].
template <typename T>
MS_DEFORM_DEVICE Matrix<T> MatrixOf(const Geometry& g, const GradOutput<T>& grad_output,
                                    int64_t image, int64_t group) {
  const int64_t first = image * g.out_channels + group * g.group_out_channels;
  return {grad_output.data + first * g.out_pixels, g.out_pixels,
          static_cast<int32_t>(g.group_out_channels), static_cast<int32_t>(g.out_pixels),
          grad_output.aligned};
}

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_TILES_H_
