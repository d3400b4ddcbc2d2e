// Smooth functions of |x| as polynomials of degree 6 on 16 intervals, whose coefficients are looked up in registers: no exp, no division,
// 11 cycles for 16 floats instead of 20 (sigmoid) and 50 (gelu). AVX-512 and float only: there a table of 16 is one register, and one
// instruction looks up 16 lanes. piecewise.cpp makes the tables.
//
//   |x| = k step + d,  |d| <= step / 2:   f(|x|) = sum of c_i[k] d^i
//
// What is far has other formulas (activations.hpp). Which one a lane takes depends on that lane alone.
#pragma once
#include "simd.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// Of x >= 0, S the logistic function, P the normal distribution's: what is 1 or x at infinity is known by what it lacks there.
enum class Piecewise { sigmoid, gelu, gelu_tanh, tanh, d_sigmoid, d_tanh, d_gelu, d_gelu_tanh, d_silu, tables };

struct Pieces {
    static constexpr int degree = 6, count = 16;
    float step, per_step, limit;
    alignas(64) float coefficient[degree + 1][count];
};

#if defined(__AVX512F__)
extern const Pieces* const pieces;  // by Piecewise

template <class T>
constexpr bool has_pieces = sizeof(T) == 4;

// A table in registers, once it is a local variable of a loop.
struct Lookup {
    static constexpr int last = Pieces::degree;
    Vec<float> of[last + 1];
    Vec<float> step, per_step, limit;

    FASTCONV_INLINE explicit Lookup(Piecewise which) {
        const Pieces& table = pieces[int(which)];
#pragma GCC unroll 8
        for (int i = 0; i <= last; ++i) of[i] = load(table.coefficient[i]);
        step = broadcast(table.step), per_step = broadcast(table.per_step), limit = broadcast(table.limit);
    }
    // f(a), a >= 0
    FASTCONV_INLINE Vec<float> operator()(Vec<float> a) const {
        const Vec<float> shift = broadcast(0x1.8p23f);  // added, it rounds to an integer, which is the lower bits
        const Vec<float> at = _mm512_fmadd_ps(a, per_step, shift), d = _mm512_fnmadd_ps(at - shift, step, a);
        Vec<float> sum = coefficient(last, at);
#pragma GCC unroll 8
        for (int i = last - 1; i >= 0; --i) sum = _mm512_fmadd_ps(sum, d, coefficient(i, at));
        return sum;
    }
    // near(x, f(|x|)) where |x| is below the limit, else far(x)
    template <class Near, class Far>
    FASTCONV_INLINE Vec<float> by_pieces(Vec<float> x, const Near& near, const Far& far) const {
        const Vec<float> a = Vec<float>(__m512i(x) & _mm512_set1_epi32(0x7fffffff)), y = near(x, (*this)(a));
        const __mmask16 beyond = _mm512_cmp_ps_mask(a, limit, _CMP_NLT_UQ);  // NaN is
        if (__builtin_expect(beyond, 0)) return _mm512_mask_blend_ps(beyond, y, far(x));
        return y;
    }

   private:
    FASTCONV_INLINE Vec<float> coefficient(int i, Vec<float> at) const {
        return _mm512_maskz_permutexvar_ps(0xffff, __m512i(at), of[i]);
    }
};

// f(x) = 1 - f(-x)
FASTCONV_INLINE Vec<float> one_less(Vec<float> x, Vec<float> f) {
    return _mm512_mask_sub_ps(f, _mm512_knot(_mm512_movepi32_mask(__m512i(x))), broadcast(1.0f), f);
}
// x f(x), which is x - (-x) f(-x); zeros keep their signs
FASTCONV_INLINE Vec<float> x_less(Vec<float> x, Vec<float> f) {
    const Vec<float> part = x * f;
    return _mm512_mask_sub_ps(part, _mm512_knot(_mm512_movepi32_mask(__m512i(x))), x, part);
}
#else
template <class T>
constexpr bool has_pieces = false;
#endif

}  // namespace FASTCONV_ISA
}  // namespace fastconv
