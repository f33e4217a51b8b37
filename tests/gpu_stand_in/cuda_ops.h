// SPDX-License-Identifier: Apache-2.0
// Those of MindSpore's own GPU kernels that the tests need, on the host: templates with the names
// and the arguments that the plugin's symbols tell. gpu_stand_in.py instantiates each as those
// symbols spell it, so that one which MindSpore changes no longer compiles.
#ifndef MS_DEFORM_TESTS_GPU_STAND_IN_CUDA_OPS_H_
#define MS_DEFORM_TESTS_GPU_STAND_IN_CUDA_OPS_H_

#include <ir/tensor_storage_info.h>  // of the MindSpore that is installed

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>

#include "elements.h"
#include "missing.h"

struct CUstream_st;
struct curandStatePhilox4_32_10;
enum cudaError { kSuccess = 0 };

// MindSpore numbers its operations and reductions; test_gpu_stand_in.py compares those below with
// NumPy. The others are missing.
enum class ElwiseOpType : int {};
enum class BinaryOpType : int {};
enum ReduceType_t : int {};
enum class ReductionMode : int {};

[[gnu::noinline]] inline double Unary(ElwiseOpType operation, double x, const char* symbol) {
  switch (static_cast<int>(operation)) {
    case 0:
      return std::sin(x);
    case 1:
      return std::cos(x);
    case 5:
      return std::tanh(x);
    case 15:
      return std::fabs(x);
    case 16:
      return std::sqrt(x);
    case 18:
      return 1 / std::sqrt(x);
    case 19:
      return (x > 0) - (x < 0);
    case 20:
      return x * x;
    case 21:
      return std::exp(x);
    case 22:
      return 1 / (1 + std::exp(-x));
    case 23:
      return x == 0;
    case 24:
      return x <= 0 ? 0 : x;
    case 25:
      return std::log(x);
    case 26:
      return -x;
    case 27:
      return 1 / x;
    case 33:
      return std::floor(x);
    case 36:
      return 1;
    default:
      Missing(symbol);
  }
}

[[gnu::noinline]] inline double Binary(BinaryOpType operation, double a, double b,
                                       const char* symbol) {
  switch (static_cast<int>(operation)) {
    case 0:
      return a > b;
    case 1:
      return a < b;
    case 2:
      return a == b;
    case 3:
      return a >= b;
    case 4:
      return a <= b;
    case 5:
      return a != b;
    case 6:
      return a != 0 && b != 0;
    case 7:
      return a != 0 || b != 0;
    case 8:
      return a > b || std::isnan(a) ? a : b;
    case 9:
      return a < b || std::isnan(a) ? a : b;
    case 10:
      return a + b;
    case 11:
      return a - b;
    case 12:
      return a * b;
    case 13:
    case 15:
      return a / b;
    case 14:
      return std::pow(a, b);
    default:
      Missing(symbol);
  }
}

// The gradient of an operation from its result y.
inline double UnaryGradient(ElwiseOpType operation, double y, double grad, const char* symbol) {
  switch (static_cast<int>(operation)) {
    case 205:
      return grad * (1 - y * y);
    case 210:
      return grad * y * (1 - y);
    default:
      Missing(symbol);
  }
}

template <typename From, typename To>
cudaError Cast(int count, const From* from, To* to, CUstream_st*) {
  std::transform(from, from + count, to, [](From x) { return Element<To>(Value(x)); });
  return kSuccess;
}

template <ElwiseOpType operation, typename From, typename To>
cudaError UnaryOpsCudaFunc(size_t count, const From* from, To* to, CUstream_st*) {
  for (size_t i = 0; i < count; ++i) {
    to[i] = Element<To>(Unary(operation, Value(from[i]), __PRETTY_FUNCTION__));
  }
  return kSuccess;
}

