// gemm: implicit GEMM with the output channels on the vector.
//
//   out[pixel][oc] = bias[oc] + sum over k of x[pixel offset + tap offset(k)] * w[k][oc]
//
// Tile: up to MR pixels x 2 vectors of output channels in registers (AVX2 6 x 16 floats, AVX-512 14 x 32). Both operands are
// read as one stream: weights are packed [block][k][2 vectors], and the inputs of a box are copied to panels
// [tile][k][MR], about one load and store per tile and k against 12 multiply-adds for every 16 output channels. Everything that
// a stride, a dilation, padding or a layout means happens in that copy.
// k runs channel by channel, all taps of one after another, in blocks whose weights stay in L1 while all tiles of a box pass by, and
// whose slab stays in L1 while its taps are copied to the panels. Sums collect in [block][pixel][2 vectors], which is transposed into
// channels_first outputs or copied into channels_last ones.
// Bottleneck: FMA; per k a tile loads 2 vectors and MR broadcasts for 2 MR FMAs.
#include "driver.hpp"
#include "pack.hpp"
#include "runs.hpp"
#include "tile.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

constexpr int64_t KC = (16 << 10) / (2 * vector_bytes);  // k of one block: 16 KB of weights
// Weights that a network's other layers displace, or that no L2 holds: they are fetched ahead, which costs nothing where they are near.
constexpr int64_t far_bytes = 128 << 10;
constexpr int64_t kept_bytes = 1 << 20;                       // panels of all k of a box that are kept for the next blocks
constexpr int64_t blocks_at_once = 16;                        // blocks of output channels whose sums are kept from one k block to the next

template <class T>
constexpr int64_t pitch = (max_MR + lanes<T> - 1) / lanes<T> * lanes<T>;  // of a panel: from k to k + 1, whole vectors
constexpr int64_t max_KC = max_MR > 8 ? 4 * KC : KC;  // high tiles read weights so seldom that they may come from L2
constexpr int64_t tiles_at_once = 8;                          // whose panels are filled together: few streams of stores, and few TLB misses

struct Ahead {  // weights to ask for meanwhile: where they begin, and how many bytes with each k
    const char* from;
    int64_t step;
};

// ---- micro-kernel: tile[i][:] = init[i][:] + sum over k of x[k][i] * w[k][:]

// Fetch: ask for the weights ahead; it costs a little where they are near.
template <class T, int MR, int NR, bool Fetch>
struct GemmTile {
    FASTCONV_NOINLINE static void run(const T* x, int64_t k_count, const T* w, const T* init, int64_t init_stride, T* tile, Ahead ahead) {
        constexpr int L = lanes<T>;
        Vec<T> sum[MR][NR];
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
            for (int v = 0; v < NR; ++v) sum[i][v] = load(init + i * init_stride + v * L);
        for (int64_t k = 0; k < k_count; ++k, w += NR * L, x += pitch<T>) {
            if constexpr (Fetch) {
                __builtin_prefetch(ahead.from);
                if constexpr (NR * vector_bytes > 64) __builtin_prefetch(ahead.from + ahead.step / 2);
                ahead.from += ahead.step;
            }
            Vec<T> weight[NR];
#pragma GCC unroll 2
            for (int v = 0; v < NR; ++v) weight[v] = load(w + v * L);
#pragma GCC unroll 16
            for (int i = 0; i < MR; ++i) {
                const Vec<T> value = broadcast(x[i]);
#pragma GCC unroll 2
                for (int v = 0; v < NR; ++v) sum[i][v] += value * weight[v];
            }
        }
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
            for (int v = 0; v < NR; ++v) store(tile + (i * NR + v) * L, sum[i][v]);
    }
};

// ---- packed weights: bias [group][padded oc], spoiled [group][block]: whether any is not finite, then weights [group][block][k][width of the block]

template <class T>
struct GemmPacking {
    static constexpr int64_t wide = 2 * lanes<T>;
    int64_t k, channels, padded, blocks;

    explicit GemmPacking(const Problem& p) : GemmPacking(p, kernel_volume(p)) {}
    GemmPacking(const Problem& p, int64_t volume) : k(p.in_channels * volume), channels(p.out_channels) {
        padded = round_up(channels, lanes<T>);
        blocks = ceil_div(padded, wide);
    }
    int64_t width(int64_t block) const { return std::min(wide, padded - block * wide); }
    int64_t before(const Problem& p) const { return round_up(p.groups * (padded + blocks), 64 / int64_t(sizeof(T))); }
    size_t bytes(const Problem& p) const { return size_t(before(p) + p.groups * padded * k) * sizeof(T); }
    int64_t spoiled(const Problem& p, int64_t group, int64_t block) const { return p.groups * padded + group * blocks + block; }
    int64_t offset(const Problem& p, int64_t group, int64_t block) const {
        return before(p) + (group * padded + block * wide) * k;
    }
};

