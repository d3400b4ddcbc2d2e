// Where a gradient of the weight goes: from sums with output channels on their vectors to an array in which the taps come last.
#pragma once
#include "window.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// Rows of the result are numbered as K is: input channel of the group, then tap.
template <class T>
class WeightRows {
   public:
    WeightRows(const Problem& problem, const View& view) : p(problem), out(view), dense(is_dense()) {}

    // `n` output channels from `channel` on, of `count` input channels from `first` on, lanes rows at a time: they follow each other in
    // the result. row(input channel, tap): its sums, of whole vectors of output channels.
    template <class Row>
    void write(int64_t channel, int64_t n, int64_t first, int64_t count, Row row) const {
        const int64_t taps = kernel_volume(p), end = (first + count) * taps;
        T* const to = static_cast<T*>(out.data) + channel * out.batch;
        for (int64_t k = first * taps, c = first, tap = 0; k < end; k += L) {
            const int64_t some = std::min<int64_t>(L, end - k);
            const T* from[L];
            int64_t place[L];
            for (int64_t i = 0; i < some; ++i) {  // no division: it would take as long as all the rest
                from[i] = row(c, tap), place[i] = dense ? k + i : place_of(c, tap);
                if (++tap == taps) tap = 0, ++c;
            }
            for (int64_t v = 0; v < n; v += L) {
                if (some == L && dense && n - v >= L) write_whole(from, v, to + v * out.batch + k);
                else write_some(from, some, v, std::min<int64_t>(L, n - v), to + v * out.batch, place);
            }
        }
    }

   private:
    static constexpr int L = lanes<T>;
    const Problem& p;
    const View& out;
    const bool dense;

    bool is_dense() const {
        int64_t step = 1;
        for (int a = max_axes - 1; a >= 0; --a) {
            if (p.kernel[a] > 1 && out.space[a] != step) return false;
            step *= p.kernel[a];
        }
        return p.in_channels == 1 || out.channel == step;
    }
    int64_t place_of(int64_t c, int64_t tap) const {
        const int64_t w = tap % p.kernel[2], h = tap / p.kernel[2] % p.kernel[1], d = tap / p.kernel[2] / p.kernel[1];
        return c * out.channel + d * out.space[0] + h * out.space[1] + w * out.space[2];
    }

    void write_whole(const T* const (&from)[L], int64_t v, T* to) const {
        Vec<T> value[L];
        for (int i = 0; i < L; ++i) value[i] = load(from[i] + v);
        transpose<T>(value);
#pragma GCC unroll 16
        for (int l = 0; l < L; ++l, to += out.batch) store(to, value[l]);
    }
    FASTCONV_NOINLINE void write_some(const T* const (&from)[L], int64_t some, int64_t v, int64_t n, T* to, const int64_t* place) const {
        Vec<T> value[L];
        for (int64_t i = 0; i < L; ++i) value[i] = i < some ? load(from[i] + v) : Vec<T>{};
        transpose<T>(value);
        for (int64_t l = 0; l < n; ++l, to += out.batch) {
            if (dense && some == L) store(to + place[0], value[l]);
            else if (dense) store_first(to + place[0], value[l], some);
            else
                for (int64_t i = 0; i < some; ++i) to[place[i]] = value[l][i];
        }
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
