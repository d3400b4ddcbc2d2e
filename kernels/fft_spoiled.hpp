// What is not finite, or very large, among the inputs of a tile and the weights, which the transforms have taken for 0: what it
// adds to the outputs that see it.
//
// A NaN makes them NaN whatever the weights are, so that it is enough to know how far the next one is, axis by axis: time is
// that of a few passes over the tile, however many there are. All else adds its product with each weight of its channel. Where
// both factors are such, their product is added twice: it is NaN or infinite.
#pragma once
#include <limits>

#include "fft_tile.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <class T>
struct Spoiled {
    typedef typename VectorOf<T>::Int Int;
    typedef typename VectorOf<T>::mask Mask;
    static constexpr int L = lanes<T>;
    static constexpr Int far = Int(1) << 30;
    const Problem& p;
    int64_t span[max_axes], outputs[max_axes];  // padded coordinates that the tile's outputs see
    Int* next;                                  // [span]: from each to the next NaN, or far; last 0 where an output sees one
    T* sums;                                    // [outputs]: what one output channel gets

    static size_t bytes(const Cut (&cut)[max_axes]) {
        Arena arena(nullptr);
        arena.take<Int>(cut[0].span(0) * cut[1].span(0) * cut[2].span(0));
        arena.take<T>(cut[0].outputs_of(0) * cut[1].outputs_of(0) * cut[2].outputs_of(0));
        return arena.used();
    }
    Spoiled(const Problem& problem, const Cut (&cut)[max_axes], const int64_t (&tile)[max_axes], void* memory) : p(problem) {
        for (int a = 0; a < max_axes; ++a) span[a] = cut[a].span(tile[a]), outputs[a] = cut[a].outputs_of(tile[a]);
        Arena arena(memory);
        next = arena.take<Int>(span[0] * span[1] * span[2]);
        sums = arena.take<T>(outputs[0] * outputs[1] * outputs[2]);
    }

    // channel(c): the Inputs of a channel over the whole span.
    template <class Channel>
    void find(Channel channel) const {
        std::fill(next, next + span[0] * span[1] * span[2], far);
        bool any = false;
        for (int64_t c = 0; c < p.in_channels; ++c)
            each_of(channel(c), [](Vec<T> v) { return v != v; }, [&](int64_t d, int64_t h, int64_t w, Vec<T>, Mask is) {
                Int* at = next + (d * span[1] + h) * span[2] + w;
                any = true;
                if (w + L <= span[2]) return store(at, load(at) & ~is);
                for (int64_t l = 0; l < span[2] - w; ++l) at[l] &= ~is[l];
            });
        if (!any) return;
        for (int64_t row = 0; row < span[0] * span[1]; ++row) sweep(next + row * span[2], 2, 1, 1);
        for (int64_t d = 0; d < span[0]; ++d) sweep(next + d * span[1] * span[2], 1, span[2], outputs[2]);
        for (int64_t h = 0; h < outputs[1]; ++h) sweep(next + h * span[2], 0, span[1] * span[2], outputs[2]);
    }

    // The sums of one output channel; weight: its own. Inputs, weights: whether there are such among them.
    template <class Channel>
    void add(Channel channel, const T* weight, bool inputs, bool weights) const {
        T* to = sums;
        for (int64_t d = 0; d < outputs[0]; ++d)
            for (int64_t h = 0; h < outputs[1]; ++h)
                for (int64_t w = 0; w < outputs[2]; ++w)
                    *to++ = !inputs || next[(d * span[1] + h) * span[2] + w] ? T(0) : std::numeric_limits<T>::quiet_NaN();
        for (int64_t c = 0; inputs && c < p.in_channels; ++c)
            each_of(channel(c), [](Vec<T> v) { return ~counts_of<T>(v) & (v == v); },
                    [&](int64_t d, int64_t h, int64_t w, Vec<T> v, Mask is) {
                        for (int64_t l = 0; l < std::min<int64_t>(L, span[2] - w); ++l)
                            if (is[l]) scatter(d, h, w + l, v[l], weight + c * kernel_volume(p));
                    });
        for (int64_t c = 0; weights && c < p.in_channels; ++c) add_taps(channel(c), weight + c * kernel_volume(p));
    }

