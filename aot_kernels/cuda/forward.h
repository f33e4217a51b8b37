// SPDX-License-Identifier: Apache-2.0
// output[n, o, p] = bias[o] + sum over plan rows r and channels c of weight[o, r, c] * sample[p, r,
// c]
//
// A block takes kRows outputs of a group and kColumns pixels of an image. It works out the sampling
// plan of some rows, then steps through their channels: weights and samples go into shared memory
// and are multiplied there.
//
// Device memory beside the tensors: the slabs of a pass of images, in the input's dtype, and the
// packed weights.
#ifndef MS_DEFORM_CUDA_FORWARD_H_
#define MS_DEFORM_CUDA_FORWARD_H_

#include "cuda/layout.h"
#include "cuda/product.h"
#include "cuda/segments.h"

namespace ms_deform {
namespace cuda {

// Rows of the plan held at a time: 16 KB in float, and all nine of a 3x3 kernel in one go.
constexpr int kPlanRows = 16;

// A group's plan rows come in chunks of equal size; the steps of a chunk start with its first row.
// The packed weights [group][output][chunk][row of the chunk, channel, up to whole steps] have
// zeros where a chunk has no more.
struct Chunks {
  int32_t rows;   // of the plan, in a chunk
  int32_t count;  // of a group
  int32_t size;   // of the sum that a chunk takes part in, in whole steps
};

template <typename T>
static inline Chunks MakeChunks(const Segments& segments) {
  const int64_t count = CeilDivide(segments.rows, kPlanRows);
  const int64_t rows = CeilDivide(segments.rows, count);
  return {static_cast<int32_t>(rows), static_cast<int32_t>(count),
          static_cast<int32_t>(CeilDivide(rows * segments.channels, kStep<T>) * kStep<T>)};
}

template <typename T>
struct ForwardPack {
  Geometry g;
  Segments segments;
  Chunks chunks;
  const T* weight;  // [C_out, C_in / groups, taps]
  T* packed;        // [C_out, chunk, size]
};

constexpr int kElementThreads = 256;

template <typename T>
MS_DEFORM_KERNEL(kElementThreads, 1)
PackForwardWeightsKernel(ForwardPack<T> pack) {
  const Geometry& g = pack.g;
  const int64_t taps = g.taps;
  const int64_t width = int64_t{pack.chunks.count} * pack.chunks.size;
  MS_DEFORM_FOR_WORK(work, CeilDivide(g.out_channels * width, kElementThreads)) {
    const int64_t index = work * kElementThreads + threadIdx.x;
    if (index >= g.out_channels * width) {
      continue;
    }
    const int64_t output = index / width;
    const auto at = static_cast<int32_t>(index % width);
    const int32_t in_chunk = at % pack.chunks.size;
    const int32_t row_of_chunk = in_chunk / pack.segments.channels;
    const int32_t row = at / pack.chunks.size * pack.chunks.rows + row_of_chunk;
    T value = T();
    if (row_of_chunk < pack.chunks.rows && row < pack.segments.rows) {
      const int64_t channel =
          row / taps * pack.segments.channels + in_chunk % pack.segments.channels;
      value = pack.weight[(output * g.group_in_channels + channel) * taps + row % taps];
    }
    pack.packed[index] = value;
  }
}

template <typename T>
struct ForwardArguments {
  Geometry g;
  Segments segments;
  Chunks chunks;
  Sampling<T> sampling;
  int64_t first_image;  // of the pass
  int64_t images;
  const T* slabs;   // [image of the pass, slab pixel, C_in]
  const T* packed;  // weights
  const T* bias;    // [C_out] or nullptr
  T* output;        // [N, C_out, H_out, W_out]
};

template <typename T, int kRows>
union ForwardShared {
  struct {
    PlanEntry<Sum<T>> plan[kPlanRows * kColumns];  // [row of the chunk, pixel]
    Stage<T, kRows, Order::kByStep> stages[2];
  } loop;
  Staging<Sum<T>> staging[kThreads<kRows> / kWarp];
};

// What a block works on.
struct ForwardTile {
  int64_t image;  // of the batch
  int64_t group;
  int64_t output;  // of the group
  int32_t pixel;
};

// Outputs of one tile of pixels are neighbours, so that blocks that run together sample the same.
template <int kRows>
MS_DEFORM_FUNCTION int64_t OutputTiles(const Geometry& g) {
  return (g.group_out_channels + kRows - 1) / kRows;
}
MS_DEFORM_FUNCTION int64_t PixelTiles(const Geometry& g) {
  return (g.out_pixels + kColumns - 1) / kColumns;
}

template <int kRows>
MS_DEFORM_DEVICE ForwardTile FindForwardTile(const Geometry& g, int64_t first_image, int64_t work) {
  const int64_t output_tiles = OutputTiles<kRows>(g);
  const int64_t of_pixels = output_tiles * g.groups;
  const int64_t pixel_tiles = PixelTiles(g);
  return {first_image + work / of_pixels / pixel_tiles, work % of_pixels / output_tiles,
          work % output_tiles * kRows,
          static_cast<int32_t>(work / of_pixels % pixel_tiles * kColumns)};
}

// Loads a step: kRows outputs of the packed weights, and the samples of all pixels.
template <typename T, int kRows, int kLanes>
class ForwardLoader {
 public:
  __device__ ForwardLoader(const ForwardArguments<T>& arguments, const ForwardTile& tile,
                           int32_t first_row, const PlanEntry<Sum<T>>* plan)
      : g_(arguments.g),
        segments_(arguments.segments),
        slab_(arguments.slabs +
              (tile.image - arguments.first_image) * SlabPixels(g_) * g_.in_channels),
        group_(tile.group),
        first_row_(first_row),
        first_output_(tile.output),
        samples_(arguments.g, plan) {
    const int64_t width = int64_t{arguments.chunks.count} * arguments.chunks.size;
    const int64_t chunk = first_row / arguments.chunks.rows;
    const int32_t rows_left = segments_.rows - first_row;
    rows_ = rows_left < arguments.chunks.rows ? rows_left : arguments.chunks.rows;
    weights_ = {arguments.packed + tile.group * g_.group_out_channels * width +
                    chunk * arguments.chunks.size,
                width, g_.group_out_channels, arguments.chunks.size, true};
  }

