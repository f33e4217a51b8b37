// SPDX-License-Identifier: Apache-2.0
// MindSpore hands an AOT operator its attributes through a `mindspore::AotExtra *`. This mirrors
// the head of that class's virtual table (utils/custom_aot_extra.h, the same in MindSpore 2.7
// to 2.10), so that a build needs no MindSpore headers. Compile with _GLIBCXX_USE_CXX11_ABI=0: the
// methods take std::string by value, and MindSpore's wheels are built so. A test holds the mirror
// against the header of the MindSpore that is installed.
#ifndef MS_DEFORM_COMMON_AOT_EXTRA_H_
#define MS_DEFORM_COMMON_AOT_EXTRA_H_

#include <cstdint>
#include <string>
#include <vector>

namespace ms_deform {

class AotExtra {
 public:
  virtual ~AotExtra() = default;
  virtual bool HasAttr(std::string name) = 0;
  virtual bool GetAttrBool(std::string name) = 0;
  virtual int64_t GetAttrInt(std::string name) = 0;
  virtual float GetAttrFloat(std::string name) = 0;
  virtual std::string GetAttrStr(std::string name) = 0;
  virtual std::vector<int64_t> GetAttrIntVec(std::string name) = 0;
};

}  // namespace ms_deform

#endif  // MS_DEFORM_COMMON_AOT_EXTRA_H_
