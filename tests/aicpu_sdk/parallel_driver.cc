// SPDX-License-Identifier: Apache-2.0
// parallel_driver TOTAL PER_UNIT: prints the status of a ParallelFor on the test double, or that an
// exception left it, and the parts that it made, in their order; each of them throws. Then the
// status of a kernel whose units, as many, throw.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

#include "aicpu/call.h"
#include "aicpu/parallel.h"

int main(int, char** arguments) {
  const int64_t total = std::atoll(arguments[1]);
  const aicpu::CpuKernelContext context("", {}, {});
  std::mutex mutex;
  std::vector<std::pair<int64_t, int64_t>> parts;
  const auto work = [&](int64_t begin, int64_t end) {
    const std::lock_guard<std::mutex> lock(mutex);
    parts.emplace_back(begin, end);
    throw std::runtime_error("from a part");
  };
  try {
    std::cout << aicpu::CpuKernelUtils::ParallelFor(context, total, std::atoll(arguments[2]), work);
  } catch (const std::exception&) {
    std::cout << "thrown";
  }
  std::sort(parts.begin(), parts.end());
  for (const auto& part : parts) {
    std::cout << " " << part.first << ":" << part.second;
  }
  using namespace ms_deform::aicpu_backend;
  const uint32_t status = Guarded(context, [&] {
    ForEach({&context, {}, {}}, total, [](int64_t) { throw std::runtime_error("from a unit"); });
  });
  std::cout << std::endl << "kernel " << status << std::endl;
}
