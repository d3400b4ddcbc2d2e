// depthwise where the channels of a pixel lie side by side: channels on the vector.
//
//   out[pixel][c] = bias[c] + sum over kh, kw of w[kh][kw][c] * x[pixel s + (kh, kw) d][c]
//
// Tile: up to 6 pixels of a row x 2 vectors of channels. Per tap it loads the 2 vectors of weights, and 2 of every pixel: 14 loads for 12
// multiply-adds. All channels of the same pixels come one after another, as they lie. Pixels whose taps reach outside the image come one
// by one, from a list of columns; rows outside are a pixel of zeros with steps of 0.
// Bottleneck: loads, then FMA, in cache.
#pragma once
#include "epilogue.hpp"
#include "shares.hpp"
#include "window.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <class T>
struct PixelRow {  // of the input, for one kh
    const T* begin;           // its first pixel; or one of zeros
    int64_t first;            // from there to the first tap of output column 0
    int64_t pixel, tap;       // steps from output to output, from tap to tap
    bool zeros;
};

template <class T>
struct ChannelVectors {  // of an output row
    const PixelRow<T>* row;   // of each kh
    const int64_t* column;    // of each kw, for a single pixel: from the row's begin, or `nowhere`
    const T *zeros, *weight, *bias;
    int64_t channels, kh, kw, weight_step;  // weight_step: from tap to tap
    T* output;
    const T* residual;
    int64_t output_step, residual_step;
    const Epilogue<T>* epilogue;
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

// Columns w .. w + R - 1, vectors of channels from `channel` on, V at a time, up to `end`. K: kh and kw where they are known, or 0. Edge: of
// a single column some taps may be outside. Part: n lanes of a single vector.
template <class T, int R, int V, int K, bool Edge, bool Part>
FASTCONV_NOINLINE void columns(const ChannelVectors<T>& in, int64_t w, int64_t channel, int64_t end, int64_t n) {
    static_assert((R == 1 || !Edge) && (V == 1 || !Part));
    constexpr int L = lanes<T>;
    const int64_t kh_count = K ? K : in.kh, kw_count = K ? K : in.kw;
    for (; channel < end; channel += V * L) {
        Vec<T> sum[R][V];
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) {
            const Vec<T> bias = load_channels<T, Part>(in.bias + channel + v * L, n);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[r][v] = bias;
        }
        const T* weight = in.weight + channel;
#pragma GCC unroll 3
        for (int64_t kh = 0; kh < kh_count; ++kh) {
            const PixelRow<T>& row = in.row[kh];
            const T* x = row.begin + row.first + w * row.pixel + channel;
#pragma GCC unroll 3
            for (int64_t kw = 0; kw < kw_count; ++kw, x += row.tap, weight += in.weight_step) {
                const T* from = x;
                if constexpr (Edge) {
                    const int64_t column = in.column[kw];
                    from = (row.zeros || column == nowhere ? in.zeros : row.begin + column) + channel;
                }
#pragma GCC unroll 2
                for (int v = 0; v < V; ++v) {
                    const Vec<T> tap = load_channels<T, Part>(weight + v * L, n);
#pragma GCC unroll 8
                    for (int r = 0; r < R; ++r) sum[r][v] += load_channels<T, Part>(from + r * row.pixel + v * L, n) * tap;
                }
            }
        }
        T* y = in.output + w * in.output_step + channel;
        const T* more = in.residual ? in.residual + w * in.residual_step + channel : nullptr;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) {
                Vec<T> value = sum[r][v];
                if (more) value += load_channels<T, Part>(more + r * in.residual_step + v * L, n);
                value = (*in.epilogue)(value);
                if constexpr (Part) store_first(y + r * in.output_step, value, n);
                else store(y + r * in.output_step + v * L, value);
            }
    }
}

