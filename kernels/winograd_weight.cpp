// winograd_weight: the gradient of the weight by minimal filtering F(r x s, m x n): tiles of the output's gradient are kernels.
//
//   dw = A^T [ sum over tiles and images of (G dy G^T) . (B^T x B) ] A         (toom.hpp has the matrices)
//
// A tile is m x n of dy and the (m + r - 1) x (n + s - 1) of x that they meet. The sum is taken between the transforms, so that
// each pair of channels has one inverse transform in all. The tiles of a chunk go two ways side by side:
//   U[product][block of 2 vectors of oc][tile][2 vectors], V[product][tile][c]   transformed dy and x, vectors over channels
//   M[product][block][c][2 vectors] += U^T V                    an outer product per tile, in the register tile of outer
// The order of the sums follows from the problem alone: blocks and threads change no bit.
// Few tiles are one chunk, whose M is used up block by block and range by range of c, in L2.
// Bottleneck: FMA in the products (36 of 144 for 3 x 3 taps and tiles of 4 x 4); then the transforms, and where channels are
// many M, which is read and written for every chunk.
// Where a sum is not finite, the whole gradient is computed once more, by outer.
#include <atomic>

#include "outer_tile.hpp"
#include "slab.hpp"
#include "toom.hpp"
#include "weight_rows.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

const Algorithm& outer_algorithm();

namespace {

constexpr int64_t most_channels = 256;       // of a task, of either array: 36 products take 9 MB of M at most
constexpr int64_t chunk_bytes = 1 << 20;     // of U and V
constexpr int64_t least_tiles = 96;          // of a chunk, as M is read and written for each
constexpr int64_t at_once_bytes = 12 << 20;  // of U and V, where they are one chunk
constexpr int64_t summed_tiles = 48;         // whose products are summed before they are added to others
constexpr int64_t range_channels = 64;       // whose M, of a block, stays in L2
constexpr int64_t most_strip = 64;           // tiles
constexpr int64_t inverse_channels = 16;     // whose inverse transform is in L1

template <class T>
struct WinogradWeight {
    static constexpr int64_t L = lanes<T>, wide = 2 * L, line = 64 / int64_t(sizeof(T));
    Problem p;
    Call call;
    Axis<T> h, w;  // their outputs are the kernel's taps, their taps the outputs of a tile
    int64_t products, rows, columns, pieces, strips;  // rows and columns of tiles; strips of a row, of all images
    int64_t inputs, outputs;                          // channels of a task, at most
    bool at_once;                                     // one chunk
    int64_t chunks, most;                             // of strips; tiles in one
    int64_t range, m_rows;                            // input channels of an item, at most, and of M
    int64_t v_step, v_plane, u_plane, m_plane;        // from a tile to the next in V; from a product to the next
    int64_t parts;
    Crew crew;

    WinogradWeight(const Problem& problem, const Call& c, int threads)
        : p(problem), call(c), h(p.kernel[1], p.tile[1]), w(p.kernel[2], p.tile[2]), products(h.size * w.size),
          rows(ceil_div(p.output[1], h.taps)), columns(ceil_div(p.output[2], w.taps)), pieces(ceil_div(columns, most_strip)),
          strips(p.batch * p.output[0] * rows * pieces), inputs(even(p.in_channels, L)), outputs(even(p.out_channels, wide)) {
        const int64_t tiles = p.batch * p.output[0] * rows * columns, longest = ceil_div(columns, pieces);
        const double transformed = double(products) / double(kernel_volume(p) * h.taps * w.taps);
        parts = threads_for(multiply_adds(p) * transformed, worth_a_thread::winograd, threads);
        const int64_t tile_bytes = products * (round_up(inputs, L) + outputs) * int64_t(sizeof(T));
        at_once = tiles * tile_bytes <= at_once_bytes;
        const int64_t fit = at_once ? tiles : std::max({least_tiles, chunk_bytes / tile_bytes, longest});
        chunks = std::min(strips, ceil_div(tiles, fit));
        most = ceil_div(strips, chunks) * longest;
        range = std::min(inputs, range_channels), m_rows = at_once ? range : inputs;
        v_step = round_up(inputs, L);
        if (v_step * int64_t(sizeof(T)) % 512 == 0) v_step += line;  // not all tiles in the same few sets of L1
        v_plane = round_up(most * v_step, line) + line;
        u_plane = round_up(most * outputs, line) + line;
        m_plane = round_up(m_rows * (at_once ? wide : outputs), line) + line;
        const Scratch one(*this, nullptr, nullptr);
        crew = Crew(p, call, parts, one.bytes, one.common_bytes);
    }

