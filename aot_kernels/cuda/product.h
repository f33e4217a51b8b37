// SPDX-License-Identifier: Apache-2.0
// The product that all kernels are made of: a block multiplies a tile of A [kRows, steps] by a tile
// of B [steps, kColumns] and keeps the sums in registers. A and B pass through shared memory a step
// at a time; while one step is multiplied, the loads of the next are in flight.
//
// Each warp owns 32 x 32 sums, or two such parts. The halves go through the matrix unit with sums
// in float; float and double use plain multiply-adds, so that float32 is true float32.
#ifndef MS_DEFORM_CUDA_PRODUCT_H_
#define MS_DEFORM_CUDA_PRODUCT_H_

#include <cstring>
#include <type_traits>

#include "common/integers.h"
#include "cuda/device.h"

namespace ms_deform {
namespace cuda {

constexpr int kWarp = 32;
constexpr int kWarpTile = 32;            // rows and columns of a part of a warp's sums
constexpr int kColumns = 2 * kWarpTile;  // of a block's tile; pixels, but for the weight's gradient

// Parts of a warp's sums, one below the other. The tallest tile has two: what it loads of B then
// serves twice the sums, for as many threads.
template <int kRows>
constexpr int kWarpParts = kRows > 128 ? 2 : 1;

// Two warps side by side.
template <int kRows>
constexpr int kThreads = 2 * kRows / kWarpParts<kRows>;

// Blocks of a product that are to run on a multiprocessor at a time, and so the registers that a
// thread may have: 12 to 16 warps hide the latency of the corners. Sums in double or of two parts,
// and corners that are loaded one by one, take too many registers for more than 8.
template <typename T, int kRows, int kLanes>
constexpr int kBlocks = sizeof(T) == 8 || kLanes == 1 || kRows > 128 ? 256 / kThreads<kRows>
                        : kRows == 64                                ? 3
                                                                     : 512 / kThreads<kRows>;

// Neighbouring elements that are loaded at once.
template <typename T, int kLanes>
struct alignas(sizeof(T) * kLanes) Pack {
  T values[kLanes];
};

// What is moved and not computed with: as elements the halves would be taken apart and put
// together.
struct alignas(16) Vector {
  uint32_t words[4];
};

// A vector is one 16-byte access. A step is four of them: enough work between two barriers, and two
// stages of two tiles stay below the 48 KB of shared memory that every GPU gives beside the plan.
template <typename T>
constexpr int kVector = 16 / sizeof(T);
template <typename T>
constexpr int kStep = 4 * kVector<T>;

// Rows of A and B in shared memory are a vector longer than their data: eight consecutive rows then
// meet different banks.
template <typename T>
constexpr int kStepPitch = kStep<T> + kVector<T>;
template <typename T>
constexpr int kColumnPitch = kColumns + kVector<T>;

// Which index of B is contiguous in shared memory.
enum class Order { kByStep, kByColumn };

template <typename T, int kRows, Order kOrder>
struct alignas(128) Stage {
  T a[kRows * kStepPitch<T>];  // [row, step]
  // [column, step] or [step, column]
  T b[kOrder == Order::kByStep ? kColumns * kStepPitch<T> : kStep<T> * kColumnPitch<T>];
};

// Sums of a warp by multiply-adds: a lane owns rows lane % 8 + 8 i and 8 columns in a row. The
// lanes of a quarter warp so read 8 different rows of A, and one address of B.
template <typename T, Order kOrder, int kParts>
class LaneProduct {
 public:
  using Real = Compute<T>;
  static constexpr int kWarpRows = kParts * kWarpTile;

  __device__ void Clear() {
#pragma unroll
    for (int i = 0; i < kOwnRows; ++i) {
#pragma unroll
      for (int j = 0; j < kOwnColumns; ++j) {
        sums_[i][j] = Real(0);
      }
    }
  }

  // a: the warp's first row; b: the warp's first column.
  __device__ void Add(const T* a, const T* b) {
    const T* own_a = a + FirstRow() * kStepPitch<T>;
    const T* own_b = b + FirstColumn() * (kOrder == Order::kByStep ? kStepPitch<T> : 1);
#pragma unroll
    for (int step = 0; step < kStep<T>; step += kVector<T>) {
      Pack<T, kVector<T>> left[kOwnRows];
#pragma unroll
      for (int i = 0; i < kOwnRows; ++i) {
        left[i] = LoadPack<kVector<T>>(own_a + 8 * i * kStepPitch<T> + step);
      }
      if (kOrder == Order::kByStep) {
        AddByStep(left, own_b + step);
      } else {
        AddByColumn(left, own_b + step * kColumnPitch<T>);
      }
    }
  }

