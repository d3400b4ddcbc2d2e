// One vector type per element type, as wide as the ISA of this build, and the few operations kernels need beyond + * <.
// Everything is GCC vector extensions (gcc and clang): the same source makes SSE2, AVX2, AVX-512 and NEON code.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define FASTCONV_INLINE inline __attribute__((always_inline))
#define FASTCONV_NOINLINE __attribute__((noinline))
// A micro-kernel: nor a copy for each constant that callers pass, and from a line on, as its time depends on where its loops lie.
#if defined(__clang__)
#define FASTCONV_KERNEL __attribute__((noinline, aligned(64)))
#else
#define FASTCONV_KERNEL __attribute__((noinline, noclone, aligned(64)))
#endif

namespace fastconv {
namespace FASTCONV_ISA {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

template <class T>
constexpr int lanes = vector_bytes / int(sizeof(T));
template <class T, int N = lanes<T>>  // N: lanes, all of a register or half of them
struct VectorOf {
    typedef T type __attribute__((vector_size(N * sizeof(T))));
    typedef T unaligned __attribute__((vector_size(N * sizeof(T)), aligned(alignof(T)), may_alias));
    typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Int;
    typedef Int mask __attribute__((vector_size(N * sizeof(T))));
};
template <class T, int N = lanes<T>>
using Vec = typename VectorOf<T, N>::type;

template <class T, int N = lanes<T>>
FASTCONV_INLINE Vec<T, N> load(const T* p) {
    return *reinterpret_cast<const typename VectorOf<T, N>::unaligned*>(p);
}

template <class T, int N = lanes<T>>
FASTCONV_INLINE void store(T* p, Vec<T, N> v) {
    *reinterpret_cast<typename VectorOf<T, N>::unaligned*>(p) = v;
}

// Past the caches if `past`, where a vector is a whole line: p is a multiple of it. Nobody sees it before `stored_past`.
template <class T>
FASTCONV_INLINE void store_past(T* p, Vec<T> v, [[maybe_unused]] bool past) {
#if defined(__AVX512F__)
    if (past) {
        if constexpr (sizeof(T) == 4) _mm512_stream_ps(p, v);
        else _mm512_stream_pd(p, v);
        return;
    }
#endif
    store(p, v);
}
inline void stored_past() {
#if defined(__AVX512F__)
    _mm_sfence();
#endif
}

template <class T, int N = lanes<T>>
FASTCONV_INLINE Vec<T, N> broadcast(T x) {
    return x - Vec<T, N>{};  // x - 0 is x for every x, -0 and NaN included; compiles to a broadcast
}

// A product as it is rounded: what comes of it is no part of a fused multiply-add, which the compiler makes of a product and a sum.
template <class V>
FASTCONV_INLINE V rounded(V product) {
#if defined(__x86_64__)
    asm("" : "+v"(product));
#elif defined(__aarch64__)
    asm("" : "+w"(product));
#else
    asm("" : "+m"(product));
#endif
    return product;
}

// n < lanes elements, in pieces of constant size: a call to memcpy costs more than the copy.
template <class T, int Piece = lanes<T> / 2>
FASTCONV_INLINE void copy_few(T* to, const T* from, int64_t n) {
    if (n & Piece) {
        std::memcpy(to, from, sizeof(T) * Piece);
        to += Piece, from += Piece;
    }
    if constexpr (Piece > 1) copy_few<T, Piece / 2>(to, from, n);
}

// Lanes first <= l < end are all ones, the others 0; 0 <= first, end <= lanes.
template <class T>
FASTCONV_INLINE typename VectorOf<T>::mask lanes_within(int64_t first, int64_t end) {
    constexpr int L = lanes<T>;
    typedef typename VectorOf<T>::Int Int;
    static const struct Table {
        Int of[3 * L];
        constexpr Table() : of{} {
            for (int i = L; i < 2 * L; ++i) of[i] = Int(-1);
        }
    } table;
    typedef typename VectorOf<T>::mask unaligned __attribute__((aligned(alignof(T)), may_alias));
    const auto window = [](int64_t at) __attribute__((always_inline)) { return *reinterpret_cast<const unaligned*>(table.of + at); };
    return window(L - first) & window(2 * L - end);
}

template <class T>
FASTCONV_INLINE typename VectorOf<T>::mask lanes_between(int64_t first, int64_t end) {  // any bounds
    constexpr int64_t L = lanes<T>;
    return lanes_within<T>(first < 0 ? 0 : first < L ? first : L, end < 0 ? 0 : end < L ? end : L);
}

// Memory of lanes that are not asked for is not touched; they are 0.
template <class T>
FASTCONV_INLINE Vec<T> load_masked(const T* p, typename VectorOf<T>::mask mask) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_maskz_loadu_ps(_mm512_movepi32_mask(__m512i(mask)), p);
    else return _mm512_maskz_loadu_pd(_mm512_movepi64_mask(__m512i(mask)), p);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return _mm256_maskload_ps(p, __m256i(mask));
    else return _mm256_maskload_pd(p, __m256i(mask));
#else
    T lane[lanes<T>] = {};
    for (int l = 0; l < lanes<T>; ++l)
        if (mask[l]) lane[l] = p[l];
    return load(lane);
#endif
}

#if defined(__AVX512F__)
FASTCONV_INLINE __mmask16 first_lanes(int64_t n) { return __mmask16((1u << n) - 1); }
#endif

// The first n < lanes lanes; the others are 0, their memory is not touched.
template <class T>
FASTCONV_INLINE Vec<T> load_first(const T* p, int64_t n) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_maskz_loadu_ps(first_lanes(n), p);
    else return _mm512_maskz_loadu_pd(__mmask8(first_lanes(n)), p);
#elif defined(__AVX2__)
    return load_masked(p, lanes_within<T>(0, n));
#else
    alignas(vector_bytes) T lane[lanes<T>] = {};
    copy_few(lane, p, n);
    return load(lane);
#endif
}

