// depthwise: one input channel per group, pixels on the vector.
//
//   out[oc][h][w..] = bias[oc] + sum over kw, kh of w[oc][kh][kw] * x[h s + kh][w.. + kw]
//
// Tile: R rows (up to 8) of one vector. For each kw the kh weights stay in registers and each of the (R - 1) s + kh input rows is
// loaded once, shifted by kw, for all output rows that want it: K = 3, R = 8 has 13 loads for 24 multiply-adds. Rows are read
// where they lie: rows of padding are a row of zeros, at the left and right edge lanes outside the image are masked, and of two vectors
// every other lane is taken where w has stride 2. Only longer strides along w (whose phases are split), padding other than zeros and
// unusual strides of the array take a copy.
// Bottleneck: FMA for K >= 3 while the maps stay in cache, then memory.
#include "driver.hpp"
#include "epilogue.hpp"
#include "slab.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

template <class T>
using Mask = typename VectorOf<T>::mask;

// ---- packed weights: bias [oc], then [oc][kw][kh]

template <class T>
struct DepthwisePacking {
    int64_t channels, taps_;

    explicit DepthwisePacking(const Problem& p) : channels(p.groups * p.out_channels), taps_(taps(p)) {}
    size_t bytes(const Problem&) const { return size_t(channels * (1 + taps_)) * sizeof(T); }
};

template <class T>
void pack(const Problem& p, const void* weight, const void* bias, void* packed) {
    const T *from = static_cast<const T*>(weight), *b = static_cast<const T*>(bias);
    T* to = static_cast<T*>(packed);
    const int64_t channels = p.groups * p.out_channels;
    for (int64_t c = 0; c < channels; ++c) *to++ = b ? b[c] : T(0);
    for (int64_t c = 0; c < channels; ++c, from += taps(p))
        for (int64_t kw = 0; kw < p.kernel[2]; ++kw)
            for (int64_t kh = 0; kh < p.kernel[1]; ++kh) *to++ = from[kh * p.kernel[2] + kw];
}

// ---- the tile

template <class T>
struct Reading {  // one output channel of one plane
    const T* const* row;  // of each padded input row that is read
    const int64_t* shift;  // of each kw, from the place of output column 0
    const T *weight, *residual;
    T bias, least;  // straight stores: outputs are at least this (relu)
    T *output, *end;  // end: whole vectors may be stored up to there, null if not at all
    int64_t kh, kw, stride, step, dilation, width, columns,  // step: along w, 1 or 2
         output_row, output_step, residual_row, residual_step;
    const Epilogue<T>* epilogue;
    T* sums;  // for those that are not stored straight
    bool crowded;  // rows share sets of L1: fewer of them at a time
};

// From the sums to the output.
template <class T>
FASTCONV_NOINLINE void finish(const Reading<T>& in, int64_t h, int64_t w, int64_t rows) {
    constexpr int L = lanes<T>;
    const int64_t count = std::min<int64_t>(L, in.columns - w);
    for (int64_t r = 0; r < rows; ++r) {
        T* y = in.output + (h + r) * in.output_row + w * in.output_step;
        const T* more = in.residual ? in.residual + (h + r) * in.residual_row + w * in.residual_step : nullptr;
        if (in.output_step == 1 && (!more || in.residual_step == 1)) {
            Vec<T> sum = load(in.sums + r * L);
            if (more) sum += load_some(more, count);
            sum = (*in.epilogue)(sum);
            if (count == L || y + L <= in.end) store(y, sum);
            else store_first(y, sum, count);
        } else {
            for (int64_t l = 0; l < count; ++l) {
                const T sum = in.sums[r * L + l];
                y[l * in.output_step] = (*in.epilogue)(more ? sum + more[l * in.residual_step] : sum);
            }
        }
    }
}

