// The end of act(conv + bias + residual): residual and activation. The bias is where the sums start, so it costs nothing.
// Activations are within 4 ulp: float32 through double, double through long double where the exponent's rounding would be
// amplified. NaN passes through: comparisons are written so that they are false for it. Infinities give the limits: no formula
// multiplies one by 0.
#pragma once
#include <cmath>
#include <limits>

#include "abi.hpp"
#include "simd.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <class T>
using Wide = std::conditional_t<sizeof(T) == 4, double, long double>;

template <class T>
FASTCONV_INLINE Wide<T> logistic(Wide<T> x) {
    Wide<T> e = std::exp(-std::fabs(x));
    return (x < 0 ? e : Wide<T>(1)) / (1 + e);
}

template <class T>
FASTCONV_NOINLINE T wide_activation(Activation activation, T value, double parameter) {
    using W = Wide<T>;
    constexpr W sqrt_half = W(0.707106781186547524400844362104849L), tanh_scale = W(1.59576912160573071175978423973753L);
    if (activation == Activation::leaky_relu) return value < 0 ? T(W(value) * W(parameter)) : value;
    const W x = value < -1000 ? W(-1000) : W(value);  // down there every one is what it is at -1000: -1, 0 or -0 in T
    switch (activation) {
        case Activation::sigmoid: return T(logistic<T>(x));
        case Activation::tanh: return T(std::tanh(x));
        case Activation::gelu: return T(W(0.5) * x * std::erfc(-x * sqrt_half));
        case Activation::gelu_tanh: return T(x * logistic<T>(tanh_scale * (x + W(0.044715L) * x * x * x)));
        case Activation::silu: return T(x * logistic<T>(x));
        case Activation::hardswish: return x > 3 ? value : T(x * (x < -3 ? W(0) : x + 3) / 6);
        default: return value;
    }
}

template <class T>
class Epilogue {
   public:
    explicit Epilogue(const Problem& p)
        : activation_(p.activation), parameter_(p.activation_parameter), slope_(T(parameter_)), plain_slope_(std::isnormal(slope_)) {}

    // Nothing but a lower limit: x < least ? least : x, a comparison that keeps NaN.
    bool is_limit() const { return activation_ == Activation::none || activation_ == Activation::relu; }
    T least() const { return activation_ == Activation::relu ? T(0) : -std::numeric_limits<T>::infinity(); }

    FASTCONV_INLINE Vec<T> operator()(Vec<T> x) const {
        const Vec<T> zero{};
        switch (activation_) {
            case Activation::none: return x;
            case Activation::relu: return x < zero ? zero : x;
            case Activation::relu6: {
                const Vec<T> six = broadcast(T(6));
                x = x < zero ? zero : x;
                return x > six ? six : x;
            }
            case Activation::leaky_relu:
                if (plain_slope_) return x < zero ? x * broadcast(slope_) : x;
                return by_lane(x);
            default: return by_lane(x);
        }
    }

    FASTCONV_INLINE T operator()(T x) const {
        switch (activation_) {
            case Activation::none: return x;
            case Activation::relu: return x < 0 ? T(0) : x;
            case Activation::relu6: return x < 0 ? T(0) : x > 6 ? T(6) : x;
            case Activation::leaky_relu:
                if (plain_slope_) return x < 0 ? x * slope_ : x;
                return wide_activation(activation_, x, parameter_);
            default: return wide_activation(activation_, x, parameter_);
        }
    }

   private:
    FASTCONV_NOINLINE Vec<T> by_lane(Vec<T> x) const {
        T values[lanes<T>];
        store(values, x);
        for (T& value : values) value = wide_activation(activation_, value, parameter_);
        return load(values);
    }

    Activation activation_;
    double parameter_;
    T slope_;
    bool plain_slope_;  // in T, the slope is as exact as any: neither 0, nor denormal (which may be flushed), nor infinite
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
