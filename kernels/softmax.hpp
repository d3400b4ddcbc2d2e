// softmax and log_softmax along rows, their gradients, and cross entropy: exp(x - m) / sum, m the largest of the row, so that nothing
// overflows. Rows whose elements are adjacent go one by one, vectors along the row; others a vector of rows at a time. Sums are double.
#pragma once
#include <cmath>

#include "pointwise.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

#if defined(__AVX512F__)
alignas(64) constexpr float powers_of_two[] = {  // 2^(j/16)
    1.0f, 1.04427373f, 1.09050775f, 1.13878858f, 1.18920708f, 1.24185777f, 1.29683959f, 1.35425556f,
    1.41421354f, 1.47682619f, 1.54221082f, 1.61049032f, 1.68179286f, 1.75625217f, 1.8340081f, 1.91520655f};
#endif

// exp of what is not above 0. With AVX-512 and float 2^n of multiples n of 1/16, their fractions looked up in a register: of exp r - 1,
// |r| <= ln 2 / 32, three terms are enough, r^4 / 24 being 0.15 units in the last place.
template <class T>
FASTCONV_INLINE Vec<T> exp_below(Vec<T> x) {
    x = at_least(Numbers<T>::underflow, x);
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        const Vec<T> shift = broadcast(0x1.8p19f);  // added, it rounds to a multiple of 1/16, whose fraction is the lower bits
        const Vec<T> at = madd<T>(x, broadcast(1.44269504f), shift), n = at - shift;
        const Vec<T> high = madd<T>(n, broadcast(-Numbers<T>::ln2_high), x), r = madd<T>(n, broadcast(-Numbers<T>::ln2_low), high);
        const Vec<T> power = _mm512_maskz_permutexvar_ps(0xffff, __m512i(at), load(powers_of_two));
        const Vec<T> growth = madd<T>(rounded(r * r), madd<T>(r, broadcast(1 / 6.0f), broadcast(0.5f)), r);
        return scaled<T>(madd<T>(power, growth, power), n);  // which takes the whole part of n
    }
#endif
    return Exponential<T>(x).whole();
}

// One row, or a vector of rows, of `rows`.
template <class T>
struct Row {
    static constexpr int L = lanes<T>;
    const Rows& of;
    const T *x, *g;
    T* y;
    int64_t first;  // its place, or its first row's, among [outer, inner]

    Row(const Rows& rows, int64_t outer, int64_t inner)
        : of(rows), x(static_cast<const T*>(rows.input.data) + outer * rows.input.outer + inner * rows.input.inner),
          g(static_cast<const T*>(rows.gradient.data) +
            (rows.gradient.data ? outer * rows.gradient.outer + inner * rows.gradient.inner : 0)),
          y(static_cast<T*>(rows.result.data) + (rows.result.data ? outer * rows.result.outer + inner * rows.result.inner : 0)),
          first(outer * rows.inner + inner) {}

    double weight(int64_t c) const { return of.weight ? of.weight[c] : 1; }
    // Of a row with that target: what its loss takes of the target's class, and of all.
    double of_target(int64_t t) const { return (1 - of.smoothing) * weight(t); }
    double of_all() const { return of.smoothing / double(of.length); }
    bool counts(int64_t t) const { return t != of.ignored; }
};

// ---- a row of adjacent elements

template <class T>
struct AdjacentRow : Row<T> {
    static constexpr int L = lanes<T>;
    using Row<T>::of;
    using Row<T>::x;
    using Row<T>::g;
    using Row<T>::y;

    AdjacentRow(const Rows& rows, int64_t outer) : Row<T>(rows, outer, 0) {}

