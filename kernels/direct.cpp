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

#include "direct_tile.hpp"
#include "driver.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

constexpr int64_t most_planes = 640;    // with more products a slab of planes would hold too few pixels
constexpr int64_t l1_bytes = 16 << 10;  // half of L1
constexpr int64_t far_bytes = 1 << 20;  // a residual that no L2 holds beside the rest
constexpr int64_t ahead = 16;           // products whose inputs are asked for before they are gathered

struct Tile {  // vectors that are in registers together; straight: and can be stored from there
    int64_t first, count;
    bool straight;
};

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
    bool gather;  // inputs of a tile, for all panels of weights but the first
    Blocking blocking;
    Tasks tasks;
    Strides strides;
    int64_t tile_vectors;  // most in a tile

    Direct(const Region& region, int threads)
        : p(region.p), slice(p), call(region.call), kept(region), raw(readable(p, call.input)),
          simple(call.output.space[2] == 1 && (!call.residual.data || call.residual.space[2] == 1) && Epilogue<T>(p).is_limit()),
          rounds(rounds_products(p)), packing(p, kept.taps), gather(worth_gathering()), blocking(p, limits(threads), sizeof(T)),
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
        return v.data && !is_padded(q) && v.space[2] == 1 && q.stride[2] == 1 && q.output[2] >= L;
    }

    // Of a 1x1 kernel each product's inputs lie on a page of their own, and half of the loads touch two lines.
    bool worth_gathering() const { return gathers && raw && kernel_volume(p) == 1 && !rounds && packing.panels > 2; }

    static bool same_place_in_line(const View& v) {  // all channels of all images
        constexpr int64_t line = 64 / int64_t(sizeof(T));
        return v.channel % line == 0 && v.batch % line == 0;
    }

    static void pack(const Problem& p, const PackCall& call) { pack_panels<T>(p, call); }
    static constexpr bool packs_any_order = false;
    static bool joins(const Problem&) { return false; }  // rows of several images are not adjacent
    static bool finite(const Problem& p, const void* packed) { return static_cast<const T*>(packed)[Packing(p).spoiled(p)] == 0; }

    struct Scratch {
        T *slab, *tile, *weights, *panels;
        int64_t *tap, *kept, *step;  // step: the taps of a panel
        Place *places, *gathered;    // gathered: the same, read in a panel
        Tile* tiles;
        size_t bytes;
        Scratch(const Direct& j, void* base) {
            Arena arena(base);
            slab = arena.take<T>(j.raw ? 0 : j.blocking.slab_elements + L);
            tile = arena.take<T>(max_sums * L);
            weights = arena.take<T>(j.kept.some ? k_of(j.p) * max_MR : 0);
            panels = arena.take<T>(j.gather ? j.tiles_in_l1() * j.tile_inputs() : 0);
            tap = arena.take<int64_t>(k_of(j.p));
            step = arena.take<int64_t>(j.gather ? k_of(j.p) : 0);
            kept = arena.take<int64_t>(j.kept.some ? k_of(j.p) : 0);
            const int64_t vectors = j.blocking.box[0] * j.blocking.box[1] * ceil_div(j.blocking.box[2], L) + 2;  // 2: before a line
            places = arena.take<Place>(vectors);
            gathered = arena.take<Place>(j.gather ? vectors : 0);
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
        const int64_t tiles = list_tiles(count, s);
        if (gather) list_gathered(tiles, s);
        return tiles;
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
        if (gather || !gathers || !raw || kernel_volume(p) > 1 || box.size[0] * box.size[1] > 1 || !same_place_in_line(x)) return 0;
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

    // The same places in the panels of as many tiles as are gathered together.
    void list_gathered(int64_t tiles, Scratch& s) const {
        for (int64_t k = 0; k < k_of(p); ++k) s.step[k] = k * tile_vectors * L;
        for (int64_t t = 0; t < tiles; ++t)
            for (int64_t v = 0, i = s.tiles[t].first; v < s.tiles[t].count; ++v, ++i) {
                s.gathered[i] = s.places[i];
                s.gathered[i].input = t % tiles_in_l1() * tile_inputs() + v * L;
            }
    }

    int64_t tile_inputs() const { return k_of(p) * tile_vectors * L; }

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
        const Source from{x, s.places, s.tap}, again = gather ? Source{s.panels, s.gathered, s.step} : from;
        for (int64_t i = 0; i < tiles; i += fit) {
            const Tile *tile = s.tiles + i, *last = s.tiles + std::min(i + fit, tiles);
            if (gather) compute_panel<gathers ? Reads::gathers : Reads::near>(t, begin, from, tile, last, s);
            else if (raw) compute_panel<Reads::ahead>(t, begin, from, tile, last, s);
            for (int64_t panel = begin + (gather || raw); panel < end; ++panel) compute_panel<Reads::near>(t, panel, again, tile, last, s);
        }
    }

    struct Source {  // of inputs
        const T* x;
        const Place* places;
        const int64_t* tap;
    };

    template <Reads R>
    void compute_panel(const Tasks::Task& t, int64_t panel, const Source& from, const Tile* tile, const Tile* end, const Scratch& s) const {
        constexpr auto all = std::make_index_sequence<size_t(max_MR * max_NR)>{};
        const int64_t first = packing.first(panel), rows = packing.first(panel + 1) - first;
        const int64_t channel = t.group * packing.channels + first;
        const T *packed = static_cast<const T*>(call.packed), *bias = packed + channel, *w = weights(t, panel, s);
        T* y = at<T>(call.output, t.image, channel);
        const T* r = at<const T>(call.residual, t.image, channel);
        const Epilogue<T> epilogue(p);
        const bool asks = r && vector_bytes == 64 && call.residual.channel * p.out_channels * int64_t(sizeof(T)) > far_bytes;
        const Micro<T> full = micro_at<T, R>(rows, tile_vectors, all);
        for (; tile < end; ++tile) {
            const Place* places = from.places + tile->first;
            if (rounds) {
                constexpr auto vectors = std::make_index_sequence<size_t(max_NR)>{};
                rounded_micro_at<T>(tile->count, vectors)(from.x, places, from.tap, k_of(p), rows, w, bias, s.tile);
                finish(s.tile, places, rows, tile->count, y, r);
                continue;
            }
            const Micro<T> kernel = tile->count == tile_vectors ? full : micro_at<T, R>(rows, tile->count, all);
            const Straight<T> straight{tile->straight ? y : nullptr, r, call.output.channel, call.residual.channel,
                                       epilogue.least(), epilogue.most()};
            if (asks) ask_for(r, places, rows, tile->count);
            const Gathered<T> gathered{R == Reads::gathers ? s.panels + s.gathered[tile->first].input : nullptr, tile_vectors * L, ahead * call.input.channel};
            kernel(from.x, places, from.tap, k_of(p), w, bias, s.tile, straight, gathered);
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