// Rows h .. h + R - 1, vectors of columns last, last - lanes, ... first; W: kw where it is known, or 0; S, X: stride along h, w.
template <class T, int K, int W, int R, int S, int X, bool Edge>
FASTCONV_NOINLINE void tiles(const Reading<T>& in, int64_t h, int64_t last, int64_t first) {
    constexpr int L = lanes<T>;
    [[maybe_unused]] constexpr auto all = std::make_index_sequence<size_t(L)>{};
    const T* const* row = in.row + h * in.stride;
    const int64_t kw_count = W ? W : in.kw;
    const Vec<T> least = broadcast(in.least);
    for (int64_t w = last; w >= first; w -= L) {
        Vec<T> sum[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r] = broadcast(in.bias);
        const T* weight = in.weight;
#pragma GCC unroll 8
        for (int64_t kw = 0; kw < kw_count; ++kw, weight += in.kh) {
            const int64_t at = w * X + in.shift[kw];
            const Mask<T> mask = Edge ? lanes_between<T>(-at, in.width - at) : Mask<T>{};
            const Mask<T> more = Edge && X == 2 ? lanes_between<T>(-at - L, in.width - at - L) : Mask<T>{};
            const auto input = [&](int64_t i) __attribute__((always_inline)) {
                const Vec<T> x = Edge ? load_masked<T>(row[i] + at, mask) : load(row[i] + at);
                if constexpr (X == 1) return x;
                else {
                    const T* next = row[i] + at + L;
                    return every_other_unsorted<T, 0>(x, Edge ? load_masked<T>(next, more) : load(next), all);
                }
            };
            if constexpr (K > 0) {
                Vec<T> tap[K];
#pragma GCC unroll 8
                for (int k = 0; k < K; ++k) tap[k] = broadcast(weight[k]);
#pragma GCC unroll 24
                for (int i = 0; i < (R - 1) * S + K; ++i) {
                    const Vec<T> x = input(i);
#pragma GCC unroll 8
                    for (int k = 0; k < K; ++k)
                        if (i >= k && (i - k) % S == 0 && (i - k) / S < R) sum[(i - k) / S] += x * tap[k];
                }
            } else {
                for (int64_t k = 0; k < in.kh; ++k) {
                    const Vec<T> tap = broadcast(weight[k]);
#pragma GCC unroll 8
                    for (int r = 0; r < R; ++r) sum[r] += input(r * in.stride + k * in.dilation) * tap;
                }
            }
        }
        if constexpr (X == 2)
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[r] = sorted<T>(sum[r], all);
        T* y = in.output + h * in.output_row + w;
        if (y + (R - 1) * in.output_row + L <= in.end) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) store(y + r * in.output_row, sum[r] < least ? least : sum[r]);
        } else {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) store(in.sums + r * L, sum[r]);
            finish(in, h, w, R);
        }
    }
}

// All columns of R rows, from right to left: a vector that reaches beyond its row spoils first columns of the next rows, which
// are still to come.
template <class T, int K, int W, int R, int S, int X>
void band(const Reading<T>& in, int64_t h) {
    constexpr int L = lanes<T>;
    const int64_t last = (in.columns - 1) / L * L;  // inside: no lane of any kw is beyond the row
    const int64_t first_inside = in.shift[0] < 0 ? round_up(ceil_div(-in.shift[0], X), L) : 0;
    const int64_t room = in.width - X * L - in.shift[in.kw - 1], last_inside = std::min(last, room < 0 ? -L : room / X / L * L);
    if (first_inside > last_inside) return tiles<T, K, W, R, S, X, true>(in, h, last, 0);
    if (last_inside < last) tiles<T, K, W, R, S, X, true>(in, h, last, last_inside + L);
    tiles<T, K, W, R, S, X, false>(in, h, last_inside, first_inside);
    if (first_inside > 0) tiles<T, K, W, R, S, X, true>(in, h, first_inside - L, 0);
}

template <class T, int K, int W, int S, int X>
void plane(const Reading<T>& in, int64_t rows) {
    constexpr int most = K == 7 ? 7 : 8;
    int64_t h = 0;
    if (in.crowded)
        for (; h + 2 <= rows; h += 2) band<T, K, W, 2, S, X>(in, h);
    for (; h + most <= rows; h += most) band<T, K, W, most, S, X>(in, h);
    if (rows - h == 7) band<T, K, W, 7, S, X>(in, h), h += 7;
    if (rows - h >= 4) band<T, K, W, 4, S, X>(in, h), h += 4;
    if (rows - h >= 2) band<T, K, W, 2, S, X>(in, h), h += 2;
    if (rows - h >= 1) band<T, K, W, 1, S, X>(in, h);
}

template <class T, int K>
bool square_plane(const Reading<T>& in, int64_t rows) {
    if (in.dilation != 1 || in.kh != K || in.kw != K) return false;
    if (in.stride == 1 && in.step == 1) plane<T, K, K, 1, 1>(in, rows);
    else if (in.stride == 2 && in.step == 1) plane<T, K, K, 2, 1>(in, rows);
    else if (in.stride == 2 && in.step == 2) plane<T, K, K, 2, 2>(in, rows);
    else return false;
    return true;
}