    // About as many channels for each task, whole vectors or blocks.
    static int64_t even(int64_t channels, int64_t unit) {
        const int64_t tasks = ceil_div(channels, most_channels);
        return std::min(round_up(channels, L), round_up(ceil_div(channels, tasks), unit));
    }

    struct Scratch {
        std::atomic<int32_t>* spoiled;
        int64_t* offset;  // of a tile, in V
        T *u, *v, *m, *rows, *half, *sums;
        size_t common_bytes, bytes;
        Scratch(const WinogradWeight& job, void* common, void* own) {
            const int64_t pixels = ceil_div(job.columns, job.pieces) * job.w.taps + job.w.m - 1, m = job.products * job.m_plane;
            Arena ours(common), mine(own);
            spoiled = ours.take<std::atomic<int32_t>>(1);
            offset = ours.take<int64_t>(job.most);
            u = ours.take<T>(job.products * job.u_plane);
            v = ours.take<T>(job.products * job.v_plane);
            this->m = (job.at_once ? mine : ours).template take<T>(m);
            rows = mine.take<T>(job.h.size * pixels * L);
            half = mine.take<T>(job.h.size * std::max(pixels, inverse_channels * job.w.m) * L);
            sums = mine.take<T>(kernel_volume(job.p) * inverse_channels * L);
            common_bytes = ours.used(), bytes = mine.used();
        }
    };

