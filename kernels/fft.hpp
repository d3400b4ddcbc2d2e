// Complex Fourier transforms of length n = 2^a 3^b 5^c, of `lanes` sequences at once: element k is vector k of `re` and `im`.
//
// forward: decimation in frequency; natural order in, X(k) out at position `place[k]`. inverse: decimation in time, from there
// back to natural order, without the factor 1/n. So products of spectra need no reordering. Stages are of radix 4, after those
// of 5, 3 and 2; a stage of radix r on sequences of r m elements does m n / (r m) butterflies with twiddles w^(j q), j < m, q <
// r. Sequences that L1 does not hold are cut by a stage into r shorter ones, each of which then goes through all its stages
// alone. Bottleneck: about 7 additions and multiplications per element and stage of radix 4, and as many cycles for loads and
// stores.
#pragma once
#include <cmath>

#include "simd.hpp"
#include "window.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

constexpr int max_stages = 16;

struct Radices {
    int64_t n;
    int count, of[max_stages];

    explicit Radices(int64_t length) : n(length), count(0), of{} {
        int64_t rest = length;
        for (int radix : {5, 3})
            for (; rest % radix == 0; rest /= radix) of[count++] = radix;
        int twos = 0;
        for (; rest % 2 == 0; rest /= 2) ++twos;
        if (twos % 2) of[count++] = 2;
        for (int i = 0; i < twos / 2; ++i) of[count++] = 4;
    }
    static bool possible(int64_t length) {
        for (int radix : {2, 3, 5})
            for (; length > 1 && length % radix == 0; length /= radix) {
            }
        return length == 1;
    }
    // Pairs (cos, sin) of all stages but the last, whose twiddles are 1.
    int64_t twiddles() const {
        int64_t total = 0, length = n;
        for (int s = 0; s < count; ++s) {
            length /= of[s];
            if (length > 1) total += length * (of[s] - 1);
        }
        return total;
    }
    template <class T>
    void fill_twiddles(T* out) const {
        int64_t length = n;
        for (int s = 0; s < count; ++s) {
            const int64_t m = length / of[s];
            for (int64_t j = 0; m > 1 && j < m; ++j)
                for (int q = 1; q < of[s]; ++q) {
                    const double angle = -2 * 3.14159265358979323846 * double(j * q % length) / double(length);
                    *out++ = T(std::cos(angle));
                    *out++ = T(std::sin(angle));
                }
            length = m;
        }
    }
    // Where X(k) is: the digits of k in the mixed radices, reversed.
    int64_t place(int64_t k) const {
        int64_t at = 0, length = n;
        for (int s = 0; s < count; ++s) {
            length /= of[s];
            at += k % of[s] * length;
            k /= of[s];
        }
        return at;
    }
};

template <class T>
struct Complex {
    Vec<T> re, im;

    FASTCONV_INLINE Complex operator+(const Complex& o) const { return {re + o.re, im + o.im}; }
    FASTCONV_INLINE Complex operator-(const Complex& o) const { return {re - o.re, im - o.im}; }
    FASTCONV_INLINE Complex operator*(T factor) const { return {re * factor, im * factor}; }
    template <int Sign>
    FASTCONV_INLINE Complex times_i() const {  // times Sign i
        if constexpr (Sign > 0) return {-im, re};
        else return {im, -re};
    }
    // times (c, s), or its conjugate; one number, or one for each lane
    template <bool Conjugate, class Factor>
    FASTCONV_INLINE Complex turned(Factor c, Factor s) const {
        if constexpr (Conjugate) return {re * c + im * s, im * c - re * s};
        else return {re * c - im * s, im * c + re * s};
    }
};

// The transform of R elements; Sign -1 forward, +1 inverse.
template <class T, int R, int Sign>
FASTCONV_INLINE void butterfly(Complex<T> (&a)[R]) {
    if constexpr (R == 2) {
        const Complex<T> sum = a[0] + a[1], difference = a[0] - a[1];
        a[0] = sum, a[1] = difference;
    } else if constexpr (R == 4) {
        const Complex<T> even = a[0] + a[2], odd = a[1] + a[3], low = a[0] - a[2];
        const Complex<T> high = (a[1] - a[3]).template times_i<Sign>();
        a[0] = even + odd, a[2] = even - odd;
        a[1] = low + high, a[3] = low - high;
    } else if constexpr (R == 3) {
        constexpr T half = T(-0.5), sine = T(0.86602540378443864676);
        const Complex<T> sum = a[1] + a[2], turn = ((a[1] - a[2]) * sine).template times_i<Sign>(), middle = a[0] + sum * half;
        a[0] = a[0] + sum, a[1] = middle + turn, a[2] = middle - turn;
    } else {
        static_assert(R == 5);
        constexpr T c1 = T(0.30901699437494742410), c2 = T(-0.80901699437494742410);
        constexpr T s1 = T(0.95105651629515357212), s2 = T(0.58778525229247312917);
        const Complex<T> p = a[1] + a[4], q = a[2] + a[3], m = a[1] - a[4], n = a[2] - a[3];
        const Complex<T> u = a[0] + p * c1 + q * c2, v = a[0] + p * c2 + q * c1;
        const Complex<T> x = (m * s1 + n * s2).template times_i<Sign>(), y = (m * s2 - n * s1).template times_i<Sign>();
        a[0] = a[0] + p + q;
        a[1] = u + x, a[4] = u - x, a[2] = v + y, a[3] = v - y;
    }
}

