// gemm: implicit GEMM with the output channels on the vector.
//
//   out[pixel][oc] = bias[oc] + sum over k of x[pixel offset + tap offset(k)] * w[k][oc]
//
// Tile: up to MR pixels x 2 vectors of output channels in registers (AVX2 6 x 16 floats, AVX-512 14 x 32); each pixel's value
// is broadcast from where it lies, so no stride, dilation or kernel size needs a gather. Weights are packed
// [block][tap][channel][2 vectors], and the slab keeps the channels of a pixel side by side, so that both are read in sequence.
// k runs in blocks of KC, so that a block of weights stays in L1 while all pixels of a box pass by; sums collect in a tile
// buffer [pixels][2 vectors], which is transposed into channels_first outputs or copied into channels_last ones.
// Bottleneck: FMA; per k a tile loads 2 vectors and MR broadcasts for 2 MR FMAs.
#include "driver.hpp"
#include "epilogue.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int max_rows = 14;
#elif defined(__AVX2__)
constexpr int max_rows = 6;
#elif defined(__aarch64__)
constexpr int max_rows = 10;
#else
constexpr int max_rows = 5;
#endif
constexpr int64_t k_block = 128;

// ---- micro-kernel: tile[i][:] = init[i][:] + sum over k of x[pixel[i] + tap[k]] * w[k][:]

template <class T, int MR, int NV>
FASTCONV_NOINLINE void micro(const T* x, const int64_t* pixel, const int64_t* tap, int64_t k_count, const T* w, const T* init,
                             int64_t init_stride, T* tile) {
    constexpr int L = lanes<T>;
    const T* p[MR];
    Vec<T> sum[MR][NV];
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
        p[i] = x + pixel[i];
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) sum[i][v] = load(init + i * init_stride + v * L);
    }
    for (int64_t k = 0; k < k_count; ++k, w += NV * L) {
        const int64_t offset = tap[k];
        Vec<T> weight[NV];
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) weight[v] = load(w + v * L);
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i) {
            const Vec<T> value = broadcast(p[i][offset]);
#pragma GCC unroll 2
            for (int v = 0; v < NV; ++v) sum[i][v] += value * weight[v];
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) store(tile + (i * NV + v) * L, sum[i][v]);
}

template <class T>
using Micro = void (*)(const T*, const int64_t*, const int64_t*, int64_t, const T*, const T*, int64_t, T*);

template <class T, int NV, size_t... I>
constexpr Micro<T> micro_at(int rows, std::index_sequence<I...>) {
    constexpr Micro<T> table[] = {micro<T, int(I) + 1, NV>...};
    return table[rows - 1];
}

// ---- packed weights: bias [group][padded oc], then weights [group][block][k][width of the block]

template <class T>
struct GemmPacking {
    static constexpr int64_t wide = 2 * lanes<T>;
    int64_t k, channels, padded, blocks;

    explicit GemmPacking(const Problem& p) : k(products(p)), channels(p.out_channels) {
        padded = round_up(channels, lanes<T>);
        blocks = ceil_div(padded, wide);
    }
    int64_t width(int64_t block) const { return std::min(wide, padded - block * wide); }
    int64_t bias_elements(const Problem& p) const { return round_up(p.groups * padded, 64 / int64_t(sizeof(T))); }
    size_t bytes(const Problem& p) const { return size_t(bias_elements(p) + p.groups * padded * k) * sizeof(T); }
    int64_t offset(const Problem& p, int64_t group, int64_t block) const {
        return bias_elements(p) + (group * padded + block * wide) * k;
    }
};

