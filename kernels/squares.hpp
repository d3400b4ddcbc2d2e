// Transposing arrays by squares, as wide as half of a vector of 64 bytes: to[j][i] = from[i][j].
//
// Three rounds of shuffles in place of four, which on Zen 4 take 12 cycles for a quarter of what takes 64; 8 rows and their pointers stay
// in registers, as 16 do not. And planes a power of two apart, as those of 32 x 32 or 224 x 224 pixels, share a set of L1, which has 8
// lines: of 16 rows at a time each line would be fetched twice.
#pragma once
#include <algorithm>

#include "simd.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <class T>
constexpr int side = vector_bytes == 64 ? lanes<T> / 2 : lanes<T>;

template <class T>
struct SideOf {
    static constexpr int bytes = side<T> * int(sizeof(T));
    typedef T type __attribute__((vector_size(bytes)));
    typedef T unaligned __attribute__((vector_size(bytes), aligned(alignof(T)), may_alias));
    typedef typename VectorOf<T>::Int mask __attribute__((vector_size(bytes)));
};
template <class T>
using Side = typename SideOf<T>::type;

// As `exchange`.
template <class T, int H, bool High, size_t... I>
FASTCONV_INLINE Side<T> exchange_sides(Side<T> a, Side<T> b, std::index_sequence<I...>) {
    constexpr int n = side<T>;
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (High ? (int(I) & H ? n + int(I) : int(I) + H) : (int(I) & H ? n + int(I) - H : int(I)))...);
#else
    typename SideOf<T>::mask index = {(High ? (int(I) & H ? n + int(I) : int(I) + H) : (int(I) & H ? n + int(I) - H : int(I)))...};
    return __builtin_shuffle(a, b, index);
#endif
}

template <class T, int H = side<T> / 2>
FASTCONV_INLINE void transpose_sides(Side<T> (&row)[side<T>]) {
    using Lanes = std::make_index_sequence<size_t(side<T>)>;
#pragma GCC unroll 8
    for (int i = 0; i < side<T>; ++i) {
        if (i & H) continue;
        const Side<T> a = row[i], b = row[i + H];
        row[i] = exchange_sides<T, H, false>(a, b, Lanes{});
        row[i + H] = exchange_sides<T, H, true>(a, b, Lanes{});
    }
    if constexpr (H > 1) transpose_sides<T, H / 2>(row);
}

// to[j * to_step + i] = finish(from[i * from_step + j]) for i, j < side; rows that do not exist count as 0
template <class T, class Finish>
FASTCONV_INLINE void transpose_square(const T* from, int64_t from_step, T* to, int64_t to_step, Finish finish, int64_t rows = side<T>) {
    Side<T> row[side<T>];
#pragma GCC unroll 8
    for (int i = 0; i < side<T>; ++i)
        row[i] = i < rows ? *reinterpret_cast<const typename SideOf<T>::unaligned*>(from + i * from_step) : Side<T>{};
    transpose_sides<T>(row);
#pragma GCC unroll 8
    for (int i = 0; i < side<T>; ++i) *reinterpret_cast<typename SideOf<T>::unaligned*>(to + i * to_step) = finish(row[i]);
}

// to[j * to_step + i] = from[i * from_step + j] for i < rows, a multiple of side, and j < columns, side at least: the last squares of a
// row overlap their neighbours.
template <class T>
FASTCONV_INLINE void transpose_rows(const T* from, int64_t from_step, int64_t rows, int64_t columns, T* to, int64_t to_step) {
    for (int64_t i = 0; i < rows; i += side<T>)
        for (int64_t j = 0; j < columns; j += side<T>) {
            const int64_t at = std::min<int64_t>(j, columns - side<T>);
            transpose_square<T>(from + i * from_step + at, from_step, to + at * to_step + i, to_step, [](Side<T> v) { return v; });
        }
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
