// depthwise_input: the gradient of the input, one channel per group, which each element is written to once.
//
//   dx[c][i] = bias[c] + sum over all taps t and outputs j with j s + t d - p = i of w[c][t] * dy[c][j]
//
// Rows with a stride of 2 are two strands, of the even and the odd elements: each a convolution of rows of dy with every other tap, and so
// are columns with any stride (phases, see fastconv/lowering.py). Pixels are on the vector: R rows of a phase, a vector of each strand,
// which become two vectors of a row of dx in registers. dy is a quarter of dx: its rows are copied with zeros around them, so that no load
// has a mask. Planes of few pixels, with any stride, see depthwise_planes.hpp.
// The zeros around dy are nothing that outputs have read: a channel with weights that are not finite is summed by the definition.
// Bottleneck: memory, written once; in the caches loads across lines, of which there are as many as taps for every two vectors and row.
#include "depthwise_planes.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

template <class T>
struct Strands {  // of R rows and a vector of columns
    const PlaneTap *even, *odd, *end;  // taps of the even strand up to `odd`, of the odd one up to `end`
    const T* weight;
    T bias;
    int64_t pitch;                     // of the copy of dy
    int64_t columns, row, step;        // of dx: elements of a row, from row to row of a phase, from element to element
    int64_t more_row, more_step;       // of the residual
    const Epilogue<T>* epilogue;
};

template <class T, int R>
FASTCONV_NOINLINE void finish_strands(const Strands<T>& in, const T* sums, int64_t column, T* y, const T* more) {
    constexpr int64_t L = lanes<T>;
    const int64_t count = std::min<int64_t>(2 * L, in.columns - column);
    for (int64_t r = 0; r < R; ++r, sums += 2 * L, y += in.row, more += more ? in.more_row : 0) {
        for (int64_t i = 0; i < count; i += L) {
            const int64_t n = std::min(L, count - i);
            T value[L] = {};
            for (int64_t l = 0; more && l < n; ++l) value[l] = more[(column + i + l) * in.more_step];
            Vec<T> sum = load(sums + i);
            if (more) sum += load(value);
            sum = (*in.epilogue)(sum);
            T* to = y + (column + i) * in.step;
            if (in.step == 1 && n == L) store(to, sum);
            else if (in.step == 1) store_first(to, sum, n);
            else {
                store(value, sum);
                for (int64_t l = 0; l < n; ++l) to[l * in.step] = value[l];
            }
        }
    }
}

// R rows of a phase; x: the first of them in the copy of dy.
template <class T, int R>
FASTCONV_KERNEL void strands(const Strands<T>& in, const T* x, T* y, const T* more) {
    constexpr int64_t L = lanes<T>;
    const Limited<T> limited(*in.epilogue);
    const bool simple = in.step == 1 && !more && in.epilogue->is_limit();
    const bool overlaps = simple && in.columns >= 2 * L && in.columns % 2 == 0;  // the last vectors their neighbours
    for (int64_t next = 0; next < in.columns; next += 2 * L) {
        const int64_t column = overlaps ? std::min(next, in.columns - 2 * L) : next, left = in.columns - column;
        const T* const begin = x + column / 2;
        const PlaneTap* tap = in.even;
        const auto strand = [&](Vec<T> (&sum)[R], const PlaneTap* end) __attribute__((always_inline)) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[r] = broadcast(in.bias);
            for (; tap != end; ++tap) {
                const T* const from = begin + tap->from;
                const Vec<T> factor = broadcast(in.weight[tap->weight]);
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) sum[r] += load(from + r * in.pitch) * factor;
            }
        };
        Vec<T> even[R], odd[R];
        strand(even, in.odd);
        strand(odd, in.end);
        if (simple && left >= 2 * L) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                T* const to = y + r * in.row + column;
                const Vec<T> low = by_turns<T, false>(even[r], odd[r]), high = by_turns<T, true>(even[r], odd[r]);
                store(to, limited(low)), store(to + L, limited(high));
            }
            continue;
        }
        if (simple) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                T* const to = y + r * in.row + column;
                const Vec<T> low = by_turns<T, false>(even[r], odd[r]), high = by_turns<T, true>(even[r], odd[r]);
                if (left < L) store_first(to, limited(low), left);
                else store(to, limited(low)), store_first(to + L, limited(high), left - L);
            }
            continue;
        }
        alignas(vector_bytes) T sums[R * 2 * L];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            store(sums + r * 2 * L, by_turns<T, false>(even[r], odd[r]));
            store(sums + r * 2 * L + L, by_turns<T, true>(even[r], odd[r]));
        }
        finish_strands<T, R>(in, sums, column, y, more);
    }
}

