// exp, tanh and erf on vectors, within 4 ulp in float32 and float64, denormal results included; NaN passes through and
// infinities give the limits: no formula multiplies one by 0. Methods: exp by Cody and Waite's reduction (Software Manual for the
// Elementary Functions, 1980); tanh through exp - 1; the normal distribution's tail by Shepherd and Laframboise (1981). minimax.py makes
// the coefficients.
//
// A value has the same bits in every lane, loop and function that inlines these: what is fused is written as `madd`, and no other
// product is part of a sum, or it is `rounded`.
#pragma once
#include <limits>

#include "simd.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

#if defined(__FMA__) || defined(__aarch64__)
constexpr bool fuses = true;
#else
constexpr bool fuses = false;
#endif

template <class T>
using Mask = typename VectorOf<T>::mask;

// a b + c, rounded once where the ISA can
template <class T>
FASTCONV_INLINE Vec<T> madd(Vec<T> a, Vec<T> b, Vec<T> c) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_fmadd_ps(a, b, c);
    else return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
    if constexpr (sizeof(T) == 4) return _mm256_fmadd_ps(a, b, c);
    else return _mm256_fmadd_pd(a, b, c);
#elif defined(__aarch64__)
    return a * b + c;  // the compiler fuses
#else
    return rounded(a * b) + c;
#endif
}

// What rounding took from a product; without FMA by Dekker (1971), for factors that do not overflow when split.
template <class T>
FASTCONV_INLINE Vec<T> product_error(Vec<T> a, Vec<T> b, Vec<T> product) {
    if constexpr (fuses) return madd<T>(a, b, -product);
    const auto high = [](Vec<T> x) {
        const Vec<T> t = broadcast(T(sizeof(T) == 4 ? 4097.0 : 134217729.0)) * x;  // 2^12 + 1, 2^27 + 1
        return t - (t - x);
    };
    const Vec<T> ah = high(a), bh = high(b), al = a - ah, bl = b - bh;
    return ((ah * bh - product) + ah * bl + al * bh) + al * bl;
}

// above - quotient below, what a division left
template <class T>
FASTCONV_INLINE Vec<T> quotient_error(Vec<T> quotient, Vec<T> below, Vec<T> above) {
    if constexpr (fuses) return madd<T>(-quotient, below, above);
    const Vec<T> product = rounded(quotient * below);
    return (above - product) - product_error<T>(quotient, below, product);
}

template <class T>
struct Numbers;

template <>
struct Numbers<float> {
    static constexpr int mantissa = 23;
    static constexpr float bias = 127, round = 0x1.8p23f;  // added and taken off, it rounds to an integer
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;  // n ln2_high is exact for every exponent n
    static constexpr float overflow = 89, underflow = -104;
    static constexpr float deepest = -120, farthest = 15, straight = 10;  // beyond: silu is -0, gelu -0 or x, tanh 1
    static constexpr float tanh_scale = 1.59576917f, tanh_scale_low = -4.72638995e-8f, cube = 0.0447149985f, cube_low = 1.52558098e-9f;
    static constexpr float exponential[] = {
        0.5f, 0.166665778f, 0.0416667536f, 0.00836311933f, 0.00139063515f};
    static constexpr float tail_shift = 3;
    static constexpr float tail[] = {
        0.121513948f, -0.0848886967f, 0.0383362956f, -0.00787631702f, -0.00174375717f, 0.00115602138f,
        0.000169370353f, -0.000157536255f, -3.36345183e-5f, 8.75553542e-6f};
    static constexpr float erf[] = {
        1.12837911f, -0.37612465f, 0.112823293f, -0.0268115588f, 0.00511896564f, -0.000746214646f, 6.18492777e-5f};
};