template <ElwiseOpType operation, typename A, typename B, typename To>
cudaError BinaryOpsCudaFunc(size_t count, const A* a, const B* b, To* to, CUstream_st*) {
  for (size_t i = 0; i < count; ++i) {
    to[i] = Element<To>(UnaryGradient(operation, Value(a[i]), Value(b[i]), __PRETTY_FUNCTION__));
  }
  return kSuccess;
}

template <BinaryOpType operation, typename A, typename B, typename To>
cudaError BinaryOpWithBroadcastCudaFunc(bool, const Shape& a_shape, const Shape& b_shape,
                                        const Shape& shape, A* a, B* b, To* to, size_t,
                                        CUstream_st*) {
  const Shape a_strides = BroadcastStrides(a_shape, shape);
  const Shape b_strides = BroadcastStrides(b_shape, shape);
  for (int64_t i = 0; i < CountOf(shape); ++i) {
    to[i] = Element<To>(Binary(operation, Value(a[PlaceOf(i, shape, a_strides)]),
                               Value(b[PlaceOf(i, shape, b_strides)]), __PRETTY_FUNCTION__));
  }
  return kSuccess;
}

template <typename T>
cudaError FillV2(int64_t count, const T* value, T* to, unsigned, CUstream_st*) {
  std::fill_n(to, count, *value);
  return kSuccess;
}

template <typename T>
cudaError FillDeviceArray(size_t count, T* to, float value, CUstream_st*) {
  std::fill_n(to, count, Element<T>(Value(value)));
  return kSuccess;
}

template <typename T>
cudaError CalSelect(const bool* which, const T* a, const T* b, T* to, size_t count, CUstream_st*) {
  for (size_t i = 0; i < count; ++i) {
    to[i] = which[i] ? a[i] : b[i];
  }
  return kSuccess;
}

template <typename T>
cudaError CalReLUGrad(int count, T* grad, T* output, T* to, CUstream_st*) {
  for (int i = 0; i < count; ++i) {
    to[i] = Value(output[i]) > 0 ? grad[i] : Element<T>(0);
  }
  return kSuccess;
}

template <typename T>
cudaError CalAssignAdd(size_t count, T* variable, const T* value, T* to, const unsigned&,
                       CUstream_st*) {
  for (size_t i = 0; i < count; ++i) {
    to[i] = variable[i] = Element<T>(Value(variable[i]) + Value(value[i]));
  }
  return kSuccess;
}

// The axes are reduced and kept by turns.
template <typename T>
cudaError ArrayReduce(T* from, const std::vector<size_t>& sizes, bool reduce_first,
                      ReduceType_t type, T*, T* to, CUstream_st*) {
  const bool mean = type == 4;
  if (type != 0 && !mean) {
    Missing("ArrayReduce but sums and means");
  }
  const Shape shape(sizes.begin(), sizes.end());
  Shape kept = shape;
  for (size_t axis = reduce_first ? 0 : 1; axis < kept.size(); axis += 2) {
    kept[axis] = 1;
  }
  const auto sums = Sums(shape, kept, [&](int64_t i) { return Value(from[i]); });
  const double terms = mean ? Value(CountOf(shape)) / Value(CountOf(kept)) : 1;
  std::transform(sums.begin(), sums.end(), to, [&](double sum) { return Element<T>(sum / terms); });
  return kSuccess;
}

template <typename T>
cudaError CalBiasAddGradNCHW(size_t count, size_t channels, int height, int width, T const* from,
                             T* to, CUstream_st*) {
  std::vector<double> sums(channels);
  const size_t pixels = static_cast<size_t>(height) * static_cast<size_t>(width);
  for (size_t i = 0; i < count; ++i) {
    sums[i / pixels % channels] += Value(from[i]);
  }
  std::transform(sums.begin(), sums.end(), to, Element<T>);
  return kSuccess;
}

// From the results of softmax, [batch, classes].
template <typename T, typename Label>
cudaError CrossEntropyWithSparse(const T* from, const Label* labels, size_t batch, size_t classes,
                                 T* to, CUstream_st*) {
  double sum = 0;
  for (size_t i = 0; i < batch; ++i) {
    sum -= std::log(Value(from[i * classes + static_cast<size_t>(labels[i])]));
  }
  *to = Element<T>(sum / Value(batch));
  return kSuccess;
}

