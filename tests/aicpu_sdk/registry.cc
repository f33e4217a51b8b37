// SPDX-License-Identifier: Apache-2.0
#include "registry.h"

std::vector<gert::OperatorInference>& Inferences() {
  static std::vector<gert::OperatorInference> inferences;
  return inferences;
}

namespace gert {

Inference::Inference(const Inference& other)
    : type(other.type), shape(other.shape), dtype(other.dtype) {
  Inferences().push_back({type, shape, dtype});
}

}  // namespace gert
