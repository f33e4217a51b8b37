// SPDX-License-Identifier: Apache-2.0
// How long each piece of work takes, for the benchmark's model of many threads. A library that is
// built with MS_DEFORM_PIECE_TIMES cuts and hands out work as that many threads would share it,
// does all of it on one, and keeps the times; any other build has none of this.
#ifndef MS_DEFORM_CPU_PIECE_TIMES_H_
#define MS_DEFORM_CPU_PIECE_TIMES_H_

#include <cstdint>

#if defined(MS_DEFORM_PIECE_TIMES)
#include <chrono>
#include <vector>
#endif

namespace ms_deform {

#if defined(MS_DEFORM_PIECE_TIMES)

struct PieceTime {
  int64_t barriers;  // passed before it
  int64_t loop;
  int64_t thread;  // that it belongs to, or PieceTimer::kAnyThread
  int64_t nanoseconds;
};

// Of the calls since it was cleared; one call at a time.
inline std::vector<PieceTime>& PieceTimes() {
  static std::vector<PieceTime> times;
  return times;
}

inline int64_t& BarriersPassed() {
  static int64_t passed = 0;
  return passed;
}

// Takes the time of a piece, from its beginning to the end of its scope.
class PieceTimer {
 public:
  static constexpr int kAnyThread = -1;

  static int FirstThread(int) { return 0; }
  static int EndThread(int, int threads) { return threads; }
  static int Running(int) { return 1; }
  static int Modelled(int, int threads) { return threads; }
  static void Barrier() { ++BarriersPassed(); }

  PieceTimer(int64_t loop, int64_t thread)
      : loop_(loop), thread_(thread), start_(std::chrono::steady_clock::now()) {}
  ~PieceTimer() {
    const auto taken = std::chrono::steady_clock::now() - start_;
    PieceTimes().push_back({BarriersPassed(), loop_, thread_,
                            std::chrono::duration_cast<std::chrono::nanoseconds>(taken).count()});
  }

 private:
  int64_t loop_;
  int64_t thread_;
  std::chrono::steady_clock::time_point start_;
};

#else

struct PieceTimer {
  static constexpr int kAnyThread = -1;

  static int FirstThread(int thread) { return thread; }
  static int EndThread(int thread, int) { return thread + 1; }
  static int Running(int threads) { return threads; }
  static int Modelled(int granted, int) { return granted; }
  static void Barrier() {}

  PieceTimer(int64_t, int64_t) {}
};

#endif

}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_PIECE_TIMES_H_
