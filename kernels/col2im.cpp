// col2im: the gradient of the input as columns that are summed into the image (Chellapilla et al. 2006), with the weights where they lie.
//
//   column[pixel][c, t] = sum over oc of dy[oc][pixel] * w[oc][c, t]
//   dx[c][pixel * stride + t * dilation - pad] += column[pixel][c, t]
//
// The weights of one output channel lie side by side, (c, t) after (c, t): just what a vector wants, so that nothing is packed. That
// counts where weights are many and pixels few: the decoders of generators, the last layers of a classifier.
// Tile: MR pixels x NR vectors of columns in registers while all oc pass by. Per oc it loads NR vectors of w and MR broadcasts of dy for
// MR * NR FMAs. Weights that several tiles read are copied to a panel [oc][NR vectors] first: rows of w are a power of two apart as often
// as not. A tile is then added to the planes of its channels, which have the padding around them; last they become the output.
// A task is a block of channels of one image, or of several if they are small; of these, if they are very small, pairs of pixels and taps
// in the padding are left out (add_pairs). An output is summed in the order of (chunk of pixels, panel,
// pixel, tap), which follows from one image of the problem alone.
// Bottleneck: FMA, or the memory that the weights come from; with few oc the additions to the planes, two cycles for each column.
#include "col2im_tile.hpp"
#include "epilogue.hpp"
#include "pack.hpp"
#include "window.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

constexpr int64_t most_pixels = 448, least_pixels = 84;  // of a chunk
constexpr int64_t gradient_bytes = 256 << 10;    // of its gradient
constexpr int64_t enough_pixels = 224;        // of a task; images that have fewer share one
constexpr int64_t task_channels = 64;         // of a task
constexpr int64_t enough_blocks = 8;          // of channels, for threads to share
constexpr int64_t planes_bytes = 384 << 10;   // of a task
constexpr int64_t most_pairs = 256, least_images = 4;  // of pixels and taps; of a task that computes only pairs inside the image
constexpr double worth_pairs = max_MR > 8 ? 0.75 : 0.5;  // the products that are left, lanes without a channel counted: order has a price
constexpr int64_t pair_k = 128;               // oc whose weights are put in order together: they stay in L2

template <class T>
struct Col2im {
    static constexpr int64_t L = lanes<T>;
    Problem p;
    Call call;
    bool last;      // the channels of a pixel of the result lie side by side
    int64_t volume, k, pixels;
    int64_t images, wide;           // images of a task; columns of a panel
    int64_t channels, blocks;       // of a task; of a group
    int64_t extents[max_axes], plane;  // of the padded result
    int64_t chunk;                  // pixels: whole images, or a part of one
    int64_t parts;
    bool pairs;                     // pixels and taps whose input is in the padding are left out, where images are several

    Col2im(const Problem& of, const Call& call_, int threads)
        : p(of), call(call_), last(call.output.channel == 1 && p.in_channels > 1), volume(kernel_volume(p)),
          k(p.out_channels), pixels(p.output[0] * p.output[1] * p.output[2]),
          plane(1) {
        for (int a = 0; a < max_axes; ++a) {
            extents[a] = std::max(extent(p, a, p.output[a]), p.pad_lo[a] + p.input[a]);
            plane *= extents[a];
        }
        channels = channels_of_task();
        blocks = ceil_div(p.in_channels, channels);
        const int64_t most = std::max(least_pixels, std::min(most_pixels, gradient_bytes / (k * int64_t(sizeof(T)))));
        const int64_t fit = planes_bytes / (channels * plane * int64_t(sizeof(T)));
        images = std::max<int64_t>(1, std::min({p.batch, std::min(most, enough_pixels) / pixels, fit}));
        chunk = images > 1 ? images * pixels : std::min(pixels, most);
        wide = chunk == 1 ? few_NR * L : 2 * L;
        const double computed = inside() * double(round_up(channels, 2 * L)) / double(channels);
        pairs = L >= 8 && images >= least_images && volume > 1 && pixels * volume <= most_pairs && computed <= worth_pairs;
        parts = std::min(threads_for(multiply_adds(p), worth_a_thread::gemm, threads), items());
    }

    // Where a tap of an output is, along an axis, if that is inside the image.
    bool reaches(int a, int64_t output, int64_t tap) const {
        const int64_t at = output * p.stride[a] + tap * p.dilation[a] - p.pad_lo[a];
        return at >= 0 && at < p.input[a];
    }
    double inside() const {  // the share of such pairs
        double share = 1;
        for (int a = 0; a < max_axes; ++a) {
            int64_t count = 0;
            for (int64_t i = 0; i < p.output[a] * p.kernel[a]; ++i) count += reaches(a, i / p.kernel[a], i % p.kernel[a]);
            share *= double(count) / double(p.output[a] * p.kernel[a]);
        }
        return share;
    }