    template <class Items>
    void share(int64_t count, const Items& item) const {
        crew.share(count, [&](int64_t part, const auto& each) {
            const Scratch s(*this, crew.common(), crew.own(part));
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) item(i, s);
            });
        });
    }

    // ---- channels of x and dy, of a group

    struct Task {
        int64_t group, c, c_count, k, k_count;
        int64_t blocks() const { return ceil_div(k_count, wide); }
        int64_t width(int64_t block) const { return std::min(wide, round_up(k_count, L) - block * wide); }
    };

    // Whether all sums are finite.
    bool compute() const {
        const Scratch s(*this, crew.common(), nullptr);
        new (s.spoiled) std::atomic<int32_t>(0);
        for (int64_t i = 0; i < most; ++i) s.offset[i] = i * v_step;
        for (int64_t g = 0; g < p.groups; ++g)
            for (int64_t k = 0; k < p.out_channels; k += outputs)
                for (int64_t c = 0; c < p.in_channels; c += inputs)
                    compute({g, c, std::min(inputs, p.in_channels - c), k, std::min(outputs, p.out_channels - k)});
        return !s.spoiled->load();
    }

    void compute(const Task& t) const {
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            const int64_t first = strips * chunk / chunks, end = strips * (chunk + 1) / chunks;
            transform(t, first, end);
            if (!at_once) multiply_all(t, first_tile(end) - first_tile(first), chunk == 0);
        }
        share(t.blocks() * ceil_div(t.c_count, range), [&](int64_t i, const Scratch& s) {
            const int64_t block = i % t.blocks(), width = t.width(block), c = i / t.blocks() * range;
            const int64_t count = std::min(range, t.c_count - c);
            if (!at_once) return write(t, block, c, count, s.m + block * wide * m_rows + c * width, s);
            for (int64_t x = 0; x < products; ++x) {
                clear(s.m + x * m_plane, count * width);
                multiply(x, block, width, c, count, first_tile(strips), s, s.m + x * m_plane);
            }
            write(t, block, c, count, s.m, s);
        });
    }

    void transform(const Task& t, int64_t first, int64_t end) const {
        const int64_t vectors = ceil_div(t.c_count, L), all = vectors + ceil_div(t.k_count, L);
        share((end - first) * all, [&](int64_t i, const Scratch& s) {
            const Strip strip = this->strip(first + i / all, first);
            const int64_t vector = i % all;
            if (vector < vectors) transform_input(t, strip, vector * L, s);
            else transform_gradient(t, strip, (vector - vectors) * L, s);
        });
    }

    void multiply_all(const Task& t, int64_t tiles, bool first) const {
        share(products * t.blocks(), [&](int64_t i, const Scratch& s) {
            const int64_t x = i / t.blocks(), block = i % t.blocks(), width = t.width(block);
            T* m = s.m + x * m_plane + block * wide * m_rows;
            if (first) clear(m, t.c_count * width);
            multiply(x, block, width, 0, t.c_count, tiles, s, m);
        });
    }

    // ---- U and V

    // Tiles that follow each other along w.
    struct Strip {
        int64_t image, depth, h, w;  // the first output
        int64_t tiles, first;        // the first one's place in the chunk
    };
    int64_t first_tile(int64_t i) const { return i / pieces * columns + columns * (i % pieces) / pieces; }
    Strip strip(int64_t i, int64_t first_of_chunk) const {
        const int64_t row = i / pieces, slice = row / rows, tile = first_tile(i);
        return {slice / p.output[0], slice % p.output[0], row % rows * h.taps, (tile - row * columns) * w.taps,
                first_tile(i + 1) - tile, tile - first_tile(first_of_chunk)};
    }

    // A vector of input channels: zeros where no output needs the input.
    void transform_input(const Task& t, const Strip& of, int64_t c, const Scratch& s) const {
        const View& view = call.input;
        const int64_t pixels = of.tiles * w.taps + w.m - 1, step = pixels * L, count = std::min(L, t.c_count - c);
        const int64_t d = source(p, 0, of.depth * p.stride[0] - p.pad_lo[0]);
        const Strand strand(p, of.w - p.pad_lo[2], 1, std::min(pixels, p.output[2] + w.m - 1 - of.w));
        const T* channel = at<T>(view, of.image, t.group * p.in_channels + t.c + c);
        if (count < L) clear(s.rows, h.size * step);
        for (int64_t i = 0; i < h.size; ++i) {
            const int64_t row = of.h + i < p.output[1] + h.m - 1 ? source(p, 1, of.h + i - p.pad_lo[1]) : -1;
            T* out = s.rows + i * step;
            if (d < 0 || row < 0) clear(out, step);
            else fill_strand(p, view, strand, channel + d * view.space[0] + row * view.space[1], count, pixels, out);
        }
        h.input(s.rows, step, L, s.half, step, L, pixels);
        T* v = s.v + of.first * v_step + c;
        for (int64_t i = 0; i < h.size; ++i)
            w.input(s.half + i * step, L, w.taps * L, v + i * w.size * v_plane, v_plane, v_step, of.tiles);
    }

    // A vector of output channels: zeros beyond the outputs.
    void transform_gradient(const Task& t, const Strip& of, int64_t k, const Scratch& s) const {
        const View& view = call.gradient;
        const int64_t pixels = of.tiles * w.taps, step = pixels * L, count = std::min(L, t.k_count - k);
        const int64_t valid = std::min(pixels, p.output[2] - of.w), width = t.width(k / wide);
        const T* from = at<T>(view, of.image, t.group * p.out_channels + t.k + k);
        from += of.depth * view.space[0] + of.h * view.space[1] + of.w * view.space[2];
        if (count < L) clear(s.rows, h.taps * step);
        for (int64_t i = 0; i < h.taps; ++i) {
            const int64_t inside = of.h + i < p.output[1] ? valid : 0;
            fill_channels(from + i * view.space[1], view.channel, view.space[2], count, inside, s.rows + i * step, L);
            clear(s.rows + i * step + inside * L, (pixels - inside) * L);
        }
        h.weights(s.rows, step, L, s.half, step, L, pixels, false);
        T* u = s.u + k / wide * wide * most + of.first * width + k % wide;
        for (int64_t i = 0; i < h.size; ++i)
            w.weights(s.half + i * step, L, w.taps * L, u + i * w.size * u_plane, u_plane, width, of.tiles, false);
    }

    // ---- M

    // m[c][width] += V^T U of a product, `count` input channels from the task's `first` on. Some tiles at a time are summed
    // from 0 and then added: a sum's errors grow with its length.
    void multiply(int64_t x, int64_t block, int64_t width, int64_t first, int64_t count, int64_t tiles, const Scratch& s,
                  T* m) const {
        const T *u = s.u + x * u_plane + block * wide * most, *v = s.v + x * v_plane + first;
        const int64_t groups = ceil_div(count, max_MR), pieces = ceil_div(tiles, summed_tiles);
        for (int64_t g = 0; g < groups; ++g) {
            const int64_t begin = count * g / groups, end = count * (g + 1) / groups;
            Ahead ahead;
            if (!at_once) ahead.add(m + end * width, (end - begin) * width * int64_t(sizeof(T)), 1, 0);
            ahead.begin();
            for (int64_t i = 0; i < pieces; ++i) {
                const int64_t from = tiles * i / pieces, n = tiles * (i + 1) / pieces - from;
                const auto tile = outer_tile<T, true>(end - begin, width);
                tile(v + begin + s.offset[from], {s.offset, n}, u + from * width, m + begin * width, ahead);
            }
        }
    }

    // ---- and out

    // The gradient of a block of output channels and `count` input channels from the task's c on.
    void write(const Task& t, int64_t block, int64_t c, int64_t count, const T* m, const Scratch& s) const {
        const int64_t width = t.width(block), volume = kernel_volume(p), oc = t.k + block * wide;
        const WeightRows<T> to(p, call.output);
        for (int64_t i = 0; i < count; i += inverse_channels)
            for (int64_t v = 0; v < width; v += L) {
                const int64_t n = std::min(inverse_channels, count - i), step = n * L;
                for (int64_t a = 0; a < h.size; ++a)
                    w.output(m + a * w.size * m_plane + i * width + v, m_plane, width, s.half + a * w.m * step, step, L, n);
                for (int64_t b = 0; b < w.m; ++b)
                    h.output(s.half + b * step, w.m * step, L, s.sums + b * L, w.m * L, volume * L, n);
                Vec<T> zero{};
                for (int64_t k = 0; k < n * volume; ++k) zero += load(s.sums + k * L) * T(0);
                if (!all_zeros<T>(zero)) s.spoiled->store(1, std::memory_order_relaxed);
                const int64_t first = t.c + c + i;
                const int64_t channels = std::min(L, t.k + t.k_count - oc - v);
                to.write(t.group * p.out_channels + oc + v, channels, first * volume, (first + n) * volume,
                         [&](int64_t k) { return s.sums + (k - first * volume) * L; });
            }
    }
};