template <class T>
using StrandsOf = void (*)(const Strands<T>&, const T*, T*, const T*);

template <class T, size_t... I>
StrandsOf<T> strands_of(int64_t rows, std::index_sequence<I...>) {
    static constexpr StrandsOf<T> table[] = {strands<T, int(I) + 1>...};
    return table[rows - 1];
}

// ---- one call: units are (band of rows of dx, channel, depth, image)

template <class T>
struct InterleavedRows {
    static constexpr int64_t L = lanes<T>, line = 64 / int64_t(sizeof(T)), most_rows = vector_bytes > 32 ? 8 : 6;
    static constexpr int64_t slab_bytes = 96 << 10, least_rows = 16;  // of a band
    Problem p;
    Call call;
    const T *weight, *bias;
    Phase strand[2];
    int64_t before, pitch;  // of a row of the copy: zeros in front, length
    int64_t planes, bands, band_rows, parts;

    static bool suits(const Problem& p) {
        for (int a : {1, 2})  // else there may be far more zeros than anything else
            if ((p.kernel[a] - 1) * p.dilation[a] + p.pad_lo[a] > 2 * (p.input[a] + p.output[a]) + 64) return false;
        return p.stride[2] == 2 && p.kernel[0] == 1 && p.stride[0] == 1 && p.input[0] == p.output[0] && p.pad_lo[0] == 0;
    }

    InterleavedRows(const Problem& problem, const Call& c, int threads)
        : p(problem), call(c), weight(static_cast<const T*>(c.packed)), bias(static_cast<const T*>(c.bias)) {
        for (int64_t i = 0; i < 2; ++i) strand[i] = i < p.input[2] ? phase_of(p, 2, i) : Phase{};
        const int64_t reached = round_up(ceil_div(p.input[2], 2), L);  // lanes, some of them beyond the row
        int64_t begin = 0, end = p.output[2];
        for (const Phase& one : strand)
            if (one.taps) begin = std::min(begin, one.from), end = std::max(end, one.from + reached + (one.taps - 1) * one.near);
        before = round_up(-begin, line), pitch = round_up(before + end, line);
        if (pitch * int64_t(sizeof(T)) % 1024 == 0) pitch += line;  // rows do not share sets of L1
        planes = p.batch * p.input[0] * p.groups;
        parts = threads_for(multiply_adds(p), worth_a_thread::depthwise, threads);
        bands = planes >= 4 * parts ? 1 : std::min(ceil_div(4 * parts, planes), ceil_div(p.input[1], least_rows));
        band_rows = ceil_div(p.input[1], bands);
        while (band_rows > least_rows && most_copied() * pitch * int64_t(sizeof(T)) > slab_bytes) band_rows = ceil_div(band_rows, 2);
        bands = ceil_div(p.input[1], band_rows);
        parts = std::min(parts, planes * bands);
    }

    int64_t most_copied() const { return ceil_div(band_rows + (p.kernel[1] - 1) * p.dilation[1], p.stride[1]) + 2; }  // rows of a band

