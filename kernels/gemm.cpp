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
#include "finish.hpp"
#include "pack.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

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
            pack_block(job.weight + channel * packing.k, packing.k, taps(job.p), packing.k, std::min(packing.wide, packing.channels - first),
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

    static Limits limits() { return {std::max<int64_t>(16 * tile_rows, 168), 256 << 10, 64, 4 * tile_rows, false, true}; }
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
        const int64_t tiles = ceil_div(pixels, tile_rows);
        for (int64_t k = 0; k < packing.k; k += k_block) {
            const int64_t k_count = std::min(k_block, packing.k - k);
            for (int64_t t = 0; t < tiles; ++t) {
                const int64_t first = pixels * t / tiles, rows = pixels * (t + 1) / tiles - first;
                T* tile = s.tile + first * width;
                constexpr auto all = std::make_index_sequence<size_t(tile_rows)>{};
                const Micro<T> kernel = width == L ? micro_at<T, 1>(int(rows), all) : micro_at<T, 2>(int(rows), all);
                kernel(x, s.pixel + first, s.tap + k, k_count, w + k * width, k ? tile : bias, k ? width : 0, tile);
            }
        }
    }

    // ---- from the tile buffer to the output

    void finish(const Tasks::Task& t, int64_t block, const Scratch& s, int64_t run_count) const {
        const int64_t width = packing.width(block), first = block * packing.wide;
        const int64_t channels = std::min(width, packing.channels - first), channel = t.group * packing.channels + first;
        const Finish<T> put(p, call);
        for (int64_t i = 0; i < run_count; ++i) {
            const Run& run = s.runs[i];
            const T* r = call.residual.data ? at<const T>(call.residual, t.image, channel) + run.residual : nullptr;
            put(s.tile + run.first * width, width, channels, run.count, at<T>(call.output, t.image, channel) + run.output, r);
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
