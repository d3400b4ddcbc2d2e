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

    // `n` output channels from `channel` on, of the rows first <= k < end, lanes rows at a time: they follow each other in the
    // result. row(k): its sums, of whole vectors of output channels.
    template <class Row>
    void write(int64_t channel, int64_t n, int64_t first, int64_t end, Row row) const {
        for (int64_t k = first; k < end; k += L) {
            const int64_t count = std::min<int64_t>(L, end - k);
            const T* from[L] = {};
            int64_t place[L] = {};
            for (int64_t i = 0; i < count; ++i) from[i] = row(k + i), place[i] = place_of(k + i);
            for (int64_t v = 0; v < n; v += L) {
                Vec<T> value[L];
                for (int64_t i = 0; i < L; ++i) value[i] = i < count ? load(from[i] + v) : Vec<T>{};
                transpose<T>(value);
                for (int64_t l = 0; l < std::min<int64_t>(L, n - v); ++l) {
                    T* to = static_cast<T*>(out.data) + (channel + v + l) * out.batch;
                    if (dense && count == L) store(to + place[0], value[l]);
                    else
                        for (int64_t i = 0; i < count; ++i) to[place[i]] = value[l][i];
                }
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
    int64_t place_of(int64_t k) const {
        const int64_t taps = kernel_volume(p), tap = k % taps;
        const int64_t w = tap % p.kernel[2], h = tap / p.kernel[2] % p.kernel[1], d = tap / p.kernel[2] / p.kernel[1];
        return k / taps * out.channel + d * out.space[0] + h * out.space[1] + w * out.space[2];
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
