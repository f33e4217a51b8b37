// SPDX-License-Identifier: Apache-2.0
// The CPU kernels for one instruction set: compiled once for each, with MS_DEFORM_ISA naming it.
#include "common/calls.h"
#include "cpu/backward_bias.h"
#include "cpu/backward_input.h"
#include "cpu/backward_weight.h"
#include "cpu/forward.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {
namespace {

// The kernels compute in double for float64, in float for everything else.
template <template <typename> class Operation, typename Call>
void Run(const Call& call, void*) {
  const piece_times::Call timed;
  if (call.dtype == DType::kFloat64) {
    Operation<double>(call).Run();
  } else {
    Operation<float>(call).Run();
  }
}

}  // namespace

extern const Kernels kKernels = {
    Run<Forward, ForwardCall>,
    Run<BackwardInput, BackwardInputCall>,
    Run<BackwardWeight, BackwardWeightCall>,
    Run<BackwardBias, BackwardBiasCall>,
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform
