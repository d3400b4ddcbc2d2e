// direct: the output pixels of a row on the vector. For few output channels per group: depthwise, grouped, images, heads.
//
//   out[oc][pixel vector] = bias[oc] + sum over k of w[k][oc] * x[pixel vector offset + tap offset(k)]
//
// Tile: up to MR output channels x NR vectors of pixels in registers, the vectors from anywhere in the box (AVX2: 6 x 2, 4 x 3,
// 1 x 8). Pixels are loaded where they lie, unaligned; with a stride along w the slab keeps each phase (w mod stride) in a
// row of its own, so that neighbours are adjacent again, and where no input is read twice each tap in a plane, so that rows are,
// too. Weights are packed [panel][k][MR] and broadcast. All k in one pass: the output is written once.
// Bottleneck: FMA from four output channels on; below that the loads, one per vector and k (at two a cycle half of FMA peak).
#include <functional>

#include "direct_packing.hpp"
#include "driver.hpp"
#include "epilogue.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

constexpr int64_t most_planes = 640;    // with more products a slab of planes would hold too few pixels
constexpr int64_t l1_bytes = 16 << 10;  // half of L1
constexpr int64_t far_bytes = 1 << 20;  // a residual that no L2 holds beside the rest
// Loads that cross lines are hidden where tiles load little: three vectors for 24 products.
constexpr bool aligns = vector_bytes < 64;
constexpr int vectors_for(int rows) { return max_sums / rows < max_NR ? max_sums / rows : max_NR; }

struct Place {  // of one vector of pixels: where it is read, where its lanes first .. last-1 are written
    int64_t input, output, residual;
    int64_t first, last;
};

struct Tile {  // vectors that are in registers together; straight: and can be stored from there
    int64_t first, count;
    bool straight;
};

// Where a tile goes straight from the registers: whole vectors, and no activation but limits (relu, relu6).
template <class T>
struct Straight {
    T* y;        // null: into the tile buffer instead
    const T* r;  // the residual, or null
    int64_t channel, channel_r;
    T least, most;
};

// ---- micro-kernel: tile[m][v][:] = bias[m] + sum over k of w[k][m] * x[place[v] + tap[k]]

template <class T, int MR, int NR>
FASTCONV_NOINLINE void micro(const T* x, const Place* place, const int64_t* tap, int64_t k_count, const T* w, const T* bias, T* tile,
                             const Straight<T>& straight) {
    constexpr int L = lanes<T>;
    const T* p[NR];
    Vec<T> sum[MR][NR];
#pragma GCC unroll 8
    for (int v = 0; v < NR; ++v) {
        p[v] = x + place[v].input;
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) sum[m][v] = broadcast(bias[m]);
    }
    for (int64_t k = 0; k < k_count; ++k, w += MR) {
        const int64_t offset = tap[k];
        if constexpr (MR >= NR) {  // the fewer operands stay in registers, the others pass through one
            Vec<T> value[NR];
#pragma GCC unroll 8
            for (int v = 0; v < NR; ++v) value[v] = load(p[v] + offset);
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) {
                const Vec<T> weight = broadcast(w[m]);
#pragma GCC unroll 8
                for (int v = 0; v < NR; ++v) sum[m][v] += weight * value[v];
            }
        } else {
            Vec<T> weight[MR];
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) weight[m] = broadcast(w[m]);
#pragma GCC unroll 8
            for (int v = 0; v < NR; ++v) {
                const Vec<T> value = load(p[v] + offset);
#pragma GCC unroll 8
                for (int m = 0; m < MR; ++m) sum[m][v] += weight[m] * value;
            }
        }
    }
    if (T* y = straight.y) {
        const Limited<T> limited(straight.least, straight.most);
        const int64_t channel = straight.channel, channel_r = straight.channel_r;
        int64_t output[NR];
        if (const T* r = straight.r) {
            int64_t residual[NR];
#pragma GCC unroll 8
            for (int v = 0; v < NR; ++v) residual[v] = place[v].residual;
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m, r += channel_r)
#pragma GCC unroll 8
                for (int v = 0; v < NR; ++v) sum[m][v] += load(r + residual[v]);
        }
