// SPDX-License-Identifier: Apache-2.0
// The CPU backend: the choice of the instruction set, and what Python asks for.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "common/calls.h"
#include "common/last_error.h"
#include "common/library_info.h"
#include "cpu/scratch.h"

MS_DEFORM_LIBRARY_INFO("cpu");

namespace ms_deform {

// One for each instruction set that the library was built for; cpu/kernels.cc defines them.
namespace avx512 {
extern const Kernels kKernels;
}
namespace avx2 {
extern const Kernels kKernels;
}
namespace baseline {
extern const Kernels kKernels;
}
namespace neon {
extern const Kernels kKernels;
}

namespace {

struct InstructionSet {
  const char* name;
  const Kernels* kernels;
  bool supported;  // by this machine
};

InstructionSet Choose() {
  const InstructionSet candidates[] = {
#if defined(MS_DEFORM_HAVE_AVX512)
      {"avx512", &avx512::kKernels,
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("fma")},
#endif
#if defined(MS_DEFORM_HAVE_AVX2)
      {"avx2", &avx2::kKernels, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
#endif
#if defined(MS_DEFORM_HAVE_BASELINE)
      {"baseline", &baseline::kKernels, true},
#endif
#if defined(MS_DEFORM_HAVE_NEON)
      {"neon", &neon::kKernels, true},
#endif
  };
  const char* wanted = std::getenv("MS_DEFORM_CPU_ISA");
  const bool any = wanted == nullptr || *wanted == '\0';
  std::string supported;
  for (const InstructionSet& candidate : candidates) {
    if (!candidate.supported) {
      continue;
    }
    if (any || std::strcmp(wanted, candidate.name) == 0) {
      return candidate;
    }
    supported += supported.empty() ? "" : ", ";
    supported += candidate.name;
  }
  throw std::runtime_error(std::string("deform_conv2d: MS_DEFORM_CPU_ISA=") + wanted +
                           " is not available here; unset it or use one of: " + supported);
}

const InstructionSet& Chosen() {
  static const InstructionSet chosen = Choose();
  return chosen;
}

}  // namespace

const Kernels& KernelsFor(DType) { return *Chosen().kernels; }

}  // namespace ms_deform

// The instruction set that the kernels use on this machine, or why there is none.
MS_DEFORM_EXPORT const char* ms_deform_cpu_isa() {
  try {
    return ms_deform::Chosen().name;
  } catch (const std::exception& error) {
    static const std::string text = error.what();
    return text.c_str();
  }
}

MS_DEFORM_EXPORT const char* ms_deform_cpu_last_error() { return ms_deform::LastError(); }

MS_DEFORM_EXPORT int64_t ms_deform_cpu_scratch_bytes() { return ms_deform::ScratchBytes(); }

MS_DEFORM_EXPORT void ms_deform_cpu_release_scratch() { ms_deform::ReleaseScratch(); }
