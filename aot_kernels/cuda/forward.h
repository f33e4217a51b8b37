// SPDX-License-Identifier: Apache-2.0
// output[n, o, p] = bias[o] + sum over plan rows r and channels c of weight[o, r, c] * sample[p, r,
// c]
//
// A block takes kRows outputs of a group and kColumns pixels of an image. It works out the sampling
// plan of some rows, then steps through their channels: weights and samples go into shared memory
// and are multiplied there. Where such tiles are too few for the GPU, a block takes a share of the
// rows, and the shares' sums are added up in a fixed order.
//
// Device memory beside the tensors: the slabs of a pass of images, in the input's dtype, the packed
// weights, and the sums of the shares, if there are more than one.
#ifndef MS_DEFORM_CUDA_FORWARD_H_
#define MS_DEFORM_CUDA_FORWARD_H_

#include "cuda/device_info.h"
#include "cuda/segments.h"
#include "cuda/slabs.h"
#include "cuda/tiles.h"

namespace ms_deform {
namespace cuda {

// Rows of the plan held at a time: 16 KB in float, and all nine of a 3x3 kernel in one go.
constexpr int kPlanRows = 16;

// A group's plan rows come in chunks of equal size, and a share has some of them; the steps of a
// chunk start with its first row. The packed weights [group][output][chunk][row of the chunk,
// channel, up to whole steps] have zeros where a chunk has no more.
struct Chunks {
  int32_t rows;    // of the plan, in a chunk
  int32_t count;   // of a group
  int32_t size;    // of the sum that a chunk takes part in, in whole steps
  int32_t shares;  // of a group
};

// shares: that are wanted.
template <typename T>
static inline Chunks MakeChunks(const Segments& segments, int64_t shares) {
  const int64_t count = Maximum(CeilDivide(segments.rows, kPlanRows), shares);
  const int64_t rows = CeilDivide(segments.rows, count);
  const int64_t of_group = CeilDivide(segments.rows, rows);
  return {static_cast<int32_t>(rows), static_cast<int32_t>(of_group),
          static_cast<int32_t>(RoundUp(rows * segments.channels, kStep<T>)),
          static_cast<int32_t>(Minimum(shares, of_group))};
}

// Of an output's packed weights.
MS_DEFORM_FUNCTION int64_t PackedWidth(const Chunks& chunks) {
  return int64_t{chunks.count} * chunks.size;
}

// A place in the order of a group's samples, or a distance.
struct SamplePlace {
  int32_t row;      // of the plan
  int32_t tap;      // of the row
  int32_t segment;  // the first channel of the row's segment
  int32_t channel;  // of the segment
};

MS_DEFORM_FUNCTION SamplePlace DistanceOf(const Geometry& g, const Segments& segments,
                                          int32_t samples) {
  const auto taps = static_cast<int32_t>(g.taps);
  const int32_t rows = samples / segments.channels;
  return {rows, rows % taps, rows / taps * segments.channels, samples % segments.channels};
}

// Adds up digit by digit: the divisions are made once, for the distance.
MS_DEFORM_DEVICE SamplePlace After(const Geometry& g, const Segments& segments,
                                   const SamplePlace& place, const SamplePlace& distance) {
  const auto taps = static_cast<int32_t>(g.taps);
  const int32_t channel = place.channel + distance.channel;
  const int32_t carry = channel >= segments.channels ? 1 : 0;
  const int32_t tap = place.tap + distance.tap + carry;
  const int32_t carried = tap >= taps ? 1 : 0;
  return {place.row + distance.row + carry, tap - carried * taps,
          place.segment + distance.segment + carried * segments.channels,
          channel - carry * segments.channels};
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
  const int64_t width = PackedWidth(pack.chunks);
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
  SamplePlace step;  // DistanceOf a step
  Sampling<T> sampling;
  Pass<T> pass;
  const T* packed;   // weights
  const T* bias;     // [C_out] or nullptr
  T* output;         // [N, C_out, H_out, W_out]
  Compute<T>* sums;  // [share, image of the pass, C_out, out_pixels], nullptr for one share
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
  int32_t share;
};

template <int kRows>
MS_DEFORM_FUNCTION int64_t ForwardTiles(const Geometry& g, int64_t images) {
  return images * PixelTiles(g) * g.groups * OutputTiles<kRows>(g);
}

// Outputs of one tile of pixels are neighbours, so that blocks that run together sample the same.
template <int kRows, typename T>
MS_DEFORM_DEVICE ForwardTile FindForwardTile(const Geometry& g, const Pass<T>& pass, int64_t work) {
  ForwardTile tile;
  tile.output = TakeDigit(OutputTiles<kRows>(g), &work) * kRows;
  tile.group = TakeDigit(g.groups, &work);
  tile.pixel = static_cast<int32_t>(TakeDigit(PixelTiles(g), &work) * kColumns);
  tile.image = pass.first_image + TakeDigit(pass.images, &work);
  tile.share = static_cast<int32_t>(work);
  return tile;
}

// Loads a step: kRows outputs of the packed weights, and the samples of all pixels.
template <typename T, int kRows, int kLanes>
class ForwardLoader {
 public:
  __device__ ForwardLoader(const ForwardArguments<T>& arguments, const ForwardTile& tile,
                           int32_t first_row, const PlanEntry<Compute<T>>* plan)
      : arguments_(arguments),
        rows_(LeftOf(arguments.segments.rows, first_row, arguments.chunks.rows)),
        slab_(arguments.pass.slabs + SlabStart(arguments.g, arguments.pass, tile.image) +
              FirstChannel(arguments.g, arguments.segments, tile.group, first_row)),
        weights_(static_cast<int32_t>(arguments.g.group_out_channels - tile.output),
                 [&](int32_t row) {
                   return FirstWeight(arguments, tile, first_row) +
                          row * PackedWidth(arguments.chunks);
                 }),
        samples_(arguments.pass.distances, plan) {
    const Geometry& g = arguments.g;
    const SamplePlace first = {0, first_row % static_cast<int32_t>(g.taps), 0, 0};
#pragma unroll
    for (int part = 0; part < Samples::kParts; ++part) {
      const int32_t column = Samples::Share::Column() + part * kLanes;
      at_[part] = After(g, arguments.segments, first, DistanceOf(g, arguments.segments, column));
    }
  }