// rows[i][columns] of w, transposed to out_row[column][i]; rows and columns that do not exist count as 0 and are not written.
template <class T>
FASTCONV_INLINE void transpose_block(const T* w, int64_t stride, int64_t rows, int64_t columns, T* const* out_row, int64_t v) {
    constexpr int L = lanes<T>;
    Vec<T> row[L];
    if (rows >= L && columns >= L) {  // constant trip counts: the rows stay in registers
        for (int i = 0; i < L; ++i) row[i] = load(w + i * stride);
        transpose<T>(row);
        for (int i = 0; i < L; ++i) store(out_row[i] + v, row[i]);
        return;
    }
    for (int64_t i = 0; i < L; ++i) row[i] = i < rows ? load_some(w + i * stride, std::min<int64_t>(columns, L)) : Vec<T>{};
    transpose<T>(row);
    for (int64_t i = 0; i < std::min<int64_t>(columns, L); ++i) store(out_row[i] + v, row[i]);
}

// w[oc][channel][tap] -> out[tap][channel][width], the columns of output channels that do not exist 0. A line of each row of w
// at a time: all rows may share one set of L1, and a line would not survive until its second half is needed.
template <class T>
void pack_block(const T* w, int64_t tap_count, int64_t k_count, int64_t channels, int64_t width, T* out) {
    constexpr int L = lanes<T>, line = 64 / int(sizeof(T));
    const int64_t inner = k_count / tap_count;
    T* out_row[line];
    int64_t tap = 0, channel = 0;
    for (int64_t k = 0; k < k_count; k += line) {
        const int64_t m = std::min<int64_t>(line, k_count - k);
        for (int64_t i = 0; i < m; ++i) {
            out_row[i] = out + (tap * inner + channel) * width;
            if (++tap == tap_count) tap = 0, ++channel;
        }
        for (int64_t v = 0; v < width; v += L)
            for (int64_t i = 0; i < m; i += L)
                transpose_block(w + v * k_count + k + i, k_count, channels - v, m - i, out_row + i, v);
    }
}

template <class T>
struct PackJob {
    const Problem& p;
    const T *weight, *bias;
    T* out;
    int64_t parts;

    static void part(void* context, int64_t index) {
        const PackJob& job = *static_cast<PackJob*>(context);
        const GemmPacking<T> packing(job.p);
        const int64_t count = job.p.groups * packing.blocks;
        for (int64_t i = count * index / job.parts; i < count * (index + 1) / job.parts; ++i) {
            const int64_t group = i / packing.blocks, block = i % packing.blocks, first = block * packing.wide;
            const int64_t channel = group * packing.channels + first;
            pack_block(job.weight + channel * packing.k, taps(job.p), packing.k, std::min(packing.wide, packing.channels - first),
                       packing.width(block), job.out + packing.offset(job.p, group, block));
            for (int64_t c = 0; c < packing.width(block); ++c)
                job.out[group * packing.padded + first + c] = job.bias && first + c < packing.channels ? job.bias[channel + c] : T(0);
        }
    }
};

// ---- one call

struct Run {  // pixels that follow each other along w
    int64_t first, count, output, residual;
};

template <class T>
struct Gemm {
    static constexpr int L = lanes<T>;
    static constexpr bool channels_inner = true;
    using Packing = GemmPacking<T>;
    Problem p;
    Call call;
    bool raw;  // the input is read where it lies
    Packing packing;
    Blocking blocking;
    Tasks tasks;
    Strides strides;

    Gemm(const Problem& problem, const Call& c, int threads)
        : p(problem), call(c), raw(readable(problem, c.input)), packing(problem),
          blocking(p, limits(), sizeof(T)), tasks(p, blocking, packing.blocks, heavy(), threads),
          strides(raw ? input_strides(p, call.input) : blocking.slab) {}

    static Limits limits() { return {std::max<int64_t>(16 * max_rows, 168), 256 << 10, 64, 4 * max_rows, false, true}; }
    bool heavy() const { return packing.k * packing.padded * int64_t(sizeof(T)) > 256 << 10; }

    // Read where it lies if nothing is padded and the channels are side by side, or so few that a copy would not pay.
    static bool readable(const Problem& p, const View& v) {
        return v.data && !is_padded(p) && (v.channel == 1 || p.out_channels <= 2 * Packing::wide);
    }

