// exp, tanh, erf and the activations on vectors, within 4 ulp in float32 and float64, denormal results included; NaN passes through and
// infinities give the limits: no formula multiplies one by 0. Methods: exp by Cody and Waite's reduction (Software Manual for the
// Elementary Functions, 1980); tanh through exp - 1; the normal distribution's tail by Shepherd and Laframboise (1981). minimax.py makes
// the coefficients.
//
// A value has the same bits in every lane, loop and function that inlines these: what is fused is written as `madd`, and no other
// product is part of a sum, or it is `rounded`.
#pragma once
#include <limits>

#include "abi.hpp"
#include "piecewise.hpp"
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
// x86's instructions for the larger and the smaller return the second of two where one is NaN: x.
template <class T>
FASTCONV_INLINE Vec<T> at_least(T least, Vec<T> x) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_maskz_max_ps(__mmask16(-1), broadcast(least), x);
    else return _mm512_maskz_max_pd(__mmask8(-1), broadcast(least), x);
#elif defined(__AVX__)
    if constexpr (sizeof(T) == 4) return _mm256_max_ps(broadcast(least), x);
    else return _mm256_max_pd(broadcast(least), x);
#else
    return x < broadcast(least) ? broadcast(least) : x;
#endif
}
template <class T>
FASTCONV_INLINE Vec<T> at_most(T most, Vec<T> x) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_maskz_min_ps(__mmask16(-1), broadcast(most), x);
    else return _mm512_maskz_min_pd(__mmask8(-1), broadcast(most), x);
#elif defined(__AVX__)
    if constexpr (sizeof(T) == 4) return _mm256_min_ps(broadcast(most), x);
    else return _mm256_min_pd(broadcast(most), x);
#else
    return x > broadcast(most) ? broadcast(most) : x;
#endif
}

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

// ---- the activations and their derivatives

// factor / (1 + exp(-x)), |x| <= -deepest, e = exp(-|x|); for x < 0 factor e / (1 + e), of which no part underflows but the result
template <class T>
FASTCONV_INLINE Vec<T> times_logistic(Vec<T> factor, Vec<T> x, const Exponential<T>& e) {
    const Vec<T> zero{}, one = broadcast(T(1));
    return scaled<T>((x < zero ? e.times(factor) : factor) / (one + e.whole()), x < zero ? e.power : zero);
}

template <class T>
FASTCONV_INLINE Vec<T> bounded(Vec<T> x) {
    return at_least(Numbers<T>::deepest, at_most(-Numbers<T>::deepest, x));
}

// e = exp(-|x|), and 1 / (1 + e): the logistic function is one of its products with 1 and e, 1 - it is the other
template <class T>
struct Logistic {
    Vec<T> e, inverse;
    FASTCONV_INLINE explicit Logistic(Vec<T> x)
        : e(Exponential<T>(less_magnitude<T>(x)).whole()), inverse(broadcast(T(1)) / (broadcast(T(1)) + e)) {}
    FASTCONV_INLINE Vec<T> slope() const { return e * inverse * inverse; }
};

// 2 sqrt(2/pi) (x + 0.044715 x³) and its error: as above, exp makes errors large. |x| <= farthest
template <class T>
FASTCONV_INLINE Vec<T> gelu_argument(Vec<T> x, Vec<T>& correction) {
    typedef Numbers<T> N;
    const Vec<T> one = broadcast(T(1)), c = broadcast(N::cube), scale = broadcast(N::tanh_scale);
    const Vec<T> square = rounded(x * x), square_error = product_error<T>(x, x, square);
    const Vec<T> cube = rounded(square * c);
    const Vec<T> cube_error = madd<T>(square_error, c, madd<T>(square, broadcast(N::cube_low), product_error<T>(square, c, cube)));
    const Vec<T> inner = one + cube, back = inner - cube;  // two-sum (Knuth)
    const Vec<T> inner_error = ((one - back) + (cube - (inner - back))) + cube_error;
    const Vec<T> scaled_x = rounded(x * scale);
    const Vec<T> x_error = madd<T>(x, broadcast(N::tanh_scale_low), product_error<T>(x, scale, scaled_x));
    const Vec<T> u = rounded(scaled_x * inner);
    correction = madd<T>(x_error, inner, madd<T>(scaled_x, inner_error, product_error<T>(scaled_x, inner, u)));
    return u;
}

// The formulas of what takes an exponential: value(x) and derivative(x)
template <Activation A, class T>
struct Formula;

