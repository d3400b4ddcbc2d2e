// winograd: F(m x n, r x s), F(m, r) along one axis, fused.
//
//   Y = A^T [ sum over c of (G g_c G^T) . (B^T d_c B) ] A         (toom.hpp has the matrices)
//
// Tiles of m x n outputs read (m + r - 1) x (n + s - 1) inputs. A block of R tiles goes all the way before the next begins, in the
// caches of one thread:
//   V[product][vector of c][tile][lanes]   the transformed inputs, vectors over channels: rows of the input are transposed once,
//                         the vertical transform is done once per column of the strip, the horizontal one writes straight to V
//   M[product][vector of oc][tile][lanes] = V U    one matrix product per product, U[chunk][product][2 vectors of oc][c][2 vectors]
//                         read as one stream
//   Y                     from M, vectors over output channels; rows of outputs are transposed, and finished like any other
// Bottleneck: FMA in the products (36 of direct's 144 for F(4 x 4, 3 x 3)), then the transforms: about 40 instructions per vector of
// channels, tile and side for F(4 x 4). U is read once per block: R tiles per 4 bytes, so few tiles with many channels wait
// for memory.
//
// A kernel with a stride, large or deep, is the sum of several over other inputs: of components, which are further channels here, in the
// order [component][input channel]. A dilated kernel is several kernels that are not: see Phased. Both are in tiling.hpp.
// A tile with a NaN or infinity among its outputs is computed again directly: see winograd_repair.hpp.
#include "crew.hpp"
#include "finish.hpp"
#include "tile.hpp"
#include "winograd_inputs.hpp"
#include "winograd_repair.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

constexpr int fetch_ahead = 64;          // steps of k: 4 to 8 KB

// ---- micro-kernel: m[vector][i][:] (+)= sum over k of v[k / lanes][i][k % lanes] * u[k][vector][:]

// Fetch: ask for u well before it is read; where it comes from memory, the hardware's own prefetching is too short.
template <class T, int MR, int NR, bool Fetch>
struct WinogradTile {
    FASTCONV_NOINLINE static void run(const T* v, int64_t v_step, int64_t k_count, const T* u, bool first, T* m, int64_t m_step,
                                      Ahead<T>* ahead) {
        constexpr int L = lanes<T>;
        Vec<T> sum[MR][NR];
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
            for (int n = 0; n < NR; ++n) sum[i][n] = first ? Vec<T>{} : load(m + n * m_step + i * L);
        const auto step = [&](int j) __attribute__((always_inline)) {
            if constexpr (Fetch)
#pragma GCC unroll 2
                for (int line = 0; line < NR * L; line += 64 / int(sizeof(T))) __builtin_prefetch(u + fetch_ahead * NR * L + line);
            Vec<T> weight[NR];
#pragma GCC unroll 2
            for (int n = 0; n < NR; ++n) weight[n] = load(u + n * L);
#pragma GCC unroll 16
            for (int i = 0; i < MR; ++i) {
                const Vec<T> value = broadcast(v[i * L + j]);
#pragma GCC unroll 2
                for (int n = 0; n < NR; ++n) sum[i][n] += value * weight[n];
            }
            u += NR * L;
        };
        for (int64_t vector = 0; vector < k_count / L; ++vector, v += v_step) {
            if (ahead) ahead->ask();
#pragma GCC unroll 16
            for (int j = 0; j < L; ++j) step(j);
        }
        for (int j = 0; j < k_count % L; ++j) step(j);
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
            for (int n = 0; n < NR; ++n) store(m + n * m_step + i * L, sum[i][n]);
    }
};

// ---- one call

template <class T>
struct Winograd {
    static constexpr int L = lanes<T>;
    static constexpr int64_t line = 64 / int64_t(sizeof(T)), KC = 256, few_tiles = 24, block_bytes = 384 << 10;
    static constexpr int64_t far_block_bytes = 4 << 20;  // V and M in L3, so that weights from there or from memory are read less often
    static constexpr int64_t slice_bytes = 256 << 10;    // of U, where weights are read in place
    Problem p;
    Call call;
    View lie;  // weights in place, in another order than C's
    Tiles<T> tiles;
    WinogradPacking<T> packing;
    int64_t parts, blocks, most, v_plane, m_plane, strip, slice, u_plane;  // most: tiles in a block; slice: input channels in one of U
    bool far;       // U comes from L3 or memory
    bool together;  // few tiles: all threads share each block, and read a part of U each
    Crew crew;

