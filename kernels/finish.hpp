// From sums with the output channels side by side to the output: residual, activation, and the memory order of the arrays.
#pragma once
#include "epilogue.hpp"
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
        if (pixels_adjacent) transposed(tile, width, channels, pixels, y, r);
        else if (channels_adjacent) copied(tile, width, channels, pixels, y, r);
        else scattered(tile, width, channels, pixels, y, r);
    }

   private:
    FASTCONV_NOINLINE void transposed(const T* tile, int64_t width, int64_t channels, int64_t pixels, T* y, const T* r) const {
        for (int64_t v = 0; v < channels; v += L) {
            const int64_t n = std::min<int64_t>(L, channels - v);
            int64_t i = 0;
            const auto put = [&](Vec<T> value, int64_t c) __attribute__((always_inline)) {
                if (r) value += load(r + (v + c) * residual.channel + i);
                store(y + (v + c) * output.channel + i, epilogue(value));
            };
            for (; i + L <= pixels; i += L) {
                Vec<T> row[L];
                for (int l = 0; l < L; ++l) row[l] = load(tile + (i + l) * width + v);
                transpose<T>(row);
                if (n == L) {  // a constant trip count: the rows stay in registers
#pragma GCC unroll 16
                    for (int c = 0; c < L; ++c) put(row[c], c);
                } else {
                    for (int64_t c = 0; c < n; ++c) put(row[c], c);
                }
            }
            if (i < pixels) {
                const int64_t m = pixels - i;
                Vec<T> row[L] = {};
                for (int64_t l = 0; l < m; ++l) row[l] = load(tile + (i + l) * width + v);
                transpose<T>(row);
                for (int64_t c = 0; c < n; ++c) {
                    Vec<T> value = row[c];
                    if (r) value += load_first(r + (v + c) * residual.channel + i, m);
                    store_first(y + (v + c) * output.channel + i, epilogue(value), m);
                }
            }
        }
    }

    FASTCONV_NOINLINE void copied(const T* tile, int64_t width, int64_t channels, int64_t pixels, T* y, const T* r) const {
        for (int64_t i = 0; i < pixels; ++i, tile += width, y += output.space[2]) {
            const T* add = r ? r + i * residual.space[2] : nullptr;
            int64_t v = 0;
            for (; v + L <= channels; v += L) {
                Vec<T> value = load(tile + v);
                if (add) value += load(add + v);
                store(y + v, epilogue(value));
            }
            if (v < channels) {
                Vec<T> value = load(tile + v);
                if (add) value += load_first(add + v, channels - v);
                store_first(y + v, epilogue(value), channels - v);
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
