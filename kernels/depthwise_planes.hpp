// depthwise where planes are small: channels on the vector, after a transposition in registers.
//
//   out[pixel][c] = bias[c] + sum over kd, kw, kh of w[tap][c] * x[window of the pixel + tap][c]
//
// A row of few pixels would leave most lanes empty. Here the planes of two vectors of channels become a slab, [padded position][channel],
// L positions of L channels at a time. A list says where the window of each output begins there, another one where its taps lie, and up to
// 8 outputs are summed side by side, whatever their rows: 8 x 2 sums, 18 loads for 16 multiply-adds. What comes out is transposed back. A
// gradient of the input with strides is as many such problems as it has phases (fastconv/lowering.py), each with lists of its own.
// Sums run column of the kernel by column, as those of rows (depthwise_tile.hpp).
// Bottleneck: loads and multiply-adds, one a cycle each; 4 shuffles on the way in and out for each vector.
#pragma once
#include <numeric>

#include "crew.hpp"
#include "epilogue.hpp"
#include "window.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// Along an axis: outputs first, first + step, ..., whose windows begin at inputs from, from + apart, ... (less than 0: in the padding)
// and meet every tap_step-th tap of the kernel from `tap` on, `near` inputs apart.
struct Phase {
    int64_t first, step, count, from, apart, tap, tap_step, taps, near;

    int64_t end() const { return taps ? from + (count - 1) * apart + (taps - 1) * near + 1 : 0; }  // of what it reads
};

inline int64_t phases_along(const Problem& p, int a) {
    return p.direction == Direction::forward ? 1 : std::min(p.stride[a], p.input[a]);
}

// Of the forward direction there is one; of the gradient of the input they are those of fastconv/lowering.py.
inline Phase phase_of(const Problem& p, int a, int64_t first) {
    const int64_t s = p.stride[a], d = p.dilation[a], k = p.kernel[a];
    if (p.direction == Direction::forward) return {0, 1, p.output[a], -p.pad_lo[a], s, 0, 1, k, d};
    const int64_t common = std::gcd(s, d), every = s / common, near = d / common;
    const int64_t start = (first + p.pad_lo[a]) / s, phase = (first + p.pad_lo[a]) % s, count = ceil_div(p.input[a] - first, s);
    int64_t tap = 0;
    while (tap < std::min(every, k) && tap * d % s != phase) ++tap;
    if (tap >= std::min(every, k)) return {first, s, count, 0, 1, 0, 1, 0, 1};  // meets no tap
    const int64_t taps = ceil_div(k - tap, every), latest = start - (tap * d - phase) / s;
    return {first, s, count, latest - (taps - 1) * near, 1, tap + (taps - 1) * every, -every, taps, near};
}

// Of the sizes along the axes, the first one is the slowest.
inline int64_t place_in(const int64_t* sizes, int64_t d, int64_t h, int64_t w) { return (d * sizes[1] + h) * sizes[2] + w; }
inline int64_t volume_of(const int64_t* sizes) { return sizes[0] * sizes[1] * sizes[2]; }

// Whether the elements of a plane follow each other.
inline bool is_dense(const View& v, const int64_t* sizes) {
    int64_t step = 1;
    for (int a = max_axes - 1; a >= 0; step *= sizes[a--])
        if (sizes[a] > 1 && v.space[a] != step) return false;
    return true;
}

// One element of the gradient of the input by the definition, for weights that are not finite: no product but what outputs have made.
template <class T>
FASTCONV_NOINLINE T sum_of_input(const Problem& p, const T* gradient, const View& v, const T* weight, T sum, int64_t d, int64_t h,
                                 int64_t w) {
    const auto along = [&](int a, int64_t i, int64_t k) {  // the output that reads input i by tap k, or -1
        const int64_t at = i + p.pad_lo[a] - k * p.dilation[a];
        return at >= 0 && at % p.stride[a] == 0 && at / p.stride[a] < p.output[a] ? at / p.stride[a] : -1;
    };
    for (int64_t kd = 0; kd < p.kernel[0]; ++kd)
        for (int64_t kw = 0; kw < p.kernel[2]; ++kw)
            for (int64_t kh = 0; kh < p.kernel[1]; ++kh) {
                const int64_t od = along(0, d, kd), oh = along(1, h, kh), ow = along(2, w, kw);
                if (od < 0 || oh < 0 || ow < 0) continue;
                sum += gradient[od * v.space[0] + oh * v.space[1] + ow * v.space[2]] * weight[place_in(p.kernel, kd, kh, kw)];
            }
    return sum;
}

