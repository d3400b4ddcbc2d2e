// What pooling does with rows: many rows to one, element by element, and one row's windows to outputs. An Op says what "to one" is:
//   identity()             of no elements
//   prepare(x)             an element, before, if Op::prepares
//   combine(a, x)          two of what is prepared
//   finish(sum, divisor)   an output, if Op::divides
// of vectors and of single elements.
#pragma once
#include <cmath>
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
    static constexpr bool divides = false, prepares = false, largest = Largest;
    explicit Extreme(const PoolProblem&) {}
    static T identity() { return Largest ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::infinity(); }
    template <class V>
    FASTCONV_INLINE static V prepare(V x) { return x; }
    // Whether x takes the place of a: a NaN always does
    FASTCONV_INLINE static bool beats(T x, T a) { return (Largest ? x > a : x < a) || x != x; }
    FASTCONV_INLINE static auto beats(Vec<T> x, Vec<T> a) { return (Largest ? x > a : x < a) | (x != x); }
    FASTCONV_INLINE static Vec<T> combine(Vec<T> a, Vec<T> x) { return Largest ? larger<T>(a, x) : smaller<T>(a, x); }
    FASTCONV_INLINE static T combine(T a, T x) { return beats(x, a) ? x : a; }
};
template <class T>
using Largest = Extreme<T, true>;
template <class T>
using Smallest = Extreme<T, false>;

template <class T>
struct Sum {
    static T identity() { return 0; }
    template <class V>
    FASTCONV_INLINE static V prepare(V x) { return x; }
    template <class V>
    FASTCONV_INLINE static V combine(V a, V x) { return a + x; }
};

template <class T>
struct Average : Sum<T> {
    static constexpr bool divides = true, prepares = false;
    explicit Average(const PoolProblem&) {}
    template <class V>
    FASTCONV_INLINE static V finish(V sum, V divisor) { return sum / divisor; }
};

template <class T>
FASTCONV_INLINE Vec<T> square_root(Vec<T> v) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_mask_sqrt_ps(v, 0xffff, v);  // plainly, gcc 12 warns of its own header
    else return _mm512_mask_sqrt_pd(v, 0xff, v);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return _mm256_sqrt_ps(v);
    else return _mm256_sqrt_pd(v);
#else
    for (int l = 0; l < lanes<T>; ++l) v[l] = std::sqrt(v[l]);
    return v;
#endif
}

// As NumPy and PyTorch: 0.5 is the square root, NaN of -Inf, for which C's pow gives Inf.
template <class T>
inline T power(T x, T p) {
    return p == T(0.5) ? std::sqrt(x) : std::pow(x, p);
}
template <class T>
FASTCONV_NOINLINE Vec<T> power(Vec<T> v, T p) {
    for (int l = 0; l < lanes<T>; ++l) v[l] = power(v[l], p);
    return v;
}

// P = 1, 2, or 0: any. Products are rounded before they are summed, so that it makes no difference where in a row an output is.
template <class T, int P>
struct Norm : Sum<T> {
    static constexpr bool divides = true, prepares = P != 1;
    T p, factor;
    explicit Norm(const PoolProblem& problem) : p(T(problem.norm)), factor(problem.divisor > 0 ? T(problem.divisor) : T(1)) {}
    FASTCONV_INLINE T prepare(T x) const { return P == 1 ? x : P == 2 ? rounded(x * x) : power(x, p); }
    FASTCONV_INLINE Vec<T> prepare(Vec<T> x) const {
        if constexpr (P == 1) return x;
        else if constexpr (P == 2) return rounded(x * x);
        else return power<T>(x, p);
    }
    FASTCONV_INLINE T finish(T sum, T divisor) const {
        sum = sum / divisor * factor;
        return P == 1 ? sum : P == 2 ? std::sqrt(sum) : power(sum + T(0), 1 / p);  // of -0 no negative power is asked
    }
    FASTCONV_INLINE Vec<T> finish(Vec<T> sum, Vec<T> divisor) const {
        sum = sum / divisor * factor;
        if constexpr (P == 1) return sum;
        else if constexpr (P == 2) return square_root<T>(sum);
        else return power<T>(sum + T(0), 1 / p);
    }
};

// ---- many rows to one

struct Runs {  // of a row: `count` of them, `length` elements side by side in each, `step` elements from one to the next
    int64_t count, length, step;
};

constexpr int most_rows = 8;  // that are joined at a time: as many streams as a core reads ahead, and so many roundings per sum

