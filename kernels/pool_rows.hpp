// What pooling does with many rows: to one, element by element; with pixels and whole planes, likewise. `Reduction` is the table of an
// Op's kernels (see pool_windows.hpp): who cuts a call into rows is compiled once for all of them.
#pragma once
#include "pool_windows.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// ---- many to one, element by element

// N vectors from p on, with those that follow `step` elements apart: `count` of each, at least 1.
template <class T, class Op, int N>
FASTCONV_INLINE void fold_apart(const T* p, int64_t count, int64_t step, Vec<T> (&sum)[N], int64_t n = lanes<T>) {
    constexpr int64_t L = lanes<T>;
    for (int v = 0; v < N; ++v) sum[v] = load_some(p + v * L, n);
    for (int64_t j = 1; j < count; ++j)
        for (int v = 0; v < N; ++v) sum[v] = Op::combine(sum[v], load_some(p + j * step + v * L, n));
}

// The windows of a row of pixels of `units` channels side by side, over n rows: the first taps are at rows[r] + first[i] pixel. Divided by
// divisors[i] `divisor`, if there are any.
template <class T>
struct Pixels {
    const int64_t *first, *taps;
    int64_t pixel, step, units, count;
    const T* divisors;
    T divisor;
    int64_t apart;  // outputs
    bool past = false;  // the caches
};
template <class T, class Op, int N>
FASTCONV_INLINE void fold_rows(const T* const* rows, int64_t n, int64_t at, int64_t taps, int64_t step, int64_t lanes_, Vec<T> (&sum)[N]) {
    fold_apart<T, Op>(rows[0] + at, taps, step, sum, lanes_);
    for (int64_t r = 1; r < n; ++r) {  // row by row, as by a ring, of which it depends on the threads whether there is one
        Vec<T> row[N];
        fold_apart<T, Op>(rows[r] + at, taps, step, row, lanes_);
        for (int v = 0; v < N; ++v) sum[v] = Op::combine(sum[v], row[v]);
    }
}
template <class T, class Op>
FASTCONV_NOINLINE void slide_pixels(const T* const* rows, int64_t n, const Pixels<T>& given, T* to) {
    constexpr int64_t L = lanes<T>;
    const Pixels<T> of = given;
    for (int64_t i = 0; i < of.count; ++i, to += of.apart) {
        const int64_t at = of.first[i] * of.pixel, taps = of.taps[i];
        const T divisor = Op::divides && of.divisors ? of.divisors[i] * of.divisor : T(1);
        const auto put = [&](int64_t c, Vec<T> sum) __attribute__((always_inline)) {
            if (Op::divides && of.divisors) sum = sum / broadcast(divisor);
            if (of.units - c >= L) store_past(to + c, sum, of.past);
            else store_first(to + c, sum, of.units - c);
        };
        int64_t c = 0;
        for (; c + 4 * L <= of.units; c += 4 * L) {
            Vec<T> sum[4];
            fold_rows<T, Op>(rows, n, at + c, taps, of.step, L, sum);
            for (int v = 0; v < 4; ++v) put(c + v * L, sum[v]);
        }
        for (; c < of.units; c += L) {
            Vec<T> sum[1];
            fold_rows<T, Op>(rows, n, at + c, taps, of.step, std::min(L, of.units - c), sum);
            put(c, sum[0]);
        }
    }
}

template <class T>
struct Outputs {  // `count` of them side by side, which are divided by divisors[i and mask] times `divisor`, if at all
    int64_t count;
    const T* divisors;
    int64_t mask;
    T divisor;
    T* to;
};

constexpr int most_rows = 8;  // whose sum is one of the terms of a longer one

// to[i] = what is at i of all rows, which is not `to` but where whole vectors are asked for; R: how many, or 0.
template <class T, class Op, int R, bool Divides>
FASTCONV_NOINLINE void join(const T* const* given, int64_t n, const Outputs<T>& of) {
    const Outputs<T> out = of;  // in registers: a store might change what is given
    const T* rows[R ? R : 1];
    for (int r = 0; r < R; ++r) rows[r] = given[r];
    const auto one = [&](int64_t i, const auto& read) __attribute__((always_inline)) {
        Vec<T> all = read(R ? rows[0] + i : given[0] + i);
        if constexpr (R > 0) {
#pragma GCC unroll 4
            for (int r = 1; r < R; ++r) all = Op::combine(all, read(rows[r] + i));
        } else {
            for (int64_t r = 1; r < std::min<int64_t>(n, most_rows); ++r) all = Op::combine(all, read(given[r] + i));
            for (int64_t from = most_rows; from < n; from += most_rows) {
                Vec<T> some = read(given[from] + i);
                for (int64_t r = from + 1; r < std::min(n, from + most_rows); ++r) some = Op::combine(some, read(given[r] + i));
                all = Op::combine(all, some);
            }
        }
        if constexpr (Divides) all = all / (load(out.divisors + (i & out.mask)) * out.divisor);
        return all;
    };
    if (R == 0 && out.count < lanes<T>) {
        const int64_t count = out.count;
        const auto some = [count](const T* p) __attribute__((always_inline)) { return load_first(p, count); };
        return store_first(out.to, one(0, some), count);
    }
    const auto vector = [](const T* p) __attribute__((always_inline)) { return load(p); };
    int64_t i = 0;
    const int64_t off = int64_t(reinterpret_cast<uintptr_t>(out.to) % vector_bytes / sizeof(T));
    if (off > 0 && out.count >= 8 * lanes<T> && out.to != given[0]) {  // stores begin with lines
        store(out.to, one(0, vector));
        i = lanes<T> - off;
    }
    for (; i + lanes<T> <= out.count; i += lanes<T>) store(out.to + i, one(i, vector));
    if (i < out.count) store(out.to + out.count - lanes<T>, one(out.count - lanes<T>, vector));
}

