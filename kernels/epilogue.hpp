// The end of act(conv + bias + residual): residual and activation. The bias is where the sums start, so it costs nothing.
// The functions are those of activations.hpp; a single value goes through a vector, too, so that it has the bits of any lane.
#pragma once
#include <cmath>
#include <limits>

#include "abi.hpp"
#include "activations.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// leaky_relu with a slope that T cannot hold: the product is rounded once, from more digits.
template <class T>
FASTCONV_NOINLINE Vec<T> leak_exactly(Vec<T> x, double slope) {
    typedef std::conditional_t<sizeof(T) == 4, double, long double> Wide;
    T values[lanes<T>];
    store(values, x);
    for (T& value : values) value = value < 0 ? T(Wide(value) * Wide(slope)) : value;
    return load(values);
}

template <class T>
class Epilogue {
   public:
    explicit Epilogue(const Problem& p)
        : activation_(p.activation), parameter_(p.activation_parameter), slope_(T(parameter_)), plain_slope_(std::isnormal(slope_)) {}

    // Nothing but limits, if any: see Limited.
    bool is_limit() const { return is_lower_limit() || activation_ == Activation::relu6; }
    T least() const { return activation_ == Activation::none ? -std::numeric_limits<T>::infinity() : T(0); }
    T most() const { return activation_ == Activation::relu6 ? T(6) : std::numeric_limits<T>::infinity(); }

    FASTCONV_INLINE Vec<T> operator()(Vec<T> x) const {
        switch (activation_) {
            case Activation::none: return x;
            case Activation::relu: return Activated<Activation::relu, T>::value(x, slope_);
            case Activation::relu6: return Activated<Activation::relu6, T>::value(x, slope_);
            case Activation::leaky_relu:
                if (plain_slope_) return Activated<Activation::leaky_relu, T>::value(x, slope_);
                return leak_exactly<T>(x, parameter_);
            default: return curved(x);
        }
    }

    FASTCONV_INLINE T operator()(T x) const {
        if (is_lower_limit()) return x < least() ? least() : x;
        return (*this)(broadcast(x))[0];
    }

   private:
    bool is_lower_limit() const { return activation_ == Activation::none || activation_ == Activation::relu; }

    // A function of its own, as its many constants would be loaded anew in every loop that has an epilogue.
    FASTCONV_NOINLINE Vec<T> curved(Vec<T> x) const {
        switch (activation_) {
#define FASTCONV_CASE(name) \
    case Activation::name: return Activated<Activation::name, T>::value(x, slope_)
            FASTCONV_CASE(sigmoid);
            FASTCONV_CASE(tanh);
            FASTCONV_CASE(gelu);
            FASTCONV_CASE(gelu_tanh);
            FASTCONV_CASE(silu);
            FASTCONV_CASE(hardswish);
#undef FASTCONV_CASE
            default: return x;
        }
    }

    Activation activation_;
    double parameter_;
    T slope_;
    bool plain_slope_;  // in T, the slope is as exact as any: neither 0, nor denormal (which may be flushed), nor infinite
};

// The epilogue where it is_limit(), for sums in registers: relu6 and what has one limit or none, by comparisons that keep NaN.
template <class T, int N = lanes<T>>
struct Limited {
    const Vec<T, N> least, most;

    FASTCONV_INLINE Limited(T least_, T most_) : least(broadcast<T, N>(least_)), most(broadcast<T, N>(most_)) {}
    FASTCONV_INLINE explicit Limited(const Epilogue<T>& epilogue) : Limited(epilogue.least(), epilogue.most()) {}
    FASTCONV_INLINE Vec<T, N> operator()(Vec<T, N> x) const {
        x = x < least ? least : x;
        return most < x ? most : x;
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
