// winograd: F(m x n, 3 x 3), F(m, 3) along one axis, fused.
//
//   Y = A^T [ sum over c of (G g_c G^T) . (B^T d_c B) ] A         (toom.hpp has the matrices)
//
// Tiles of m x n outputs read (m + 2) x (n + 2) inputs. A block of R tiles goes all the way before the next begins, in the
// caches of one thread:
//   V[product][vector of c][tile][lanes]   the transformed inputs, vectors over channels: rows of the input are transposed once,
//                         the vertical transform is done once per column of the strip, the horizontal one writes straight to V
//   M = V U               one matrix product per product, U[chunk][product][2 vectors of oc][c][2 vectors] read as one stream
//   Y                     from M, vectors over output channels; rows of outputs are transposed, and finished like any other
// Bottleneck: FMA in the products ((m + 2)(n + 2) / 9mn of direct's), then the transforms: about 40 instructions per vector of
// channels, tile and side for F(4 x 4). U is read once per block: R tiles per 4 bytes, so few tiles with many channels wait
// for memory.
//
// A dilated kernel is several kernels that are not: see Phased.
// A tile with a NaN or infinity among its outputs is computed again directly, so that both stay inside their windows.
#include <cmath>

#include "finish.hpp"
#include "pack.hpp"
#include "slab.hpp"
#include "toom.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

constexpr int64_t far_bytes = 4 << 20;  // more transformed weights than stay in L2
constexpr int fetch_ahead = 64;          // steps of k: 4 to 8 KB

// ---- micro-kernel: m[i][:] (+)= sum over k of v[k / lanes][i][k % lanes] * u[k][:]

// Fetch: ask for u well before it is read; where it comes from memory, the hardware's own prefetching is too short.
template <class T, int MR, int NV, bool Fetch>
FASTCONV_NOINLINE void micro(const T* v, int64_t v_step, int64_t k_count, const T* u, bool first, T* m, int64_t m_stride) {
    constexpr int L = lanes<T>;
    Vec<T> sum[MR][NV];
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
        for (int n = 0; n < NV; ++n) sum[i][n] = first ? Vec<T>{} : load(m + i * m_stride + n * L);
    const auto step = [&](int j) __attribute__((always_inline)) {
        if constexpr (Fetch) __builtin_prefetch(u + fetch_ahead * NV * L);
        Vec<T> weight[NV];
#pragma GCC unroll 2
        for (int n = 0; n < NV; ++n) weight[n] = load(u + n * L);
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i) {
            const Vec<T> value = broadcast(v[i * L + j]);
#pragma GCC unroll 2
            for (int n = 0; n < NV; ++n) sum[i][n] += value * weight[n];
        }
        u += NV * L;
    };
    for (int64_t vector = 0; vector < k_count / L; ++vector, v += v_step)
#pragma GCC unroll 16
        for (int j = 0; j < L; ++j) step(j);
    for (int j = 0; j < k_count % L; ++j) step(j);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
        for (int n = 0; n < NV; ++n) store(m + i * m_stride + n * L, sum[i][n]);
}

template <class T>
using Micro = void (*)(const T*, int64_t, int64_t, const T*, bool, T*, int64_t);

template <class T, int NV, bool Fetch, size_t... I>
constexpr Micro<T> with_rows(int64_t rows, std::index_sequence<I...>) {
    constexpr Micro<T> table[] = {micro<T, int(I) + 1, NV, Fetch>...};
    return table[rows - 1];
}

template <class T>
Micro<T> micro_for(int64_t rows, int64_t width, bool fetch) {
    constexpr auto all = std::make_index_sequence<size_t(tile_rows)>{};
    if (width == lanes<T>) return fetch ? with_rows<T, 1, true>(rows, all) : with_rows<T, 1, false>(rows, all);
    return fetch ? with_rows<T, 2, true>(rows, all) : with_rows<T, 2, false>(rows, all);
}

// ---- how a problem is cut

// The tiles along an axis. With a dilation every d-th output is a convolution of its own, without dilation, over every d-th input:
// the tiles of phase 0 come first, then those of phase 1, ...
struct Phased {
    int64_t m, dilation, outputs;