  __device__ void Fetch(int step) {
    weight_loader_.Fetch(weights_, first_output_, int64_t{step} * kStep<T>);
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      const int32_t at = step * kStep<T> + Column(i);
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        FetchSample(i * kParts + part, at + part * kLanes, Pixel(i));
      }
    }
  }

  __device__ void Place(Stage<T, kRows, Order::kByStep>* stage) const {
    weight_loader_.Place(stage->a, kStepPitch<T>);
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      Pack<T, kVector<T>> samples;
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        samples_.Place(i * kParts + part, samples.values + part * kLanes);
      }
      *reinterpret_cast<Pack<T, kVector<T>>*>(stage->b + Pixel(i) * kStepPitch<T> + Column(i)) =
          samples;
    }
  }

 private:
  static constexpr int kVectorsOfRow = kStep<T> / kVector<T>;
  static constexpr int kShare = kColumns * kVectorsOfRow / kThreads<kRows>;
  static constexpr int kParts = kVector<T> / kLanes;

  static __device__ int Pixel(int i) {
    return (static_cast<int>(threadIdx.x) + i * kThreads<kRows>) / kVectorsOfRow;
  }
  static __device__ int Column(int i) {
    return (static_cast<int>(threadIdx.x) + i * kThreads<kRows>) % kVectorsOfRow * kVector<T>;
  }

  // at: within the chunk's part of the sum.
  __device__ void FetchSample(int index, int32_t at, int pixel) {
    const int32_t row = at / segments_.channels;
    const int64_t channel =
        FirstChannel(g_, segments_, group_, first_row_ + row) + at % segments_.channels;
    samples_.Fetch(index, row < rows_ ? row * kColumns + pixel : -1, slab_ + channel);
  }

  const Geometry& g_;
  const Segments& segments_;
  const T* slab_;
  int64_t group_;
  int32_t first_row_;
  int32_t rows_;
  int64_t first_output_;
  Matrix<T> weights_;
  TileLoader<T, kRows, kStep<T>, kThreads<kRows>> weight_loader_;
  SampleRegisters<T, kLanes, kShare * kParts> samples_;
};

