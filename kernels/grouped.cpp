// grouped: several groups of a few channels side by side on the vector.
//
//   out[pixel][lane] = bias[lane] + sum over taps and c of x[pixel + tap offset][input c of the lane's group] * w[tap][c][lane]
//
// Groups whose inputs fit into a vector together are a block, as many as leave the fewest lanes of outputs empty: one load has all
// inputs of a pixel and tap, and for each c a permutation brings to every lane input c of its own group. Tile: up to MR pixels x 1 vector of output channels (AVX-512 12, AVX2 6), whose
// inputs stay in registers beside the sums. Inputs are read where they lie if the channels of a pixel are side by side and nothing is
// padded, else from a slab. Weights are packed [block][panel][tap][c][lanes]; all taps in one pass, and outputs are stored from
// the registers.
// Bottleneck: a permutation for each multiply-add, in three pipes: three quarters of FMA peak.
#include "driver.hpp"
#include "pack.hpp"
#include "runs.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int max_MR = 12;
#else
constexpr int max_MR = 6;
#endif
constexpr int64_t most_inputs = 8, most_outputs = 16;  // of a group: with more a vector of one alone is full
constexpr int64_t most_pixels = 512;                   // of a box

// ---- permutations: lane l of the result is lane index[l] of v

template <class T>
using Index = typename VectorOf<T>::mask;

// Index of a lane, as `permuted` wants it: AVX2 permutes doubles by halves.
template <class T>
constexpr typename VectorOf<T>::Int index_of(int64_t lane) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    if constexpr (sizeof(T) == 8) return (2 * lane + 1) << 32 | 2 * lane;
#endif
    return typename VectorOf<T>::Int(lane);
}

template <class T>
FASTCONV_INLINE Vec<T> permuted(Vec<T> v, Index<T> index) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_maskz_permutexvar_ps(0xffff, __m512i(index), v);
    else return _mm512_maskz_permutexvar_pd(0xff, __m512i(index), v);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return _mm256_permutevar8x32_ps(v, __m256i(index));
    else return Vec<T>(_mm256_permutevar8x32_ps(__m256(v), __m256i(index)));
#else
    Vec<T> result{};
    for (int l = 0; l < lanes<T>; ++l) result[l] = v[index[l]];
    return result;
#endif
}

// ---- micro-kernel: y[to[i]][:] = limited(bias[:] + sum over t and c of x[pixel[i] + tap[t]][inputs c][:] * w[row[t]][c][:])

enum class Inputs { whole, first, apart };  // of a pixel: a vector, fewer, or more

template <class T>
struct Taps {
    const int64_t *tap, *row;  // offsets of the input, numbers of the weights
    int64_t count, channels;   // channels of a group
    const T* index;            // [c][lane]: as vectors for `permuted`
    const int64_t* lane;       // [c][lane]: offsets, where inputs do not fit into a vector
    int64_t inputs;            // of a block
};

template <class T>
struct Target {
    T* y;
    const int64_t* to;  // of each pixel
    int64_t last;       // lanes that are stored
    T least, most;
};

