// broadcast: output channels on the vector, inputs from where they lie. For few products per output where the channels of a pixel lie
// side by side: stems, patches, small 1x1.
//
//   out[pixel][oc vector] = bias[oc vector] + sum over k of x[pixel offset + tap offset(k)] * w[k][oc vector]
//
// Tile: up to MR pixels x NR vectors of output channels in registers (AVX-512 6 x 4, 8 x 3, 10 x 2, 10 x 1; AVX2 4 x 3, 6 x 2, 8 x 1),
// pixels from anywhere in the box. What gemm copies to panels is broadcast straight from the caller's array, whatever its strides, or
// from a slab with the padding written out. Weights are packed [panel][k][vectors of the panel]. All k in one pass, and outputs with
// the channels side by side are stored from the registers.
// Bottleneck: FMA; per k a tile loads NR vectors and MR broadcasts for MR NR multiply-adds.
#include "driver.hpp"
#include "pack.hpp"
#include "runs.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int max_NR = 4, max_sums = 24, max_MR = 10;  // pointers to more pixels than that find no registers
#elif defined(__aarch64__)
constexpr int max_NR = 4, max_sums = 24, max_MR = 12;
#elif defined(__AVX2__)
constexpr int max_NR = 3, max_sums = 12, max_MR = 8;
#else
constexpr int max_NR = 2, max_sums = 10, max_MR = 6;
#endif
constexpr int pixels_for(int vectors) { return max_sums / vectors < max_MR ? max_sums / vectors : max_MR; }
constexpr int64_t most_pixels = 512;  // of a box, whose sums stay in L2 where they do not go straight to the output

// ---- micro-kernel: y[to[i]][:] = limited(bias[:] + sum over k of x[pixel[i] + tap[k]] * w[k][:])

template <class T>
struct Target {
    T* y;
    const int64_t* to;  // of each pixel
    int64_t last;       // lanes of the last vector
    T least, most;
};

template <class T, int MR, int NR>
FASTCONV_KERNEL void micro(const T* x, const int64_t* pixel, const int64_t* tap, int64_t k_count, const T* w, const T* bias, const Target<T>& target) {
    constexpr int L = lanes<T>;
    const T* p[MR];
    Vec<T> sum[MR][NR];
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i) {
        p[i] = x + pixel[i];
#pragma GCC unroll 4
        for (int v = 0; v < NR; ++v) sum[i][v] = load(bias + v * L);
    }
    for (int64_t k = 0; k < k_count; ++k, w += NR * L) {
        const int64_t offset = tap[k];
        Vec<T> weight[NR];
#pragma GCC unroll 4
        for (int v = 0; v < NR; ++v) weight[v] = load(w + v * L);
#pragma GCC unroll 12
        for (int i = 0; i < MR; ++i) {
            const Vec<T> value = broadcast(p[i][offset]);
#pragma GCC unroll 4
            for (int v = 0; v < NR; ++v) sum[i][v] += value * weight[v];
        }
    }
    const Limited<T> limited(target.least, target.most);
    const bool whole = target.last == L;
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i) {
        T* y = target.y + target.to[i];
#pragma GCC unroll 4
        for (int v = 0; v < NR - 1; ++v) store(y + v * L, limited(sum[i][v]));
        if (whole) store(y + (NR - 1) * L, limited(sum[i][NR - 1]));
        else store_first(y + (NR - 1) * L, limited(sum[i][NR - 1]), target.last);
    }
}

template <class T>
using Micro = void (*)(const T*, const int64_t*, const int64_t*, int64_t, const T*, const T*, const Target<T>&);

template <class T, int MR, int NR>
constexpr Micro<T> micro_or_none() {
    if constexpr (MR <= pixels_for(NR)) return micro<T, MR, NR>;
    else return nullptr;
}

template <class T, size_t... I>
Micro<T> micro_at(int64_t pixels, int64_t vectors, std::index_sequence<I...>) {
    static constexpr Micro<T> table[] = {micro_or_none<T, int(I) / max_NR + 1, int(I) % max_NR + 1>()...};
    return table[(pixels - 1) * max_NR + vectors - 1];
}

// ---- packed weights: bias [group][padded oc], spoiled [group][panel]: whether any is not finite, then weights [group][panel][k][vectors
// of the panel], panels of equal split

template <class T>
struct BroadcastPacking {
    static constexpr int64_t L = lanes<T>;
    int64_t k, channels, vectors, padded, panels;

