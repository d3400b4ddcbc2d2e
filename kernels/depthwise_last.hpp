// depthwise where the channels of a pixel lie side by side: channels on the vector.
//
//   out[pixel][c] = bias[c] + sum over kd, kh, kw of w[kd][kh][kw][c] * x[pixel s + (kd, kh, kw) d][c]
//
// Tile: up to 6 pixels of a row x 2 vectors of channels, three taps side by side at a time: where neighbours of the tile are as far apart
// as taps (with a dilation d every d-th pixel) or two taps, the three and all pixels share inputs: 22 or 32 loads for 36 multiply-adds, not
// 42. All channels of the same pixels come one after another, as they lie, but of many taps four vectors over all rows. So few channels that most lanes would be empty run on into those
// of the next pixels, 6 runs of pixels in place of 6 pixels: the weights of all channels go round. Pixels whose taps reach outside the image come
// from a list of columns: as tiles where edges weigh, else one by one; rows outside are a pixel of zeros with steps of 0. Where a channel has several outputs, each thread
// keeps the rows that its outputs read widened: every input as often as it has outputs.
// Bottleneck: FMA in cache.
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

// ---- one call: units are (output row, group of pixels)

// Whether so few channels would leave most lanes of a vector empty, so that weights go round.
template <class T>
bool runs_on(int64_t channels) {
    return 2 * channels <= lanes<T>;
}

// Rows of the input, every channel `times` over: as many as an output row reads.
template <class T>
struct WidenedRows {
    static constexpr int L = lanes<T>;
    static constexpr int64_t most_bytes = 512 << 10;
    int64_t count, channels, times, pixels, length;
    const T** whose;  // the row that each is of, or null
    bool* wanted;     // by the output row at hand
    T* rows;

    WidenedRows(const Problem& p, Arena& arena)
        : count(p.out_channels > 1 ? p.kernel[0] * p.kernel[1] : 0), channels(p.groups), times(p.out_channels), pixels(p.input[2]),
          length(round_up(pixels * channels * times, L) + round_up(times, L)), whose(arena.take<const T*>(count)),
          wanted(arena.take<bool>(count)), rows(arena.take<T>(count * length)) {}
    static bool suits(const Problem& p) {  // or none are needed
        return p.out_channels == 1 || p.kernel[0] * p.kernel[1] * p.input[2] * p.groups * p.out_channels * int64_t(sizeof(T)) <= most_bytes;
    }
    void start() const { std::fill(whose, whose + count, nullptr); }

    void keep(const PixelRow<T>* row) const {
        for (int64_t i = 0; i < count; ++i)
            wanted[i] = std::any_of(row, row + count, [&](const PixelRow<T>& one) { return !one.zeros && one.begin == whose[i]; });
    }
    const T* of(const T* row, int64_t pixel) const {
        int64_t i = std::find(whose, whose + count, row) - whose;
        if (i == count) {
            i = std::find(wanted, wanted + count, false) - wanted;
            whose[i] = row, wanted[i] = true;
            widen(row, pixel, rows + i * length);
        }
        return rows + i * length;
    }

   private:
    // Whole vectors, of which the next ones overwrite what is too much.
    FASTCONV_NOINLINE void widen(const T* row, int64_t pixel, T* to) const {
        for (int64_t w = 0; w < pixels; ++w, row += pixel)
            for (int64_t c = 0; c < channels; ++c, to += times)
                for (int64_t i = 0; i < times; i += L) store(to + i, broadcast(row[c]));
    }
};

template <class T>
struct DepthwiseLast {
    static constexpr int L = lanes<T>;
    static constexpr int64_t most = 6, many_taps = 20;
    Problem p;
    Call call;
    const T *bias, *weight;  // [kd][kh][kw][weight_step]
    int64_t weight_step, inside, outside, groups, rows, parts;  // inside .. outside: columns whose taps are all inside the image, in so many groups
    int64_t phases, shared;  // columns of a tile are `phases` apart, which is `shared` taps; 0: not 1 or 2, or not worth it
    int64_t channels, pixel;  // of the output; from one pixel of the input, or of widened rows, to the next
    int64_t run;              // the most columns of a run, 0: a pixel at a time
    int64_t whole_from, whole_to;  // columns whose taps are all inside: with `listed` tiles reach beyond them
    bool listed;
    int64_t at_once;          // channels that are computed of all pixels before the next ones: their weights and inputs stay in L1

    static bool applies(const Problem& p, const Call& c) {
        return p.in_channels == 1 && WidenedRows<T>::suits(p) && (c.input.channel == 1 || p.groups == 1) &&
               c.output.channel == 1 && (!c.residual.data || c.residual.channel == 1);
    }

