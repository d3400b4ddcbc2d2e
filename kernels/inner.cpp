// inner: the gradient of the weight of few channels, as inner products of planes.
//
//   dw[oc][c, t] = sum over images and pixels of dy[oc][pixel] * x[c][pixel * stride + t * dilation - pad]
//
// Pixels are on the vectors: outer's vectors have output channels, and of six 10 of 16 lanes would be in vain.
// Of a box, some rows of an image's outputs, the slab has [input channel][kd, kw][phase of h][row] the inputs that this tap of a
// row meets, as wide as the box. So rows follow each other as those of dy do, a tap is one stretch of memory whatever its h, and no
// vector ends where a row does. What a stride, a dilation, padding or a layout means happens when the slab is filled. Rows of dy
// that follow each other are read where they lie, others copied.
// Tile: MO output channels x MT taps, a vector of sums each, in registers while all pixels of a box pass by: per vector of pixels
// MO + MT loads for MO MT FMAs. The lanes of a sum are added last.
// A task is a slice of all boxes of a group. Boxes and slices, and with them the order of all sums, follow from the problem alone;
// the sums of the slices are added as a binary tree.
// Bottleneck: FMA; then filling the slab, a row at a time.
#include <new>
#include <utility>

#include "slab.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

constexpr int64_t inner_box_bytes = 48 << 10;    // of the slab and of dy, which tiles read again and again (measured)
constexpr int64_t inner_box_width = 1024;        // at most: a multiple of every vector's lanes
constexpr int64_t least_width = 64;              // where there are so many channels that the slab would leave L2
constexpr int64_t most_weights = 4096;           // whose sums, a vector of up to 64 bytes each, stay in L2
constexpr int64_t inner_slices_bytes = 1 << 20;  // sums of all slices
constexpr int64_t inner_slices = 16;

// Sums of a tile in registers, beside a vector of each output channel, and one of a tap.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int tile_outputs = 6, tile_sums = 24;
#elif defined(__AVX2__)
constexpr int tile_outputs = 3, tile_sums = 12;
#else
constexpr int tile_outputs = 3, tile_sums = 9;
#endif
constexpr int tile_taps = 8;
constexpr int taps_of(int outputs) { return std::min(tile_taps, tile_sums / outputs); }

// What a tile reads: a stretch of `count` elements for each tap, and for each output channel, `apart` from one to the next.
template <class T>
struct Stretches {
    const T* const* x;
    const T* y;
    int64_t apart, count;
};

// sums[o][t][:] += sum over all vectors of y[o] * x[t]; `step`: from one output channel's sums to the next's.
template <class T, int MO, int MT>
struct InnerTile {
    FASTCONV_KERNEL static void run(const Stretches<T>& of, T* sums, int64_t step) {
        constexpr int64_t L = lanes<T>;
        const T *x[MT], *y[MO];
        Vec<T> sum[MO][MT];
#pragma GCC unroll 8
        for (int t = 0; t < MT; ++t) x[t] = of.x[t];
#pragma GCC unroll 8
        for (int o = 0; o < MO; ++o) {
            y[o] = of.y + o * of.apart;
#pragma GCC unroll 8
            for (int t = 0; t < MT; ++t) sum[o][t] = load(sums + o * step + t * L);
        }
        const auto add = [&](const auto& read) __attribute__((always_inline)) {
            Vec<T> gradient[MO];
#pragma GCC unroll 8
            for (int o = 0; o < MO; ++o) gradient[o] = rounded(read(y[o]));  // loaded once, not with every product
#pragma GCC unroll 8
            for (int t = 0; t < MT; ++t) {
                const Vec<T> value = read(x[t]);
#pragma GCC unroll 8
                for (int o = 0; o < MO; ++o) sum[o][t] += value * gradient[o];
            }
        };
        int64_t i = 0;
        for (; i + L <= of.count; i += L) add([i](const T* p) __attribute__((always_inline)) { return load(p + i); });
        if (const int64_t rest = of.count - i)
            add([i, rest](const T* p) __attribute__((always_inline)) { return load_first(p + i, rest); });
#pragma GCC unroll 8
        for (int o = 0; o < MO; ++o)
#pragma GCC unroll 8
            for (int t = 0; t < MT; ++t) store(sums + o * step + t * L, sum[o][t]);
    }
};