    explicit BroadcastPacking(const Problem& p) : BroadcastPacking(p, kernel_volume(p)) {}
    BroadcastPacking(const Problem& p, int64_t volume)
        : k(p.in_channels * volume), channels(p.out_channels), vectors(ceil_div(channels, L)), padded(vectors * L),
          panels(ceil_div(vectors, max_NR)) {}
    int64_t first(int64_t panel) const { return vectors * panel / panels; }
    int64_t spoiled(const Problem& p, int64_t group, int64_t panel) const { return p.groups * padded + group * panels + panel; }
    int64_t before(const Problem& p) const { return round_up(p.groups * (padded + panels), 64 / int64_t(sizeof(T))); }
    size_t bytes(const Problem& p) const { return size_t(before(p) + p.groups * padded * k) * sizeof(T); }
    int64_t offset(const Problem& p, int64_t group, int64_t panel) const { return before(p) + (group * padded + first(panel) * L) * k; }
};

template <class T>
void pack_one(const Problem& p, const PackCall& call, const BroadcastPacking<T>& packing, int64_t group, int64_t panel) {
    const int64_t first = packing.first(panel) * lanes<T>, width = packing.first(panel + 1) * lanes<T> - first;
    const int64_t channel = group * packing.channels + first, there = std::min(width, packing.channels - first);
    const T* bias = static_cast<const T*>(call.bias);
    T *packed = static_cast<T*>(call.packed), *out = packed + packing.offset(p, group, panel);
    const bool finite = pack_as_they_lie(p, call, channel, there, width, out);
    packed[packing.spoiled(p, group, panel)] = T(!finite);
    for (int64_t c = 0; c < width; ++c) packed[group * packing.padded + first + c] = bias && c < there ? bias[channel + c] : T(0);
}

// ---- one call

template <class T>
struct Broadcast {
    static constexpr int L = lanes<T>;
    using Packing = BroadcastPacking<T>;
    Problem p, slice;  // slice: the same
    Call call;
    Kept kept;
    bool raw;     // the input is read where it lies
    bool simple;  // sums can be stored straight from the registers
    Packing packing;
    Blocking blocking;
    Tasks tasks;
    Strides strides;

    Broadcast(const Region& region, int threads)
        : p(region.p), slice(p), call(region.call), kept(region), raw(call.input.data && !is_padded(p)),
          simple(call.output.channel == 1 && !call.residual.data && Epilogue<T>(p).is_limit()), packing(p, kept.taps),
          blocking(p, limits(threads), sizeof(T)), tasks(p, blocking, packing.panels, 0.5, threads),
          strides(raw ? input_strides(p, call.input) : blocking.slab) {}

    // Boxes are smaller where panels are few and do not come out even among the threads; one thread alone takes a small image whole.
    Limits limits(int threads) const {
        const bool uneven = 8 * ceil_div(packing.panels, threads) * threads >= 9 * packing.panels;
        const int64_t least = (threads == 1 ? 16 : uneven ? 2 : 8) * max_MR, share = ceil_div(p.batch * p.groups * p.output[0] * p.output[1] * p.output[2], 4 * threads);
        return {std::min(std::max(share, least), most_pixels), raw ? int64_t(1) << 60 : 192 << 10, 4 * max_MR, 1, false, false, true,
                threads_per_image(p, threads)};
    }

    static constexpr bool packs_any_order = true;
    static void pack(const Problem& p, const PackCall& call) {
        const Packing packing(p);
        const double weights = double(p.groups * p.out_channels * k_of(p));
        const int64_t parts = threads_for(weights, worth_a_thread::packing, call.threads);
        for_ranges(call.parallel_for, parts, p.groups * packing.panels, [&](int64_t begin, int64_t end, int64_t) {
            for (int64_t i = begin; i < end; ++i) pack_one(p, call, packing, i / packing.panels, i % packing.panels);
            stored_past();
        });
    }

    // Small images, so that the weights are read once for several.
    static bool joins(const Problem& p) { return 2 * p.output[1] * p.output[2] <= most_pixels; }

    static bool finite(const Problem& p, const void* packed) {
        const Packing packing(p);
        const T* spoiled = static_cast<const T*>(packed) + packing.spoiled(p, 0, 0);
        return std::all_of(spoiled, spoiled + p.groups * packing.panels, [](T it) { return it == 0; });
    }

