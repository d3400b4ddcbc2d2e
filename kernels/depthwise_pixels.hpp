// The register tile of depthwise where the channels of a pixel lie side by side: channels on the vector.
//
// Up to 6 pixels of a row x 2 vectors of channels, three taps side by side at a time: where neighbours of the tile are as far apart
// as taps (with a dilation d every d-th pixel) or two taps, the three and all pixels share inputs: 22 or 32 loads for 36 multiply-adds, not
// 42. Pixels whose taps reach outside the image come from a list of columns; rows outside are a pixel of zeros with steps of 0.
#pragma once
#include "crew.hpp"
#include "epilogue.hpp"
#include "window.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// Columns at most so many taps apart share inputs, where sums, three taps and an input find room in registers. By pairs of vectors
// they are 19, three too many for AVX2: of columns two taps apart, whose loads are 32 in place of 42, no gain is left.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int most_shared = 2, most_shared_by_pairs = 2;
#elif defined(__AVX2__)
constexpr int most_shared = 2, most_shared_by_pairs = 1;
#else
constexpr int most_shared = 0, most_shared_by_pairs = 0;
#endif

template <class T>
struct PixelRow {  // of the input, for one (kd, kh)
    const T* begin;           // its first pixel; or one of zeros
    int64_t first;            // from there to the first tap of output column 0
    int64_t column, tap;      // steps from output to output, from tap to tap
    bool zeros;
};

template <class T>
struct ChannelVectors {  // of an output row
    const PixelRow<T>* row;   // of each (kd, kh)
    const int64_t* column;    // of each kw, for a single pixel, or for neighbours at an edge: from the row's begin, or `nowhere`
    const T *zeros, *weight, *bias;
    int64_t rows, kw, weight_step;    // weight_step: from tap to tap
    int64_t channels, length, apart;  // of a pixel; of what lies side by side in a tile: a pixel or a run; its neighbours, in columns
    T* output;
    const T* residual;
    int64_t output_step, residual_step;
    const Epilogue<T>* epilogue;
    int64_t from;  // of the length, what is computed begins there
};

template <class T, bool Part>
FASTCONV_INLINE Vec<T> load_channels(const T* p, int64_t n) {
    return Part ? load_first(p, n) : load(p);
}

// body(row, column) for the first of each two opposite taps, in the order of the weights
template <class Body>
FASTCONV_INLINE void for_opposites(int64_t rows, int64_t columns, Body body) {
    for (int64_t kh = 0; kh < (rows + 1) / 2; ++kh)
        for (int64_t kw = 0; kw < (kh < rows / 2 ? columns : columns / 2); ++kw) body(kh, kw);
}

// Q taps side by side of R columns, V vectors of channels each; S: columns are S taps apart, or 0 for any distance.
template <class T, int Q, int R, int V, int S, bool Part>
FASTCONV_INLINE void add_taps(Vec<T> (&sum)[R][V], const T* x, int64_t apart, int64_t tap, const T* weight, int64_t weight_step, int64_t n) {
    constexpr int L = lanes<T>;
    // Else their multiples are kept in vector registers, which sums need.
    if constexpr (S > 0 || R * V > 8) asm("" : "+r"(apart), "+r"(tap), "+r"(weight_step));
    Vec<T> taps[Q][V];
#pragma GCC unroll 3
    for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) taps[q][v] = load_channels<T, Part>(weight + q * weight_step + v * L, n);
    if constexpr (S == 0) {
#pragma GCC unroll 3
        for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) sum[r][v] += load_channels<T, Part>(x + q * tap + r * apart + v * L, n) * taps[q][v];
    } else {
#pragma GCC unroll 20
        for (int i = 0; i < (R - 1) * S + Q; ++i, x += tap)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) {
                const Vec<T> input = rounded(load_channels<T, Part>(x + v * L, n));  // in a register: else it is loaded for each tap
#pragma GCC unroll 3
                for (int q = 0; q < Q; ++q)
                    if (i >= q && (i - q) % S == 0 && (i - q) / S < R) sum[(i - q) / S][v] += input * taps[q][v];
            }
    }
}

