// SPDX-License-Identifier: Apache-2.0
// Convolutions, broadcast sums and softmax of cuDNN 8, NCHW, by their definition.
#include <algorithm>
#include <cmath>

#include "elements.h"
#include "handle.h"
#include "missing.h"

namespace {

// Of a tensor, a filter, a convolution or an operation.
struct Descriptor {
  DataType type;
  Shape shape;
  int padding[2];
  int stride[2];
  int dilation[2];
  int groups = 1;

  size_t bytes() const {
    const size_t element = type == DataType::kDouble ? 8 : type == DataType::kHalf ? 2 : 4;
    return static_cast<size_t>(CountOf(shape)) * element;
  }
};

using D = Descriptor;

int Make(D** descriptor) {
  *descriptor = new D;
  return 0;
}

int Drop(D* descriptor) {
  delete descriptor;
  return 0;
}

int Describe(D* descriptor, DataType type, const Shape& shape) {
  descriptor->type = type;
  descriptor->shape = shape;
  return 0;
}

// visit(x, w, y) with the places of every product of the convolution y = x * w.
template <typename Visit>
void ForEachProduct(const D& x, const D& w, const D& c, const D& y, const Visit& visit) {
  const Shape x_strides = StridesOf(x.shape), w_strides = StridesOf(w.shape);
  const int64_t group_in = w.shape[1], group_out = w.shape[0] / c.groups;
  for (int64_t at = 0; at < CountOf(y.shape); ++at) {
    const int64_t column = at % y.shape[3], row = at / y.shape[3] % y.shape[2];
    const int64_t out = at / (y.shape[3] * y.shape[2]) % y.shape[1];
    const int64_t image = at / (y.shape[3] * y.shape[2] * y.shape[1]);
    for (int64_t tap = 0; tap < CountOf(w.shape) / w.shape[0]; ++tap) {
      const int64_t j = tap % w.shape[3], i = tap / w.shape[3] % w.shape[2];
      const int64_t in = out / group_out * group_in + tap / w_strides[1];
      const int64_t x_row = row * c.stride[0] - c.padding[0] + i * c.dilation[0];
      const int64_t x_column = column * c.stride[1] - c.padding[1] + j * c.dilation[1];
      if (0 <= x_row && x_row < x.shape[2] && 0 <= x_column && x_column < x.shape[3]) {
        visit(image * x_strides[0] + in * x_strides[1] + x_row * x_strides[2] + x_column,
              out * w_strides[0] + tap, at);
      }
    }
  }
}

// data = alpha * sums + beta * data
int Store(const D& of, void* data, const std::vector<double>& sums, double alpha, double beta) {
  for (size_t i = 0; i < sums.size(); ++i) {
    Blend(of.type, data, static_cast<int64_t>(i), alpha * sums[i], beta);
  }
  return 0;
}

std::vector<double> ZerosOf(const D& descriptor) {
  return std::vector<double>(static_cast<size_t>(CountOf(descriptor.shape)));
}

// The head of cudnnConvolution*AlgoPerf_t; the rest are costs.
struct Performance {
  int algorithm;
  int status;
};

int Answer(int* returned, Performance* performance) {
  *returned = 1;
  *performance = {};
  return 0;
}

}  // namespace

MS_HANDLE(cudnnCreate, cudnnDestroy, cudnnSetStream)

