// What pooling does with a row: its windows to outputs. An Op says what "to one" is, of vectors and of single elements:
//   identity()             of no elements
//   combine(a, x)          two of them
//   divides                whether what comes of all is divided
#pragma once
#include <limits>

#include "pool_abi.hpp"
#include "window.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// The larger one; NaN if either is. Of zeros of both signs any.
template <class T>
FASTCONV_INLINE Vec<T> larger(Vec<T> a, Vec<T> x) {
#if defined(__AVX512F__)  // max gives x where either is NaN, so that only a's are in danger
    if constexpr (sizeof(T) == 4) return _mm512_mask_max_ps(a, _mm512_cmp_ps_mask(a, a, _CMP_ORD_Q), a, x);
    else return _mm512_mask_max_pd(a, _mm512_cmp_pd_mask(a, a, _CMP_ORD_Q), a, x);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return _mm256_blendv_ps(_mm256_max_ps(a, x), a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    else return _mm256_blendv_pd(_mm256_max_pd(a, x), a, _mm256_cmp_pd(a, a, _CMP_UNORD_Q));
#else
    return ((x > a) | (x != x)) ? x : a;
#endif
}
template <class T>
FASTCONV_INLINE Vec<T> smaller(Vec<T> a, Vec<T> x) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_mask_min_ps(a, _mm512_cmp_ps_mask(a, a, _CMP_ORD_Q), a, x);
    else return _mm512_mask_min_pd(a, _mm512_cmp_pd_mask(a, a, _CMP_ORD_Q), a, x);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return _mm256_blendv_ps(_mm256_min_ps(a, x), a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    else return _mm256_blendv_pd(_mm256_min_pd(a, x), a, _mm256_cmp_pd(a, a, _CMP_UNORD_Q));
#else
    return ((x < a) | (x != x)) ? x : a;
#endif
}

template <class T, bool Largest>
struct Extreme {
    static constexpr bool divides = false;
    static constexpr T identity() { return Largest ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::infinity(); }
    // Whether x takes the place of a: a NaN always does
    FASTCONV_INLINE static bool beats(T x, T a) { return (Largest ? x > a : x < a) || x != x; }
    FASTCONV_INLINE static auto beats(Vec<T> x, Vec<T> a) { return (Largest ? x > a : x < a) | (x != x); }
    FASTCONV_INLINE static Vec<T> combine(Vec<T> a, Vec<T> x) { return Largest ? larger<T>(a, x) : smaller<T>(a, x); }
    FASTCONV_INLINE static T combine(T a, T x) {  // bit by bit, as compilers branch, and CPUs guess wrong, otherwise
        typename VectorOf<T>::Int of_a, of_x;
        std::memcpy(&of_a, &a, sizeof a), std::memcpy(&of_x, &x, sizeof x);
        of_a ^= (of_a ^ of_x) & -typename VectorOf<T>::Int((Largest ? x > a : x < a) | (x != x));
        std::memcpy(&a, &of_a, sizeof a);
        return a;
    }
};
template <class T>
using Largest = Extreme<T, true>;
template <class T>
using Smallest = Extreme<T, false>;

template <class T>
struct Sum {
    static constexpr bool divides = true;
    static constexpr T identity() { return 0; }
    template <class V>
    FASTCONV_INLINE static V combine(V a, V x) { return a + x; }
};

// body(i) for vectors of elements i .. i + lanes - 1, the last of which overlaps its neighbour; count >= lanes.
template <class T, class Body>
FASTCONV_INLINE void each_vector(int64_t count, const Body& body) {
    constexpr int64_t L = lanes<T>;
    int64_t i = 0;
    for (; i + L <= count; i += L) body(i);
    if (i < count) body(count - L);
}

// ---- the windows of a row: `count` outputs side by side; of as many rows as there are lines. Nothing is read but taps, unless said
// otherwise, or of less than a vector of outputs, which are computed as if they were one.

struct Lines {
    int64_t count, from, to;  // elements from one to the next
};

// one(row, i), a vector of outputs from i on, of each line.
template <class T, class One>
FASTCONV_INLINE void put_lines(const T* row, int64_t count, const Lines& lines, T* to, const One& one) {
    for (int64_t line = 0; line < lines.count; ++line, row += lines.from, to += lines.to) {
        if (count < lanes<T>) store_first(to, one(row, 0), count);
        else each_vector<T>(count, [=](int64_t i) __attribute__((always_inline)) { store(to + i, one(row, i)); });
    }
}

// Stride 1: tap j of output i is row[i + j step].
template <class T, class Op, int Taps>
FASTCONV_NOINLINE void slide(const T* row, int64_t taps, int64_t step, int64_t count, Lines lines, T* to) {
    if (Taps) taps = Taps;
    const auto one = [=](const T* row, int64_t i) __attribute__((always_inline)) {
        Vec<T> a = load(row + i);
#pragma GCC unroll 3
        for (int64_t j = 1; j < taps; ++j) a = Op::combine(a, load(row + i + j * step));
        return a;
    };
    put_lines(row, count, lines, to, one);
}

// Stride 2: tap j of output i is row[2 i + j step]. Lanes are put in order last; with step 1 two taps share what is loaded. Of a single
// tap one element more is read.
template <class T, class Op, int Taps>
FASTCONV_NOINLINE void slide_two(const T* row, int64_t taps, int64_t step, int64_t count, Lines lines, T* to) {
    constexpr int64_t L = lanes<T>;
    constexpr auto all = std::make_index_sequence<size_t(L)>{};
    if (Taps) taps = Taps, step = 1;
    const auto one = [=](const T* row, int64_t i) __attribute__((always_inline)) {
        const T* at = row + 2 * i;
        const auto more = [&](int64_t j) __attribute__((always_inline)) {  // of two vectors that end with the last output's tap
            return every_other_unsorted<T, 1>(load(at + j * step - 1), load(at + j * step - 1 + L), all);
        };
        const Vec<T> x = rounded(load(at)), y = rounded(load(at + L));  // loaded once
        Vec<T> sum = every_other_unsorted<T, 0>(x, y, all);
        int64_t j = 1;
        if (step == 1) {
            if (taps > 1) sum = Op::combine(sum, every_other_unsorted<T, 1>(x, y, all));
#pragma GCC unroll 2
            for (j = 2; j + 2 <= taps; j += 2) {
                const Vec<T> v = rounded(load(at + j)), w = rounded(load(at + j + L));
                sum = Op::combine(sum, every_other_unsorted<T, 0>(v, w, all));
                sum = Op::combine(sum, every_other_unsorted<T, 1>(v, w, all));
            }
        }
        for (; j < taps; ++j) sum = Op::combine(sum, more(j));
        return sorted<T>(sum, all);
    };
    put_lines(row, count, lines, to, one);
}

// Stride 1 or 2, three taps, the first one of which is before the output's own place: row[S i - 1 + j], where it is one of `inputs`. Each
// vector is loaded once, where lines begin if the row does; its neighbours are shifted in.
template <class T, class Op, int S>
FASTCONV_INLINE void line_between(const T* row, int64_t inputs, int64_t count, T* to) {
    constexpr int64_t L = lanes<T>;
    const Vec<T> none = broadcast(Op::identity());
    const auto some = [=](int64_t i) __attribute__((always_inline)) {  // the last ones
        const int64_t n = std::min(std::max<int64_t>(inputs - i, 0), L);
        return n == L ? load(row + i) : lanes_within<T>(0, n) ? load_first(row + i, n) : none;
    };
    const auto all = [=](int64_t i) __attribute__((always_inline)) { return load(row + i); };
    Vec<T> before = none, own = S == 1 ? some(0) : none;
    const auto next = [&](int64_t i, const auto& read) __attribute__((always_inline)) {
        if constexpr (S == 1) {
            const Vec<T> behind = read(i + L);
            const Vec<T> sum = Op::combine(Op::combine(lanes_from<T, L - 1>(before, own), own), lanes_from<T, 1>(own, behind));
            before = own, own = behind;
            return sum;
        } else {
            const Vec<T> x = rounded(read(2 * i)), y = rounded(read(2 * i + L));
            const Vec<T> even = every_other<T, 0>(x, y), odd = every_other<T, 1>(x, y);
            const Vec<T> sum = Op::combine(Op::combine(lanes_from<T, L - 1>(before, odd), even), odd);
            before = odd;
            return sum;
        }
    };
    int64_t i = 0;
    for (; S * i + 2 * L <= inputs && i + L <= count; i += L) store(to + i, next(i, all));
    for (; i < count; i += L) {
        const Vec<T> last = next(i, some);
        if (i + L <= count) store(to + i, last);
        else store_first(to + i, last, count - i);
    }
}
template <class T, class Op, int S>
FASTCONV_NOINLINE void slide_between(const T* row, int64_t inputs, int64_t, int64_t count, Lines lines, T* to) {
    for (int64_t line = 0; line < lines.count; ++line, row += lines.from, to += lines.to) line_between<T, Op, S>(row, inputs, count, to);
}

// Windows of two elements, side by side, and of `taps` rows: `rows` rows of `width` outputs, up to two vectors, all in registers.
// `row`: from an input row to the next; `further`: to that of the next outputs; `to`: of these; all are divided by divisors[0] times
// `divisor`, if at all.
template <class T>
struct Pairs {
    int64_t rows, taps, width, row, further, to;
    const T* divisors;
    T divisor;
};
template <class T, class Op>
FASTCONV_NOINLINE void pool_pairs(const T* from, const Pairs<T>& given, T* to) {
    constexpr int64_t L = lanes<T>;
    constexpr auto all = std::make_index_sequence<size_t(L)>{};
    const Pairs<T> of = given;
    const int64_t last = (of.width - 1) / L * L, rest = of.width - last;
    const auto low = lanes_between<T>(0, 2 * rest), high = lanes_between<T>(0, 2 * rest - L);
    const Vec<T> by = Op::divides ? load(of.divisors) * of.divisor : Vec<T>{};
    const auto pool = [&](const T* at, const auto& read) __attribute__((always_inline)) {
        Vec<T> sum{};
        for (int64_t tap = 0; tap < of.taps; ++tap, at += of.row) {
            const auto two = read(at);
            const Vec<T> even = every_other_unsorted<T, 0>(two.x, two.y, all), odd = every_other_unsorted<T, 1>(two.x, two.y, all);
            const Vec<T> pair = Op::combine(even, odd);
            sum = tap == 0 ? pair : Op::combine(sum, pair);
        }
        sum = sorted<T>(sum, all);
        return Op::divides ? sum / by : sum;
    };
    struct Two {
        Vec<T> x, y;
    };
    const auto whole = [](const T* at) __attribute__((always_inline)) {
        return Two{rounded(load(at)), rounded(load(at + L))};  // loaded once
    };
    const auto some = [&](const T* at) __attribute__((always_inline)) {
        return Two{rounded(load_masked(at, low)), rounded(load_masked(at + L, high))};
    };
    // the last vector of a row reaches into the next one, which is written later
    const int64_t reaching = of.to == of.width ? of.rows * of.width - last - L : -1;
    for (int64_t r = 0; r < of.rows; ++r, from += of.further, to += of.to) {
        if (last) store(to, pool(from, whole));
        const Vec<T> made = pool(from + 2 * last, some);
        if (rest == L || r * of.width <= reaching) store(to + last, made);
        else store_first(to + last, made, rest);
    }
}

// The first and the last output of lines of `inputs` elements, stride 1, which have two taps only.
template <class T, class Op>
FASTCONV_NOINLINE void ends_between(const T* row, int64_t inputs, Lines lines, T* to) {
    const int64_t last = inputs - 1;
    for (int64_t line = 0; line < lines.count; ++line, row += lines.from, to += lines.to)
        to[0] = Op::combine(row[0], row[1]), to[last] = Op::combine(row[last - 1], row[last]);
}

// Stride S = 3, 4, step 1: vectors of S outputs' inputs, split into phases. Taps that are no multiple of S are read as if they were.
template <class T, class Op, int S>
FASTCONV_NOINLINE void slide_split(const T* row, int64_t taps, int64_t, int64_t count, Lines lines, T* to) {
    constexpr int64_t L = lanes<T>;
    const auto one = [=](const T* row, int64_t i) __attribute__((always_inline)) {
        Vec<T> sum{};
        for (int64_t j = 0; j < taps; j += S) {
            Vec<T> phase[S];
#pragma GCC unroll 4
            for (int v = 0; v < S; ++v) phase[v] = load(row + i * S + j + v * L);
            split<T, S>(phase);
            sum = j == 0 ? phase[0] : Op::combine(sum, phase[0]);
#pragma GCC unroll 4
            for (int v = 1; v < S; ++v)
                if (j + v < taps) sum = Op::combine(sum, phase[v]);
        }
        return sum;
    };
    put_lines(row, count, lines, to, one);
}

template <class T, int H, size_t... I>
FASTCONV_INLINE Vec<T> turned(Vec<T> v, std::index_sequence<I...>) {
#if defined(__clang__)
    return __builtin_shufflevector(v, v, (int(I) ^ H)...);
#else
    return __builtin_shuffle(v, typename VectorOf<T>::mask{(int(I) ^ H)...});
#endif
}
// All lanes to one, in pairs H apart, then H / 2 ...
template <int H, class T, class Op>
FASTCONV_INLINE T fold_lanes(Vec<T> v) {
    v = Op::combine(v, turned<T, H>(v, std::make_index_sequence<size_t(lanes<T>)>{}));
    if constexpr (H == 1) return v[0];
    else return fold_lanes<H / 2, T, Op>(v);
}

// n elements side by side to those of a vector: a block on several sums; blocks, which are summed in pairs.
template <class T>
constexpr int64_t fold_block = 64 * lanes<T>;
template <class T, class Op>
FASTCONV_INLINE Vec<T> fold_a_block(const T* p, int64_t n) {
    constexpr int64_t L = lanes<T>;
    Vec<T> sum[4];
    for (Vec<T>& each : sum) each = broadcast(Op::identity());
    int64_t i = 0;
    for (; i + 4 * L <= n; i += 4 * L)
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) sum[v] = Op::combine(sum[v], load(p + i + v * L));
    for (; i + L <= n; i += L) sum[0] = Op::combine(sum[0], load(p + i));
    if (i < n) sum[1] = Op::combine(sum[1], lanes_within<T>(0, n - i) ? load_first(p + i, n - i) : broadcast(Op::identity()));
    return Op::combine(Op::combine(sum[0], sum[1]), Op::combine(sum[2], sum[3]));
}
template <class T, class Op>
FASTCONV_NOINLINE Vec<T> fold_to_vector(const T* p, int64_t n) {
    if (n <= fold_block<T>) return fold_a_block<T, Op>(p, n);
    const int64_t half = std::min(round_up(n / 2, fold_block<T>), n - 1);
    const Vec<T> first = fold_to_vector<T, Op>(p, half);  // in the order of memory, which arguments are not
    return Op::combine(first, fold_to_vector<T, Op>(p + half, n - half));
}

// Any windows, one by one: the first taps are row[first[i] pixel], those behind it `step` elements apart.
template <class T, class Op>
FASTCONV_NOINLINE void windows(const T* row, const int64_t* first, const int64_t* taps, int64_t pixel, int64_t step, int64_t count,
                               Lines lines, T* to) {
    for (int64_t line = 0; line < lines.count; ++line, row += lines.from, to += lines.to)
        for (int64_t i = 0; i < count; ++i) {
            const T* p = row + first[i] * pixel;
            T one = *p;
            if (step == 1 && taps[i] >= 2 * lanes<T>) one = fold_lanes<lanes<T> / 2, T, Op>(fold_to_vector<T, Op>(p, taps[i]));
            else
                for (int64_t j = 1; j < taps[i]; ++j) one = Op::combine(one, p[j * step]);
            to[i] = one;
        }
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
