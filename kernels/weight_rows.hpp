// Where a gradient of the weight goes: from sums with output channels on their vectors to an array in which the taps come last.
#pragma once
#include "window.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// Rows of the result are numbered as K is: input channel of the group, then tap. A vector of output channels by a vector of rows
// is transposed at a time: rows follow each other in the result, and vectors begin at lines where those of all channels can.
template <class T>
class WeightRows {
   public:
    // Past the caches if `past`, what vectors fill: not seen by others before `stored_past`.
    WeightRows(const Problem& problem, const View& view, bool past = false)
        : p(problem), out(view), dense(is_dense()), together(dense && (out.batch % L == 0 || p.groups * p.out_channels == 1)),
          past_(past && together) {}

    // `n` output channels from `channel` on, rows first <= k < end. row(k): its sums, of whole vectors of output channels.
    template <class Row>
    void write(int64_t channel, int64_t n, int64_t first, int64_t end, Row row) const {
        const int64_t whole = n / L * L;
        T* const to = static_cast<T*>(out.data) + channel * out.batch;
        for (int64_t k = first; k < end;) {
            const int64_t some = std::min(together ? up_to_a_line(to + k) : L, end - k);
            const T* from[L];
            int64_t v = 0;
            if (some == L && dense) {
                for (int i = 0; i < L; ++i) from[i] = row(k + i);
                for (; v < whole; v += L) write_whole(from, v, to + v * out.batch + k);
            }
            if (v < n) {
                for (int64_t i = 0; i < L; ++i) from[i] = row(std::min(k + i, end - 1));
                for (; v < n; v += L) write_some(from, v, std::min<int64_t>(L, n - v), some, k, to + v * out.batch);
            }
            k += some;
        }
    }

   private:
    static constexpr int64_t L = lanes<T>;
    const Problem& p;
    const View& out;
    const bool dense, together, past_;  // together: rows of all channels begin at as many bytes behind a line

    bool is_dense() const {
        int64_t step = 1;
        for (int a = max_axes - 1; a >= 0; --a) {
            if (p.kernel[a] > 1 && out.space[a] != step) return false;
            step *= p.kernel[a];
        }
        return p.in_channels == 1 || out.channel == step;
    }
    int64_t place_of(int64_t k) const {
        const int64_t taps = kernel_volume(p), c = k / taps, tap = k % taps;
        const int64_t w = tap % p.kernel[2], h = tap / p.kernel[2] % p.kernel[1], d = tap / p.kernel[2] / p.kernel[1];
        return c * out.channel + d * out.space[0] + h * out.space[1] + w * out.space[2];
    }
    static int64_t up_to_a_line(const T* to) {  // or what a vector is of it
        return L - int64_t(reinterpret_cast<uintptr_t>(to) % vector_bytes / sizeof(T));
    }

    FASTCONV_INLINE void write_whole(const T* const (&from)[L], int64_t v, T* to) const {
        Vec<T> value[L];
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) value[i] = load(from[i] + v);
        transpose<T>(value);
#pragma GCC unroll 16
        for (int l = 0; l < L; ++l, to += out.batch) store_past(to, value[l], past_);
    }
    // `n` output channels of `some` rows, from k on.
    FASTCONV_NOINLINE void write_some(const T* const (&from)[L], int64_t v, int64_t n, int64_t some, int64_t k, T* to) const {
        Vec<T> value[L];
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) value[i] = load(from[i] + v);
        transpose<T>(value);
        if (dense && n == L && some < L) {
            to += k;
#pragma GCC unroll 16
            for (int l = 0; l < L; ++l, to += out.batch) store_first(to, value[l], some);
            return;
        }
        int64_t place[L];
        for (int64_t i = 0; i < some; ++i) place[i] = dense ? k + i : place_of(k + i);
        for (int64_t l = 0; l < n; ++l, to += out.batch) {
            if (dense && some == L) store(to + k, value[l]);
            else
                for (int64_t i = 0; i < some; ++i) to[place[i]] = value[l][i];
        }
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