    int64_t length(int64_t phase) const { return (outputs + dilation - 1 - phase) / dilation; }  // outputs of a phase
    int64_t long_phases() const { return (outputs - 1) % dilation + 1; }                          // the others have one output less
    int64_t tiles(int64_t phase) const { return ceil_div(length(phase), m); }
    int64_t count() const {
        const int64_t longer = std::min(long_phases(), dilation);
        return longer * tiles(0) + (dilation - longer) * (length(0) > 1 ? ceil_div(length(0) - 1, m) : 0);
    }
};

// A tile's place along an axis: its phase, the outputs of the phase, and which of those it begins with.
struct Spot {
    int64_t phase, length, begin;

    Spot(const Phased& axis, int64_t tile) {
        const int64_t longer = axis.long_phases() * axis.tiles(0);
        if (tile < longer) {
            phase = tile / axis.tiles(0), tile %= axis.tiles(0);
        } else {
            const int64_t each = axis.tiles(axis.dilation - 1);
            phase = axis.long_phases() + (tile - longer) / each, tile = (tile - longer) % each;
        }
        length = axis.length(phase), begin = tile * axis.m;
    }
    int64_t output(const Phased& axis, int64_t i) const { return phase + (begin + i) * axis.dilation; }
};

template <class T>
struct Tiles {
    static constexpr int64_t line = 64 / int64_t(sizeof(T));
    Axis<T> h, w;
    Phased down, along;
    int64_t products, rows, columns, slices, count;  // a slice: one image at one depth

    explicit Tiles(const Problem& p)
        : h(p.tile[1]), w(p.tile[2]), down{h.m, h.taps > 1 ? p.dilation[1] : 1, p.output[1]},
          along{w.m, w.taps > 1 ? p.dilation[2] : 1, p.output[2]}, products(h.size * w.size), rows(down.count()),
          columns(along.count()), slices(p.batch * p.output[0]), count(slices * rows * columns) {}
};

// bias [group][padded oc], U [group][chunk][product][block of 2 vectors][c][width of the block], the weights as they are
template <class T>
struct WinogradPacking {
    static constexpr int64_t wide = 2 * lanes<T>, chunk = std::max<int64_t>(256 / int64_t(sizeof(T)), wide);
    int64_t products, channels, padded, inner, chunks;

    explicit WinogradPacking(const Problem& p)
        : products(Tiles<T>(p).products), channels(p.out_channels), padded(round_up(channels, lanes<T>)), inner(p.in_channels),
          chunks(ceil_div(padded, chunk)) {}
    int64_t width(int64_t i) const { return std::min(chunk, padded - i * chunk); }
    int64_t transformed(const Problem& p, int64_t group, int64_t i) const {
        return round_up(p.groups * padded, Tiles<T>::line) + (group * padded + i * chunk) * products * inner;
    }
    int64_t plain(const Problem& p) const { return transformed(p, p.groups, 0); }
    size_t bytes(const Problem& p) const {
        return size_t(plain(p) + p.groups * channels * inner * taps(p)) * sizeof(T);
    }
};

// ---- packing

template <class T>
struct WinogradPack {
    static constexpr int64_t slice = 16;  // channels at a time
    const Problem& p;
    const T *weight, *bias;
    T* out;
    int64_t parts;

    static void part(void* context, int64_t index) {
        const WinogradPack& job = *static_cast<WinogradPack*>(context);
        const WinogradPacking<T> packing(job.p);
        const int64_t blocks = ceil_div(packing.padded, packing.wide), count = job.p.groups * blocks;
        for (int64_t i = count * index / job.parts; i < count * (index + 1) / job.parts; ++i)
            job.block(packing, i / blocks, i % blocks * packing.wide);
        const int64_t all = job.p.groups * packing.channels * packing.inner * taps(job.p);
        const int64_t begin = all * index / job.parts, end = all * (index + 1) / job.parts;
        std::copy(job.weight + begin, job.weight + end, job.out + packing.plain(job.p) + begin);
    }