// kLanes: channels loaded at once; a segment has a multiple of them.
template <typename T, int kRows, int kLanes>
MS_DEFORM_KERNEL(kThreads<kRows>, (kBlocks<T, kRows, kLanes>))
ForwardKernel(ForwardArguments<T> arguments) {
  auto& shared = SharedMemory<ForwardShared<T, kRows>>();
  const Geometry& g = arguments.g;
  const Segments& segments = arguments.segments;
  const int64_t count = arguments.images * PixelTiles(g) * g.groups * OutputTiles<kRows>(g);
  MS_DEFORM_FOR_WORK(work, count) {
    const ForwardTile tile = FindForwardTile<kRows>(g, arguments.first_image, work);
    WarpProduct<T, Order::kByStep> product;
    product.Clear();
    for (int32_t first = 0; first < segments.rows; first += arguments.chunks.rows) {
      const int32_t left = segments.rows - first;
      const int32_t rows = left < arguments.chunks.rows ? left : arguments.chunks.rows;
      for (int i = threadIdx.x; i < rows * kColumns; i += kThreads<kRows>) {
        const PlanRow row = MakePlanRow(g, segments, tile.image, tile.group, first + i / kColumns);
        shared.loop.plan[i] = MakePlanEntry(g, arguments.sampling, row, tile.pixel + i % kColumns);
      }
      __syncthreads();
      ForwardLoader<T, kRows, kLanes> loader(arguments, tile, first, shared.loop.plan);
      const int steps = (rows * segments.channels + kStep<T> - 1) / kStep<T>;
      MultiplySteps<T, kRows, Order::kByStep>(steps, &loader, shared.loop.stages, &product);
    }
    const int64_t channel = tile.group * g.group_out_channels + tile.output;
    const int64_t rows_left = g.group_out_channels - tile.output;
    VisitSums(product, rows_left < kRows ? static_cast<int>(rows_left) : kRows, shared.staging,
              [&](int row, int column, Sum<T> sum) {
                if (tile.pixel + column < g.out_pixels) {
                  if (arguments.bias != nullptr) {
                    sum += LoadOnDevice(arguments.bias[channel + row]);
                  }
                  const int64_t at = (tile.image * g.out_channels + channel + row) * g.out_pixels;
                  StoreOnDevice(sum, arguments.output + at + tile.pixel + column);
                }
              });
    __syncthreads();
  }
}

template <typename T, int kRows, int kLanes>
static void LaunchForward(const ForwardArguments<T>& arguments, cudaStream_t stream) {
  const Geometry& g = arguments.g;
  LaunchBlocks(ForwardKernel<T, kRows, kLanes>,
               arguments.images * PixelTiles(g) * g.groups * OutputTiles<kRows>(g), kThreads<kRows>,
               sizeof(ForwardShared<T, kRows>), stream, arguments, "forward");
}

template <typename T>
static void RunForward(const ForwardCall& call, cudaStream_t stream) {
  const Geometry& g = call.geometry;
  const Segments segments = MakeSegments(g);
  const Chunks chunks = MakeChunks<T>(segments);
  const int64_t packed_size = g.out_channels * chunks.count * chunks.size;
  const int64_t slab_size = SlabPixels(g) * g.in_channels;
  const int64_t images = ImagesOfPass(g.batch, slab_size * static_cast<int64_t>(sizeof(T)));
  const Scratch packed(stream, packed_size * static_cast<int64_t>(sizeof(T)));
  const Scratch slabs(stream, images * slab_size * static_cast<int64_t>(sizeof(T)));
  LaunchBlocks(PackForwardWeightsKernel<T>, CeilDivide(packed_size, kElementThreads),
               kElementThreads, 0, stream,
               ForwardPack<T>{g, segments, chunks, static_cast<const T*>(call.inputs.weight),
                              packed.As<T>()},
               "packing the weights");
  ForwardArguments<T> arguments = {g,
                                   segments,
                                   chunks,
                                   SamplingOf<T>(g, call.inputs),
                                   0,
                                   0,
                                   slabs.As<T>(),
                                   packed.As<T>(),
                                   g.use_bias ? static_cast<const T*>(call.bias) : nullptr,
                                   static_cast<T*>(call.output)};
  for (int64_t first = 0; first < g.batch; first += images) {
    arguments.first_image = first;
    arguments.images = images < g.batch - first ? images : g.batch - first;
    FillSlabs(g, static_cast<const T*>(call.inputs.input) + first * g.in_channels * g.in_pixels,
              arguments.images, slabs.As<T>(), stream);
    if (segments.channels % kVector<T> != 0) {
      LaunchForward<T, 64, 1>(arguments, stream);
    } else if (g.group_out_channels > 64) {
      LaunchForward<T, 128, kVector<T>>(arguments, stream);
    } else {
      LaunchForward<T, 64, kVector<T>>(arguments, stream);
    }
  }
}

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_FORWARD_H_