    struct Scratch {
        T *slab, *sums, *weights;
        int64_t *tap, *kept, *pixel, *straight, *buffered;  // of each pixel: where it is read, where it goes, or in `sums`
        Run* runs;
        int64_t pixels;
        size_t bytes;
        Scratch(const Broadcast& j, void* base) : pixels(0) {
            Arena arena(base);
            const int64_t most = j.blocking.pixels(), width = ceil_div(j.packing.vectors, j.packing.panels) * L;
            slab = arena.take<T>(j.raw ? 0 : j.blocking.slab_elements);
            sums = arena.take<T>(most * width);
            weights = arena.take<T>(j.kept.some ? k_of(j.p) * width : 0);
            tap = arena.take<int64_t>(k_of(j.p));
            kept = arena.take<int64_t>(j.kept.some ? k_of(j.p) : 0);
            pixel = arena.take<int64_t>(most);
            straight = arena.take<int64_t>(most);
            buffered = arena.take<int64_t>(most);
            runs = arena.take<Run>(j.blocking.box[0] * j.blocking.box[1]);
            bytes = arena.used();
        }
    };

    // Fill s.pixel, s.straight and s.runs for a box.
    int64_t list(const Box& box, Scratch& s) const {
        s.pixels = box.pixels();
        return list_runs(call, box, s.runs, [&](int64_t i, int64_t d, int64_t h, int64_t to) {
            fill_steps(s.pixel + i, first_pixel(strides, raw, box, d, h), strides.pixel_step[2], box.size[2]);
            fill_steps(s.straight + i, to, call.output.space[2], box.size[2]);
        });
    }

    void compute(const Tasks::Task& t, const Box& box, Scratch& s, int64_t runs) const {
        const T* x = at<T>(call.input, t.image, t.group * p.in_channels);
        if (!raw) {
            fill_channels_inner(p, blocking, box, x, call.input, s.slab);
            x = s.slab;
        }
        for (int64_t panel = tasks.first_panel(t.chunk); panel < tasks.first_panel(t.chunk + 1); ++panel) compute_panel(t, panel, x, s, runs);
    }

    void compute_panel(const Tasks::Task& t, int64_t panel, const T* x, Scratch& s, int64_t runs) const {
        const int64_t first = packing.first(panel), vectors = packing.first(panel + 1) - first, width = vectors * L;
        const int64_t channels = std::min(width, packing.channels - first * L), channel = t.group * packing.channels + first * L;
        const Epilogue<T> epilogue(p);
        Target<T> target{at<T>(call.output, t.image, channel), s.straight, channels - (vectors - 1) * L, epilogue.least(), epilogue.most()};
        if (!simple) {
            constexpr T unlimited = std::numeric_limits<T>::infinity();
            fill_steps(s.buffered, 0, width, s.pixels);
            target = {s.sums, s.buffered, L, -unlimited, unlimited};
        }
        multiply(t, panel, x, vectors, s, target);
        if (!simple) finish_runs(p, call, t.image, channel, channels, s.sums, width, s.runs, runs);
    }

    // Pixels a multiple of 4 KB apart share a set of L1, of 8 lines, each read 16 times: as many as stay there beside what else passes.
    int64_t pixels_of_tile(int64_t vectors) const {
        const bool one_set = strides.pixel_step[2] * int64_t(sizeof(T)) % 4096 == 0;
        return one_set ? std::min(pixels_for(int(vectors)), vectors == 1 ? 4 : 6) : pixels_for(int(vectors));
    }

    // As few tiles as possible, equal but for a pixel.
    void multiply(const Tasks::Task& t, int64_t panel, const T* x, int64_t vectors, const Scratch& s, Target<T> target) const {
        constexpr auto all = std::make_index_sequence<size_t(max_MR * max_NR)>{};
        const T* bias = static_cast<const T*>(call.packed) + t.group * packing.padded + packing.first(panel) * L;
        const T* w = weights(t, panel, vectors * L, s);
        const int64_t k = k_of(p), tiles = ceil_div(s.pixels, pixels_of_tile(vectors));
        for (int64_t i = 0, first = 0, count; i < tiles; ++i, first += count, target.to += count) {
            count = ceil_div(s.pixels - first, tiles - i);
            micro_at<T>(count, vectors, all)(x, s.pixel + first, s.tap, k, w, bias, target);
        }
    }

    // The weights of a panel: where they are packed, or, if some taps are left out, the others' side by side.
    const T* weights(const Tasks::Task& t, int64_t panel, int64_t width, const Scratch& s) const {
        const T* w = static_cast<const T*>(call.packed) + packing.offset(p, t.group, panel);
        if (!kept.some) return w;
        w += kept.first * width;
        for (int64_t k = 0; k < k_of(p); ++k) std::copy_n(w + s.kept[k] * width, width, s.weights + k * width);
        return s.weights;
    }
};

}  // namespace

const Algorithm& broadcast_algorithm() {
    static const Algorithm algorithm = algorithm_of<Driver<Broadcast<float>>, Driver<Broadcast<double>>>("broadcast");
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