    Winograd(const Problem& problem, const Call& c, int threads)
        : p(upright(problem)), call(upright(problem, c)), lie(upright(problem, c.lie ? *c.lie : View{})), tiles(p), packing(p) {
        const double work = multiply_adds(p) / kernel_volume(p) * double(tiles.split.count() * tiles.products) / double(tiles.h.m * tiles.w.m);
        parts = threads_for(work, worth_a_thread::winograd, threads);
        const bool even = packing.blocks % parts == 0 || packing.blocks > 8 * parts;  // each thread gets about as many output channels
        far = packing.is_far();
        together = (call.in_place || tiles.count < (even ? few_tiles : few_tiles / 2) * parts) && p.groups < parts && packing.chunks > 1;
        const int64_t tile_bytes = tiles.products * (packing.inner + packing.widest()) * int64_t(sizeof(T));
        const int64_t fits = std::max(few_tiles, (far || call.in_place ? far_block_bytes : block_bytes) / tile_bytes / max_MR * max_MR);
        const int64_t sharing = together || p.groups > 1 ? 1 : std::min(parts, tiles.count);  // so many work at one group's blocks
        blocks = sharing * ceil_div(tiles.count, sharing * (fits + fits / 4));  // a quarter more, rather than twice as many halves
        most = ceil_div(tiles.count, blocks);
        v_plane = round_up(most * round_up(packing.inner, L), line) + line;
        m_plane = round_up(most * packing.widest(), line) + line;
        slice = std::min(packing.inner, std::max<int64_t>(16, slice_bytes / int64_t(sizeof(T)) / packing.wide / tiles.products / 16 * 16));
        u_plane = slice * packing.wide + line;
        strip = std::min(most, tiles.along.tiles(0)) * tiles.w.m + tiles.w.size - tiles.w.m;
        if (!together) parts = std::min(parts, units());
        const Scratch one(*this, nullptr, nullptr);
        crew = Crew(p, call, parts, one.bytes, one.common_bytes);
    }
    int64_t units() const { return p.groups * blocks; }

    struct Scratch {
        T *v, *m, *rows, *half, *outputs, *window;
        int64_t* offset;        // see Window
        T *u, *plain, *bias;    // where weights are read in place: a slice of U; the weights and biases of a vector of channels
        typename WinogradWeights<T>::Scratch weights{};
        size_t common_bytes, bytes;
        Scratch(const Winograd& job, void* common, void* own) {
            Arena ours(common), mine(own);
            v = (job.together ? ours : mine).template take<T>(job.tiles.products * job.v_plane);
            m = mine.take<T>(job.tiles.products * job.m_plane);
            rows = mine.take<T>(job.tiles.h.size * job.strip * L);
            half = mine.take<T>(job.tiles.h.size * job.strip * L);
            outputs = mine.take<T>(job.tiles.h.m * job.strip * L);
            window = mine.take<T>(Window<T>(job.p, job.tiles, job.strip).elements());
            offset = mine.take<int64_t>(kernel_volume(job.p));
            if (job.call.in_place) {
                u = mine.take<T>(job.tiles.products * job.u_plane);
                plain = mine.take<T>(k_of(job.p) * L), bias = mine.take<T>(L);
                weights = {job.p, WinogradWeights<T>::in_place(job.p), mine};
            }
            common_bytes = ours.used(), bytes = mine.used();
        }
    };

    // What the parts share: all blocks, or of one block the vectors of input channels and then the chunks of output channels.
    void compute() const {
        if (!together)
            return share(units(), [&](int64_t first, int64_t end, const Scratch& s) {
                for (int64_t unit = first; unit < end; ++unit) {
                    transform_inputs(unit, 0, vectors(), s);
                    multiply_and_transform(unit, 0, packing.chunks, s);
                }
            });
        for (int64_t unit = 0; unit < units(); ++unit) {
            share(vectors(), [&](int64_t first, int64_t end, const Scratch& s) { transform_inputs(unit, first, end, s); });
            share(packing.chunks, [&](int64_t first, int64_t end, const Scratch& s) { multiply_and_transform(unit, first, end, s); });
        }
    }
    template <class Items>
    void share(int64_t count, const Items& items) const {
        crew.share(count, [&](int64_t part, const auto& each) {
            const Scratch s(*this, crew.common(), crew.own(part));
            each([&](int64_t begin, int64_t end) { items(begin, end, s); });
        });
    }