// to[i] = what is at i of all rows, and, unless First, of `to`; there elements lie side by side.
template <class T, class Op, int R, bool First>
FASTCONV_NOINLINE void join(const Op& op, const T* const* given, const Runs& of, T* to) {
    constexpr int64_t L = lanes<T>;
    const Runs runs = of;
    const T* rows[R];  // in registers: a store might change what is given
    for (int r = 0; r < R; ++r) rows[r] = given[r];
    const auto joined = [&](int64_t at, const auto& read, const auto& sofar) __attribute__((always_inline)) {
        auto all = op.prepare(read(rows[0] + at));
#pragma GCC unroll 8
        for (int r = 1; r < R; ++r) all = op.combine(all, op.prepare(read(rows[r] + at)));
        return First ? all : op.combine(sofar(), all);
    };
    const auto one = [](const T* p) __attribute__((always_inline)) { return *p; };
    const auto vector = [](const T* p) __attribute__((always_inline)) { return load(p); };
    int64_t from = 0;
    if (runs.length == 1) {
        for (int64_t run = 0; run < runs.count; ++run, from += runs.step) to[run] = joined(from, one, [&] { return to[run]; });
        return;
    }
    for (int64_t run = 0; run < runs.count; ++run, from += runs.step, to += runs.length) {
        int64_t i = 0;
        for (; i + L <= runs.length; i += L) store(to + i, joined(from + i, vector, [&] { return load(to + i); }));
        const int64_t n = runs.length - i;
        const auto some = [n](const T* p) __attribute__((always_inline)) { return load_first(p, n); };
        if (n > 0) store_first(to + i, joined(from + i, some, [&] { return load_first(to + i, n); }), n);
    }
}

template <class T, class Op, bool First, size_t... I>
constexpr auto join_of(int64_t rows, std::index_sequence<I...>) {
    constexpr decltype(&join<T, Op, 1, First>) table[] = {join<T, Op, int(I) + 1, First>...};
    return table[rows - 1];
}

template <class T>
struct Rows {  // base + d step_d + h step_h
    const T* base;
    int64_t depths, heights, step_d, step_h;
};

// One row of all.
template <class T, class Op>
void join_all(const Op& op, const Rows<T>& rows, const Runs& runs, T* to) {
    constexpr auto sizes = std::make_index_sequence<size_t(most_rows)>{};
    const int64_t total = rows.depths * rows.heights;
    const T* some[most_rows];
    int64_t n = 0, done = 0;
    for (int64_t d = 0; d < rows.depths; ++d)
        for (int64_t h = 0; h < rows.heights; ++h) {
            some[n++] = rows.base + d * rows.step_d + h * rows.step_h;
            if (n < most_rows && done + n < total) continue;
            (done == 0 ? join_of<T, Op, true>(n, sizes) : join_of<T, Op, false>(n, sizes))(op, some, runs, to);
            done += n, n = 0;
        }
}

// ---- the windows of a row

// Outputs of one row, side by side: `count` of them, whose divisors are `divisor` times those of the row.
template <class T>
struct Outputs {
    int64_t count;
    const T* divisors;
    T divisor;
    T* to;
};

template <class T, class Op>
FASTCONV_INLINE void finish(const Op& op, const Outputs<T>& out, int64_t i, Vec<T> sum) {
    const int64_t n = std::min<int64_t>(lanes<T>, out.count - i);
    if constexpr (Op::divides) sum = op.finish(sum, load(out.divisors + i) * out.divisor);  // there is more behind the last
    if (n == lanes<T>) store(out.to + i, sum);
    else store_first(out.to + i, sum, n);
}

// Stride 1: tap j of output i is row[i + j step]. Reads vectors beyond the last output's taps, as those below.
template <class T, class Op, int Taps>
FASTCONV_NOINLINE void slide(const Op& op, const T* row, int64_t taps, int64_t step, const Outputs<T>& out) {
    constexpr int64_t L = lanes<T>;
    if (Taps) taps = Taps;
    for (int64_t i = 0; i < out.count; i += 2 * L) {
        Vec<T> a = load(row + i), b = load(row + i + L);
#pragma GCC unroll 3
        for (int64_t j = 1; j < taps; ++j) a = op.combine(a, load(row + i + j * step)), b = op.combine(b, load(row + i + L + j * step));
        finish(op, out, i, a);
        if (i + L < out.count) finish(op, out, i + L, b);
    }
}

// Stride 2: tap j of output i is row[2 i + j step]. Lanes are put in order last; with step 1 two taps share what is loaded.
template <class T, class Op, int Taps>
FASTCONV_NOINLINE void slide_two(const Op& op, const T* row, int64_t taps, int64_t step, const Outputs<T>& given) {
    constexpr int64_t L = lanes<T>;
    constexpr auto all = std::make_index_sequence<size_t(L)>{};
    const Outputs<T> out = given;
    if (Taps) taps = Taps, step = 1;
    for (int64_t i = 0; i < out.count; i += L) {
        const T* at = row + 2 * i;
        Vec<T> sum = every_other_unsorted<T, 0>(load(at), load(at + L), all);
        int64_t j = 1;
        if (step == 1) {
            if (taps > 1) sum = op.combine(sum, every_other_unsorted<T, 1>(load(at), load(at + L), all));
#pragma GCC unroll 2
            for (j = 2; j + 2 <= taps; j += 2) {
                const Vec<T> x = load(at + j), y = load(at + j + L);
                sum = op.combine(sum, every_other_unsorted<T, 0>(x, y, all));
                sum = op.combine(sum, every_other_unsorted<T, 1>(x, y, all));
            }
        }
        for (; j < taps; ++j) sum = op.combine(sum, every_other_unsorted<T, 0>(load(at + j * step), load(at + j * step + L), all));
        finish(op, out, i, sorted<T>(sum, all));
    }
}