    // Of one image's problem. As many as fill whole panels best, blocks enough, planes that stay in L2.
    int64_t channels_of_task() const {
        const int64_t fit = std::max<int64_t>(1, planes_bytes / (plane * int64_t(sizeof(T))));
        const int64_t most = std::min({task_channels, fit, ceil_div(p.in_channels, std::min(p.in_channels, enough_blocks))});
        int64_t best = 1, least = INT64_MAX;
        for (int64_t c = 1; c <= most; ++c) {
            const int64_t computed = ceil_div(p.in_channels, c) * round_up(c * volume, L);
            if (computed <= least) best = c, least = computed;
        }
        return best;
    }

    int64_t most_tiles() const { return chunk / max_MR + (pixels < max_MR ? 1 : images); }
    int64_t panel_of_x() const {  // an odd number of lines, so that tiles do not share sets of L1
        constexpr int64_t line = 64 / int64_t(sizeof(T));
        return (ceil_div(k * pitch<T>, line) | 1) * line;
    }
    // The smaller operand of a task changes from one to the next.
    bool images_first() const { return images * pixels <= channels * volume; }
    static int64_t image_tiles(int64_t count) { return ceil_div(count, int64_t(max_MR)); }
    int64_t image_groups() const { return ceil_div(p.batch, images); }
    int64_t items() const { return p.groups * blocks * image_groups(); }

    struct Scratch {
        T *planes, *panel, *tile, *x;
        int64_t *column, *pixel, *source;  // offsets: of a column and of a pixel in the planes, of a pixel in the gradient
        T *taps, *sums;                    // of pairs: weights [tap][oc][2 vectors]; [pair][image][2 vectors]
        int32_t* pair;                     // [pixel][tap]: its number, or -1
        size_t bytes;
        Scratch(const Col2im& j, void* base) {
            Arena arena(base);
            planes = arena.take<T>(j.images * j.channels * j.plane);
            panel = arena.take<T>(j.k * j.wide);
            tile = arena.take<T>(max_MR * j.wide);
            x = arena.take<T>(std::max(j.most_tiles(), j.pairs ? j.pixels * j.image_tiles(j.images) : 0) * j.panel_of_x());
            taps = arena.take<T>(j.pairs ? j.volume * pair_k * 2 * L : 0);
            sums = arena.take<T>(j.pairs ? j.pixels * j.volume * j.images * 2 * L : 0);
            pair = arena.take<int32_t>(j.pairs ? j.pixels * j.volume : 0);
            column = arena.take<int64_t>(j.channels * j.volume);
            pixel = arena.take<int64_t>(j.images * j.pixels);
            source = arena.take<int64_t>(j.images * j.pixels);
            bytes = arena.used();
        }
    };

    // Elements of the planes: [image][channel][d, h, w], or [image][d, h, w][channel]; that is how they are written out.
    int64_t channel_step() const { return last ? 1 : plane; }
    int64_t place(int64_t d, int64_t h, int64_t w) const { return ((d * extents[1] + h) * extents[2] + w) * (last ? channels : 1); }

    void list(const Scratch& s) const {
        int64_t i = 0;
        for (int64_t image = 0; image < images; ++image)
            for (int64_t d = 0; d < p.output[0]; ++d)
                for (int64_t h = 0; h < p.output[1]; ++h)
                    for (int64_t w = 0; w < p.output[2]; ++w, ++i) {
                        s.pixel[i] = image * channels * plane + place(d * p.stride[0], h * p.stride[1], w * p.stride[2]);
                        const View& y = call.gradient;
                        s.source[i] = image * y.batch + d * y.space[0] + h * y.space[1] + w * y.space[2];
                    }
        i = 0;
        for (int64_t c = 0; c < channels; ++c)
            for (int64_t d = 0; d < p.kernel[0]; ++d)
                for (int64_t h = 0; h < p.kernel[1]; ++h)
                    for (int64_t w = 0; w < p.kernel[2]; ++w)
                        s.column[i++] = c * channel_step() + place(d * p.dilation[0], h * p.dilation[1], w * p.dilation[2]);
        if (pairs) list_pairs(s);
    }
    void list_pairs(const Scratch& s) const {
        int32_t next = 0;
        for (int64_t i = 0; i < pixels * volume; ++i) {
            int64_t pixel = i / volume, tap = i % volume;
            bool is = true;
            for (int a = max_axes - 1; a >= 0; pixel /= p.output[a], tap /= p.kernel[a--])
                is = is && reaches(a, pixel % p.output[a], tap % p.kernel[a]);
            s.pair[i] = is ? next++ : -1;
        }
    }

