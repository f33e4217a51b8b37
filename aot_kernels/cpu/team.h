// SPDX-License-Identifier: Apache-2.0
// The threads that share a call.
//
// A kernel is a sequence of loops over pieces of work and of barriers. Pieces are cut by the
// geometry alone; which thread works on which of them never changes a bit of a result.
#ifndef MS_DEFORM_CPU_TEAM_H_
#define MS_DEFORM_CPU_TEAM_H_

#include <atomic>
#include <cstdint>

#include "cpu/scratch.h"

namespace ms_deform {

// Pieces for a loop to have where there is work for them: four for each of 64 threads.
constexpr int64_t kPieces = 256;

// Threads for that many multiply-adds, OMP_NUM_THREADS at the most. Results do not depend on it.
int ChooseThreads(int64_t multiply_adds);

// Pieces that cost less if one thread works on them together: `row` consecutive ones, and `plane`,
// a whole number of rows.
struct Grain {
  int64_t row = 1;
  int64_t plane = 1;
};

// Consecutive pieces.
struct PieceRun {
  int64_t first;
  int64_t end;
};

// As many of so many pieces for each thread: those of one of them.
inline PieceRun EvenShare(int64_t pieces, int64_t thread, int64_t threads) {
  return {pieces * thread / threads, pieces * (thread + 1) / threads};
}

// What the threads have in common.
class Team {
 public:
  // Until that many threads are here. Threads wait for each other awake: OpenMP's own barriers
  // sleep at once under MindSpore, which sets OMP_WAIT_POLICY=passive, and waking up again takes 3
  // to 12 % of a call, more on a busy host.
  void Wait(int threads);

  // As Wait, for a thread that has nothing left to do: thread 0 comes last to OpenMP's own barrier,
  // and so does not sleep there.
  void Leave(int thread, int threads);

  // The next pieces of a loop, none when all are taken. Loops are numbered in the order in which
  // every thread comes to them.
  PieceRun Take(uint32_t loop, int64_t pieces, const Grain& grain, int threads);

 private:
  // Pieces taken of a loop. A place is used again after kLoops loops: a kernel has fewer between
  // two barriers.
  struct alignas(kCacheLine) Loop {
    std::atomic<int64_t> number_and_taken{0};
  };
  static constexpr uint32_t kLoops = 8;

  alignas(kCacheLine) std::atomic<int> waiting_{0};
  alignas(kCacheLine) std::atomic<int64_t> round_{0};
  Loop loops_[kLoops];
};

}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_TEAM_H_