// Stride S = 3, 4, step 1: vectors of S outputs' inputs, split into phases.
template <class T, class Op, int S>
FASTCONV_NOINLINE void slide_split(const Op& op, const T* row, int64_t taps, const Outputs<T>& out) {
    constexpr int64_t L = lanes<T>;
    for (int64_t i = 0; i < out.count; i += L) {
        Vec<T> sum{};
        for (int64_t j = 0; j < taps; j += S) {
            Vec<T> phase[S];
#pragma GCC unroll 4
            for (int v = 0; v < S; ++v) phase[v] = load(row + i * S + j + v * L);
            split<T, S>(phase);
            sum = j == 0 ? phase[0] : op.combine(sum, phase[0]);
#pragma GCC unroll 4
            for (int v = 1; v < S; ++v)
                if (j + v < taps) sum = op.combine(sum, phase[v]);
        }
        finish(op, out, i, sum);
    }
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
FASTCONV_INLINE T fold_lanes(const Op& op, Vec<T> v) {
    v = op.combine(v, turned<T, H>(v, std::make_index_sequence<size_t(lanes<T>)>{}));
    if constexpr (H == 1) return v[0];
    else return fold_lanes<H / 2, T>(op, v);
}

// n elements side by side to those of a vector: blocks on several sums, which are summed in pairs. prepared: they are.
template <class T, class Op>
Vec<T> fold_to_vector(const Op& op, const T* p, int64_t n, bool prepared) {
    constexpr int64_t L = lanes<T>, block = 64 * L;
    if (n > block) {
        const int64_t half = std::min(round_up(n / 2, block), n - 1);
        const Vec<T> first = fold_to_vector(op, p, half, prepared);  // in the order of memory, which arguments are not
        return op.combine(first, fold_to_vector(op, p + half, n - half, prepared));
    }
    const auto at = [&](int64_t i) __attribute__((always_inline)) { return prepared ? load(p + i) : op.prepare(load(p + i)); };
    Vec<T> sum[4];
    for (Vec<T>& each : sum) each = broadcast(op.identity());
    int64_t i = 0;
    for (; i + 4 * L <= n; i += 4 * L)
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) sum[v] = op.combine(sum[v], at(i + v * L));
    for (; i + L <= n; i += L) sum[0] = op.combine(sum[0], at(i));
    if (i < n) {
        const Vec<T> last = load_first(p + i, n - i);
        const Vec<T> rest = prepared ? last : op.prepare(last);
        sum[1] = op.combine(sum[1], lanes_within<T>(0, n - i) ? rest : broadcast(op.identity()));
    }
    return op.combine(op.combine(sum[0], sum[1]), op.combine(sum[2], sum[3]));
}
template <class T, class Op>
T fold(const Op& op, const T* p, int64_t n, bool prepared) {
    return fold_lanes<lanes<T> / 2, T>(op, fold_to_vector(op, p, n, prepared));
}

// Any windows, one by one: the first taps are row[first[i]].
template <class T, class Op>
FASTCONV_NOINLINE void windows(const Op& op, const T* row, const int64_t* first, const int64_t* count, int64_t step, bool prepared,
                               const Outputs<T>& out) {
    for (int64_t i = 0; i < out.count; ++i) {
        const T* p = row + first[i];
        T one = op.identity();
        if (step == 1 && count[i] >= 2 * lanes<T>) one = fold(op, p, count[i], prepared);
        else
            for (int64_t j = 0; j < count[i]; ++j) one = op.combine(one, prepared ? p[j * step] : op.prepare(p[j * step]));
        if constexpr (Op::divides) one = op.finish(one, out.divisors[i] * out.divisor);
        out.to[i] = one;
    }
}

// A pixel of `length` channels side by side: `count` pixels of the row from `row` on, `step` elements apart.
template <class T, class Op>
FASTCONV_NOINLINE void join_pixels(const Op& op, const T* row, int64_t count, int64_t step, int64_t length, T divisor, T* to) {
    constexpr int64_t L = lanes<T>;
    for (int64_t i = 0; i < length; i += L) {
        const int64_t n = std::min(L, length - i);
        Vec<T> sum = broadcast(op.identity());
        for (int64_t j = 0; j < count; ++j) sum = op.combine(sum, load(row + i + j * step));  // `row` has more behind the last
        if constexpr (Op::divides) sum = op.finish(sum, broadcast(divisor));
        if (n == L) store(to + i, sum);
        else store_first(to + i, sum, n);
    }
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