#pragma GCC unroll 8
        for (int v = 0; v < NR; ++v) output[v] = place[v].output;
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m, y += channel)
#pragma GCC unroll 8
            for (int v = 0; v < NR; ++v) store(y + output[v], limited(sum[m][v]));
        return;
    }
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < NR; ++v) store(tile + (m * NR + v) * L, sum[m][v]);
}

// The same where products are rounded (see rounds_products), for all `rows` channels of a panel.
template <class T, int NR>
FASTCONV_NOINLINE void rounded_micro(const T* x, const Place* place, const int64_t* tap, int64_t k_count, int64_t rows, const T* w,
                                     const T* bias, T* tile) {
    constexpr int L = lanes<T>;
    for (int64_t m = 0; m < rows; ++m, ++w, tile += NR * L) {
        const auto product = [&](int64_t k, int v) __attribute__((always_inline)) {
            return rounded(load(x + place[v].input + tap[k]) * broadcast(w[k * rows]));
        };
        Vec<T> sum[NR];
#pragma GCC unroll 8
        for (int v = 0; v < NR; ++v) sum[v] = broadcast(bias[m]);
        for (int64_t k = 0; k < k_count / 2; ++k)
#pragma GCC unroll 8
            for (int v = 0; v < NR; ++v) sum[v] += product(k, v) + product(k_count - 1 - k, v);
#pragma GCC unroll 8
        for (int v = 0; v < NR; ++v) store(tile + v * L, k_count % 2 ? sum[v] + product(k_count / 2, v) : sum[v]);
    }
}

template <class T, size_t... I>
auto rounded_micro_at(int64_t vectors, std::index_sequence<I...>) {
    static constexpr decltype(&rounded_micro<T, 1>) table[] = {rounded_micro<T, int(I) + 1>...};
    return table[vectors - 1];
}

template <class T>
using Micro = void (*)(const T*, const Place*, const int64_t*, int64_t, const T*, const T*, T*, const Straight<T>&);

template <class T, int MR, int NR>
constexpr Micro<T> micro_or_none() {
    if constexpr (NR <= vectors_for(MR)) return micro<T, MR, NR>;
    else return nullptr;
}

template <class T, size_t... I>
Micro<T> micro_at(int64_t rows, int64_t vectors, std::index_sequence<I...>) {
    static constexpr Micro<T> table[] = {micro_or_none<T, int(I) / max_NR + 1, int(I) % max_NR + 1>()...};
    return table[(rows - 1) * max_NR + vectors - 1];
}

// ---- one call

template <class T>
struct Direct {
    static constexpr int L = lanes<T>;
    using Packing = DirectPacking<T>;
    Problem p, slice;  // slice: the same
    Call call;
    Kept kept;
    bool raw;     // the input is read where it lies
    bool simple;  // whole vectors can be stored straight from the registers
    bool rounds;  // products, see rounds_products
    Packing packing;
    Blocking blocking;
    Tasks tasks;
    Strides strides;
    int64_t tile_vectors;  // most in a tile

    Direct(const Region& region, int threads)
        : p(region.p), slice(p), call(region.call), kept(region), raw(readable(p, call.input)),
          simple(call.output.space[2] == 1 && (!call.residual.data || call.residual.space[2] == 1) && Epilogue<T>(p).is_limit()),
          rounds(rounds_products(p)),
          packing(p, kept.taps), blocking(p, limits(threads), sizeof(T)),
          tasks(p, blocking, packing.panels, 0.5, threads), strides(raw ? input_strides(p, call.input) : blocking.slab),
          tile_vectors(vectors_for(int(ceil_div(packing.channels, packing.panels)))) {}

    Limits limits(int threads) const {
        const int64_t share = ceil_div(p.batch * p.groups * p.output[0] * p.output[1] * p.output[2], 4 * threads);
        const int64_t most = raw ? 1024 : std::min<int64_t>(4096, pixels_of_planes());
        constexpr int64_t line = 64 / int64_t(sizeof(T));  // longer pieces of a row would come out less even
        return {std::min(std::max<int64_t>(share, 1024), most), raw ? int64_t(1) << 60 : slab_bytes(), 32 * L, line, true,
                worth_planes(), false, threads_per_image(p, threads)};
    }