    int64_t vectors() const { return WinogradInputs<T>::vectors(p); }
    int64_t group(int64_t unit_) const { return unit_ / blocks; }
    int64_t first_tile(int64_t unit_) const { return tiles.count * (unit_ % blocks) / blocks; }
    int64_t last_tile(int64_t unit_) const { return tiles.count * (unit_ % blocks + 1) / blocks; }

    void multiply_and_transform(int64_t unit_, int64_t first_chunk, int64_t end, const Scratch& s) const {
        for (int64_t chunk = first_chunk; chunk < end; ++chunk) {
            const int64_t count = last_tile(unit_) - first_tile(unit_);
            if (call.in_place) multiply_in_place(count, group(unit_), chunk, s);
            else multiply(count, group(unit_), chunk, s);
            transform_outputs(first_tile(unit_), last_tile(unit_), group(unit_), chunk, s);
        }
    }

    // ---- V

    // some vectors of input channels
    void transform_inputs(int64_t unit_, int64_t first, int64_t end, const Scratch& s) const {
        const WinogradInputs<T> inputs{p, call.input, tiles, packing.inner, most, v_plane};
        inputs.transform(first_tile(unit_), last_tile(unit_), group(unit_), first, end, {s.v, s.rows, s.half});
    }

    // ---- M

    void multiply(int64_t count, int64_t group, int64_t chunk, const Scratch& s) const {
        const int64_t chunk_width = packing.width(chunk);
        const T* u = static_cast<const T*>(call.packed) + packing.transformed(p, group, chunk);
        for (int64_t x = 0; x < tiles.products; ++x) {
            const auto [begin, end] = terms(x);
            for (int64_t first = 0; first < chunk_width; first += packing.wide) {
                const int64_t width = std::min(packing.wide, chunk_width - first);
                for (int64_t k = begin; k < end; k += KC)
                    multiply_tiles(count, x, first, width, k, std::min(KC, end - k), u + k * width, k == begin, nullptr, s);
                u += width * packing.inner;
            }
        }
    }

    // The same sums, slices of input channels outside of the products.
    void multiply_in_place(int64_t count, int64_t group, int64_t chunk, const Scratch& s) const {
        const WinogradWeights<T> weights = this->weights();
        const bool all = tiles.split.count() > 1;  // input channels are dealt at once
        const int64_t pieces = tiles.products * ceil_div(count, max_MR);
        Ahead<T> ahead{};
        for (int64_t first = 0; first < packing.width(chunk); first += packing.wide) {
            const int64_t width = std::min(packing.wide, packing.width(chunk) - first), oc = packing.first(chunk) + first;
            weights.begin(width, s.weights);
            for (int64_t k = 0; k < packing.inner; k += slice) {
                const int64_t k_count = std::min(slice, packing.inner - k);
                transform_slice(weights, group, oc, width, k, k_count, s);
                const int64_t next_k = k + k_count < packing.inner ? k + k_count : 0, next = next_k ? oc : oc + width;
                if (!all) ahead = weights.ahead(group, next, packing.channels, width, next_k, std::min(slice, packing.inner - next_k),
                                                std::max<int64_t>(1, pieces * (k_count / L)));
                else if (k == 0) ahead = weights.ahead(group, oc + width, packing.channels, width, 0, p.in_channels,
                                                       std::max<int64_t>(1, pieces * (packing.inner / L)));
                for (int64_t x = 0; x < tiles.products; ++x) {
                    const auto [begin, end] = terms(x);
                    const int64_t from = std::max(begin, k), n = std::min(end, k + k_count) - from;
                    const T* u = s.u + x * u_plane + (from - k) * width;
                    if (n > 0) multiply_tiles(count, x, first, width, from, n, u, from == begin, &ahead, s);
                }
            }
        }
    }