    struct RowsOf { Phase along; int64_t tap, odd, end; };  // a phase along h, and its taps
    struct Scratch {
        RowsOf* phase;
        PlaneTap* tap;
        T* slab;
        size_t bytes;
        Scratch(const InterleavedRows& j, void* base) {
            Arena arena(base);
            phase = arena.take<RowsOf>(phases_along(j.p, 1));
            tap = arena.take<PlaneTap>(kernel_volume(j.p));
            slab = arena.take<T>(j.most_copied() * j.pitch);
            bytes = arena.used();
        }
    };

    Crew crew() const { return {p, call, parts, Scratch(*this, nullptr).bytes}; }

    void compute() const {
        const Crew crew = this->crew();
        crew.share(planes * bands, [&](int64_t part, const auto& each) {
            const Scratch s(*this, crew.own(part));
            list(s);
            const Epilogue<T> epilogue(p);
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) compute(i, epilogue, s);
            });
        });
    }

    void list(const Scratch& s) const {
        clear(s.slab, most_copied() * pitch);
        int64_t i = 0;
        for (int64_t h = 0; h < phases_along(p, 1); ++h) {
            const Phase along = phase_of(p, 1, h);
            s.phase[h] = {along, i, 0, 0};
            for (int64_t odd = 0; odd < 2; ++odd) {
                const Phase& of = strand[odd];
                (odd ? s.phase[h].odd : s.phase[h].tap) = i;
                for (int64_t kw = 0; kw < of.taps; ++kw)
                    for (int64_t kh = 0; kh < along.taps; ++kh)
                        s.tap[i++] = {kh * along.near * pitch + before + of.from + kw * of.near,
                                      (along.tap + kh * along.tap_step) * p.kernel[2] + of.tap + kw * of.tap_step};
            }
            s.phase[h].end = i;
        }
    }

    // Outputs of a phase up to row h of dx.
    static int64_t up_to(const Phase& of, int64_t h) { return h <= of.first ? 0 : ceil_div(h - of.first, of.step); }

    void compute(int64_t unit, const Epilogue<T>& epilogue, const Scratch& s) const {
        const int64_t band = unit % bands, c = unit / bands % p.groups, depth = unit / bands / p.groups % p.input[0];
        const int64_t image = unit / bands / p.groups / p.input[0], begin = band * band_rows, end = std::min(begin + band_rows, p.input[1]);
        const View &from = call.gradient, &to = call.output, &add = call.residual;
        const T* x = at<const T>(from, image, c) + depth * from.space[0];
        T* y = at<T>(to, image, c) + depth * to.space[0];
        const T* more = at<const T>(add, image, c);
        if (more) more += depth * add.space[0];
        const T* w = weight + c * kernel_volume(p);
        const T b = bias ? bias[c] : T(0);
        if (!is_finite(w)) return sum_spoiled(x, w, b, epilogue, begin, end, y, more);
        const int64_t first = copy_rows(x, begin, end, s);
        Strands<T> in{nullptr, nullptr, nullptr, w, b, pitch, p.input[2], 0, to.space[2], 0, add.space[2], &epilogue};
        for (int64_t i = 0; i < phases_along(p, 1); ++i) {
            const RowsOf& phase = s.phase[i];
            const Phase& of = phase.along;
            in.even = s.tap + phase.tap, in.odd = s.tap + phase.odd, in.end = s.tap + phase.end;
            in.row = of.step * to.space[1], in.more_row = of.step * add.space[1];
            const int64_t m = up_to(of, begin), count = up_to(of, end) - m, tiles = ceil_div(count, most_rows);
            for (int64_t t = 0; t < tiles; ++t) {
                const int64_t at = m + count * t / tiles, rows = m + count * (t + 1) / tiles - at, h = of.first + at * of.step;
                constexpr auto all = std::make_index_sequence<size_t(most_rows)>{};
                strands_of<T>(rows, all)(in, of.taps ? s.slab + (of.from + at - first) * pitch : s.slab, y + h * to.space[1],
                                         more ? more + h * add.space[1] : nullptr);
            }
        }
    }

    // What rows begin .. end - 1 of dx read of dy; returns the first row.
    int64_t copy_rows(const T* x, int64_t begin, int64_t end, const Scratch& s) const {
        int64_t first = INT64_MAX, last = INT64_MIN;
        for (int64_t i = 0; i < phases_along(p, 1); ++i) {
            const Phase& of = s.phase[i].along;
            const int64_t m = up_to(of, begin), stop = up_to(of, end);
            if (!of.taps || m >= stop) continue;
            first = std::min(first, of.from + m), last = std::max(last, of.from + stop - 1 + (of.taps - 1) * of.near);
        }
        T* to = s.slab + before;
        for (int64_t h = first; h <= last; ++h, to += pitch) {
            if (h < 0 || h >= p.output[1]) clear(to, p.output[2]);
            else copy_strided(to, x + h * call.gradient.space[1], call.gradient.space[2], p.output[2]);
        }
        return first;
    }

    bool is_finite(const T* w) const {
        T sum = 0;
        for (int64_t k = 0; k < kernel_volume(p); ++k) sum += w[k] * T(0);
        return sum == 0;
    }

    FASTCONV_NOINLINE void sum_spoiled(const T* x, const T* w, T b, const Epilogue<T>& epilogue, int64_t begin, int64_t end, T* y,
                                       const T* more) const {
        const View &to = call.output, &add = call.residual;
        for (int64_t h = begin; h < end; ++h)
            for (int64_t i = 0; i < p.input[2]; ++i) {
                const T sum = sum_of_input(p, x, call.gradient, w, b, 0, h, i);
                y[h * to.space[1] + i * to.space[2]] = epilogue(more ? sum + more[h * add.space[1] + i * add.space[2]] : sum);
            }
    }
};

