// Weights with the output channels side by side.
#pragma once
#include <algorithm>

#include "simd.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// rows[i][columns] of w, transposed to out_row[column][i]; rows and columns that do not exist count as 0 and are not written.
template <class T>
FASTCONV_INLINE void transpose_block(const T* w, int64_t stride, int64_t rows, int64_t columns, T* const* out_row, int64_t v, bool past) {
    constexpr int L = lanes<T>;
    Vec<T> row[L];
    if (rows >= L && columns >= L) {  // constant trip counts: the rows stay in registers
        for (int i = 0; i < L; ++i) row[i] = load(w + i * stride);
        transpose<T>(row);
        for (int i = 0; i < L; ++i) store_past(out_row[i] + v, row[i], past);
        return;
    }
    for (int64_t i = 0; i < L; ++i) row[i] = i < rows ? load_some(w + i * stride, std::min<int64_t>(columns, L)) : Vec<T>{};
    transpose<T>(row);
    for (int64_t i = 0; i < std::min<int64_t>(columns, L); ++i) store_past(out_row[i] + v, row[i], past);
}

template <class T>
bool all_finite(const T* w, int64_t count) {
    constexpr int L = lanes<T>;
    Vec<T> odd[4] = {};  // NaN as soon as one is not
    int64_t i = 0;
    for (; i + 4 * L <= count; i += 4 * L)
        for (int v = 0; v < 4; ++v) odd[v] += load(w + i + v * L) * T(0);
    for (; i < count; i += L) odd[0] += load_some(w + i, std::min<int64_t>(L, count - i)) * T(0);
    T sum[L];
    store(sum, odd[0] + odd[1] + odd[2] + odd[3]);
    return std::all_of(sum, sum + L, [](T it) { return it == 0; });
}

// w[oc][channel][tap] -> place(channel, tap)[width], k_count = channels x taps of each; output channels that do not exist are 0. A
// line of each row of w at a time: all rows may share one set of L1, and a line would not survive until its second half is needed.
// past: see store_past; width is whole lines then.
template <class T, class Place>
void pack_block(const T* w, int64_t stride, int64_t tap_count, int64_t k_count, int64_t channels, int64_t width, Place place,
                bool past = false) {
    constexpr int L = lanes<T>, line = 64 / int(sizeof(T));
    T* out_row[line];
    int64_t tap = 0, channel = 0;
    for (int64_t k = 0; k < k_count; k += line) {
        const int64_t m = std::min<int64_t>(line, k_count - k);
        for (int64_t i = 0; i < m; ++i) {
            out_row[i] = place(channel, tap);
            if (++tap == tap_count) tap = 0, ++channel;
        }
        for (int64_t v = 0; v < width; v += L)
            for (int64_t i = 0; i < m; i += L)
                transpose_block(w + v * stride + k + i, stride, channels - v, m - i, out_row + i, v, past);
    }
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
