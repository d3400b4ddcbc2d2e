// Peak of the multiply-add units: `chains` independent accumulators in registers. A fused multiply-add takes 4 or 5
// cycles and at most two start per cycle on every x86-64-v3 core so far: 10 chains saturate them, 12 fit 16 registers.
// Without FMA (baseline) each step is a multiply, then an add, 6 to 8 cycles: all the registers there are.
#include "peak.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif
#if defined(__FMA__) || defined(__aarch64__)
constexpr int chains = 12;
#else
constexpr int chains = 14;
#endif
constexpr int steps_per_repeat = 64;

template <class Real>
double multiply_add(int64_t repeats) {
    typedef Real Vector __attribute__((vector_size(vector_bytes)));
    constexpr int lanes = vector_bytes / sizeof(Real);
    // Converges to 2: no denormals, no overflow. Volatile: gcc, knowing them, would drop the chain that starts at 2.
    volatile Real half = Real(0.5), one = Real(1);
    const Vector scale = Vector{} + half, shift = Vector{} + one;
    Vector sum[chains];
    for (int i = 0; i < chains; ++i) sum[i] = Vector{} + one * Real(i);
    for (int64_t repeat = 0; repeat < repeats; ++repeat) {
#pragma GCC unroll 4
        for (int step = 0; step < steps_per_repeat; ++step) {
#pragma GCC unroll 16
            for (int i = 0; i < chains; ++i) sum[i] = sum[i] * scale + shift;
        }
    }
    Vector total{};
    for (int i = 0; i < chains; ++i) total += sum[i];
    volatile Real sink = total[0];  // the loop must not be optimised away
    (void)sink;
    return 2.0 * lanes * chains * steps_per_repeat * static_cast<double>(repeats);
}

}  // namespace

double fma_loop(Dtype dtype, int64_t repeats) {
    return dtype == Dtype::float32 ? multiply_add<float>(repeats) : multiply_add<double>(repeats);
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