    // A slice of U, of two vectors of output channels from oc on.
    void transform_slice(const WinogradWeights<T>& weights, int64_t group, int64_t oc, int64_t width, int64_t k, int64_t k_count,
                         const Scratch& s) const {
        const bool all = tiles.split.count() > 1;  // the slices of a block of output channels find them dealt
        const auto place = weights.places(width, s.weights);
        if (all && k == 0) weights.deal(group, oc, packing.channels, width, 0, p.in_channels, place);
        for (int64_t c = 0, n; c < k_count; c += n) {
            const int64_t channel = (k + c) % p.in_channels;
            n = std::min({weights.at_once, k_count - c, p.in_channels - channel});
            if (!all) weights.deal(group, oc, packing.channels, width, channel, n, place);
            weights.transform(tiles, (k + c) / p.in_channels, all ? channel : 0, n, width, s.u + c * width, u_plane, false, s.weights);
        }
    }
    WinogradWeights<T> weights() const {
        return {p, static_cast<const T*>(call.packed), call.lie ? &lie : nullptr, WinogradWeights<T>::in_place(p)};
    }

    // M of product x and a block of output channels, `first` of its chunk, += k_count of its terms from k on.
    FASTCONV_INLINE void multiply_tiles(int64_t count, int64_t x, int64_t first, int64_t width, int64_t k, int64_t k_count, const T* u,
                                        bool from_zero, Ahead<T>* ahead, const Scratch& s) const {
        const int64_t groups = ceil_div(count, max_MR), rows = count / groups, longer = count % groups;  // these have a row more
        const T* v = s.v + x * v_plane + k * most;
        T* m = s.m + x * m_plane + first * most;
        for (int64_t g = 0, n; g < groups; ++g, v += n * L, m += n * L) {
            n = rows + (g < longer);
            tile_of<WinogradTile, T>(n, width, far && !call.in_place && g == 0)(v, most * L, k_count, u, from_zero, m, most * L, ahead);
        }
    }

    // From where to where, in k, the product x has terms: components that lack taps have none at infinity. Whole vectors.
    std::pair<int64_t, int64_t> terms(int64_t x) const {
        const bool h = x / tiles.w.size == tiles.h.size - 1, w = x % tiles.w.size == tiles.w.size - 1;
        return {tiles.split.begin(h) * p.in_channels / L * L, std::min(round_up(tiles.split.end(h, w) * p.in_channels, L), packing.inner)};
    }

    // ---- Y

