// SPDX-License-Identifier: Apache-2.0
// In an object of its own, as in CANN's archive: nothing in a library of prototypes calls these.
#include "registry.h"

size_t GetRegisteredOpNum() { return Inferences().size(); }

int GetOpImplFunctions(gert::OperatorInference* inferences, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    inferences[i] = Inferences().at(i);
  }
  return 0;
}
