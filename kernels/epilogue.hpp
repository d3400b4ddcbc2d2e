// The end of act(conv + bias + residual): residual and activation. The bias is where the sums start, so it costs nothing.
// Activations are within 4 ulp: float32 through double, double through long double where the exponent's rounding would be
// amplified. NaN passes through: comparisons are written so that they are false for it.
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
FASTCONV_NOINLINE T smooth_activation(Activation activation, T value) {
    using W = Wide<T>;
    constexpr W sqrt_half = W(0.707106781186547524400844362104849L), tanh_scale = W(1.59576912160573071175978423973753L);
    W x = W(value);
    switch (activation) {
        case Activation::sigmoid: return T(logistic<T>(x));
        case Activation::tanh: return T(std::tanh(x));
        case Activation::gelu: return T(W(0.5) * x * std::erfc(-x * sqrt_half));
        case Activation::gelu_tanh: return T(x * logistic<T>(tanh_scale * (x + W(0.044715L) * x * x * x)));
        case Activation::silu: return T(x * logistic<T>(x));
        case Activation::hardswish: return T(x * (x < -3 ? W(0) : x > 3 ? W(6) : x + 3) / 6);
        default: return value;
    }
}

template <class T>
class Epilogue {
   public:
    explicit Epilogue(const Problem& p) : activation_(p.activation), slope_(T(p.activation_parameter)) {}

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
            case Activation::leaky_relu: return x < zero ? x * broadcast(slope_) : x;
            default: return smooth(x);
        }
    }

    FASTCONV_INLINE T operator()(T x) const {
        switch (activation_) {
            case Activation::none: return x;
            case Activation::relu: return x < 0 ? T(0) : x;
            case Activation::relu6: return x < 0 ? T(0) : x > 6 ? T(6) : x;
            case Activation::leaky_relu: return x < 0 ? x * slope_ : x;
            default: return smooth_activation(activation_, x);
        }
    }

   private:
    FASTCONV_NOINLINE Vec<T> smooth(Vec<T> x) const {
        T values[lanes<T>];
        store(values, x);
        for (T& value : values) value = smooth_activation(activation_, value);
        return load(values);
    }

    Activation activation_;
    T slope_;
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
