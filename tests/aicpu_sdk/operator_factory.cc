// SPDX-License-Identifier: Apache-2.0
// Stands for CANN's register of operators, in libregister.so and what it needs. The operators that
// are registered first stay (hicann/ge at ffdcbc9f, RegisterOperatorCreator of
// graph_metadef/graph/normal_graph/operator_factory_impl.cc).
#include "graph/operator_reg.h"

namespace {

std::map<std::string, ge::Prototype>& Operators() {
  static std::map<std::string, ge::Prototype> operators;
  return operators;
}

}  // namespace

namespace ge {

bool AddPrototype(const Prototype& prototype) {
  return Operators().emplace(prototype.name, prototype).second;
}

}  // namespace ge

const std::map<std::string, ge::Prototype>* RegisteredOperators() { return &Operators(); }