// Where elements 0, 1, ... of `lanes` sequences are, vector by vector.
template <class T>
struct Sequence {
    T *re, *im;

    Sequence operator+(int64_t offset) const { return {re + offset, im + offset}; }
};

template <class T, int R, int Sign, bool Twiddles>
FASTCONV_INLINE void butterflies(Sequence<const T> from, Sequence<T> to, int64_t n, int64_t m, const T* twiddle) {
    constexpr int L = lanes<T>;
    for (int64_t at = 0; at < n * L; at += R * m * L) {
        Complex<T> a[R];
#pragma GCC unroll 5
        for (int q = 0; q < R; ++q) {
            a[q] = {load(from.re + at + q * m * L), load(from.im + at + q * m * L)};
            if (Twiddles && Sign > 0 && q) a[q] = a[q].template turned<true>(twiddle[2 * q - 2], twiddle[2 * q - 1]);
        }
        butterfly<T, R, Sign>(a);
#pragma GCC unroll 5
        for (int q = 0; q < R; ++q) {
            if (Twiddles && Sign < 0 && q) a[q] = a[q].template turned<false>(twiddle[2 * q - 2], twiddle[2 * q - 1]);
            store(to.re + at + q * m * L, a[q].re);
            store(to.im + at + q * m * L, a[q].im);
        }
    }
}

// One stage, in place or from elsewhere; m: the distance of a butterfly's elements.
template <class T, int R, int Sign>
FASTCONV_NOINLINE void stage(Sequence<const T> from, Sequence<T> to, int64_t n, int64_t m, const T* twiddle) {
    butterflies<T, R, Sign, false>(from, to, n, m, twiddle);
    for (int64_t j = 1; j < m; ++j)
        butterflies<T, R, Sign, true>(from + j * lanes<T>, to + j * lanes<T>, n, m, twiddle + j * 2 * (R - 1));
}

template <class T, int Sign>
FASTCONV_INLINE void any_stage(int radix, Sequence<const T> from, Sequence<T> to, int64_t n, int64_t m, const T* twiddle) {
    switch (radix) {
        case 2: return stage<T, 2, Sign>(from, to, n, m, twiddle);
        case 3: return stage<T, 3, Sign>(from, to, n, m, twiddle);
        case 4: return stage<T, 4, Sign>(from, to, n, m, twiddle);
        default: return stage<T, 5, Sign>(from, to, n, m, twiddle);
    }
}

// Whether n vectors, real and imaginary, leave room in L1 for what else passes through it.
template <class T>
constexpr bool stays_in_l1(int64_t n) {
    return n * 2 * vector_bytes <= 24 << 10;
}

// The stages from `first` on, of sequences of n elements; the first stage may take them from elsewhere.
template <class T>
void fft_forward(const Radices& r, const T* twiddle, Sequence<const T> from, Sequence<T> to, int64_t n, int first = 0) {
    int64_t m = n;
    for (int s = first; s < r.count; ++s) {
        const int radix = r.of[s];
        m /= radix;
        any_stage<T, -1>(radix, from, to, n, m, twiddle);
        from = {to.re, to.im};
        if (m > 1) twiddle += 2 * m * (radix - 1);
        if (m == 1 || stays_in_l1<T>(n)) continue;
        for (int q = 0; q < radix; ++q) fft_forward(r, twiddle, from + q * m * lanes<T>, to + q * m * lanes<T>, m, s + 1);
        return;
    }
}

template <class T>
void fft_forward(const Radices& r, const T* twiddle, T* re, T* im) {
    fft_forward<T>(r, twiddle, {re, im}, {re, im}, r.n);
}

// The same backwards, where the last stage may leave them elsewhere; twiddle: of stage `first`.
template <class T>
void fft_inverse_at_once(const Radices& r, const T* twiddle, Sequence<T> from, Sequence<T> to, int64_t n, int first) {
    int64_t m = n;
    for (int s = first; s < r.count; ++s) {
        m /= r.of[s];
        if (m > 1) twiddle += 2 * m * (r.of[s] - 1);
    }
    for (int s = r.count - 1; s >= first; --s) {
        if (m > 1) twiddle -= 2 * m * (r.of[s] - 1);
        any_stage<T, 1>(r.of[s], {from.re, from.im}, s == first ? to : from, n, m, twiddle);
        m *= r.of[s];
    }
}

template <class T>
void fft_inverse(const Radices& r, const T* twiddle, Sequence<T> from, Sequence<T> to, int64_t n, int first = 0) {
    if (first == r.count) return;
    const int radix = r.of[first];
    const int64_t m = n / radix;
    const T* next = m > 1 ? twiddle + 2 * m * (radix - 1) : twiddle;
    if (stays_in_l1<T>(n)) return fft_inverse_at_once(r, twiddle, from, to, n, first);
    for (int q = 0; q < radix; ++q) {
        const Sequence<T> part = from + q * m * lanes<T>;
        fft_inverse(r, next, part, part, m, first + 1);
    }
    any_stage<T, 1>(radix, {from.re, from.im}, to, n, m, twiddle);
}

template <class T>
void fft_inverse(const Radices& r, const T* twiddle, T* re, T* im) {
    fft_inverse<T>(r, twiddle, {re, im}, {re, im}, r.n);
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
