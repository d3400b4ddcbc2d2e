// Weights as direct reads them, in panels of as many output channels as a register tile has rows, which it broadcasts.
#pragma once
#include "pack.hpp"
#include "window.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int max_MR = 8, max_sums = 24, max_NR = 8;
#elif defined(__AVX2__)
constexpr int max_MR = 6, max_sums = 12, max_NR = 8;
#elif defined(__aarch64__)
constexpr int max_MR = 6, max_sums = 18, max_NR = 8;
#else
constexpr int max_MR = 5, max_sums = 10, max_NR = 6;
#endif

// Bias [channel of all groups], spoiled: whether any weight is not finite, then weights [group][panel][k][rows of the panel], panels
// of equal split.
template <class T>
struct DirectPacking {
    int64_t k, channels, panels;

    explicit DirectPacking(const Problem& p) : DirectPacking(p, kernel_volume(p)) {}
    DirectPacking(const Problem& p, int64_t volume)
        : k(p.in_channels * volume), channels(p.out_channels), panels(ceil_div(p.out_channels, max_MR)) {}
    int64_t first(int64_t panel) const { return ceil_div(channels * panel, panels); }
    int64_t spoiled(const Problem& p) const { return p.groups * channels; }
    int64_t before(const Problem& p) const { return round_up(spoiled(p) + 1, 64 / int64_t(sizeof(T))); }
    size_t bytes(const Problem& p) const { return size_t(before(p) + p.groups * channels * k) * sizeof(T); }
    int64_t offset(const Problem& p, int64_t group, int64_t panel) const {
        return before(p) + (group * channels + first(panel)) * k;
    }
};

// to[k][row] = from[row][k], lanes x lanes at a time, where vectors are long enough for all rows.
template <class T>
void pack_panel(const T* from, int64_t k_count, int64_t rows, T* to) {
    constexpr int L = lanes<T>;
    if constexpr (L < max_MR) {
        for (int64_t k = 0; k < k_count; ++k, to += rows)
            for (int64_t m = 0; m < rows; ++m) to[m] = from[m * k_count + k];
    } else {
        for (int64_t k = 0; k < k_count; k += L) {
            const int64_t n = std::min<int64_t>(L, k_count - k);
            Vec<T> row[L];
            for (int64_t i = 0; i < L; ++i) row[i] = load_some(from + std::min(i, rows - 1) * k_count + k, n);
            transpose<T>(row);
            for (int64_t i = 0; i < n; ++i, to += rows) {
                if (rows == L) store(to, row[i]);
                else store_first(to, row[i], rows);
            }
        }
    }
}

template <class T>
void pack_panels(const Problem& p, const PackCall& call) {
    const DirectPacking<T> packing(p);
    const T *weight = static_cast<const T*>(call.weight), *bias = static_cast<const T*>(call.bias);
    T* out = static_cast<T*>(call.packed);
    for (int64_t c = 0; c < p.groups * packing.channels; ++c) out[c] = bias ? bias[c] : T(0);
    out[packing.spoiled(p)] = T(!all_finite(weight, p.groups * packing.channels * packing.k));
    for (int64_t g = 0; g < p.groups; ++g)
        for (int64_t panel = 0; panel < packing.panels; ++panel) {
            const int64_t first = packing.first(panel), rows = packing.first(panel + 1) - first;
            pack_panel(weight + (g * packing.channels + first) * packing.k, packing.k, rows, out + packing.offset(p, g, panel));
        }
}

}  // namespace
}  // namespace FASTCONV_ISA
}  // namespace fastconv