    DepthwiseLast(const Problem& problem, const Call& c, const T* bias_, const T* weight_, int64_t weight_step_, int threads)
        : p(problem), call(c), bias(bias_), weight(weight_), weight_step(weight_step_), rows(p.batch * p.output[0] * p.output[1]),
          channels(p.groups * p.out_channels), pixel(p.out_channels > 1 ? channels : c.input.space[2]) {
        inside = std::min(p.output[2], ceil_div(std::max<int64_t>(p.pad_lo[2], 0), p.stride[2]));
        const int64_t room = p.input[2] - 1 - (p.kernel[2] - 1) * p.dilation[2] + p.pad_lo[2];
        outside = room < 0 || rounds_products(p) ? inside : std::max(inside, std::min(p.output[2], room / p.stride[2] + 1));
        const bool whole = p.dilation[2] % p.stride[2] == 0;
        phases = whole && outside - inside >= 4 * (p.dilation[2] / p.stride[2]) ? p.dilation[2] / p.stride[2] : 1;
        shared = phases * p.stride[2] == p.dilation[2] ? 1 : p.stride[2] == 2 * p.dilation[2] ? 2 : 0;
        if (p.kernel[2] == 1) shared = 0;  // a single tap shares nothing, and its loop is shorter
        run = longest_run();
        whole_from = inside, whole_to = outside;
        const int64_t edges = p.output[2] - (outside - inside);
        listed = most_shared > 0 && shared == 1 && phases == 1 && !run && !rounds_products(p) &&
                 (kernel_volume(p) >= many_taps ? edges > 0 : 8 * edges >= p.output[2]);
        if (listed) inside = 0, outside = p.output[2];
        at_once = run || p.out_channels > 1 || kernel_volume(p) < many_taps ? channels : 4 * L;
        groups = run ? ceil_div(outside - inside, most * run) : phases * groups_of_phase();
        parts = threads_for(multiply_adds(p), worth_a_thread::depthwise, threads);
        parts = std::min(parts, units());
    }
    int64_t groups_of_phase() const { return ceil_div(ceil_div(outside - inside, phases), most); }
    int64_t in_a_row() const { return groups + p.output[2] - (outside - inside); }
    int64_t units() const { return rows * in_a_row(); }

    // Runs of 16 vectors, or less in short rows, where they have half the vectors of as many pixels: they share no inputs.
    int64_t longest_run() const {
        const int64_t columns = std::min((outside - inside) / most, most_of_a_run(p));
        const auto lies_dense = [&](const View& v) { return !v.data || v.space[2] == channels; };
        if (channels == 1 || columns < 1 || !runs_on<T>(channels) || p.stride[2] != 1) return 0;
        if (pixel != channels || !lies_dense(call.output) || !lies_dense(call.residual)) return 0;
        return 2 * ceil_div(columns * channels, L) <= columns ? columns : 0;
    }
    static int64_t most_of_a_run(const Problem& p) { return ceil_div(16 * L, p.groups * p.out_channels); }

    struct Scratch {
        PixelRow<T>* row;
        int64_t* column;
        T* zeros;
        int64_t zero_count;
        WidenedRows<T> widened;
        size_t bytes;
        Scratch(const Problem& p, void* base) : Scratch(p, Arena(base)) {}
        Scratch(const Problem& p, Arena arena)
            : row(arena.take<PixelRow<T>>(p.kernel[0] * p.kernel[1])), column(arena.take<int64_t>(p.kernel[2] + most)), zeros(nullptr),
              zero_count(most_of_a_run(p) * p.groups * p.out_channels + 2 * L), widened(p, arena) {
            zeros = arena.take<T>(zero_count);
            bytes = arena.used();
        }
    };

    static Crew crew(const Problem& p, const Call& call, int64_t parts) { return {p, call, parts, Scratch(p, nullptr).bytes}; }

    void compute() const {
        const Crew crew = DepthwiseLast::crew(p, call, parts);
        crew.share(units(), [&](int64_t part, const auto& each) {
            const Scratch s(p, crew.own(part));
            const Epilogue<T> epilogue(p);
            clear(s.zeros, s.zero_count);
            s.widened.start();
            each([&](int64_t begin, int64_t end) {
                for (int64_t c = 0; c < channels; c += at_once)
                    for (int64_t i = begin; i < end;) {
                        const int64_t row = i / in_a_row(), first = i % in_a_row(), last = std::min(in_a_row(), first + end - i);
                        list_rows(row, s);
                        compute(row, first, last, c, s, epilogue);
                        i += last - first;
                    }
            });
        });
    }

    void list_columns(int64_t w, int64_t count, const Scratch& s) const {
        for (int64_t k = 0; k < p.kernel[2] + count - 1; ++k) {
            const int64_t from = source(p, 2, w * p.stride[2] - p.pad_lo[2] + k * p.dilation[2]);
            s.column[k] = from < 0 ? nowhere : from * pixel;
        }
    }

