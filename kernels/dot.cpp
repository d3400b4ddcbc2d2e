// dot: scalar products with the weights read where they lie.
//
//   out[pixel][oc] = bias[oc] + sum over k of x[pixel][k] * w[oc][k]
//
// The weights (out channels, K) are C-contiguous, so both operands lie along k: vectors run over k, and the lanes of a sum are
// added up at the end. Nothing is packed: where pixels are few, that takes longer than all the rest.
// Tile: MR output channels x NR pixels of sums in registers (AVX2 4 x 3, AVX-512 4 x 6). k in blocks of up to 3 KB, so that the rows of
// a tile stay in L1 while all pixels of a block pass by; the inputs of a block of pixels and of k are gathered to [pixel][k], padding
// included, unless they lie side by side as they are; of a single tile of pixels, whose weights are read once, all k at once. What an
// output sums, and in which order, depends on K alone.
// Bottleneck: memory, where the weights come from there for a few pixels; else FMA, with MR + NR loads for MR NR of them.
#include "crew.hpp"
#include "finish.hpp"
#include "slab.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int max_MR = 4, max_NR = 6;
#else
constexpr int max_MR = 4, max_NR = 3;
#endif
constexpr int64_t k_bytes = 3 << 10;          // of a row of weights and of a pixel, in a block of k
constexpr int64_t block_pixels = 64;          // whose inputs of a block of k stay in L2
constexpr int64_t block_offsets = 32 << 10;   // where those come from: fewer pixels of large kernels
constexpr int64_t far_bytes = 512 << 10;      // more than stay in L2
constexpr int64_t chunk_rows = 256;           // output channels for which inputs are gathered once, at most

// ---- micro-kernel: sums[row][pixel] += sum over k of x[pixel][k] * w[row][k]

// Lane i: the sum of all lanes of row[i]. log2(lanes) rounds that add the halves of each block, two rows to a vector.
template <class T, int N, int H = lanes<T> / 2>
FASTCONV_INLINE Vec<T> add_lanes(Vec<T> (&row)[N]) {
    using Lanes = std::make_index_sequence<size_t(lanes<T>)>;
#pragma GCC unroll 16
    for (int i = 0; i < (N < H ? N : H); ++i) {
        const Vec<T> a = row[i], b = row[i + H < N ? i + H : i];
        row[i] = exchange<T, H, false>(a, b, Lanes{}) + exchange<T, H, true>(a, b, Lanes{});
    }
    if constexpr (H > 1) return add_lanes<T, N, H / 2>(row);
    else return row[0];
}

// All: ask for MR vectors with each vector of k, from memory to L2; else for one, from L2.
template <class T, int MR, int NR, bool All>
struct DotTile {
    static constexpr int L = lanes<T>;

    // w: rows `step` apart; x: the pixels' inputs; sums: [row][pixel]; ahead: weights that are wanted next.
    FASTCONV_NOINLINE static void run(const T* w, int64_t step, const T* const* x, int64_t count, T* sums, const T* ahead) {
        constexpr int line = 64 / int(sizeof(T));
        Vec<T> sum[MR * NR] = {};
        const T* pixel[NR];
#pragma GCC unroll 8
        for (int i = 0; i < NR; ++i) pixel[i] = x[i];
        int64_t k = 0;
        for (; k + L <= count; k += L) {
            if constexpr (All) {
#pragma GCC unroll 8
                for (int i = 0; i < MR * L; i += line) __builtin_prefetch(ahead + k * MR + i, 0, 2);
            } else {
                __builtin_prefetch(ahead + k);
            }
            add(sum, [&](int r) __attribute__((always_inline)) { return load(w + r * step + k); },
                [&](int i) __attribute__((always_inline)) { return load(pixel[i] + k); });
        }
        if (const int64_t rest = count - k)
            add(sum, [&](int r) __attribute__((always_inline)) { return load_first(w + r * step + k, rest); },
                [&](int i) __attribute__((always_inline)) { return load_first(pixel[i] + k, rest); });
        put<0>(sum, sums);
    }

