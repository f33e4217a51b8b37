// SPDX-License-Identifier: Apache-2.0
// The gradients of input, offset and mask.
//
//   grad_column[p, r, c] = sum over outputs o of weight[o, r, c] * grad_output[o, p]
//   dot[p, r, corner]    = sum over channels c of grad_column * corner's value
//   grad_mask[p, r]      = dots interpolated as a sample's corners are
//   grad_offset[p, r]    = mask * slope of that
//   grad_input[corner]  += grad_column * mask * corner's weight
//
// A block takes one offset group and kColumns pixels, with all the channels of their offset and
// mask, for one tap, or for several where a segment's channels leave rows of the product free. It
// multiplies kRows (tap, channel) rows at a time, and then reads their samples' four corners once
// for everything.
//
// Device memory beside the tensors: the packed weights and, for a pass of images, their slabs in
// the input's dtype and slabs of sums (float; double for float64; one or two 64-bit integers if the
// result must not depend on the order).
#ifndef MS_DEFORM_CUDA_BACKWARD_INPUT_H_
#define MS_DEFORM_CUDA_BACKWARD_INPUT_H_

#include "cuda/segments.h"
#include "cuda/slabs.h"
#include "cuda/sums.h"
#include "cuda/tiles.h"

namespace ms_deform {
namespace cuda {

// [group, tap, channel of the group, output of the group up to whole steps]
template <typename T>
struct BackwardPack {
  Geometry g;
  int64_t width;    // outputs, in whole steps
  const T* weight;  // [C_out, C_in / groups, taps]
  T* packed;
};

template <typename T>
MS_DEFORM_FUNCTION int64_t PackedOutputs(const Geometry& g) {
  return RoundUp(g.group_out_channels, kStep<T>);
}

template <typename T>
MS_DEFORM_KERNEL(kElementThreads, 1)
PackBackwardWeightsKernel(BackwardPack<T> pack) {
  const Geometry& g = pack.g;
  const int64_t count = g.in_channels * g.taps * pack.width;
  MS_DEFORM_FOR_ELEMENTS(index, count) {
    int64_t group = index;
    const int64_t output = TakeDigit(pack.width, &group);
    const int64_t channel = TakeDigit(g.group_in_channels, &group);
    const int64_t tap = TakeDigit(g.taps, &group);
    T value = T();
    if (output < g.group_out_channels) {
      const int64_t row = group * g.group_out_channels + output;
      value = pack.weight[(row * g.group_in_channels + channel) * g.taps + tap];
    }
    pack.packed[index] = value;
  }
}

template <typename T, typename Sums>
struct BackwardInputArguments {
  Geometry g;
  Segments segments;
  int32_t taps_of_tile;
  Sampling<T> sampling;
  Pass<T> pass;
  const T* packed;  // weights
  GradOutput<T> grad_output;
  Sums sums;
  typename Sums::Element* grad_slabs;  // as the pass's slabs
  T* grad_offset;                      // as offset
  T* grad_mask;                        // as mask, nullptr without one
};

// Rows of pixels in shared memory: a vector of floats longer than their data.
template <int kRows>
constexpr int kColumnsPitch = kRows + 4;

// Taps of a tile at the most: all of a 3x3 kernel, and one where the channels take all rows.
template <int kRows>
constexpr int kMostTaps = kRows == 64 ? 9 : 1;

template <typename T, int kRows>
struct BackwardInputShared {
  PlanEntry<Compute<T>> plan[kMostTaps<kRows> * kColumns];  // [tap of the tile, pixel]
  alignas(16) Compute<T> dots[kMostTaps<kRows> * kColumns][kCorners];
  union alignas(128) {
    Stage<T, kRows, Order::kByColumn> stages[2];
    Compute<T> grad_columns[kColumns * kColumnsPitch<kRows>];  // [pixel, channel]
  };
};

struct BackwardInputTile {
  int64_t image;  // of the batch
  int32_t offset_group;
  int32_t tap;  // the first
  int32_t taps;
  int32_t pixel;
};

MS_DEFORM_FUNCTION int64_t BackwardInputTiles(const Geometry& g, int64_t images,
                                              int32_t taps_of_tile) {
  return images * PixelTiles(g) * g.offset_groups * CeilDivide(g.taps, taps_of_tile);
}

MS_DEFORM_DEVICE BackwardInputTile FindBackwardInputTile(const Geometry& g, int64_t first_image,
                                                         int32_t taps_of_tile, int64_t work) {
  BackwardInputTile tile;
  tile.tap =
      static_cast<int32_t>(TakeDigit(CeilDivide(g.taps, taps_of_tile), &work)) * taps_of_tile;
  tile.taps = LeftOf(g.taps, tile.tap, taps_of_tile);
  tile.offset_group = static_cast<int32_t>(TakeDigit(g.offset_groups, &work));
  tile.pixel = static_cast<int32_t>(TakeDigit(PixelTiles(g), &work) * kColumns);
  tile.image = first_image + work;
  return tile;
}

// Rows of the product: so many neighbouring channels of the input for each tap of the tile.
struct TapRows {
  int64_t channel;  // the first
  int32_t channels;
  int32_t taps;
};

// Loads a step: the packed weights of kRows rows, and grad_output of all pixels.
template <typename T, int kRows>
class BackwardInputLoader {
 public:
  // weights: of the first row; tap_distance: to those of the next tap.
  __device__ BackwardInputLoader(const TapRows& rows, const T* weights, int64_t width,
                                 int64_t tap_distance, const Matrix<T>& grad_output,
                                 int32_t first_pixel)
      : weights_(rows.taps * rows.channels,
                 [&](int32_t row) {
                   return weights + row / rows.channels * tap_distance +
                          row % rows.channels * width;
                 }),
        grad_output_(grad_output, 0, first_pixel) {}

