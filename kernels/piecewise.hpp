// Smooth functions of |x| as polynomials of degree 5 or 6 on 16 intervals, whose coefficients are looked up in registers: no exp, no
// division, 10 to 12 cycles for 16 floats instead of 20 (sigmoid) and 50 (gelu). AVX-512 and float only: there a table of 16 is one
// register, and one instruction looks up 16 lanes. piecewise.cpp makes the tables.
//
//   |x| = k step + d,  |d| <= step / 2:   f(|x|) = sum of c_i[k] d^i
//
// Bottleneck (Zen 4): look-ups and multiply-adds have three pipes for their 512 bits between them, 4/3 cycles for one of each. So steps are
// powers of two: what rounds |x| to one and takes it off are sums, which have pipes of their own.
//
// What is far has other formulas (activations.hpp). Which one a lane takes depends on that lane alone.
#pragma once
#include <limits>

#include "simd.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// Of x >= 0, S the logistic function, P the normal distribution's: what is 1 or x at infinity is known by what it lacks there.
enum class Piecewise { sigmoid, gelu, gelu_tanh, tanh, d_sigmoid, d_tanh, d_gelu, d_gelu_tanh, d_silu, tables };

struct Pieces {
    static constexpr int most_degree = 6, count = 16;
    float shift, limit;  // added, `shift` rounds to a multiple of the step, whose number is the lower bits
    alignas(64) float coefficient[most_degree + 1][count];
};

// How many terms leave an error below half a unit in the last place with the steps of piecewise.cpp.
constexpr int degree_of(Piecewise which) {
    switch (which) {
        case Piecewise::sigmoid: case Piecewise::d_sigmoid: case Piecewise::d_silu: case Piecewise::d_tanh: return 5;
        default: return 6;
    }
}

#if defined(__AVX512F__)
extern const Pieces* const pieces;  // by Piecewise

template <class T>
constexpr bool has_pieces = sizeof(T) == 4;

// A table in registers, once it is a local variable of a loop.
template <Piecewise Which>
struct Lookup {
    static constexpr int last = degree_of(Which);
    Vec<float> of[last + 1];
    Vec<float> shift, limit;

    FASTCONV_INLINE Lookup() {
        const Pieces& table = pieces[int(Which)];
#pragma GCC unroll 8
        for (int i = 0; i <= last; ++i) of[i] = load(table.coefficient[i]);
        shift = broadcast(table.shift), limit = broadcast(table.limit);
    }
    // f(a), a >= 0
    FASTCONV_INLINE Vec<float> operator()(Vec<float> a) const {
        const Vec<float> at = a + shift, d = a - (at - shift);
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
