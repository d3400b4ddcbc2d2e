// The register tile of direct: output channels x vectors of pixels, from anywhere in a box.
#pragma once
#include "direct_packing.hpp"
#include "epilogue.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

// Loads that cross lines, and pages, are hidden where tiles load little: three vectors for 24 products.
constexpr bool gathers = vector_bytes < 64;
constexpr int vectors_for(int rows) { return max_sums / rows < max_NR ? max_sums / rows : max_NR; }

struct Place {  // of one vector of pixels: where it is read, where its lanes first .. last-1 are written
    int64_t input, output, residual;
    int64_t first, last;
};

// Where a tile goes straight from the registers: whole vectors, and no activation but limits (relu, relu6).
template <class T>
struct Straight {
    T* y;        // null: into the tile buffer instead
    const T* r;  // the residual, or null
    int64_t channel, channel_r;
    T least, most;
};

// Inputs: from near by; from where more streams begin than the hardware follows, so that those of a few tiles ahead are asked for into
// L2; or gathered on the way.
enum class Reads { near, ahead, gathers };

// Where the inputs of a tile are put side by side for the next panels of weights, and how far ahead they are asked for.
template <class T>
struct Gathered {
    T* to;
    int64_t step, ahead;  // from k to k + 1
};

// ---- micro-kernel: tile[m][v][:] = bias[m] + sum over k of w[k][m] * x[place[v] + tap[k]]

template <class T, int MR, int NR, Reads R>
FASTCONV_NOINLINE void micro(const T* x, const Place* place, const int64_t* tap, int64_t k_count, const T* w, const T* bias, T* tile,
                             const Straight<T>& straight, const Gathered<T>& gathered) {
    constexpr int L = lanes<T>;
    T* to = gathered.to;
    const T* p[NR];
    Vec<T> sum[MR][NR];
#pragma GCC unroll 8
    for (int v = 0; v < NR; ++v) {
        p[v] = x + place[v].input;
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) sum[m][v] = broadcast(bias[m]);
    }
    for (int64_t k = 0; k < k_count; ++k, w += MR) {
        const int64_t offset = tap[k];
        if constexpr (R == Reads::ahead) {
#pragma GCC unroll 8
            for (int v = 0; v < NR; v += 64 / vector_bytes) __builtin_prefetch(p[v] + offset + 4 * NR * L, 0, 2);
        }
        if constexpr (MR >= NR) {  // the fewer operands stay in registers, the others pass through one
            Vec<T> value[NR];
#pragma GCC unroll 8
            for (int v = 0; v < NR; ++v) value[v] = load(p[v] + offset);
            if constexpr (R == Reads::gathers) {
#pragma GCC unroll 8
                for (int v = 0; v < NR; ++v) store(to + v * L, value[v]);
                __builtin_prefetch(p[NR - 1] + L - 1 + offset + gathered.ahead);
                to += gathered.step;
            }
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) {
                const Vec<T> weight = broadcast(w[m]);
#pragma GCC unroll 8
                for (int v = 0; v < NR; ++v) sum[m][v] += weight * value[v];
            }
        } else {
            Vec<T> weight[MR];
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) weight[m] = broadcast(w[m]);
#pragma GCC unroll 8
            for (int v = 0; v < NR; ++v) {
                const Vec<T> value = load(p[v] + offset);
#pragma GCC unroll 8
                for (int m = 0; m < MR; ++m) sum[m][v] += weight[m] * value;
            }
        }
    }
    if (T* y = straight.y) {
        const Limited<T> limited(straight.least, straight.most);
        const int64_t channel = straight.channel, channel_r = straight.channel_r;
        int64_t output[NR];
        if (const T* r = straight.r) {
            int64_t residual[NR];
#pragma GCC unroll 8
            for (int v = 0; v < NR; ++v) residual[v] = place[v].residual;
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m, r += channel_r)
#pragma GCC unroll 8
                for (int v = 0; v < NR; ++v) sum[m][v] += load(r + residual[v]);
        }
#pragma GCC unroll 8
        for (int v = 0; v < NR; ++v) output[v] = place[v].output;
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m, y += channel)
#pragma GCC unroll 8
            for (int v = 0; v < NR; ++v) store(y + output[v], limited(sum[m][v]));
        return;
    }
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < NR; ++v) store(tile + (m * NR + v) * L, sum[m][v]);
}

// The same where products are rounded (see rounds_products), for all `rows` channels of a panel.
template <class T, int NR>
FASTCONV_NOINLINE void rounded_micro(const T* x, const Place* place, const int64_t* tap, int64_t k_count, int64_t rows, const T* w,
                                     const T* bias, T* tile) {
    constexpr int L = lanes<T>;
    for (int64_t m = 0; m < rows; ++m, ++w, tile += NR * L) {
        const auto product = [&](int64_t k, int v) __attribute__((always_inline)) {
            return rounded(load(x + place[v].input + tap[k]) * broadcast(w[k * rows]));
        };
        Vec<T> sum[NR];
#pragma GCC unroll 8
        for (int v = 0; v < NR; ++v) sum[v] = broadcast(bias[m]);
        for (int64_t k = 0; k < k_count / 2; ++k)
#pragma GCC unroll 8
            for (int v = 0; v < NR; ++v) sum[v] += product(k, v) + product(k_count - 1 - k, v);
#pragma GCC unroll 8
        for (int v = 0; v < NR; ++v) store(tile + v * L, k_count % 2 ? sum[v] + product(k_count / 2, v) : sum[v]);
    }
}

template <class T, size_t... I>
auto rounded_micro_at(int64_t vectors, std::index_sequence<I...>) {
    static constexpr decltype(&rounded_micro<T, 1>) table[] = {rounded_micro<T, int(I) + 1>...};
    return table[vectors - 1];
}

template <class T>
using Micro = void (*)(const T*, const Place*, const int64_t*, int64_t, const T*, const T*, T*, const Straight<T>&, const Gathered<T>&);

template <class T, int MR, int NR, Reads R>
constexpr Micro<T> micro_or_none() {
    if constexpr (NR <= vectors_for(MR) && (R != Reads::gathers || (gathers && MR >= NR))) return micro<T, MR, NR, R>;
    else return nullptr;
}

template <class T, Reads R, size_t... I>
Micro<T> micro_at(int64_t rows, int64_t vectors, std::index_sequence<I...>) {
    static constexpr Micro<T> table[] = {micro_or_none<T, int(I) / max_NR + 1, int(I) % max_NR + 1, R>()...};
    return table[(rows - 1) * max_NR + vectors - 1];
}

}  // namespace
}  // namespace FASTCONV_ISA
}  // namespace fastconv
