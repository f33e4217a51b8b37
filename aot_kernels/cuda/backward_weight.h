// SPDX-License-Identifier: Apache-2.0
// grad_weight[o, r, c] = sum over images and pixels p of grad_output[o, p] * sample[p, r, c]
//
// A block takes kRows outputs of a group, kColumns of its (plan row, channel) pairs and a share of
// all pixels, samples again and multiplies. The shares' sums are added up in a fixed order.
//
// Device memory beside the tensors: the slabs of a pass of images and the sums of the shares, each
// of which has the weight's size.
#ifndef MS_DEFORM_CUDA_BACKWARD_WEIGHT_H_
#define MS_DEFORM_CUDA_BACKWARD_WEIGHT_H_

#include "cuda/device_info.h"
#include "cuda/segments.h"
#include "cuda/slabs.h"
#include "cuda/tiles.h"

namespace ms_deform {
namespace cuda {

template <typename T>
struct BackwardWeightArguments {
  Geometry g;
  Segments segments;
  Sampling<T> sampling;
  Pass<T> pass;
  int64_t shares;
  bool adds;  // to the sums of an earlier pass
  GradOutput<T> grad_output;
  Compute<T>* sums;  // [share, C_out, plan row of the group, channel of the segment]
};

// A step's samples of one plan row a column, at most.
template <typename T>
constexpr int kWeightPlan = kColumns * kStep<T>;

template <typename T, int kRows>
union BackwardWeightShared {
  struct {
    PlanEntry<Compute<T>> plan[kWeightPlan<T>];  // [row, pixel]
    Stage<T, kRows, Order::kByColumn> stages[2];
  } loop;
  Staging<Compute<T>> staging[kThreads<kRows> / kWarp];
};

struct BackwardWeightTile {
  int64_t group;
  int64_t output;  // of the group
  int32_t column;  // of the group's (plan row, channel) pairs
  int64_t share;
};

template <int kRows>
MS_DEFORM_FUNCTION int64_t BackwardWeightTiles(const Geometry& g) {
  return g.groups * OutputTiles<kRows>(g) * ColumnTiles(g);
}

template <int kRows>
MS_DEFORM_DEVICE BackwardWeightTile FindBackwardWeightTile(const Geometry& g, int64_t shares,
                                                           int64_t work) {
  BackwardWeightTile tile;
  tile.share = TakeDigit(shares, &work);
  tile.column = static_cast<int32_t>(TakeDigit(ColumnTiles(g), &work) * kColumns);
  tile.output = TakeDigit(OutputTiles<kRows>(g), &work) * kRows;
  tile.group = work;
  return tile;
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
                                  const PlanEntry<Compute<T>>* plan)
      : grad_output_(MatrixOf(arguments.g, arguments.grad_output, run.image, tile.group),
                     static_cast<int32_t>(tile.output), run.pixel),
        samples_(arguments.pass.distances, plan) {
    const Geometry& g = arguments.g;
    const Segments& segments = arguments.segments;
    const T* slab = arguments.pass.slabs + SlabStart(g, arguments.pass, run.image);
#pragma unroll
    for (int part = 0; part < Samples::kParts; ++part) {
      const int32_t column = tile.column + Samples::Share::Column() + part * kLanes;
      const int32_t row = column / segments.channels;
      const int32_t plan_row = row - tile.column / segments.channels;
      entries_[part] = column < GroupColumns(g) ? plan_row * run.pixels : kNoEntry;
      slabs_[part] = slab + FirstChannel(g, segments, tile.group, row) + column % segments.channels;
    }
  }

  __device__ void Fetch() {
    grad_output_.Fetch();
#pragma unroll
    for (int part = 0; part < Samples::kParts; ++part) {
#pragma unroll
      for (int i = 0; i < Samples::Share::kCount; ++i) {
        samples_.Fetch(i, part, entries_[part] + Samples::Share::Row(i), slabs_[part]);
      }
      entries_[part] += kStep<T>;
    }
  }