    // the output channels first ... first + width of a group
    void block(const WinogradPacking<T>& packing, int64_t group, int64_t first) const {
        const Axis<T> h(p.tile[1]), w(p.tile[2]);
        const int64_t tap_count = taps(p), k = packing.inner * tap_count, chunk = first / packing.chunk;
        const int64_t width = std::min(packing.wide, packing.padded - first), channel = group * packing.channels + first;
        const int64_t plane = packing.inner * packing.width(chunk);  // of one product
        T* to = out + packing.transformed(p, group, chunk) + first % packing.chunk * packing.inner;
        T taken[9 * slice * packing.wide], half[3 * max_products * slice * packing.wide];
        for (int64_t c = 0; c < packing.inner; c += slice) {
            const int64_t n = std::min(slice, packing.inner - c), tap = n * width;
            pack_block(weight + channel * k + c * tap_count, k, tap_count, n * tap_count, packing.channels - first, width, taken);
            for (int64_t j = 0; j < w.taps; ++j)
                h.weights(taken + j * tap, w.taps * tap, lanes<T>, half + j * tap, w.taps * tap, lanes<T>, tap / lanes<T>);
            for (int64_t i = 0; i < h.size; ++i)
                w.weights(half + i * w.taps * tap, tap, lanes<T>, to + i * w.size * plane + c * width, plane, lanes<T>,
                          tap / lanes<T>);
        }
        for (int64_t c = 0; c < width; ++c)
            out[group * packing.padded + first + c] = bias && first + c < packing.channels ? bias[channel + c] : T(0);
    }
};

// ---- one call

struct Strip {  // tiles of a block that follow each other along w
    int64_t image, depth;
    Spot h, w;
    int64_t count, first;
};

template <class T>
struct Winograd {
    static constexpr int L = lanes<T>;
    static constexpr int64_t line = 64 / int64_t(sizeof(T)), k_block = 256, few_tiles = 24, block_bytes = 384 << 10;
    Problem p;
    Call call;
    Tiles<T> tiles;
    WinogradPacking<T> packing;
    int64_t parts, spans, blocks, most, v_plane, m_plane, strip;  // spans: of chunks; most: tiles in a block

    Winograd(const Problem& problem, const Call& c, int threads) : p(problem), call(c), tiles(p), packing(p) {
        constexpr double worth_a_thread = 1e5;  // multiply-adds
        const double work = multiply_adds(p) / taps(p) * double(tiles.products) / double(tiles.h.m * tiles.w.m);
        parts = std::max<int64_t>(1, std::min<int64_t>(threads, int64_t(work / worth_a_thread)));
        spans = tiles.count < few_tiles * parts ? std::min(parts, packing.chunks) : 1;  // few tiles: each thread reads less of U
        const int64_t tile_bytes = tiles.products * (packing.inner + packing.width(0)) * int64_t(sizeof(T));
        const int64_t fits = std::max(few_tiles, block_bytes / tile_bytes / tile_rows * tile_rows);
        blocks = ceil_div(tiles.count, fits);
        if (spans == 1 && p.groups == 1) blocks = std::min(round_up(blocks, parts), tiles.count);
        most = ceil_div(tiles.count, blocks);
        v_plane = round_up(most * round_up(packing.inner, L), line) + line;
        m_plane = round_up(most * packing.width(0), line) + line;
        strip = std::min(most, tiles.along.tiles(0)) * tiles.w.m + tiles.w.size - tiles.w.m;
        parts = std::min(parts, units());
    }
    int64_t units() const { return spans * p.groups * blocks; }

    struct Scratch {
        T *v, *m, *rows, *half, *outputs;
        size_t bytes;
        Scratch(const Winograd& job, void* base) {
            Arena arena(base);
            v = arena.take<T>(job.tiles.products * job.v_plane);
            m = arena.take<T>(job.tiles.products * job.m_plane);
            rows = arena.take<T>(job.tiles.h.size * job.strip * L);
            half = arena.take<T>(job.tiles.h.size * job.strip * L);
            outputs = arena.take<T>(job.tiles.h.m * job.strip * L);
            bytes = arena.used();
        }
    };

