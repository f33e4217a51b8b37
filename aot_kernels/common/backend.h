// SPDX-License-Identifier: Apache-2.0
// What a backend defines for the AOT entry points of common/aot_entry.cc. `stream` is MindSpore's:
// the CUDA stream on a GPU, meaningless on a CPU. Failures are exceptions; their text reaches the
// user.
#ifndef MS_DEFORM_COMMON_BACKEND_H_
#define MS_DEFORM_COMMON_BACKEND_H_

#include "common/calls.h"

namespace ms_deform {

void Run(const ForwardCall& call, void* stream);
void Run(const BackwardInputCall& call, void* stream);
void Run(const BackwardWeightCall& call, void* stream);
void Run(const BackwardBiasCall& call, void* stream);

}  // namespace ms_deform

#endif  // MS_DEFORM_COMMON_BACKEND_H_