// The same of columns a tap apart, some of which may lie outside the image: x(i) is where the i-th input of the first column and its neighbours is.
template <class T, int Q, int R, int V, bool Part, class At>
FASTCONV_INLINE void add_listed(Vec<T> (&sum)[R][V], const At& x, const T* weight, int64_t weight_step, int64_t n) {
    constexpr int L = lanes<T>;
    Vec<T> taps[Q][V];
#pragma GCC unroll 3
    for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) taps[q][v] = load_channels<T, Part>(weight + q * weight_step + v * L, n);
#pragma GCC unroll 20
    for (int i = 0; i < R - 1 + Q; ++i) {
        const T* from = x(i);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            const Vec<T> input = rounded(load_channels<T, Part>(from + v * L, n));
#pragma GCC unroll 3
            for (int q = 0; q < Q; ++q)
                if (i >= q && i - q < R) sum[i - q][v] += input * taps[q][v];
        }
    }
}

// Sums from memory to the output: `count` vectors of n lanes, `together` of each column.
template <class T>
FASTCONV_KERNEL void finish_channels(const ChannelVectors<T>& in, const Vec<T>* sum, int64_t together, int64_t count, T* y,
                                     const T* more, int64_t n) {
    for (int64_t i = 0; i < count; ++i) {
        const int64_t column = i / together * in.apart, lane = i % together * lanes<T>;
        T* to = y + column * in.output_step + lane;
        Vec<T> value = sum[i];
        if (more) value += load_some(more + column * in.residual_step + lane, n);
        value = (*in.epilogue)(value);
        if (n == lanes<T>) store(to, value);
        else store_first(to, value, n);
    }
}

// From the sums to the output: limits at most from the registers, all else from memory.
template <class T, int R, int V, bool Part>
FASTCONV_INLINE void put(const ChannelVectors<T>& in, const Vec<T> (&sum)[R][V], int64_t w, int64_t channel, int64_t n) {
    constexpr int L = lanes<T>;
    T* y = in.output + w * in.output_step + channel;
    const T* more = in.residual ? in.residual + w * in.residual_step + channel : nullptr;
    if (!Part && !more && in.epilogue->is_limit()) {
        const Limited<T> limited(*in.epilogue);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r, y += in.apart * in.output_step)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) store(y + v * L, limited(sum[r][v]));
        return;
    }
    Vec<T> kept[R * V];
#pragma GCC unroll 24
    for (int i = 0; i < R * V; ++i) kept[i] = sum[i / V][i % V];
    finish_channels(in, kept, V, R * V, y, more, n);
}

// R columns from w on, vectors of channels from `channel` on, V at a time, up to `end`. S: see add_taps. Edge: some taps of a single column,
// or of neighbours with S = 1, may be outside. Part: n lanes of a single vector.
template <class T, int R, int V, int S, bool Edge, bool Part>
FASTCONV_KERNEL void columns(const ChannelVectors<T>& in, int64_t w, int64_t channel, int64_t end, int64_t n) {
    static_assert((R == 1 || !Edge || S == 1) && (V == 1 || !Part));
    constexpr int L = lanes<T>;
    const int64_t step = in.weight_step;
    for (int64_t at = channel; channel < end; channel += V * L, at += V * L) {
        if (at >= in.channels) at %= in.channels;
        Vec<T> sum[R][V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            const Vec<T> bias = load_channels<T, Part>(in.bias + at + v * L, n);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[r][v] = bias;
        }
        const T* weight = in.weight + at;
        for (int64_t k = 0; k < in.rows; ++k) {
            const PixelRow<T>& row = in.row[k];
            int64_t kw = 0;
            if constexpr (Edge && S > 0) {
                const auto x = [&](int64_t i) __attribute__((always_inline)) {
                    return (row.zeros || in.column[i] == nowhere ? in.zeros : row.begin + in.column[i]) + channel;
                };
                const auto add = [&](auto taps) __attribute__((always_inline)) {
                    add_listed<T, taps.value, R, V, Part>(sum, [&](int i) __attribute__((always_inline)) { return x(kw + i); }, weight, step, n);
                    kw += taps.value, weight += taps.value * step;
                };
                while (kw + 3 <= in.kw) add(std::integral_constant<int, 3>{});
                if (kw + 2 == in.kw) add(std::integral_constant<int, 2>{});
                else if (kw < in.kw) add(std::integral_constant<int, 1>{});
            } else if constexpr (Edge) {
                for (; kw < in.kw; ++kw, weight += step) {
                    const int64_t column = in.column[kw];
                    const T* x = (row.zeros || column == nowhere ? in.zeros : row.begin + column) + channel;
                    add_taps<T, 1, R, V, S, Part>(sum, x, 0, 0, weight, step, n);
                }
            } else {
                const T* x = row.begin + row.first + w * row.column + channel;
                const int64_t apart = in.apart * row.column, tap = row.tap;
                if constexpr (S > 0) {
                    for (; kw + 3 <= in.kw; kw += 3, x += 3 * tap, weight += 3 * step)
                        add_taps<T, 3, R, V, S, Part>(sum, x, 0, tap, weight, step, n);
                    if (kw + 2 == in.kw) {
                        add_taps<T, 2, R, V, S, Part>(sum, x, 0, tap, weight, step, n);
                        kw += 2, weight += 2 * step;
                    }
                }
#pragma GCC unroll 1
                for (; kw < in.kw; ++kw, x += tap, weight += step) add_taps<T, 1, R, V, 0, Part>(sum, x, apart, tap, weight, step, n);
            }
        }
        put<T, R, V, Part>(in, sum, w, channel, n);
    }
}

