// pairs: the gradient of the weight where pixels are few and channels many, so that the result is what is large.
//
//   dw[oc][c, t] = sum of dy[q][oc] * x[i][c]    over the pairs (output q, input i) of all images that tap t brings together
//
// Of every tap that is a product of matrices, as deep as there are pairs. Both operands are put in order once, in blocks of
// channels, the pixels of all images one after another; a list for each tap says which pixels are a pair. Strides, dilation,
// padding and short rows are nothing but that list. What lies in the padding is not in it, as long as dy is finite.
// Tile: MR rows, channels of the one operand, x 2 vectors of channels of the other, in registers while all pairs pass by: per
// pair 2 loads and MR broadcasts for 2 MR FMAs. One tap: the input's channels are on the vectors, and sums go straight to where
// they belong. Several: the output's are, and the sums of all taps of some input channels, which follow each other in the
// result, wait in the caches to be transposed to whole lines. The result is written once.
// A sum is in the order of its pairs: the same bits for any number of threads.
// Bottleneck: FMA; then writing the result.
#include <atomic>

#include "slab.hpp"
#include "tile.hpp"
#include "toom.hpp"
#include "weight_rows.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

constexpr int64_t most_listed = 64 << 10;    // pairs of all taps
constexpr int64_t most_taps_listed = 512;    // as their sums wait together
constexpr int64_t few_channels = 4;          // of a group: its vectors would be mostly empty
constexpr int64_t pairs_at_once = 400;       // sums wait where the result is for further ones
constexpr int64_t waiting_bytes = 64 << 10;  // sums that wait to be transposed
constexpr size_t most_kept = 3 << 20;        // a larger result goes past the caches

// Where the channels of two pixels begin, in elements.
struct Pair {
    int64_t row, vector;
};

// out[i][:] (+)= sum over pairs of rows[pair.row + i] * vectors[pair.vector + :]; More: added to what is there.
template <class T, int MR, int NR, bool More>
struct PairTile {
    FASTCONV_KERNEL static void run(const T* rows, const T* vectors, const Pair* pairs, int64_t count, T* out, int64_t step) {
        constexpr int L = lanes<T>;
        Vec<T> sum[MR][NR];
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
            for (int v = 0; v < NR; ++v) sum[i][v] = More ? load(out + i * step + v * L) : Vec<T>{};
        for (const Pair* const end = pairs + count; pairs < end; ++pairs) {
            const T *row = rows + pairs->row, *from = vectors + pairs->vector;
            Vec<T> vector[NR];
#pragma GCC unroll 2
            for (int v = 0; v < NR; ++v) vector[v] = load(from + v * L);
#pragma GCC unroll 16
            for (int i = 0; i < MR; ++i) {
                const Vec<T> value = broadcast(row[i]);
#pragma GCC unroll 2
                for (int v = 0; v < NR; ++v) sum[i][v] += value * vector[v];
            }
        }
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
            for (int v = 0; v < NR; ++v) store(out + i * step + v * L, sum[i][v]);
    }
};

// One operand: [group][block of channels][pixel of all images, and one more][channel of the block]. Tiles read it in sequence.
template <class T>
struct Operand {
    static constexpr int64_t L = lanes<T>;
    View view;
    int64_t channels, block;                 // of a group; whole vectors
    int64_t size[max_axes], kept[max_axes];  // of an image; what is kept of it
    int64_t batch;

    int64_t positions() const { return size[0] * size[1] * size[2]; }
    int64_t pixels() const { return kept[0] * kept[1] * kept[2]; }  // of an image
    int64_t last() const { return batch * pixels(); }               // the one more
    int64_t vectors() const { return ceil_div(channels, L); }
    int64_t of_group() const { return ceil_div(channels, block) * of_block(); }
    int64_t of_block() const { return (last() + 1) * block; }
};

template <class T>
struct Pairs {
    static constexpr int64_t L = lanes<T>, wide = 2 * L;
    Problem p;
    Call call;
    int64_t volume, listed;           // pairs of a tap, those in the padding among them
    Operand<T> x, y;
    bool across;                      // one tap, and its input channels side by side in the result: they are on the vectors
    bool checked;                     // whether taps lie in the padding
    int64_t rows, columns, blocks;    // channels of a group that are rows of tiles, that are on vectors; blocks of these
    int64_t range;                    // rows of an item
    int64_t parts;
    Crew crew;

