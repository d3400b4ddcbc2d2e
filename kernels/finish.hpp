// From sums with the output channels side by side to the output: residual, activation, and the memory order of the arrays.
#pragma once
#include "epilogue.hpp"
#include "squares.hpp"
#include "window.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <class T>
struct Finish {
    static constexpr int L = lanes<T>;
    View output, residual;
    Epilogue<T> epilogue;

    Finish(const Problem& p, const Call& call) : output(call.output), residual(call.residual), epilogue(p) {}

    // tile[pixel][width], of which `channels` count, to `pixels` outputs along w from y on; r: their residual, or null.
    void operator()(const T* tile, int64_t width, int64_t channels, int64_t pixels, T* y, const T* r) const {
        const bool pixels_adjacent = output.space[2] == 1 && (!r || residual.space[2] == 1);
        const bool channels_adjacent = output.channel == 1 && (!r || residual.channel == 1);
        const bool limit = !r && epilogue.is_limit();
        if (pixels_adjacent) (this->*(limit ? &Finish::transposed<true> : &Finish::transposed<false>))(tile, width, channels, pixels, y, r);
        else if (channels_adjacent) (this->*(limit ? &Finish::copied<true> : &Finish::copied<false>))(tile, width, channels, pixels, y, r);
        else if (channels >= L / 2) spread(tile, width, channels, pixels, y, r);
        else scattered(tile, width, channels, pixels, y, r);
    }

   private:
    // Limit: no residual, and the activation is none but limits; then no output needs a branch.
    template <bool Limit>
    FASTCONV_NOINLINE void transposed(const T* tile, int64_t width, int64_t channels, int64_t pixels, T* y, const T* r) const {
        const int64_t step = output.channel, step_r = residual.channel, vectors = pixels / L * L;  // the pixels of whole vectors
        const Limited<T> limited(epilogue);
        for (int64_t v = 0; v < channels; v += L, tile += L, y += L * step, r = r ? r + L * step_r : nullptr) {
            const int64_t n = std::min<int64_t>(L, channels - v);
            if (Limit && n == L && pixels >= side<T>) {
                limited_squares(tile, width, pixels, y);
                continue;
            }
            for (int64_t i = 0; i < vectors; i += L) {
                Vec<T> row[L];
                for (int l = 0; l < L; ++l) row[l] = load(tile + (i + l) * width);
                transpose<T>(row);
                T* to = y + i;
                const auto put = [&](int64_t c) __attribute__((always_inline)) {
                    if constexpr (Limit) store(to, limited(row[c]));
                    else store(to, epilogue(r ? row[c] + load(r + c * step_r + i) : row[c]));
                    to += step;
                };
                if (n == L) {  // a constant trip count: the rows stay in registers
#pragma GCC unroll 16
                    for (int c = 0; c < L; ++c) put(c);
                } else {
                    for (int64_t c = 0; c < n; ++c) put(c);
                }
            }
            if (vectors < pixels) {
                const int64_t i = vectors, m = pixels - i;
                Vec<T> row[L];
                for (int l = 0; l < L; ++l) row[l] = load(tile + std::min(i + l, pixels - 1) * width);
                transpose<T>(row);
                for (int64_t c = 0; c < n; ++c) {
                    Vec<T> value = row[c];
                    if (r) value += load_first(r + c * step_r + i, m);
                    store_first(y + c * step + i, epilogue(value), m);
                }
            }
        }
    }

    // A vector of channels; the last squares overlap their neighbours, with the same bits again.
    FASTCONV_INLINE void limited_squares(const T* tile, int64_t width, int64_t pixels, T* y) const {
        const Side<T> least = epilogue.least() - Side<T>{}, most = epilogue.most() - Side<T>{};
        for (int64_t c = 0; c < L; c += side<T>)
            for (int64_t i = 0; i < pixels; i += side<T>) {
                const int64_t at = std::min<int64_t>(i, pixels - side<T>);
                transpose_square<T>(tile + at * width + c, width, y + c * output.channel + at, output.channel,
                                    [&](Side<T> x) __attribute__((always_inline)) {
                                        x = x < least ? least : x;
                                        return most < x ? most : x;
                                    });
            }
    }

    template <bool Limit>
    FASTCONV_NOINLINE void copied(const T* tile, int64_t width, int64_t channels, int64_t pixels, T* y, const T* r) const {
        const Limited<T> limited(epilogue);
        const int64_t step = output.space[2];
        for (int64_t i = 0; i < pixels; ++i, tile += width, y += step) {
            const T* add = r ? r + i * residual.space[2] : nullptr;
            int64_t v = 0;
            for (; v + L <= channels; v += L) {
                Vec<T> value = load(tile + v);
                if constexpr (Limit) value = limited(value);
                else value = epilogue(add ? value + load(add + v) : value);
                store(y + v, value);
            }
            if (v < channels) {
                Vec<T> value = load(tile + v);
                if (add) value += load_first(add + v, channels - v);
                store_first(y + v, epilogue(value), channels - v);
            }
        }
    }

    // Pixels that are apart, as those of a phase of a gradient.
    FASTCONV_NOINLINE void spread(const T* tile, int64_t width, int64_t channels, int64_t pixels, T* y, const T* r) const {
        const int64_t step = output.space[2], step_r = residual.space[2];
        for (int64_t v = 0; v < channels; v += L, tile += L, y += L * output.channel, r = r ? r + L * residual.channel : nullptr)
            for (int64_t i = 0; i < pixels; i += L) {
                const int64_t m = std::min<int64_t>(L, pixels - i);
                Vec<T> row[L];
                for (int64_t l = 0; l < L; ++l) row[l] = load(tile + (i + std::min(l, m - 1)) * width);
                transpose<T>(row);
                for (int64_t c = 0; c < std::min<int64_t>(L, channels - v); ++c) {
                    Vec<T> value = row[c];
                    if (r)
                        for (int64_t l = 0; l < m; ++l) value[l] += r[c * residual.channel + (i + l) * step_r];
                    store_apart(y + c * output.channel + i * step, step, epilogue(value), m);
                }
            }
    }

    FASTCONV_NOINLINE void scattered(const T* tile, int64_t width, int64_t channels, int64_t pixels, T* y, const T* r) const {
        for (int64_t c = 0; c < channels; ++c)
            for (int64_t i = 0; i < pixels; ++i) {
                T value = tile[i * width + c];
                if (r) value += r[c * residual.channel + i * residual.space[2]];
                y[c * output.channel + i * output.space[2]] = epilogue(value);
            }
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
