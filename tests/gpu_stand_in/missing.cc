// SPDX-License-Identifier: Apache-2.0
#include "missing.h"

#include <cxxabi.h>

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>

int Missing(const char* symbol) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> readable(
      abi::__cxa_demangle(symbol, nullptr, nullptr, &status), &std::free);
  throw std::runtime_error("the GPU stand-in has no " +
                           std::string(status == 0 ? readable.get() : symbol));
}
