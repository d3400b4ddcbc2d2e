// Pooling's part of the contract of abi.hpp: windows without weights, described axis by axis by tables, so that padding, ceil_mode,
// count_include_pad and adaptive windows are the business of whoever fills them.
#pragma once
#include <algorithm>

#include "abi.hpp"

namespace fastconv {

enum class Pooling : int32_t { max, min, average, lp };

// The windows along one axis, an entry of each table for each output: the taps of window o are the inputs first[o] + j dilation,
// 0 <= j < count[o], of which there is one at least. With dilation 1 neither the first taps nor the last ever go back from a window to
// the next.
struct PoolAxis {
    int64_t input, output, dilation;
    int64_t taps;  // of a whole window: no count is larger
    const int64_t *first, *count, *divisor;
    // Regular windows: those of a grid, begin + o stride + j dilation for 0 <= j < taps, of which the tables have what is inside
    int64_t begin, stride;
    bool regular;
};

struct PoolProblem {
    Dtype dtype;
    Pooling operation;
    double norm;     // lp: p
    // 0, or: of averages, what sums are divided by instead of the product of the axes' divisors; of lp, what the quotient of the sum
    // and that product is multiplied by
    double divisor;
    int64_t batch, channels;
    PoolAxis axis[max_axes];
};

// forward: input -> output, indices. gradient: grad_output -> grad_input, of max and min from input, of lp from input and output as well. scatter: grad_output
// (whatever its values are), indices -> grad_input. All else is not looked at.
struct PoolCall {
    View input, output, grad_output, grad_input;
    View indices;     // int64, within the d, h, w of the input, in C order; of forward data may be null
    void* workspace;  // as many bytes as were asked for, 64-byte aligned, uninitialised
    int32_t threads;
    ParallelFor parallel_for;
    Interrupt interrupt;
};

// What may be done, and how much memory it needs: that depends on the strides of a call as well.
struct PoolKernel {
    size_t (*workspace_bytes)(const PoolProblem&, const PoolCall&);
    bool (*run)(const PoolProblem&, const PoolCall&);  // false: an index was outside of the input
};

struct Pool {
    PoolKernel forward;   // of max and min NaN, if there is one, and of several the last; of equals the first
    PoolKernel gradient;  // of averages and lp; where windows are apart, of max and min as well
    PoolKernel add;       // scatter: what has the same index is added up, in the order of the outputs
    PoolKernel put;       // scatter: the last one stays
};

// Whether the tables are those of this grid.
inline bool is_grid(const PoolAxis& a, int64_t begin, int64_t stride) {
    if (stride < 1) return false;
    for (int64_t o = 0; o < a.output; ++o) {
        const int64_t at = begin + o * stride, last = at + (a.taps - 1) * a.dilation;
        const int64_t before = at < 0 ? (-at + a.dilation - 1) / a.dilation : 0;
        const int64_t behind = last >= a.input ? (last - a.input) / a.dilation + 1 : 0;
        if (a.count[o] != a.taps - before - behind || a.first[o] != at + before * a.dilation) return false;
    }
    return true;
}

// Whether all windows are whole, and no input is in two of them.
inline bool are_apart(const PoolProblem& p) {
    for (const PoolAxis& a : p.axis) {
        if (!a.regular || a.begin < 0 || (a.dilation != 1 && a.taps > 1)) return false;
        if (a.begin + (a.output - 1) * a.stride + a.taps > a.input || (a.output > 1 && a.stride < a.taps)) return false;
    }
    return true;
}

// Fills in whether the windows are regular: a grid shows in the first two whole windows, or in the last two of all.
inline void find_grid(PoolAxis& a) {
    int64_t whole = 0;
    while (whole + 1 < a.output && (a.count[whole] != a.taps || a.count[whole + 1] != a.taps)) ++whole;
    for (int64_t o : {whole + 1 < a.output ? whole : 0, std::max<int64_t>(0, a.output - 2)}) {
        a.stride = a.output > 1 ? a.first[o + 1] - a.first[o] : 1;
        a.begin = a.first[o] - o * a.stride;
        a.regular = is_grid(a, a.begin, a.stride);
        if (a.regular) return;
    }
    a.begin = 0, a.stride = 1;
}

}  // namespace fastconv