    void list_rows(int64_t row, const Scratch& s) const {
        const View& x = call.input;
        const int64_t h = row % p.output[1], d = row / p.output[1] % p.output[0], image = row / p.output[1] / p.output[0];
        PixelRow<T>* to = s.row;
        for (int64_t kd = 0; kd < p.kernel[0]; ++kd) {
            const int64_t from_d = source(p, 0, d * p.stride[0] - p.pad_lo[0] + kd * p.dilation[0]);
            for (int64_t kh = 0; kh < p.kernel[1]; ++kh) {
                const int64_t from_h = source(p, 1, h * p.stride[1] - p.pad_lo[1] + kh * p.dilation[1]);
                if (from_d < 0 || from_h < 0) *to++ = {s.zeros, 0, 0, 0, true};
                else *to++ = {at<const T>(x, image, 0) + from_d * x.space[0] + from_h * x.space[1], -p.pad_lo[2] * pixel,
                              p.stride[2] * pixel, p.dilation[2] * pixel, false};
            }
        }
        if (p.out_channels == 1) return;
        s.widened.keep(s.row);
        for (PixelRow<T>* one = s.row; one < to; ++one)
            if (!one->zeros) one->begin = s.widened.of(one->begin, x.space[2]);
    }

    // The units first .. last of a row, of the channels from `channel` on: single pixels, groups, single pixels.
    void compute(int64_t row, int64_t first, int64_t last, int64_t channel, const Scratch& s, const Epilogue<T>& epilogue) const {
        const int64_t h = row % p.output[1], d = row / p.output[1] % p.output[0], image = row / p.output[1] / p.output[0];
        const auto place = [&](const View& v) { return v.data ? at<T>(v, image, 0) + d * v.space[0] + h * v.space[1] : nullptr; };
        ChannelVectors<T> in{s.row, s.column, s.zeros, weight, bias, p.kernel[0] * p.kernel[1], p.kernel[2], weight_step, channels,
                             std::min(channel + at_once, channels), 1, place(call.output), place(call.residual), call.output.space[2],
                             call.residual.space[2], &epilogue, channel};
        for (int64_t i = first; i < last; ++i) {
            const int64_t group = i - inside;
            if (group >= 0 && group < groups) {
                if (run) runs(in, group);
                else pixels(in, group, s);
                continue;
            }
            const int64_t w = group < 0 ? i : outside + group - groups;
            list_columns(w, 1, s);
            (rounds_products(p) ? rounded_channels<T> : all_channels<T, 1, 0, true>)(in, w);
        }
    }

    void pixels(ChannelVectors<T> in, int64_t group, const Scratch& s) const {
        const int64_t each = groups_of_phase(), width = outside - inside, phase = group / each, i = group % each;
        in.apart = phases;
        const int64_t all = ceil_div(width - phase, in.apart), begin = all * i / each, count = all * (i + 1) / each - begin;
        const int64_t w = inside + phase + begin * in.apart;
        if (!listed || (w >= whole_from && w + count <= whole_to)) return several(shared, count)(in, w);
        list_columns(w, count, s);
        at_an_edge(count)(in, w);
    }

    // As many columns as make equal runs, then the few that are left.
    void runs(ChannelVectors<T> in, int64_t group) const {
        const int64_t width = outside - inside, w = inside + width * group / groups, n = inside + width * (group + 1) / groups - w;
        if (n % most) several(phases == 1 ? shared : 0, n % most)(in, w);
        in.apart = n / most, in.length = in.apart * channels;
        if (in.apart) several(0, most)(in, w + n % most);
    }

    static auto several(int64_t taps, int64_t columns) {
        constexpr auto sizes = std::make_index_sequence<size_t(most)>{};
        if constexpr (most_shared > 0) {
            if (taps == 1) return by_number<1>(columns, sizes);
            if (taps == 2) return by_number<2>(columns, sizes);
        }
        return by_number<0>(columns, sizes);
    }
    static auto at_an_edge(int64_t columns) { return edges<most_shared ? 1 : 0>(columns, std::make_index_sequence<size_t(most)>{}); }
    template <int S, size_t... I>
    static auto edges(int64_t columns, std::index_sequence<I...>) {
        static constexpr void (*table[])(const ChannelVectors<T>&, int64_t) = {all_channels<T, S ? int(I) + 1 : 1, S, true>...};
        return table[columns - 1];
    }
    template <int S, size_t... I>
    static auto by_number(int64_t columns, std::index_sequence<I...>) {
        static constexpr void (*table[])(const ChannelVectors<T>&, int64_t) = {all_channels<T, int(I) + 1, S, false>...};
        return table[columns - 1];
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
