// SPDX-License-Identifier: Apache-2.0
// What a kernel calls to share its loops between threads.
#ifndef MS_DEFORM_CPU_THREADS_H_
#define MS_DEFORM_CPU_THREADS_H_

#include <omp.h>

#include "cpu/piece_times.h"
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

  // As Share, for pieces that are short: many are taken at a time, fewer towards the end.
  template <typename Body>
  void ShareShort(int64_t pieces, Body body) {
    ShareRuns(pieces, {1, pieces}, [&](const PieceRun& run) {
      for (int64_t piece = run.first; piece < run.end; ++piece) {
        body(piece);
      }
    });
  }

  // Calls body(run) for runs of pieces, as long as the grain has them.
  template <typename Body>
  void ShareRuns(int64_t pieces, const Grain& grain, Body body) {
    ++loop_;
    piece_times::Enter(loop_);
    to_do_[loop_ % Team::kLoops] += pieces;
    for (PieceRun run = team_->Take(loop_, pieces, grain, threads_); run.first < run.end;
         run = team_->Take(loop_, pieces, grain, threads_)) {
      body(run);
      piece_times::Keep();
      team_->Finish(loop_, run.end - run.first);
    }
  }

  // Until all pieces of all loops so far are done.
  void Wait() {
    piece_times::PassBarrier();
    for (; waited_for_ < loop_; ++waited_for_) {
      team_->Wait(waited_for_ + 1, to_do_[(waited_for_ + 1) % Team::kLoops]);
    }
  }

 private:
  Team* team_;
  int thread_;
  int threads_;
  uint32_t loop_ = 0;  // the latest
  uint32_t waited_for_ = 0;
  int64_t to_do_[Team::kLoops] = {};  // pieces, of the loops that have had a place
};

// Calls body(worker) on that many threads, or on as few as OpenMP grants.
template <typename Body>
void RunThreads(int threads, Body body) {
  Team team;
  piece_times::Cut(threads);
#pragma omp parallel num_threads(kOneThreadForAll ? 1 : threads)
  {
    const int granted = omp_get_num_threads();
    Worker worker(&team, omp_get_thread_num(), kOneThreadForAll ? threads : granted);
    body(worker);
    worker.Wait();
    team.Leave(omp_get_thread_num(), granted);
  }
}

}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_THREADS_H_