template <class T, int MR, Inputs In>
FASTCONV_KERNEL void micro(const T* x, const int64_t* pixel, const Taps<T>& taps, const T* w, const T* bias,
                           const Target<T>& target) {
    constexpr int L = lanes<T>;
    const T* p[MR];
    Vec<T> sum[MR];
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i) p[i] = x + pixel[i], sum[i] = load(bias);
    for (int64_t t = 0; t < taps.count; ++t) {
        const int64_t offset = taps.tap[t];
        const T* weight = w + taps.row[t] * taps.channels * L;
        Vec<T> value[MR];
        if constexpr (In != Inputs::apart) {
#pragma GCC unroll 12
            for (int i = 0; i < MR; ++i)
                value[i] = In == Inputs::whole ? load(p[i] + offset) : load_first(p[i] + offset, taps.inputs);
        }
        for (int64_t c = 0; c < taps.channels; ++c, weight += L) {
            const Vec<T> factor = load(weight);
            if constexpr (In == Inputs::apart) {
                const int64_t* lane = taps.lane + c * L;
                for (int i = 0; i < MR; ++i) {
                    T each[L];
                    for (int l = 0; l < L; ++l) each[l] = p[i][offset + lane[l]];
                    sum[i] += load(each) * factor;
                }
            } else {
                const Index<T> index = Index<T>(load(taps.index + c * L));
#pragma GCC unroll 12
                for (int i = 0; i < MR; ++i) sum[i] += permuted<T>(value[i], index) * factor;
            }
        }
    }
    const Limited<T> limited(target.least, target.most);
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i) {
        T* y = target.y + target.to[i];
        if (target.last == L) store(y, limited(sum[i]));
        else store_first(y, limited(sum[i]), target.last);
    }
}

template <class T>
using Micro = void (*)(const T*, const int64_t*, const Taps<T>&, const T*, const T*, const Target<T>&);

template <class T, Inputs In, size_t... I>
Micro<T> micro_at(int64_t pixels, std::index_sequence<I...>) {
    static constexpr Micro<T> table[] = {micro<T, int(I) + 1, In>...};
    return table[pixels - 1];
}

// ---- packed weights: bias [block][panel][lanes], spoiled: whether any is not finite, weights [block][panel][tap][c][lanes]

template <class T>
struct GroupedPacking {
    static constexpr int64_t L = lanes<T>;
    int64_t inputs, outputs, joined;  // channels of a group; groups of a block
    int64_t taps, panels, blocks;

    explicit GroupedPacking(const Problem& p) : GroupedPacking(p, kernel_volume(p)) {}
    GroupedPacking(const Problem& p, int64_t volume) : inputs(p.in_channels), outputs(p.out_channels), joined(1), taps(volume) {
        for (int64_t n = 2; n * inputs <= L; ++n)
            if (p.groups % n == 0 && vectors(n) * joined <= vectors(joined) * n) joined = n;
        panels = vectors(joined), blocks = p.groups / joined;
    }
    int64_t vectors(int64_t groups) const { return ceil_div(groups * outputs, L); }
    int64_t channels(int64_t panel) const { return std::min(L, joined * outputs - panel * L); }
    int64_t panel_weights() const { return taps * inputs * L; }
    int64_t spoiled() const { return blocks * panels * L; }
    int64_t before() const { return round_up(spoiled() + 1, 64 / int64_t(sizeof(T))); }
    size_t bytes(const Problem&) const { return size_t(before() + blocks * panels * panel_weights()) * sizeof(T); }
    int64_t offset(int64_t block, int64_t panel) const { return before() + (block * panels + panel) * panel_weights(); }
};

template <class T>
void pack_panel(const PackCall& call, const GroupedPacking<T>& packing, int64_t block, int64_t panel) {
    constexpr int L = lanes<T>;
    const int64_t channel = block * packing.joined * packing.outputs + panel * L, there = packing.channels(panel);
    const T* weight = static_cast<const T*>(call.weight) + channel * packing.inputs * packing.taps;
    const T* bias = static_cast<const T*>(call.bias);
    T *packed = static_cast<T*>(call.packed), *out = packed + packing.offset(block, panel);
    for (int64_t tap = 0; tap < packing.taps; ++tap)
        for (int64_t c = 0; c < packing.inputs; ++c, out += L)
            for (int64_t l = 0; l < L; ++l)
                out[l] = l < there ? weight[(l * packing.inputs + c) * packing.taps + tap] : T(0);
    T* first = packed + (block * packing.panels + panel) * L;
    for (int64_t l = 0; l < L; ++l) first[l] = bias && l < there ? bias[channel + l] : T(0);
}

// ---- one call

