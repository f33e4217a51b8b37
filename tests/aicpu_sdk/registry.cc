// SPDX-License-Identifier: Apache-2.0
// Stands for librt2_registry.a, which each library of prototypes brings: CANN asks the library
// itself for its inference (hicann/metadef at 786891c0, base/registry/op_impl_functions.cc and
// op_impl_registry_holder_manager.cc).
#include "register/op_impl_registry.h"

namespace {

std::vector<gert::OperatorInference>& Inferences() {
  static std::vector<gert::OperatorInference> inferences;
  return inferences;
}

}  // namespace

namespace gert {

Inference::Inference(const Inference& other)
    : type(other.type), shape(other.shape), dtype(other.dtype) {
  Inferences().push_back({type, shape, dtype});
}

}  // namespace gert

size_t GetRegisteredOpNum() { return Inferences().size(); }

int GetOpImplFunctions(gert::OperatorInference* inferences, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    inferences[i] = Inferences().at(i);
  }
  return 0;
}