    // An L2 beside AVX-512 holds 1 MB, beside AVX2 half as much; rows that are read again and again are better few.
    int64_t slab_bytes() const { return fills_vectors() ? 416 << 10 : 192 << 10; }

    // Patches in vectors so long that those which are not whole weigh.
    bool fills_vectors() const {
        const bool once = std::equal(p.kernel, p.kernel + max_axes, p.stride, std::less_equal<int64_t>());
        return vector_bytes == 64 && once && worth_planes();
    }

    // Vectors run on from row to row through a plane, to its end: of as many rows as fit, those that leave the fewest lanes over.
    int64_t pixels_of_planes() const {
        const int64_t height = p.output[1], width = p.output[2], fit = slab_bytes() / (k_of(p) * int64_t(sizeof(T)) * width);
        if (!fills_vectors() || p.output[0] > 1) return int64_t(1) << 60;
        int64_t best = std::min(fit, height);
        double least = 2;
        for (int64_t rows = best; rows > 0 && 4 * rows >= fit; --rows) {
            const int64_t even = ceil_div(height, ceil_div(height, rows)), pixels = even * width;
            const double lanes_per_pixel = double(round_up(pixels, L)) / double(pixels);
            if (lanes_per_pixel < 0.99 * least) best = even, least = lanes_per_pixel;
        }
        return std::max<int64_t>(best, 1) * width;
    }

    // Rows of whole vectors begin at half a line as they are.
    bool worth_planes() const { return k_of(p) <= most_planes && p.output[2] % L != 0; }

    // A vector may not reach past the caller's array: rows at least a vector wide end with one that overlaps its neighbour.
    static bool readable(const Problem& q, const View& v) {
        return v.data && !is_padded(q) && v.space[2] == 1 && q.stride[2] == 1 && q.output[2] >= L && !worth_aligning(q, v);
    }

    // Half of the loads of a 1x1 kernel would touch two lines; with many output channels a copy in which none does costs less.
    static bool worth_aligning(const Problem& q, const View& v) {
        constexpr int64_t many_channels = 96;
        return aligns && kernel_volume(q) == 1 && !same_place_in_line(v) && q.out_channels >= many_channels;
    }
    static bool same_place_in_line(const View& v) {  // all channels of all images
        constexpr int64_t line = 64 / int64_t(sizeof(T));
        return v.channel % line == 0 && v.batch % line == 0;
    }

    static void pack(const Problem& p, const PackCall& call) { pack_panels<T>(p, call); }
    static constexpr bool packs_any_order = false;
    static bool joins(const Problem&) { return false; }  // rows of several images are not adjacent
    static bool finite(const Problem& p, const void* packed) { return static_cast<const T*>(packed)[Packing(p).spoiled(p)] == 0; }

    struct Scratch {
        T *slab, *tile, *weights;
        int64_t *tap, *kept;
        Place* places;
        Tile* tiles;
        size_t bytes;
        Scratch(const Direct& j, void* base) {
            Arena arena(base);
            slab = arena.take<T>(j.raw ? 0 : j.blocking.slab_elements + L);
            tile = arena.take<T>(max_sums * L);
            weights = arena.take<T>(j.kept.some ? k_of(j.p) * max_MR : 0);
            tap = arena.take<int64_t>(k_of(j.p));
            kept = arena.take<int64_t>(j.kept.some ? k_of(j.p) : 0);
            const int64_t vectors = j.blocking.box[0] * j.blocking.box[1] * ceil_div(j.blocking.box[2], L) + 2;  // 2: before a line
            places = arena.take<Place>(vectors);
            tiles = arena.take<Tile>(vectors);
            bytes = arena.used();
        }
    };

