// SPDX-License-Identifier: Apache-2.0
// proto_driver LIBRARY...: loads libraries of prototypes as CANN does, and prints, for each of the
// operators: its parameters, and the shapes and dtypes inferred for a call of it. CANN itself is
// loaded as by MindSpore, out of the sight of what is loaded later.
#include <dlfcn.h>

#include <iostream>
#include <map>

#include "register/op_impl_registry.h"

namespace {

std::map<std::string, gert::OperatorInference> inferences;

template <typename Item>
void Print(const char* title, const std::vector<Item>& items) {
  std::cout << title;
  for (const Item& item : items) {
    std::cout << " " << item;
  }
  std::cout << std::endl;
}

// As OpsProtoManager of hicann/ge and OpImplRegistryHolder of hicann/metadef.
bool Load(const char* library) {
  void* const handle = dlopen(library, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
  if (handle == nullptr) {
    std::cerr << dlerror() << std::endl;
    return false;
  }
  const auto count =
      reinterpret_cast<decltype(&GetRegisteredOpNum)>(dlsym(handle, "GetRegisteredOpNum"));
  const auto read =
      reinterpret_cast<decltype(&GetOpImplFunctions)>(dlsym(handle, "GetOpImplFunctions"));
  if (count == nullptr || read == nullptr) {
    std::cerr << library << " says nothing of inference" << std::endl;
    return false;
  }
  std::vector<gert::OperatorInference> found(count());
  if (read(found.data(), found.size()) != 0) {
    return false;
  }
  for (const gert::OperatorInference& inference : found) {
    inferences[inference.type] = inference;
  }
  return true;
}

}  // namespace

int main(int count, char** libraries) {
  void* const cann = dlopen("libregister.so", RTLD_NOW | RTLD_LOCAL);
  if (cann == nullptr) {
    std::cerr << dlerror() << std::endl;
    return 1;
  }
  for (int i = 1; i < count; ++i) {
    if (!Load(libraries[i])) {
      return 1;
    }
  }
  const auto operators =
      reinterpret_cast<decltype(&RegisteredOperators)>(dlsym(cann, "RegisteredOperators"));
  for (const auto& named : *operators()) {
    const ge::Prototype& prototype = named.second;
    Print(prototype.name.c_str(), prototype.inputs);
    Print("  outputs", prototype.outputs);
    const gert::OperatorInference& inference = inferences.at(prototype.name);
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
