// SPDX-License-Identifier: Apache-2.0
// The threads that share a call.
#ifndef MS_DEFORM_CPU_THREADS_H_
#define MS_DEFORM_CPU_THREADS_H_

#include <omp.h>

#include <atomic>
#include <cstdint>

namespace ms_deform {

// Threads for that many multiply-adds, OMP_NUM_THREADS at the most. Results do not depend on it.
int ChooseThreads(int64_t multiply_adds);

// Threads that wait for each other awake. OpenMP's own barriers sleep at once under MindSpore,
// which sets OMP_WAIT_POLICY=passive, and waking up again takes 3 to 12 % of a call, more on a busy
// host.
class Team {
 public:
  // Until all threads are here.
  void Wait();
  // What each thread calls at the end.
  void Leave();

 private:
  std::atomic<int> waiting_{0};
  std::atomic<int64_t> round_{0};
};

// Calls body(team) on that many threads, or on as few as OpenMP grants. Loops are shared out with
// `omp for nowait`, and team.Wait() is the barrier.
template <typename Body>
void RunThreads(int threads, Body body) {
  Team team;
#pragma omp parallel num_threads(threads)
  {
    body(team);
    team.Leave();
  }
}

}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_THREADS_H_