// A single column where products are rounded (see rounds_products), vectors of channels from `channel` on up to `end`.
template <class T, bool Part>
FASTCONV_NOINLINE void rounded_column(const ChannelVectors<T>& in, int64_t w, int64_t channel, int64_t end, int64_t n) {
    for (; channel < end; channel += lanes<T>) {
        const auto product = [&](int64_t kh, int64_t kw) __attribute__((always_inline)) {
            const PixelRow<T>& row = in.row[kh];
            const T* from = row.zeros || in.column[kw] == nowhere ? in.zeros : row.begin + in.column[kw];
            const Vec<T> tap = load_channels<T, Part>(in.weight + (kh * in.kw + kw) * in.weight_step + channel, n);
            return rounded(load_channels<T, Part>(from + channel, n) * tap);
        };
        Vec<T> sum = load_channels<T, Part>(in.bias + channel, n);
        for_opposites(in.kh, in.kw, [&](int64_t kh, int64_t kw) __attribute__((always_inline)) {
            sum += product(kh, kw) + product(in.kh - 1 - kh, in.kw - 1 - kw);
        });
        if (in.kh * in.kw % 2) sum += product(in.kh / 2, in.kw / 2);
        if (in.residual) sum += load_channels<T, Part>(in.residual + w * in.residual_step + channel, n);
        sum = (*in.epilogue)(sum);
        T* y = in.output + w * in.output_step + channel;
        if constexpr (Part) store_first(y, sum, n);
        else store(y, sum);
    }
}

template <class T, int R, int K, bool Edge>
void all_channels(const ChannelVectors<T>& in, int64_t w) {
    constexpr int64_t L = lanes<T>;
    const int64_t channels = in.channels, pairs = channels / (2 * L) * (2 * L), whole = channels / L * L;
    columns<T, R, 2, K, Edge, false>(in, w, 0, pairs, L);
    columns<T, R, 1, K, Edge, false>(in, w, pairs, whole, L);
    columns<T, R, 1, K, Edge, true>(in, w, whole, channels, channels - whole);
}

template <class T>
void rounded_channels(const ChannelVectors<T>& in, int64_t w) {
    const int64_t channels = in.channels, whole = channels / lanes<T> * lanes<T>;
    rounded_column<T, false>(in, w, 0, whole, lanes<T>);
    rounded_column<T, true>(in, w, whole, channels, channels - whole);
}

// ---- one call: units are (output row, group of pixels)

template <class T>
struct DepthwiseLast {
    static constexpr int L = lanes<T>;
    static constexpr int64_t most = 6;
    Problem p;
    Call call;
    const T *bias, *weight;  // [kh][kw][weight_step]
    int64_t weight_step, inside, outside, groups, rows, parts;  // inside .. outside: columns whose taps are all inside the image, in so many groups
    Shares shares;

    static bool applies(const Problem& p, const Call& c) {
        return p.out_channels == 1 && p.in_channels == 1 && c.input.channel == 1 && c.output.channel == 1 &&
               (!c.residual.data || c.residual.channel == 1) && p.groups >= L;
    }

    DepthwiseLast(const Problem& problem, const Call& c, const T* bias_, const T* weight_, int64_t weight_step_, int threads)
        : p(problem), call(c), bias(bias_), weight(weight_), weight_step(weight_step_), rows(p.batch * p.output[0] * p.output[1]) {
        constexpr double worth_a_thread = 5e4;  // multiply-adds
        inside = std::min(p.output[2], ceil_div(std::max<int64_t>(p.pad_lo[2], 0), p.stride[2]));
        const int64_t room = p.input[2] - 1 - (p.kernel[2] - 1) * p.dilation[2] + p.pad_lo[2];
        outside = room < 0 || rounds_products(p) ? inside : std::max(inside, std::min(p.output[2], room / p.stride[2] + 1));
        groups = ceil_div(outside - inside, most);
        parts = std::max<int64_t>(1, std::min<int64_t>(threads, int64_t(multiply_adds(p) / worth_a_thread)));
        parts = std::min(parts, units());
    }
    int64_t in_a_row() const { return groups + p.output[2] - (outside - inside); }
    int64_t units() const { return rows * in_a_row(); }

