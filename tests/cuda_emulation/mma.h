// SPDX-License-Identifier: Apache-2.0
// The matrix unit, 16 x 16 x 16, for the emulation. A lane owns half a row of the sums: row lane /
// 2, columns from 8 * (lane % 2). Of A it holds that row, of B those columns. Which element a lane
// holds is not defined on a GPU either.
#ifndef MS_DEFORM_TESTS_CUDA_EMULATION_MMA_H_
#define MS_DEFORM_TESTS_CUDA_EMULATION_MMA_H_

#include <cuda_runtime.h>

#include "common/dtype.h"

// What the matrix unit takes: CUDA's names for the halves.
using __half = ms_deform::Float16;
using __nv_bfloat16 = ms_deform::BFloat16;

namespace nvcuda {
namespace wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };

namespace emulated {

constexpr int kSize = 16;
constexpr int kOwn = 8;

inline int OwnRow() { return static_cast<int>(threadIdx.x % 32 / 2); }
inline int OwnColumn() { return static_cast<int>(threadIdx.x % 2) * kOwn; }

// The alignment that the matrix unit asks of its memory.
void CheckMatrix(const void* data, unsigned leading, size_t element);

}  // namespace emulated

template <typename Use, int m, int n, int k, typename T, typename Layout = void>
struct fragment;

template <typename T>
struct fragment<matrix_a, 16, 16, 16, T, row_major> {
  float row[emulated::kSize];
};

template <typename T, typename Layout>
struct fragment<matrix_b, 16, 16, 16, T, Layout> {
  float columns[emulated::kSize][emulated::kOwn];
};

template <>
struct fragment<accumulator, 16, 16, 16, float> {
  float sums[emulated::kOwn];
};

using Sums = fragment<accumulator, 16, 16, 16, float>;

inline void fill_fragment(Sums& sums, float value) {
  std::fill(sums.sums, sums.sums + emulated::kOwn, value);
}

template <typename T>
void load_matrix_sync(fragment<matrix_a, 16, 16, 16, T, row_major>& a, const T* from,
                      unsigned leading) {
  emulated::CheckMatrix(from, leading, sizeof(T));
  for (int i = 0; i < emulated::kSize; ++i) {
    a.row[i] = ms_deform::Load(from[emulated::OwnRow() * leading + i]);
  }
}

template <typename T>
void load_matrix_sync(fragment<matrix_b, 16, 16, 16, T, row_major>& b, const T* from,
                      unsigned leading) {
  emulated::CheckMatrix(from, leading, sizeof(T));
  for (int i = 0; i < emulated::kSize; ++i) {
    for (int j = 0; j < emulated::kOwn; ++j) {
      b.columns[i][j] = ms_deform::Load(from[i * leading + emulated::OwnColumn() + j]);
    }
  }
}

template <typename T>
void load_matrix_sync(fragment<matrix_b, 16, 16, 16, T, col_major>& b, const T* from,
                      unsigned leading) {
  emulated::CheckMatrix(from, leading, sizeof(T));
  for (int i = 0; i < emulated::kSize; ++i) {
    for (int j = 0; j < emulated::kOwn; ++j) {
      b.columns[i][j] = ms_deform::Load(from[(emulated::OwnColumn() + j) * leading + i]);
    }
  }
}

template <typename T, typename Layout>
void mma_sync(Sums& sums, const fragment<matrix_a, 16, 16, 16, T, row_major>& a,
              const fragment<matrix_b, 16, 16, 16, T, Layout>& b, const Sums& added) {
  for (int j = 0; j < emulated::kOwn; ++j) {
    float sum = added.sums[j];
    for (int i = 0; i < emulated::kSize; ++i) {
      sum += a.row[i] * b.columns[i][j];
    }
    sums.sums[j] = sum;
  }
}

inline void store_matrix_sync(float* to, const Sums& sums, unsigned leading, layout_t layout) {
  emulated::CheckMatrix(to, leading, sizeof(float));
  for (int j = 0; j < emulated::kOwn; ++j) {
    const unsigned row = emulated::OwnRow();
    const unsigned column = emulated::OwnColumn() + j;
    to[layout == mem_row_major ? row * leading + column : column * leading + row] = sums.sums[j];
  }
}

}  // namespace wmma
}  // namespace nvcuda

#endif  // MS_DEFORM_TESTS_CUDA_EMULATION_MMA_H_