template <class T>
using InnerRun = void (*)(const Stretches<T>&, T*, int64_t);
template <class T, int MO, size_t... I>
InnerRun<T> inner_tile(int64_t taps, std::index_sequence<I...>) {
    static constexpr InnerRun<T> table[] = {InnerTile<T, MO, int(I) + 1>::run...};
    return table[taps - 1];
}
template <class T, size_t... I>
InnerRun<T> inner_tile_of(int64_t outputs, int64_t taps, std::index_sequence<I...>) {
    static constexpr InnerRun<T> (*table[])(int64_t) = {
        [](int64_t n) { return inner_tile<T, int(I) + 1>(n, std::make_index_sequence<size_t(taps_of(int(I) + 1))>{}); }...};
    return table[outputs - 1](taps);
}

template <class T>
struct Inner {
    static constexpr int64_t L = lanes<T>;
    Problem p;
    Call call;
    int64_t volume, weights;               // taps; of an output channel: K
    int64_t width, height;                 // of a box, at most
    int64_t phases, phase_rows;            // of rows of the input: those that taps of one row are apart; rows of each
    int64_t tap_elements, slab_elements;   // of the slab: those of one (input channel, kd, kw)
    int64_t boxes_w, boxes_h, boxes;       // of an image; of all
    bool in_place;                         // rows of dy follow each other
    int64_t slices, parts;

    Inner(const Problem& of, const Call& call_, int threads)
        : p(of), call(call_), volume(kernel_volume(p)), weights(p.in_channels * volume),
          width(std::min(p.output[2], inner_box_width)), phases(p.stride[1]) {
        while (width > least_width && bytes_of(1) > 4 * inner_box_bytes) width = round_up(width / 2, least_width);
        const int64_t rows = ceil_div(p.output[1], height_of());
        height = ceil_div(p.output[1], rows);
        phase_rows = rows_of_phase(height);
        tap_elements = round_up(phases * phase_rows * width, L) + L;  // behind the last row a vector may end
        slab_elements = p.in_channels * p.kernel[0] * p.kernel[2] * tap_elements;
        boxes_w = ceil_div(p.output[2], width), boxes_h = ceil_div(p.output[1], height);
        boxes = p.batch * p.output[0] * boxes_h * boxes_w;
        const View& y = call.gradient;
        in_place = y.space[2] == 1 && (height == 1 || (width == p.output[2] && y.space[1] == width));
        slices = 1;
        const int64_t fit = inner_slices_bytes / (sums() * int64_t(sizeof(T)));
        while (slices < inner_slices && 2 * slices <= std::min(boxes, fit)) slices *= 2;
        parts = std::min(threads_for(multiply_adds(p), worth_a_thread::gemm, threads), tasks());
    }

    // Rows of a phase that the taps of `rows` rows of outputs reach.
    int64_t rows_of_phase(int64_t rows) const { return rows + (p.kernel[1] - 1) * p.dilation[1] / p.stride[1]; }
    int64_t bytes_of(int64_t rows) const {
        const int64_t slab = std::min(p.stride[1], p.kernel[1]) * rows_of_phase(rows);
        return (p.in_channels * p.kernel[0] * p.kernel[2] * slab + p.out_channels * rows) * width * int64_t(sizeof(T));
    }
    // As many rows as fit, and at least as many as taps read again.
    int64_t height_of() const {
        int64_t rows = std::min<int64_t>(p.output[1], std::max<int64_t>(1, extent(p, 1, 1) / p.stride[1]));
        while (rows < p.output[1] && bytes_of(rows + 1) <= inner_box_bytes) ++rows;
        return rows;
    }
    int64_t sums() const { return p.groups * p.out_channels * weights * L; }  // of a slice
    int64_t tasks() const { return slices * p.groups; }

    T* all_sums(const Crew& crew) const { return reinterpret_cast<T*>(crew.common()); }
    size_t common_bytes() const { return size_t(round_up(slices * sums() * int64_t(sizeof(T)), 64)); }

    struct Scratch {
        T *slab, *gradient;
        int64_t* tap;    // where in the slab
        Strand* strand;  // what a tap along w meets of a row
        size_t bytes;
        Scratch(const Inner& j, void* base) {
            Arena arena(base);
            slab = arena.take<T>(j.slab_elements);
            gradient = arena.take<T>(j.in_place ? 0 : j.p.out_channels * j.height * j.width);
            tap = arena.take<int64_t>(j.weights);
            strand = arena.take<Strand>(j.p.kernel[2]);
            bytes = arena.used();
        }
    };