    template <class Put>
    FASTCONV_INLINE void each(const Put& put) const {
        by_vectors<T>(y, of.length, put);
    }
    T largest() const {
        if (of.length < L) {
            T found = x[0];
            for (int64_t i = 1; i < of.length; ++i) found = x[i] > found ? x[i] : found;
            return found;
        }
        Vec<T> most = load(x + of.length - L), other = most;  // the last vector overlaps its neighbour
        int64_t i = 0;
        for (; i + 2 * L <= of.length; i += 2 * L) most = larger<T>(load(x + i), most), other = larger<T>(load(x + i + L), other);
        if (i + L <= of.length) most = larger<T>(load(x + i), most);
        alignas(vector_bytes) T lane[L];
        store(lane, larger<T>(other, most));
#pragma GCC unroll 4
        for (int half = L / 2; half; half /= 2)
            for (int l = 0; l < half; ++l) lane[l] = lane[l + half] > lane[l] ? lane[l + half] : lane[l];
        return lane[0];
    }
    // The sum of exp(x - m), which is kept in y if Keep.
    template <bool Keep>
    double exponentials(T m) const {
        const Vec<T> most = broadcast(m);
        WideSum<T> sum[1];
        add_staged(sum, of.length, [&](int64_t i, int64_t count, Vec<T> (&v)[1]) __attribute__((always_inline)) {
            const Vec<T> e = exp_below<T>(load_some(x + i, count) - most);
            __builtin_prefetch(x + of.input.outer + i, 0, 3);  // the next row
            if (Keep) store_some(y + i, e, count, false);
            v[0] = only<T>(e, count);
        });
        return sum[0].total();
    }
    double dot(bool products) const {
        WideSum<T> sum[1];
        add_staged(sum, of.length, [&](int64_t i, int64_t count, Vec<T> (&v)[1]) __attribute__((always_inline)) {
            v[0] = load_some(g + i, count);
            if (products) v[0] = rounded(v[0] * load_some(x + i, count));
        });
        return sum[0].total();
    }
    double weighted(T m) const {  // the sum of w (x - m)
        double sum = 0;
        for (int64_t c = 0; c < of.length; ++c) sum += this->weight(c) * (double(x[c]) - double(m));
        return sum;
    }

    FASTCONV_NOINLINE void softmax() const {
        const Vec<T> factor = broadcast(T(1 / exponentials<true>(largest())));
        each([&](int64_t i, int64_t count) __attribute__((always_inline)) {
            store_some(y + i, load_some(y + i, count) * factor, count, false);
        });
    }
    FASTCONV_NOINLINE void log_softmax() const {
        const T m = largest();
        const Vec<T> most = broadcast(m), less = broadcast(T(std::log(exponentials<false>(m))));
        each([&](int64_t i, int64_t count) __attribute__((always_inline)) {
            store_some(y + i, load_some(x + i, count) - most - less, count, false);
        });
    }
    FASTCONV_NOINLINE void softmax_gradient() const {  // y (g - sum g y)
        const Vec<T> less = broadcast(T(dot(true)));
        each([&](int64_t i, int64_t count) __attribute__((always_inline)) {
            store_some(y + i, load_some(x + i, count) * (load_some(g + i, count) - less), count, false);
        });
    }
    FASTCONV_NOINLINE void log_softmax_gradient() const {  // g - exp(y) sum g
        const Vec<T> all = broadcast(T(-dot(false)));
        each([&](int64_t i, int64_t count) __attribute__((always_inline)) {
            store_some(y + i, madd<T>(fastconv::FASTCONV_ISA::exp<T>(load_some(x + i, count)), all, load_some(g + i, count)), count, false);
        });
    }
    FASTCONV_NOINLINE void cross_entropy() const {
        const int64_t t = of.target[this->first];
        if (!this->counts(t)) return void(of.loss[this->first] = 0);
        const T m = largest();
        const double log_sum = std::log(exponentials<false>(m));
        double loss = this->of_target(t) * (log_sum - (double(x[t]) - double(m)));
        if (of.smoothing != 0) loss += this->of_all() * (of.weight_sum * log_sum - weighted(m));
        of.loss[this->first] = loss;
    }
    FASTCONV_NOINLINE void cross_entropy_gradient() const {  // G (softmax A - smoothing/C w - [target] (1 - smoothing) w)
        const int64_t t = of.target[this->first];
        if (!this->counts(t)) return clear(y, of.length);
        const double upstream = of.loss[this->first], all = this->of_all(), target = this->of_target(t);
        const T m = largest();
        const Vec<T> factor = broadcast(T(upstream * (target + all * of.weight_sum) / exponentials<true>(m)));
        each([&](int64_t i, int64_t count) __attribute__((always_inline)) {
            store_some(y + i, load_some(y + i, count) * factor, count, false);
        });
        if (of.smoothing != 0)
            for (int64_t c = 0; c < of.length; ++c) y[c] -= T(upstream * all * this->weight(c));
        y[t] -= T(upstream * target);
    }
};

