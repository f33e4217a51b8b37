// SPDX-License-Identifier: Apache-2.0
// What every AICPU kernel does before and after its work: reading the context, and turning what
// goes wrong into a status code and a line of log.
//
// Through MindSpore no attributes arrive, so that the constants of a call are a tensor, `geometry`.
// An absent mask or bias is a placeholder of one element that is never read.
#ifndef MS_DEFORM_AICPU_CALL_H_
#define MS_DEFORM_AICPU_CALL_H_

#include <functional>
#include <string>

#include "common/dtype.h"
#include "common/geometry.h"
#include "cpu_context.h"

namespace ms_deform {
namespace aicpu_backend {

// CANN's status codes, which its public headers do not define.
constexpr uint32_t kOk = 0;
constexpr uint32_t kBadParameter = 1;
constexpr uint32_t kInnerError = 2;

enum Parameter { kInput, kOffset, kMask, kWeight, kBias, kGeometry, kParameters };
// The gradients take grad_output where the forward takes bias.
constexpr int kGradOutput = kBias;

// The elements of `geometry`.
enum GeometryElement {
  kStrideHeight,
  kStrideWidth,
  kPadTop,
  kPadBottom,
  kPadLeft,
  kPadRight,
  kDilationHeight,
  kDilationWidth,
  kUseMask,
  kUseBias,
  kGeometryElements
};

// A checked call. All tensors are of the dtype, and as long as the geometry says.
struct Call {
  const aicpu::CpuKernelContext* context;
  Geometry geometry;
  DType dtype;  // kFloat32 or kFloat16

  template <typename Element>
  const Element* Input(int parameter) const {
    return static_cast<const Element*>(context->Input(static_cast<uint32_t>(parameter))->GetData());
  }

  template <typename Element>
  Element* Output(int index) const {
    return static_cast<Element*>(context->Output(static_cast<uint32_t>(index))->GetData());
  }
};

Call ReadForwardCall(const aicpu::CpuKernelContext& context);
Call ReadGradInputCall(const aicpu::CpuKernelContext& context);
Call ReadGradWeightCall(const aicpu::CpuKernelContext& context);

// Runs the work, and gives CANN's status code for what it throws.
uint32_t Guarded(const aicpu::CpuKernelContext& context, const std::function<void()>& work);

// Runs work(unit) for each of `units` units on the device's cores; throws what a unit throws.
void ForEach(const Call& call, int64_t units, const std::function<void(int64_t)>& work);

// The elements of all of a tensor's shape.
int64_t Count(const Shape& shape);

}  // namespace aicpu_backend
}  // namespace ms_deform

#endif  // MS_DEFORM_AICPU_CALL_H_
