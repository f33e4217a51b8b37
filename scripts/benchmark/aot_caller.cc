// SPDX-License-Identifier: Apache-2.0
// Lets Python call a library's AOT functions: it is the `AotExtra` that they read attributes from.
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "common/aot_extra.h"

namespace {

class Extra : public ms_deform::AotExtra {
 public:
  explicit Extra(const int64_t* constants) : constants_(constants) {}

  bool HasAttr(std::string) override { return true; }
  bool GetAttrBool(std::string name) override {
    return constants_[name == "use_mask" ? 8 : name == "use_bias" ? 9 : 10] != 0;
  }
  int64_t GetAttrInt(std::string) override { return 0; }
  float GetAttrFloat(std::string) override { return 0; }
  std::string GetAttrStr(std::string name) override {
    return name == "caller" ? "deform_conv2d" : "";
  }
  std::vector<int64_t> GetAttrIntVec(std::string name) override {
    const int first = name == "stride" ? 0 : name == "padding" ? 2 : 6;
    return {constants_ + first, constants_ + (name == "padding" ? 6 : first + 2)};
  }

 private:
  const int64_t* constants_;
};

using AotFunction = int (*)(int, void**, int*, int64_t**, const char**, void*, void*);

}  // namespace

// constants: stride (2), padding (4), dilation (2), use_mask, use_bias, deterministic. Returns the
// function's status, or -1 with the text of what it threw.
extern "C" int CallAot(AotFunction function, int count, void** parameters, int* ranks,
                       int64_t** shapes, const char* dtype, void* stream, const int64_t* constants,
                       char* error, int error_size) {
  Extra extra(constants);
  std::vector<const char*> dtypes(static_cast<size_t>(count), dtype);
  try {
    return function(count, parameters, ranks, shapes, dtypes.data(), stream, &extra);
  } catch (const std::exception& thrown) {
    std::strncpy(error, thrown.what(), static_cast<size_t>(error_size) - 1);
    return -1;
  }
}