template <class T>
struct Formula<Activation::sigmoid, T> {
    static FASTCONV_INLINE Vec<T> value(Vec<T> x) {
        x = bounded<T>(x);
        return times_logistic<T>(broadcast(T(1)), x, Exponential<T>(less_magnitude<T>(x)));
    }
    static FASTCONV_INLINE Vec<T> derivative(Vec<T> x) { return Logistic<T>(bounded<T>(x)).slope(); }
};

template <class T>
struct Formula<Activation::tanh, T> {
    static FASTCONV_INLINE Vec<T> value(Vec<T> x) { return fastconv::FASTCONV_ISA::tanh<T>(x); }
    static FASTCONV_INLINE Vec<T> derivative(Vec<T> x) {  // 1 - tanh² = 4 e / (1 + e)², e = exp(-2|x|)
        return broadcast(T(4)) * Logistic<T>(bounded<T>(x + x)).slope();
    }
};

template <class T>
struct Formula<Activation::silu, T> {
    static FASTCONV_INLINE Vec<T> value(Vec<T> x) {
        const Vec<T> lowest = at_least(Numbers<T>::deepest, x);
        return times_logistic<T>(lowest, lowest, Exponential<T>(at_least(Numbers<T>::deepest, less_magnitude<T>(lowest))));
    }
    static FASTCONV_INLINE Vec<T> derivative(Vec<T> x) {  // s (1 + x (1 - s))
        x = bounded<T>(x);
        const Logistic<T> of(x);
        const Vec<T> one = broadcast(T(1)), s = (x < Vec<T>{} ? of.e : one) * of.inverse, rest = (x < Vec<T>{} ? one : of.e) * of.inverse;
        return s * madd<T>(x, rest, one);
    }
};

template <class T>
struct Formula<Activation::gelu, T> {
    static FASTCONV_INLINE Vec<T> value(Vec<T> x) {
        const Vec<T> zero{}, a = at_most(Numbers<T>::farthest, magnitude<T>(x));
        const Tail<T> tail = normal_tail<T>(a);
        const Vec<T> high = with_sign<T>(madd<T>(-x, scaled<T>(tail.value, tail.power), x), x);  // -0 as it came
        return x < zero ? scaled<T>(-a * tail.value, tail.power) : x > broadcast(Numbers<T>::farthest) ? x : high;
    }
    static FASTCONV_INLINE Vec<T> derivative(Vec<T> x) {  // Phi + x phi
        x = at_least(-Numbers<T>::farthest, at_most(Numbers<T>::farthest, x));
        const Tail<T> of = normal_tail<T>(magnitude<T>(x));
        const Vec<T> tail = scaled<T>(of.value, of.power);
        const Vec<T> density = scaled<T>(of.exponential * broadcast(T(0.3989422804014327)), of.power);
        return madd<T>(x, density, x < Vec<T>{} ? tail : broadcast(T(1)) - tail);
    }
};

template <class T>
struct Formula<Activation::gelu_tanh, T> {  // x/2 (1 + tanh u) = x logistic(2u)
    static FASTCONV_INLINE Vec<T> value(Vec<T> x) {
        Vec<T> correction;
        const Vec<T> lowest = at_least(-Numbers<T>::farthest, x);
        const Vec<T> u = gelu_argument<T>(at_most(Numbers<T>::farthest, lowest), correction);
        const Vec<T> size = at_least(Numbers<T>::deepest, less_magnitude<T>(u));
        return times_logistic<T>(lowest, u, Exponential<T>(size, u < Vec<T>{} ? correction : -correction));
    }
    static FASTCONV_INLINE Vec<T> derivative(Vec<T> x) {  // s (1 + x (1 - s) (2u)')
        Vec<T> correction;
        x = at_least(-Numbers<T>::farthest, at_most(Numbers<T>::farthest, x));
        const Vec<T> u = gelu_argument<T>(x, correction), one = broadcast(T(1));
        const Logistic<T> of(bounded<T>(u));
        const Vec<T> s = (x < Vec<T>{} ? of.e : one) * of.inverse, rest = (x < Vec<T>{} ? one : of.e) * of.inverse;
        const Vec<T> slope = broadcast(Numbers<T>::tanh_scale) * madd<T>(rounded(x * x), broadcast(3 * Numbers<T>::cube), one);
        return s * madd<T>(rounded(x * rest), slope, one);
    }
};

// By name: value(x, slope) and derivative(x, slope); slope: leaky_relu's.
template <Activation A, class T>
struct Activated;

