// SPDX-License-Identifier: Apache-2.0
#if defined(MS_DEFORM_MODEL_THREADS)

#include "cpu/modelled_threads.h"

#include "common/library_info.h"

// For the latest call: the times of its pieces, how many there are, and for how many threads.
MS_DEFORM_EXPORT const ms_deform::PieceTime* ms_deform_cpu_piece_times(int64_t* count,
                                                                       int64_t* threads) {
  const ms_deform::CallTimes& times = ms_deform::LatestCall();
  *count = static_cast<int64_t>(times.pieces.size());
  *threads = times.threads;
  return times.pieces.data();
}

#endif  // MS_DEFORM_MODEL_THREADS
