// SPDX-License-Identifier: Apache-2.0
#include "cpu/team.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>

#include "common/integers.h"

namespace ms_deform {
namespace {

// Waking a thread costs microseconds; each gets at least this many multiply-adds, some ten of them.
constexpr int64_t kThreadWork = 1 << 19;
// A pause is some 10 ns: awake for as long as a wake-up takes, then in turn with other threads, so
// that more threads than CPUs get on, too.
constexpr int kPauses = 2000;
// What a thread needs from Team::Leave to the end of OpenMP's region.
constexpr int kPausesToEnd = 30;
constexpr int kTakenBits = 40;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// A fair share of the pieces that are left, from `first` on: whole planes or rows of the grain if
// it is as much, otherwise the half of a row, the half of that, and so on.
int64_t CountToTake(int64_t first, int64_t left, const Grain& grain, int threads) {
  const int64_t share = std::max<int64_t>(1, left / threads);
  const int64_t in_row = grain.row - first % grain.row;
  if (in_row == grain.row && share >= grain.row) {
    const int64_t in_plane = grain.plane - first % grain.plane;
    return std::min(share / grain.row * grain.row, in_plane);
  }
  int64_t count = grain.row;
  while (count > share) {
    count = CeilDivide(count, 2);
  }
  return std::min(count, in_row);
}

}  // namespace

int ChooseThreads(int64_t multiply_adds) {
  return static_cast<int>(
      std::min<int64_t>(omp_get_max_threads(), multiply_adds / kThreadWork + 1));
}

PieceRun Team::Take(uint32_t loop, int64_t pieces, const Grain& grain, int threads) {
  std::atomic<int64_t>& place = loops_[loop % kLoops].number_and_taken;
  const int64_t none_taken = static_cast<int64_t>(loop) << kTakenBits;
  int64_t seen = place.load(std::memory_order_relaxed);
  while (true) {
    const int64_t number = seen >> kTakenBits;
    const int64_t first = number == loop ? seen - none_taken : 0;
    if (number > loop || first >= pieces) {
      return {pieces, pieces};
    }
    const int64_t end = first + CountToTake(first, pieces - first, grain, threads);
    if (place.compare_exchange_weak(seen, none_taken + end, std::memory_order_relaxed)) {
      return {first, end};
    }
  }
}

void Team::Finish(uint32_t loop, int64_t pieces) {
  loops_[loop % kLoops].done.fetch_add(pieces, std::memory_order_release);
}

void Team::Wait(uint32_t loop, int64_t done) {
  const std::atomic<int64_t>& place = loops_[loop % kLoops].done;
  for (int i = 0; place.load(std::memory_order_acquire) < done; ++i) {
    if (i < kPauses) {
      Pause();
    } else {
      sched_yield();
    }
  }
}

void Team::Leave(int thread, int threads) {
  if (thread != 0) {
    left_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  for (int i = 0; i < kPauses && left_.load(std::memory_order_relaxed) < threads - 1; ++i) {
    Pause();
  }
  for (int i = 0; i < kPausesToEnd; ++i) {
    Pause();
  }
}

}  // namespace ms_deform
