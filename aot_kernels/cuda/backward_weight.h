// SPDX-License-Identifier: Apache-2.0
// grad_weight[o, r, c] = sum over images and pixels p of grad_output[o, p] * sample[p, r, c]
//
// A block takes kRows outputs of a group, kColumns of its (plan row, channel) pairs and a share of
// all pixels, samples again and multiplies. The shares' sums are added up in a fixed order.
//
// Device memory beside the tensors: the slabs of a pass of images and the sums of the shares, each
// of which has the weight's size; there are more than one of them only up to kPassBytes.
#ifndef MS_DEFORM_CUDA_BACKWARD_WEIGHT_H_
#define MS_DEFORM_CUDA_BACKWARD_WEIGHT_H_

#include "cuda/forward.h"

namespace ms_deform {
namespace cuda {

template <typename T>
struct BackwardWeightArguments {
  Geometry g;
  Segments segments;
  Sampling<T> sampling;
  int64_t first_image;  // of the pass
  int64_t images;
  int64_t shares;
  bool adds;             // to the sums of an earlier pass
  bool aligned;          // rows of grad_output
  const T* slabs;        // [image of the pass, slab pixel, C_in]
  const T* grad_output;  // [N, C_out, H_out, W_out]
  Sum<T>* sums;          // [share, C_out, plan row of the group, channel of the segment]
};

// A step's samples of one plan row a column, at most.
template <typename T>
constexpr int kWeightPlan = kColumns * kStep<T>;

template <typename T, int kRows>
union BackwardWeightShared {
  struct {
    PlanEntry<Sum<T>> plan[kWeightPlan<T>];  // [row, pixel]
    Stage<T, kRows, Order::kByColumn> stages[2];
  } loop;
  Staging<Sum<T>> staging[kThreads<kRows> / kWarp];
};

struct BackwardWeightTile {
  int64_t group;
  int64_t output;  // of the group
  int32_t column;  // of the group's (plan row, channel) pairs
  int64_t share;
};

MS_DEFORM_FUNCTION int64_t GroupColumns(const Geometry& g) { return g.group_in_channels * g.taps; }
MS_DEFORM_FUNCTION int64_t ColumnTiles(const Geometry& g) {
  return CeilDivide(GroupColumns(g), kColumns);
}

template <int kRows>
MS_DEFORM_DEVICE BackwardWeightTile FindBackwardWeightTile(const Geometry& g, int64_t shares,
                                                           int64_t work) {
  const int64_t output_tiles = OutputTiles<kRows>(g);
  const int64_t column_tiles = ColumnTiles(g);
  const int64_t tile = work / shares;
  return {tile / column_tiles / output_tiles, tile / column_tiles % output_tiles * kRows,
          static_cast<int32_t>(tile % column_tiles * kColumns), work % shares};
}

// Some pixels of an image in a row whose plan is in shared memory.
struct PixelRun {
  int64_t image;  // of the batch
  int32_t pixel;
  int32_t pixels;  // in whole steps
};

// Loads a step: grad_output of kRows outputs, and the samples of kColumns columns.
template <typename T, int kRows, int kLanes>
class BackwardWeightLoader {
 public:
  __device__ BackwardWeightLoader(const BackwardWeightArguments<T>& arguments,
                                  const BackwardWeightTile& tile, const PixelRun& run,
                                  const PlanEntry<Sum<T>>* plan)
      : g_(arguments.g),
        segments_(arguments.segments),
        slab_(arguments.slabs +
              (run.image - arguments.first_image) * SlabPixels(g_) * g_.in_channels),
        tile_(tile),
        run_(run),
        samples_(arguments.g, plan) {
    const int64_t output = run.image * g_.out_channels + tile.group * g_.group_out_channels;
    grad_output_ = {arguments.grad_output + output * g_.out_pixels, g_.out_pixels,
                    g_.group_out_channels, g_.out_pixels, arguments.aligned};
  }

  __device__ void Fetch(int step) {
    grad_loader_.Fetch(grad_output_, tile_.output, run_.pixel + int64_t{step} * kStep<T>);
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        FetchSample(i * kParts + part, tile_.column + Column(i) + part * kLanes,
                    step * kStep<T> + Pixel(i));
      }
    }
  }

