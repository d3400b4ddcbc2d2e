// What all of pooling shares: how a call's outputs are cut into bands that the threads share, where the channels of a pixel lie, and
// rows of an array.
#pragma once
#include "pool_rows.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

const Pool& pool();
const PoolKernel& pool_gradient_kernel();
const PoolKernel& pool_add_kernel();
const PoolKernel& pool_put_kernel();
const PoolKernel& pool_apart_kernel(const PoolProblem&);  // gradients, where `are_apart`
const PoolKernel& pool_indices_kernel();  // forward, of max and min with indices

inline double inputs_of(const PoolProblem& p) {
    return double(p.batch) * double(p.channels) * double(p.axis[0].input * p.axis[1].input * p.axis[2].input);
}
inline double outputs_of(const PoolProblem& p) {
    return double(p.batch) * double(p.channels) * double(p.axis[0].output * p.axis[1].output * p.axis[2].output);
}

// Parts that share `items`; nothing is flushed: what is small is as good as any other maximum.
inline Crew pool_crew(const PoolProblem& p, const PoolCall& call, int64_t items, size_t own, size_t common) {
    Crew crew;
    const double work = inputs_of(p) + outputs_of(p);
    crew.parts = std::min(threads_for(work, worth_a_thread::pooling, call.threads), std::max<int64_t>(1, items));
    crew.own_bytes = own, crew.common_bytes = common, crew.strict = true;
    crew.memory = static_cast<char*>(call.workspace), crew.parallel_for = call.parallel_for, crew.interrupt = call.interrupt;
    return crew;
}

// The channels of a pixel lie side by side in both arrays, which is where vectors run then.
inline bool channels_side_by_side(const PoolProblem& p, const View& a, const View& b) {
    return p.channels > 1 && a.channel == 1 && b.channel == 1;
}

// How many channels a part takes at a time: all, as they are read in one piece, unless there are too few `rows` for all threads; else
// whole lines.
template <class T>
int64_t channels_at_a_time(const PoolProblem& p, int64_t rows, int threads) {
    constexpr int64_t line = 64 / int64_t(sizeof(T));
    const int64_t blocks = std::min(ceil_div(4 * threads, std::max<int64_t>(rows, 1)), p.channels / line);
    return blocks <= 1 ? p.channels : std::min(p.channels, round_up(ceil_div(p.channels, blocks), line));
}

// Items of a call, the last axis of `length` fastest.
template <int N>
struct Grid {
    int64_t length[N];
    int64_t count() const {
        int64_t all = 1;
        for (int64_t n : length) all *= n;
        return all;
    }
    // body(place) of the items begin .. end - 1
    template <class Body>
    void each(int64_t begin, int64_t end, const Body& body) const {
        int64_t place[N], rest = begin;
        for (int i = N - 1; i >= 0; --i) place[i] = rest % length[i], rest /= length[i];
        for (int64_t item = begin; item < end; ++item) {
            body(place);
            for (int i = N - 1; i >= 0 && ++place[i] == length[i]; --i) place[i] = 0;
        }
    }
};

// n elements side by side to elements `step` apart.
template <class T>
void spread(T* to, int64_t step, const T* from, int64_t n) {
    if (step == 1) return copy(to, from, n);
    for (int64_t i = 0; i < n; ++i) to[i * step] = from[i];
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
