// The register tiles of outer: sums that stay in registers while all pixels of a box pass by, and what is asked for meanwhile.
#pragma once
#include <algorithm>
#include <utility>

#include "tile.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// The outputs of a box: where each one's inputs begin in the slab. A loop over rows would mispredict the end of each.
struct Pixels {
    const int64_t* offset;
    int64_t count;
};

// What the next box reads, a line at a time, while this one is computed: pieces of a few lines, which no prefetcher of the CPU foresees.
class Ahead {
   public:
    // `pieces` of `bytes` each, `jump` bytes from one to the next. At most two.
    void add(const void* from, int64_t bytes, int64_t pieces, int64_t jump) {
        const char* first = reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(from) & ~uintptr_t(63));
        const int64_t lines = (static_cast<const char*>(from) - first + bytes + 63) / 64;
        if (pieces > 0) operands_[count_++] = {first, lines, pieces, jump};
    }
    void begin() { next(); }

    struct Lines {
        const char* at;
        int64_t left, step;
    } lines{};

    // Behind the last line of a piece: the next one; behind all of them the same line again and again.
    FASTCONV_NOINLINE void next() {
        if (now_ == count_) return void(lines = {reinterpret_cast<const char*>(this), INT64_MAX, 0});
        Operand& o = operands_[now_];
        lines = {o.first, o.lines, 64};
        o.first += o.jump;
        if (--o.pieces == 0) ++now_;
    }

   private:
    struct Operand {
        const char* first;
        int64_t lines, pieces, jump;
    } operands_[2];
    int count_ = 0, now_ = 0;
};

// ---- micro-kernels: sums[i][:] += sum over all pixels of x[pixel][i] * y[pixel][:]

// Anew: the pixels are summed from 0, and then added.
template <class T, int MR, int NR, bool Anew = false>
struct OuterTile {
    FASTCONV_KERNEL static void run(const T* x, const Pixels& pixels, const T* y, T* sums, Ahead& ahead) {
        constexpr int L = lanes<T>;
        Ahead::Lines lines = ahead.lines;
        Vec<T> sum[MR][NR];
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
            for (int v = 0; v < NR; ++v) sum[i][v] = Anew ? Vec<T>{} : load(sums + (i * NR + v) * L);
        for (int64_t q = 0; q < pixels.count; ++q, y += NR * L) {
            __builtin_prefetch(lines.at, 0, 2), lines.at += lines.step;
            if (__builtin_expect(--lines.left == 0, 0)) ahead.next(), lines = ahead.lines;
            const T* from = x + pixels.offset[q];
            Vec<T> gradient[NR];
#pragma GCC unroll 2
            for (int v = 0; v < NR; ++v) gradient[v] = load(y + v * L);
#pragma GCC unroll 16
            for (int i = 0; i < MR; ++i) {
                const Vec<T> value = broadcast(from[i]);
#pragma GCC unroll 2
                for (int v = 0; v < NR; ++v) sum[i][v] += value * gradient[v];
            }
        }
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
            for (int v = 0; v < NR; ++v) {
                T* to = sums + (i * NR + v) * L;
                store(to, Anew ? load(to) + sum[i][v] : sum[i][v]);
            }
        ahead.lines = lines;
    }
};

// The same with a vector of x for each i, of NH taps along h at a time: `apart` from one to the next in the slab, and in the sums.
template <class T, int MR, int NH>
struct LaneTile {
    FASTCONV_KERNEL static void run(const T* x, int64_t apart, const Pixels& pixels, const T* y, T* sums, int64_t sums_apart) {
        constexpr int L = lanes<T>;
        Vec<T> sum[NH][MR];
#pragma GCC unroll 4
        for (int h = 0; h < NH; ++h)
#pragma GCC unroll 16
            for (int i = 0; i < MR; ++i) sum[h][i] = load(sums + h * sums_apart + i * L);
        for (int64_t q = 0; q < pixels.count; ++q, y += L) {
            const T* from = x + pixels.offset[q];
            const Vec<T> gradient = load(y);
#pragma GCC unroll 4
            for (int h = 0; h < NH; ++h)
#pragma GCC unroll 16
                for (int i = 0; i < MR; ++i) sum[h][i] += load(from + h * apart + i * L) * gradient;
        }
#pragma GCC unroll 4
        for (int h = 0; h < NH; ++h)
#pragma GCC unroll 16
            for (int i = 0; i < MR; ++i) store(sums + h * sums_apart + i * L, sum[h][i]);
    }
};

template <class T>
using OuterRun = void (*)(const T*, const Pixels&, const T*, T*, Ahead&);
template <class T>
using LaneRun = void (*)(const T*, int64_t, const Pixels&, const T*, T*, int64_t);

template <class T, int NR, bool Anew, size_t... I>
OuterRun<T> outer_tile(int64_t rows, std::index_sequence<I...>) {
    static constexpr OuterRun<T> table[] = {OuterTile<T, int(I) + 1, NR, Anew>::run...};
    return table[rows - 1];
}
// Of that many rows and vectors: OuterTile<T, rows, 1 or 2, Anew>.
template <class T, bool Anew>
OuterRun<T> outer_tile(int64_t rows, int64_t width) {
    constexpr auto all = std::make_index_sequence<size_t(max_MR)>{};
    return width == lanes<T> ? outer_tile<T, 1, Anew>(rows, all) : outer_tile<T, 2, Anew>(rows, all);
}

// The vectors of a tile, beside one of dy and one that is being loaded, fill the registers.
constexpr int most_sums = 2 * max_MR - 2;
constexpr int most_taps_at_once = 3;
template <class T, int NH, size_t... I>
LaneRun<T> lane_tile(int64_t rows, std::index_sequence<I...>) {
    static constexpr LaneRun<T> table[] = {LaneTile<T, int(I) + 1, NH>::run...};
    return table[rows - 1];
}
template <class T>
LaneRun<T> lane_tile(int64_t rows, int64_t taps) {
    if (taps == 1) return lane_tile<T, 1>(rows, std::make_index_sequence<std::min(most_sums, 12)>{});
    if (taps == 2) return lane_tile<T, 2>(rows, std::make_index_sequence<most_sums / 2>{});
    return lane_tile<T, 3>(rows, std::make_index_sequence<most_sums / 3>{});
}
constexpr int64_t most_rows(int64_t taps) { return taps == 1 ? std::min(most_sums, 12) : most_sums / taps; }

}  // namespace FASTCONV_ISA
}  // namespace fastconv