    static void part(void* context, int64_t index) {
        const Winograd& job = *static_cast<Winograd*>(context);
        const FlushDenormals flush(!job.p.strict);
        const Scratch s(job, static_cast<char*>(job.call.workspace) + size_t(index) * Scratch(job, nullptr).bytes);
        for (int64_t i = job.units() * index / job.parts; i < job.units() * (index + 1) / job.parts; ++i) {
            const int64_t block = i % job.blocks, group = i / job.blocks % job.p.groups, span = i / job.blocks / job.p.groups;
            const int64_t first = job.tiles.count * block / job.blocks, end = job.tiles.count * (block + 1) / job.blocks;
            job.transform_inputs(first, end, group, s);
            for (int64_t c = job.packing.chunks * span / job.spans; c < job.packing.chunks * (span + 1) / job.spans; ++c) {
                job.multiply(end - first, group, c, s);
                job.transform_outputs(first, end, group, c, s);
            }
        }
    }

    // body(strip) for the strips of the tiles first .. end
    template <class Body>
    FASTCONV_INLINE void for_strips(int64_t first, int64_t end, Body body) const {
        for (int64_t t = first; t < end;) {
            const int64_t row = t / tiles.columns, slice = row / tiles.rows;
            const Spot h(tiles.down, row % tiles.rows), w(tiles.along, t % tiles.columns);
            const int64_t count = std::min(ceil_div(w.length - w.begin, tiles.w.m), end - t);
            body(Strip{slice / p.output[0], slice % p.output[0], h, w, count, t - first});
            t += count;
        }
    }

    // ---- V

    void transform_inputs(int64_t first, int64_t end, int64_t group, const Scratch& s) const {
        for_strips(first, end, [&](const Strip& strip_) __attribute__((always_inline)) {
            const int64_t pixels = strip_.count * tiles.w.m + tiles.w.size - tiles.w.m;
            for (int64_t c = 0; c < p.in_channels; c += L) {
                fill(strip_, group, c, pixels, s);
                const T* from = s.rows;
                if (tiles.h.size > 1) {
                    tiles.h.input(s.rows, pixels * L, L, s.half, pixels * L, L, pixels);
                    from = s.half;
                }
                for (int64_t i = 0; i < tiles.h.size; ++i)
                    tiles.w.input(from + i * pixels * L, L, tiles.w.m * L,
                                  s.v + i * tiles.w.size * v_plane + c * most + strip_.first * L, v_plane, L, strip_.count);
            }
        });
    }

    // out[row][pixel][L]: a vector of channels of what the strip reads, the padding written out, and 0 where no output needs it
    void fill(const Strip& t, int64_t group, int64_t c, int64_t pixels, const Scratch& s) const {
        const View& view = call.input;
        const int64_t channels = std::min<int64_t>(L, p.in_channels - c);
        const int64_t rows = std::min(tiles.h.size, t.h.length + tiles.h.taps - 1 - t.h.begin);
        const Strand strand(p, t.w.output(tiles.along, 0) - p.pad_lo[2], tiles.along.dilation,
                            std::min(pixels, t.w.length + tiles.w.taps - 1 - t.w.begin));
        const int64_t from_d = source(p, 0, t.depth * p.stride[0] - p.pad_lo[0]);
        const T* image = static_cast<const T*>(view.data) + t.image * view.batch + (group * p.in_channels + c) * view.channel;
        T* out = s.rows;
        if (channels < L) clear(out, tiles.h.size * pixels * L);
        for (int64_t i = 0; i < tiles.h.size; ++i, out += pixels * L) {
            const int64_t from_h = i < rows ? source(p, 1, t.h.output(tiles.down, i) - p.pad_lo[1]) : -1;
            if (from_d < 0 || from_h < 0) clear(out, pixels * L);
            else fill_strand(strand, image + from_d * view.space[0] + from_h * view.space[1], channels, pixels, out, s.half);
        }
    }