   private:
    template <class Row, class Pixel>
    static FASTCONV_INLINE void add(Vec<T> (&sum)[MR * NR], Row row, Pixel pixel) {
        Vec<T> value[NR];
#pragma GCC unroll 8
        for (int i = 0; i < NR; ++i) value[i] = pixel(i);
#pragma GCC unroll 8
        for (int r = 0; r < MR; ++r) {
            const Vec<T> weight = row(r);
#pragma GCC unroll 8
            for (int i = 0; i < NR; ++i) sum[r * NR + i] += weight * value[i];
        }
    }

    template <int First>
    static FASTCONV_INLINE void put(const Vec<T> (&sum)[MR * NR], T* sums) {
        if constexpr (First < MR * NR) {
            constexpr int n = MR * NR - First < L ? MR * NR - First : L;
            Vec<T> some[n];
#pragma GCC unroll 16
            for (int i = 0; i < n; ++i) some[i] = sum[First + i];
            store(sums + First, load(sums + First) + add_lanes<T>(some));
            put<First + L>(sum, sums);
        }
    }
};

template <class T>
using RunTile = decltype(&DotTile<T, 1, 1, false>::run);

template <class T, bool All, int... I>
constexpr RunTile<T> tile_at(int64_t rows, int64_t pixels, std::integer_sequence<int, I...>) {
    constexpr RunTile<T> table[] = {DotTile<T, I / max_NR + 1, I % max_NR + 1, All>::run...};
    return table[(rows - 1) * max_NR + pixels - 1];
}
template <class T, bool All>
RunTile<T> tile_at(int64_t rows, int64_t pixels) {
    return tile_at<T, All>(rows, pixels, std::make_integer_sequence<int, max_MR * max_NR>{});
}

// ---- one call

struct Run {  // pixels that follow each other along w: the first of the block, how many, and where the arrays have it
    int64_t first, count, output, residual;
};

struct Part {  // i-th of `count` parts, which are equal but for one, the larger ones first
    int64_t first, size;
    Part(int64_t total, int64_t count, int64_t i)
        : first(total / count * i + std::min(i, total % count)), size(total / count + (i < total % count)) {}
};

template <class T>
struct Dot {
    static constexpr int L = lanes<T>;
    static constexpr int64_t tile_sums = (max_MR * max_NR + L - 1) / L * L;
    Problem p;
    Call call;
    bool dense, raw;  // the inputs of a pixel lie side by side; and are read where they lie
    bool few, far;    // pixels of a block, all k of which are gathered at once; weights beyond L2
    int64_t volume, k, kc, pitch;  // kc: of a block; pitch: from a pixel to the next
    int64_t pixels, block, blocks;         // of all images; of a block; how many
    int64_t chunk, chunks, width, parts;   // output channels of an item; from the sums of a pixel to those of the next

    Dot(const Problem& problem, const Call& c, int threads, bool side_by_side)
        : p(problem), call(c), dense(side_by_side), volume(kernel_volume(p)), k(k_of(p)) {
        constexpr int64_t most = k_bytes / int64_t(sizeof(T)), line = 64 / int64_t(sizeof(T));
        kc = round_up(ceil_div(k, ceil_div(k, most)), L);
        pixels = p.batch * p.output[0] * p.output[1] * p.output[2];
        blocks = ceil_div(pixels, std::min(block_pixels, std::max<int64_t>(1, block_offsets / volume)));
        block = ceil_div(pixels, blocks);
        few = block <= max_NR && (dense || block * k <= far_bytes / int64_t(sizeof(T)));
        pitch = (ceil_div(few ? k : kc, line) | 1) * line;
        // Of many pixels the inputs may lie in the same sets of L1, which weighs where many output channels read them.
        raw = dense && (few || p.out_channels <= chunk_rows / 4);
        const double work = double(p.groups * p.out_channels) * double(k), bytes = work * sizeof(T);
        far = bytes > double(far_bytes);
        parts = threads_for(std::max(bytes, work * double(pixels)), worth_a_thread::dot, threads);
        // Where inputs are gathered, each chunk does it again; small ones let threads help each other.
        const int64_t rows = raw || block == 1 ? chunk_rows / 4 : chunk_rows;
        chunks = std::max(ceil_div(p.out_channels, rows), std::min(ceil_div(parts, p.groups * blocks), ceil_div(p.out_channels, max_MR)));
        chunk = ceil_div(p.out_channels, chunks);
        width = round_up(chunk, L);
        parts = std::min(parts, items());
    }