struct PlaneTap { int64_t from, weight; };               // offsets: from where a window begins in the slab; in the weights
struct PlaneOutput { int64_t from, to; };                // where its window begins in the slab, where it goes
struct PlanePhase { int64_t first, count, tap, taps; };  // a part of each list

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int most_summed = 8;  // outputs, by two vectors: sums and a weight stay in registers
#else
constexpr int most_summed = 6;
#endif

// R outputs of V vectors of channels.
template <class T, int R, int V>
FASTCONV_KERNEL void sum_outputs(const T* slab, const PlaneOutput* output, const PlaneTap* tap, const PlaneTap* end,
                                 const T* weight, const T* bias, T* to) {
    constexpr int L = lanes<T>;
    Vec<T> sum[R][V];
    const T* x[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
        x[r] = slab + output[r].from;
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) sum[r][v] = load(bias + v * L);
    }
    for (; tap != end; ++tap) {
        const T* const w = weight + tap->weight;
        const int64_t from = tap->from;
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) {
            const Vec<T> factor = load(w + v * L);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[r][v] += load(x[r] + from + v * L) * factor;
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) store(to + output[r].to + v * L, sum[r][v]);
}

template <class T>
using SumOutputs = void (*)(const T*, const PlaneOutput*, const PlaneTap*, const PlaneTap*, const T*, const T*, T*);

template <class T, int V, size_t... I>
SumOutputs<T> sum_outputs_of(int64_t count, std::index_sequence<I...>) {
    static constexpr SumOutputs<T> table[] = {sum_outputs<T, int(I) + 1, V>...};
    return table[count - 1];
}

// n <= lanes planes of `count` elements, `apart` from each other, side by side: element i goes to to + place[i], of which there are
// up to a multiple of lanes.
template <class T>
FASTCONV_KERNEL void lay_side_by_side(const T* from, int64_t apart, int64_t n, int64_t count, const int64_t* place, T* to) {
    constexpr int L = lanes<T>;
    for (int64_t i = 0; i < count; i += L) {
        const int64_t at = count < L ? 0 : std::min(i, count - L);  // the last ones overlap their neighbours
        Vec<T> row[L];
        if (n == L && count >= L) {
#pragma GCC unroll 16
            for (int l = 0; l < L; ++l) row[l] = load(from + at + l * apart);
        } else {
            for (int l = 0; l < L; ++l) row[l] = load_some(from + at + std::min<int64_t>(l, n - 1) * apart, std::min<int64_t>(count, L));
        }
        transpose<T>(row);
#pragma GCC unroll 16
        for (int l = 0; l < L; ++l) store(to + place[at + l], row[l]);
    }
}

// The way back, to n <= lanes planes: element i comes from from + i step. more: a residual, or null.
template <class T>
FASTCONV_KERNEL void lay_apart(const T* from, int64_t step, int64_t count, int64_t n, const Epilogue<T>& epilogue, T* to, int64_t apart,
                               const T* more, int64_t more_apart) {
    constexpr int L = lanes<T>;
    const Limited<T> limited(epilogue);
    const bool simple = !more && epilogue.is_limit();
    for (int64_t i = 0; i < count; i += L) {
        const int64_t at = more || count < L ? i : std::min(i, count - L), m = std::min<int64_t>(L, count - at);
        Vec<T> row[L];
#pragma GCC unroll 16
        for (int l = 0; l < L; ++l) row[l] = load(from + (at + l) * step);
        transpose<T>(row);
        if (simple && n == L && m == L) {
#pragma GCC unroll 16
            for (int l = 0; l < L; ++l) store(to + at + l * apart, limited(row[l]));
            continue;
        }
        for (int l = 0; l < n; ++l) {
            Vec<T> value = row[l];
            if (more) value += load_some(more + at + l * more_apart, m);
            value = epilogue(value);
            if (m == L) store(to + at + l * apart, value);
            else store_first(to + at + l * apart, value, m);
        }
    }
}

// ---- one call: units are (block of channels, image)