template <typename T, typename Label>
cudaError CrossEntropyGradWithSparse(const T* from, const Label* labels, size_t batch,
                                     size_t classes, T* to, CUstream_st*) {
  for (size_t i = 0; i < batch * classes; ++i) {
    const double expected = i % classes == static_cast<size_t>(labels[i / classes]) ? 1 : 0;
    to[i] = Element<T>((Value(from[i]) - expected) / Value(batch));
  }
  return kSuccess;
}

// to[i] = from[origin + the place of i]
template <typename T>
void Gather(const Shape& shape, const Shape& strides, int64_t origin, const T* from, T* to) {
  for (int64_t i = 0; i < CountOf(shape); ++i) {
    to[i] = from[origin + PlaceOf(i, shape, strides)];
  }
}

template <typename T>
cudaError CalAsStrided(const size_t&, const T* from, T* to,
                       const std::shared_ptr<mindspore::TensorStorageInfo>& info, const int64_t*,
                       const int64_t*, CUstream_st*) {
  Gather(info->shape, info->strides, static_cast<int64_t>(info->storage_offset), from, to);
  return kSuccess;
}

template <typename T>
cudaError BroadcastTo(const Shape& shape, const Shape& to_shape, T* from, T* to, size_t,
                      CUstream_st*) {
  Gather(to_shape, BroadcastStrides(shape, to_shape), 0, from, to);
  return kSuccess;
}

struct TransposeInfo {
  Shape shape;
  std::vector<int32_t> order;
};

template <typename T, bool>
cudaError CalTranspose(size_t, const T* from, const TransposeInfo& info, T* to, CUstream_st*) {
  const Shape strides = StridesOf(info.shape);
  Shape to_shape, to_strides;
  for (size_t i = 0; i < info.shape.size(); ++i) {
    to_shape.push_back(info.shape[info.order[i]]);
    to_strides.push_back(strides[info.order[i]]);
  }
  Gather(to_shape, to_strides, 0, from, to);
  return kSuccess;
}

// Each axis of the result is two: the copies, and the elements of one.
template <typename T>
cudaError CalTile(std::vector<size_t> sizes, std::vector<size_t> to_sizes, const T* from, T* to,
                  CUstream_st*) {
  const Shape strides = StridesOf(Shape(sizes.begin(), sizes.end()));
  Shape to_shape, to_strides;
  for (size_t i = 0; i < sizes.size(); ++i) {
    to_shape.insert(to_shape.end(), {int64_t(to_sizes[i] / sizes[i]), int64_t(sizes[i])});
    to_strides.insert(to_strides.end(), {0, strides[i]});
  }
  Gather(to_shape, to_strides, 0, from, to);
  return kSuccess;
}

struct Slice {
  Shape shape;
  Shape strides;
  int64_t origin = 0;
};

inline Slice SliceOf(const std::vector<size_t>& whole, const Shape& begin, const Shape& step,
                     const std::vector<size_t>& part) {
  Slice slice = {Shape(part.begin(), part.end()), StridesOf(Shape(whole.begin(), whole.end()))};
  for (size_t axis = 0; axis < whole.size(); ++axis) {
    slice.origin += begin[axis] * slice.strides[axis];
    slice.strides[axis] *= step[axis];
  }
  return slice;
}

template <typename T>
cudaError StridedSlice(const std::vector<size_t>& whole, const Shape& begin, const Shape& step,
                       const std::vector<size_t>& part, const T* from, T* to, CUstream_st*) {
  const Slice slice = SliceOf(whole, begin, step, part);
  Gather(slice.shape, slice.strides, slice.origin, from, to);
  return kSuccess;
}