extern "C" {

const char* cudnnGetErrorString(int) { return "an error of the GPU stand-in"; }

// MindSpore makes some of these whether it needs them or not.
#define MS_DESCRIPTOR(What)                                      \
  int cudnnCreate##What##Descriptor(D** to) { return Make(to); } \
  int cudnnDestroy##What##Descriptor(D* of) { return Drop(of); }
MS_DESCRIPTOR(Tensor)
MS_DESCRIPTOR(Filter)
MS_DESCRIPTOR(Convolution)
MS_DESCRIPTOR(OpTensor)
MS_DESCRIPTOR(ReduceTensor)
MS_DESCRIPTOR(Activation)
MS_DESCRIPTOR(Pooling)
MS_DESCRIPTOR(Dropout)

int cudnnSetTensor4dDescriptor(D* of, int, DataType type, int n, int c, int h, int w) {
  return Describe(of, type, {n, c, h, w});
}
int cudnnSetTensorNdDescriptor(D* of, DataType type, int rank, const int* sizes, const int*) {
  return Describe(of, type, Shape(sizes, sizes + rank));
}
int cudnnSetTensorNdDescriptorEx(D* of, int, DataType type, int rank, const int* sizes) {
  return Describe(of, type, Shape(sizes, sizes + rank));
}
int cudnnSetFilter4dDescriptor(D* of, DataType type, int, int k, int c, int h, int w) {
  return Describe(of, type, {k, c, h, w});
}
int cudnnSetFilterNdDescriptor(D* of, DataType type, int, int rank, const int* sizes) {
  return Describe(of, type, Shape(sizes, sizes + rank));
}
int cudnnGetTensorSizeInBytes(D* of, size_t* bytes) {
  *bytes = of->bytes();
  return 0;
}
int cudnnGetFilterSizeInBytes(D* of, size_t* bytes) {
  *bytes = of->bytes();
  return 0;
}

int cudnnSetConvolutionNdDescriptor(D* of, int, const int* padding, const int* stride,
                                    const int* dilation, int, int) {
  std::copy_n(padding, 2, of->padding);
  std::copy_n(stride, 2, of->stride);
  std::copy_n(dilation, 2, of->dilation);
  return 0;
}
int cudnnSetConvolution2dDescriptor(D* of, int pad_h, int pad_w, int stride_h, int stride_w,
                                    int dilation_h, int dilation_w, int mode, int type) {
  const int padding[] = {pad_h, pad_w}, stride[] = {stride_h, stride_w};
  const int dilation[] = {dilation_h, dilation_w};
  return cudnnSetConvolutionNdDescriptor(of, 2, padding, stride, dilation, mode, type);
}
int cudnnSetConvolutionGroupCount(D* of, int groups) {
  of->groups = groups;
  return 0;
}
int cudnnSetConvolutionMathType(D*, int) { return 0; }

#define MS_ALGORITHM(Name)                                                                  \
  int cudnnGetConvolution##Name##Algorithm_v7(void*, D*, D*, D*, D*, int, int* returned,    \
                                              Performance* performance) {                   \
    return Answer(returned, performance);                                                   \
  }                                                                                         \
  int cudnnFindConvolution##Name##Algorithm(void*, D*, D*, D*, D*, int, int* returned,      \
                                            Performance* performance) {                     \
    return Answer(returned, performance);                                                   \
  }                                                                                         \
  int cudnnGetConvolution##Name##WorkspaceSize(void*, D*, D*, D*, D*, int, size_t* bytes) { \
    *bytes = 0;                                                                             \
    return 0;                                                                               \
  }
MS_ALGORITHM(Forward)
MS_ALGORITHM(BackwardData)
MS_ALGORITHM(BackwardFilter)

int cudnnConvolutionForward(void*, const void* alpha, D* x, const void* x_data, D* w,
                            const void* w_data, D* c, int, void*, size_t, const void* beta, D* y,
                            void* y_data) {
  std::vector<double> sums = ZerosOf(*y);
  ForEachProduct(*x, *w, *c, *y, [&](int64_t i, int64_t j, int64_t k) {
    sums[k] += Read(x->type, x_data, i) * Read(w->type, w_data, j);
  });
  return Store(*y, y_data, sums, Factor(y->type, alpha), Factor(y->type, beta));
}

int cudnnConvolutionBackwardData(void*, const void* alpha, D* w, const void* w_data, D* dy,
                                 const void* dy_data, D* c, int, void*, size_t, const void* beta,
                                 D* dx, void* dx_data) {
  std::vector<double> sums = ZerosOf(*dx);
  ForEachProduct(*dx, *w, *c, *dy, [&](int64_t i, int64_t j, int64_t k) {
    sums[i] += Read(w->type, w_data, j) * Read(dy->type, dy_data, k);
  });
  return Store(*dx, dx_data, sums, Factor(dx->type, alpha), Factor(dx->type, beta));
}