   private:
    // body(d, h, w, values, which) for all vectors with values for which odd(values).
    template <class Odd, class Body>
    FASTCONV_NOINLINE void each_of(const Inputs<T>& x, Odd odd, Body body) const {
        for (int64_t d = 0; d < span[0]; ++d)
            for (int64_t h = 0; h < span[1]; ++h) {
                const T* line = x.line(d, h);
                for (int64_t w = 0; line && w < span[2]; w += L) {
                    const Vec<T> v = x.at(line, w);
                    const Mask is = odd(v);
                    if (!none(is)) body(d, h, w, v, is);
                }
            }
    }
    static bool none(Mask mask) {
        int64_t words[vector_bytes / 8], all = 0;
        std::memcpy(words, &mask, sizeof mask);
        for (int64_t word : words) all |= word;
        return all == 0;
    }

    // Along one axis: how far it is to the next 0, tap by tap; then 0 for the outputs that see it, and far for the others.
    FASTCONV_NOINLINE void sweep(Int* at, int a, int64_t step, int64_t width) const {
        const int64_t apart = p.dilation[a];
        const Int reach = Int((p.kernel[a] - 1) * apart);
        if (step == 1 && apart == 1) return sweep_row(at, reach);
        for (int64_t i = span[a] - 1; i >= 0; --i)
            for (int64_t v = 0; v < width; ++v) {
                Int& here = at[i * step + v];
                const Int there = i + apart < span[a] ? std::min(Int(at[(i + apart) * step + v] + apart), far) : far;
                here = here == 0 ? 0 : there;
            }
        for (int64_t i = 0; i < outputs[a]; ++i)
            for (int64_t v = 0; v < width; ++v) at[i * step + v] = at[i * step + v] <= reach ? 0 : far;
    }

    // The same along a row: each 0 reaches back, over what no later one needs to know.
    FASTCONV_NOINLINE void sweep_row(Int* at, int64_t reach) const {
        int64_t done = 0;
        for (int64_t i = 0; i < span[2]; ++i) {
            if (at[i]) continue;
            std::fill(at + std::max(done, i - reach), at + i, 0);
            done = i + 1;
        }
    }

    // Weights times the inputs that they meet.
    FASTCONV_NOINLINE void add_taps(const Inputs<T>& x, const T* weight) const {
        for (int64_t kd = 0; kd < p.kernel[0]; ++kd)
            for (int64_t kh = 0; kh < p.kernel[1]; ++kh)
                for (int64_t kw = 0; kw < p.kernel[2]; ++kw) {
                    const T value = *weight++;
                    if (value != value) return std::fill(sums, sums + outputs[0] * outputs[1] * outputs[2], value);
                    if (!counts(value)) add_tap(x, value, kd * p.dilation[0], kh * p.dilation[1], kw * p.dilation[2]);
                }
    }
    FASTCONV_NOINLINE void add_tap(const Inputs<T>& x, T weight, int64_t d, int64_t h, int64_t w) const {
        T* to = sums;
        for (int64_t od = 0; od < outputs[0]; ++od)
            for (int64_t oh = 0; oh < outputs[1]; ++oh, to += outputs[2]) {
                const T* line = x.line(od + d, oh + h);
                for (int64_t ow = 0; ow < outputs[2]; ow += L) {
                    const int64_t count = std::min<int64_t>(L, outputs[2] - ow);
                    const Vec<T> sum = load_some(to + ow, count) + (line ? x.at(line, ow + w) : Vec<T>{}) * weight;
                    if (count == L) store(to + ow, sum);
                    else store_first(to + ow, sum, count);
                }
            }
    }

    FASTCONV_NOINLINE void scatter(int64_t d, int64_t h, int64_t w, T value, const T* weight) const {
        for (int64_t kd = 0; kd < p.kernel[0]; ++kd)
            for (int64_t kh = 0; kh < p.kernel[1]; ++kh, weight += p.kernel[2]) {
                const int64_t od = d - kd * p.dilation[0], oh = h - kh * p.dilation[1];
                if (od < 0 || od >= outputs[0] || oh < 0 || oh >= outputs[1]) continue;
                T* to = sums + (od * outputs[1] + oh) * outputs[2];
                const int64_t step = p.dilation[2], begin = w < outputs[2] ? 0 : ceil_div(w - outputs[2] + 1, step);
                const int64_t end = std::min(p.kernel[2], w / step + 1);
                for (int64_t k = begin; k < end; ++k) to[w - k * step] += value * weight[k];
            }
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
