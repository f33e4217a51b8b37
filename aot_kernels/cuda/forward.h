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

#include "cuda/segments.h"
#include "cuda/slabs.h"
#include "cuda/tiles.h"

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

template <typename T>
MS_DEFORM_KERNEL(kElementThreads, 1)
PackForwardWeightsKernel(ForwardPack<T> pack) {
  const Geometry& g = pack.g;
  const int64_t taps = g.taps;
  const int64_t width = int64_t{pack.chunks.count} * pack.chunks.size;
  MS_DEFORM_FOR_ELEMENTS(index, g.out_channels * width) {
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
  Pass<T> pass;
  const T* packed;  // weights
  const T* bias;    // [C_out] or nullptr
  T* output;        // [N, C_out, H_out, W_out]
};

template <typename T, int kRows>
union ForwardShared {
  struct {
    PlanEntry<Compute<T>> plan[kPlanRows * kColumns];  // [row of the chunk, pixel]
    Stage<T, kRows, Order::kByStep> stages[2];
  } loop;
  Staging<Compute<T>> staging[kThreads<kRows> / kWarp];
};

// What a block works on.
struct ForwardTile {
  int64_t image;  // of the batch
  int64_t group;
  int64_t output;  // of the group
  int32_t pixel;
};

template <int kRows, typename T>
MS_DEFORM_FUNCTION int64_t ForwardTiles(const Geometry& g, const Pass<T>& pass) {
  return pass.images * PixelTiles(g) * g.groups * OutputTiles<kRows>(g);
}

// Outputs of one tile of pixels are neighbours, so that blocks that run together sample the same.
template <int kRows>
MS_DEFORM_DEVICE ForwardTile FindForwardTile(const Geometry& g, int64_t first_image, int64_t work) {
  ForwardTile tile;
  tile.output = TakeDigit(OutputTiles<kRows>(g), &work) * kRows;
  tile.group = TakeDigit(g.groups, &work);
  tile.pixel = static_cast<int32_t>(TakeDigit(PixelTiles(g), &work) * kColumns);
  tile.image = first_image + work;
  return tile;
}

// Loads a step: kRows outputs of the packed weights, and the samples of all pixels.
template <typename T, int kRows, int kLanes>
class ForwardLoader {
 public:
  __device__ ForwardLoader(const ForwardArguments<T>& arguments, const ForwardTile& tile,
                           int32_t first_row, const PlanEntry<Compute<T>>* plan)
      : g_(arguments.g),
        segments_(arguments.segments),
        slab_(arguments.pass.slabs + SlabStart(g_, arguments.pass, tile.image)),
        group_(tile.group),
        first_row_(first_row),
        rows_(LeftOf(segments_.rows, first_row, arguments.chunks.rows)),
        first_output_(tile.output),
        samples_(arguments.g, plan) {
    const int64_t width = int64_t{arguments.chunks.count} * arguments.chunks.size;
    const int64_t chunk = first_row / arguments.chunks.rows;
    weights_ = {arguments.packed + tile.group * g_.group_out_channels * width +
                    chunk * arguments.chunks.size,
                width, g_.group_out_channels, arguments.chunks.size, true};
  }

  __device__ void Fetch(int step) {
    weight_loader_.Fetch(weights_, first_output_, int64_t{step} * kStep<T>);
    samples_.Fetch([&](int pixel, int column) { return Find(pixel, step * kStep<T> + column); });
  }

  __device__ void Place(Stage<T, kRows, Order::kByStep>* stage) const {
    weight_loader_.Place(stage->a, kStepPitch<T>);
    samples_.Place(stage->b, kStepPitch<T>);
  }

 private:
  // at: within the chunk's part of the sum.
  __device__ SampleAt<T> Find(int pixel, int32_t at) const {
    const int32_t row = at / segments_.channels;
    const int64_t channel =
        FirstChannel(g_, segments_, group_, first_row_ + row) + at % segments_.channels;
    return {row < rows_ ? row * kColumns + pixel : -1, slab_ + channel};
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
  SampleLoader<T, kColumns, kStep<T>, kThreads<kRows>, kLanes> samples_;
};

// kLanes: channels loaded at once; a segment has a multiple of them.
template <typename T, int kRows, int kLanes>
MS_DEFORM_KERNEL(kThreads<kRows>, (kBlocks<T, kRows, kLanes>))
ForwardKernel(ForwardArguments<T> arguments) {
  auto& shared = SharedMemory<ForwardShared<T, kRows>>();
  const Geometry& g = arguments.g;
  const Segments& segments = arguments.segments;
  MS_DEFORM_FOR_WORK(work, ForwardTiles<kRows>(g, arguments.pass)) {
    const ForwardTile tile = FindForwardTile<kRows>(g, arguments.pass.first_image, work);
    WarpProduct<T, Order::kByStep> product;
    product.Clear();
    for (int32_t first = 0; first < segments.rows; first += arguments.chunks.rows) {
      const int rows = LeftOf(segments.rows, first, arguments.chunks.rows);
      for (int i = threadIdx.x; i < rows * kColumns; i += kThreads<kRows>) {
        const PlanRow row = MakePlanRow(g, segments, tile.image, tile.group, first + i / kColumns);
        shared.loop.plan[i] = MakePlanEntry(g, arguments.sampling, row, tile.pixel + i % kColumns);
      }
      __syncthreads();
      ForwardLoader<T, kRows, kLanes> loader(arguments, tile, first, shared.loop.plan);
      const auto steps = static_cast<int>(CeilDivide(rows * segments.channels, kStep<T>));
      MultiplySteps<T, kRows, Order::kByStep>(steps, &loader, shared.loop.stages, &product);
    }
    const int64_t channel = tile.group * g.group_out_channels + tile.output;
    VisitSums(product, LeftOf(g.group_out_channels, tile.output, kRows), shared.staging,
              [&](int row, int column, Compute<T> sum) {
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

template <typename T>
static void RunForward(const ForwardCall& call, cudaStream_t stream) {
  const Geometry& g = call.geometry;
  const Segments segments = MakeSegments(g);
  const Chunks chunks = MakeChunks<T>(segments);
  const int64_t packed_size = g.out_channels * chunks.count * chunks.size;
  const Scratch packed(stream, packed_size * static_cast<int64_t>(sizeof(T)));
  const ImageSlabs<T> slabs(g, 0, stream);
  LaunchElements(PackForwardWeightsKernel<T>, packed_size, "packing the weights",
                 ForwardPack<T>{g, segments, chunks, static_cast<const T*>(call.inputs.weight),
                                packed.As<T>()},
                 stream);
  ForwardArguments<T> arguments;
  arguments.g = g;
  arguments.segments = segments;
  arguments.chunks = chunks;
  arguments.sampling = SamplingOf<T>(g, call.inputs);
  arguments.packed = packed.As<T>();
  arguments.bias = g.use_bias ? static_cast<const T*>(call.bias) : nullptr;
  arguments.output = static_cast<T*>(call.output);
  slabs.ForEachPass(call.inputs.input, [&](const Pass<T>& pass) {
    arguments.pass = pass;
    WithTileShape<T>(g.group_out_channels, segments.channels, [&](auto shape) {
      constexpr int kRows = decltype(shape)::kRows;
      LaunchBlocks(ForwardKernel<T, kRows, decltype(shape)::kLanes>,
                   {ForwardTiles<kRows>(g, pass), kThreads<kRows>, sizeof(ForwardShared<T, kRows>),
                    "forward"},
                   arguments, stream);
    });
  });
}

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_FORWARD_H_
