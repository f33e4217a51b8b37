// SPDX-License-Identifier: Apache-2.0
#include "cpu/piece_times.h"

#if defined(MS_DEFORM_PIECE_TIMES)

#include <chrono>
#include <vector>

#include "common/library_info.h"

namespace ms_deform {
namespace {

using Clock = std::chrono::steady_clock;

struct LatestCall {
  int64_t threads = 1;
  int64_t nanoseconds = 0;
  int64_t barriers = 0;
  uint32_t loop = 0;
  Clock::time_point start;
  Clock::time_point since;  // the end of the latest piece, or the beginning of its loop
  std::vector<PieceTime> pieces;
};

LatestCall call;

int64_t Nanoseconds(Clock::duration taken) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(taken).count();
}

}  // namespace

namespace piece_times {

Call::Call() {
  call.threads = 1;
  call.barriers = 0;
  call.loop = 0;
  call.pieces.clear();
  call.start = Clock::now();
}

Call::~Call() { call.nanoseconds = Nanoseconds(Clock::now() - call.start); }

void Cut(int threads) { call.threads = threads; }

void Enter(uint32_t loop) {
  if (loop != call.loop) {
    call.loop = loop;
    call.since = Clock::now();
  }
}

void Keep() {
  const Clock::time_point now = Clock::now();
  call.pieces.push_back({call.barriers, Nanoseconds(now - call.since)});
  call.since = now;
}

void PassBarrier() { ++call.barriers; }

}  // namespace piece_times
}  // namespace ms_deform

// Of the latest call: the times of its pieces, and how many there are.
MS_DEFORM_EXPORT const ms_deform::PieceTime* ms_deform_cpu_piece_times(int64_t* count) {
  *count = static_cast<int64_t>(ms_deform::call.pieces.size());
  return ms_deform::call.pieces.data();
}

// Of the latest call: its time, pieces included, and for how many threads it was cut.
MS_DEFORM_EXPORT void ms_deform_cpu_call_time(int64_t* nanoseconds, int64_t* threads) {
  *nanoseconds = ms_deform::call.nanoseconds;
  *threads = ms_deform::call.threads;
}

#endif  // MS_DEFORM_PIECE_TIMES