template <class T>
void pack_one(const Problem& p, const PackCall& call, const GemmPacking<T>& packing, int64_t group, int64_t block) {
    const int64_t first = block * packing.wide, channel = group * packing.channels + first, width = packing.width(block);
    const int64_t there = std::min(width, packing.channels - first);
    const T* bias = static_cast<const T*>(call.bias);
    T *packed = static_cast<T*>(call.packed), *out = packed + packing.offset(p, group, block);
    const bool finite = pack_as_they_lie(p, call, channel, there, width, out);
    packed[packing.spoiled(p, group, block)] = T(!finite);
    for (int64_t c = 0; c < width; ++c)
        packed[group * packing.padded + first + c] = bias && first + c < packing.channels ? bias[channel + c] : T(0);
}

// ---- one call

struct Tile {  // pixels of a box that are in registers together
    int64_t first, rows;
    int64_t vectors, singles;  // pieces of all tiles up to this one
};

struct Piece {  // inputs of a tile: from where to where
    int64_t from, to;
};

template <class T>
struct Gemm {
    static constexpr int L = lanes<T>;
    using Packing = GemmPacking<T>;
    Problem p, slice;  // slice: of as many channels as a slab holds
    Call call;
    Kept kept;
    bool last;  // the channels of a pixel are side by side, at least a vector of them
    bool raw;   // the input is read where it lies
    int64_t volume, kc;  // kc: of a block of k
    Packing packing;
    Blocking blocking;
    Tasks tasks;
    bool keeps;  // the panels of a task, for all of its blocks
    Strides strides;

    Gemm(const Region& region, int threads)
        : p(region.p), slice(sliced(p, region.call)), call(region.call), kept(region),
          last(call.input.channel == 1 && slice.in_channels >= L), raw(readable(p, call.input)), volume(kernel_volume(p)),
          kc(last ? slice.in_channels * volume : std::min(KC_of(p), slice.in_channels * volume)),
          packing(p, kept.taps),
          blocking(slice, limits(threads), sizeof(T)), tasks(p, blocking, packing.blocks, 0.75, threads),
          keeps(ceil_div(packing.blocks, tasks.chunks) > blocks_at_once && k_blocks() * panels() * int64_t(sizeof(T)) <= kept_bytes),
          strides(raw ? input_strides(p, call.input) : blocking.slab) {}

    // Without taps no input is read twice, so that only weights limit a block, and those of high tiles may come from L2: longer blocks
    // pass over the sums less often.
    static int64_t KC_of(const Problem& p) { return kernel_volume(p) == 1 && max_MR > 8 ? 3 * KC : KC; }

    // As many channels as fit into a block of k. Those side by side are transposed by vectors: one at least, if most are whole.
    static Problem sliced(Problem p, const Call& call) {
        const int64_t most = std::max<int64_t>(1, KC_of(p) / kernel_volume(p));
        const int64_t equal = round_up(ceil_div(p.in_channels, ceil_div(p.in_channels, most)), L);
        const int64_t fits = kernel_volume(p) == 1 ? std::min(most, equal) : most;
        const bool whole = p.in_channels % L == 0 || p.in_channels > 4 * L;
        const bool vector = call.input.channel == 1 && whole && L * kernel_volume(p) <= max_KC;
        p.in_channels = std::min(p.in_channels, fits >= L ? fits / L * L : vector ? L : fits);
        return p;
    }

    // Small images, so that the weights are read once for several.
    static bool joins(const Problem& p) { return 2 * p.output[1] * p.output[2] <= most_pixels; }

    // Boxes for all threads, unless they become so small that reading the weights would weigh, or there are blocks of output channels
    // enough for all: two threads that write parts of the same rows of pixels take the lines around the cut from each other. Where
    // blocks are few and do not come out even, boxes may be as small as a tile.
    static constexpr int64_t most_pixels = std::max(16 * max_MR, 200);
    Limits limits(int threads) const {
        constexpr int64_t most = most_pixels, enough = 6;
        const bool uneven = 8 * ceil_div(packing.blocks, threads) * threads >= 9 * packing.blocks;
        const int64_t least = packing.blocks >= enough * threads ? most : uneven ? max_MR : most / 2;
        const int64_t rows = p.batch * p.groups * p.output[0] * p.output[1], width = p.output[2];
        const int64_t share = rows < threads ? ceil_div(rows * width, threads) : ceil_div(rows, threads) * width;
        return {std::min(std::max(share, least), most), raw ? int64_t(1) << 60 : 192 << 10, uneven && rows == 1 ? max_MR : 64, 1, !last, false, last,
                threads_per_image(p, threads)};
    }