template <>
struct Numbers<double> {
    static constexpr int mantissa = 52;
    static constexpr double bias = 1023, round = 0x1.8p52;
    static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
    static constexpr double overflow = 710, underflow = -746;
    static constexpr double deepest = -800, farthest = 40, straight = 20;
    static constexpr double tanh_scale = 1.5957691216057308, tanh_scale_low = -9.96930880911092e-17;
    static constexpr double cube = 0.044715, cube_low = 2.1960211427085595e-18;
    static constexpr double exponential[] = {
        0.50000000000000011, 0.16666666666666641, 0.041666666666623074, 0.0083333333333596559,
        0.0013888888917564786, 0.00019841269774498088, 2.4801520859085156e-5, 2.7557366578396638e-6,
        2.7620269384404851e-7, 2.5064153471455625e-8};
    static constexpr double tail_shift = 4;
    static constexpr double tail[] = {
        0.094410641301968939, -0.07598708024648651, 0.048392175092777004, -0.023315232244957688,
        0.0075495718613448944, -0.0009425236208190494, -0.00043496154534376693, 0.00020385230685546186,
        1.6668032038419999e-5, -2.8886864400614798e-5, -2.3848457077233894e-7, 4.3930776429611159e-6,
        8.9383197214531807e-8, -7.4001984444574071e-7, -7.817518857028676e-8, 1.2776625300986566e-7,
        3.3049182130658722e-8, -1.961352413869735e-8, -9.6804502378436049e-9, 2.0347682264904929e-9,
        1.845441445566095e-9, -4.9893676082944952e-11, -1.5480317029795555e-10};
    static constexpr double erf[] = {
        1.1283791670955126, -0.37612638903183593, 0.11283791670950175, -0.026866170644414197,
        0.0052239776195820995, -0.00085483267246780521, 0.00012055322914597986, -1.4925418783178908e-5,
        1.6458424866986537e-6, -1.6325181825513775e-7, 1.4502790821419841e-8, -1.0805223664143399e-9,
        5.053669676823136e-11};
};

template <class T, size_t N>
FASTCONV_INLINE Vec<T> polynomial(Vec<T> x, const T (&coefficient)[N]) {
    Vec<T> sum = broadcast(coefficient[N - 1]);
#pragma GCC unroll 32
    for (int i = int(N) - 2; i >= 0; --i) sum = madd<T>(sum, x, broadcast(coefficient[i]));
    return sum;
}

template <class T>
FASTCONV_INLINE Vec<T> magnitude(Vec<T> x) {
    return Vec<T>(Mask<T>(x) & (Mask<T>{} + std::numeric_limits<typename VectorOf<T>::Int>::max()));
}
template <class T>
FASTCONV_INLINE Vec<T> less_magnitude(Vec<T> x) {  // -|x|
    return Vec<T>(Mask<T>(x) | (Mask<T>{} + std::numeric_limits<typename VectorOf<T>::Int>::min()));
}
template <class T>
FASTCONV_INLINE Vec<T> with_sign(Vec<T> size, Vec<T> of) {
    return Vec<T>(Mask<T>(size) | (Mask<T>(of) & (Mask<T>{} + std::numeric_limits<typename VectorOf<T>::Int>::min())));
}
// x86's instructions for the larger and the smaller return the second of two where one is NaN.
template <class T>
FASTCONV_INLINE Vec<T> larger(Vec<T> a, Vec<T> b) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_maskz_max_ps(__mmask16(-1), a, b);
    else return _mm512_maskz_max_pd(__mmask8(-1), a, b);
#elif defined(__AVX__)
    if constexpr (sizeof(T) == 4) return _mm256_max_ps(a, b);
    else return _mm256_max_pd(a, b);
#elif defined(__SSE2__)
    if constexpr (sizeof(T) == 4) return _mm_max_ps(a, b);
    else return _mm_max_pd(a, b);
#else
    return a > b ? a : b;
#endif
}
template <class T>
FASTCONV_INLINE Vec<T> smaller(Vec<T> a, Vec<T> b) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_maskz_min_ps(__mmask16(-1), a, b);
    else return _mm512_maskz_min_pd(__mmask8(-1), a, b);
#elif defined(__AVX__)
    if constexpr (sizeof(T) == 4) return _mm256_min_ps(a, b);
    else return _mm256_min_pd(a, b);
#elif defined(__SSE2__)
    if constexpr (sizeof(T) == 4) return _mm_min_ps(a, b);
    else return _mm_min_pd(a, b);
#else
    return a < b ? a : b;
#endif
}
template <class T>
FASTCONV_INLINE Vec<T> at_least(T least, Vec<T> x) { return larger<T>(broadcast(least), x); }
template <class T>
FASTCONV_INLINE Vec<T> at_most(T most, Vec<T> x) { return smaller<T>(broadcast(most), x); }

// 2^n for whole n, a normal number
template <class T>
FASTCONV_INLINE Vec<T> power_of_two(Vec<T> n) {
    return Vec<T>(Mask<T>(n + broadcast(Numbers<T>::round + Numbers<T>::bias)) << Numbers<T>::mantissa);
}

// v 2^n, rounded once, for whole n of twice the exponent's range
template <class T>
FASTCONV_INLINE Vec<T> scaled(Vec<T> v, Vec<T> n) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_maskz_scalef_ps(__mmask16(-1), v, n);  // gcc 12 warns of the unmasked one's own code
    else return _mm512_maskz_scalef_pd(__mmask8(-1), v, n);
#else
    const Vec<T> shift = broadcast(Numbers<T>::round), half = madd<T>(n, broadcast(T(0.5)), shift) - shift;
    return rounded(v * power_of_two<T>(half) * power_of_two<T>(n - half));
