// SPDX-License-Identifier: Apache-2.0
// The threads that share a call.
//
// A kernel is a sequence of loops over pieces of work and of barriers. Pieces are cut by the
// geometry alone; which thread works on which of them never changes a bit of a result. A barrier
// waits for work, not for threads: one that wakes up late, on a busy machine, finds its part done.
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

// What the threads have in common. Loops are numbered from 1 in the order in which every thread
// comes to them.
class Team {
 public:
  // Loops between two barriers, and up to the first, at the most.
  static constexpr uint32_t kLoops = 8;

  // The next pieces of a loop, none when all are taken.
  PieceRun Take(uint32_t loop, int64_t pieces, const Grain& grain, int threads);

  // Says that so many pieces are done, of those that were taken of a loop.
  void Finish(uint32_t loop, int64_t pieces);

  // Until so many pieces are done, of a loop and of all those that had its place before. Threads
  // wait for work awake: OpenMP's own barriers sleep at once under MindSpore, which sets
  // OMP_WAIT_POLICY=passive, and waking up again takes 3 to 12 % of a call, more on a busy host.
  void Wait(uint32_t loop, int64_t done);

  // For a thread that has nothing left to do. Thread 0 comes last to OpenMP's own barrier, unless
  // another one is very late, and so does not sleep there.
  void Leave(int thread, int threads);

 private:
  // A place is used again after kLoops loops, of which all pieces are done then.
  struct alignas(kCacheLine) Loop {
    std::atomic<int64_t> number_and_taken{0};
    std::atomic<int64_t> done{0};  // never set back
  };

  Loop loops_[kLoops];
  alignas(kCacheLine) std::atomic<int> left_{0};
};

}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_TEAM_H_
