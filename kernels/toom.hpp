// Winograd's minimal filtering F(m, r) along one axis, by the Toom-Cook construction (Lavin & Gray 1509.09308, Barabasz 1803.10986):
//
//   y = A^T [(G g) . (B^T d)]      m outputs y, r taps g, n = m + r - 1 inputs d, n products
//
// At finite points p_i, i = 0 .. n - 2, and at infinity (the last row):
//
//   B^T row i = coefficients of N_i(x) = product of (x - p_j) over j != i;    at infinity: over all j
//   G   row i = (1, p_i, ..., p_i^(r-1)) / N_i(p_i);                          at infinity: (0, ..., 0, 1)
//   A^T column i = (1, p_i, p_i^2, ..., p_i^(m-1));                           at infinity: (0, ..., 0, 1)
//
// The points, and with them B^T, depend on n alone. Their order is 0, then pairs +-a, then one without a partner if n is odd. A pair
// shares its work: with S(x) = product of the other (x - p_j), the rows of +-a are x S(x) +- a S(x); its outputs are sums for even
// powers, differences for odd ones. The points are those with the least error, not the cheapest arithmetic: errors of F(4, 3) at
// 0, +-1, +-2 are twice as large.
#pragma once
#include "simd.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

constexpr int least_products = 4, max_products = 8, most_taps = 5;

template <int N>
struct Points;
template <>
struct Points<4> {
    static constexpr double pair[] = {1.0}, single = 0;
};
template <>
struct Points<5> {
    static constexpr double pair[] = {0.7}, single = 2.0;
};
template <>
struct Points<6> {
    static constexpr double pair[] = {0.70710678118654752440, 1.41421356237309504880}, single = 0;
};
template <>
struct Points<7> {
    static constexpr double pair[] = {0.55, 1.1}, single = 2.5;
};
template <>
struct Points<8> {
    static constexpr double pair[] = {0.5, 1.0, 2.0}, single = 0;
};

template <int N>
struct Toom {
    static constexpr int finite = N - 1, pairs = N / 2 - 1;
    static constexpr bool has_single = N % 2 == 1;

    static constexpr double point(int i) {
        if (i == 0) return 0;
        if (i > 2 * pairs) return Points<N>::single;
        return i % 2 ? Points<N>::pair[(i - 1) / 2] : -Points<N>::pair[(i - 1) / 2];
    }
};

// Product of (x - p_j) over the finite points j but `skip` and `skip_too`; monic, of degree `degree`.
template <int N, int skip, int skip_too = -1>
struct Product {
    static constexpr int degree = Toom<N>::finite - (skip >= 0) - (skip_too >= 0);
    struct Coefficients {
        double of[max_products + 1];
    };
    static constexpr Coefficients make() {
        Coefficients c{{1}};
        for (int j = 0; j < Toom<N>::finite; ++j) {
            if (j == skip || j == skip_too) continue;
            for (int k = max_products; k >= 0; --k) c.of[k] = (k ? c.of[k - 1] : 0) - Toom<N>::point(j) * c.of[k];
        }
        return c;
    }
    static constexpr Coefficients coefficient = make();

    template <class T, int K = degree>
    static FASTCONV_INLINE Vec<T> apply(const Vec<T>* d, Vec<T> sum = Vec<T>{}) {
        if constexpr (K < 0) return sum;
        else if constexpr (K == degree) return apply<T, K - 1>(d, d[K]);
        else if constexpr (coefficient.of[K] == 0) return apply<T, K - 1>(d, sum);
        else return apply<T, K - 1>(d, sum + d[K] * T(coefficient.of[K]));
    }
};

// v = B^T d
template <class T, int N, int Pair = 0>
FASTCONV_INLINE void toom_input(const Vec<T>* d, Vec<T>* v) {
    using F = Toom<N>;
    if constexpr (Pair < F::pairs) {
        using Others = Product<N, 2 * Pair + 1, 2 * Pair + 2>;
        const Vec<T> even = Others::template apply<T>(d + 1), odd = Others::template apply<T>(d) * T(Points<N>::pair[Pair]);
        v[2 * Pair + 1] = even + odd;
        v[2 * Pair + 2] = even - odd;
        toom_input<T, N, Pair + 1>(d, v);
    } else {
        v[0] = Product<N, 0>::template apply<T>(d);
        if constexpr (F::has_single) v[F::finite - 1] = Product<N, F::finite - 1>::template apply<T>(d);
        v[F::finite] = Product<N, -1>::template apply<T>(d);
    }
}

