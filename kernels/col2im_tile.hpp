// The register tile of col2im: pixels times vectors of columns.
#pragma once
#include <utility>

#include "abi.hpp"
#include "tile.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <class T>
constexpr int64_t pitch = (max_MR + lanes<T> - 1) / lanes<T> * lanes<T>;  // of the gradient of a tile: from oc to oc + 1, whole vectors
constexpr int few_NR = max_MR > 8 ? 8 : 4;    // vectors of a tile of one pixel

struct WeightsAhead {  // weights to ask for meanwhile: where they begin, and how many bytes with each k
    const char* from;
    int64_t step;
};

// ---- micro-kernel: tile[i][:] = sum over k of x[k][i] * w[k][:], or, `more`, what it was and that

template <class T, int MR, int NR>
struct ColumnTile {
    FASTCONV_NOINLINE static void run(const T* x, int64_t x_step, int64_t k_count, const T* w, int64_t w_step, WeightsAhead ahead,
                                     T* tile, bool more) {
        constexpr int L = lanes<T>;
        Vec<T> sum[MR][NR] = {};
        if (more) {
#pragma GCC unroll 16
            for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
                for (int v = 0; v < NR; ++v) sum[i][v] = load(tile + (i * NR + v) * L);
        }
        for (int64_t k = 0; k < k_count; ++k, w += w_step, x += x_step, ahead.from += ahead.step) {
            __builtin_prefetch(ahead.from), __builtin_prefetch(ahead.from + NR * vector_bytes - 64);
            Vec<T> weight[NR];
#pragma GCC unroll 8
            for (int v = 0; v < NR; ++v) weight[v] = load(w + v * L);
#pragma GCC unroll 16
            for (int i = 0; i < MR; ++i) {
                const Vec<T> value = broadcast(x[i]);
#pragma GCC unroll 8
                for (int v = 0; v < NR; ++v) sum[i][v] += value * weight[v];
            }
        }
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
            for (int v = 0; v < NR; ++v) store(tile + (i * NR + v) * L, sum[i][v]);
    }
};

template <class T>
using ColumnRun = void (*)(const T*, int64_t, int64_t, const T*, int64_t, WeightsAhead, T*, bool);

template <class T, int NR, size_t... I>
ColumnRun<T> column_tile(int64_t rows, std::index_sequence<I...>) {
    static constexpr ColumnRun<T> table[] = {ColumnTile<T, int(I) + 1, NR>::run...};
    return table[rows - 1];
}
template <class T>
ColumnRun<T> column_tile(int64_t rows, int64_t width) {
    constexpr auto all = std::make_index_sequence<size_t(max_MR)>{};
    if (width == lanes<T>) return column_tile<T, 1>(rows, all);
    if (width == 2 * lanes<T>) return column_tile<T, 2>(rows, all);
    return ColumnTile<T, 1, few_NR>::run;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
