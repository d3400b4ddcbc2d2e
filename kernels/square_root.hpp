// The square root of vectors.
#pragma once
#include <cmath>

#include "simd.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <class T>
FASTCONV_INLINE Vec<T> square_root(Vec<T> v) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_mask_sqrt_ps(v, 0xffff, v);  // plainly, gcc 12 warns of its own header
    else return _mm512_mask_sqrt_pd(v, 0xff, v);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return _mm256_sqrt_ps(v);
    else return _mm256_sqrt_pd(v);
#else
    for (int l = 0; l < lanes<T>; ++l) v[l] = std::sqrt(v[l]);
    return v;
#endif
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
