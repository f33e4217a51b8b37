// SPDX-License-Identifier: Apache-2.0
// Moves images between MindSpore's layout [N, C, H, W] and slabs (common/slab.h) of all channels,
// and sums up what the gradients scatter there.
#ifndef MS_DEFORM_CUDA_LAYOUT_H_
#define MS_DEFORM_CUDA_LAYOUT_H_

#include "cuda/plan.h"
#include "cuda/stream.h"

namespace ms_deform {
namespace cuda {

// A square of pixels x channels turns in shared memory; a block of 32 x 8 threads moves it.
constexpr int kSquare = 32;
constexpr int kSquareRows = 8;
constexpr int kSquareThreads = kSquare * kSquareRows;

template <typename Element>
struct Square {
  Element values[kSquare][kSquare + 1];  // a column more: neighbours of a column in other banks
};

// Images [image, C_in, H, W] of a pass and their slabs [image, slab pixel, C_in].
template <typename Image, typename Slab>
struct SlabMove {
  Geometry g;
  int64_t images;
  Image* image;
  Slab* slab;
};

// A square of some image: channels from `channel`, pixels from `pixel`.
struct SquareOfImage {
  int64_t image;
  int32_t channel;
  int32_t pixel;
};

MS_DEFORM_FUNCTION int64_t SquaresAlong(int64_t size) { return (size + kSquare - 1) / kSquare; }

MS_DEFORM_DEVICE SquareOfImage FindSquare(int64_t work, int64_t channels, int64_t pixels) {
  const int64_t across = SquaresAlong(channels);
  const int64_t along = SquaresAlong(pixels);
  return {work / (across * along), static_cast<int32_t>(work % across * kSquare),
          static_cast<int32_t>(work / across % along * kSquare)};
}

template <typename T>
MS_DEFORM_KERNEL(kSquareThreads, 1)
FillSlabsKernel(SlabMove<const T, T> move) {
  auto& square = SharedMemory<Square<T>>();
  const Geometry& g = move.g;
  const int64_t pixels = SlabPixels(g);
  const int64_t width = SlabWidth(g);
  const int64_t count = move.images * SquaresAlong(g.in_channels) * SquaresAlong(pixels);
  const int lane = threadIdx.x % kSquare;
  MS_DEFORM_FOR_WORK(work, count) {
    const SquareOfImage at = FindSquare(work, g.in_channels, pixels);
    const int64_t y = (at.pixel + lane) / width - 1;
    const int64_t x = (at.pixel + lane) % width - 1;
    const bool in_image = y >= 0 && y < g.in_height && x >= 0;
    for (int row = threadIdx.x / kSquare; row < kSquare; row += kSquareRows) {
      T value = T();
      if (in_image && at.channel + row < g.in_channels) {
        value = move.image[(at.image * g.in_channels + at.channel + row) * g.in_pixels +
                           y * g.in_width + x];
      }
      square.values[row][lane] = value;
    }
    __syncthreads();
    for (int row = threadIdx.x / kSquare; row < kSquare; row += kSquareRows) {
      if (at.pixel + row < pixels && at.channel + lane < g.in_channels) {
        move.slab[(at.image * pixels + at.pixel + row) * g.in_channels + at.channel + lane] =
            square.values[lane][row];
      }
    }
    __syncthreads();
  }
}

template <typename T>
static void FillSlabs(const Geometry& g, const T* image, int64_t images, T* slab,
                      cudaStream_t stream) {
  const int64_t work = images * SquaresAlong(g.in_channels) * SquaresAlong(SlabPixels(g));
  LaunchBlocks(FillSlabsKernel<T>, work, kSquareThreads, sizeof(Square<T>), stream,
               SlabMove<const T, T>{g, images, image, slab}, "copying the input channels last");
}

// The gradient of the input, from slabs of sums; Sums says what a sum is, see sums.h.
template <typename T, typename Sums>
struct ReadSums {
  SlabMove<T, const typename Sums::Element> move;
  Sums sums;
};

template <typename T, typename Sums>
MS_DEFORM_KERNEL(kSquareThreads, 1)
ReadSumsKernel(ReadSums<T, Sums> read) {
  auto& square = SharedMemory<Square<Sum<T>>>();
  const Geometry& g = read.move.g;
  const int64_t slab_pixels = SlabPixels(g);
  const int64_t count = read.move.images * SquaresAlong(g.in_channels) * SquaresAlong(g.in_pixels);
  const int lane = threadIdx.x % kSquare;
  MS_DEFORM_FOR_WORK(work, count) {
    const SquareOfImage at = FindSquare(work, g.in_channels, g.in_pixels);
    for (int row = threadIdx.x / kSquare; row < kSquare; row += kSquareRows) {
      const int64_t pixel = at.pixel + row;
      if (pixel < g.in_pixels && at.channel + lane < g.in_channels) {
        const int64_t slab_pixel = SlabPixel(g, pixel / g.in_width, pixel % g.in_width);
        const int64_t index =
            (at.image * slab_pixels + slab_pixel) * g.in_channels + at.channel + lane;
        square.values[row][lane] = Sum<T>(read.sums.Read(read.move.slab, index));
      }
    }
    __syncthreads();
    for (int row = threadIdx.x / kSquare; row < kSquare; row += kSquareRows) {
      if (at.channel + row < g.in_channels && at.pixel + lane < g.in_pixels) {
        const int64_t channel = at.image * g.in_channels + at.channel + row;
        StoreOnDevice(square.values[lane][row],
                      read.move.image + channel * g.in_pixels + at.pixel + lane);
      }
    }
    __syncthreads();
  }
}

template <typename T, typename Sums>
static void StoreSums(const Geometry& g, const Sums& sums, const typename Sums::Element* slab,
                      int64_t images, T* image, cudaStream_t stream) {
  const int64_t work = images * SquaresAlong(g.in_channels) * SquaresAlong(g.in_pixels);
  LaunchBlocks(ReadSumsKernel<T, Sums>, work, kSquareThreads, sizeof(Square<Sum<T>>), stream,
               ReadSums<T, Sums>{{g, images, image, slab}, sums}, "storing the input's gradient");
}

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_LAYOUT_H_
