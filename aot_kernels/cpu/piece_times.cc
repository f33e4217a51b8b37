// SPDX-License-Identifier: Apache-2.0
#include "cpu/piece_times.h"

#if defined(MS_DEFORM_PIECE_TIMES)

#include <chrono>
#include <vector>

#include "common/library_info.h"

namespace ms_deform {
namespace {

using Clock = std::chrono::steady_clock;

// Of the latest call.
struct CallTimes {
  int64_t threads = 1;
  int64_t barriers = 0;
  uint32_t loop = 0;
  Clock::time_point since;  // the end of the latest piece, or the beginning of its loop
  std::vector<PieceTime> pieces;
};

CallTimes call;

}  // namespace

namespace piece_times {

void Clear(int threads) {
  call.threads = threads;
  call.barriers = 0;
  call.loop = 0;
  call.pieces.clear();
}

void Enter(uint32_t loop) {
  if (loop != call.loop) {
    call.loop = loop;
    call.since = Clock::now();
  }
}

void Keep() {
  const Clock::time_point now = Clock::now();
  const auto taken = std::chrono::duration_cast<std::chrono::nanoseconds>(now - call.since);
  call.pieces.push_back({call.barriers, taken.count()});
  call.since = now;
}

void PassBarrier() { ++call.barriers; }

}  // namespace piece_times
}  // namespace ms_deform

// For the latest call: the times of its pieces, how many there are, and for how many threads.
MS_DEFORM_EXPORT const ms_deform::PieceTime* ms_deform_cpu_piece_times(int64_t* count,
                                                                       int64_t* threads) {
  *count = static_cast<int64_t>(ms_deform::call.pieces.size());
  *threads = ms_deform::call.threads;
  return ms_deform::call.pieces.data();
}

#endif  // MS_DEFORM_PIECE_TIMES
