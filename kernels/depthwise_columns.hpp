// The columns of a row of outputs, in vectors, for depthwise where pixels are on the vector: which lanes of the inputs are inside the
// row, and how they are read.
//
// Where the last vector has no more than half a vector of outputs, it is half a vector: 512 bits that are added in two steps, and loaded
// across two lines, take twice as long as 256.
#pragma once
#include "simd.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

#if defined(__AVX512F__)
constexpr bool has_halves = true;
template <class T>
using LaneMask = __mmask16;  // of whole and half vectors alike
#else
constexpr bool has_halves = false;  // of 16 bytes take as long as whole ones
template <class T>
using LaneMask = typename VectorOf<T>::mask;
#endif

template <class T>
FASTCONV_INLINE LaneMask<T> mask_between(int64_t first, int64_t end) {  // any bounds
#if defined(__AVX512F__)
    const auto up_to = [](int64_t n) { return (1u << (n < 0 ? 0 : n < lanes<T> ? n : lanes<T>)) - 1; };
    return LaneMask<T>(up_to(end) & ~up_to(first));
#else
    return lanes_between<T>(first, end);
#endif
}

template <class T, int N>
FASTCONV_INLINE Vec<T, N> load_within(const T* p, LaneMask<T> mask) {
#if defined(__AVX512F__)
    if constexpr (N * sizeof(T) == 64 && sizeof(T) == 4) return _mm512_maskz_loadu_ps(mask, p);
    else if constexpr (N * sizeof(T) == 64) return _mm512_maskz_loadu_pd(__mmask8(mask), p);
    else if constexpr (sizeof(T) == 4) return _mm256_maskz_loadu_ps(__mmask8(mask), p);
    else return _mm256_maskz_loadu_pd(__mmask8(mask), p);
#else
    return load_masked<T>(p, mask);
#endif
}

template <class T, int N>
FASTCONV_INLINE void store_within(T* p, Vec<T, N> v, int64_t n) {  // the first n < N lanes
#if defined(__AVX512F__)
    if constexpr (N < lanes<T>) {
        if constexpr (sizeof(T) == 4) _mm256_mask_storeu_ps(p, __mmask8(first_lanes(n)), v);
        else _mm256_mask_storeu_pd(p, __mmask8(first_lanes(n)), v);
        return;
    }
#endif
    if constexpr (N == lanes<T>) store_first(p, v, n);
}

#if defined(__AVX512F__)
// Of what every_other_unsorted<T, 0> made of 2 N elements, the even ones from the third on, in the same order: the last one is behind these.
constexpr int lane_of_even(int i, int n, int e) {  // e: elements of 16 bytes; i = n: that behind
    return i == n ? n : i % (n / 2) / (e / 2) * e + i % (e / 2) + (i < n / 2 ? 0 : e / 2);
}
constexpr int even_of_lane(int lane, int n, int e) { return lane / e * (e / 2) + lane % (e / 2) + (lane % e < e / 2 ? 0 : n / 2); }
template <class T, class V, size_t... L>
FASTCONV_INLINE V next_evens(V even, V behind, std::index_sequence<L...>) {
    constexpr int n = int(sizeof...(L)), E = 16 / int(sizeof(T));
#if defined(__clang__)
    return __builtin_shufflevector(even, behind, lane_of_even(even_of_lane(int(L), n, E) + 1, n, E)...);
#else
    return __builtin_shuffle(even, behind, typename VectorOf<T, n>::mask{lane_of_even(even_of_lane(int(L), n, E) + 1, n, E)...});
#endif
}

// An element in lane 0, the others undefined; if not `wanted` (0 or 1), 0, and its memory is not touched.
template <class T, int N>
FASTCONV_INLINE Vec<T, N> load_one(const T* p, __mmask8 wanted) {
    if constexpr (sizeof(T) == 4) {
        const __m128 one = _mm_maskz_load_ss(wanted, p);
        if constexpr (N < lanes<T>) return _mm256_castps128_ps256(one);
        else return _mm512_castps128_ps512(one);
    } else {
        const __m128d one = _mm_maskz_load_sd(wanted, p);
        if constexpr (N < lanes<T>) return _mm256_castpd128_pd256(one);
        else return _mm512_castpd128_pd512(one);
    }
}
#endif

template <class T>
struct Columns {  // of the output, in vectors
    int64_t half;                             // the first column of half a vector, the last one, or -1
    int64_t last, first_inside, last_inside;  // of whole ones: from first_inside to last_inside no lane of any kw is outside the row
    int64_t inputs, outputs;                  // elements of a row
    const int64_t* shift;                     // of each kw, from the place of output column 0
    // [vector at an edge, then the half one][kw]: lanes inside the row, and with step 2 of the second vector of inputs
    const LaneMask<T>*mask, *more;
    int64_t masks, left_masks;  // how many there are of whole vectors, and at the left edge
};

// The inputs that a vector of N outputs meets with one kw.
template <class T, int N, int X, bool Edge>
struct Inputs {
    static constexpr auto all = std::make_index_sequence<size_t(N)>{};

    const T* const* row;
    int64_t at;  // in a row, of the first lane
    LaneMask<T> mask, more;

    // offset: of the channel
    FASTCONV_INLINE Inputs(const Columns<T>& columns, const T* const* from, int64_t offset, int64_t w, int64_t kw, int64_t edge)
        : row(from), at(offset + w * X + columns.shift[kw]) {
        if (!Edge) return;
        mask = columns.mask[edge + kw];
        if (X == 2) more = columns.more[edge + kw];
    }
    // of any columns, which are not listed
    FASTCONV_INLINE Inputs(const Columns<T>& columns, const T* const* from, int64_t offset, int64_t w, int64_t kw)
        : row(from), at(offset + w * X + columns.shift[kw]) {
        if (!Edge) return;
        const int64_t first = at - offset;
        mask = mask_between<T>(-first, columns.inputs - first);
        if (X == 2) more = mask_between<T>(-first - N, columns.inputs - first - N);
    }

    FASTCONV_INLINE Vec<T, N> of_row(int64_t i) const {
        const Vec<T, N> x = first_of(i);
        if constexpr (X == 1) return x;
        else return every_other_unsorted<T, 0>(x, next_of(i), all);
    }
    FASTCONV_INLINE void split_row(int64_t i, Vec<T, N>& even, Vec<T, N>& odd) const {
        const Vec<T, N> x = first_of(i), next = next_of(i);
        even = every_other_unsorted<T, 0>(x, next, all), odd = every_other_unsorted<T, 1>(x, next, all);
    }

#if defined(__AVX512F__)
    // What the column of the kernel after the next one meets, given the even ones of split_row; `after`: with the next kw.
    FASTCONV_INLINE Vec<T, N> third_of_row(int64_t i, Vec<T, N> even, const Inputs& after) const {
        const T* last = row[i] + at + 2 * N;
        if constexpr (Edge) return next_evens<T>(even, load_one<T, N>(last, after.more >> (N - 1) & 1), all);
        else return next_evens<T>(even, broadcast<T, N>(*last), all);
    }
#endif

   private:
    FASTCONV_INLINE Vec<T, N> first_of(int64_t i) const { return loaded(row[i] + at, mask); }
    FASTCONV_INLINE Vec<T, N> next_of(int64_t i) const { return loaded(row[i] + at + N, more); }
    FASTCONV_INLINE static Vec<T, N> loaded(const T* p, LaneMask<T> within) {
        if constexpr (Edge) return load_within<T, N>(p, within);
        else return load<T, N>(p);
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
