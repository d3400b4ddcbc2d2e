// Register tiles of up to `tile_rows` rows and one or two vectors, whose numbers are template arguments: all of them, by number.
#pragma once
#include <utility>

#include "simd.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <template <class, int, int, bool> class Tile, class T, int NV, bool Fetch, size_t... I>
constexpr auto tile_of(int64_t rows, std::index_sequence<I...>) {
    constexpr decltype(&Tile<T, 1, NV, Fetch>::run) table[] = {Tile<T, int(I) + 1, NV, Fetch>::run...};
    return table[rows - 1];
}

// Tile<T, rows, vectors, fetch>::run; width: elements of one vector, or of two.
template <template <class, int, int, bool> class Tile, class T>
auto tile_of(int64_t rows, int64_t width, bool fetch) {
    constexpr auto all = std::make_index_sequence<size_t(tile_rows)>{};
    if (width == lanes<T>) return fetch ? tile_of<Tile, T, 1, true>(rows, all) : tile_of<Tile, T, 1, false>(rows, all);
    return fetch ? tile_of<Tile, T, 2, true>(rows, all) : tile_of<Tile, T, 2, false>(rows, all);
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