  // Writes a part of the warp's sums as [row, column], or as [column, row] if transposed.
  template <bool kTransposed>
  __device__ void Store(int part, Real* to, int pitch) const {
    constexpr int kPartRows = kOwnRows / kParts;
#pragma unroll
    for (int i = 0; i < kPartRows; ++i) {
#pragma unroll
      for (int j = 0; j < kOwnColumns; ++j) {
        const int row = FirstRow() + 8 * i;
        const int column = FirstColumn() + j;
        to[kTransposed ? column * pitch + row : row * pitch + column] =
            sums_[part * kPartRows + i][j];
      }
    }
  }

 private:
  static constexpr int kOwnRows = 4 * kParts;
  static constexpr int kOwnColumns = 8;
  static_assert(kOwnRows * kOwnColumns * kWarp == kWarpRows * kWarpTile, "every sum has an owner");

  template <int kLanes>
  static __device__ Pack<T, kLanes> LoadPack(const T* from) {
    return *reinterpret_cast<const Pack<T, kLanes>*>(from);
  }

  static __device__ int FirstRow() { return threadIdx.x % 8; }
  static __device__ int FirstColumn() { return threadIdx.x % kWarp / 8 * kOwnColumns; }

  __device__ void AddByStep(const Pack<T, kVector<T>>* left, const T* b) {
#pragma unroll
    for (int j = 0; j < kOwnColumns; ++j) {
      const Pack<T, kVector<T>> right = LoadPack<kVector<T>>(b + j * kStepPitch<T>);
#pragma unroll
      for (int k = 0; k < kVector<T>; ++k) {
#pragma unroll
        for (int i = 0; i < kOwnRows; ++i) {
          sums_[i][j] += LoadOnDevice(left[i].values[k]) * LoadOnDevice(right.values[k]);
        }
      }
    }
  }

  __device__ void AddByColumn(const Pack<T, kVector<T>>* left, const T* b) {
#pragma unroll
    for (int k = 0; k < kVector<T>; ++k) {
#pragma unroll
      for (int j = 0; j < kOwnColumns; j += kPart) {
        const Pack<T, kPart> right = LoadPack<kPart>(b + k * kColumnPitch<T> + j);
#pragma unroll
        for (int part = 0; part < kPart; ++part) {
#pragma unroll
          for (int i = 0; i < kOwnRows; ++i) {
            sums_[i][j + part] +=
                LoadOnDevice(left[i].values[k]) * LoadOnDevice(right.values[part]);
          }
        }
      }
    }
  }

  static constexpr int kPart = kVector<T> < kOwnColumns ? kVector<T> : kOwnColumns;

  Real sums_[kOwnRows][kOwnColumns];
};

template <typename T>
struct MatrixUnitType {
  using Type = void;
};
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 700
template <>
struct MatrixUnitType<Float16> {
  using Type = __half;
};
#endif
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
template <>
struct MatrixUnitType<BFloat16> {
  using Type = __nv_bfloat16;
};
#endif

// Sums of a warp by the matrix unit, 16 x 16 x 16 at a time.
template <typename T, Order kOrder, int kParts>
class MatrixUnitProduct {
 public:
  using Real = float;
  static constexpr int kWarpRows = kParts * kWarpTile;

  __device__ void Clear() {
#pragma unroll
    for (int i = 0; i < kParts * kUnits * kUnits; ++i) {
      nvcuda::wmma::fill_fragment(sums_[i / kUnits][i % kUnits], 0.0f);
    }
  }

  __device__ void Add(const T* a, const T* b) {
#pragma unroll
    for (int step = 0; step < kStep<T>; step += kUnit) {
      FragmentB right[kUnits];
#pragma unroll
      for (int j = 0; j < kUnits; ++j) {
        const T* from = kOrder == Order::kByStep ? b + j * kUnit * kStepPitch<T> + step
                                                 : b + step * kColumnPitch<T> + j * kUnit;
        nvcuda::wmma::load_matrix_sync(right[j], Native(from),
                                       kOrder == Order::kByStep ? kStepPitch<T> : kColumnPitch<T>);
      }
#pragma unroll
      for (int i = 0; i < kParts * kUnits; ++i) {
        FragmentA left;
        nvcuda::wmma::load_matrix_sync(left, Native(a + i * kUnit * kStepPitch<T> + step),
                                       kStepPitch<T>);
#pragma unroll
        for (int j = 0; j < kUnits; ++j) {
          nvcuda::wmma::mma_sync(sums_[i][j], left, right[j], sums_[i][j]);
        }
      }
    }
  }