// ---- a vector of rows, `count` of which are there

template <class T>
struct RowsApart : Row<T> {
    static constexpr int L = lanes<T>, D = doubles<T>;
    using Row<T>::of;
    int64_t count;

    RowsApart(const Rows& rows, int64_t outer, int64_t inner)
        : Row<T>(rows, outer, inner), count(std::min<int64_t>(L, rows.inner - inner)) {}

    FASTCONV_INLINE Vec<T> x_at(int64_t c) const { return load_some(this->x + c * of.input.middle, count); }
    FASTCONV_INLINE Vec<T> g_at(int64_t c) const { return load_some(this->g + c * of.gradient.middle, count); }
    FASTCONV_INLINE Vec<T> y_at(int64_t c) const { return load_some(this->y + c * of.result.middle, count); }
    FASTCONV_INLINE void put(int64_t c, Vec<T> v) const { store_some(this->y + c * of.result.middle, v, count, false); }
    template <class F>
    FASTCONV_INLINE Vec<T> of_lanes(const WideSum<T>& sum, const F& f) const {
        Vec<T> made;
        for (int l = 0; l < L; ++l) made[l] = T(f(sum.lane(l)));
        return made;
    }
    // Rows of some length are copied: planes are often a power of two apart, where a cache has few places for them.
    static constexpr int64_t kept = 8192 / vector_bytes;
    struct Strip {
        alignas(vector_bytes) T of[kept * L];
    };

    FASTCONV_INLINE Vec<T> largest(T* strip) const {
        Vec<T> most = x_at(0);
        for (int64_t c = 0; c < of.length; ++c) {
            const Vec<T> v = x_at(c);
            if (strip) store(strip + c * L, v);
            most = larger<T>(v, most);
        }
        return most;
    }
    // exp(x - most) to where(c, e), and its sum
    template <class Where>
    FASTCONV_INLINE WideSum<T> exponentials(const T* strip, Vec<T> most, const Where& where) const {
        WideSum<T> sum;
        for (int64_t begin = 0; begin < of.length; begin += staged) {
            Vec<T> near{};
            for (int64_t c = begin; c < std::min(begin + staged, of.length); ++c) {
                const Vec<T> e = exp_below<T>((strip ? load(strip + c * L) : x_at(c)) - most);
                where(c, e);
                near += e;
            }
            sum.add(near);
        }
        return sum;
    }
    FASTCONV_INLINE WideSum<T> dot(bool products) const {
        WideSum<T> sum;
        for (int64_t c = 0; c < of.length; ++c) {
            Widened<T> v = widened<T>(g_at(c));
            if (products) {
                const Widened<T> w = widened<T>(x_at(c));
                for (int p = 0; p < D; ++p) v.part[p] = v.part[p] * w.part[p];
            }
            sum.add(v);
        }
        return sum;
    }
    static double inverse(double v) { return 1 / v; }
    static double logarithm(double v) { return std::log(v); }
    static double negative(double v) { return -v; }
    static double same(double v) { return v; }