    static void pack(const Problem& p, const void* weight, const void* bias, void* packed, int threads, ParallelFor parallel_for) {
        PackJob<T> job{p, static_cast<const T*>(weight), static_cast<const T*>(bias), static_cast<T*>(packed), 1};
        const double worth_a_thread = 65536;
        job.parts = std::max<int64_t>(1, std::min<int64_t>(threads, int64_t(double(p.groups * p.out_channels * products(p)) / worth_a_thread)));
        parallel_for(job.parts, PackJob<T>::part, &job);
    }

    struct Scratch {
        T *slab, *tile;
        int64_t *tap, *pixel;
        Run* runs;
        size_t bytes;
        Scratch(const Gemm& j, void* base) {
            Arena arena(base);
            slab = arena.take<T>(j.blocking.slab_elements);
            tile = arena.take<T>(j.blocking.pixels() * Packing::wide);
            tap = arena.take<int64_t>(j.packing.k);
            pixel = arena.take<int64_t>(j.blocking.pixels());
            runs = arena.take<Run>(j.blocking.box[0] * j.blocking.box[1]);
            bytes = arena.used();
        }
    };

    // Fill s.pixel and s.runs for a box.
    int64_t list(const Box& box, Scratch& s) const {
        int64_t runs = 0, count = 0;
        const View &y = call.output, &r = call.residual;
        for (int64_t d = 0; d < box.size[0]; ++d)
            for (int64_t h = 0; h < box.size[1]; ++h) {
                const int64_t od = box.begin[0] + d, oh = box.begin[1] + h, ow = box.begin[2];
                Run run{count, box.size[2], od * y.space[0] + oh * y.space[1] + ow * y.space[2],
                        od * r.space[0] + oh * r.space[1] + ow * r.space[2]};
                Run* last = s.runs + runs - 1;
                const bool follows = runs && last->output + last->count * y.space[2] == run.output &&
                                     (!r.data || last->residual + last->count * r.space[2] == run.residual);
                if (follows) last->count += run.count;
                else s.runs[runs++] = run;
                for (int64_t w = 0; w < box.size[2]; ++w)
                    s.pixel[count++] = raw ? strides.pixel(od, oh, ow + w) : strides.pixel(d, h, w);
            }
        return runs;
    }

    void compute(const Tasks::Task& t, const Box& box, Scratch& s, int64_t run_count) const {
        const T* image = at<const T>(call.input, t.image, t.group * p.in_channels);
        if (!raw) fill_channels_inner(p, blocking, box, image, call.input, s.slab);
        const T* packed = static_cast<const T*>(call.packed);
        for (int64_t block = tasks.first_panel(t.chunk); block < tasks.first_panel(t.chunk + 1); ++block) {
            const T* bias = packed + t.group * packing.padded + block * packing.wide;
            multiply(raw ? image : s.slab, box.pixels(), packing.width(block), packed + packing.offset(p, t.group, block), bias, s);
            finish(t, block, s, run_count);
        }
    }

    // tile[pixel][width] = bias + x * w, for all pixels of the box
    void multiply(const T* x, int64_t pixels, int64_t width, const T* w, const T* bias, const Scratch& s) const {
        const int64_t tiles = ceil_div(pixels, max_rows);
        for (int64_t k = 0; k < packing.k; k += k_block) {
            const int64_t k_count = std::min(k_block, packing.k - k);
            for (int64_t t = 0; t < tiles; ++t) {
                const int64_t first = pixels * t / tiles, rows = pixels * (t + 1) / tiles - first;
                T* tile = s.tile + first * width;
                constexpr auto all = std::make_index_sequence<size_t(max_rows)>{};
                const Micro<T> kernel = width == L ? micro_at<T, 1>(int(rows), all) : micro_at<T, 2>(int(rows), all);
                kernel(x, s.pixel + first, s.tap + k, k_count, w + k * width, k ? tile : bias, k ? width : 0, tile);
            }
        }
    }

    // ---- from the tile buffer to the output