    // ---- a task

    void compute(int64_t item, const Scratch& s) const {
        const int64_t all = p.groups * blocks, image = images * (images_first() ? item % image_groups() : item / all);
        const int64_t block = images_first() ? item / image_groups() : item % all;
        const int64_t group = block / blocks, first = block % blocks * channels;
        const int64_t count = std::min(images, p.batch - image), width = std::min(channels, p.in_channels - first);
        const T* dy = at<T>(call.gradient, image, group * k);
        const T* w = static_cast<const T*>(call.packed) + (group * k * p.in_channels + first) * volume;
        clear(s.planes, count * channels * plane);
        if (pairs && count >= least_images) add_pairs(dy, w, width, count, s);
        else for (int64_t begin = 0, end = count * pixels; begin < end; begin += chunk) {
            if (call.interrupt.asked && call.interrupt.asked(call.interrupt.whose)) return;
            add_chunk(dy, w, width * volume, begin, std::min(chunk, end - begin), s);
        }
        for (int64_t i = 0; i < count; ++i) write(image + i, group * p.in_channels + first, width, s.planes + i * channels * plane);
    }

    // Pixels first[t] up to first[t + 1] of a chunk: as few tiles of an image as possible, equal but for a pixel, or, of images with
    // fewer pixels than a tile, of all. raw: they are read where they lie, one after another.
    struct Tiles {
        int64_t count = 0, first[2 * (most_pixels / max_MR + 1)];
        bool raw[2 * (most_pixels / max_MR + 1)];
        Tiles(const int64_t* source, int64_t all, int64_t pixels) {
            for (int64_t begin = 0, end; begin < all; begin = end) {
                end = pixels < max_MR ? all : std::min(all, begin + pixels);
                for (int64_t i = 0, n = ceil_div(end - begin, max_MR); i < n; ++i) first[count++] = begin + (end - begin) * i / n;
            }
            first[count] = all;
            for (int64_t t = 0; t < count; ++t) {
                raw[t] = true;
                for (int64_t i = first[t] + 1; i < first[t + 1]; ++i) raw[t] = raw[t] && source[i] == source[i - 1] + 1;
            }
        }
        int64_t rows(int64_t t) const { return first[t + 1] - first[t]; }
    };

    void add_chunk(const T* dy, const T* w, int64_t columns, int64_t begin, int64_t count, const Scratch& s) const {
        const int64_t *source = s.source + begin, *pixel = s.pixel + begin, step = p.in_channels * volume;
        const Tiles tiles(source, count, pixels);
        for (int64_t t = 0; t < tiles.count; ++t)
            if (!tiles.raw[t]) fill(dy, source + tiles.first[t], tiles.rows(t), s.x + t * panel_of_x());
        for (int64_t j = 0; j < columns; j += wide) {
            const int64_t n = std::min(wide, columns - j), width = n <= L ? L : wide;
            const bool copied = tiles.count > 1 || n < width;  // nothing is read behind the weights
            if (copied) fill_panel(w + j, step, n, width, s.panel);
            const T* const panel = copied ? s.panel : w + j;
            WeightsAhead ahead{reinterpret_cast<const char*>(w + std::min(j + wide, columns - n)), step * int64_t(sizeof(T))};
            for (int64_t t = 0; t < tiles.count; ++t, ahead.step = 0) {
                const int64_t first = tiles.first[t], rows = tiles.rows(t);
                const T* x = tiles.raw[t] ? dy + source[first] : s.x + t * panel_of_x();
                column_tile<T>(rows, width)(x, tiles.raw[t] ? call.gradient.channel : pitch<T>, k, panel, copied ? width : step, ahead, s.tile, false);
                add_tile(s.tile, rows, width, n, pixel + first, s.column + j, s.planes);
            }
        }
    }