  template <bool kTransposed>
  __device__ void Store(int part, float* to, int pitch) const {
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
#pragma unroll
      for (int j = 0; j < kUnits; ++j) {
        const int row = i * kUnit;
        const int column = j * kUnit;
        nvcuda::wmma::store_matrix_sync(
            to + (kTransposed ? column * pitch + row : row * pitch + column),
            sums_[part * kUnits + i][j], pitch,
            kTransposed ? nvcuda::wmma::mem_col_major : nvcuda::wmma::mem_row_major);
      }
    }
  }

 private:
  static constexpr int kUnit = 16;
  static constexpr int kUnits = kWarpTile / kUnit;
  using Element = typename MatrixUnitType<T>::Type;
  using OrderOfB = typename std::conditional<kOrder == Order::kByStep, nvcuda::wmma::col_major,
                                             nvcuda::wmma::row_major>::type;
  using FragmentA = nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, kUnit, kUnit, kUnit, Element,
                                           nvcuda::wmma::row_major>;
  using FragmentB =
      nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, kUnit, kUnit, kUnit, Element, OrderOfB>;
  using FragmentOfSums =
      nvcuda::wmma::fragment<nvcuda::wmma::accumulator, kUnit, kUnit, kUnit, float>;

  static __device__ const Element* Native(const T* from) {
    return reinterpret_cast<const Element*>(from);
  }

  FragmentOfSums sums_[kParts * kUnits][kUnits];
};

template <typename T, Order kOrder, int kRows>
using WarpProduct =
    typename std::conditional<std::is_void<typename MatrixUnitType<T>::Type>::value,
                              LaneProduct<T, kOrder, kWarpParts<kRows>>,
                              MatrixUnitProduct<T, kOrder, kWarpParts<kRows>>>::type;

MS_DEFORM_DEVICE int WarpIndex() { return threadIdx.x / kWarp; }
MS_DEFORM_DEVICE int FirstColumnOfWarp() { return WarpIndex() % 2 * kWarpTile; }
template <typename Product>
MS_DEFORM_DEVICE int FirstRowOfWarp() {
  return WarpIndex() / 2 * Product::kWarpRows;
}

// Adds `steps` steps to the product. The loader has Fetch(), which starts the loads of the thread's
// share of the next step into registers, and Place(stage), which finishes them and writes to shared
// memory. Starts after a barrier and ends with one.
template <typename T, int kRows, Order kOrder, typename Loader>
MS_DEFORM_DEVICE void MultiplySteps(int steps, Loader* loader, Stage<T, kRows, kOrder>* stages,
                                    WarpProduct<T, kOrder, kRows>* product) {
  if (steps == 0) {
    return;
  }
  loader->Fetch();
  loader->Place(&stages[0]);
  __syncthreads();
  for (int step = 0; step < steps; ++step) {
    const Stage<T, kRows, kOrder>& stage = stages[step % 2];
    if (step + 1 < steps) {
      loader->Fetch();
    }
    product->Add(stage.a + FirstRowOfWarp<WarpProduct<T, kOrder, kRows>>() * kStepPitch<T>,
                 stage.b + FirstColumnOfWarp() * (kOrder == Order::kByStep ? kStepPitch<T> : 1));
    if (step + 1 < steps) {
      loader->Place(&stages[(step + 1) % 2]);
    }
    __syncthreads();
  }
}

// What a warp's sums pass through to the lanes: rows a vector of floats longer than their data.
constexpr int kStagingPitch = kWarpTile + 4;
template <typename Real>
struct alignas(128) Staging {
  Real sums[kWarpTile * kStagingPitch];
};

// Calls visit(row, column, sum) for the sums of the warp's rows below `rows`, a row of the tile at
// a time, so that the lanes meet neighbouring columns.
template <typename Product, typename Visit>
MS_DEFORM_DEVICE void VisitSums(const Product& product, int rows,
                                Staging<typename Product::Real>* stagings, const Visit& visit) {
  typename Product::Real* sums = stagings[WarpIndex()].sums;
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int part = 0; part < Product::kWarpRows / kWarpTile; ++part) {
    __syncwarp();
    product.template Store<false>(part, sums, kStagingPitch);
    __syncwarp();
    const int first = FirstRowOfWarp<Product>() + part * kWarpTile;
    for (int row = 0; row < kWarpTile && first + row < rows; ++row) {
      visit(first + row, FirstColumnOfWarp() + lane, sums[row * kStagingPitch + lane]);
    }
  }
}

// Rows of a matrix in device memory.
template <typename T>
struct Matrix {
  const T* data;
  int64_t pitch;  // between rows
  int32_t rows;
  int32_t columns;
  bool
      aligned;  // whole vectors: every row is 16-byte aligned and has a multiple of kVector columns
};