constexpr double power(double x, int n) { return n ? x * power(x, n - 1) : 1; }

// y[J], J + 1, ... = A^T v, given the sums and differences of the pairs
template <class T, int N, int M, int J = 0>
FASTCONV_INLINE void toom_output_rows(const Vec<T>* v, const Vec<T>* sum, const Vec<T>* difference, Vec<T>* y) {
    using F = Toom<N>;
    if constexpr (J < M) {
        const Vec<T>* of = J % 2 ? difference : sum;
        Vec<T> total = J ? of[0] * T(power(Points<N>::pair[0], J)) : v[0] + of[0];
        if constexpr (F::pairs > 1) total += of[1] * T(power(Points<N>::pair[F::pairs > 1 ? 1 : 0], J));
        if constexpr (F::pairs > 2) total += of[2] * T(power(Points<N>::pair[F::pairs > 2 ? 2 : 0], J));
        if constexpr (F::has_single) total += v[F::finite - 1] * T(power(Points<N>::single, J));
        if constexpr (J == M - 1) total += v[F::finite];
        y[J] = total;
        toom_output_rows<T, N, M, J + 1>(v, sum, difference, y);
    }
}

template <class T, int N, int M>
FASTCONV_INLINE void toom_output(const Vec<T>* v, Vec<T>* y) {
    Vec<T> sum[Toom<N>::pairs], difference[Toom<N>::pairs];
#pragma GCC unroll 3
    for (int i = 0; i < Toom<N>::pairs; ++i) {
        sum[i] = v[2 * i + 1] + v[2 * i + 2];
        difference[i] = v[2 * i + 1] - v[2 * i + 2];
    }
    toom_output_rows<T, N, M>(v, sum, difference, y);
}

// u[I], I + 1, ... = G g
template <class T, int N, int R, int I = 0>
FASTCONV_INLINE void toom_weights(const Vec<T>* g, Vec<T>* u) {
    using F = Toom<N>;
    if constexpr (I < F::finite) {
        constexpr double p = F::point(I);
        constexpr double scale = [] {
            double n = 1;
            for (int j = 0; j < F::finite; ++j)
                if (j != I) n *= F::point(I) - F::point(j);
            return 1 / n;
        }();
        u[I] = g[0] * T(scale);
        if constexpr (I > 0) {
            Vec<T> higher = g[R - 1] * T(scale * power(p, R - 1));
            if constexpr (R > 4) higher += g[R - 2] * T(scale * power(p, R - 2));
            if constexpr (R > 3) higher += g[2] * T(scale * p * p);
            if constexpr (R > 2) higher += g[1] * T(scale * p);
            u[I] += higher;
        }
        toom_weights<T, N, R, I + 1>(g, u);
    } else {
        u[F::finite] = g[R - 1];
    }
}

// to[k][i] = (B^T from[:][i])[k] for `count` columns i; strides between the elements of a column, steps between columns
template <class T, int N>
FASTCONV_NOINLINE void columns_in(const T* from, int64_t from_stride, int64_t from_step, T* to, int64_t to_stride, int64_t to_step,
                                  int64_t count) {
    for (int64_t i = 0; i < count; ++i, from += from_step, to += to_step) {
        Vec<T> d[N], v[N];
#pragma GCC unroll 8
        for (int k = 0; k < N; ++k) d[k] = load(from + k * from_stride);
        if constexpr (N == 1) v[0] = d[0];
        else toom_input<T, N>(d, v);
#pragma GCC unroll 8
        for (int k = 0; k < N; ++k) store(to + k * to_stride, v[k]);
    }
}

template <class T, int N, int M>
FASTCONV_INLINE void column_out(const T* from, int64_t from_stride, Vec<T>* y) {
    Vec<T> v[N];
#pragma GCC unroll 8
    for (int k = 0; k < N; ++k) v[k] = load(from + k * from_stride);
    if constexpr (N == 1) y[0] = v[0];
    else toom_output<T, N, M>(v, y);
}

