// SPDX-License-Identifier: Apache-2.0
// What a call that cannot be served ends with.
#ifndef MS_DEFORM_COMMON_FAIL_H_
#define MS_DEFORM_COMMON_FAIL_H_

#include <sstream>
#include <stdexcept>
#include <string>

namespace ms_deform {

// Throws the parts as one text, after the name of what the user called.
template <typename... Parts>
[[noreturn]] void Fail(const std::string& caller, const Parts&... parts) {
  std::ostringstream text;
  text << caller << ": ";
  const int written[] = {(text << parts, 0)...};
  static_cast<void>(written);
  throw std::invalid_argument(text.str());
}

}  // namespace ms_deform

#endif  // MS_DEFORM_COMMON_FAIL_H_