  __device__ void Place(Stage<T, kRows, Order::kByColumn>* stage) const {
    grad_output_.Place(stage->a, kStepPitch<T>);
    samples_.Place(stage->b, kColumnPitch<T>);
  }

 private:
  using Samples = SampleLoader<T, kStep<T>, kColumns, kThreads<kRows>, kLanes>;
  // Stays below 0 whatever is added for the pixels of a run.
  static constexpr int32_t kNoEntry = -2 * kWeightPlan<T>;

  TileLoader<T, kRows, kStep<T>, kThreads<kRows>, Along::kColumns> grad_output_;
  Samples samples_;
  int32_t entries_[Samples::kParts];  // of the step's first pixel
  const T* slabs_[Samples::kParts];
};

template <typename T, int kRows, int kLanes>
MS_DEFORM_KERNEL(kThreads<kRows>, (kBlocks<T, kRows, kLanes>))
BackwardWeightKernel(BackwardWeightArguments<T> arguments) {
  static_assert(kRows <= 128 || sizeof(BackwardWeightShared<T, kRows>) <= kSharedOfTallest,
                "it is asked for");
  auto& shared = SharedMemory<BackwardWeightShared<T, kRows>>();
  const Geometry& g = arguments.g;
  const Segments& segments = arguments.segments;
  const auto image_steps = static_cast<int32_t>(CeilDivide(g.out_pixels, kStep<T>));
  const int64_t all_steps = arguments.pass.images * image_steps;
  const auto columns = static_cast<int32_t>(GroupColumns(g));
  MS_DEFORM_FOR_WORK(work, BackwardWeightTiles<kRows>(g) * arguments.shares) {
    const BackwardWeightTile tile = FindBackwardWeightTile<kRows>(g, arguments.shares, work);
    const int32_t end_column = tile.column + LeftOf(columns, tile.column, kColumns);
    const int32_t first_row = tile.column / segments.channels;
    const int32_t rows = (end_column - 1) / segments.channels - first_row + 1;
    const int32_t plan_steps = kWeightPlan<T> / (rows * kStep<T>);
    WarpProduct<T, Order::kByColumn, kRows> product;
    product.Clear();
    int64_t step = all_steps * tile.share / arguments.shares;
    const int64_t end = all_steps * (tile.share + 1) / arguments.shares;
    while (step < end) {
      const auto in_image = static_cast<int32_t>(step % image_steps);
      const auto steps =
          static_cast<int>(Minimum(end - step, Minimum(image_steps - in_image, plan_steps)));
      const PixelRun run = {arguments.pass.first_image + step / image_steps, in_image * kStep<T>,
                            steps * kStep<T>};
      for (int i = threadIdx.x; i < rows * run.pixels; i += kThreads<kRows>) {
        const PlanRow row =
            MakePlanRow(g, segments, run.image, tile.group, first_row + i / run.pixels);
        const int32_t pixel = run.pixel + i % run.pixels;
        shared.loop.plan[i] = ForValue(g, MakePlanEntry(g, arguments.sampling, row, pixel));
      }
      __syncthreads();
      BackwardWeightLoader<T, kRows, kLanes> loader(arguments, tile, run, shared.loop.plan);
      MultiplySteps<T, kRows, Order::kByColumn>(steps, &loader, shared.loop.stages, &product);
      step += steps;
    }
    Compute<T>* sums =
        arguments.sums +
        (tile.share * g.out_channels + tile.group * g.group_out_channels + tile.output) * columns;
    VisitSums(product, LeftOf(g.group_out_channels, tile.output, kRows), shared.staging,
              [&](int row, int column, Compute<T> sum) {
                if (tile.column + column < columns) {
                  Compute<T>* to = sums + int64_t{row} * columns + tile.column + column;
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
  const Compute<T>* sums;  // as in BackwardWeightArguments
  T* grad_weight;          // [C_out, C_in / groups, taps]
};

template <typename T>
MS_DEFORM_KERNEL(kElementThreads, 1)
AddSharesKernel(AddShares<T> add) {
  const Geometry& g = add.g;
  const int64_t columns = GroupColumns(g);
  const int64_t size = g.out_channels * columns;
  MS_DEFORM_FOR_ELEMENTS(index, size) {
    Compute<T> sum = Compute<T>(0);
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

// How the pixels of a pass are shared out.
struct PixelShares {
  int64_t images;  // of a pass
  int64_t count;
};

// Enough blocks for every multiprocessor, as long as each has some steps to do, and their sums take
// a quarter of the scratch at most: the images of a pass make for steps.
template <typename T>
static inline PixelShares SharePixels(const Geometry& g, int64_t tiles, int64_t share_bytes) {
  constexpr int64_t kBlocksOfMultiprocessor = 4;
  constexpr int64_t kStepsOfShare = 16;
  const int64_t by_blocks = CeilDivide(kBlocksOfMultiprocessor * Multiprocessors(), tiles);
  const int64_t most = Maximum(1, Minimum(by_blocks, kScratchBytes / 4 / share_bytes));
  const int64_t images = ImagesOfPass(g, sizeof(T), most * share_bytes);
  const int64_t by_steps = images * CeilDivide(g.out_pixels, kStep<T>) / kStepsOfShare;
  return {images, Maximum(1, Minimum(most, by_steps))};
}

template <typename T, int kRows, int kLanes>
static void RunBackwardWeightWith(const BackwardWeightCall& call, const Segments& segments,
                                  cudaStream_t stream) {
  const Geometry& g = call.geometry;
  const int64_t size = g.out_channels * GroupColumns(g);
  const int64_t share_bytes = size * int64_t{sizeof(Compute<T>)};
  const int64_t tiles = BackwardWeightTiles<kRows>(g);
  const PixelShares shares = SharePixels<T>(g, tiles, share_bytes);
  const Scratch sums(stream, shares.count * share_bytes);
  const ImageSlabs<T> slabs(g, shares.images, stream);
  BackwardWeightArguments<T> arguments;
  arguments.g = g;
  arguments.segments = segments;
  arguments.sampling = SamplingOf<T>(g, call.inputs);
  arguments.shares = shares.count;
  arguments.grad_output = GradOutputOf<T>(g, call.grad_output);
  arguments.sums = sums.As<Compute<T>>();
  slabs.ForEachPass(call.inputs.input, [&](const Pass<T>& pass) {
    arguments.pass = pass;
    arguments.adds = pass.first_image > 0;
    LaunchBlocks(BackwardWeightKernel<T, kRows, kLanes>,
                 {tiles * shares.count, kThreads<kRows>, sizeof(BackwardWeightShared<T, kRows>),
                  "gradient of weight"},
                 arguments, stream);
  });
  LaunchElements(
      AddSharesKernel<T>, size, "adding up the gradient of weight",
      AddShares<T>{g, segments, shares.count, arguments.sums, static_cast<T*>(call.grad_weight)},
      stream);
}

template <typename T>
static void RunBackwardWeight(const BackwardWeightCall& call, cudaStream_t stream) {
  const Geometry& g = call.geometry;
  const int64_t size = g.out_channels * GroupColumns(g);
  if (g.batch == 0 || size == 0) {
    FillZeros(call.grad_weight, size * static_cast<int64_t>(sizeof(T)), stream);
    return;
  }
  const Segments segments = MakeSegments(g);
  WithTileShape<T, 256>(g.group_out_channels, segments.channels, [&](auto shape) {
    using Shape = decltype(shape);
    RunBackwardWeightWith<T, Shape::kRows, Shape::kLanes>(call, segments, stream);
  });
}

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_BACKWARD_WEIGHT_H_