    // One row of that. A stride of its pixels is taken out of each channel before the channels come together.
    FASTCONV_INLINE void fill_strand(const Strand& strand, const T* row, int64_t channels, int64_t pixels, T* out, T* plain) const {
        const View& view = call.input;
        const auto outside = [&](int64_t begin, int64_t end) {
            for (int64_t j = begin; j < end; ++j) {
                if (p.padding_mode == PaddingMode::zeros) clear(out + j * L, L);
                else fill_channels(row + source(p, 2, strand.first + j * strand.step) * view.space[2], view.channel, 0, channels, 1, out + j * L, L);
            }
        };
        outside(0, strand.inside);
        const int64_t n = strand.end - strand.inside, stride = strand.step * view.space[2];
        const T* from = row + (strand.first + strand.inside * strand.step) * view.space[2];
        if (stride == 1 || view.channel == 1) {
            fill_channels(from, view.channel, stride, channels, n, out + strand.inside * L, L);
        } else {
            for (int64_t c = 0; c < channels; ++c) copy_strided(plain + c * pixels, from + c * view.channel, stride, n);
            fill_channels(static_cast<const T*>(plain), pixels, 1, channels, n, out + strand.inside * L, L);
        }
        outside(strand.end, strand.count);
        clear(out + strand.count * L, (pixels - strand.count) * L);
    }

    // ---- M

    void multiply(int64_t count, int64_t group, int64_t chunk, const Scratch& s) const {
        const int64_t chunk_width = packing.width(chunk), groups = ceil_div(count, tile_rows);
        const T* u = static_cast<const T*>(call.packed) + packing.transformed(p, group, chunk);
        const bool far = tiles.products * packing.inner * packing.padded * int64_t(sizeof(T)) > far_bytes;
        for (int64_t x = 0; x < tiles.products; ++x) {
            for (int64_t first = 0; first < chunk_width; first += packing.wide) {
                const int64_t width = std::min(packing.wide, chunk_width - first);
                for (int64_t k = 0; k < packing.inner; k += k_block) {
                    const int64_t k_count = std::min(k_block, packing.inner - k);
                    for (int64_t g = 0; g < groups; ++g) {
                        const int64_t tile = count * g / groups, rows = count * (g + 1) / groups - tile;
                        const Micro<T> kernel = micro_for<T>(rows, width, far && g == 0);
                        kernel(s.v + x * v_plane + k * most + tile * L, most * L, k_count, u + k * width, k == 0,
                               s.m + x * m_plane + tile * chunk_width + first, chunk_width);
                    }
                }
                u += width * packing.inner;
            }
        }
    }

    // ---- Y

    void transform_outputs(int64_t first, int64_t end, int64_t group, int64_t chunk, const Scratch& s) const {
        const int64_t width = packing.width(chunk);
        Finish<T> finish(p, call);
        finish.output.space[2] *= tiles.along.dilation, finish.residual.space[2] *= tiles.along.dilation;
        for_strips(first, end, [&](const Strip& t) __attribute__((always_inline)) {
            const int64_t pixels = t.count * tiles.w.m;
            const int64_t valid_rows = std::min(tiles.h.m, t.h.length - t.h.begin), valid = std::min(pixels, t.w.length - t.w.begin);
            for (int64_t v = 0; v < width; v += L) {
                const int64_t oc = chunk * packing.chunk + v, channels = std::min<int64_t>(L, packing.channels - oc);
                const T* bias = static_cast<const T*>(call.packed) + group * packing.padded + oc;
                const T none[L] = {};
                for (int64_t i = 0; i < tiles.h.size; ++i)
                    tiles.w.output(s.m + i * tiles.w.size * m_plane + t.first * width + v, m_plane, width, s.half + i * pixels * L, L,
                                   tiles.w.m * L, t.count, none);
                if (!tiles.h.output(s.half, pixels * L, L, s.outputs, pixels * L, L, valid, bias))
                    repair(t, group, oc, channels, pixels, valid_rows, valid, s.outputs);
                const int64_t channel = group * packing.channels + oc;
                for (int64_t i = 0; i < valid_rows; ++i)
                    finish(s.outputs + i * pixels * L, L, channels, valid, place(call.output, t, i, channel),
                           place(call.residual, t, i, channel));
            }
        });
    }