// A single column where products are rounded (see rounds_products), vectors of channels from `channel` on up to `end`.
template <class T, bool Part>
FASTCONV_NOINLINE void rounded_column(const ChannelVectors<T>& in, int64_t w, int64_t channel, int64_t end, int64_t n) {
    for (; channel < end; channel += lanes<T>) {
        const auto product = [&](int64_t k, int64_t kw) __attribute__((always_inline)) {
            const PixelRow<T>& row = in.row[k];
            const T* from = row.zeros || in.column[kw] == nowhere ? in.zeros : row.begin + in.column[kw];
            const Vec<T> tap = load_channels<T, Part>(in.weight + (k * in.kw + kw) * in.weight_step + channel, n);
            return rounded(load_channels<T, Part>(from + channel, n) * tap);
        };
        Vec<T> sum = load_channels<T, Part>(in.bias + channel, n);
        for_opposites(in.rows, in.kw, [&](int64_t k, int64_t kw) __attribute__((always_inline)) {
            sum += product(k, kw) + product(in.rows - 1 - k, in.kw - 1 - kw);
        });
        if (in.rows * in.kw % 2) sum += product(in.rows / 2, in.kw / 2);
        if (in.residual) sum += load_channels<T, Part>(in.residual + w * in.residual_step + channel, n);
        sum = (*in.epilogue)(sum);
        T* y = in.output + w * in.output_step + channel;
        if constexpr (Part) store_first(y, sum, n);
        else store(y, sum);
    }
}

template <class T, int R, int S_, bool Edge>
void all_channels(const ChannelVectors<T>& in, int64_t w) {
    constexpr int64_t L = lanes<T>;
    constexpr int S = R > 1 ? S_ : 0;  // a single column shares no inputs
    const int64_t first = in.from, n = in.length, fours = first + (R == 1 ? (n - first) / (4 * L) * (4 * L) : 0);
    const int64_t pairs = first + (n - first) / (2 * L) * (2 * L), whole = first + (n - first) / L * L;
    if constexpr (R == 1) columns<T, R, 4, S, Edge, false>(in, w, first, fours, L);
    columns<T, R, 2, (S <= most_shared_by_pairs ? S : 0), Edge, false>(in, w, fours, pairs, L);
    columns<T, R, 1, S, Edge, false>(in, w, pairs, whole, L);
    if (whole == n) return;
    if (n > L && !in.residual) columns<T, R, 1, S, Edge, false>(in, w, n - L, n, L);  // overlaps its neighbour: the same bits again
    else columns<T, R, 1, (vector_bytes > 16 && S == 1 ? 1 : 0), Edge, true>(in, w, whole, n, n - whole);
}

template <class T>
void rounded_channels(const ChannelVectors<T>& in, int64_t w) {
    const int64_t channels = in.length, whole = in.from + (channels - in.from) / lanes<T> * lanes<T>;
    rounded_column<T, false>(in, w, in.from, whole, lanes<T>);
    rounded_column<T, true>(in, w, whole, channels, channels - whole);
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