template <class T>
void any_plane(const Reading<T>& in, int64_t rows) {
    if (square_plane<T, 3>(in, rows) || square_plane<T, 5>(in, rows) || square_plane<T, 7>(in, rows)) return;
    if (in.step == 1) plane<T, 0, 0, 1, 1>(in, rows);
    else plane<T, 0, 0, 1, 2>(in, rows);
}

// ---- one call: units are (plane, band of rows), a plane is one group of one image at one depth

template <class T>
struct Depthwise {
    static constexpr int64_t line = 64 / int64_t(sizeof(T));
    Problem p;
    Call call;
    bool raw;  // rows are read where they lie
    int64_t planes, bands, parts, band_rows, band_inputs, phase, pitch;

    Depthwise(const Problem& problem, const Call& c, int threads) : p(problem), call(c) {
        constexpr double worth_a_thread = 5e4;  // multiply-adds
        raw = p.padding_mode == PaddingMode::zeros && p.stride[2] <= 2 && (!c.input.data || c.input.space[2] == 1 || p.input[2] == 1);
        planes = p.batch * p.output[0] * p.groups;
        parts = std::max<int64_t>(1, std::min<int64_t>(threads, int64_t(multiply_adds(p) / worth_a_thread)));
        bands = planes >= 4 * parts ? 1 : std::min(ceil_div(4 * parts, planes), ceil_div(p.output[1], 8));
        band_rows = round_up(ceil_div(p.output[1], bands), 8);
        bands = ceil_div(p.output[1], band_rows);
        band_rows = std::min(band_rows, p.output[1]);
        parts = std::min(parts, planes * bands);
        band_inputs = extent(p, 1, band_rows);
        const int64_t span = extent(p, 2, p.output[2]);
        phase = p.stride[2] > 1 ? round_up(ceil_div(span, p.stride[2]), line) + line : 0;  // vectors may read past its end
        pitch = phase ? phase * p.stride[2] : round_up(span, line) + line;
    }

    struct Scratch {
        const T** row;
        int64_t *from, *shift;  // of each row of a band, where it is in a plane, or -1 for zeros
        T *zeros, *slab;
        size_t bytes;
        Scratch(const Depthwise& job, void* base, bool raw) {
            Arena arena(base);
            row = arena.take<const T*>(job.band_inputs);
            from = arena.take<int64_t>(job.band_inputs);
            shift = arena.take<int64_t>(job.p.kernel[2]);
            zeros = raw ? arena.take<T>(job.p.input[2] + line) : nullptr;
            slab = raw ? nullptr : arena.take<T>(job.band_inputs * job.pitch);
            bytes = arena.used();
        }
    };

    static size_t workspace(const Problem& p, int threads) {
        const Depthwise job(p, Call{}, threads);  // arrays of any strides: with and without a copy
        return size_t(job.parts) * std::max(Scratch(job, nullptr, false).bytes, Scratch(job, nullptr, true).bytes);
    }

    static void part(void* context, int64_t index) {
        const Depthwise& job = *static_cast<Depthwise*>(context);
        const FlushDenormals flush(!job.p.strict);
        const size_t each = std::max(Scratch(job, nullptr, false).bytes, Scratch(job, nullptr, true).bytes);
        const Scratch s(job, static_cast<char*>(job.call.workspace) + size_t(index) * each, job.raw);
        if (job.raw) clear(s.zeros, job.p.input[2] + line);
        for (int64_t k = 0; k < job.p.kernel[2]; ++k) {
            const int64_t at = k * job.p.dilation[2];
            s.shift[k] = job.raw ? at - job.p.pad_lo[2] : job.phase ? at % job.p.stride[2] * job.phase + at / job.p.stride[2] : at;
        }
        const int64_t units = job.planes * job.bands, end = units * (index + 1) / job.parts;
        int64_t listed = -1;
        for (int64_t i = units * index / job.parts; i < end; ++i) {
            // unit: band of rows x group x depth x image, so that neighbours share what is known of the rows
            const int64_t band = i % job.bands, group = i / job.bands % job.p.groups, slice = i / job.bands / job.p.groups;
            const int64_t depth = slice % job.p.output[0], place = depth * job.bands + band;
            if (listed != place) job.list_rows(depth, band * job.band_rows, s);
            listed = place;
            job.compute(slice / job.p.output[0], depth, group, band * job.band_rows, i + 1 < end && group + 1 < job.p.groups, s);
        }
    }

    // Where the padded input rows of a band come from.
    void list_rows(int64_t depth, int64_t first, const Scratch& s) const {
        const int64_t from_d = source(p, 0, depth * p.stride[0] - p.pad_lo[0]);
        for (int64_t i = 0; i < extent(p, 1, std::min(band_rows, p.output[1] - first)); ++i) {
            const int64_t from_h = source(p, 1, first * p.stride[1] - p.pad_lo[1] + i);
            s.from[i] = from_d < 0 || from_h < 0 ? -1 : from_d * call.input.space[0] + from_h * call.input.space[1];
        }
    }