    T* place(const View& view, const Strip& t, int64_t row, int64_t channel) const {
        if (!view.data) return nullptr;
        return static_cast<T*>(view.data) + t.image * view.batch + channel * view.channel + t.depth * view.space[0] +
               t.h.output(tiles.down, row) * view.space[1] + t.w.output(tiles.along, 0) * view.space[2];
    }

    // Every tile and channel with a NaN or infinity among its outputs, once more without a transform.
    FASTCONV_NOINLINE void repair(const Strip& t, int64_t group, int64_t oc, int64_t channels, int64_t pixels, int64_t rows,
                                  int64_t valid, T* outputs) const {
        for (int64_t tile = 0; tile < t.count; ++tile)
            for (int64_t c = 0; c < channels; ++c) {
                const int64_t begin = tile * tiles.w.m, end = std::min(begin + tiles.w.m, valid);
                bool finite = true;
                for (int64_t i = 0; i < rows; ++i)
                    for (int64_t j = begin; j < end; ++j) finite = finite && std::isfinite(outputs[(i * pixels + j) * L + c]);
                if (finite) continue;
                const T* packed = static_cast<const T*>(call.packed);
                const T* weight = packed + packing.plain(p) + (group * packing.channels + oc + c) * packing.inner * taps(p);
                const T bias = packed[group * packing.padded + oc + c];
                for (int64_t i = 0; i < rows; ++i)
                    for (int64_t j = begin; j < end; ++j)
                        outputs[(i * pixels + j) * L + c] =
                            one_output(p, call.input, t.image, group, weight, bias, t.depth, t.h.output(tiles.down, i), t.w.output(tiles.along, j));
            }
    }
};

const char* refusal(const Problem& p) {
    for (int a = 0; a < max_axes; ++a) {
        if (p.tile[a] < 1 || p.tile[a] > max_tile) return "no tile was chosen";
        if (p.kernel[a] != (p.tile[a] == 1 ? 1 : 3)) return "transforms kernels of 3 taps along an axis only";
    }
    if (p.tile[0] != 1 || p.stride[1] != 1 || p.stride[2] != 1) return "transforms the last two axes only, with stride 1";
    return nullptr;
}

template <class T>
void pack(const Problem& p, const void* weight, const void* bias, void* packed, int threads, ParallelFor parallel_for) {
    const int64_t blocks = p.groups * ceil_div(WinogradPacking<T>(p).padded, WinogradPacking<T>::wide);
    WinogradPack<T> job{p, static_cast<const T*>(weight), static_cast<const T*>(bias), static_cast<T*>(packed),
                        std::min<int64_t>(threads, blocks)};
    parallel_for(job.parts, WinogradPack<T>::part, &job);
}

template <class T>
void run(const Problem& p, const Call& call) {
    Winograd<T> job(p, call, call.threads);
    call.parallel_for(job.parts, Winograd<T>::part, &job);
}

template <class T>
size_t workspace(const Problem& p, int threads) {
    const Winograd<T> job(p, Call{}, threads);
    return size_t(job.parts) * typename Winograd<T>::Scratch(job, nullptr).bytes;
}

}  // namespace

const Algorithm& winograd_algorithm() {
    static const Algorithm algorithm = {
        "winograd",
        refusal,
        [](const Problem& p) { return p.dtype == Dtype::float32 ? WinogradPacking<float>(p).bytes(p) : WinogradPacking<double>(p).bytes(p); },
        [](const Problem& p, int threads) { return (p.dtype == Dtype::float32 ? workspace<float> : workspace<double>)(p, threads); },
        [](const Problem& p, const void* weight, const void* bias, void* packed, int threads, ParallelFor parallel_for) {
            (p.dtype == Dtype::float32 ? pack<float> : pack<double>)(p, weight, bias, packed, threads, parallel_for);
        },
        [](const Problem& p, const Call& call) { (p.dtype == Dtype::float32 ? run<float> : run<double>)(p, call); },
    };
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