template <class T>
struct SmallPlanes {
    static constexpr int64_t L = lanes<T>, wide = 2 * L;
    static constexpr int64_t most_positions = 2048, most_taps = 256;  // of the slab and the outputs; of a kernel
    Problem p;
    Call call;
    View view;                        // what is read
    const int64_t *inputs, *outputs;  // its sizes, and those of the result
    const T *weight, *bias;           // [tap][weight_step], [channel]; of a gradient as they are, to be arranged block by block
    int64_t weight_step;
    int64_t low[max_axes], padded[max_axes];  // of the slab: zeros in front, sizes
    int64_t phases, blocks, parts;
    bool gradient, dense;             // dense: the elements of a plane follow each other in all arrays

    // Whatever the ISA, arrays and batch.
    static bool suits(const Problem& p) {
        if (p.in_channels != 1 || p.out_channels != 1 || p.padding_mode != PaddingMode::zeros || p.strict) return false;
        if (kernel_volume(p) > most_taps || p.input[0] * p.input[1] * p.input[2] > most_positions) return false;
        const SmallPlanes job(p, Call{}, nullptr, nullptr, 0, 1);
        for (int a = 0; a < max_axes; ++a)
            if (job.padded[a] > most_positions || job.outputs[a] > most_positions) return false;
        return volume_of(job.padded) + volume_of(job.outputs) <= most_positions;
    }

    SmallPlanes(const Problem& problem, const Call& c, const T* weight_, const T* bias_, int64_t weight_step_, int threads)
        : p(problem), call(c), weight(weight_), bias(bias_), weight_step(weight_step_), phases(1), blocks(ceil_div(p.groups, wide)),
          gradient(p.direction == Direction::backward_input) {
        view = gradient ? call.gradient : call.input;
        inputs = gradient ? p.output : p.input, outputs = gradient ? p.input : p.output;
        for (int a = 0; a < max_axes; ++a) {
            int64_t begin = 0, end = inputs[a];
            for (int64_t i = 0; i < phases_along(p, a); ++i) {
                const Phase phase = phase_of(p, a, i);
                begin = std::min(begin, phase.from), end = std::max(end, phase.end());
            }
            low[a] = -begin, padded[a] = end - begin;
            phases *= phases_along(p, a);
        }
        dense = is_dense(view, inputs) && is_dense(call.output, outputs) && (!call.residual.data || is_dense(call.residual, outputs));
        parts = std::min(threads_for(multiply_adds(p), worth_a_thread::depthwise, threads), blocks * p.batch);
    }
    SmallPlanes(const SmallPlanes&) = delete;  // points into itself

    struct Scratch {
        PlanePhase* of_phase;
        PlaneOutput* output;
        PlaneTap* tap;
        int64_t *place, *order;  // of an input in the slab; of a weight in a gradient's table
        T *slab, *made, *weight, *bias;
        size_t bytes;
        Scratch(const SmallPlanes& j, void* base) {
            Arena arena(base);
            const int64_t volume = kernel_volume(j.p);
            of_phase = arena.take<PlanePhase>(j.phases);
            output = arena.take<PlaneOutput>(volume_of(j.outputs));
            tap = arena.take<PlaneTap>(volume);
            place = arena.take<int64_t>(round_up(volume_of(j.inputs), L));
            order = arena.take<int64_t>(j.gradient ? round_up(volume, L) : 0);
            slab = arena.take<T>((volume_of(j.padded) + 1) * wide);  // and what nobody reads
            made = arena.take<T>(round_up(volume_of(j.outputs), L) * wide);
            weight = arena.take<T>(j.gradient ? (volume + 1) * wide : 0);
            bias = arena.take<T>(j.gradient ? wide : 0);
            bytes = arena.used();
        }
    };

    Crew crew() const { return {p, call, parts, Scratch(*this, nullptr).bytes}; }

