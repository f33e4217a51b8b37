// SPDX-License-Identifier: Apache-2.0
#include "common/last_error.h"

#include <mutex>

namespace ms_deform {
namespace {

struct Kept {
  std::mutex guard;
  std::string text;
};

Kept& TheKept() {
  static auto* kept = new Kept;  // never destroyed: operators may run while the process ends
  return *kept;
}

}  // namespace

void KeepError(const std::string& text) {
  Kept& kept = TheKept();
  const std::lock_guard<std::mutex> lock(kept.guard);
  kept.text = text;
}

const char* LastError() {
  static thread_local std::string copy;
  Kept& kept = TheKept();
  const std::lock_guard<std::mutex> lock(kept.guard);
  copy = kept.text;
  return copy.c_str();
}

}  // namespace ms_deform