  __device__ void Fetch() {
    weights_.Fetch();
#pragma unroll
    for (int part = 0; part < Samples::kParts; ++part) {
      const SamplePlace& at = at_[part];
#pragma unroll
      for (int i = 0; i < Samples::Share::kCount; ++i) {
        const int32_t entry = at.row * kColumns + Samples::Share::Row(i);
        samples_.Fetch(i, part, at.row < rows_ ? entry : -1, slab_ + at.segment + at.channel);
      }
      at_[part] = After(arguments_.g, arguments_.segments, at, arguments_.step);
    }
  }

  __device__ void Place(Stage<T, kRows, Order::kByStep>* stage) const {
    weights_.Place(stage->a, kStepPitch<T>);
    samples_.Place(stage->b, kStepPitch<T>);
  }

 private:
  using Samples = SampleLoader<T, kColumns, kStep<T>, kThreads<kRows>, kLanes>;

  static __device__ const T* FirstWeight(const ForwardArguments<T>& arguments,
                                         const ForwardTile& tile, int32_t first_row) {
    const int64_t output = tile.group * arguments.g.group_out_channels + tile.output;
    const int32_t chunk = first_row / arguments.chunks.rows;
    return arguments.packed + output * PackedWidth(arguments.chunks) +
           int64_t{chunk} * arguments.chunks.size;
  }