// The first kVector elements from `from` on, and zeros from `count` on. `aligned`: as a matrix.
template <typename T>
MS_DEFORM_DEVICE Vector LoadVector(const T* from, int32_t count, bool aligned) {
  Vector vector = {};
  if (aligned) {
    if (count > 0) {
      vector = *reinterpret_cast<const Vector*>(from);
    }
    return vector;
  }
  T elements[kVector<T>] = {};
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) {
    if (i < count) {
      elements[i] = from[i];
    }
  }
  memcpy(&vector, elements, sizeof(vector));
  return vector;
}

// What is left of `size` from `first` on, `most` at the most.
MS_DEFORM_DEVICE int LeftOf(int64_t size, int64_t first, int most) {
  return static_cast<int>(Minimum(size - first, most));
}

// The vectors of a tile [kTileRows, kTileColumns] in shared memory, in equal shares for the
// threads: where a thread's vector i begins. All of them begin in the same column.
template <typename T, int kTileRows, int kTileColumns, int kBlockThreads>
struct TileShare {
  static constexpr int kVectorsOfRow = kTileColumns / kVector<T>;
  static constexpr int kCount = kTileRows * kVectorsOfRow / kBlockThreads;
  static constexpr int kRowsApart = kBlockThreads / kVectorsOfRow;
  static_assert(kCount * kBlockThreads == kTileRows * kVectorsOfRow, "equal shares");
  static_assert(kRowsApart * kVectorsOfRow == kBlockThreads, "one column a thread");

  static __device__ int Row(int i) {
    return static_cast<int>(threadIdx.x) / kVectorsOfRow + i * kRowsApart;
  }
  static __device__ int Column() {
    return static_cast<int>(threadIdx.x) % kVectorsOfRow * kVector<T>;
  }

  static __device__ void Place(const Vector* vectors, T* to, int pitch) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      *reinterpret_cast<Vector*>(to + Row(i) * pitch + Column()) = vectors[i];
    }
  }
};

// Where a loader's tile moves from step to step.
enum class Along { kRows, kColumns };

// The threads' shares of a tile of a matrix, kept in registers between Fetch and Place; what lies
// beyond the matrix is 0.
template <typename T, int kTileRows, int kTileColumns, int kBlockThreads, Along kAlong>
class TileLoader {
 public:
  __device__ TileLoader(const Matrix<T>& matrix, int32_t first_row, int32_t first_column)
      : from_(matrix.data + (first_row + Share::Row(0)) * matrix.pitch + first_column +
              Share::Column()),
        pitch_(matrix.pitch),
        rows_(matrix.rows - first_row - Share::Row(0)),
        columns_(matrix.columns - first_column - Share::Column()),
        aligned_(matrix.aligned) {}

  __device__ void Fetch() {
#pragma unroll
    for (int i = 0; i < Share::kCount; ++i) {
      const int row = i * Share::kRowsApart;
      vectors_[i] = LoadVector(from_ + row * pitch_, row < rows_ ? columns_ : 0, aligned_);
    }
    if (kAlong == Along::kRows) {
      from_ += kTileRows * pitch_;
      rows_ -= kTileRows;
    } else {
      from_ += kTileColumns;
      columns_ -= kTileColumns;
    }
  }

  __device__ void Place(T* to, int pitch) const { Share::Place(vectors_, to, pitch); }

 private:
  using Share = TileShare<T, kTileRows, kTileColumns, kBlockThreads>;

  const T* from_;  // of the thread's first vector
  int64_t pitch_;
  int32_t rows_;  // of the matrix from there on
  int32_t columns_;
  bool aligned_;
  Vector vectors_[Share::kCount];
};

// The same of packed weights, rows of whole steps. Of rows beyond the last the last is loaded: no
// one reads their sums.
template <typename T, int kTileRows, int kBlockThreads>
class PanelLoader {
 public:
  // rows: that there are; start(row): a row's first element.
  template <typename Start>
  __device__ PanelLoader(int32_t rows, const Start& start) {
#pragma unroll
    for (int i = 0; i < Share::kCount; ++i) {
      from_[i] = start(Share::Row(i) < rows ? Share::Row(i) : rows - 1) + Share::Column();
    }
  }

  __device__ void Fetch() {
#pragma unroll
    for (int i = 0; i < Share::kCount; ++i) {
      vectors_[i] = *reinterpret_cast<const Vector*>(from_[i]);
      from_[i] += kStep<T>;
    }
  }

  __device__ void Place(T* to, int pitch) const { Share::Place(vectors_, to, pitch); }

 private:
  using Share = TileShare<T, kTileRows, kStep<T>, kBlockThreads>;

  const T* from_[Share::kCount];
  Vector vectors_[Share::kCount];
};

}  // namespace cuda
}  // namespace ms_deform

#endif  // MS_DEFORM_CUDA_PRODUCT_H_