  __device__ void Place(Stage<T, kRows, Order::kByColumn>* stage) const {
    grad_loader_.Place(stage->a, kStepPitch<T>);
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      Pack<T, kVector<T>> samples;
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        samples_.Place(i * kParts + part, samples.values + part * kLanes);
      }
      *reinterpret_cast<Pack<T, kVector<T>>*>(stage->b + Pixel(i) * kColumnPitch<T> + Column(i)) =
          samples;
    }
  }

 private:
  static constexpr int kVectorsOfRow = kColumns / kVector<T>;
  static constexpr int kShare = kStep<T> * kVectorsOfRow / kThreads<kRows>;
  static constexpr int kParts = kVector<T> / kLanes;

  static __device__ int Pixel(int i) {
    return (static_cast<int>(threadIdx.x) + i * kThreads<kRows>) / kVectorsOfRow;
  }
  static __device__ int Column(int i) {
    return (static_cast<int>(threadIdx.x) + i * kThreads<kRows>) % kVectorsOfRow * kVector<T>;
  }

  // pixel: of the run.
  __device__ void FetchSample(int index, int32_t column, int pixel) {
    const int32_t row = column / segments_.channels;
    const int32_t plan_row = row - tile_.column / segments_.channels;
    const int64_t channel =
        FirstChannel(g_, segments_, tile_.group, row) + column % segments_.channels;
    const int32_t entry = plan_row * run_.pixels + pixel;
    samples_.Fetch(index, column < GroupColumns(g_) ? entry : -1, slab_ + channel);
  }

  const Geometry& g_;
  const Segments& segments_;
  const T* slab_;
  const BackwardWeightTile& tile_;
  const PixelRun& run_;
  Matrix<T> grad_output_;
  TileLoader<T, kRows, kStep<T>, kThreads<kRows>> grad_loader_;
  SampleRegisters<T, kLanes, kShare * kParts> samples_;
};

template <typename T, int kRows, int kLanes>
MS_DEFORM_KERNEL(kThreads<kRows>, (kBlocks<T, kRows, kLanes>))
BackwardWeightKernel(BackwardWeightArguments<T> arguments) {
  auto& shared = SharedMemory<BackwardWeightShared<T, kRows>>();
  const Geometry& g = arguments.g;
  const Segments& segments = arguments.segments;
  const auto image_steps = static_cast<int32_t>(CeilDivide(g.out_pixels, kStep<T>));
  const int64_t all_steps = arguments.images * image_steps;
  const auto columns = static_cast<int32_t>(GroupColumns(g));
  const int64_t count = g.groups * OutputTiles<kRows>(g) * ColumnTiles(g) * arguments.shares;
  MS_DEFORM_FOR_WORK(work, count) {
    const BackwardWeightTile tile = FindBackwardWeightTile<kRows>(g, arguments.shares, work);
    const int32_t end_column = tile.column + kColumns < columns ? tile.column + kColumns : columns;
    const int32_t first_row = tile.column / segments.channels;
    const int32_t rows = (end_column - 1) / segments.channels - first_row + 1;
    const int32_t plan_steps = kWeightPlan<T> / (rows * kStep<T>);
    WarpProduct<T, Order::kByColumn> product;
    product.Clear();
    int64_t step = all_steps * tile.share / arguments.shares;
    const int64_t end = all_steps * (tile.share + 1) / arguments.shares;
    while (step < end) {
      const auto in_image = static_cast<int32_t>(step % image_steps);
      int64_t steps = end - step;
      steps = steps < image_steps - in_image ? steps : image_steps - in_image;
      steps = steps < plan_steps ? steps : plan_steps;
      const PixelRun run = {arguments.first_image + step / image_steps, in_image * kStep<T>,
                            static_cast<int32_t>(steps) * kStep<T>};
      for (int i = threadIdx.x; i < rows * run.pixels; i += kThreads<kRows>) {
        const PlanRow row =
            MakePlanRow(g, segments, run.image, tile.group, first_row + i / run.pixels);
        shared.loop.plan[i] = MakePlanEntry(g, arguments.sampling, row, run.pixel + i % run.pixels);
      }
      __syncthreads();
      BackwardWeightLoader<T, kRows, kLanes> loader(arguments, tile, run, shared.loop.plan);
      MultiplySteps<T, kRows, Order::kByColumn>(static_cast<int>(steps), &loader,
                                                shared.loop.stages, &product);
      step += steps;
    }
    const int64_t rows_left = g.group_out_channels - tile.output;
    Sum<T>* sums =
        arguments.sums +
        (tile.share * g.out_channels + tile.group * g.group_out_channels + tile.output) * columns;
    VisitSums(product, rows_left < kRows ? static_cast<int>(rows_left) : kRows, shared.staging,
              [&](int row, int column, Sum<T> sum) {
                if (tile.column + column < columns) {
                  Sum<T>* to = sums + int64_t{row} * columns + tile.column + column;
                  *to = arguments.adds ? *to + sum : sum;
                }
              });
    __syncthreads();
  }
}

template <typename T>
struct AddShares {
  Geometry g;
  Segments segments;
  int64_t shares;
  const Sum<T>* sums;  // as in BackwardWeightArguments
  T* grad_weight;      // [C_out, C_in / groups, taps]
};