    Pairs(const Problem& problem, const Call& c, int threads)
        : p(problem), call(c), volume(kernel_volume(p)), listed(p.batch * p.output[0] * p.output[1] * p.output[2]),
          x{call.input, p.in_channels, 0, {}, {}, p.batch}, y{call.gradient, p.out_channels, 0, {}, {}, p.batch},
          across(fits_across() && (call.output.channel == 1 || p.in_channels == 1)),
          checked(p.padding_mode == PaddingMode::zeros && is_padded(p)) {
        for (int a = 0; a < max_axes; ++a) {
            x.size[a] = p.input[a], x.kept[a] = gaps(a) ? p.output[a] * extent(p, a, 1) : p.input[a];
            y.size[a] = y.kept[a] = p.output[a];
        }
        rows = across ? p.out_channels : p.in_channels, columns = across ? p.in_channels : p.out_channels;
        blocks = ceil_div(columns, wide);
        const int64_t most = across ? 8 * max_MR : std::max(L, waiting_bytes / (volume * wide * int64_t(sizeof(T))));
        range = round_up(ceil_div(rows, ceil_div(rows, most)), L);
        x.block = across ? wide : range, y.block = across ? range : wide;
        parts = std::min(threads_for(multiply_adds(p), worth_a_thread::gemm, threads), items());
        const Scratch one(*this, nullptr, nullptr);
        crew = Crew(p, call, parts, one.bytes, one.common_bytes);
    }
    // One tap: the lanes that would be in vain, and what a vector of the result costs beside its products (measured).
    bool fits_across() const {
        const int64_t inputs = ceil_div(p.in_channels, L), outputs = ceil_div(p.out_channels, L);
        return volume == 1 && (listed + 4) * p.out_channels * inputs <= (listed + 10) * p.in_channels * outputs;
    }
    int64_t items() const { return p.groups * blocks * ceil_div(rows, range); }
    int64_t width(int64_t block) const { return std::min(wide, round_up(columns - block * wide, L)); }

    // A stride beyond the kernel: inputs that no tap reads are left out.
    bool gaps(int a) const {
        const int64_t reach = extent(p, a, 1);
        return p.padding_mode == PaddingMode::zeros && p.stride[a] > reach && p.output[a] * reach < p.input[a];
    }
    // Of a coordinate, among those that are kept; -1: it is not.
    int64_t place(int a, int64_t i) const {
        if (!gaps(a)) return i;
        const int64_t output = (i + p.pad_lo[a]) / p.stride[a], tap = (i + p.pad_lo[a]) % p.stride[a];
        return tap < extent(p, a, 1) && output < p.output[a] ? output * extent(p, a, 1) + tap : -1;
    }
    int64_t place(int64_t d, int64_t h, int64_t w) const {
        return d < 0 || h < 0 || w < 0 ? -1 : (d * x.kept[1] + h) * x.kept[2] + w;
    }

    struct Scratch {
        std::atomic<int32_t>* spoiled;  // whether dy has something that is not finite
        int64_t* inside;                // pairs of each tap that do not lie in the padding: the first ones
        Pair* pairs;                    // [tap][pair]
        T *x, *y;                       // the one more pixel of x is zeros
        int64_t* place;                 // of an image's inputs, among those that are kept
        T* sums;
        size_t common_bytes, bytes;
        Scratch(const Pairs& job, void* common, void* own) {
            Arena ours(common), mine(own);
            spoiled = ours.take<std::atomic<int32_t>>(1);
            inside = ours.take<int64_t>(job.volume);
            pairs = ours.take<Pair>(job.volume * job.listed);
            x = ours.take<T>(job.p.groups * job.x.of_group());
            y = ours.take<T>(job.p.groups * job.y.of_group());
            place = mine.take<int64_t>(job.x.positions());
            sums = mine.take<T>(job.across ? max_MR * wide : job.volume * job.range * wide);
            common_bytes = ours.used(), bytes = mine.used();
        }
    };