int cudnnConvolutionBackwardFilter(void*, const void* alpha, D* x, const void* x_data, D* dy,
                                   const void* dy_data, D* c, int, void*, size_t, const void* beta,
                                   D* dw, void* dw_data) {
  std::vector<double> sums = ZerosOf(*dw);
  ForEachProduct(*x, *dw, *c, *dy, [&](int64_t i, int64_t j, int64_t k) {
    sums[j] += Read(x->type, x_data, i) * Read(dy->type, dy_data, k);
  });
  return Store(*dw, dw_data, sums, Factor(dw->type, alpha), Factor(dw->type, beta));
}

int cudnnSetOpTensorDescriptor(D*, int operation, int, int) {
  return operation == 0 ? 0 : Missing("cudnnOpTensor but sums");
}

// c = alpha a + beta b + gamma c, b broadcast.
int cudnnOpTensor(void*, D*, const void* alpha, D* a, const void* a_data, const void* beta, D* b,
                  const void* b_data, const void* gamma, D* c, void* c_data) {
  std::vector<double> sums = ZerosOf(*c);
  const Shape strides = BroadcastStrides(b->shape, c->shape);
  for (size_t i = 0; i < sums.size(); ++i) {
    const int64_t at = static_cast<int64_t>(i);
    sums[i] = Factor(c->type, alpha) * Read(a->type, a_data, at) +
              Factor(c->type, beta) * Read(b->type, b_data, PlaceOf(at, c->shape, strides));
  }
  return Store(*c, c_data, sums, 1, Factor(c->type, gamma));
}

int cudnnSetReduceTensorDescriptor(D*, int operation, int, int, int, int) {
  return operation == 0 ? 0 : Missing("cudnnReduceTensor but sums");
}
int cudnnGetReductionIndicesSize(void*, D*, D*, D*, size_t* bytes) {
  *bytes = 0;
  return 0;
}
int cudnnGetReductionWorkspaceSize(void*, D*, D*, D*, size_t* bytes) {
  *bytes = 0;
  return 0;
}

// c = alpha * the sums of a over the axes that have the size 1 in c + beta * c
int cudnnReduceTensor(void*, D*, void*, size_t, void*, size_t, const void* alpha, D* a,
                      const void* a_data, const void* beta, D* c, void* c_data) {
  const auto sums = Sums(a->shape, c->shape, [&](int64_t i) { return Read(a->type, a_data, i); });
  return Store(*c, c_data, sums, Factor(c->type, alpha), Factor(c->type, beta));
}

// Over all but the images in mode 0, over the channels in mode 1.
int cudnnSoftmaxForward(void*, int algorithm, int mode, const void* alpha, D* x, const void* x_data,
                        const void* beta, D* y, void* y_data) {
  if (algorithm == 2) {
    Missing("cudnnSoftmaxForward of logarithms");
  }
  Shape kept = {x->shape[0], 1, x->shape[2], x->shape[3]};
  if (mode == 0) {
    kept = {x->shape[0], 1, 1, 1};
  }
  const auto exponential = [&](int64_t i) { return std::exp(Read(x->type, x_data, i)); };
  const std::vector<double> sums = Sums(x->shape, kept, exponential);
  const Shape strides = BroadcastStrides(kept, x->shape);
  std::vector<double> shares = ZerosOf(*y);
  for (size_t i = 0; i < shares.size(); ++i) {
    const int64_t at = static_cast<int64_t>(i);
    shares[i] = exponential(at) / sums[PlaceOf(at, x->shape, strides)];
  }
  return Store(*y, y_data, shares, Factor(y->type, alpha), Factor(y->type, beta));
}

}  // extern "C"