    // The same of all pixels at once, without pairs of pixels and taps whose input is in the padding: the images are the rows of tiles, and
    // weights are put in order, tap by tap, two vectors of channels at a time. The same sums in the same order, and so the same bits.
    void add_pairs(const T* dy, const T* w, int64_t width, int64_t count, const Scratch& s) const {
        const int64_t tiles = image_tiles(count);
        for (int64_t i = 0; i < pixels * tiles; ++i) {
            const int64_t begin = count * (i % tiles) / tiles, rows = count * (i % tiles + 1) / tiles - begin;
            int64_t source[max_MR];
            for (int64_t r = 0; r < rows; ++r) source[r] = s.source[(begin + r) * pixels + i / tiles];
            fill(dy, source, rows, s.x + i * panel_of_x());
        }
        for (int64_t c = 0; c < width; c += 2 * L) {
            if (call.interrupt.asked && call.interrupt.asked(call.interrupt.whose)) return;
            const int64_t n = std::min(2 * L, width - c);
            for (int64_t from = 0; from < k; from += pair_k) {
                const int64_t some = std::min(pair_k, k - from);
                order_taps(w + from * p.in_channels * volume + c * volume, some, n, s.taps);
                multiply_pairs(from, some, count, s);
            }
            for (int64_t j = c * volume; j < (c + n) * volume; j += wide) add_sums(c, j, std::min(j + wide, (c + n) * volume), count, s);
        }
    }

    FASTCONV_NOINLINE void order_taps(const T* w, int64_t count, int64_t n, T* taps) const {
        T* row[L];
        const int64_t step = p.in_channels * volume, line = 64 / int64_t(sizeof(T));
        for (int64_t oc = 0; oc < count; ++oc, w += step, taps += 2 * L) {
            for (int64_t i = 0; i < n * volume; i += line) __builtin_prefetch(w + 4 * step + i);  // rows too far apart to be foreseen
            for (int64_t t = 0; t < volume; t += L) {
                const int64_t some = std::min(L, volume - t);
                for (int64_t i = 0; i < some; ++i) row[i] = taps + (t + i) * pair_k * 2 * L;
                for (int64_t v = 0; v < 2 * L; v += L) transpose_block(w + v * volume + t, volume, n - v, some, row, v, false);
            }
        }
    }

    void multiply_pairs(int64_t from, int64_t some, int64_t count, const Scratch& s) const {
        const int64_t tiles = image_tiles(count);
        for (int64_t i = 0; i < pixels * volume; ++i) {
            if (s.pair[i] < 0) continue;
            const T* panel = s.taps + i % volume * pair_k * 2 * L;
            for (int64_t t = 0; t < tiles; ++t) {
                const int64_t begin = count * t / tiles, rows = count * (t + 1) / tiles - begin;
                const T* x = s.x + (i / volume * tiles + t) * panel_of_x() + from * pitch<T>;
                column_tile<T>(rows, 2 * L)(x, pitch<T>, some, panel, 2 * L, {reinterpret_cast<const char*>(panel), 0},
                                            s.sums + (s.pair[i] * count + begin) * 2 * L, from > 0);
            }
        }
    }

    // The columns j .. end, whose channels begin at `first`.
    void add_sums(int64_t first, int64_t j, int64_t end, int64_t count, const Scratch& s) const {
        for (int64_t i = 0; i < count * pixels; ++i) {
            const int32_t* pair = s.pair + i % pixels * volume;
            T* const to = s.planes + s.pixel[i];
            const T* sums = s.sums + i / pixels * 2 * L;
            for (int64_t at = j, c = j / volume, t = j % volume; at < end; ++at) {
                if (pair[t] >= 0) to[s.column[at]] += sums[pair[t] * count * 2 * L + c - first];
                if (++t == volume) t = 0, ++c;
            }
        }
    }

    // x[oc][pixel] of a tile.
    void fill(const T* dy, const int64_t* source, int64_t rows, T* x) const {
        const int64_t step = call.gradient.channel;
        for (int64_t i = 0; i < rows; step == 1 ? i += L : ++i) {
            if (step == 1) fill_channels_last(dy, source + i, std::min(L, rows - i), x + i);
            else
                for (int64_t oc = 0; oc < k; ++oc) x[oc * pitch<T> + i] = dy[source[i] + oc * step];
        }
    }
    void fill_channels_last(const T* dy, const int64_t* source, int64_t rows, T* x) const {
        for (int64_t oc = 0; oc < k; oc += L) {
            const int64_t n = std::min(L, k - oc);
            Vec<T> row[L];
            for (int64_t i = 0; i < L; ++i) row[i] = load_some(dy + source[std::min(i, rows - 1)] + oc, n);
            transpose<T>(row);
            for (int64_t i = 0; i < n; ++i) store(x + (oc + i) * pitch<T>, row[i]);
        }
    }