template <class T>
FASTCONV_INLINE Vec<T> load_some(const T* p, int64_t n) {  // n <= lanes
    return n == lanes<T> ? load(p) : load_first(p, n);
}

template <class T>
FASTCONV_INLINE void store_first(T* p, Vec<T> v, int64_t n) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(p, first_lanes(n), v);
    else _mm512_mask_storeu_pd(p, __mmask8(first_lanes(n)), v);
#else
    alignas(vector_bytes) T lane[lanes<T>];
    store(lane, v);
    copy_few(p, lane, n);
#endif
}

// n elements; neither side is touched beyond them.
template <class T>
FASTCONV_INLINE void copy(T* to, const T* from, int64_t n) {
    constexpr int L = lanes<T>;
    int64_t i = 0;
    for (; i + L <= n; i += L) store(to + i, load(from + i));
#if defined(__AVX512F__)
    store_first(to + i, load_first(from + i, n - i), n - i);  // half as long as piece by piece
#else
    copy_few(to + i, from + i, n - i);
#endif
}

template <class T>
FASTCONV_INLINE void clear(T* to, int64_t n) {
    constexpr int L = lanes<T>;
    const Vec<T> zero{};
    int64_t i = 0;
    for (; i + L <= n; i += L) store(to + i, zero);
    store_first(to + i, zero, n - i);
}

// Lane l of the result is lane index(l) of a, or, from `lanes` on, of b.
template <class T, int H, bool High, size_t... L>
FASTCONV_INLINE Vec<T> exchange(Vec<T> a, Vec<T> b, std::index_sequence<L...>) {
    constexpr int n = lanes<T>;
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (High ? (int(L) & H ? n + int(L) : int(L) + H) : (int(L) & H ? n + int(L) - H : int(L)))...);
#else
    typename VectorOf<T>::mask index = {
        (High ? (int(L) & H ? n + int(L) : int(L) + H) : (int(L) & H ? n + int(L) - H : int(L)))...};
    return __builtin_shuffle(a, b, index);
#endif
}

// Every other element of a and b, from the first or (Odd) the second one on, in the order that one instruction per 16 bytes
// makes; the same for every pair, so that what is computed from them can be sorted in their place.
template <class T, int Odd, class V, size_t... L>
FASTCONV_INLINE V every_other_unsorted(V a, V b, std::index_sequence<L...>) {
    constexpr int E = 16 / int(sizeof(T)), half = E / 2, n = int(sizeof...(L));
#if defined(__clang__)
    return __builtin_shufflevector(
        a, b, (Odd + int(L) / E * E + (int(L) % E < half ? int(L) % E * 2 : n + (int(L) % E - half) * 2))...);
#else
    typename VectorOf<T, n>::mask index = {
        (Odd + int(L) / E * E + (int(L) % E < half ? int(L) % E * 2 : n + (int(L) % E - half) * 2))...};
    return __builtin_shuffle(a, b, index);
#endif
}

template <class T, class V, size_t... L>
FASTCONV_INLINE V sorted(V v, std::index_sequence<L...>) {
    constexpr int E = 16 / int(sizeof(T)), half = E / 2, n = int(sizeof...(L));
#if defined(__clang__)
    return __builtin_shufflevector(v, v, (2 * int(L) % n / E * E + 2 * int(L) % E / 2 + (2 * int(L) < n ? 0 : half))...);
#else
    typename VectorOf<T, n>::mask index = {(2 * int(L) % n / E * E + 2 * int(L) % E / 2 + (2 * int(L) < n ? 0 : half))...};
    return __builtin_shuffle(v, index);
#endif
}

