// Register tiles of up to `max_MR` rows and one or two vectors, whose numbers are template arguments: all of them, by number.
#pragma once
#include <utility>

#include "simd.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// Of a tile that is two vectors wide: their sums, the two vectors, and a broadcast fill the registers.
#if defined(__AVX512F__)
constexpr int max_MR = 14;
#elif defined(__AVX2__)
constexpr int max_MR = 6;
#elif defined(__aarch64__)
constexpr int max_MR = 10;
#else
constexpr int max_MR = 5;
#endif

template <template <class, int, int, bool> class Tile, class T, int NR, bool Fetch, size_t... I>
constexpr auto tile_of(int64_t rows, std::index_sequence<I...>) {
    constexpr decltype(&Tile<T, 1, NR, Fetch>::run) table[] = {Tile<T, int(I) + 1, NR, Fetch>::run...};
    return table[rows - 1];
}

// Tile<T, rows, vectors, fetch>::run; width: elements of one vector, or of two.
template <template <class, int, int, bool> class Tile, class T>
auto tile_of(int64_t rows, int64_t width, bool fetch) {
    constexpr auto all = std::make_index_sequence<size_t(max_MR)>{};
    if (width == lanes<T>) return fetch ? tile_of<Tile, T, 1, true>(rows, all) : tile_of<Tile, T, 1, false>(rows, all);
    return fetch ? tile_of<Tile, T, 2, true>(rows, all) : tile_of<Tile, T, 2, false>(rows, all);
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
