// SPDX-License-Identifier: Apache-2.0
// Products of matrices by cuBLAS 11, column-major.
#include "elements.h"
#include "handle.h"

namespace {

struct Matrix {
  DataType type;
  const void* data;
  int64_t leading;
  bool transposed;

  double At(int64_t origin, int64_t row, int64_t column) const {
    return Read(type, data,
                origin + (transposed ? column + row * leading : row + column * leading));
  }
};

}  // namespace

MS_HANDLE(cublasCreate_v2, cublasDestroy_v2, cublasSetStream_v2)

extern "C" {

int cublasSetMathMode(void*, int) { return 0; }

int cublasGemmStridedBatchedEx(void*, int transpose_a, int transpose_b, int m, int n, int k,
                               const void* alpha, const void* a_data, DataType a_type, int lda,
                               int64_t a_stride, const void* b_data, DataType b_type, int ldb,
                               int64_t b_stride, const void* beta, void* c, DataType c_type,
                               int ldc, int64_t c_stride, int count, int, int) {
  const Matrix a = {a_type, a_data, lda, transpose_a != 0};
  const Matrix b = {b_type, b_data, ldb, transpose_b != 0};
  const double of_product = Factor(c_type, alpha), of_before = Factor(c_type, beta);
  for (int64_t batch = 0; batch < count; ++batch) {
    for (int64_t row = 0; row < m; ++row) {
      for (int64_t column = 0; column < n; ++column) {
        double sum = 0;
        for (int64_t i = 0; i < k; ++i) {
          sum += a.At(batch * a_stride, row, i) * b.At(batch * b_stride, i, column);
        }
        Blend(c_type, c, batch * c_stride + row + column * ldc, of_product * sum, of_before);
      }
    }
  }
  return 0;
}

int cublasGemmEx(void* handle, int transpose_a, int transpose_b, int m, int n, int k,
                 const void* alpha, const void* a, DataType a_type, int lda, const void* b,
                 DataType b_type, int ldb, const void* beta, void* c, DataType c_type, int ldc,
                 int compute, int algorithm) {
  return cublasGemmStridedBatchedEx(handle, transpose_a, transpose_b, m, n, k, alpha, a, a_type,
                                    lda, 0, b, b_type, ldb, 0, beta, c, c_type, ldc, 0, 1, compute,
                                    algorithm);
}

}  // extern "C"