  __device__ void Fetch() {
    weights_.Fetch();
    grad_output_.Fetch();
  }

  __device__ void Place(Stage<T, kRows, Order::kByColumn>* stage) const {
    weights_.Place(stage->a, kStepPitch<T>);
    grad_output_.Place(stage->b, kColumnPitch<T>);
  }

 private:
  PanelLoader<T, kRows, kThreads<kRows>> weights_;
  TileLoader<T, kStep<T>, kColumns, kThreads<kRows>, Along::kRows> grad_output_;
};

// What a block does with the gradients of some columns: lanes share a pixel's channels.
template <typename T, int kRows, int kLanes, typename Sums>
class ColumnGradients {
 public:
  using Real = Compute<T>;
  using Shared = BackwardInputShared<T, kRows>;

  __device__ ColumnGradients(const BackwardInputArguments<T, Sums>& arguments,
                             const BackwardInputTile& tile, Shared* shared)
      : arguments_(arguments),
        tile_(tile),
        slab_(SlabStart(arguments.g, arguments.pass, tile.image)),
        distances_(arguments.pass.distances),
        shared_(*shared) {}

  __device__ void Add(const TapRows& rows) const {
    // Of several taps every row has a lane of its own, or a part of one.
    const int own_row = OwnLane() * kLanes;
    const bool has_row = own_row < rows.taps * rows.channels;
    const int tap = rows.taps > 1 && has_row ? own_row / rows.channels : 0;
    const int channel = own_row - tap * rows.channels;
    const int lanes =
        rows.channels < kLanesOfPixel * kLanes ? rows.channels / kLanes : kLanesOfPixel;
    for (int pixel = threadIdx.x / kLanesOfPixel; pixel < kColumns; pixel += kPixelsOfPass) {
      const PlanEntry<Real> entry = shared_.plan[tap * kColumns + pixel];
      Real weights[kCorners];
      MaskedWeights(entry, weights);
      const int64_t corner = slab_ + int64_t{CornerPixel(entry)} * distances_.pixel + rows.channel;
      // A NaN point has a value, NaN, and no pixels.
      const bool adds = HasValue(entry) && CornerPixel(entry) != OutsidePixel(arguments_.g);
      const Real* grads = shared_.grad_columns + pixel * kColumnsPitch<kRows> + tap * rows.channels;
      Real dots[kCorners] = {};
      for (int at = has_row ? channel : rows.channels; at < rows.channels;
           at += kLanesOfPixel * kLanes) {
        Real own_grads[kLanes];
        ReadGrads(grads + at, own_grads);
        AddDots(own_grads, corner + at, dots);
        if (adds) {
          AddToInput(own_grads, weights, corner + at);
        }
      }
      if (kMostTaps<kRows> == 1) {
        AddToPixel(dots, pixel);
      } else {
        AddToTap(dots, channel / kLanes, lanes,
                 has_row && channel == 0 ? shared_.dots[tap * kColumns + pixel] : nullptr);
      }
    }
  }

