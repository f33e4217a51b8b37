// SPDX-License-Identifier: Apache-2.0
// The fused multiply-adds that this machine does at best, by threads that touch registers only.

#include <chrono>

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// More than latency times units (4 x 2 on today's cores) and less than the 16 registers of AVX2.
constexpr int kAccumulators = 12;

template <typename Real>
void MultiplyAdd(long steps) {
  typedef Real Vector __attribute__((vector_size(kVectorBytes)));
  Vector sums[kAccumulators] = {};
  Vector factor = Vector{} + Real(0.5), addend = Vector{} + Real(1);
  // Opaque to the compiler, which would otherwise fold the loop.
  asm volatile("" : "+m"(factor), "+m"(addend));
  for (long step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (Vector& sum : sums) sum = sum * factor + addend;
  }
  for (Vector& sum : sums) asm volatile("" : "+m"(sum));
}

// Arithmetic operations per second, of all threads together, over that many seconds.
template <typename Real>
double Peak(double seconds, int threads) {
  constexpr long kSteps = 100000;  // between two looks at the clock
  constexpr double kOperations = 2.0 * kAccumulators * kVectorBytes / sizeof(Real) * kSteps;
  double rate = 0;
#pragma omp parallel num_threads(threads) reduction(+ : rate)
  {
    const auto start = std::chrono::steady_clock::now();
    std::chrono::duration<double> taken(0);
    double operations = 0;
    while (taken.count() < seconds) {
      MultiplyAdd<Real>(kSteps);
      operations += kOperations;
      taken = std::chrono::steady_clock::now() - start;
    }
    rate += operations / taken.count();
  }
  return rate;
}

}  // namespace

extern "C" double PeakFloat(double seconds, int threads) { return Peak<float>(seconds, threads); }
extern "C" double PeakDouble(double seconds, int threads) { return Peak<double>(seconds, threads); }