template <class T>
struct Grouped {
    static constexpr int L = lanes<T>;
    using Packing = GroupedPacking<T>;
    Packing packing;
    Problem p, wide, slice;  // p: blocks as groups; wide: with the inputs of a block; slice: of one channel
    Call call;
    Kept kept;
    bool raw;     // the input is read where it lies
    bool simple;  // sums can be stored straight from the registers
    Blocking blocking;
    Tasks tasks;
    Strides strides;

    Grouped(const Region& region, int threads)
        : packing(region.p, Kept(region).taps), p(with(region.p, region.p.in_channels)), wide(with(region.p, inputs())),
          slice(with(region.p, 1)), call(region.call), kept(region),
          raw(call.input.data && !is_padded(p) && call.input.channel == 1),
          simple(call.output.channel == 1 && !call.residual.data && Epilogue<T>(p).is_limit()),
          blocking(wide, limits(threads), sizeof(T)), tasks(p, blocking, packing.panels, 0.5, threads),
          strides(raw ? input_strides(p, call.input) : blocking.slab) {}

    Problem with(Problem q, int64_t in_channels) const {
        q.groups = packing.blocks, q.out_channels = packing.joined * packing.outputs, q.in_channels = in_channels;
        return q;
    }
    int64_t inputs() const { return packing.joined * packing.inputs; }

    Limits limits(int threads) const {
        const int64_t share = ceil_div(p.batch * p.groups * p.output[0] * p.output[1] * p.output[2], 4 * threads);
        return {std::min(std::max<int64_t>(share, 8 * max_MR), most_pixels), raw ? int64_t(1) << 60 : 192 << 10, 4 * max_MR, 1,
                false, false, true, threads_per_image(p, threads)};
    }

    static constexpr bool packs_any_order = false;
    static void pack(const Problem& p, const PackCall& call) {
        const Packing packing(p);
        for (int64_t block = 0; block < packing.blocks; ++block)
            for (int64_t panel = 0; panel < packing.panels; ++panel) pack_panel<T>(call, packing, block, panel);
        const bool finite = all_finite(static_cast<const T*>(call.weight), p.groups * p.out_channels * k_of(p));
        static_cast<T*>(call.packed)[packing.spoiled()] = T(!finite);
    }
    static bool joins(const Problem&) { return false; }
    static bool finite(const Problem& p, const void* packed) {
        return static_cast<const T*>(packed)[Packing(p).spoiled()] == 0;
    }

    struct Scratch {
        T *slab, *sums, *index;
        int64_t *tap, *kept, *lane;
        int64_t *pixel, *straight, *buffered;  // of each pixel: where it is read, where it goes, or in `sums`
        Run* runs;
        int64_t pixels;
        size_t bytes;
        Scratch(const Grouped& j, void* base) : pixels(0) {
            Arena arena(base);
            const int64_t most = j.blocking.pixels(), volume = kernel_volume(j.p), all = j.packing.inputs * L;
            slab = arena.take<T>(j.raw ? 0 : j.blocking.slab_elements);
            sums = arena.take<T>(most * L);
            index = arena.take<T>(all);
            tap = arena.take<int64_t>(volume);
            kept = arena.take<int64_t>(volume);
            pixel = arena.take<int64_t>(most);
            straight = arena.take<int64_t>(most);
            buffered = arena.take<int64_t>(most);
            lane = arena.take<int64_t>(all);
            runs = arena.take<Run>(j.blocking.box[0] * j.blocking.box[1]);
            bytes = arena.used();
        }
    };

    // Fill what a box has in s: pixels and runs, and the taps' weights.
    int64_t list(const Box& box, Scratch& s) const {
        s.pixels = box.pixels();
        if (!kept.some)
            for (int64_t t = 0; t < kernel_volume(p); ++t) s.kept[t] = t;
        fill_steps(s.buffered, 0, L, s.pixels);
        return list_runs(call, box, s.runs, [&](int64_t i, int64_t d, int64_t h, int64_t to) {
            fill_steps(s.pixel + i, first_pixel(strides, raw, box, d, h), strides.pixel_step[2], box.size[2]);
            fill_steps(s.straight + i, to, call.output.space[2], box.size[2]);
        });
    }

