// The activations and their derivatives on vectors: values within 4 ulp, by the formulas of vector_math.hpp or by pieces.
#pragma once
#include "abi.hpp"
#include "piecewise.hpp"
#include "vector_math.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

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
    const Lookup<table()> lookup;

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