    int64_t list(const Box& box, Scratch& s) const {
        int64_t count = 0;
        const View &y = call.output, &r = call.residual;
        const int64_t head = unaligned(box);
        const bool follow = rows_follow(box);
        const int64_t rows = follow ? 1 : box.size[1], width = box.pixels() / box.size[0] / rows;
        // Lanes that are done may be stored once more, the same bits, unless their residual was where they are now.
        const bool again = simple && !r.data && width >= L;
        for (int64_t d = 0; d < box.size[0]; ++d)
            for (int64_t h = 0; h < rows; ++h)
                for (int64_t w = 0, n; w < width; w += n) {
                    n = std::min<int64_t>(L, (w < head ? head : width) - w);
                    const bool overlaps = raw ? box.begin[2] + w + L > p.output[2] : again;  // the last vector of a row
                    const int64_t back = overlaps ? L - n : 0;                               // lanes its neighbour has done
                    const int64_t od = box.begin[0] + d, oh = box.begin[1] + h, ow = box.begin[2] + w - back;
                    s.places[count++] = {raw ? strides.pixel(od, oh, ow) : strides.pixel(d, h, w - back),
                                       od * y.space[0] + oh * y.space[1] + ow * y.space[2],
                                       od * r.space[0] + oh * r.space[1] + ow * r.space[2], again ? 0 : back, back + n};
                }
        return list_tiles(count, s);
    }

    // The next row begins where one ends, in the slab and in the output: they are one long row.
    bool rows_follow(const Box& box) const {
        const auto whole = [&](const View& v) { return !v.data || v.space[1] == p.output[2] * v.space[2]; };
        return !raw && box.size[2] == p.output[2] && strides.pixel_step[1] == box.size[2] && strides.pixel_step[2] == 1 &&
               whole(call.output) && whole(call.residual);
    }

    // Pixels before the first at the beginning of a line, where all loads of the box can be aligned by beginning there.
    int64_t unaligned(const Box& box) const {
        constexpr int64_t line = 64 / int64_t(sizeof(T));
        const View& x = call.input;
        if (!aligns || !raw || kernel_volume(p) > 1 || box.size[0] * box.size[1] > 1 || !same_place_in_line(x)) return 0;
        const T* first = static_cast<const T*>(x.data) + strides.pixel(box.begin[0], box.begin[1], box.begin[2]);
        return std::min<int64_t>(-(reinterpret_cast<intptr_t>(first) / int64_t(sizeof(T))) & (line - 1), box.size[2]);
    }

    int64_t list_tiles(int64_t vectors, Scratch& s) const {
        const int64_t tiles = ceil_div(vectors, tile_vectors), least = vectors / tiles, larger = vectors % tiles;
        const auto whole = [](const Place& place) { return place.last - place.first == L; };
        for (int64_t t = 0, first = 0, count; t < tiles; ++t, first += count) {
            count = least + (t < larger);
            s.tiles[t] = {first, count, simple && !rounds && std::all_of(s.places + first, s.places + first + count, whole)};
        }
        return tiles;
    }

    int64_t tiles_in_l1() const {
        const int64_t rows = p.in_channels * p.kernel[0] * p.kernel[1], pixels = l1_bytes / int64_t(sizeof(T)) / rows - p.kernel[2];
        return std::max<int64_t>(1, pixels / (tile_vectors * L * std::min(p.stride[2], p.kernel[2])));
    }

    // The weights of a panel: where they are packed, or, if some taps are left out, the others' side by side.
    const T* weights(const Tasks::Task& t, int64_t panel, const Scratch& s) const {
        const int64_t rows = packing.first(panel + 1) - packing.first(panel);
        const T* w = static_cast<const T*>(call.packed) + packing.offset(p, t.group, panel);
        if (!kept.some) return w;
        w += kept.first * rows;
        for (int64_t k = 0; k < k_of(p); ++k) std::copy_n(w + s.kept[k] * rows, rows, s.weights + k * rows);
        return s.weights;
    }