    void compute() const {
        const Scratch ours(*this, crew.common(), nullptr);
        new (ours.spoiled) std::atomic<int32_t>(0);
        const int64_t of_x = p.batch * p.groups * x.vectors(), of_y = p.batch * p.groups * y.vectors();
        crew.share(volume + of_x + of_y, [&](int64_t part, const auto& each) {
            const Scratch s(*this, crew.common(), crew.own(part));
            list_places(s.place);
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                    if (i < volume) list_pairs(i, s);
                    else if (i < volume + of_x) fill_input(i - volume, s);
                    else fill_gradient(i - volume - of_x, s);
                }
            });
        });
        crew.share(items(), [&](int64_t part, const auto& each) {
            const Scratch s(*this, crew.common(), crew.own(part));
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) multiply(i, s);
            });
            stored_past();
        });
    }

    // ---- which pixels are pairs

    void list_places(int64_t* places) const {
        for (int64_t d = 0; d < p.input[0]; ++d)
            for (int64_t h = 0; h < p.input[1]; ++h)
                for (int64_t w = 0; w < p.input[2]; ++w) *places++ = place(place(0, d), place(1, h), place(2, w));
    }

    // Those in the padding last: their input is the pixel of zeros.
    void list_pairs(int64_t tap, const Scratch& s) const {
        const int64_t at[max_axes] = {tap / (p.kernel[1] * p.kernel[2]), tap / p.kernel[2] % p.kernel[1], tap % p.kernel[2]};
        const auto kept = [&](int a, int64_t output) {
            const int64_t i = source(p, a, output * p.stride[a] + at[a] * p.dilation[a] - p.pad_lo[a]);
            return i < 0 ? -1 : place(a, i);
        };
        Pair* const list = s.pairs + tap * listed;
        int64_t begin = 0, end = listed;
        for (int64_t image = 0, q = 0; image < p.batch; ++image)
            for (int64_t d = 0; d < p.output[0]; ++d)
                for (int64_t h = 0, from_d = kept(0, d); h < p.output[1]; ++h)
                    for (int64_t w = 0, from_h = kept(1, h); w < p.output[2]; ++w, ++q) {
                        const int64_t i = place(from_d, from_h, kept(2, w));
                        const int64_t of_x = (i < 0 ? x.last() : image * x.pixels() + i) * x.block, of_y = q * y.block;
                        list[i < 0 ? --end : begin++] = across ? Pair{of_y, of_x} : Pair{of_x, of_y};
                    }
        s.inside[tap] = begin;
    }

    // ---- both operands in order

    void fill_input(int64_t item, const Scratch& s) const {
        T* const to = fill(x, item, s.place, s.x, [](Vec<T>) {});
        if (item < p.groups * x.vectors()) store(to + x.last() * x.block, Vec<T>{});
    }
    void fill_gradient(int64_t item, const Scratch& s) const {
        Vec<T> zero{};
        if (!checked) fill(y, item, nullptr, s.y, [](Vec<T>) {});
        else fill(y, item, nullptr, s.y, [&](Vec<T> value) { zero += value * T(0); });
        if (!all_zeros<T>(zero)) s.spoiled->store(1, std::memory_order_relaxed);
    }

    // A vector of channels of an image, whose place in the first image is returned; lanes without a channel are 0. places:
    // null, all of them one after another.
    template <class Look>
    FASTCONV_INLINE T* fill(const Operand<T>& side, int64_t item, const int64_t* places, T* panel, Look look) const {
        const View& v = side.view;
        const int64_t channel = item % side.vectors() * L;
        const int64_t group = item / side.vectors() % p.groups, image = item / side.vectors() / p.groups;
        const int64_t count = std::min(L, side.channels - channel);
        const T* from = at<T>(v, image, group * side.channels + channel);
        T* const first = panel + group * side.of_group() + channel / side.block * side.of_block() + channel % side.block;
        T* const to = first + image * side.pixels() * side.block;
        int64_t size[max_axes];
        std::copy(side.size, side.size + max_axes, size);
        for (int a = 1; a >= 0 && (size[a] == 1 || v.space[a] == size[2] * v.space[2]); --a)  // rows that follow one another
            size[2] *= std::exchange(size[a], 1);
        for (int64_t d = 0, q = 0; d < size[0]; ++d)
            for (int64_t h = 0; h < size[1]; ++h, q += size[2]) {
                const T* row = from + d * v.space[0] + h * v.space[1];
                const auto put = [&](int64_t i, Vec<T> value) {
                    const int64_t place = places ? places[q + i] : q + i;
                    if (place >= 0) look(value), store(to + place * side.block, value);
                };
                if (v.space[2] == 1 && v.channel != 1) put_transposed(row, v.channel, count, size[2], put);
                else put_pixels(row, v, count, size[2], put);
            }
        return first;
    }

    template <class Put>
    FASTCONV_INLINE static void put_transposed(const T* row, int64_t channel, int64_t count, int64_t pixels, const Put& put) {
        for (int64_t i = 0; i < pixels; i += L) {
            const int64_t n = std::min(L, pixels - i);
            Vec<T> value[L];
            if (n == L && count == L) {  // constant trip counts: the rows stay in registers
                for (int l = 0; l < L; ++l) value[l] = load(row + l * channel + i);
                transpose<T>(value);
#pragma GCC unroll 16
                for (int l = 0; l < L; ++l) put(i + l, value[l]);
            } else {
                for (int64_t l = 0; l < L; ++l) value[l] = l < count ? load_some(row + l * channel + i, n) : Vec<T>{};
                transpose<T>(value);
                for (int64_t l = 0; l < n; ++l) put(i + l, value[l]);
            }
        }
    }
    template <class Put>
    FASTCONV_INLINE static void put_pixels(const T* row, const View& v, int64_t count, int64_t pixels, const Put& put) {
        for (int64_t i = 0; i < pixels; ++i, row += v.space[2]) {
            if (v.channel == 1) {
                put(i, load_some(row, count));
                continue;
            }
            alignas(vector_bytes) T lane[L] = {};
            for (int64_t l = 0; l < count; ++l) lane[l] = row[l * v.channel];
            put(i, load(lane));
        }
    }

    // ---- products

    void multiply(int64_t item, const Scratch& s) const {
        const int64_t ranges = ceil_div(rows, range), first = item % ranges * range, block = item / ranges % blocks;
        const int64_t group = item / ranges / blocks, count = std::min(range, rows - first);
        const Operand<T>&of_a = across ? y : x, &of_b = across ? x : y;
        const T* const a = (across ? s.y : s.x) + group * of_a.of_group() + item % ranges * of_a.of_block();
        const T* const b = (across ? s.x : s.y) + group * of_b.of_group() + block * of_b.of_block();
        if (across) write_across(group, first, count, block, a, b, s);
        else {
            for (int64_t tap = 0; tap < volume; ++tap)
                multiply(tap, a, count, b, width(block), s.sums + tap * width(block), volume * width(block), s);
            write(group, first, count, block, s.sums);
        }
    }

    void multiply(int64_t tap, const T* a, int64_t count, const T* b, int64_t width, T* out, int64_t step,
                  const Scratch& s) const {
        const int64_t all = s.spoiled->load(std::memory_order_relaxed) ? listed : s.inside[tap];
        const int64_t tiles = ceil_div(count, max_MR), pieces = std::max<int64_t>(1, ceil_div(all, pairs_at_once));
        for (int64_t piece = 0; piece < pieces; ++piece) {
            const int64_t begin = all * piece / pieces, pairs = all * (piece + 1) / pieces - begin;
            for (int64_t i = 0; i < tiles; ++i) {
                const int64_t first = count * i / tiles, n = count * (i + 1) / tiles - first;
                const auto tile = tile_of<PairTile, T>(n, width, piece > 0);
                tile(a + first, b, s.pairs + tap * listed + begin, pairs, out + first * step, step);
            }
        }
    }

    // ---- and out

    // Rows are output channels; lanes without an input channel would be others' results.
    void write_across(int64_t group, int64_t first, int64_t count, int64_t block, const T* a, const T* b,
                      const Scratch& s) const {
        const int64_t n = std::min(wide, columns - block * wide), step = call.output.batch;
        T* const out = static_cast<T*>(call.output.data) + (group * rows + first) * step + block * wide;
        if (n == width(block)) return multiply(0, a, count, b, n, out, step, s);
        for (int64_t i = 0; i < count; i += max_MR) {
            const int64_t some = std::min<int64_t>(max_MR, count - i);
            multiply(0, a + i, some, b, width(block), s.sums, width(block), s);
            for (int64_t r = 0; r < some; ++r) copy(out + (i + r) * step, s.sums + r * width(block), n);
        }
    }

    void write(int64_t group, int64_t first, int64_t count, int64_t block, const T* sums) const {
        const WeightRows<T> to(p, call.output, weight_bytes(p) > most_kept);
        const int64_t channel = group * columns + block * wide, n = std::min(wide, columns - block * wide);
        const int64_t k = first * volume, step = width(block);
        to.write(channel, n, k, k + count * volume, [=](int64_t i) { return sums + (i - k) * step; });
    }
};

