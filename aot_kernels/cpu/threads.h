// SPDX-License-Identifier: Apache-2.0
// What a kernel calls to share its loops between threads.
#ifndef MS_DEFORM_CPU_THREADS_H_
#define MS_DEFORM_CPU_THREADS_H_

#if defined(MS_DEFORM_MODEL_THREADS)
#include "cpu/modelled_threads.h"
#else

#include <omp.h>

#include "cpu/team.h"

namespace ms_deform {

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
    const PieceRun run = EvenShare(pieces, thread_, threads_);
    for (int64_t piece = run.first; piece < run.end; ++piece) {
      body(piece);
    }
  }

  // Until all threads are here.
  void Wait() { team_->Wait(threads_); }

  // What each thread calls at the end.
  void Leave() { team_->Leave(thread_, threads_); }

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

#endif  // MS_DEFORM_MODEL_THREADS
#endif  // MS_DEFORM_CPU_THREADS_H_