    struct Rows {  // a box
        int64_t image, d, h, w, height, width;
    };
    Rows box(int64_t i) const {
        Rows b;
        const int64_t w = i % boxes_w, h = i / boxes_w % boxes_h;
        b.w = w * width, b.width = std::min(width, p.output[2] - b.w);
        b.h = p.output[1] * h / boxes_h, b.height = p.output[1] * (h + 1) / boxes_h - b.h;
        i /= boxes_w * boxes_h;
        b.d = i % p.output[0], b.image = i / p.output[0];
        return b;
    }

    // ---- a task

    void compute(int64_t slice, int64_t group, const Scratch& s, T* all) const {
        T* const to = all + slice * sums() + group * p.out_channels * weights * L;
        clear(to, p.out_channels * weights * L);
        int64_t listed = 0;
        for (int64_t i = boxes * slice / slices, end = boxes * (slice + 1) / slices; i < end; ++i) {
            if (call.interrupt.asked && call.interrupt.asked(call.interrupt.whose)) return;
            const Rows b = box(i);
            if (listed != b.width) list_taps(listed = b.width, s.tap);
            list_strands(b, s.strand);
            fill_inputs(b, group, s);
            multiply(b, gradient_of(b, group, s), s, to);
        }
    }

    void list_strands(const Rows& b, Strand* strand) const {
        for (int64_t kw = 0; kw < p.kernel[2]; ++kw)
            new (strand++) Strand(p, b.w * p.stride[2] + kw * p.dilation[2] - p.pad_lo[2], p.stride[2], b.width);
    }
    // In the order of the weights; rows are as wide as the box.
    void list_taps(int64_t wide, int64_t* tap) const {
        for (int64_t c = 0; c < p.in_channels; ++c)
            for (int64_t kd = 0; kd < p.kernel[0]; ++kd)
                for (int64_t kh = 0; kh < p.kernel[1]; ++kh)
                    for (int64_t kw = 0; kw < p.kernel[2]; ++kw) {
                        const int64_t h = kh * p.dilation[1], row = h % phases * phase_rows + h / phases;
                        *tap++ = ((c * p.kernel[0] + kd) * p.kernel[2] + kw) * tap_elements + row * wide;
                    }
    }

    void fill_inputs(const Rows& b, int64_t group, const Scratch& s) const {
        const int64_t first = b.h * p.stride[1] - p.pad_lo[1], rows = extent(p, 1, b.height);
        T* slab = s.slab;
        for (int64_t c = 0; c < p.in_channels; ++c) {
            const T* const from = at<const T>(call.input, b.image, group * p.in_channels + c);
            for (int64_t kd = 0; kd < p.kernel[0]; ++kd, slab += p.kernel[2] * tap_elements) {
                const int64_t d = source(p, 0, b.d * p.stride[0] + kd * p.dilation[0] - p.pad_lo[0]);
                for (int64_t phase = 0; phase < phases; ++phase) {
                    T* to = slab + phase * phase_rows * b.width;
                    for (int64_t h = phase; h < rows; h += phases, to += b.width) {
                        const int64_t row = source(p, 1, first + h);
                        if (d < 0 || row < 0) clear_row(b.width, to);
                        else fill_taps_of(s.strand, from + d * call.input.space[0] + row * call.input.space[1], to);
                    }
                }
            }
        }
    }
    void clear_row(int64_t count, T* to) const {
        for (int64_t kw = 0; kw < p.kernel[2]; ++kw) clear(to + kw * tap_elements, count);
    }
    // A row of the input, once for each tap along it. Whole vectors: what is beyond a row is written later, or is nobody's.
    void fill_taps_of(const Strand* strands, const T* row, T* to) const {
        const int64_t step = call.input.space[2];
        for (const Strand *s = strands, *const end = s + p.kernel[2]; s < end; ++s, to += tap_elements) {
            const bool whole = s->inside == 0 && s->end == s->count && s->step * step == 1;
            if (!whole) {
                fill_row(p, *s, row, step, to);
                continue;
            }
            const T* const from = row + s->first;
            const int64_t count = s->count;
            int64_t i = 0;
            for (; i + L <= count; i += L) store(to + i, load(from + i));
            if (i < count) store(to + i, load_first(from + i, count - i));
        }
    }

    struct Gradient {
        const T* first;
        int64_t apart;
    };
    Gradient gradient_of(const Rows& b, int64_t group, const Scratch& s) const {
        const View& y = call.gradient;
        const T* from = at<const T>(y, b.image, group * p.out_channels);
        from += b.d * y.space[0] + b.h * y.space[1] + b.w * y.space[2];
        if (in_place) return {from, y.channel};
        T* to = s.gradient;
        for (int64_t o = 0; o < p.out_channels; ++o, from += y.channel)
            for (int64_t h = 0; h < b.height; ++h, to += b.width) copy_strided(to, from + h * y.space[1], y.space[2], b.width);
        return {s.gradient, b.height * b.width};
    }

