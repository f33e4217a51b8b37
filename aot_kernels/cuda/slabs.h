// SPDX-License-Identifier: Apache-2.0
// Slabs (common/slab.h) of images, with all channels: filled from MindSpore's layout [N, C, H, W],
// a pass of images at a time, and read back to it.
#ifndef MS_DEFORM_CUDA_SLABS_H_
#define MS_DEFORM_CUDA_SLABS_H_

#include "common/slab.h"
#include "cuda/launch.h"
#include "cuda/plan.h"
#include "cuda/scratch.h"

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

MS_DEFORM_FUNCTION int64_t SquaresAlong(int64_t size) { return CeilDivide(size, kSquare); }

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
  LaunchBlocks(FillSlabsKernel<T>,
               {work, kSquareThreads, sizeof(Square<T>), "copying the input channels last"},
               SlabMove<const T, T>{g, images, image, slab}, stream);
}

// The images of a pass.
template <typename T>
struct Pass {
  int64_t first_image;
  int64_t images;
  const T* slabs;  // [image of the pass, slab pixel, C_in]
  CornerDistances distances;
};

// Where an image's slab begins in those of the pass, for any kind of elements.
template <typename T>
MS_DEFORM_DEVICE int64_t SlabStart(const Geometry& g, const Pass<T>& pass, int64_t image) {
  return (image - pass.first_image) * SlabPixels(g) * g.in_channels;
}

// Bytes of device memory that a call takes beside the tensors: images come in passes of as many as
// fit beside the rest. Only what one image, the packed weights and one share of sums need may be
// more.
constexpr int64_t kScratchBytes = int64_t{64} << 20;

MS_DEFORM_FUNCTION int64_t SlabSize(const Geometry& g) { return SlabPixels(g) * g.in_channels; }

// Of equal passes. element_bytes: that are held for each element of a slab; other_bytes: that are
// held beside slabs.
static inline int64_t ImagesOfPass(const Geometry& g, int64_t element_bytes, int64_t other_bytes) {
  const int64_t image_bytes = Maximum(1, SlabSize(g) * element_bytes);
  const int64_t most = Maximum(1, (kScratchBytes - other_bytes) / image_bytes);
  return CeilDivide(g.batch, Maximum(1, CeilDivide(g.batch, most)));
}

// The slabs of a call's images, which come in passes.
template <typename T>
class ImageSlabs {
 public:
  ImageSlabs(const Geometry& g, int64_t images_of_pass, cudaStream_t stream)
      : g_(g),
        stream_(stream),
        capacity_(images_of_pass),
        slabs_(stream, capacity_ * SlabSize(g) * static_cast<int64_t>(sizeof(T))) {}

  // Calls run(pass) for each pass of the input [N, C_in, H, W].
  template <typename Run>
  void ForEachPass(const void* input, Run run) const {
    for (int64_t first = 0; first < g_.batch; first += capacity_) {
      const Pass<T> pass = {first, Minimum(capacity_, g_.batch - first), slabs_.As<T>(),
                            DistancesOf(g_)};
      FillSlabs(g_, static_cast<const T*>(input) + first * g_.in_channels * g_.in_pixels,
                pass.images, slabs_.As<T>(), stream_);
      run(pass);
    }
  }

 private:
  const Geometry& g_;
  cudaStream_t stream_;
  int64_t capacity_;
  Scratch slabs_;
};

// The gradient of the input, from slabs of sums; Sums says what a sum is, see sums.h.
template <typename T, typename Sums>
struct ReadSums {
  SlabMove<T, const typename Sums::Element> move;
  Sums sums;
};

template <typename T, typename Sums>
MS_DEFORM_KERNEL(kSquareThreads, 1)
ReadSumsKernel(ReadSums<T, Sums> read) {
  auto& square = SharedMemory<Square<Compute<T>>>();
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
        square.values[row][lane] = Compute<T>(read.sums.Read(read.move.slab, index));
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
static void StoreSums(const ReadSums<T, Sums>& read, cudaStream_t stream) {
  const Geometry& g = read.move.g;
  const int64_t work = read.move.images * SquaresAlong(g.in_channels) * SquaresAlong(g.in_pixels);
  LaunchBlocks(ReadSumsKernel<T, Sums>,
               {work, kSquareThreads, sizeof(Square<Compute<T>>), "storing the input's gradient"},
               read, stream);
}

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_SLABS_H_