#endif
}

// x = power ln 2 + rest
template <class T>
FASTCONV_INLINE Vec<T> reduced(Vec<T> x, Vec<T>& power) {
    typedef Numbers<T> N;
    power = madd<T>(x, broadcast(T(1.4426950408889634)), broadcast(N::round)) - broadcast(N::round);
    return madd<T>(power, broadcast(-N::ln2_low), madd<T>(power, broadcast(-N::ln2_high), x));
}

// exp r - 1, |r| <= ln 2 / 2
template <class T>
FASTCONV_INLINE Vec<T> growth(Vec<T> r) {
    return madd<T>(rounded(r * r), polynomial<T>(r, Numbers<T>::exponential), r);
}

// exp(x + correction) = (1 + growth) 2^power, |growth| < 0.42: a product with it is rounded once if 1 + growth is not.
// x between twice the logarithms of the smallest and the largest number.
template <class T>
struct Exponential {
    Vec<T> growth, power;

    FASTCONV_INLINE explicit Exponential(Vec<T> x) { growth = fastconv::FASTCONV_ISA::growth<T>(reduced<T>(x, power)); }
    FASTCONV_INLINE Exponential(Vec<T> x, Vec<T> correction) {
        const Vec<T> rest = reduced<T>(x, power);
        growth = fastconv::FASTCONV_ISA::growth<T>(rest + correction);
    }
    FASTCONV_INLINE Vec<T> value() const { return growth + broadcast(T(1)); }
    FASTCONV_INLINE Vec<T> whole() const { return scaled<T>(value(), power); }
    FASTCONV_INLINE Vec<T> times(Vec<T> factor) const { return madd<T>(factor, growth, factor); }
};

template <class T>
FASTCONV_INLINE Vec<T> exp(Vec<T> x) {
    return Exponential<T>(at_least(Numbers<T>::underflow, at_most(Numbers<T>::overflow, x))).whole();
}

// (exp 2|x| - 1) / (exp 2|x| + 1): in exp - 1 nothing cancels that is not small.
template <class T>
FASTCONV_INLINE Vec<T> tanh(Vec<T> x) {
    Vec<T> power;
    const Vec<T> a = at_most(2 * Numbers<T>::straight, magnitude<T>(x + x)), q = growth<T>(reduced<T>(a, power));
    const Vec<T> scale = power_of_two<T>(power), less_one = madd<T>(scale, q, scale - broadcast(T(1)));
    return with_sign<T>(less_one / (less_one + broadcast(T(2))), x);
}

// The normal distribution's tail beyond a >= 0, and exp(-a²/2), which it is made of: both times 2^power.
template <class T>
struct Tail {
    Vec<T> value, exponential, power;
};

// exp(-a²/2) G(q) (1 - q), q = (a - k) / (a + k), 1 - q = 2k / (a + k): G is smooth and bounded. What rounding took from a² is kept, as
// exp makes it large, and what it took from 1 - q, as it would show in q and in the product. 0 <= a <= farthest
template <class T>
FASTCONV_INLINE Tail<T> normal_tail(Vec<T> a) {
    typedef Numbers<T> N;
    const Vec<T> half = broadcast(T(-0.5)), one = broadcast(T(1)), k = broadcast(N::tail_shift), k2 = broadcast(2 * N::tail_shift);
    const Vec<T> square = rounded(a * a), error = product_error<T>(a, a, square);
    const Exponential<T> e(square * half, rounded(error * half));
    const Vec<T> below = a + k, back = below - k, below_error = (a - back) + (k - (below - back));  // two-sum (Knuth)
    const Vec<T> w = k2 / below;
    const Vec<T> off = rounded(madd<T>(-w, below_error, quotient_error<T>(w, below, k2)) * broadcast(1 / (2 * N::tail_shift)));
    const Vec<T> smooth = polynomial<T>(madd<T>(-w, off, one - w), N::tail), product = rounded(smooth * w);
    const Vec<T> rest = madd<T>(product, madd<T>(off, e.value(), e.growth), product_error<T>(smooth, w, product));
    return {product + rest, e.value(), e.power};
}

template <class T>
FASTCONV_INLINE Vec<T> erf(Vec<T> x) {
    const Vec<T> a = magnitude<T>(x), one = broadcast(T(1));
    const Vec<T> small = a * polynomial<T>(a * a, Numbers<T>::erf);
    const Tail<T> tail = normal_tail<T>(at_most(Numbers<T>::farthest, a * broadcast(T(1.4142135623730951))));
    return with_sign<T>(a < one ? small : one - scaled<T>(tail.value + tail.value, tail.power), x);
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