template <class T, int Odd, size_t... L>
FASTCONV_INLINE Vec<T> every_other(Vec<T> a, Vec<T> b, [[maybe_unused]] std::index_sequence<L...> all) {
#if defined(__AVX512F__) && !defined(__clang__)  // one instruction
    return __builtin_shuffle(a, b, typename VectorOf<T>::mask{(2 * int(L) + Odd)...});
#else
    return sorted<T>(every_other_unsorted<T, Odd>(a, b, all), all);
#endif
}
template <class T, int Odd>
FASTCONV_INLINE Vec<T> every_other(Vec<T> a, Vec<T> b) {
    return every_other<T, Odd>(a, b, std::make_index_sequence<size_t(lanes<T>)>{});
}

// Lanes of two vectors side by side, from lane From of the first one on.
template <class T, int From, size_t... L>
FASTCONV_INLINE Vec<T> lanes_from(Vec<T> a, Vec<T> b, std::index_sequence<L...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (From + int(L))...);
#else
    return __builtin_shuffle(a, b, typename VectorOf<T>::mask{(From + int(L))...});
#endif
}
template <class T, int From>
FASTCONV_INLINE Vec<T> lanes_from(Vec<T> a, Vec<T> b) {
    return lanes_from<T, From>(a, b, std::make_index_sequence<size_t(lanes<T>)>{});
}

// Elements of a and b by turns, of the first or (High) the second half of each.
template <class T, bool High, size_t... L>
FASTCONV_INLINE Vec<T> by_turns(Vec<T> a, Vec<T> b, std::index_sequence<L...>) {
    constexpr int n = lanes<T>, from = High ? n / 2 : 0;
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (from + int(L) / 2 + (L % 2 ? n : 0))...);
#else
    typename VectorOf<T>::mask index = {(from + int(L) / 2 + (L % 2 ? n : 0))...};
    return __builtin_shuffle(a, b, index);
#endif
}
template <class T, bool High>
FASTCONV_INLINE Vec<T> by_turns(Vec<T> a, Vec<T> b) {
    return by_turns<T, High>(a, b, std::make_index_sequence<size_t(lanes<T>)>{});
}

// The elements Phase, Phase + N, Phase + 2 N ... of N vectors, N odd: no two of them are in the same lane, so that the vectors merge
// into one, which is put in order last.
template <class T, int N, int Phase, int V, size_t... L>
FASTCONV_INLINE Vec<T> merged(const Vec<T> (&value)[N], std::index_sequence<L...> all) {
    if constexpr (V == 0) return value[0];
    else {
        constexpr int n = lanes<T>;
        const Vec<T> before = merged<T, N, Phase, V - 1>(value, all);
#if defined(__clang__)
        return __builtin_shufflevector(before, value[V], ((V * n + int(L)) % N == Phase ? n + int(L) : int(L))...);
#else
        typename VectorOf<T>::mask index = {((V * n + int(L)) % N == Phase ? n + int(L) : int(L))...};
        return __builtin_shuffle(before, value[V], index);
#endif
    }
}

template <class T, int N, int Phase, size_t... L>
FASTCONV_INLINE Vec<T> every_nth(const Vec<T> (&value)[N], std::index_sequence<L...> all) {
    constexpr int n = lanes<T>;
    const Vec<T> v = merged<T, N, Phase, N - 1>(value, all);
#if defined(__clang__)
    return __builtin_shufflevector(v, v, ((int(L) * N + Phase) % n)...);
#else
    typename VectorOf<T>::mask index = {((int(L) * N + Phase) % n)...};
    return __builtin_shuffle(v, index);
#endif
}

// Lane i of vector v was element i + lanes v of a row, and is element v + N i: N = 1, 2, 3, 4 vectors.
template <class T, int N>
FASTCONV_INLINE void split(Vec<T> (&value)[N]) {
    if constexpr (N == 3) {
        constexpr auto all = std::make_index_sequence<size_t(lanes<T>)>{};
        const Vec<T> a = every_nth<T, 3, 0>(value, all), b = every_nth<T, 3, 1>(value, all), c = every_nth<T, 3, 2>(value, all);
        value[0] = a, value[1] = b, value[2] = c;
    } else if constexpr (N > 1) {
        Vec<T> even[N / 2], odd[N / 2];
#pragma GCC unroll 4
        for (int v = 0; v < N / 2; ++v) {
            even[v] = every_other<T, 0>(value[2 * v], value[2 * v + 1]);
            odd[v] = every_other<T, 1>(value[2 * v], value[2 * v + 1]);
        }
        split<T, N / 2>(even);
        split<T, N / 2>(odd);
#pragma GCC unroll 4
        for (int v = 0; v < N / 2; ++v) value[2 * v] = even[v], value[2 * v + 1] = odd[v];
    }
}

