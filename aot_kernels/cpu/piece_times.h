// SPDX-License-Identifier: Apache-2.0
// The times of a call's pieces of work, kept by a library that is built to tell how the kernels
// would scale (scripts/benchmark/many_threads.py): in it one thread does all the work, cut as for
// many.
#ifndef MS_DEFORM_CPU_PIECE_TIMES_H_
#define MS_DEFORM_CPU_PIECE_TIMES_H_

#include <cstdint>

namespace ms_deform {

#if defined(MS_DEFORM_PIECE_TIMES)
constexpr bool kOneThreadForAll = true;

struct PieceTime {
  int64_t barriers;  // that its call passed before it
  int64_t nanoseconds;
};

namespace piece_times {
// Takes the time of a kernel's call, pieces included.
class Call {
 public:
  Call();
  ~Call();
};

// The call's work is cut for that many threads.
void Cut(int threads);
// A thread comes to a loop, if it has not before.
void Enter(uint32_t loop);
// A piece is done, which has taken the time since the one before in its loop.
void Keep();
void PassBarrier();
}  // namespace piece_times

#else
constexpr bool kOneThreadForAll = false;

namespace piece_times {
struct Call {
  Call() {}
};
inline void Cut(int) {}
inline void Enter(uint32_t) {}
inline void Keep() {}
inline void PassBarrier() {}
}  // namespace piece_times

#endif

}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_PIECE_TIMES_H_
