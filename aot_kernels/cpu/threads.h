// SPDX-License-Identifier: Apache-2.0
// The threads that share a call.
//
// A kernel is a sequence of loops over pieces of work and of barriers. Pieces are cut by the
// geometry alone; which thread works on which of them never changes a bit of a result.
#ifndef MS_DEFORM_CPU_THREADS_H_
#define MS_DEFORM_CPU_THREADS_H_

#include <omp.h>

#include <atomic>
#include <cstdint>

#include "common/integers.h"
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

// What the threads have in common.
class Team {
 public:
  // Until that many threads are here. Threads wait for each other awake: OpenMP's own barriers
  // sleep at once under MindSpore, which sets OMP_WAIT_POLICY=passive, and waking up again takes 3
  // to 12 % of a call, more on a busy host.
  void Wait(int threads);

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

// What one thread of a team calls.
class Worker {
 public:
  Worker(Team* team, int thread, int threads) : team_(team), thread_(thread), threads_(threads) {}

  int64_t thread() const { return thread_; }

  // Calls body(piece) for each piece that no other thread works on, until all are taken.
  template <typename Body>
  void Share(int64_t pieces, Body body) {
    ShareRuns(pieces, {}, [&](const PieceRun& run) { body(run.first); });
  }

  // Calls body(run) for runs of pieces, as long as the grain has them.
  template <typename Body>
  void ShareRuns(int64_t pieces, const Grain& grain, Body body) {
    ++loop_;
    for (PieceRun run = team_->Take(loop_, pieces, grain, threads_); run.first < run.end;
         run = team_->Take(loop_, pieces, grain, threads_)) {
      body(run);
    }
  }

  // As Share, for pieces that are short and alike: as many for each thread.
  template <typename Body>
  void ShareEvenly(int64_t pieces, Body body) const {
    for (int64_t piece = pieces * thread_ / threads_; piece < pieces * (thread_ + 1) / threads_;
         ++piece) {
      body(piece);
    }
  }

  // Until all threads are here.
  void Wait() { team_->Wait(threads_); }

  // What each thread calls at the end: thread 0 comes last to OpenMP's own barrier, and so does not
  // sleep there.
  void Leave();

 private:
  Team* team_;
  int thread_;
  int threads_;
  uint32_t loop_ = 0;
};

// Calls body(worker) on that many threads, or on as few as OpenMP grants.
template <typename Body>
void RunThreads(int threads, Body body) {
  Team team;
#pragma omp parallel num_threads(threads)
  {
    Worker worker(&team, omp_get_thread_num(), omp_get_num_threads());
    body(worker);
    worker.Leave();
  }
}

}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_THREADS_H_
