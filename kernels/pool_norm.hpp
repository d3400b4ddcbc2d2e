// What norms do besides summing: powers of the elements first, a root last.
#pragma once
#include <cmath>

#include "pool_abi.hpp"
#include "square_root.hpp"

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
        if (p_ == 2 && step == 1) return each(from, n, to, [](Vec<T> x) { return x * x; });
        for (int64_t i = 0; i < n; ++i) to[i] = p_ == 2 ? from[i * step] * from[i * step] : power(from[i * step], p_);
    }
    // Of quotients of sums and their divisors
    void finish(T* to, int64_t n) const {
        const T factor = factor_;
        if (p_ == 1) return each(to, n, to, [=](Vec<T> x) { return x * factor; });
        if (p_ == 2) return each(to, n, to, [=](Vec<T> x) { return square_root<T>(x * factor); });
        for (int64_t i = 0; i < n; ++i) to[i] = power(to[i] * factor + T(0), 1 / p_);  // of -0 no negative power is asked
    }

   private:
    template <class Body>
    static void each(const T* from, int64_t n, T* to, const Body& body) {
        int64_t i = 0;
        for (; i + lanes<T> <= n; i += lanes<T>) store(to + i, body(load(from + i)));
        if (i < n) store_first(to + i, body(load_first(from + i, n - i)), n - i);
    }

    T p_, factor_;
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