    void fill_panel(const T* w, int64_t step, int64_t n, int64_t width, T* panel) const {
        if (n == width && width == 2 * L)
            for (int64_t i = 0; i < k; ++i, w += step, panel += 2 * L) store(panel, load(w)), store(panel + L, load(w + L));
        else
            for (int64_t i = 0; i < k; ++i, w += step, panel += width) {
                copy(panel, w, n);
                for (int64_t j = n; j < width; ++j) panel[j] = T(0);
            }
    }

    FASTCONV_NOINLINE static void add_tile(const T* tile, int64_t rows, int64_t width, int64_t n, const int64_t* pixel,
                                           const int64_t* column, T* planes) {
        for (int64_t i = 0; i < rows; ++i, tile += width) {
            T* const to = planes + pixel[i];
            for (int64_t j = 0; j < n; ++j) to[column[j]] += tile[j];
        }
    }

    // ---- the output

    // Runs of what lies side by side, there and in the planes: a row of a channel, or the channels of a pixel.
    void write(int64_t image, int64_t first, int64_t width, const T* planes) const {
        const Epilogue<T> epilogue(p);
        const View &y = call.output, &r = call.residual;
        const T* bias = call.bias ? static_cast<const T*>(call.bias) + first : nullptr;
        for (int64_t c = 0; c < (last ? 1 : width); ++c)
            for (int64_t d = 0; d < p.input[0]; ++d)
                for (int64_t h = 0; h < p.input[1]; ++h)
                    for (int64_t w = 0; w < (last ? p.input[2] : 1); ++w) {
                        const T* from = planes + c * channel_step() + place(d + p.pad_lo[0], h + p.pad_lo[1], w + p.pad_lo[2]);
                        T* to = at<T>(y, image, first + c) + d * y.space[0] + h * y.space[1] + w * y.space[2];
                        const T* add = r.data ? at<T>(r, image, first + c) + d * r.space[0] + h * r.space[1] + w * r.space[2] : nullptr;
                        if (last) write_run(epilogue, from, width, bias, 1, to, 1, add, r.channel);
                        else write_run(epilogue, from, p.input[2], bias ? bias + c : nullptr, 0, to, y.space[2], add, r.space[2]);
                    }
    }

    static void write_run(const Epilogue<T>& epilogue, const T* from, int64_t n, const T* bias, int64_t bias_step, T* to, int64_t step,
                          const T* add, int64_t add_step) {
        if (step != 1 || (add && add_step != 1)) {
            for (int64_t i = 0; i < n; ++i) {
                const T sum = bias ? from[i] + bias[i * bias_step] : from[i];
                to[i * step] = epilogue(add ? sum + add[i * add_step] : sum);
            }
            return;
        }
        const auto finished = [&](Vec<T> value, int64_t i, int64_t m) __attribute__((always_inline)) {
            if (bias) value += bias_step ? load_some(bias + i, m) : broadcast(*bias);
            return epilogue(add ? value + load_some(add + i, m) : value);
        };
        int64_t i = 0;
        for (; i + L <= n; i += L) store(to + i, finished(load(from + i), i, L));
        if (i < n) store_first(to + i, finished(load_some(from + i, n - i), i, n - i), n - i);
    }
};

template <class T>
struct Col2imAlgorithm : Defaults {
    using Scratch = typename Col2im<T>::Scratch;
    static Crew crew(const Col2im<T>& job) { return {job.p, job.call, job.parts, Scratch(job, nullptr).bytes}; }

    static const char* refuses(const Problem& p) {
        if (p.direction != Direction::backward_input) return "computes the gradient of the input only";
        if (p.padding_mode != PaddingMode::zeros) return "computes the gradient of an input that is padded with zeros only";
        return p.strict ? "accuracy='strict' gives the same bits with weights packed beforehand, whose sums run in another order" : nullptr;
    }
    static size_t packed_bytes(const Problem&) { return 0; }
    static size_t workspace_bytes(const Problem& p, int threads) { return crew(Col2im<T>(p, Call{}, threads)).bytes(); }
    static void run(const Problem& p, const Call& call) {
        const Col2im<T> job(p, call, call.threads);
        const Crew crew = Col2imAlgorithm::crew(job);
        crew.share(job.items(), [&](int64_t part, const auto& each) {
            const Scratch scratch(job, crew.own(part));
            job.list(scratch);
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) job.compute(i, scratch);
            });
        });
    }
};

}  // namespace

const Algorithm& col2im_algorithm() {
    static const Algorithm algorithm = algorithm_of<Col2imAlgorithm<float>, Col2imAlgorithm<double>>("col2im");
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