// ---- whole planes

// A vector's worth of planes `apart` from each other, of which n exist, of `size` elements in one piece each.
template <class T, class Op>
FASTCONV_NOINLINE void fold_planes(const T* from, int64_t apart, int64_t n, int64_t size, T* to) {
    constexpr int64_t L = lanes<T>;
    Vec<T> sum[L];
    if (size <= 4 * L) {  // up to four vectors: no more than they take
        const int64_t whole = (size - 1) / L, rest = size - whole * L;
        for (int64_t c = 0; c < L; ++c) {
            const T* p = from + (c < n ? c : 0) * apart;
            const Vec<T> last = load_some(p + whole * L, rest);
            Vec<T> all = rest == L ? last : lanes_within<T>(0, rest) ? last : broadcast(Op::identity());
            for (int64_t v = 0; v < whole; ++v) all = Op::combine(all, load(p + v * L));
            sum[c] = all;
        }
    } else if (size <= fold_block<T>) {
        for (int64_t c = 0; c < L; ++c) sum[c] = fold_a_block<T, Op>(from + (c < n ? c : 0) * apart, size);
    } else {
        for (int64_t c = 0; c < L; ++c) sum[c] = fold_to_vector<T, Op>(from + (c < n ? c : 0) * apart, size);
    }
    transpose<T>(sum);
    for (int64_t half = L / 2; half > 0; half /= 2)
        for (int64_t l = 0; l < half; ++l) sum[l] = Op::combine(sum[l], sum[l + half]);
    store(to, sum[0]);
}

constexpr int pixel_vectors = vector_bytes == 64 ? 8 : 4;  // as registers allow

// `pixels` of n <= pixel_vectors vectors of channels side by side, `step` elements apart.
template <class T, class Op, int N>
FASTCONV_INLINE void fold_pixels_of(const T* from, int64_t step, int64_t pixels, int64_t n, T* to) {
    constexpr int64_t L = lanes<T>, partial = 8;
    Vec<T> all[N], sum[N];
    fold_apart<T, Op>(from, std::min(partial, pixels), step, all, n);
    for (int64_t begin = partial; begin < pixels; begin += partial) {
        fold_apart<T, Op>(from + begin * step, std::min(partial, pixels - begin), step, sum, n);
        for (int v = 0; v < N; ++v) all[v] = Op::combine(all[v], sum[v]);
    }
    for (int v = 0; v < N; ++v) {
        if (n == L) store(to + v * L, all[v]);
        else store_first(to + v * L, all[v], n);
    }
}
template <class T, class Op>
FASTCONV_NOINLINE void fold_pixels(const T* from, int64_t step, int64_t pixels, int64_t n, T* to) {
    constexpr int64_t L = lanes<T>;
    if (n == pixel_vectors * L) return fold_pixels_of<T, Op, pixel_vectors>(from, step, pixels, L, to);
    for (int64_t i = 0; i < n; i += L) fold_pixels_of<T, Op, 1>(from + i, step, pixels, std::min(L, n - i), to + i);
}

// ---- all of an Op

template <class T>
struct Reduction {
    using Slide = void (*)(const T* row, int64_t taps, int64_t step, int64_t count, Lines lines, T* to);
    using Join = void (*)(const T* const* rows, int64_t n, const Outputs<T>& out);
    bool divides;
    T identity;
    Slide slide[3], slide_two[3];  // of two, three, any taps
    Slide slide_split[2], slide_between[2];  // with strides 3 and 4; with strides 1 and 2
    decltype(&pool_pairs<T, Sum<T>>) pairs;
    decltype(&ends_between<T, Sum<T>>) ends_between;
    decltype(&slide_pixels<T, Sum<T>>) pixels;
    decltype(&windows<T, Sum<T>>) windows;
    Join join[4], partial;  // two, three, four, any rows to outputs; to what is not divided yet
    decltype(&fold_planes<T, Sum<T>>) planes;
    decltype(&fold_pixels<T, Sum<T>>) whole_pixels;
};

template <class T, class Op, bool D = Op::divides>
constexpr Reduction<T> reduction{
    D, Op::identity(), {slide<T, Op, 2>, slide<T, Op, 3>, slide<T, Op, 0>}, {slide_two<T, Op, 2>, slide_two<T, Op, 3>, slide_two<T, Op, 0>},
    {slide_split<T, Op, 3>, slide_split<T, Op, 4>}, {slide_between<T, Op, 1>, slide_between<T, Op, 2>}, pool_pairs<T, Op>,
    ends_between<T, Op>, slide_pixels<T, Op>, windows<T, Op>,
    {join<T, Op, 2, D>, join<T, Op, 3, D>, join<T, Op, 4, D>, join<T, Op, 0, D>}, join<T, Op, 0, false>, fold_planes<T, Op>, fold_pixels<T, Op>};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
