// SPDX-License-Identifier: Apache-2.0
// The test double's threads and its register of kernels.
#include "sdk.h"

#include <cstdlib>
#include <functional>
#include <map>
#include <thread>
#include <vector>

namespace aicpu {

// In the SDK's libraries, but not in the headers of every SDK: not in those of the double either.
class CpuKernelUtils {
 public:
  static uint32_t ParallelFor(const CpuKernelContext& context, int64_t total, int64_t per_unit_size,
                              const std::function<void(int64_t, int64_t)>& work);
};

namespace {

std::map<std::string, KernelCreator>& Kernels() {
  static std::map<std::string, KernelCreator> kernels;
  return kernels;
}

int64_t Threads() {
  const char* threads = std::getenv("MS_DEFORM_TEST_THREADS");
  return threads == nullptr ? 2 : std::atoi(threads);
}

}  // namespace

bool RegistCpuKernel(const std::string& type, const KernelCreator& creator) {
  return Kernels().emplace(type, creator).second;
}

std::shared_ptr<CpuKernel> CreateKernel(const std::string& type) { return Kernels().at(type)(); }

uint32_t CpuKernelUtils::ParallelFor(const CpuKernelContext&, int64_t total, int64_t per_unit_size,
                                     const std::function<void(int64_t, int64_t)>& work) {
  if (total <= 0 || per_unit_size <= 0) {
    return 1;
  }
  const int64_t threads = Threads();
  std::vector<std::thread> running;
  for (int64_t i = 0; i < threads; ++i) {
    running.emplace_back([=, &work] { work(total * i / threads, total * (i + 1) / threads); });
  }
  for (std::thread& thread : running) {
    thread.join();
  }
  return 0;
}

}  // namespace aicpu