    struct Scratch {
        PixelRow<T>* row;
        int64_t* column;
        T* zeros;
        size_t bytes;
        Scratch(const Problem& p, void* base) {
            Arena arena(base);
            row = arena.take<PixelRow<T>>(p.kernel[1]);
            column = arena.take<int64_t>(p.kernel[2]);
            zeros = arena.take<T>(p.groups + L);
            bytes = arena.used();
        }
    };

    static void part(void* context, int64_t index) {
        const DepthwiseLast& job = *static_cast<DepthwiseLast*>(context);
        const FlushDenormals flush(!job.p.strict);
        const Scratch s(job.p, static_cast<char*>(job.call.workspace) + Shares::bytes(job.parts) + size_t(index) * Scratch(job.p, nullptr).bytes);
        const Epilogue<T> epilogue(job.p);
        clear(s.zeros, job.p.groups + L);
        job.shares.each(index, [&](int64_t i, int64_t end) {
            while (i < end) {
                const int64_t row = i / job.in_a_row(), first = i % job.in_a_row(), last = std::min(job.in_a_row(), first + end - i);
                job.list_rows(row, s);
                job.compute(row, first, last, s, epilogue);
                i += last - first;
            }
        });
    }

    void list_columns(int64_t w, const Scratch& s) const {
        for (int64_t k = 0; k < p.kernel[2]; ++k) {
            const int64_t from = source(p, 2, w * p.stride[2] - p.pad_lo[2] + k * p.dilation[2]);
            s.column[k] = from < 0 ? nowhere : from * call.input.space[2];
        }
    }

    void list_rows(int64_t row, const Scratch& s) const {
        const View& x = call.input;
        const int64_t h = row % p.output[1], d = row / p.output[1] % p.output[0], image = row / p.output[1] / p.output[0];
        const int64_t from_d = source(p, 0, d * p.stride[0] - p.pad_lo[0]);
        for (int64_t k = 0; k < p.kernel[1]; ++k) {
            const int64_t from_h = source(p, 1, h * p.stride[1] - p.pad_lo[1] + k * p.dilation[1]);
            if (from_d < 0 || from_h < 0) s.row[k] = {s.zeros, 0, 0, 0, true};
            else s.row[k] = {at<const T>(x, image, 0) + from_d * x.space[0] + from_h * x.space[1], -p.pad_lo[2] * x.space[2],
                             p.stride[2] * x.space[2], p.dilation[2] * x.space[2], false};
        }
    }

    // The units first .. last of a row: single pixels, groups, single pixels.
    void compute(int64_t row, int64_t first, int64_t last, const Scratch& s, const Epilogue<T>& epilogue) const {
        const int64_t h = row % p.output[1], d = row / p.output[1] % p.output[0], image = row / p.output[1] / p.output[0];
        const auto place = [&](const View& v) { return v.data ? at<T>(v, image, 0) + d * v.space[0] + h * v.space[1] : nullptr; };
        constexpr auto sizes = std::make_index_sequence<size_t(most)>{};
        const ChannelVectors<T> in{s.row, s.column, s.zeros, weight, bias, p.groups, p.kernel[1], p.kernel[2], weight_step,
                             place(call.output), place(call.residual), call.output.space[2], call.residual.space[2], &epilogue};
        for (int64_t i = first; i < last; ++i) {
            const int64_t group = i - inside, width = outside - inside;
            if (group < 0 || group >= groups) {
                const int64_t w = group < 0 ? i : outside + group - groups;
                list_columns(w, s);
                (rounds_products(p) ? rounded_channels<T> : all_channels<T, 1, 0, true>)(in, w);
            } else {
                const int64_t w = inside + width * group / groups, n = inside + width * (group + 1) / groups - w;
                (p.kernel[1] == 3 && p.kernel[2] == 3 ? several<3>(n, sizes) : several<0>(n, sizes))(in, w);
            }
        }
    }

    template <int K, size_t... I>
    static auto several(int64_t columns, std::index_sequence<I...>) {
        static constexpr void (*table[])(const ChannelVectors<T>&, int64_t) = {all_channels<T, int(I) + 1, K, false>...};
        return table[columns - 1];
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