  // Once all channels are added. index: of the tile's (tap, pixel) points.
  __device__ void StorePoint(int index) const {
    const Geometry& g = arguments_.g;
    const int64_t pixel = tile_.pixel + index % kColumns;
    if (pixel >= g.out_pixels) {
      return;
    }
    const PlanEntry<Real> entry = shared_.plan[index];
    const Real* dots = shared_.dots[index];
    Real slope_y, slope_x, weights[kCorners];
    SampleSlopes(entry.fraction_y, entry.fraction_x, dots, &slope_y, &slope_x);
    CornerWeights(entry.fraction_y, entry.fraction_x, weights);
    Real value = Real(0);
#pragma unroll
    for (int i = 0; i < kCorners; ++i) {
      value += weights[i] * dots[i];
    }
    const int64_t row = (tile_.image * g.offset_groups + tile_.offset_group) * g.taps + tile_.tap +
                        index / kColumns;
    const int64_t at = row * g.out_pixels + pixel;
    StoreOnDevice(entry.mask * slope_y, arguments_.grad_offset + at + row * g.out_pixels);
    StoreOnDevice(entry.mask * slope_x, arguments_.grad_offset + at + (row + 1) * g.out_pixels);
    if (arguments_.grad_mask != nullptr) {
      StoreOnDevice(HasValue(entry) ? value : Real(0), arguments_.grad_mask + at);
    }
  }

 private:
  static constexpr int kLanesOfPixel = kRows / kLanes < kWarp ? kRows / kLanes : kWarp;
  static constexpr int kPixelsOfPass = kThreads<kRows> / kLanesOfPixel;
  static_assert(kColumns % kPixelsOfPass == 0, "every pixel has its lanes");
  static_assert(kLanesOfPixel >= kCorners, "every dot has a lane");

  static __device__ int OwnLane() { return threadIdx.x % kLanesOfPixel; }

  // In vectors: rows of the product are whole multiples of kLanes, and kColumnsPitch of a vector.
  static __device__ void ReadGrads(const Real* from, Real* to) {
    constexpr int kPart = kLanes < kVector<Real> ? kLanes : kVector<Real>;
#pragma unroll
    for (int lane = 0; lane < kLanes; lane += kPart) {
      const auto part = *reinterpret_cast<const Pack<Real, kPart>*>(from + lane);
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
        to[lane + i] = part.values[i];
      }
    }
  }

  // index: of the top left corner's channels, in the slabs.
  __device__ void AddDots(const Real* grads, int64_t index, Real* dots) const {
    const CornerPacks<T, kLanes> corners =
        LoadCorners<kLanes>(distances_, arguments_.pass.slabs + index);
#pragma unroll
    for (int i = 0; i < kCorners; ++i) {
      Real values[kLanes];
      LoadLanes<kLanes>(corners.corner[i].values, values);
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        dots[i] += grads[lane] * values[lane];
      }
    }
  }

  __device__ void AddToInput(const Real* grads, const Real* weights, int64_t index) const {
    const int64_t corners[kCorners] = {0, distances_.pixel, distances_.row,
                                       distances_.row + distances_.pixel};
#pragma unroll
    for (int i = 0; i < kCorners; ++i) {
      Real terms[kLanes];
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane) {
        terms[lane] = grads[lane] * weights[i];
      }
      arguments_.sums.template Add<kLanes>(arguments_.grad_slabs, index + corners[i], terms);
    }
  }

  // Adds up the dots of a pixel's lanes. Each pair of lanes first shares the corners out, so that a
  // lane has one corner's to add up with those of the others.
  __device__ void AddToPixel(const Real* dots, int pixel) const {
    const bool odd = OwnLane() % 2 != 0;
    const Real first = (odd ? dots[2] : dots[0]) + OfLane(odd ? dots[0] : dots[2], 1);
    const Real second = (odd ? dots[3] : dots[1]) + OfLane(odd ? dots[1] : dots[3], 1);
    const bool upper = OwnLane() % 4 >= 2;
    Real dot = (upper ? second : first) + OfLane(upper ? first : second, 2);
#pragma unroll
    for (int distance = kCorners; distance < kLanesOfPixel; distance *= 2) {
      dot += OfLane(dot, distance);
    }
    if (OwnLane() < kCorners) {
      shared_.dots[pixel][(odd ? 2 : 0) + (upper ? 1 : 0)] += dot;
    }
  }

  // The same for lanes that share a pixel's taps: `lanes` neighbours have a tap's channels, and the
  // first of them has somewhere to add to.
  static __device__ void AddToTap(Real* dots, int lane, int lanes, Real* to) {
    for (int distance = 1; distance < lanes; distance *= 2) {
#pragma unroll
      for (int i = 0; i < kCorners; ++i) {
        const Real other = __shfl_down_sync(0xffffffffu, dots[i], distance);
        dots[i] += lane + distance < lanes ? other : Real(0);
      }
    }
    if (to != nullptr) {
#pragma unroll
      for (int i = 0; i < kCorners; ++i) {
        to[i] += dots[i];
      }
    }
  }

  static __device__ Real OfLane(Real value, int distance) {
    return __shfl_xor_sync(0xffffffffu, value, distance);
  }

  const BackwardInputArguments<T, Sums>& arguments_;
  const BackwardInputTile& tile_;
  int64_t slab_;
  const CornerDistances& distances_;
  Shared& shared_;
};

