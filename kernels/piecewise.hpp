// Smooth functions of |x| as polynomials of degree 5 or 6 on 16 intervals, whose coefficients are looked up in registers: no exp, no
// division, 10 to 12 cycles for 16 floats instead of 20 (sigmoid) and 50 (gelu). AVX-512 and float only: there a table of 16 is one
// register, and one instruction looks up 16 lanes. piecewise.cpp makes the tables.
//
//   |x| = k step + d,  |d| <= step / 2:   f(|x|) = sum of c_i[k] d^i
//
// Bottleneck (Zen 4): look-ups and multiply-adds have three pipes for their 512 bits between them, 4/3 cycles for one of each. So steps are
// powers of two where they may be: what rounds |x| to one and takes it off are sums, which have pipes of their own.
//
// What is beyond the 16 intervals is looked up in 16 more, from memory, where those are as good; what is far has other formulas
// (activations.hpp). Which one a lane takes depends on that lane alone.
#pragma once
#include <limits>

#include "simd.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// Of x >= 0, S the logistic function, P the normal distribution's: what is 1 or x at infinity is known by what it lacks there.
enum class Piecewise { sigmoid, gelu, gelu_tanh, tanh, d_sigmoid, d_tanh, d_gelu, d_gelu_tanh, d_silu, tables };

struct Pieces {
    static constexpr int most_degree = 6, count = 16;
    alignas(64) float coefficient[2][most_degree + 1][count];
};

// How wide intervals are, with how many terms: as wide, and as few, as leave an error below half a unit in the last place.
constexpr float step_of(Piecewise which) {
    switch (which) {
        case Piecewise::gelu: case Piecewise::d_gelu: return 0.28f;
        case Piecewise::gelu_tanh: case Piecewise::d_gelu_tanh: case Piecewise::d_tanh: return 0.25f;
        default: return 0.5f;
    }
}
constexpr int degree_of(Piecewise which) {
    switch (which) {
        case Piecewise::sigmoid: case Piecewise::d_sigmoid: case Piecewise::d_silu: case Piecewise::d_tanh: return 5;
        default: return 6;
    }
}
// Not the normal distribution's, which falls ever more steeply.
constexpr bool goes_twice_as_far(Piecewise which) {
    return degree_of(which) == 5 || which == Piecewise::tanh;
}

#if defined(__AVX512F__)
extern const Pieces* const pieces;  // by Piecewise

template <class T>
constexpr bool has_pieces = sizeof(T) == 4;

// A table in registers, once it is a local variable of a loop.
template <Piecewise Which>
struct Lookup {
    static constexpr int last = degree_of(Which);
    static constexpr float step = step_of(Which);
    static constexpr bool power_of_two = step == 0.25f || step == 0.5f, twice = goes_twice_as_far(Which);
    typedef Vec<float> Coefficients[last + 1];
    Coefficients of;

    FASTCONV_INLINE Lookup() { read(of, 0); }

    // near(x, f(|x|)) where |x| is below the limit, else far(x)
    template <class Near, class Far>
    FASTCONV_INLINE Vec<float> by_pieces(Vec<float> x, const Near& near, const Far& far) const {
        const Vec<float> a = Vec<float>(__m512i(x) & _mm512_set1_epi32(0x7fffffff));
        Vec<float> at, d;  // the interval's number is in the lowest bits of `at`
        if constexpr (power_of_two) {
            const Vec<float> shift = broadcast(0x1.8p23f * step);  // added, it rounds to a multiple of the step
            at = a + shift, d = a - (at - shift);
        } else {
            const Vec<float> shift = broadcast(0x1.8p23f);
            at = _mm512_fmadd_ps(a, broadcast(1 / step), shift), d = _mm512_fnmadd_ps(at - shift, broadcast(step), a);
        }
        Vec<float> y = near(x, polynomial(of, at, d));
        __mmask16 beyond = above(a, (twice ? 15.5f : 15.25f) * step);
        if (__builtin_expect(beyond, 0)) {
            if constexpr (twice) {
                Coefficients more;
                read(more, 1);
                y = _mm512_mask_blend_ps(beyond, y, near(x, polynomial(more, at, d)));
                beyond = above(a, 31.25f * step);
            }
            if (beyond) y = _mm512_mask_blend_ps(beyond, y, far(x));
        }
        return y;
    }

   private:
    static FASTCONV_INLINE void read(Coefficients& to, int half) {
#pragma GCC unroll 8
        for (int i = 0; i <= last; ++i) to[i] = load(pieces[int(Which)].coefficient[half][i]);
    }
    static FASTCONV_INLINE __mmask16 above(Vec<float> a, float limit) {  // or NaN
        return _mm512_cmp_ps_mask(a, broadcast(limit), _CMP_NLT_UQ);
    }
    static FASTCONV_INLINE Vec<float> polynomial(const Coefficients& c, Vec<float> at, Vec<float> d) {
        const auto look_up = [&](int i) __attribute__((always_inline)) {
            return _mm512_maskz_permutexvar_ps(0xffff, __m512i(at), c[i]);
        };
        Vec<float> sum = look_up(last);
#pragma GCC unroll 8
        for (int i = last - 1; i >= 0; --i) sum = _mm512_fmadd_ps(sum, d, look_up(i));
        return sum;
    }
};

FASTCONV_INLINE __mmask16 without_sign(Vec<float> x) {
    return _mm512_testn_epi32_mask(__m512i(x), _mm512_set1_epi32(std::numeric_limits<int>::min()));
}
// f(x) = 1 - f(-x)
FASTCONV_INLINE Vec<float> one_less(Vec<float> x, Vec<float> f) {
    return _mm512_mask_sub_ps(f, without_sign(x), broadcast(1.0f), f);
}
// x f(x), which is x - (-x) f(-x); zeros keep their signs
FASTCONV_INLINE Vec<float> x_less(Vec<float> x, Vec<float> f) {
    const Vec<float> part = x * f;
    return _mm512_mask_sub_ps(part, without_sign(x), x, part);
}
#else
template <class T>
constexpr bool has_pieces = false;
#endif

}  // namespace FASTCONV_ISA
}  // namespace fastconv