    void finish(const Tasks::Task& t, int64_t block, const Scratch& s, int64_t run_count) const {
        const int64_t width = packing.width(block), first = block * packing.wide;
        const int64_t channels = std::min(width, packing.channels - first), channel = t.group * packing.channels + first;
        const Epilogue<T> epilogue(p);
        for (int64_t i = 0; i < run_count; ++i) {
            const Run& run = s.runs[i];
            const T* tile = s.tile + run.first * width;
            T* y = at<T>(call.output, t.image, channel) + run.output;
            const T* r = call.residual.data ? at<const T>(call.residual, t.image, channel) + run.residual : nullptr;
            const bool pixels_adjacent = call.output.space[2] == 1 && (!r || call.residual.space[2] == 1);
            const bool channels_adjacent = call.output.channel == 1 && (!r || call.residual.channel == 1);
            if (pixels_adjacent) transposed(tile, width, channels, run.count, y, r, epilogue);
            else if (channels_adjacent) copied(tile, width, channels, run.count, y, r, epilogue);
            else scattered(tile, width, channels, run.count, y, r, epilogue);
        }
    }

    FASTCONV_NOINLINE void transposed(const T* tile, int64_t width, int64_t channels, int64_t pixels, T* y, const T* r,
                                      const Epilogue<T>& epilogue) const {
        for (int64_t v = 0; v < channels; v += L) {
            const int64_t n = std::min<int64_t>(L, channels - v);
            int64_t i = 0;
            const auto put = [&](Vec<T> value, int64_t c) __attribute__((always_inline)) {
                if (r) value += load(r + (v + c) * call.residual.channel + i);
                store(y + (v + c) * call.output.channel + i, epilogue(value));
            };
            for (; i + L <= pixels; i += L) {
                Vec<T> row[L];
                for (int l = 0; l < L; ++l) row[l] = load(tile + (i + l) * width + v);
                transpose<T>(row);
                if (n == L) {  // a constant trip count: the rows stay in registers
#pragma GCC unroll 16
                    for (int c = 0; c < L; ++c) put(row[c], c);
                } else {
                    for (int64_t c = 0; c < n; ++c) put(row[c], c);
                }
            }
            if (i < pixels) {
                const int64_t m = pixels - i;
                Vec<T> row[L] = {};
                for (int64_t l = 0; l < m; ++l) row[l] = load(tile + (i + l) * width + v);
                transpose<T>(row);
                for (int64_t c = 0; c < n; ++c) {
                    Vec<T> value = row[c];
                    if (r) value += load_first(r + (v + c) * call.residual.channel + i, m);
                    store_first(y + (v + c) * call.output.channel + i, epilogue(value), m);
                }
            }
        }
    }

    FASTCONV_NOINLINE void copied(const T* tile, int64_t width, int64_t channels, int64_t pixels, T* y, const T* r,
                                  const Epilogue<T>& epilogue) const {
        for (int64_t i = 0; i < pixels; ++i, tile += width, y += call.output.space[2]) {
            const T* residual = r ? r + i * call.residual.space[2] : nullptr;
            int64_t v = 0;
            for (; v + L <= channels; v += L) {
                Vec<T> value = load(tile + v);
                if (residual) value += load(residual + v);
                store(y + v, epilogue(value));
            }
            if (v < channels) {
                Vec<T> value = load(tile + v);
                if (residual) value += load_first(residual + v, channels - v);
                store_first(y + v, epilogue(value), channels - v);
            }
        }
    }

    FASTCONV_NOINLINE void scattered(const T* tile, int64_t width, int64_t channels, int64_t pixels, T* y, const T* r,
                                     const Epilogue<T>& epilogue) const {
        for (int64_t c = 0; c < channels; ++c)
            for (int64_t i = 0; i < pixels; ++i) {
                T value = tile[i * width + c];
                if (r) value += r[c * call.residual.channel + i * call.residual.space[2]];
                y[c * call.output.channel + i * call.output.space[2]] = epilogue(value);
            }
    }
};

}  // namespace

const Algorithm& gemm_algorithm() {
    static const Algorithm algorithm = Driver<Gemm>::algorithm("gemm");
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