    // Nothing is padded, and either many channels of a pixel or the pixels of a row are side by side. At the end of a row pixels
    // come to the panels one by one, so that short rows are better copied, unless each is read but once.
    bool readable(const Problem& p, const View& v) const {
        const bool rows = v.space[2] == 1 && p.stride[2] == 1 && (p.output[2] >= 3 * L || kernel_volume(p) == 1);
        return v.data && !is_padded(p) && (last || rows);
    }

    static constexpr bool packs_any_order = true;
    static void pack(const Problem& p, const PackCall& call) {
        const Packing packing(p);
        const double weights = double(p.groups * p.out_channels * k_of(p));
        const int64_t parts = threads_for(weights, worth_a_thread::packing, call.threads);
        for_ranges(call.parallel_for, parts, p.groups * packing.blocks, [&](int64_t begin, int64_t end, int64_t) {
            for (int64_t i = begin; i < end; ++i) pack_one(p, call, packing, i / packing.blocks, i % packing.blocks);
            stored_past();
        });
    }

    static bool finite(const Problem& p, const void* packed) {
        const Packing packing(p);
        const T* spoiled = static_cast<const T*>(packed) + packing.spoiled(p, 0, 0);
        return std::all_of(spoiled, spoiled + p.groups * packing.blocks, [](T it) { return it == 0; });
    }

    int64_t panel() const {  // from one tile's panel to the next: an odd number of lines, so that they do not share sets of L1
        constexpr int64_t line = 64 / int64_t(sizeof(T));
        return (ceil_div(kc * pitch<T> + L, line) | 1) * line;
    }
    int64_t panels() const { return ceil_div(blocking.pixels(), max_MR) * panel(); }  // of all tiles of a box
    int64_t k_blocks() const { return ceil_div(p.in_channels, slice.in_channels) * ceil_div(slice.in_channels * volume, kc); }

    struct Scratch {
        T *slab, *panels, *sums, *weights;
        int64_t *tap, *kept, *pixel;
        Tile* tiles;
        Piece *vector, *single;
        Run* runs;
        int64_t tile_count, vectors, singles;
        size_t bytes;
        Scratch(const Gemm& j, void* base) {
            Arena arena(base);
            const int64_t pixels = j.blocking.pixels(), blocks = k_of(j.p) > j.kc ? std::min(blocks_at_once, j.packing.blocks) : 1;
            slab = arena.take<T>(j.raw ? 0 : j.blocking.slab_elements);
            panels = arena.take<T>(j.panels() * (j.keeps ? j.k_blocks() : 1));
            sums = arena.take<T>(blocks * pixels * Packing::wide);
            weights = arena.take<T>(j.kept.some ? j.kc * Packing::wide : 0);
            tap = arena.take<int64_t>(j.slice.in_channels * j.volume);
            kept = arena.take<int64_t>(j.kept.some ? j.slice.in_channels * j.volume : 0);
            pixel = arena.take<int64_t>(pixels);
            tiles = arena.take<Tile>(ceil_div(pixels, max_MR));
            vector = arena.take<Piece>(pixels);
            single = arena.take<Piece>(pixels);
            runs = arena.take<Run>(j.blocking.box[0] * j.blocking.box[1]);
            bytes = arena.used();
        }
    };

    // Fill s.pixel, s.tiles, the pieces and s.runs for a box.
    int64_t list(const Box& box, Scratch& s) const {
        const int64_t runs = list_runs(call, box, s.runs, [&](int64_t i, int64_t d, int64_t h, int64_t) {
            fill_steps(s.pixel + i, first_pixel(strides, raw, box, d, h), strides.pixel_step[2], box.size[2]);
        });
        list_tiles(box.pixels(), s);
        list_pieces(box, s);
        return runs;
    }

