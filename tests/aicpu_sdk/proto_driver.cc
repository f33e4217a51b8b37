// SPDX-License-Identifier: Apache-2.0
// Prints, for each operator of the prototypes' source that is compiled with this: its parameters,
// and the shapes and dtypes inferred for a call of it.
#include <iostream>

#include "register/op_impl_registry.h"

namespace {

std::vector<ge::Prototype>& Prototypes() {
  static std::vector<ge::Prototype> prototypes;
  return prototypes;
}

struct Registered {
  std::string type;
  ge::graphStatus (*shape)(gert::InferShapeContext*);
  ge::graphStatus (*dtype)(gert::InferDataTypeContext*);
};

std::vector<Registered>& Inferences() {
  static std::vector<Registered> inferences;
  return inferences;
}

template <typename Item>
void Print(const char* title, const std::vector<Item>& items) {
  std::cout << title;
  for (const Item& item : items) {
    std::cout << " " << item;
  }
  std::cout << std::endl;
}

}  // namespace

namespace ge {

bool AddPrototype(const Prototype& prototype) {
  Prototypes().push_back(prototype);
  return true;
}

}  // namespace ge

namespace gert {

Inference::Inference(const Inference& other)
    : type(other.type), shape(other.shape), dtype(other.dtype) {
  Inferences().push_back({type, shape, dtype});
}

}  // namespace gert

int main() {
  for (const ge::Prototype& prototype : Prototypes()) {
    Print(prototype.name.c_str(), prototype.inputs);
    Print("  outputs", prototype.outputs);
    for (const Registered& inference : Inferences()) {
      if (inference.type != prototype.name) {
        continue;
      }
      gert::InferShapeContext shapes;
      shapes.inputs = {{{2, 4, 7, 9}}, {{2, 18, 5, 6}}, {{2, 9, 5, 6}},
                       {{8, 4, 3, 3}}, {{8}},           {{10}}};
      shapes.outputs.resize(prototype.outputs.size());
      gert::InferDataTypeContext dtypes;
      dtypes.inputs.assign(prototype.inputs.size(), ge::DT_FLOAT16);
      dtypes.outputs.resize(prototype.outputs.size());
      std::cout << "  status " << inference.shape(&shapes) << " " << inference.dtype(&dtypes)
                << std::endl;
      for (size_t i = 0; i < shapes.outputs.size(); ++i) {
        Print("  shape", shapes.outputs[i].sizes);
        std::cout << "  dtype " << dtypes.outputs[i] << std::endl;
      }
    }
  }
}
