// SPDX-License-Identifier: Apache-2.0
// A test double of CANN's operator prototypes, as far as the project declares any.
#ifndef MS_DEFORM_TESTS_AICPU_SDK_GRAPH_OPERATOR_REG_H_
#define MS_DEFORM_TESTS_AICPU_SDK_GRAPH_OPERATOR_REG_H_

#include <initializer_list>
#include <map>
#include <string>
#include <vector>

namespace ge {

enum DataType { DT_FLOAT = 0, DT_FLOAT16 = 1, DT_INT64 = 9 };

class TensorType {
 public:
  TensorType(const std::initializer_list<DataType>& types) : types_(types) {}

 private:
  std::vector<DataType> types_;
};

// The parameters of an operator.
struct Prototype {
  explicit Prototype(const char* type) : name(type) {}
  Prototype& Input(const char* parameter, const TensorType&) {
    inputs.push_back(parameter);
    return *this;
  }
  Prototype& Output(const char* parameter, const TensorType&) {
    outputs.push_back(parameter);
    return *this;
  }
  // The macros' last call.
  const Prototype& self() const { return *this; }
  std::string name;
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
};

bool AddPrototype(const Prototype& prototype);

}  // namespace ge

extern "C" const std::map<std::string, ge::Prototype>* RegisteredOperators();

#define REG_OP(type) static const bool type##_is_declared = ge::AddPrototype(ge::Prototype(#type)
#define INPUT(parameter, types) Input(#parameter, types)
#define OUTPUT(parameter, types) Output(#parameter, types)
#define OP_END_FACTORY_REG(type) self());

#endif  // MS_DEFORM_TESTS_AICPU_SDK_GRAPH_OPERATOR_REG_H_