  const ForwardArguments<T>& arguments_;
  int32_t rows_;
  const T* slab_;
  PanelLoader<T, kRows, kThreads<kRows>> weights_;
  Samples samples_;
  SamplePlace at_[Samples::kParts];  // of the chunk
};

// What an output gets beside its sum.
template <typename T>
MS_DEFORM_DEVICE Compute<T> BiasOf(const ForwardArguments<T>& arguments, int64_t output) {
  return arguments.bias == nullptr ? Compute<T>(0) : LoadOnDevice(arguments.bias[output]);
}

// kLanes: channels loaded at once; a segment has a multiple of them.
template <typename T, int kRows, int kLanes>
MS_DEFORM_KERNEL(kThreads<kRows>, (kBlocks<T, kRows, kLanes>))
ForwardKernel(ForwardArguments<T> arguments) {
  static_assert(kRows <= 128 || sizeof(ForwardShared<T, kRows>) <= kSharedOfTallest,
                "it is asked for");
  auto& shared = SharedMemory<ForwardShared<T, kRows>>();
  const Geometry& g = arguments.g;
  const Segments& segments = arguments.segments;
  const Chunks& chunks = arguments.chunks;
  const Pass<T>& pass = arguments.pass;
  MS_DEFORM_FOR_WORK(work, ForwardTiles<kRows>(g, pass.images) * chunks.shares) {
    const ForwardTile tile = FindForwardTile<kRows>(g, pass, work);
    WarpProduct<T, Order::kByStep, kRows> product;
    product.Clear();
    const int32_t end = chunks.count * (tile.share + 1) / chunks.shares;
    for (int32_t chunk = chunks.count * tile.share / chunks.shares; chunk < end; ++chunk) {
      const int32_t first = chunk * chunks.rows;
      const int rows = LeftOf(segments.rows, first, chunks.rows);
      for (int i = threadIdx.x; i < rows * kColumns; i += kThreads<kRows>) {
        const PlanRow row = MakePlanRow(g, segments, tile.image, tile.group, first + i / kColumns);
        const int32_t pixel = tile.pixel + i % kColumns;
        shared.loop.plan[i] = ForValue(g, MakePlanEntry(g, arguments.sampling, row, pixel));
      }
      __syncthreads();
      ForwardLoader<T, kRows, kLanes> loader(arguments, tile, first, shared.loop.plan);
      const auto steps = static_cast<int>(CeilDivide(rows * segments.channels, kStep<T>));
      MultiplySteps<T, kRows, Order::kByStep>(steps, &loader, shared.loop.stages, &product);
    }
    const int64_t output = tile.group * g.group_out_channels + tile.output;
    const int64_t share_image = tile.share * pass.images + tile.image - pass.first_image;
    VisitSums(product, LeftOf(g.group_out_channels, tile.output, kRows), shared.staging,
              [&](int row, int column, Compute<T> sum) {
                const int64_t pixel = tile.pixel + column;
                if (pixel >= g.out_pixels) {
                  return;
                }
                const int64_t at = (output + row) * g.out_pixels + pixel;
                const int64_t of_image = g.out_channels * g.out_pixels;
                if (arguments.sums != nullptr) {
                  arguments.sums[share_image * of_image + at] = sum;
                } else {
                  StoreOnDevice(sum + BiasOf(arguments, output + row),
                                arguments.output + tile.image * of_image + at);
                }
              });
    __syncthreads();
  }
}

template <typename T>
MS_DEFORM_KERNEL(kElementThreads, 1)
AddForwardSharesKernel(ForwardArguments<T> arguments) {
  const Geometry& g = arguments.g;
  const int64_t count = arguments.pass.images * g.out_channels * g.out_pixels;
  T* output = arguments.output + arguments.pass.first_image * g.out_channels * g.out_pixels;
  MS_DEFORM_FOR_ELEMENTS(index, count) {
    Compute<T> sum = BiasOf(arguments, index / g.out_pixels % g.out_channels);
    for (int64_t share = 0; share < arguments.chunks.shares; ++share) {
      sum += arguments.sums[share * count + index];
    }
    StoreOnDevice(sum, output + index);
  }
}

// As many shares as fill the multiprocessors once, and as have room for their sums.
template <typename T, int kRows, int kLanes>
static inline int64_t ChooseForwardShares(const Geometry& g, int64_t images, int64_t bytes_left) {
  const int64_t tiles = ForwardTiles<kRows>(g, images);
  const int64_t bytes = images * g.out_channels * g.out_pixels * int64_t{sizeof(Compute<T>)};
  if (tiles == 0) {
    return 1;
  }
  return Maximum(
      1, Minimum(kBlocks<T, kRows, kLanes> * Multiprocessors() / tiles, bytes_left / bytes));
}

template <typename T, int kRows, int kLanes>
static void RunForwardWith(const ForwardCall& call, const Segments& segments, cudaStream_t stream) {
  const Geometry& g = call.geometry;
  constexpr int64_t kBytes = sizeof(T);
  // If each row were a chunk; fewer chunks have less to fill up.
  const int64_t most_packed =
      g.out_channels * segments.rows * RoundUp(segments.channels, kStep<T>) * kBytes;
  const int64_t images = ImagesOfPass(g, kBytes, most_packed);
  const int64_t bytes_left = kScratchBytes - most_packed - images * SlabSize(g) * kBytes;
  const Chunks chunks =
      MakeChunks<T>(segments, ChooseForwardShares<T, kRows, kLanes>(g, images, bytes_left));
  const int64_t packed_size = g.out_channels * PackedWidth(chunks);
  const int64_t output_size = images * g.out_channels * g.out_pixels;
  const Scratch packed(stream, packed_size * kBytes);
  const int64_t sums_size = chunks.shares == 1 ? 0 : chunks.shares * output_size;
  const Scratch sums(stream, sums_size * int64_t{sizeof(Compute<T>)});
  const ImageSlabs<T> slabs(g, images, stream);
  LaunchElements(PackForwardWeightsKernel<T>, packed_size, "packing the weights",
                 ForwardPack<T>{g, segments, chunks, static_cast<const T*>(call.inputs.weight),
                                packed.As<T>()},
                 stream);
  ForwardArguments<T> arguments;
  arguments.g = g;
  arguments.segments = segments;
  arguments.chunks = chunks;
  arguments.step = DistanceOf(g, segments, kStep<T>);
  arguments.sampling = SamplingOf<T>(g, call.inputs);
  arguments.packed = packed.As<T>();
  arguments.bias = g.use_bias ? static_cast<const T*>(call.bias) : nullptr;
  arguments.output = static_cast<T*>(call.output);
  arguments.sums = sums.As<Compute<T>>();
  slabs.ForEachPass(call.inputs.input, [&](const Pass<T>& pass) {
    arguments.pass = pass;
    LaunchBlocks(ForwardKernel<T, kRows, kLanes>,
                 {ForwardTiles<kRows>(g, pass.images) * chunks.shares, kThreads<kRows>,
                  sizeof(ForwardShared<T, kRows>), "forward"},
                 arguments, stream);
    if (chunks.shares > 1) {
      LaunchElements(AddForwardSharesKernel<T>, pass.images * g.out_channels * g.out_pixels,
                     "adding up the output", arguments, stream);
    }
  });
}

template <typename T>
static void RunForward(const ForwardCall& call, cudaStream_t stream) {
  const Geometry& g = call.geometry;
  const Segments segments = MakeSegments(g);
  WithTileShape<T, 256>(g.group_out_channels, segments.channels, [&](auto shape) {
    using Shape = decltype(shape);
    RunForwardWith<T, Shape::kRows, Shape::kLanes>(call, segments, stream);
  });
}

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_FORWARD_H_