    // As few tiles as possible, equal but for a pixel: small ones do not fill the pipes, and the larger ones come first so that
    // the micro-kernel changes once.
    void list_tiles(int64_t pixels, Scratch& s) const {
        s.tile_count = ceil_div(pixels, max_MR);
        int64_t first = 0;
        for (int64_t t = 0; t < s.tile_count; ++t) {
            const int64_t rows = ceil_div(pixels - first, s.tile_count - t);
            s.tiles[t] = {first, rows, 0, 0};
            first += rows;
        }
    }

    // How the inputs of a k come to the panels: as vectors that begin with adjacent pixels and may go on with others, which later
    // writes put right; one by one where a vector would reach past the end of the caller's row, or its pixels lie backwards.
    void list_pieces(const Box& box, Scratch& s) const {
        const int64_t step = panel(), width = box.size[2], row_end = p.output[2] - box.begin[2];
        const bool forward = call.input.space[2] > 0;
        s.vectors = s.singles = 0;
        for (int64_t t = 0; t < s.tile_count; ++t) {
            Tile& tile = s.tiles[t];
            for (int64_t i = 0; i < tile.rows;) {
                const int64_t at = tile.first + i, to = t * step + i;
                int64_t n = 1;
                while (n < L && i + n < tile.rows && s.pixel[at + n] == s.pixel[at] + n) ++n;
                if (!raw || (forward && at % width + L <= row_end)) s.vector[s.vectors++] = {s.pixel[at], to};
                else for (int64_t j = 0; j < n; ++j) s.single[s.singles++] = {s.pixel[at] + j, to + j};
                i += n;
            }
            tile.vectors = s.vectors, tile.singles = s.singles;
        }
    }

    void compute(const Tasks::Task& t, const Box& box, Scratch& s, int64_t run_count) const {
        const int64_t begin = tasks.first_panel(t.chunk), end = tasks.first_panel(t.chunk + 1);
        for (int64_t first = begin; first < end; first += blocks_at_once) {
            const bool filled = keeps && first > begin;
            T* panels = s.panels;
            for (int64_t channel = 0; channel < p.in_channels; channel += slice.in_channels) {
                const int64_t channels = std::min(slice.in_channels, p.in_channels - channel);
                const T* x = filled ? nullptr : input(t, box, channel, channels, s);
                for (int64_t k = 0; k < channels * volume; k += kc) {
                    const int64_t k_count = std::min(kc, channels * volume - k);
                    if (!filled) fill_panels(x, k, k_count, panels, s);
                    multiply(t, first, std::min(first + blocks_at_once, end), channel * volume + k, k_count, panels, box.pixels(),
                             run_count, s);
                    if (keeps) panels += this->panels();
                }
            }
        }
    }

    // The inputs of the box in some channels, padding included: where they lie, or in the slab.
    const T* input(const Tasks::Task& t, const Box& box, int64_t channel, int64_t channels, const Scratch& s) const {
        const T* x = at<const T>(call.input, t.image, t.group * p.in_channels + channel);
        if (raw) return x;
        Problem q = slice;
        q.in_channels = channels;
        (last ? fill_channels_inner<T> : fill_rows<T>)(q, blocking, box, x, call.input, s.slab);
        return s.slab;
    }

    // ---- the inputs of k .. k + k_count, for all tiles of the box: panel[k][pixel of the tile]

    FASTCONV_NOINLINE void fill_panels(const T* x, int64_t k, int64_t k_count, T* panels, const Scratch& s) const {
        if (last) return transpose_panels(x, k_count, panels, s);
        const int64_t* tap = s.tap + k;
        for (int64_t group = 0, v = 0, one = 0; group < s.tile_count; group += tiles_at_once) {
            const Tile tile = s.tiles[std::min(group + tiles_at_once, s.tile_count) - 1];
            const Piece *vector = s.vector + v, *vectors_end = s.vector + tile.vectors;
            const Piece *single = s.single + one, *singles_end = s.single + tile.singles;
            T* out = panels;
            for (int64_t i = 0; i < k_count; ++i, out += pitch<T>) {
                const T* from = x + tap[i];
                for (const Piece* piece = vector; piece < vectors_end; ++piece) store(out + piece->to, load(from + piece->from));
                for (const Piece* piece = single; piece < singles_end; ++piece) out[piece->to] = from[piece->from];
            }
            v = tile.vectors, one = tile.singles;
        }
    }