template <class T>
struct DepthwiseInputAlgorithm : Defaults {
    static const char* refuses(const Problem& p) {
        if (p.direction != Direction::backward_input) return "computes the gradient of the input only";
        if (p.in_channels != 1 || p.out_channels != 1) return "computes one input and one output channel per group only";
        if (p.padding_mode != PaddingMode::zeros) return "computes the gradient of an input that is padded with zeros only";
        if (p.strict) return "accuracy='strict' rounds products first, which it does not";
        return InterleavedRows<T>::suits(p) || SmallPlanes<T>::suits(p)
                   ? nullptr : "computes planes of few pixels, and others with a stride of 2 along the last axis only";
    }
    // Where rows would leave most lanes empty, or are not computed; of channels that lie side by side, wherever it can be.
    static bool by_planes(const Problem& p, bool last) {
        const bool narrow = p.input[2] * int64_t(sizeof(T)) <= (vector_bytes > 16 ? 80 : 56) && 2 * p.groups > lanes<T>;
        return !InterleavedRows<T>::suits(p) || ((narrow || last) && SmallPlanes<T>::suits(p));
    }
    static size_t packed_bytes(const Problem&) { return 0; }
    static size_t workspace_bytes(const Problem& p, int threads) {
        const size_t by_rows = by_planes(p, false) ? 0 : InterleavedRows<T>(p, Call{}, threads).crew().bytes();
        return std::max(by_rows, by_planes(p, true) ? planes(p, Call{}, threads).crew().bytes() : 0);
    }
    static void run(const Problem& p, const Call& call) {
        if (by_planes(p, call.output.channel == 1 && p.groups > 1)) planes(p, call, call.threads).compute();
        else InterleavedRows<T>(p, call, call.threads).compute();
    }
    static SmallPlanes<T> planes(const Problem& p, const Call& call, int threads) {
        return {p, call, static_cast<const T*>(call.packed), static_cast<const T*>(call.bias), 0, threads};
    }
};

}  // namespace

const Algorithm& depthwise_input_algorithm() {
    static const Algorithm algorithm =
        algorithm_of<DepthwiseInputAlgorithm<float>, DepthwiseInputAlgorithm<double>>("depthwise_input");
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