// to[j][i] = (A^T from[:][i])[j]
template <class T, int N, int M>
FASTCONV_NOINLINE void columns_out(const T* from, int64_t from_stride, int64_t from_step, T* to, int64_t to_stride, int64_t to_step,
                                   int64_t count) {
    for (int64_t i = 0; i < count; ++i, from += from_step, to += to_step) {
        Vec<T> y[M];
        column_out<T, N, M>(from, from_stride, y);
#pragma GCC unroll 8
        for (int j = 0; j < M; ++j) store(to + j * to_stride, y[j]);
    }
}

template <class T>
FASTCONV_INLINE bool all_zeros(Vec<T> vector) {  // and no NaN
    T lane[lanes<T>], total = 0;
    store(lane, vector);
    for (T value : lane) total += value;
    return total == 0;
}

// The same + start; false if any of it is NaN or infinite.
template <class T, int N, int M>
FASTCONV_NOINLINE bool finished_columns(const T* from, int64_t from_stride, int64_t from_step, T* to, int64_t to_stride,
                                        int64_t to_step, int64_t count, const T* start) {
    const Vec<T> first = load(start);
    Vec<T> zero{};
    for (int64_t i = 0; i < count; ++i, from += from_step, to += to_step) {
        Vec<T> y[M];
        column_out<T, N, M>(from, from_stride, y);
#pragma GCC unroll 8
        for (int j = 0; j < M; ++j) {
            y[j] += first;
            zero += y[j] * T(0);
            store(to + j * to_stride, y[j]);
        }
    }
    return all_zeros<T>(zero);
}

// to[k][i] = (G from[:][i])[k], past the caches if `past`
template <class T, int N, int R>
FASTCONV_NOINLINE void columns_of_weights(const T* from, int64_t from_stride, int64_t from_step, T* to, int64_t to_stride,
                                          int64_t to_step, int64_t count, bool past) {
    for (int64_t i = 0; i < count; ++i, from += from_step, to += to_step) {
        Vec<T> g[R], u[N];
#pragma GCC unroll 5
        for (int k = 0; k < R; ++k) g[k] = load(from + k * from_stride);
        if constexpr (N == 1) u[0] = g[0];
        else toom_weights<T, N, R>(g, u);
#pragma GCC unroll 8
        for (int k = 0; k < N; ++k) store_past(to + k * to_stride, u[k], past);
    }
}

// What to do along one axis, by the outputs per tile and the taps; nothing where there is one of each.
template <class T>
struct Axis {
    using Columns = void (*)(const T* from, int64_t from_stride, int64_t from_step, T* to, int64_t to_stride, int64_t to_step,
                             int64_t count);
    using Finish = bool (*)(const T* from, int64_t from_stride, int64_t from_step, T* to, int64_t to_stride, int64_t to_step,
                            int64_t count, const T* start);
    using Weights = void (*)(const T* from, int64_t from_stride, int64_t from_step, T* to, int64_t to_stride, int64_t to_step,
                             int64_t count, bool past);
    int64_t m, taps, size;
    Columns input, output;
    Weights weights;
    Finish finish;

    Axis(int64_t m_, int64_t taps_) : m(m_), taps(taps_), size(m + taps - 1) {
        switch (exists(m, taps) ? taps : 1) {
            case 2: find<2>(); break;
            case 3: find<3>(); break;
            case 4: find<4>(); break;
            case 5: find<5>(); break;
            default: set<1, 1>();
        }
    }

    static bool exists(int64_t m, int64_t taps) {
        const int64_t size = m + taps - 1;
        return m == 1 ? taps == 1 : taps >= 2 && taps <= most_taps && size >= least_products && size <= max_products;
    }

   private:
    template <int M, int R>
    void set() {
        constexpr int N = M + R - 1;
        input = columns_in<T, N>, weights = columns_of_weights<T, N, R>;
        output = columns_out<T, N, M>, finish = finished_columns<T, N, M>;
    }
    template <int R, int M = max_products + 1 - R>
    void find() {
        if (m == M) set<M, R>();
        else if constexpr (M > 2 && M + R - 1 > least_products) find<R, M - 1>();
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