template <class T>
struct WinogradWeightAlgorithm : Defaults {
    static const char* refuses(const Problem& p) {
        if (p.direction != Direction::backward_weight) return "computes the gradient of the weight only";
        if (p.kernel[0] > 1 || (p.kernel[1] == 1 && p.kernel[2] == 1))
            return "transforms kernels of several taps along the last two axes only";
        for (int a = 1; a < max_axes; ++a)
            if (p.stride[a] > 1 || (p.dilation[a] > 1 && p.kernel[a] > 1)) return "transforms no stride and no dilation";
        const bool chosen = Axis<T>::exists(p.kernel[1], p.tile[1]) && Axis<T>::exists(p.kernel[2], p.tile[2]);
        return chosen ? nullptr : "no tile was chosen";
    }
    static size_t packed_bytes(const Problem&) { return 0; }
    static size_t workspace_bytes(const Problem& p, int threads) {
        return std::max(WinogradWeight<T>(p, Call{}, threads).crew.bytes(), outer_algorithm().workspace_bytes(p, threads));
    }
    static void run(const Problem& p, const Call& call) {
        if (WinogradWeight<T>(p, call, call.threads).compute()) return;
        allow(call.workspace, workspace_bytes(p, call.threads));  // no fences between other pieces
        outer_algorithm().run(p, call);
    }
};

}  // namespace

const Algorithm& winograd_weight_algorithm() {
    static const Algorithm algorithm =
        algorithm_of<WinogradWeightAlgorithm<float>, WinogradWeightAlgorithm<double>>("winograd_weight");
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