template <class T>
struct PairsAlgorithm : Defaults {
    static const char* refuses(const Problem& p) {
        if (p.direction != Direction::backward_weight) return "computes the gradient of the weight only";
        const double pixels = double(p.batch) * double(p.output[0]) * double(p.output[1]) * double(p.output[2]);
        if (kernel_volume(p) > most_taps_listed || pixels * double(kernel_volume(p)) > most_listed)
            return "lists which pixels are pairs, of few pixels and taps only";
        const bool few = std::min(p.in_channels, p.out_channels) < few_channels;
        return p.groups > 1 && few ? "puts the channels of a group side by side, not of groups of so few" : nullptr;
    }
    static size_t packed_bytes(const Problem&) { return 0; }
    static size_t workspace_bytes(const Problem& p, int threads) {
        Call call{};  // however the result lies
        const size_t bytes = Pairs<T>(p, call, threads).crew.bytes();
        call.output.channel = 1;
        return std::max(bytes, Pairs<T>(p, call, threads).crew.bytes());
    }
    static void run(const Problem& p, const Call& call) { Pairs<T>(p, call, call.threads).compute(); }
};

}  // namespace

const Algorithm& pairs_algorithm() {
    static const Algorithm algorithm = algorithm_of<PairsAlgorithm<float>, PairsAlgorithm<double>>("pairs");
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