    void multiply(const Rows& b, const Gradient& gradient, const Scratch& s, T* sums) const {
        const int64_t blocks = ceil_div(p.out_channels, tile_outputs);
        for (int64_t block = 0; block < blocks; ++block) {
            const int64_t o = p.out_channels * block / blocks, outputs = p.out_channels * (block + 1) / blocks - o;
            const int64_t tiles = ceil_div(weights, taps_of(int(outputs)));
            for (int64_t i = 0; i < tiles; ++i) {
                const int64_t first = weights * i / tiles, n = weights * (i + 1) / tiles - first;
                const T* x[tile_taps];
                for (int64_t t = 0; t < n; ++t) x[t] = s.slab + s.tap[first + t];
                const Stretches<T> of{x, gradient.first + o * gradient.apart, gradient.apart, b.height * b.width};
                const InnerRun<T> run = inner_tile_of<T>(outputs, n, std::make_index_sequence<size_t(tile_outputs)>{});
                run(of, sums + (o * weights + first) * L, weights * L);
            }
        }
    }

    // ---- all slices together, and out

    // The weights of an output channel, of all groups: where their vectors were, one after another, then out.
    void finish(int64_t channel, T* all) const {
        T* const from = all + channel * weights * L;
        for (int64_t first = 0; first < weights; first += L) {
            Vec<T> sum[L] = {};
            for (int64_t i = 0, n = std::min(L, weights - first); i < n; ++i) sum[i] = over_slices(from + (first + i) * L);
            transpose<T>(sum);
            for (int64_t half = L / 2; half > 0; half /= 2)
                for (int64_t l = 0; l < half; ++l) sum[l] += sum[l + half];
            store(from + first, sum[0]);
        }
        write(from, at<T>(call.output, channel, 0));
    }
    Vec<T> over_slices(const T* from) const {
        Vec<T> sum[inner_slices];
        for (int64_t s = 0; s < slices; ++s) sum[s] = load(from + s * sums());
        for (int64_t half = slices / 2; half > 0; half /= 2)
            for (int64_t s = 0; s < half; ++s) sum[s] += sum[s + half];
        return sum[0];
    }
    void write(const T* from, T* to) const {
        const View& out = call.output;
        for (int64_t c = 0; c < p.in_channels; ++c)
            for (int64_t kd = 0; kd < p.kernel[0]; ++kd)
                for (int64_t kh = 0; kh < p.kernel[1]; ++kh) {
                    T* const row = to + c * out.channel + kd * out.space[0] + kh * out.space[1];
                    for (int64_t kw = 0; kw < p.kernel[2]; ++kw) row[kw * out.space[2]] = *from++;
                }
    }
};

template <class T>
struct InnerAlgorithm : Defaults {
    using Scratch = typename Inner<T>::Scratch;
    static Crew crew(const Inner<T>& job) {
        return {job.p, job.call, job.parts, Scratch(job, nullptr).bytes, job.common_bytes()};
    }
    static const char* refuses(const Problem& p) {
        if (p.direction != Direction::backward_weight) return "computes the gradient of the weight only";
        if (p.groups * p.out_channels * p.in_channels * kernel_volume(p) > most_weights) return "of few weights only";
        return nullptr;
    }
    static size_t packed_bytes(const Problem&) { return 0; }
    static size_t workspace_bytes(const Problem& p, int threads) { return crew(Inner<T>(p, Call{}, threads)).bytes(); }

    static void run(const Problem& p, const Call& call) {
        const Inner<T> job(p, call, call.threads);
        const Crew crew = InnerAlgorithm::crew(job);
        T* const sums = job.all_sums(crew);
        crew.share(job.tasks(), [&](int64_t part, const auto& each) {
            const Scratch scratch(job, crew.own(part));
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) job.compute(i % job.slices, i / job.slices, scratch, sums);
            });
        });
        crew.share(p.groups * p.out_channels, [&](int64_t, const auto& each) {
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) job.finish(i, sums);
            });
        });
    }
};

}  // namespace

const Algorithm& inner_algorithm() {
    static const Algorithm algorithm = algorithm_of<InnerAlgorithm<float>, InnerAlgorithm<double>>("inner");
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