template <typename T>
cudaError StridedSliceGrad(const std::vector<size_t>& part, const Shape& begin, const Shape& step,
                           const std::vector<size_t>& whole, const T* from, T* to, CUstream_st*) {
  const Slice slice = SliceOf(whole, begin, step, part);
  for (int64_t i = 0; i < CountOf(slice.shape); ++i) {
    to[slice.origin + PlaceOf(i, slice.shape, slice.strides)] = from[i];
  }
  return kSuccess;
}

// A block of the result is the inputs one after the other, each sizes[i] times inner long.
template <typename T>
cudaError ConcatKernel(size_t count, int, int block, int inner, int* sizes, T** from, T* to,
                       CUstream_st*) {
  for (int i = 0; i < static_cast<int>(count); ++i) {
    int within = i % block, input = 0;
    while (within >= sizes[input] * inner) {
      within -= sizes[input++] * inner;
    }
    to[i] = from[input][i / block * sizes[input] * inner + within];
  }
  return kSuccess;
}

template <typename T>
cudaError PackKernel(size_t count, size_t inputs, size_t inner, T** from, T* to, CUstream_st*) {
  for (size_t i = 0; i < count; ++i) {
    const size_t slice = i / inner;
    to[i] = from[slice % inputs][slice / inputs * inner + i % inner];
  }
  return kSuccess;
}

template <typename T>
cudaError UnpackKernel(size_t count, size_t outputs, size_t inner, T** to, const T* from,
                       CUstream_st*) {
  for (size_t i = 0; i < count; ++i) {
    const size_t slice = i / inner;
    to[slice % outputs][slice / outputs * inner + i % inner] = from[i];
  }
  return kSuccess;
}

// Any values of the distribution: MindSpore's own seeds are not kept.
template <typename Distribution, typename T>
cudaError Draw(T* to, size_t count) {
  static std::mt19937 engine(0);
  Distribution distribution;
  std::generate_n(to, count, [&] { return Element<T>(distribution(engine)); });
  return kSuccess;
}

template <typename T>
cudaError StandardNormal(size_t, size_t, curandStatePhilox4_32_10*, T* to, size_t count,
                         CUstream_st*) {
  return Draw<std::normal_distribution<double>>(to, count);
}

template <typename T>
cudaError UniformReal(size_t, size_t, curandStatePhilox4_32_10*, T* to, size_t count,
                      CUstream_st*) {
  return Draw<std::uniform_real_distribution<double>>(to, count);
}

template <typename T>
cudaError SGD(int count, T dampening, T decay, bool nesterov, const T* rate, const T* momentum,
              const T* grad, T* variable, T* sum, T* first, CUstream_st*) {
  for (int i = 0; i < count; ++i) {
    T step = grad[i] + decay * variable[i];
    if (*momentum > 0) {
      sum[i] = first[i] > 0 ? step : sum[i] * *momentum + (1 - dampening) * step;
      first[i] = 0;
      step = nesterov ? step + sum[i] * *momentum : sum[i];
    }
    variable[i] -= *rate * step;
  }
  return kSuccess;
}

template <typename T>
cudaError ApplyAdam(size_t count, int64_t, const T* grad, const T* power_1, const T* power_2,
                    const T* rate, const T* beta_1, const T* beta_2, const T* epsilon, T* variable,
                    T* mean, T* square, bool, CUstream_st*) {
  const double scaled = Value(*rate) * std::sqrt(1 - Value(*power_2)) / (1 - Value(*power_1));
  for (size_t i = 0; i < count; ++i) {
    const double g = Value(grad[i]);
    const double m = Value(mean[i]) + (1 - Value(*beta_1)) * (g - Value(mean[i]));
    const double s = Value(square[i]) + (1 - Value(*beta_2)) * (g * g - Value(square[i]));
    const double moved = scaled * m / (std::sqrt(s) + Value(*epsilon));
    variable[i] = Element<T>(Value(variable[i]) - moved);
    mean[i] = Element<T>(m);
    square[i] = Element<T>(s);
  }
  return kSuccess;
}

#endif  // MS_DEFORM_TESTS_GPU_STAND_IN_CUDA_OPS_H_