template <class T>
struct Activated<Activation::relu, T> {
    static FASTCONV_INLINE Vec<T> value(Vec<T> x, T) { return x < Vec<T>{} ? Vec<T>{} : x; }
    static FASTCONV_INLINE Vec<T> derivative(Vec<T> x, T) { return x <= Vec<T>{} ? Vec<T>{} : broadcast(T(1)); }
};

template <class T>
struct Activated<Activation::relu6, T> {
    static FASTCONV_INLINE Vec<T> value(Vec<T> x, T) { return at_most(T(6), x < Vec<T>{} ? Vec<T>{} : x); }
    static FASTCONV_INLINE Vec<T> derivative(Vec<T> x, T) {
        return (x <= Vec<T>{}) | (x >= broadcast(T(6))) ? Vec<T>{} : broadcast(T(1));
    }
};

template <class T>
struct Activated<Activation::leaky_relu, T> {
    static FASTCONV_INLINE Vec<T> value(Vec<T> x, T slope) { return x < Vec<T>{} ? x * broadcast(slope) : x; }
    static FASTCONV_INLINE Vec<T> derivative(Vec<T> x, T slope) { return x <= Vec<T>{} ? broadcast(slope) : broadcast(T(1)); }
};

template <class T>
struct Activated<Activation::hardswish, T> {
    static FASTCONV_INLINE Vec<T> value(Vec<T> x, T) {
        const Vec<T> three = broadcast(T(3)), part = at_most(T(6), at_least(T(0), x + three));
        return x > three ? x : at_least(T(-3), x) * (part / broadcast(T(6)));
    }
    static FASTCONV_INLINE Vec<T> derivative(Vec<T> x, T) {
        const Vec<T> three = broadcast(T(3)), half = broadcast(T(0.5));
        return x <= -three ? Vec<T>{} : x >= three ? broadcast(T(1)) : x / three + half;
    }
};

// The curved ones: by pieces near 0, where they are as good and faster (piecewise.hpp). A loop makes one of these first.
template <Activation A, bool Derivative, class T>
struct Curve {
    FASTCONV_INLINE Vec<T> operator()(Vec<T> x) const {
        if constexpr (Derivative) return Formula<A, T>::derivative(x);
        else return Formula<A, T>::value(x);
    }
};
#if defined(__AVX512F__)
template <Activation A, bool Derivative>
struct Curve<A, Derivative, float> {
    static constexpr Piecewise table() {
        switch (A) {
            case Activation::sigmoid: return Derivative ? Piecewise::d_sigmoid : Piecewise::sigmoid;
            case Activation::silu: return Derivative ? Piecewise::d_silu : Piecewise::sigmoid;
            case Activation::tanh: return Derivative ? Piecewise::d_tanh : Piecewise::tanh;
            case Activation::gelu: return Derivative ? Piecewise::d_gelu : Piecewise::gelu;
            default: return Derivative ? Piecewise::d_gelu_tanh : Piecewise::gelu_tanh;
        }
    }
    const Lookup lookup{table()};

    FASTCONV_INLINE Vec<float> operator()(Vec<float> x) const {
        const auto near = [](Vec<float> v, Vec<float> f) __attribute__((always_inline)) {
            if constexpr (A == Activation::tanh) return Derivative ? f : v * f;
            else if constexpr (A == Activation::sigmoid) return Derivative ? f : one_less(v, f);
            else return Derivative ? one_less(v, f) : x_less(v, f);
        };
        return lookup.by_pieces(x, near, [](Vec<float> v) __attribute__((always_inline)) {
            if constexpr (Derivative) return Formula<A, float>::derivative(v);
            else return Formula<A, float>::value(v);
        });
    }
};
#endif
template <Activation A, class T>
struct Curved {
    static FASTCONV_INLINE Vec<T> value(Vec<T> x, T) { return Curve<A, false, T>{}(x); }
    static FASTCONV_INLINE Vec<T> derivative(Vec<T> x, T) { return Curve<A, true, T>{}(x); }
};
template <class T>
struct Activated<Activation::sigmoid, T> : Curved<Activation::sigmoid, T> {};
template <class T>
struct Activated<Activation::tanh, T> : Curved<Activation::tanh, T> {};
template <class T>
struct Activated<Activation::silu, T> : Curved<Activation::silu, T> {};
template <class T>
struct Activated<Activation::gelu, T> : Curved<Activation::gelu, T> {};
template <class T>
struct Activated<Activation::gelu_tanh, T> : Curved<Activation::gelu_tanh, T> {};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
