// depthwise: one input channel per group, pixels on the vector.
//
//   out[oc][h][w..] = bias[oc] + sum over kw, kh of w[oc][kh][kw] * x[h s + kh][w.. + kw]
//
// Tile: R rows (up to 8) of one vector. For each kw the kh weights stay in registers and each of the (R - 1) s + kh input rows is
// loaded once, shifted by kw, for all output rows that want it: K = 3, R = 8 has 13 loads for 24 multiply-adds. Rows are read
// where they lie: rows of padding are a row of zeros, at the left and right edge lanes outside the image are masked. Only a stride
// along w (whose phases are split), padding other than zeros and unusual strides take a copy.
// Bottleneck: FMA for K >= 3 while the maps stay in cache, then memory.
#include "driver.hpp"
#include "epilogue.hpp"
#include "slab.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

// ---- loads of some lanes

template <class T>
using Mask = typename VectorOf<T>::mask;

// Lanes first <= l < end are all ones, the others 0.
template <class T>
FASTCONV_INLINE Mask<T> lanes_between(int64_t first, int64_t end) {
    constexpr int L = lanes<T>;
    typedef typename VectorOf<T>::Int Int;
    static const struct Table {
        Int of[3 * L];
        constexpr Table() : of{} {
            for (int i = L; i < 2 * L; ++i) of[i] = Int(-1);
        }
    } table;
    typedef Mask<T> unaligned __attribute__((aligned(alignof(T)), may_alias));
    const auto window = [](int64_t at) __attribute__((always_inline)) { return *reinterpret_cast<const unaligned*>(table.of + at); };
    const int64_t low = std::min<int64_t>(std::max<int64_t>(first, 0), L), high = std::min<int64_t>(std::max<int64_t>(end, 0), L);
    return window(L - low) & window(2 * L - high);
}

// Memory of lanes that are not asked for is not touched; they are 0.
template <class T>
FASTCONV_INLINE Vec<T> load_masked(const T* p, Mask<T> mask) {
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
    T bias;
    T *output, *end;
    int64_t kh, kw, stride, dilation, width, columns, output_row, output_step, residual_row, residual_step;
    const Epilogue<T>* epilogue;
};

