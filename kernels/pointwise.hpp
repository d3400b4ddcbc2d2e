// What the pointwise kernels have in common: how a call is shared, sums in double, stores past the caches; and the table of a module.
#pragma once
#include <algorithm>

#include "crew.hpp"
#include "pointwise_abi.hpp"
#include "vector_math.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

const Pointwise& pointwise();

// Denormals are kept: results do not depend on where they are computed.
inline Crew crew_of(const Team& team, double bytes, bool exponentials) {
    Crew crew;
    crew.parts = threads_for(exponentials ? 4 * bytes : bytes, worth_a_thread::pointwise, team.threads);
    crew.strict = true, crew.memory = static_cast<char*>(team.workspace);
    crew.parallel_for = team.parallel_for, crew.interrupt = team.interrupt;
    return crew;
}

// Whether a result is best written past the caches: nobody finds it there anyway, and a line that is written whole need not be read
// first. From three quarters of an L3 on, as glibc's memcpy does it; before, it is slower and the next reader finds nothing.
inline bool goes_past(int64_t elements, size_t size) { return size_t(elements) * size >= size_t(24) << 20; }

// A vector as vectors of doubles, the first lanes first.
template <class T>
constexpr int doubles = int(sizeof(double) / sizeof(T));
template <class T>
struct Widened {
    Vec<double> part[doubles<T>];
};

template <class T>
FASTCONV_INLINE Widened<T> widened(Vec<T> v) {
    if constexpr (sizeof(T) == 8) return {{v}};
    else {
        typedef T Half __attribute__((vector_size(vector_bytes / 2)));
        Half half[2];
        std::memcpy(half, &v, sizeof v);  // of registers
#if defined(__AVX512F__)  // gcc 12 makes four conversions and two insertions of each of these
        return {{_mm512_maskz_cvtps_pd(0xff, half[0]), _mm512_maskz_cvtps_pd(0xff, half[1])}};
#elif defined(__AVX__)
        return {{_mm256_cvtps_pd(half[0]), _mm256_cvtps_pd(half[1])}};
#else
        return {{__builtin_convertvector(half[0], Vec<double>), __builtin_convertvector(half[1], Vec<double>)}};
#endif
    }
}

// Sums of vectors: of floats a few in float, then in double, which costs little more than float alone. The error of n floats is
// within (staged + 1) 2^-24 of the sum of magnitudes, that of n doubles within n / lanes 2^-53.
constexpr int64_t staged = 16;

template <class T>
struct WideSum {
    Vec<double> part[doubles<T>] = {};

    FASTCONV_INLINE void add(Widened<T> v) {
        for (int p = 0; p < doubles<T>; ++p) part[p] += v.part[p];
    }
    FASTCONV_INLINE void add(Vec<T> v) { add(widened<T>(v)); }
    FASTCONV_INLINE double lane(int l) const { return part[l / lanes<double>][l % lanes<double>]; }
    double total() const {
        Vec<double> all = part[0];
        for (int p = 1; p < doubles<T>; ++p) all += part[p];
        double lane[lanes<double>];
        store(lane, all);
#pragma GCC unroll 3
        for (int half = lanes<double> / 2; half; half /= 2)
            for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
        return lane[0];
    }
};

// Adds value(i, count, v), which sets N vectors, for every vector of n elements; the lanes from `count` on must be 0.
template <int N, class T, class Value>
FASTCONV_INLINE void add_staged(WideSum<T> (&sum)[N], int64_t n, const Value& value) {
    constexpr int L = lanes<T>, U = N == 1 ? 4 : 2;  // side by side, as an addition takes some cycles
    int64_t i = 0;
    while (i + U * L <= n) {
        Vec<T> near[U][N] = {};
        for (int64_t k = 0; k < staged && i + U * L <= n; ++k, i += U * L)
#pragma GCC unroll 4
            for (int u = 0; u < U; ++u) {
                Vec<T> v[N];
                value(i + u * L, L, v);
                for (int j = 0; j < N; ++j) near[u][j] += v[j];
            }
        for (int u = 0; u < U; ++u)
            for (int j = 0; j < N; ++j) sum[j].add(near[u][j]);
    }
    if (i == n) return;
    Vec<T> near[N] = {};
    for (; i < n; i += L) {
        Vec<T> v[N];
        value(i, std::min<int64_t>(L, n - i), v);
        for (int j = 0; j < N; ++j) near[j] += v[j];
    }
    for (int j = 0; j < N; ++j) sum[j].add(near[j]);
}

// The lanes before `count`; the others are 0.
template <class T>
FASTCONV_INLINE Vec<T> only(Vec<T> v, int64_t count) {
    return count == lanes<T> ? v : Vec<T>(Mask<T>(v) & lanes_within<T>(0, count));
}

// put(i, count): vectors of the elements 0 .. n - 1 of a row. Those of `to` begin at a line, unless the row is short: a vector that lies
// in two lines takes twice as long.
template <class T, class Put>
FASTCONV_INLINE void by_vectors(const T* to, int64_t n, const Put& put) {
    constexpr int L = lanes<T>;
    int64_t i = 0;
    if (n >= 8 * L) {
        const int64_t before = int64_t(-reinterpret_cast<uintptr_t>(to) % vector_bytes / sizeof(T));
        if (before) put(0, before), i = before;
    }
    for (; i + L <= n; i += L) put(i, L);
    if (i < n) put(i, n - i);
}

template <class T>
FASTCONV_INLINE void store_some(T* to, Vec<T> v, int64_t count, bool past) {
    if (count == lanes<T>) store_past(to, v, past);
    else store_first(to, v, count);
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