    // Tiles whose inputs fit into L1 go through all panels before the next ones: weights are read in sequence, again and again.
    void compute(const Tasks::Task& t, const Box& box, Scratch& s, int64_t tiles) const {
        const T* x = at<const T>(call.input, t.image, t.group * p.in_channels);
        if (!raw) {
            fill_rows(p, blocking, box, x, call.input, s.slab);
            x = s.slab;
        }
        const int64_t fit = kept.some ? tiles : tiles_in_l1(), begin = tasks.first_panel(t.chunk), end = tasks.first_panel(t.chunk + 1);
        for (int64_t i = 0; i < tiles; i += fit)
            for (int64_t panel = begin; panel < end; ++panel)
                compute_panel(t, panel, x, s.tiles + i, s.tiles + std::min(i + fit, tiles), s);
    }

    void compute_panel(const Tasks::Task& t, int64_t panel, const T* x, const Tile* tile, const Tile* end, const Scratch& s) const {
        constexpr auto all = std::make_index_sequence<size_t(max_MR * max_NR)>{};
        const int64_t first = packing.first(panel), rows = packing.first(panel + 1) - first;
        const int64_t channel = t.group * packing.channels + first;
        const T *packed = static_cast<const T*>(call.packed), *bias = packed + channel, *w = weights(t, panel, s);
        T* y = at<T>(call.output, t.image, channel);
        const T* r = at<const T>(call.residual, t.image, channel);
        const Epilogue<T> epilogue(p);
        const bool asks = r && vector_bytes == 64 && call.residual.channel * p.out_channels * int64_t(sizeof(T)) > far_bytes;
        const Micro<T> full = micro_at<T>(rows, tile_vectors, all);
        for (; tile < end; ++tile) {
            const Place* places = s.places + tile->first;
            if (rounds) {
                constexpr auto vectors = std::make_index_sequence<size_t(max_NR)>{};
                rounded_micro_at<T>(tile->count, vectors)(x, places, s.tap, k_of(p), rows, w, bias, s.tile);
                finish(s.tile, places, rows, tile->count, y, r);
                continue;
            }
            const Micro<T> kernel = tile->count == tile_vectors ? full : micro_at<T>(rows, tile->count, all);
            const Straight<T> straight{tile->straight ? y : nullptr, r, call.output.channel, call.residual.channel,
                                       epilogue.least(), epilogue.most()};
            if (asks) ask_for(r, places, rows, tile->count);
            kernel(x, places, s.tap, k_of(p), w, bias, s.tile, straight);
            if (!tile->straight) finish(s.tile, places, rows, tile->count, y, r);
        }
    }

    // The residual of a tile, while its products are summed.
    void ask_for(const T* r, const Place* places, int64_t rows, int64_t vectors) const {
        for (int64_t m = 0; m < rows; ++m, r += call.residual.channel)
            for (int64_t v = 0; v < vectors; ++v) __builtin_prefetch(r + places[v].residual);
    }

    FASTCONV_NOINLINE void finish(const T* tile, const Place* places, int64_t rows, int64_t vectors, T* y, const T* r) const {
        const Epilogue<T> epilogue(p);
        const bool adjacent = call.output.space[2] == 1 && (!r || call.residual.space[2] == 1);
        for (int64_t m = 0; m < rows; ++m, y += call.output.channel, r = r ? r + call.residual.channel : nullptr)
            for (int64_t v = 0; v < vectors; ++v, tile += L) {
                const Place& at = places[v];
                if (adjacent && at.last - at.first == L) {
                    Vec<T> value = load(tile);
                    if (r) value += load(r + at.residual);
                    store(y + at.output, epilogue(value));
                } else if (adjacent) {
                    const int64_t n = at.last - at.first;
                    Vec<T> value = load_first(tile + at.first, n);
                    if (r) value += load_first(r + at.residual + at.first, n);
                    store_first(y + at.output + at.first, epilogue(value), n);
                } else {
                    for (int64_t i = at.first; i < at.last; ++i) {
                        T value = tile[i];
                        if (r) value += r[at.residual + i * call.residual.space[2]];
                        y[at.output + i * call.output.space[2]] = epilogue(value);
                    }
                }
            }
    }
};

}  // namespace

const Algorithm& direct_algorithm() {
    static const Algorithm algorithm = algorithm_of<Driver<Direct<float>>, Driver<Direct<double>>>("direct");
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
