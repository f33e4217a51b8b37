// SPDX-License-Identifier: Apache-2.0
// Stands for librt2_registry.a, which each library of prototypes brings: CANN asks the library
// itself for its inference (hicann/metadef at 786891c0, base/registry/op_impl_functions.cc and
// op_impl_registry_holder_manager.cc).
#ifndef MS_DEFORM_TESTS_AICPU_SDK_REGISTRY_H_
#define MS_DEFORM_TESTS_AICPU_SDK_REGISTRY_H_

#include "register/op_impl_registry.h"

__attribute__((visibility("hidden"))) std::vector<gert::OperatorInference>& Inferences();

#endif  // MS_DEFORM_TESTS_AICPU_SDK_REGISTRY_H_