    // followed: this thread goes on with the next channel of the same image
    void compute(int64_t image, int64_t depth, int64_t group, int64_t first, bool followed, const Scratch& s) const {
        const int64_t rows = std::min(band_rows, p.output[1] - first);
        place_rows(at<const T>(call.input, image, group), extent(p, 1, rows), s);
        const Epilogue<T> epilogue(p);
        const T* packed = static_cast<const T*>(call.packed);
        const int64_t channels = p.groups * p.out_channels, tap_count = taps(p);
        const bool dense = call.output.space[1] == p.output[2] && call.output.space[2] == 1;
        const bool simple = !call.residual.data && epilogue.is_limit();
        // a vector may also reach into the next channel, as far as that one goes
        const bool runs_on = followed && bands == 1 && p.output[0] == 1 && call.output.channel == p.output[1] * p.output[2];
        const int64_t beyond = runs_on ? std::min<int64_t>(lanes<T>, p.output[1] * p.output[2]) : 0;
        alignas(vector_bytes) T sums[8 * lanes<T>];
        for (int64_t c = group * p.out_channels; c < (group + 1) * p.out_channels; ++c) {
            T* y = at<T>(call.output, image, c) + depth * call.output.space[0] + first * call.output.space[1];
            const T* r = at<const T>(call.residual, image, c);
            if (r) r += depth * call.residual.space[0] + first * call.residual.space[1];
            const Reading<T> reading{
                s.row, s.shift, packed + channels + c * tap_count, r, packed[c],
                epilogue.least(), y,
                dense && simple ? y + rows * p.output[2] + beyond : nullptr, p.kernel[1], p.kernel[2], p.stride[1], raw ? p.stride[2] : 1,
                p.dilation[1], raw ? p.input[2] : pitch, p.output[2], call.output.space[1], call.output.space[2],
                call.residual.space[1], call.residual.space[2], &epilogue, sums,
                crowds(call.output.space[1]) || crowds(raw ? call.input.space[1] : pitch)};
            any_plane(reading, rows);
        }
    }

    static bool crowds(int64_t stride) { return stride * int64_t(sizeof(T)) % 4096 == 0; }

    void place_rows(const T* x, int64_t count, const Scratch& s) const {
        if (raw) {
            for (int64_t i = 0; i < count; ++i) s.row[i] = s.from[i] < 0 ? s.zeros : x + s.from[i];
            return;
        }
        const int64_t span = extent(p, 2, p.output[2]), strands = phase ? p.stride[2] : 1;
        for (int64_t i = 0; i < count; ++i) s.row[i] = s.slab + i * pitch;
        for (int64_t f = 0; f < strands; ++f) {
            const Strand strand(p, f - p.pad_lo[2], strands, ceil_div(span - f, strands));
            T* to = s.slab + f * phase;
            for (int64_t i = 0; i < count; ++i, to += pitch) {
                if (s.from[i] < 0) clear(to, strand.count);
                else fill_row(p, strand, x + s.from[i], call.input.space[2], to);
            }
        }
    }
};

const char* refusal(const Problem& p) {
    if (p.in_channels != 1) return "computes one input channel per group only";
    if (p.kernel[0] != 1) return "has kernels of one or two axes only";
    return nullptr;
}

template <class T>
void run(const Problem& p, const Call& call) {
    Depthwise<T> job(p, call, call.threads);
    call.parallel_for(job.parts, Depthwise<T>::part, &job);
}

}  // namespace

const Algorithm& depthwise_algorithm() {
    static const Algorithm algorithm = {
        "depthwise",
        refusal,
        [](const Problem& p) { return p.dtype == Dtype::float32 ? DepthwisePacking<float>(p).bytes(p) : DepthwisePacking<double>(p).bytes(p); },
        [](const Problem& p, int threads) {
            return (p.dtype == Dtype::float32 ? Depthwise<float>::workspace : Depthwise<double>::workspace)(p, threads);
        },
        [](const Problem& p, const void* weight, const void* bias, void* packed, int, ParallelFor) {
            (p.dtype == Dtype::float32 ? pack<float> : pack<double>)(p, weight, bias, packed);
        },
        [](const Problem& p, const Call& call) { (p.dtype == Dtype::float32 ? run<float> : run<double>)(p, call); },
    };
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