    void transform_outputs(int64_t first, int64_t end, int64_t group, int64_t chunk, const Scratch& s) const {
        const int64_t width = packing.width(chunk);
        Finish<T> finish(p, call);
        finish.output.space[2] *= tiles.along.dilation, finish.residual.space[2] *= tiles.along.dilation;
        for_strips(p, tiles, first, end, [&](const Strip& t) __attribute__((always_inline)) {
            const int64_t pixels = t.count * tiles.w.m;
            const int64_t valid_rows = std::min(tiles.h.m, t.h.length - t.h.begin), valid = std::min(pixels, t.w.length - t.w.begin);
            bool copied = false;  // to the window, once it is needed
            for (int64_t v = 0; v < width; v += L) {
                const int64_t oc = packing.first(chunk) + v, channels = std::min<int64_t>(L, packing.channels - oc);
                const T* bias = bias_of(group, oc, s);
                for (int64_t i = 0; i < tiles.h.size; ++i)
                    tiles.w.output(s.m + i * tiles.w.size * m_plane + v * most + t.first * L, m_plane, L, s.half + i * pixels * L, L,
                                   tiles.w.m * L, t.count);
                if (!tiles.h.finish(s.half, pixels * L, L, s.outputs, pixels * L, L, valid, bias)) {
                    if (!copied) Window<T>(p, tiles, pixels).fill(t, call.input, group, s.window);
                    copied = true;
                    repair(group, oc, bias, pixels, valid_rows, valid, s);
                }
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

    const T* bias_of(int64_t group, int64_t oc, const Scratch& s) const {
        if (!call.in_place) return static_cast<const T*>(call.packed) + group * packing.padded + oc;
        const T* bias = static_cast<const T*>(call.bias);
        store(s.bias, bias ? load_some(bias + group * packing.channels + oc, std::min<int64_t>(L, packing.channels - oc)) : Vec<T>{});
        return s.bias;
    }

    // The weights of a vector of output channels, [c][tap][lanes].
    const T* plain(int64_t group, int64_t oc, const Scratch& s) const {
        const int64_t k = k_of(p);
        if (!call.in_place) return static_cast<const T*>(call.packed) + packing.plain(p) + (group * packing.padded + oc) * k;
        weights().deal(group, oc, packing.channels, L, 0, p.in_channels,
                     [&](int64_t channel, int64_t tap) { return s.plain + (channel * kernel_volume(p) + tap) * L; });
        return s.plain;
    }

    // Every tile with a NaN or infinity among its outputs of a vector of channels, once more without a transform.
    FASTCONV_NOINLINE void repair(int64_t group, int64_t oc, const T* bias, int64_t pixels, int64_t rows, int64_t valid,
                                  const Scratch& s) const {
        const T* weight = plain(group, oc, s);
        const Window<T> window(p, tiles, pixels);
        constexpr int64_t at_once = Window<T>::at_once;
        const T* x[at_once];
        T* y[at_once];
        int64_t listed = 0;
        window.fill_offsets(s.offset);
        for (int64_t begin = 0; begin < valid; begin += tiles.w.m) {
            const int64_t width = std::min(tiles.w.m, valid - begin);
            Vec<T> zero{};
            for (int64_t i = 0; i < rows * width; ++i) zero += load(s.outputs + (i / width * pixels + begin + i % width) * L) * T(0);
            for (int64_t i = 0; i < rows * width && !all_zeros<T>(zero); ++i) {
                const int64_t row = i / width, column = begin + i % width;
                x[listed] = s.window + window.place(row, column), y[listed] = s.outputs + (row * pixels + column) * L;
                if (++listed == at_once) window.sum(x, s.offset, weight, bias, y), listed = 0;
            }
        }
        if (listed == 0) return;
        for (; listed < at_once; ++listed) x[listed] = x[0], y[listed] = y[0];  // one of them again, rather than fewer
        window.sum(x, s.offset, weight, bias, y);
    }
};

template <class T>
struct WinogradAlgorithm : Defaults {
    static constexpr bool packs_any_order = true;

    static const char* refuses(const Problem& problem) {
        const Problem p = upright(problem);
        const Split split(p);
        if (split.h.taps == 1 && split.w.taps == 1)
            return "transforms kernels of several taps along one of the last two axes, or along depth alone";
        for (int a = 1; a < max_axes; ++a)
            if (p.stride[a] > 1 && p.dilation[a] > 1 && p.kernel[a] > 1) return "transforms no dilation together with a stride";
        if (split.taps() > most_packed_taps) return "transforms kernels of at most 1024 taps";
        const bool chosen = p.tile[0] == 1 && Axis<T>::exists(p.tile[1], split.h.taps) && Axis<T>::exists(p.tile[2], split.w.taps);
        return chosen ? nullptr : "no tile was chosen";
    }
    // U is written and read once less if its slices are used up in L2, unless they are made for several blocks of tiles, or by every
    // thread. Where calls share U, reading it takes less than making it: 512@14 of two threads 1.9 ms, 2.5 in place, though it comes
    // from memory.
    static bool in_place(const Problem& p, bool once) {
        if (!once || p.batch == 0 || !WinogradWeights<T>::fits(upright(p))) return false;
        const Winograd<T> job(p, unpacked(), 1);
        return job.packing.chunks > 1 && (job.far || job.blocks == 1);
    }
    static Call unpacked() {
        Call call{};
        call.in_place = true;
        return call;
    }
    static size_t packed_bytes(const Problem& p) { return WinogradPacking<T>(upright(p)).bytes(upright(p)); }
    static size_t workspace_bytes(const Problem& p, int threads) {
        const size_t packed = Winograd<T>(p, Call{}, threads).crew.bytes();
        return in_place(p, true) ? std::max(packed, Winograd<T>(p, unpacked(), threads).crew.bytes()) : packed;
    }
    static size_t pack_workspace_bytes(const Problem& p, int threads) {
        PackCall call{};
        call.threads = threads;
        return WinogradPack<T>(p, call).workspace_bytes();
    }
    static void pack(const Problem& p, const PackCall& call) { WinogradPack<T>(p, call).compute(); }
    static bool shares_packed(const Problem& p, int threads) {
        const Winograd<T> job(p, Call{}, threads);
        return job.parts > 1 && !job.together && p.groups == 1;
    }
    static void run(const Problem& p, const Call& call) { Winograd<T>(p, call, call.threads).compute(); }
};

}  // namespace

const Algorithm& winograd_algorithm() {
    static const Algorithm algorithm = algorithm_of<WinogradAlgorithm<float>, WinogradAlgorithm<double>>("winograd");
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