template <typename T, int kRows, int kLanes, typename Sums>
MS_DEFORM_KERNEL(kThreads<kRows>, (kBlocks<T, kRows, kLanes>))
BackwardInputKernel(BackwardInputArguments<T, Sums> arguments) {
  auto& shared = SharedMemory<BackwardInputShared<T, kRows>>();
  const Geometry& g = arguments.g;
  const Segments& segments = arguments.segments;
  const Pass<T>& pass = arguments.pass;
  const int64_t width = PackedOutputs<T>(g);
  MS_DEFORM_FOR_WORK(work, BackwardInputTiles(g, pass.images, arguments.taps_of_tile)) {
    const BackwardInputTile tile =
        FindBackwardInputTile(g, pass.first_image, arguments.taps_of_tile, work);
    const int points = tile.taps * kColumns;
    for (int i = threadIdx.x; i < points; i += kThreads<kRows>) {
      const PlanRow row = {tile.image, tile.offset_group, tile.tap + i / kColumns};
      shared.plan[i] = MakePlanEntry(g, arguments.sampling, row, tile.pixel + i % kColumns);
#pragma unroll
      for (int corner = 0; corner < kCorners; ++corner) {
        shared.dots[i][corner] = Compute<T>(0);
      }
    }
    __syncthreads();
    const ColumnGradients<T, kRows, kLanes, Sums> gradients(arguments, tile, &shared);
    for (int32_t segment = 0; segment < segments.of_offset_group; ++segment) {
      const int64_t first_channel =
          tile.offset_group * g.offset_group_channels + int64_t{segment} * segments.channels;
      const int64_t group = first_channel / g.group_in_channels;
      const Matrix<T> grad_output = MatrixOf(g, arguments.grad_output, tile.image, group);
      for (int32_t first = 0; first < segments.channels; first += kRows) {
        const TapRows rows = {first_channel + first, LeftOf(segments.channels, first, kRows),
                              tile.taps};
        const int64_t packed_row =
            (group * g.taps + tile.tap) * g.group_in_channels + rows.channel % g.group_in_channels;
        BackwardInputLoader<T, kRows> loader(rows, arguments.packed + packed_row * width, width,
                                             g.group_in_channels * width, grad_output, tile.pixel);
        WarpProduct<T, Order::kByColumn, kRows> product;
        product.Clear();
        MultiplySteps<T, kRows, Order::kByColumn>(static_cast<int>(width / kStep<T>), &loader,
                                                  shared.stages, &product);
        product.template Store<true>(0,
                                     shared.grad_columns +
                                         FirstColumnOfWarp() * kColumnsPitch<kRows> +
                                         FirstRowOfWarp<decltype(product)>(),
                                     kColumnsPitch<kRows>);
        __syncthreads();
        gradients.Add(rows);
        __syncthreads();
      }
    }
    for (int i = threadIdx.x; i < points; i += kThreads<kRows>) {
      gradients.StorePoint(i);
    }
    __syncthreads();
  }
}

// Equal shares of the taps, of as many as have rows and lanes.
template <int kRows, int kLanes>
static inline int32_t TapsOfTile(const Geometry& g, const Segments& segments) {
  const int64_t rows = Minimum(kRows, kWarp * kLanes);
  const int64_t most = Maximum(1, Minimum(kMostTaps<kRows>, rows / segments.channels));
  return static_cast<int32_t>(CeilDivide(g.taps, CeilDivide(g.taps, most)));
}