    void compute() const {
        const Crew crew = this->crew();
        crew.share(blocks * p.batch, [&](int64_t part, const auto& each) {
            const Scratch s(*this, crew.own(part));
            list(s);
            int64_t arranged = -1;
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                    const int64_t block = gradient ? i / p.batch : i % blocks, image = gradient ? i % p.batch : i / blocks;
                    if (gradient && block != arranged) arrange(block, s);
                    arranged = block;
                    compute(image, block, s);
                }
            });
        });
    }

    // ---- what all blocks have in common

    void list(const Scratch& s) const {
        clear(s.slab, volume_of(padded) * wide);
        list_places(inputs, padded, low, s.place);
        constexpr int64_t none[max_axes] = {};
        if (gradient) list_places(p.kernel, p.kernel, none, s.order);
        int64_t listed = 0, taps = 0;
        PlanePhase* next = s.of_phase;
        for (int64_t d = 0; d < phases_along(p, 0); ++d)
            for (int64_t h = 0; h < phases_along(p, 1); ++h)
                for (int64_t w = 0; w < phases_along(p, 2); ++w, ++next) {
                    const Phase along[max_axes] = {phase_of(p, 0, d), phase_of(p, 1, h), phase_of(p, 2, w)};
                    *next = {listed, 0, taps, 0};
                    list_outputs(along, s.output, listed);
                    list_taps(along, s.tap, taps);
                    next->count = listed - next->first, next->taps = taps - next->tap;
                }
    }

    static void list_places(const int64_t* sizes, const int64_t* within, const int64_t* at, int64_t* place) {
        int64_t i = 0;
        for (int64_t d = 0; d < sizes[0]; ++d)
            for (int64_t h = 0; h < sizes[1]; ++h)
                for (int64_t w = 0; w < sizes[2]; ++w) place[i++] = place_in(within, at[0] + d, at[1] + h, at[2] + w) * wide;
        for (; i % L; ++i) place[i] = volume_of(within) * wide;
    }

    void list_outputs(const Phase (&along)[max_axes], PlaneOutput* output, int64_t& i) const {
        const auto [d, h, w] = along;
        for (int64_t qd = 0; qd < d.count; ++qd)
            for (int64_t qh = 0; qh < h.count; ++qh)
                for (int64_t qw = 0; qw < w.count; ++qw)
                    output[i++] = {wide * place_in(padded, low[0] + d.from + qd * d.apart, low[1] + h.from + qh * h.apart,
                                                   low[2] + w.from + qw * w.apart),
                                   wide * place_in(outputs, d.first + qd * d.step, h.first + qh * h.step, w.first + qw * w.step)};
    }

    void list_taps(const Phase (&along)[max_axes], PlaneTap* tap, int64_t& i) const {
        const auto [d, h, w] = along;
        const int64_t step = gradient ? wide : weight_step;
        for (int64_t kd = 0; kd < d.taps; ++kd)
            for (int64_t kw = 0; kw < w.taps; ++kw)
                for (int64_t kh = 0; kh < h.taps; ++kh)
                    tap[i++] = {wide * place_in(padded, kd * d.near, kh * h.near, kw * w.near),
                                step * place_in(p.kernel, d.tap + kd * d.tap_step, h.tap + kh * h.tap_step, w.tap + kw * w.tap_step)};
    }

    // ---- a block

    int64_t first(int64_t block) const { return block * wide; }
    int64_t vectors(int64_t block) const { return p.groups - first(block) > L ? 2 : 1; }
    int64_t lanes_of(int64_t block, int64_t v) const { return std::min(L, p.groups - first(block) - v * L); }

    // The weights of a gradient, which are planes as well.
    void arrange(int64_t block, const Scratch& s) const {
        const int64_t volume = kernel_volume(p), channel = first(block);
        for (int64_t v = 0; v < vectors(block); ++v) {
            const T* from = weight + (channel + v * L) * volume;
            lay_side_by_side(from, volume, lanes_of(block, v), volume, s.order, s.weight + v * L);
            store(s.bias + v * L, bias ? load_some(bias + channel + v * L, lanes_of(block, v)) : Vec<T>{});
        }
    }

    void compute(int64_t image, int64_t block, const Scratch& s) const {
        const int64_t channel = first(block);
        const T* x = at<const T>(view, image, channel);
        T* y = at<T>(call.output, image, channel);
        const T* r = at<const T>(call.residual, image, channel);
        for (int64_t v = 0; v < vectors(block); ++v) {
            const T* from = x + v * L * view.channel;
            if (dense) lay_side_by_side(from, view.channel, lanes_of(block, v), volume_of(inputs), s.place, s.slab + v * L);
            else take_elements(from, lanes_of(block, v), s.place, s.slab + v * L);
        }
        for (const PlanePhase* some = s.of_phase; some < s.of_phase + phases; ++some) {
            if (vectors(block) == 2) sum<2>(*some, block, s);
            else sum<1>(*some, block, s);
        }
        if (gradient) sum_spoiled(x, block, s);
        const Epilogue<T> epilogue(p);
        for (int64_t v = 0; v < vectors(block); ++v) {
            T* to = y + v * L * call.output.channel;
            const T* more = r ? r + v * L * call.residual.channel : nullptr;
            const int64_t n = lanes_of(block, v);
            if (!dense) give_elements(s.made + v * L, n, epilogue, to, more);
            else lay_apart(s.made + v * L, wide, volume_of(outputs), n, epilogue, to, call.output.channel, more, call.residual.channel);
        }
    }

    // body(d, h, w) for all elements of a plane, as they lie in the lists
    template <class Body>
    static void for_elements(const int64_t* sizes, Body body) {
        for (int64_t d = 0; d < sizes[0]; ++d)
            for (int64_t h = 0; h < sizes[1]; ++h)
                for (int64_t w = 0; w < sizes[2]; ++w) body(d, h, w);
    }

    // Arrays of any strides: position by position, whose n channels may lie side by side.
    FASTCONV_NOINLINE void take_elements(const T* from, int64_t n, const int64_t* place, T* slab) const {
        for_elements(inputs, [&](int64_t d, int64_t h, int64_t w) {
            copy_strided(slab + *place++, from + d * view.space[0] + h * view.space[1] + w * view.space[2], view.channel, n);
        });
    }
    FASTCONV_NOINLINE void give_elements(const T* made, int64_t n, const Epilogue<T>& epilogue, T* to, const T* more) const {
        const View &y = call.output, &r = call.residual;
        const bool together = y.channel == 1 && (!more || r.channel == 1);
        for_elements(outputs, [&](int64_t d, int64_t h, int64_t w) {
            T* element = to + d * y.space[0] + h * y.space[1] + w * y.space[2];
            const T* add = more ? more + d * r.space[0] + h * r.space[1] + w * r.space[2] : nullptr;
            Vec<T> sums = load(made);
            made += wide;
            T value[L] = {};
            if (add && together) sums += load_some(add, n);
            else if (add) {
                for (int64_t c = 0; c < n; ++c) value[c] = add[c * r.channel];
                sums += load(value);
            }
            sums = epilogue(sums);
            if (together && n == L) return store(element, sums);
            if (together) return store_first(element, sums, n);
            store(value, sums);
            for (int64_t c = 0; c < n; ++c) element[c * y.channel] = value[c];
        });
    }

    template <int V>
    void sum(const PlanePhase& some, int64_t block, const Scratch& s) const {
        const T *w = gradient ? s.weight : weight + first(block), *b = gradient ? s.bias : bias + first(block);
        const PlaneTap *tap = s.tap + some.tap, *end = tap + some.taps;
        for (int64_t i = 0, n = ceil_div(some.count, most_summed); i < n; ++i) {
            const int64_t begin = some.count * i / n, count = some.count * (i + 1) / n - begin;
            constexpr auto all = std::make_index_sequence<size_t(most_summed)>{};
            sum_outputs_of<T, V>(count, all)(s.slab, s.output + some.first + begin, tap, end, w, b, s.made);
        }
    }

    // The zeros around a gradient are nothing that outputs have read: they must meet no infinite weight.
    void sum_spoiled(const T* x, int64_t block, const Scratch& s) const {
        const int64_t volume = kernel_volume(p);
        Vec<T> not_finite[2] = {};  // 0, or NaN
        for (int64_t v = 0; v < vectors(block); ++v)
            for (int64_t k = 0; k < volume; ++k) not_finite[v] += load(s.weight + k * wide + v * L) * T(0);
        T flags[wide];
        for (int v = 0; v < 2; ++v) store(flags + v * L, not_finite[v]);
        for (int64_t c = 0; c < std::min(wide, p.groups - first(block)); ++c) {
            if (flags[c] == 0) continue;
            const T* w = weight + (first(block) + c) * volume;
            T* to = s.made + c;
            for_elements(outputs, [&](int64_t d, int64_t h, int64_t j) {
                *to = sum_of_input(p, x + c * view.channel, view, w, s.bias[c], d, h, j);
                to += wide;
            });
        }
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