    int64_t items() const { return p.groups * chunks * blocks; }

    // Whether all inputs of a pixel lie side by side in the order of the weights.
    static bool is_dense(const Problem& p, const View& x) {
        int64_t follows = 1;
        for (int a = max_axes - 1; a >= 0; --a) {
            if (p.kernel[a] != 1 && p.dilation[a] * x.space[a] != follows) return false;
            follows *= p.kernel[a];
        }
        return !is_padded(p) && (p.in_channels == 1 || x.channel == follows);
    }

    struct Scratch {
        int64_t* source;  // [pixel of the block][tap]: of the first channel in the input, or nowhere
        const T** x;      // the pixels' inputs of a block of k
        T *panel, *sums;  // [pixel][k]; [tile of rows][tile of pixels][row][pixel]
        T* outputs;       // [pixel][output channel]
        Run* runs;
        int64_t count = 0, run_count = 0;  // pixels, runs of this block
        bool adjacent = false;             // each pixel is one input per channel, and these lie side by side
        size_t bytes;
        Scratch(const Dot& j, void* base) {
            Arena arena(base);
            source = arena.take<int64_t>(j.block * j.volume);
            x = arena.take<const T*>(j.block);
            panel = arena.take<T>(j.raw ? 0 : j.block * j.pitch);
            sums = arena.take<T>(ceil_div(j.chunk, max_MR) * ceil_div(j.block, max_NR) * tile_sums);
            outputs = arena.take<T>(j.block * j.width);
            runs = arena.take<Run>(j.block);
            bytes = arena.used();
        }
    };

    // Where a block of pixels reads and writes.
    void list(int64_t index, Scratch& s) const {
        const View &y = call.output, &r = call.residual;
        const Part part(pixels, blocks, index);
        s.count = part.size, s.run_count = 0, s.adjacent = volume == 1;
        int64_t image = part.first, at[max_axes];
        for (int a = max_axes - 1; a >= 0; --a) at[a] = image % p.output[a], image /= p.output[a];
        for (int64_t i = 0; i < s.count; ++i) {
            list_taps(image, at, s.source + i * volume);
            s.adjacent = s.adjacent && s.source[i] != nowhere && s.source[i] == s.source[0] + i;
            const Run run{i, 1, offset(y, image, at), offset(r, image, at)};
            Run* last = s.runs + s.run_count - 1;
            const bool follows = s.run_count && last->output + last->count * y.space[2] == run.output &&
                                 (!r.data || last->residual + last->count * r.space[2] == run.residual);
            if (follows) ++last->count;
            else s.runs[s.run_count++] = run;
            for (int a = max_axes - 1; a >= 0 && ++at[a] == p.output[a]; --a) at[a] = 0, image += a == 0;
        }
    }

    static int64_t offset(const View& v, int64_t image, const int64_t* at) {
        return image * v.batch + at[0] * v.space[0] + at[1] * v.space[1] + at[2] * v.space[2];
    }

    void list_taps(int64_t image, const int64_t* at, int64_t* to) const {
        const auto from = [&](int a, int64_t tap) { return source(p, a, at[a] * p.stride[a] - p.pad_lo[a] + tap * p.dilation[a]); };
        const View& x = call.input;
        for (int64_t kd = 0; kd < p.kernel[0]; ++kd) {
            const int64_t d = from(0, kd);
            for (int64_t kh = 0; kh < p.kernel[1]; ++kh) {
                const int64_t h = from(1, kh);
                for (int64_t kw = 0; kw < p.kernel[2]; ++kw) {
                    const int64_t w = from(2, kw), place[max_axes] = {d, h, w};
                    *to++ = d < 0 || h < 0 || w < 0 ? nowhere : offset(x, image, place);
                }
            }
        }
    }

    // ---- the inputs of k = first .. first + count, for all pixels of a block: x[pixel][k]

