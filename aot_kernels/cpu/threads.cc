// SPDX-License-Identifier: Apache-2.0
#include "cpu/threads.h"

#include <sched.h>

#include <algorithm>

namespace ms_deform {
namespace {

// Waking a thread costs microseconds; each gets at least this many multiply-adds, some ten of them.
constexpr int64_t kThreadWork = 1 << 19;
// A pause is some 10 ns: awake for as long as a wake-up takes, then in turn with other threads, so
// that more threads than CPUs get on, too.
constexpr int kPauses = 2000;
// What a thread needs from Team::Wait to the end of OpenMP's region.
constexpr int kPausesToEnd = 30;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

}  // namespace

int ChooseThreads(int64_t multiply_adds) {
  return static_cast<int>(
      std::min<int64_t>(omp_get_max_threads(), multiply_adds / kThreadWork + 1));
}

void Team::Wait() {
  const int64_t round = round_.load();
  if (waiting_.fetch_add(1) + 1 == omp_get_num_threads()) {
    waiting_.store(0);
    round_.store(round + 1);
    return;
  }
  for (int i = 0; round_.load() == round; ++i) {
    if (i < kPauses) {
      Pause();
    } else {
      sched_yield();
    }
  }
}

void Team::Leave() {
  Wait();
  // Thread 0 comes last to OpenMP's own barrier, and so does not sleep there.
  for (int i = 0; i < kPausesToEnd && omp_get_thread_num() == 0; ++i) {
    Pause();
  }
}

}  // namespace ms_deform
