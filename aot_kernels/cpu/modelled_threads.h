// SPDX-License-Identifier: Apache-2.0
// In place of the threads of a call, for a library that tells how the kernels would scale
// (scripts/benchmark/many_threads.py): one thread does all the work, cut as that many threads would
// share it, and the time of every piece is kept.
#ifndef MS_DEFORM_CPU_MODELLED_THREADS_H_
#define MS_DEFORM_CPU_MODELLED_THREADS_H_

#include <chrono>
#include <vector>

#include "cpu/team.h"

namespace ms_deform {

struct PieceTime {
  int64_t barriers;  // that its call passed before it
  int64_t thread;    // that it belongs to, or kAnyThread
  int64_t nanoseconds;
};

constexpr int64_t kAnyThread = -1;

// Of the latest call.
struct CallTimes {
  int64_t threads = 1;
  std::vector<PieceTime> pieces;
};

inline CallTimes& LatestCall() {
  static CallTimes times;
  return times;
}

// As the Worker of cpu/threads.h, for all threads in turn.
class Worker {
 public:
  Worker(Team* team, int threads) : team_(team), threads_(threads) {}

  int64_t thread() const { return 0; }

  template <typename Body>
  void Share(int64_t pieces, Body body) {
    ShareRuns(pieces, {}, [&](const PieceRun& run) { body(run.first); });
  }

  template <typename Body>
  void ShareRuns(int64_t pieces, const Grain& grain, Body body) {
    ++loop_;
    start_ = Clock::now();
    for (PieceRun run = team_->Take(loop_, pieces, grain, threads_); run.first < run.end;
         run = team_->Take(loop_, pieces, grain, threads_)) {
      body(run);
      Keep(kAnyThread);
    }
  }

  template <typename Body>
  void ShareEvenly(int64_t pieces, Body body) {
    start_ = Clock::now();
    for (int thread = 0; thread < threads_; ++thread) {
      const PieceRun run = EvenShare(pieces, thread, threads_);
      for (int64_t piece = run.first; piece < run.end; ++piece) {
        body(piece);
      }
      Keep(thread);
    }
  }

  void Wait() { ++barriers_; }

 private:
  using Clock = std::chrono::steady_clock;

  // From one reading of the clock to the next, so that all of the time is in one piece or another.
  void Keep(int64_t thread) {
    const Clock::time_point now = Clock::now();
    const auto taken = std::chrono::duration_cast<std::chrono::nanoseconds>(now - start_);
    LatestCall().pieces.push_back({barriers_, thread, taken.count()});
    start_ = now;
  }

  Team* team_;
  int threads_;
  uint32_t loop_ = 0;
  int64_t barriers_ = 0;
  Clock::time_point start_;
};

template <typename Body>
void RunThreads(int threads, Body body) {
  LatestCall().threads = threads;
  LatestCall().pieces.clear();
  Team team;
  Worker worker(&team, threads);
  body(worker);
}

}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_MODELLED_THREADS_H_