    void gather(int64_t group, int64_t first, int64_t count, const Scratch& s) const {
        const T* input = at<const T>(call.input, 0, group * p.in_channels);
        for (int64_t i = 0; i < s.count; ++i) s.x[i] = raw ? input + s.source[i * volume] + first : s.panel + i * pitch;
        if (raw) return;
        const int64_t channel = call.input.channel;
        if (s.adjacent) return fill_channels(input + s.source[0] + first * channel, channel, 1, count, s.count, s.panel, pitch);
        if (dense)
            for (int64_t i = 0; i < s.count; ++i) copy(s.panel + i * pitch, input + s.source[i * volume] + first, count);
        else
            for (int64_t i = 0; i < s.count; ++i) gather_pixel(input, s.source + i * volume, first, count, s.panel + i * pitch);
    }

    // Whole channels that lie side by side are transposed, lanes of them at a time, if they have no more taps; all else comes one by one.
    void gather_pixel(const T* input, const int64_t* source, int64_t first, int64_t count, T* out) const {
        const int64_t head = std::min(count, (volume - first % volume) % volume), block = lanes<T> * volume;
        if (call.input.channel != 1 || volume > lanes<T>) return gather_one_by_one(input, source, first, count, out);
        gather_one_by_one(input, source, first, head, out);
        int64_t done = head;
        for (; done + block <= count; done += block) gather_channels(input + (first + done) / volume, source, out + done);
        gather_one_by_one(input, source, first + done, count - done, out + done);
    }
    // out[channel][tap]: whole vectors, which reach into what is written after them.
    FASTCONV_NOINLINE void gather_channels(const T* x, const int64_t* source, T* out) const {
        Vec<T> row[lanes<T>] = {};
        for (int64_t t = 0; t < volume; ++t)
            if (source[t] != nowhere) row[t] = load(x + source[t]);
        transpose<T>(row);
        const T* const end = out + lanes<T> * volume;  // the last rows reach beyond it
        for (int c = 0; c < lanes<T>; ++c, out += volume) {
            if (out + lanes<T> <= end) store(out, row[c]);
            else store_first(out, row[c], end - out);
        }
    }
    FASTCONV_NOINLINE void gather_one_by_one(const T* input, const int64_t* source, int64_t first, int64_t count, T* out) const {
        const int64_t channel = call.input.channel;
        const T* const end = out + count;
        const T* x = input + first / volume * channel;
        bool inside = true;
        for (int64_t t = 0; t < volume; ++t) inside = inside && source[t] != nowhere;
        for (int64_t begin = first % volume; out < end; begin = 0, x += channel) {
            const int64_t n = std::min<int64_t>(volume - begin, end - out);
            const int64_t* from = source + begin;
            for (int64_t t = 0; t < n; ++t) {
                out[t] = inside || from[t] != nowhere ? x[from[t]] : T(0);
                asm("");  // one by one: vectors of addresses are slower
            }
            out += n;
        }
    }

    // ---- some output channels of a block of pixels

    void compute(int64_t item, const Scratch& s) const {
        const int64_t group = item / blocks / chunks;
        const Part rows(p.out_channels, chunks, item / blocks % chunks);
        const int64_t channel = group * p.out_channels + rows.first;
        const T* w = static_cast<const T*>(call.packed) + channel * k;
        const T* bias = call.bias ? static_cast<const T*>(call.bias) + channel : nullptr;
        const int64_t tiles = ceil_div(rows.size, max_MR) * ceil_div(s.count, max_NR);
        clear(s.sums, tiles * tile_sums);
        if (few) multiply_few(w, rows.size, p.groups * p.out_channels - channel, group, s);
        else
            for (int64_t first = 0; first < k; first += kc) {
                const int64_t count = std::min(kc, k - first);
                gather(group, first, count, s);
                multiply(w + first, rows.size, count, s);
            }
        settle(rows.size, bias, s);
        const Finish<T> put(p, call);
        for (int64_t i = 0; i < s.run_count; ++i) {
            const Run& run = s.runs[i];
            const T* r = call.residual.data ? at<const T>(call.residual, 0, channel) + run.residual : nullptr;
            put(s.outputs + run.first * width, width, rows.size, run.count, at<T>(call.output, 0, channel) + run.output, r);
        }
    }