    // The same where the channels of a pixel are side by side: lanes x lanes at a time, transposed in registers.
    FASTCONV_NOINLINE void transpose_panels(const T* x, int64_t k_count, T* panels, const Scratch& s) const {
        for (int64_t t = 0; t < s.tile_count; ++t) {
            const Tile& tile = s.tiles[t];
            const int64_t* pixel = s.pixel + tile.first;
            T* to = panels + t * panel();
            for (int64_t tap = 0; tap < volume; ++tap)
                for (int64_t c = 0; c < k_count / volume; c += L) {
                    const T* from = x + s.tap[tap] + c;
                    T* out = to + (c * volume + tap) * pitch<T>;
                    const int64_t n = std::min<int64_t>(L, k_count / volume - c);
                    if (n == L) transpose_tile(from, pixel, tile.rows, out, volume * pitch<T>);
                    else
                        for (int64_t j = 0; j < n; ++j)
                            for (int64_t r = 0; r < tile.rows; ++r) out[j * volume * pitch<T> + r] = from[j + pixel[r]];
                }
        }
    }

    static FASTCONV_INLINE void transpose_tile(const T* x, const int64_t* pixel, int64_t rows, T* to, int64_t step) {
        for (int64_t first = 0; first < rows; first += L) {
            const int64_t m = std::min<int64_t>(L, rows - first);
            Vec<T> row[L];
            for (int r = 0; r < L; ++r) row[r] = load(x + pixel[first + std::min<int64_t>(r, m - 1)]);
            transpose<T>(row);
            for (int j = 0; j < L; ++j) store(to + j * step + first, row[j]);
        }
    }

    // ---- sums[pixel][width] of some blocks = bias or what they were, + the products of k .. k + k_count

    void multiply(const Tasks::Task& t, int64_t first, int64_t end, int64_t k, int64_t k_count, const T* panels, int64_t pixels,
                  int64_t run_count, const Scratch& s) const {
        const T* packed = static_cast<const T*>(call.packed);
        const int64_t step = panel(), k_all = k_of(p);
        const bool far = !kept.some && packing.k * packing.padded * int64_t(sizeof(T)) >= far_bytes;
        for (int64_t block = first; block < end; ++block) {
            const int64_t width = packing.width(block);
            const T* w = weights(t, block, k, k_count, s);
            const T* bias = packed + t.group * packing.padded + block * Packing::wide;
            T* sums = s.sums + (k_count < k_all ? block - first : 0) * pixels * Packing::wide;
            Ahead ahead = block + 1 < end ? following(t, block + 1, k, s) : following(t, first, (k + k_count) % k_all, s);
            for (int64_t i = 0; i < s.tile_count; ++i) {
                const Tile& tile = s.tiles[i];
                T* out = sums + tile.first * width;
                tile_of<GemmTile, T>(tile.rows, width, far)(panels + i * step, k_count, w, k ? out : bias, k ? width : 0, out, ahead);
                ahead.from += k_count * ahead.step;
            }
            if (k + k_count == k_all) finish(t, block, s, sums, run_count);
        }
    }

    // The weights of k .. k + k_count: where they are packed, or, if some taps are left out, the others' side by side.
    const T* weights(const Tasks::Task& t, int64_t block, int64_t k, int64_t k_count, const Scratch& s) const {
        const int64_t width = packing.width(block), all = slice.in_channels * volume;
        const T* w = static_cast<const T*>(call.packed) + packing.offset(p, t.group, block);
        if (!kept.some) return w + k * width;
        w += (k / all * slice.in_channels * kept.taps + kept.first) * width;
        for (int64_t i = 0; i < k_count; ++i)
            for (int64_t v = 0; v < width; v += L) store(s.weights + i * width + v, load(w + s.kept[k % all + i] * width + v));
        return s.weights;
    }

    // The weights that are read next: each tile asks for its share of them.
    Ahead following(const Tasks::Task& t, int64_t block, int64_t k, const Scratch& s) const {
        const int64_t width = packing.width(block);
        const T* w = static_cast<const T*>(call.packed) + packing.offset(p, t.group, block) + k * width;
        return {reinterpret_cast<const char*>(w), ceil_div(width * int64_t(sizeof(T)), s.tile_count)};
    }

    void finish(const Tasks::Task& t, int64_t block, const Scratch& s, const T* sums, int64_t run_count) const {
        const int64_t width = packing.width(block), first = block * Packing::wide;
        const int64_t channels = std::min(width, packing.channels - first), channel = t.group * packing.channels + first;
        finish_runs(p, call, t.image, channel, channels, sums, width, s.runs, run_count);
    }
};

}  // namespace

const Algorithm& gemm_algorithm() {
    static const Algorithm algorithm = algorithm_of<Driver<Gemm<float>>, Driver<Gemm<double>>>("gemm");
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