template <typename T>
MS_DEFORM_KERNEL(kElementThreads, 1)
AddSharesKernel(AddShares<T> add) {
  const Geometry& g = add.g;
  const int64_t columns = GroupColumns(g);
  const int64_t size = g.out_channels * columns;
  MS_DEFORM_FOR_WORK(work, CeilDivide(size, kElementThreads)) {
    const int64_t index = work * kElementThreads + threadIdx.x;
    if (index < size) {
      Sum<T> sum = Sum<T>(0);
      for (int64_t share = 0; share < add.shares; ++share) {
        sum += add.sums[share * size + index];
      }
      const int64_t row = index % columns / add.segments.channels;
      const int64_t channel =
          row / g.taps * add.segments.channels + index % columns % add.segments.channels;
      StoreOnDevice(sum,
                    add.grad_weight + index / columns * columns + channel * g.taps + row % g.taps);
    }
  }
}

// Enough blocks for every multiprocessor, as long as each has some steps to do and the sums fit.
template <typename T>
static inline int64_t ChooseShares(const Geometry& g, int64_t images, int64_t tiles) {
  constexpr int64_t kBlocksOfMultiprocessor = 4;
  constexpr int64_t kStepsOfShare = 16;
  const int64_t bytes = g.out_channels * GroupColumns(g) * static_cast<int64_t>(sizeof(Sum<T>));
  int64_t shares = CeilDivide(kBlocksOfMultiprocessor * Multiprocessors(), tiles);
  const int64_t by_steps = images * CeilDivide(g.out_pixels, kStep<T>) / kStepsOfShare;
  const int64_t by_bytes = kPassBytes / bytes;
  shares = shares < by_steps ? shares : by_steps;
  shares = shares < by_bytes ? shares : by_bytes;
  return shares < 1 ? 1 : shares;
}

template <typename T, int kRows, int kLanes>
static void LaunchBackwardWeight(const BackwardWeightArguments<T>& arguments, cudaStream_t stream) {
  const Geometry& g = arguments.g;
  LaunchBlocks(BackwardWeightKernel<T, kRows, kLanes>,
               g.groups * OutputTiles<kRows>(g) * ColumnTiles(g) * arguments.shares,
               kThreads<kRows>, sizeof(BackwardWeightShared<T, kRows>), stream, arguments,
               "gradient of weight");
}

template <typename T>
static void RunBackwardWeight(const BackwardWeightCall& call, cudaStream_t stream) {
  const Geometry& g = call.geometry;
  const Segments segments = MakeSegments(g);
  const int64_t size = g.out_channels * GroupColumns(g);
  if (g.batch == 0 || size == 0) {
    FillZeros(call.grad_weight, size * static_cast<int64_t>(sizeof(T)), stream);
    return;
  }
  const bool many_outputs = g.group_out_channels > 64 && segments.channels % kVector<T> == 0;
  const int64_t slab_size = SlabPixels(g) * g.in_channels;
  const int64_t images = ImagesOfPass(g.batch, slab_size * static_cast<int64_t>(sizeof(T)));
  const int64_t tiles =
      g.groups * (many_outputs ? OutputTiles<128>(g) : OutputTiles<64>(g)) * ColumnTiles(g);
  const int64_t shares = ChooseShares<T>(g, images, tiles);
  const Scratch slabs(stream, images * slab_size * static_cast<int64_t>(sizeof(T)));
  const Scratch sums(stream, shares * size * static_cast<int64_t>(sizeof(Sum<T>)));
  BackwardWeightArguments<T> arguments = {
      g,
      segments,
      SamplingOf<T>(g, call.inputs),
      0,
      0,
      shares,
      false,
      g.out_pixels % kVector<T> == 0 && reinterpret_cast<uintptr_t>(call.grad_output) % 16 == 0,
      slabs.As<T>(),
      static_cast<const T*>(call.grad_output),
      sums.As<Sum<T>>()};
  for (int64_t first = 0; first < g.batch; first += images) {
    arguments.first_image = first;
    arguments.images = images < g.batch - first ? images : g.batch - first;
    arguments.adds = first > 0;
    FillSlabs(g, static_cast<const T*>(call.inputs.input) + first * g.in_channels * g.in_pixels,
              arguments.images, slabs.As<T>(), stream);
    if (segments.channels % kVector<T> != 0) {
      LaunchBackwardWeight<T, 64, 1>(arguments, stream);
    } else if (many_outputs) {
      LaunchBackwardWeight<T, 128, kVector<T>>(arguments, stream);
    } else {
      LaunchBackwardWeight<T, 64, kVector<T>>(arguments, stream);
    }
  }
  LaunchBlocks(
      AddSharesKernel<T>, CeilDivide(size, kElementThreads), kElementThreads, 0, stream,
      AddShares<T>{g, segments, shares, sums.As<Sum<T>>(), static_cast<T*>(call.grad_weight)},
      "adding up the gradient of weight");
}

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_BACKWARD_WEIGHT_H_