// Rows h .. h + R - 1, columns w .. w + lanes - 1.
template <class T, int K, int R, int S, bool Edge>
FASTCONV_NOINLINE void tile(const Reading<T>& in, int64_t h, int64_t w) {
    constexpr int L = lanes<T>;
    Vec<T> sum[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sum[r] = broadcast(in.bias);
    const T* weight = in.weight;
    const T* const* row = in.row + h * in.stride;
    for (int64_t kw = 0; kw < in.kw; ++kw, weight += in.kh) {
        const int64_t at = w + in.shift[kw];
        const Mask<T> mask = Edge ? lanes_between<T>(-at, in.width - at) : Mask<T>{};
        const auto input = [&](int64_t i) __attribute__((always_inline)) {
            return Edge ? load_masked<T>(row[i] + at, mask) : load(row[i] + at);
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
    const int64_t count = std::min<int64_t>(L, in.columns - w);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
        T* y = in.output + (h + r) * in.output_row + w * in.output_step;
        const T* more = in.residual ? in.residual + (h + r) * in.residual_row + w * in.residual_step : nullptr;
        if (in.output_step != 1 || (more && in.residual_step != 1)) {
            T lane[L];
            store(lane, sum[r]);
            for (int64_t l = 0; l < count; ++l) {
                const T value = more ? lane[l] + more[l * in.residual_step] : lane[l];
                y[l * in.output_step] = (*in.epilogue)(value);
            }
        } else if (count == L) {
            if (more) sum[r] += load(more);
            store(y, (*in.epilogue)(sum[r]));
        } else if (!more && y + L <= in.end) {
            store(y, (*in.epilogue)(sum[r]));  // also over the next rows' first columns, which are still to come
        } else {
            if (more) sum[r] += load_first(more, count);
            store_first(y, (*in.epilogue)(sum[r]), count);
        }
    }
}

// All columns of R rows, from right to left (see `end`).
template <class T, int K, int R, int S>
void band(const Reading<T>& in, int64_t h) {
    constexpr int L = lanes<T>;
    for (int64_t w = (in.columns - 1) / L * L; w >= 0; w -= L) {
        const bool inside = w + in.shift[0] >= 0 && w + in.shift[in.kw - 1] + L <= in.width;
        if (inside) tile<T, K, R, S, false>(in, h, w);
        else tile<T, K, R, S, true>(in, h, w);
    }
}

template <class T, int K, int S>
void plane(const Reading<T>& in, int64_t rows) {
    constexpr int most = K == 7 ? 7 : 8;
    int64_t h = 0;
    for (; h + most <= rows; h += most) band<T, K, most, S>(in, h);
    if (rows - h == 7) band<T, K, 7, S>(in, h), h += 7;
    if (rows - h >= 4) band<T, K, 4, S>(in, h), h += 4;
    if (rows - h >= 2) band<T, K, 2, S>(in, h), h += 2;
    if (rows - h >= 1) band<T, K, 1, S>(in, h);
}

template <class T>
void any_plane(const Reading<T>& in, int64_t rows) {
    const int64_t stride = in.dilation == 1 ? in.stride : 0;
    if (in.kh == 3 && stride == 1) plane<T, 3, 1>(in, rows);
    else if (in.kh == 5 && stride == 1) plane<T, 5, 1>(in, rows);
    else if (in.kh == 7 && stride == 1) plane<T, 7, 1>(in, rows);
    else if (in.kh == 3 && stride == 2) plane<T, 3, 2>(in, rows);
    else if (in.kh == 5 && stride == 2) plane<T, 5, 2>(in, rows);
    else if (in.kh == 7 && stride == 2) plane<T, 7, 2>(in, rows);
    else plane<T, 0, 1>(in, rows);
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
        raw = p.padding_mode == PaddingMode::zeros && p.stride[2] == 1 && (!c.input.data || c.input.space[2] == 1 || p.input[2] == 1);
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
        int64_t* shift;
        T *zeros, *slab;
        size_t bytes;
        Scratch(const Depthwise& job, void* base, bool raw) {
            Arena arena(base);
            row = arena.take<const T*>(job.band_inputs);
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
        const int64_t units = job.planes * job.bands;
        for (int64_t i = units * index / job.parts; i < units * (index + 1) / job.parts; ++i)
            job.compute(i / job.bands, i % job.bands * job.band_rows, s);
    }

    void compute(int64_t plane_index, int64_t first, const Scratch& s) const {
        const int64_t group = plane_index % p.groups, depth = plane_index / p.groups % p.output[0];
        const int64_t image = plane_index / p.groups / p.output[0];
        const int64_t rows = std::min(band_rows, p.output[1] - first), from_d = source(p, 0, depth * p.stride[0] - p.pad_lo[0]);
        const T* x = at<const T>(call.input, image, group) + std::max<int64_t>(from_d, 0) * call.input.space[0];
        list_rows(x, from_d < 0, first, rows, s);
        const Epilogue<T> epilogue(p);
        const T* packed = static_cast<const T*>(call.packed);
        const int64_t channels = p.groups * p.out_channels, tap_count = taps(p);
        for (int64_t c = group * p.out_channels; c < (group + 1) * p.out_channels; ++c) {
            T* y = at<T>(call.output, image, c) + depth * call.output.space[0] + first * call.output.space[1];
            const T* r = at<const T>(call.residual, image, c);
            if (r) r += depth * call.residual.space[0] + first * call.residual.space[1];
            const bool dense = call.output.space[1] == p.output[2];
            const Reading<T> reading{
                s.row, s.shift, packed + channels + c * tap_count, r, packed[c], y, dense ? y + rows * p.output[2] : nullptr,
                p.kernel[1], p.kernel[2], p.stride[1], p.dilation[1], raw ? p.input[2] : pitch, p.output[2], call.output.space[1],
                call.output.space[2], call.residual.space[1], call.residual.space[2], &epilogue};
            any_plane(reading, rows);
        }
    }

    // Where each padded input row of a band begins.
    void list_rows(const T* x, bool all_zero, int64_t first, int64_t rows, const Scratch& s) const {
        const View& view = call.input;
        const int64_t span = extent(p, 2, p.output[2]), strands = phase ? p.stride[2] : 1;
        for (int64_t i = 0; i < extent(p, 1, rows); ++i) {
            const int64_t from = source(p, 1, first * p.stride[1] - p.pad_lo[1] + i);
            const bool zero = all_zero || from < 0;
            if (raw) {
                s.row[i] = zero ? s.zeros : x + from * view.space[1];
                continue;
            }
            T* to = s.slab + i * pitch;
            s.row[i] = to;
            for (int64_t f = 0; f < strands; ++f, to += phase) {
                const Strand strand(p, f - p.pad_lo[2], strands, ceil_div(span - f, strands));
                if (zero) clear(to, strand.count);
                else fill_row(p, strand, x + from * view.space[1], view.space[2], to);
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