    FASTCONV_NOINLINE void softmax() const {
        Strip memory;
        T* const strip = of.length <= kept ? memory.of : nullptr;
        const Vec<T> most = largest(strip);
        if (strip) {
            const Vec<T> factor = of_lanes(exponentials(strip, most, [&](int64_t c, Vec<T> e) { store(strip + c * L, e); }), inverse);
            for (int64_t c = 0; c < of.length; ++c) put(c, load(strip + c * L) * factor);
        } else {
            const Vec<T> factor = of_lanes(exponentials(nullptr, most, [&](int64_t c, Vec<T> e) { put(c, e); }), inverse);
            for (int64_t c = 0; c < of.length; ++c) put(c, y_at(c) * factor);
        }
    }
    FASTCONV_NOINLINE void log_softmax() const {
        Strip memory;
        T* const strip = of.length <= kept ? memory.of : nullptr;
        const Vec<T> most = largest(strip), less = of_lanes(exponentials(strip, most, [](int64_t, Vec<T>) {}), logarithm);
        for (int64_t c = 0; c < of.length; ++c) put(c, (strip ? load(strip + c * L) : x_at(c)) - most - less);
    }
    FASTCONV_NOINLINE void softmax_gradient() const {
        const Vec<T> less = of_lanes(dot(true), same);
        for (int64_t c = 0; c < of.length; ++c) put(c, x_at(c) * (g_at(c) - less));
    }
    FASTCONV_NOINLINE void log_softmax_gradient() const {
        const Vec<T> all = of_lanes(dot(false), negative);
        for (int64_t c = 0; c < of.length; ++c) put(c, madd<T>(fastconv::FASTCONV_ISA::exp<T>(x_at(c)), all, g_at(c)));
    }
    FASTCONV_NOINLINE void cross_entropy() const {
        const Vec<T> most = largest(nullptr);
        const WideSum<T> sum = exponentials(nullptr, most, [](int64_t, Vec<T>) {}), rest = of.smoothing != 0 ? weighted(most) : WideSum<T>{};
        for (int l = 0; l < count; ++l) {
            const int64_t t = of.target[this->first + l];
            double& loss = of.loss[this->first + l];
            loss = 0;
            if (!this->counts(t)) continue;
            const double log_sum = std::log(sum.lane(l)), of_x = double(this->x[t * of.input.middle + l]) - double(most[l]);
            loss = this->of_target(t) * (log_sum - of_x);
            if (of.smoothing != 0) loss += this->of_all() * (of.weight_sum * log_sum - rest.lane(l));
        }
    }
    WideSum<T> weighted(Vec<T> most) const {
        WideSum<T> sum;
        for (int64_t c = 0; c < of.length; ++c) {
            const Widened<T> v = widened<T>(x_at(c)), m = widened<T>(most);
            for (int p = 0; p < D; ++p) sum.part[p] = madd<double>(v.part[p] - m.part[p], broadcast(this->weight(c)), sum.part[p]);
        }
        return sum;
    }
    FASTCONV_NOINLINE void cross_entropy_gradient() const {
        const WideSum<T> sum = exponentials(nullptr, largest(nullptr), [&](int64_t c, Vec<T> e) { put(c, e); });
        Vec<T> factor{}, smooth{}, there{};
        for (int l = 0; l < count; ++l) {
            const int64_t t = of.target[this->first + l];
            if (!this->counts(t)) continue;
            const double upstream = of.loss[this->first + l], all = this->of_all();
            factor[l] = T(upstream * (this->of_target(t) + all * of.weight_sum) / sum.lane(l));
            smooth[l] = T(-upstream * all), there[l] = T(1);
        }
        for (int64_t c = 0; c < of.length; ++c) {
            const Vec<T> dx = madd<T>(smooth, broadcast(T(this->weight(c))), rounded(y_at(c) * factor));
            put(c, there == Vec<T>{} ? Vec<T>{} : dx);
        }
        for (int l = 0; l < count; ++l)
            if (const int64_t t = of.target[this->first + l]; this->counts(t))
                this->y[t * of.result.middle + l] -= T(of.loss[this->first + l] * this->of_target(t));
    }
};

template <class R>
void compute_row(const R& row, Rows::Kind kind) {
    switch (kind) {
        case Rows::softmax: return row.softmax();
        case Rows::log_softmax: return row.log_softmax();
        case Rows::softmax_gradient: return row.softmax_gradient();
        case Rows::log_softmax_gradient: return row.log_softmax_gradient();
        case Rows::cross_entropy: return row.cross_entropy();
        case Rows::cross_entropy_gradient: return row.cross_entropy_gradient();
    }
}

template <class T>
void share_rows(const Rows& rows, const Team& team) {
    const int64_t vectors = (rows.inner + lanes<T> - 1) / lanes<T>;
    const double bytes = 2.0 * sizeof(T) * double(rows.outer) * double(rows.length) * double(rows.inner);
    crew_of(team, bytes, rows.kind != Rows::softmax_gradient).share(rows.outer * vectors, [&](int64_t, const auto& each) {
        each([&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i)
                if (rows.inner == 1) compute_row(AdjacentRow<T>(rows, i), rows.kind);
                else compute_row(RowsApart<T>(rows, i / vectors, i % vectors * lanes<T>), rows.kind);
        });
    });
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