    // Input c of the group that each lane belongs to.
    void list_lanes(int64_t panel, const Scratch& s) const {
        for (int64_t c = 0; c < packing.inputs; ++c) {
            Index<T> index{};
            for (int64_t l = 0; l < L; ++l) {
                const int64_t output = panel * L + std::min(l, packing.channels(panel) - 1);
                const int64_t lane = output / packing.outputs * packing.inputs + c;
                s.lane[c * L + l] = lane, index[l] = index_of<T>(lane);
            }
            store(s.index + c * L, Vec<T>(index));
        }
    }

    void compute(const Tasks::Task& t, const Box& box, Scratch& s, int64_t runs) const {
        const T* x = at<T>(call.input, t.image, t.group * inputs());
        if (!raw) {
            fill_channels_inner(wide, blocking, box, x, call.input, s.slab);
            x = s.slab;
        }
        for (int64_t panel = tasks.first_panel(t.chunk); panel < tasks.first_panel(t.chunk + 1); ++panel)
            compute_panel(t, panel, x, s, runs);
    }

    void compute_panel(const Tasks::Task& t, int64_t panel, const T* x, const Scratch& s, int64_t runs) const {
        const int64_t channels = packing.channels(panel), channel = t.group * p.out_channels + panel * L;
        const Epilogue<T> epilogue(p);
        constexpr T unlimited = std::numeric_limits<T>::infinity();
        Target<T> target{at<T>(call.output, t.image, channel), s.straight, channels, epilogue.least(), epilogue.most()};
        if (!simple) target = {s.sums, s.buffered, L, -unlimited, unlimited};
        list_lanes(panel, s);
        multiply(t, panel, x, s, target);
        if (!simple) finish_runs(p, call, t.image, channel, channels, s.sums, L, s.runs, runs);
    }

    // As few tiles as possible, equal but for a pixel.
    void multiply(const Tasks::Task& t, int64_t panel, const T* x, const Scratch& s, Target<T> target) const {
        constexpr auto all = std::make_index_sequence<size_t(max_MR)>{};
        const Taps<T> taps{s.tap, s.kept, kernel_volume(p), packing.inputs, s.index, s.lane, inputs()};
        const T* packed = static_cast<const T*>(call.packed);
        const T *bias = packed + (t.group * packing.panels + panel) * L, *w = packed + packing.offset(t.group, panel);
        w += kept.first * packing.inputs * L;
        const bool fits = inputs() <= L, whole = inputs() == L || !raw;  // a slab may be read beyond its end
        const int64_t tiles = ceil_div(s.pixels, max_MR);
        for (int64_t i = 0, first = 0, count; i < tiles; ++i, first += count, target.to += count) {
            count = ceil_div(s.pixels - first, tiles - i);
            const Micro<T> kernel = !fits   ? micro_at<T, Inputs::apart>(count, all)
                                    : whole ? micro_at<T, Inputs::whole>(count, all)
                                            : micro_at<T, Inputs::first>(count, all);
            kernel(x, s.pixel + first, taps, w, bias, target);
        }
    }
};

template <class T>
struct GroupedDriver : Driver<Grouped<T>> {
    static const char* refuses(const Problem& p) {
        const bool few = p.in_channels <= most_inputs && p.out_channels <= most_outputs && p.in_channels * p.out_channels > 1;
        return p.groups > 1 && few ? nullptr : "computes several groups of up to 8 input and 16 output channels only, and more than one pair";
    }
};

}  // namespace

const Algorithm& grouped_algorithm() {
    static const Algorithm algorithm = algorithm_of<GroupedDriver<float>, GroupedDriver<double>>("grouped");
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
