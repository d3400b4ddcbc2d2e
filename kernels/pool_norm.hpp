// What norms do besides summing: powers of the elements first, a root last.
#pragma once
#include <cmath>

#include "pool_abi.hpp"
#include "simd.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// As NumPy and PyTorch: 0.5 is the square root, NaN of -Inf, for which C's pow gives Inf.
template <class T>
inline T power(T x, T p) {
    return p == T(0.5) ? std::sqrt(x) : std::pow(x, p);
}
template <class T>
FASTCONV_NOINLINE Vec<T> power(Vec<T> v, T p) {
    for (int l = 0; l < lanes<T>; ++l) v[l] = power(v[l], p);
    return v;
}

// Of rows, in passes of their own: norms are seldom asked for, and what is summed is rounded so, which makes it no difference where in a
// row an output is.
template <class T>
class Norm {
   public:
    explicit Norm(const PoolProblem& problem) : p_(T(problem.norm)), factor_(problem.divisor > 0 ? T(problem.divisor) : T(1)) {}

    bool prepares() const { return p_ != 1; }

    // to[i] = from[i step]^p
    void prepare(const T* from, int64_t step, int64_t n, T* to) const {
        if (p_ == 2)
            for (int64_t i = 0; i < n; ++i) to[i] = from[i * step] * from[i * step];
        else
            for (int64_t i = 0; i < n; ++i) to[i] = power(from[i * step], p_);
    }
    // Of quotients of sums and their divisors
    void finish(T* to, int64_t n) const {
        for (int64_t i = 0; i < n; ++i) to[i] *= factor_;
        if (p_ == 2)
            for (int64_t i = 0; i < n; ++i) to[i] = std::sqrt(to[i]);
        else if (p_ != 1)
            for (int64_t i = 0; i < n; ++i) to[i] = power(to[i] + T(0), 1 / p_);  // of -0 no negative power is asked
    }

   private:
    T p_, factor_;
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