// to[i] = from[2 i] for n elements; what lies between them is read, nothing before the first or behind the last.
template <class T>
FASTCONV_INLINE void copy_even(T* to, const T* from, int64_t n) {
    constexpr int L = lanes<T>;
    int64_t i = 0;
    for (; i + L < n; i += L) store(to + i, every_other<T, 0>(load(from + 2 * i), load(from + 2 * i + L)));
    if (n > L) {  // the last vector overlaps its neighbour
        const T* last = from + 2 * (n - L) - 1;
        store(to + n - L, every_other<T, 1>(load(last), load(last + L)));
        return;
    }
    for (; i < n; ++i) to[i] = from[2 * i];
}

template <class T>
FASTCONV_INLINE void copy_strided(T* to, const T* from, int64_t stride, int64_t n) {
    if (stride == 1) copy(to, from, n);
    else if (stride == 2) copy_even(to, from, n);
    else
#pragma GCC unroll 4
        for (int64_t i = 0; i < n; ++i) to[i] = from[i * stride];
}

// to[i step] = v[i] for the first n <= lanes; what lies between stays as it is.
template <class T>
FASTCONV_INLINE void store_apart(T* to, int64_t step, Vec<T> v, int64_t n) {
#if defined(__AVX512F__)
    if (step == 2) {
        const unsigned every_other = 0x55555555u & unsigned((uint64_t(1) << 2 * n) - 1), high = every_other >> lanes<T>;
        if constexpr (sizeof(T) == 4) {
            const __m512i low = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), apart = _mm512_set1_epi32(8);
            _mm512_mask_storeu_ps(to, __mmask16(every_other), _mm512_maskz_permutexvar_ps(0xffff, low, v));
            if (high) _mm512_mask_storeu_ps(to + 16, __mmask16(high), _mm512_maskz_permutexvar_ps(0xffff, _mm512_add_epi32(low, apart), v));
        } else {
            const __m512i low = _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), apart = _mm512_set1_epi64(4);
            _mm512_mask_storeu_pd(to, __mmask8(every_other), _mm512_maskz_permutexvar_pd(0xff, low, v));
            if (high) _mm512_mask_storeu_pd(to + 8, __mmask8(high), _mm512_maskz_permutexvar_pd(0xff, _mm512_add_epi64(low, apart), v));
        }
        return;
    }
#endif
    T lane[lanes<T>];
    store(lane, v);
    for (int64_t i = 0; i < n; ++i) to[i * step] = lane[i];
}

// Transpose lanes x lanes in registers: log2(lanes) rounds that swap the off-diagonal blocks of size H.
template <class T, int H = lanes<T> / 2>
FASTCONV_INLINE void transpose(Vec<T> (&row)[lanes<T>]) {
    using Lanes = std::make_index_sequence<size_t(lanes<T>)>;
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T>; ++i) {
        if (i & H) continue;
        Vec<T> a = row[i], b = row[i + H];
        row[i] = exchange<T, H, false>(a, b, Lanes{});
        row[i + H] = exchange<T, H, true>(a, b, Lanes{});
    }
    if constexpr (H > 1) transpose<T, H / 2>(row);
}

// Flush denormals while in scope (accuracy != "strict"): some CPUs take 5-100 times as long on them.
class FlushDenormals {
   public:
    explicit FlushDenormals(bool on) : on_(on) {
        if (on_) write((saved_ = read()) | bits);
    }
    ~FlushDenormals() {
        if (on_) write(saved_);
    }
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;

   private:
#if defined(__x86_64__)
    static constexpr uint64_t bits = 0x8040;  // MXCSR: flush-to-zero and denormals-are-zero
    static uint64_t read() { return _mm_getcsr(); }
    static void write(uint64_t v) { _mm_setcsr(unsigned(v)); }
#elif defined(__aarch64__)
    static constexpr uint64_t bits = uint64_t(1) << 24;  // FPCR.FZ
    static uint64_t read() {
        uint64_t v;
        __asm__ volatile("mrs %0, fpcr" : "=r"(v));
        return v;
    }
    static void write(uint64_t v) { __asm__ volatile("msr fpcr, %0" ::"r"(v)); }
#else
    static constexpr uint64_t bits = 0;
    static uint64_t read() { return 0; }
    static void write(uint64_t) {}
#endif
    bool on_;
    uint64_t saved_ = 0;
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