// sum_bytes: of one sum.
template <typename T, typename Sums>
static void RunBackwardInputWith(const BackwardInputCall& call, const Sums& sums, int64_t sum_bytes,
                                 cudaStream_t stream) {
  const Geometry& g = call.geometry;
  const Segments segments = MakeSegments(g);
  const int64_t packed_size = g.in_channels * g.taps * PackedOutputs<T>(g);
  constexpr int64_t kBytes = sizeof(T);
  const int64_t images = ImagesOfPass(g, kBytes + sum_bytes, packed_size * kBytes);
  const Scratch packed(stream, packed_size * kBytes);
  const Scratch grad_slabs(stream, images * SlabSize(g) * sum_bytes);
  const ImageSlabs<T> slabs(g, images, stream);
  LaunchElements(PackBackwardWeightsKernel<T>, packed_size, "packing the weights",
                 BackwardPack<T>{g, PackedOutputs<T>(g), static_cast<const T*>(call.inputs.weight),
                                 packed.As<T>()},
                 stream);
  BackwardInputArguments<T, Sums> arguments;
  arguments.g = g;
  arguments.segments = segments;
  arguments.sampling = SamplingOf<T>(g, call.inputs);
  arguments.packed = packed.As<T>();
  arguments.grad_output = GradOutputOf<T>(g, call.grad_output);
  arguments.sums = sums;
  arguments.grad_slabs = grad_slabs.As<typename Sums::Element>();
  arguments.grad_offset = static_cast<T*>(call.grad_offset);
  arguments.grad_mask = g.use_mask ? static_cast<T*>(call.grad_mask) : nullptr;
  slabs.ForEachPass(call.inputs.input, [&](const Pass<T>& pass) {
    arguments.pass = pass;
    FillZeros(arguments.grad_slabs, pass.images * SlabSize(g) * sum_bytes, stream);
    WithTileShape<T, 128>(segments.channels, segments.channels, [&](auto shape) {
      constexpr int kRows = decltype(shape)::kRows;
      constexpr int kLanes = decltype(shape)::kLanes;
      arguments.taps_of_tile = TapsOfTile<kRows, kLanes>(g, segments);
      LaunchBlocks(BackwardInputKernel<T, kRows, kLanes, Sums>,
                   {BackwardInputTiles(g, pass.images, arguments.taps_of_tile), kThreads<kRows>,
                    sizeof(BackwardInputShared<T, kRows>), "gradients of input, offset and mask"},
                   arguments, stream);
    });
    T* grad_input =
        static_cast<T*>(call.grad_input) + pass.first_image * g.in_channels * g.in_pixels;
    StoreSums(ReadSums<T, Sums>{{g, pass.images, grad_input, arguments.grad_slabs}, sums}, stream);
  });
}

template <typename T>
static void RunBackwardInput(const BackwardInputCall& call, cudaStream_t stream) {
  const Geometry& g = call.geometry;
  if (!g.use_mask) {
    FillZeros(call.grad_mask, sizeof(T), stream);
  }
  if (!call.deterministic) {
    RunBackwardInputWith<T>(call, AtomicSums<T>(), sizeof(Compute<T>), stream);
    return;
  }
  const Scratch scratch(stream, sizeof(Exponents));
  auto* exponents = scratch.As<Exponents>();
  FillZeros(exponents, sizeof(Exponents), stream);
  FindExponentOf<T>(call.grad_output, g.batch * g.out_channels * g.out_pixels,
                    &exponents->grad_output, stream);
  if (g.use_mask) {
    FindExponentOf<T>(call.inputs.mask, g.batch * g.offset_groups * g.taps * g.out_pixels,
                      &exponents->mask, stream);
  }
  FindExponentOf<T>(call.inputs.weight, g.out_channels * g.group_in_channels * g.taps,
                    &exponents->weight, stream);
  const int of_ones = kExponentBias + 1;
  const FixedPointSums<T> sums = {exponents, CeilLog2(g.group_out_channels) + CeilLog2(g.taps) +
                                                 CeilLog2(g.out_pixels) +
                                                 (g.use_mask ? 0 : of_ones)};
  RunBackwardInputWith<T>(
      call, sums, FixedPointSums<T>::kIntegers * static_cast<int64_t>(sizeof(uint64_t)), stream);
}

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_BACKWARD_INPUT_H_
