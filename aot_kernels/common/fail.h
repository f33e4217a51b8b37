// SPDX-License-Identifier: Apache-2.0
// What a call that cannot be served ends with.
#ifndef MS_DEFORM_COMMON_FAIL_H_
#define MS_DEFORM_COMMON_FAIL_H_

#include <cstdint>
#include <stdexcept>
#include <string>

namespace ms_deform {

// Not std::ostringstream: a newer compiler's needs a newer libstdc++ than a wheel may ask for.
static inline std::string TextOf(int64_t number) { return std::to_string(number); }
static inline std::string TextOf(const std::string& text) { return text; }

// Throws the parts as one text, after the name of what the user called.
template <typename... Parts>
[[noreturn]] void Fail(const std::string& caller, const Parts&... parts) {
  std::string text = caller + ": ";
  const int written[] = {(text += TextOf(parts), 0)...};
  static_cast<void>(written);
  throw std::invalid_argument(text);
}

}  // namespace ms_deform

#endif  // MS_DEFORM_COMMON_FAIL_H_