    // body(rows, pixels, their sums) for every tile, one of rows after another
    template <class Body>
    void for_tiles(int64_t rows, const Scratch& s, Body body) const {
        const int64_t row_tiles = ceil_div(rows, max_MR), pixel_tiles = ceil_div(s.count, max_NR);
        T* sums = s.sums;
        for (int64_t i = 0; i < row_tiles; ++i)
            for (int64_t j = 0; j < pixel_tiles; ++j, sums += tile_sums) body(Part(rows, row_tiles, i), Part(s.count, pixel_tiles, j), sums, j);
    }

    void multiply(const T* w, int64_t rows, int64_t count, const Scratch& s) const {
        for_tiles(rows, s, [&](Part row, Part pixel, T* sums, int64_t j) {
            const T* ahead = w + std::min(row.first + row.size + std::min<int64_t>(j, max_MR - 1), rows - 1) * k;
            tile_at<T, false>(row.size, pixel.size)(w + row.first * k, k, s.x + pixel.first, count, sums, ahead);
        });
    }

    // One tile of pixels, whose time is that of reading the weights: all k of a tile's rows, while the next ones are asked for in the
    // order of memory. Rows by turns, as a tile reads them, come at two thirds of its speed. there: rows from w on, those of other
    // items among them, which come next.
    void multiply_few(const T* w, int64_t rows, int64_t there, int64_t group, const Scratch& s) const {
        gather(group, 0, k, s);
        for_tiles(rows, s, [&](Part row, Part pixel, T* sums, int64_t) {
            const auto tile = far ? tile_at<T, true>(row.size, pixel.size) : tile_at<T, false>(row.size, pixel.size);
            const T* x[max_NR];
            for (int64_t i = 0; i < pixel.size; ++i) x[i] = s.x[i];
            const T* ahead = w + std::min(row.first + row.size, there - row.size) * k;
            for (int64_t first = 0; first < k; first += kc) {
                const int64_t count = std::min(kc, k - first);
                tile(w + row.first * k + first, k, x, count, sums, ahead + (far ? row.size : 1) * first);
                for (int64_t i = 0; i < pixel.size; ++i) x[i] += count;
            }
        });
    }

    void settle(int64_t rows, const T* bias, const Scratch& s) const {
        for_tiles(rows, s, [&](Part row, Part pixel, const T* sums, int64_t) {
            for (int64_t r = row.first; r < row.first + row.size; ++r)
                for (int64_t i = pixel.first; i < pixel.first + pixel.size; ++i)
                    s.outputs[i * width + r] = *sums++ + (bias ? bias[r] : T(0));
        });
    }
};

template <class T>
struct DotAlgorithm : Defaults {
    using Scratch = typename Dot<T>::Scratch;
    static Crew crew(const Dot<T>& job) { return {job.p, job.call, job.parts, Scratch(job, nullptr).bytes}; }

    static const char* refuses(const Problem& p) {
        return p.strict ? "accuracy='strict' gives the same bits with weights packed beforehand, whose sums run in another order" : nullptr;
    }
    static size_t packed_bytes(const Problem& p) { return plain_bytes(p); }
    static size_t workspace_bytes(const Problem& p, int threads) {  // depends on the strides of a call
        return std::max(crew(Dot<T>(p, Call{}, threads, false)).bytes(), crew(Dot<T>(p, Call{}, threads, true)).bytes());
    }
    static void run(const Problem& p, const Call& call) {
        const Dot<T> job(p, call, call.threads, Dot<T>::is_dense(p, call.input));
        const Crew crew = DotAlgorithm::crew(job);
        crew.share(job.items(), [&](int64_t part, const auto& each) {
            Scratch scratch(job, crew.own(part));
            int64_t listed = -1;
            each([&](int64_t begin, int64_t end) {
                for (int64_t item = begin; item < end; ++item) {
                    if (item % job.blocks != listed) job.list(listed = item % job.blocks, scratch);
                    job.compute(item, scratch);
                }
            });
        });
    }
};

}  // namespace

const Algorithm& dot_algorithm() {
    static const Algorithm algorithm = algorithm_of<DotAlgorithm<float>, DotAlgorithm<double>>("dot");
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
