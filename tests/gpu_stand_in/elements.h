// SPDX-License-Identifier: Apache-2.0
// Elements of tensors, and where they lie. All is computed in double: a whole number beyond 2^53 is
// not exact.
#ifndef MS_DEFORM_TESTS_GPU_STAND_IN_ELEMENTS_H_
#define MS_DEFORM_TESTS_GPU_STAND_IN_ELEMENTS_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "common/dtype.h"

// Named as CUDA names it: the name is a part of the symbols.
struct __half {
  uint16_t bits;
};

template <typename T>
double Value(T element) {
  return static_cast<double>(element);
}
inline double Value(__half element) {
  return static_cast<double>(ms_deform::Load(ms_deform::Float16{element.bits}));
}

template <typename T>
T Element(double value) {
  if constexpr (std::is_same_v<T, __half>) {
    ms_deform::Float16 half;
    ms_deform::Store(static_cast<float>(value), &half);
    return {half.bits};
  } else if constexpr (std::is_same_v<T, bool>) {
    return value != 0;
  } else {
    return static_cast<T>(value);
  }
}

// As cuDNN and cuBLAS number them.
enum class DataType : int { kFloat = 0, kDouble = 1, kHalf = 2 };

inline double Read(DataType type, const void* data, int64_t i) {
  switch (type) {
    case DataType::kDouble:
      return Value(static_cast<const double*>(data)[i]);
    case DataType::kHalf:
      return Value(static_cast<const __half*>(data)[i]);
    default:
      return Value(static_cast<const float*>(data)[i]);
  }
}

inline void Write(DataType type, void* data, int64_t i, double value) {
  switch (type) {
    case DataType::kDouble:
      static_cast<double*>(data)[i] = value;
      break;
    case DataType::kHalf:
      static_cast<__half*>(data)[i] = Element<__half>(value);
      break;
    default:
      static_cast<float*>(data)[i] = Element<float>(value);
  }
}

// value + factor * what is there, which counts only if asked for: it may be a NaN.
inline void Blend(DataType type, void* data, int64_t i, double value, double factor) {
  Write(type, data, i, value + (factor == 0 ? 0 : factor * Read(type, data, i)));
}

// A factor of cuDNN and cuBLAS: a double for doubles, else a float.
inline double Factor(DataType of, const void* factor) {
  return Read(of == DataType::kDouble ? DataType::kDouble : DataType::kFloat, factor, 0);
}

using Shape = std::vector<int64_t>;

inline int64_t CountOf(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) {
    count *= size;
  }
  return count;
}

// The distance of neighbours along each axis of a contiguous tensor.
inline Shape StridesOf(const Shape& shape) {
  Shape strides(shape.size(), 1);
  for (size_t axis = shape.size(); axis-- > 1;) {
    strides[axis - 1] = strides[axis] * shape[axis];
  }
  return strides;
}

// The same for a tensor that is broadcast to a shape: 0 where it has one element for all.
inline Shape BroadcastStrides(const Shape& shape, const Shape& to) {
  const Shape strides = StridesOf(shape);
  Shape result(to.size(), 0);
  for (size_t i = 0; i < shape.size(); ++i) {
    const bool repeated = shape[i] == 1;
    result[to.size() - shape.size() + i] = repeated ? 0 : strides[i];
  }
  return result;
}

// Where the element lies that is number i, in row-major order, of a tensor of this shape.
inline int64_t PlaceOf(int64_t i, const Shape& shape, const Shape& strides) {
  int64_t place = 0;
  for (size_t axis = shape.size(); axis-- > 0; i /= shape[axis]) {
    place += i % shape[axis] * strides[axis];
  }
  return place;
}

// The sums of what read(i) gives for a tensor of a shape, over the axes that have the size 1 in
// kept.
template <typename ReadElement>
std::vector<double> Sums(const Shape& shape, const Shape& kept, const ReadElement& read) {
  std::vector<double> sums(static_cast<size_t>(CountOf(kept)));
  const Shape strides = BroadcastStrides(kept, shape);
  for (int64_t i = 0; i < CountOf(shape); ++i) {
    sums[PlaceOf(i, shape, strides)] += read(i);
  }
  return sums;
}

#endif  // MS_DEFORM_TESTS_GPU_STAND_IN_ELEMENTS_H_
