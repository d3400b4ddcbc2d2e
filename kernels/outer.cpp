// outer: the gradient of the weight as a sum of outer products, one for each pixel of the output.
//
//   dw[oc][c, t] += dy[pixel][oc] * x[pixel * stride + t * dilation - pad][c]     for all images and pixels
//
// Tile: MR rows of (tap along w, input channel), which lie side by side in a slab with the channels inside, x 2 vectors of output
// channels, in registers while all pixels of a box pass by. Per pixel it loads 2 vectors of dy and MR broadcasts of x for 2 MR FMAs;
// what a stride, a dilation, padding or a layout means happens when the slab is filled.
// Groups with fewer output channels than a vector has lanes: the channels of all groups are on the vector, each with the input channel
// of its own group beside it (slab [pixel][input channel of the group][lane]), and the tile is MR x taps along h of such vectors.
// A task is a chunk of input and of output channels, whose sums stay in L2, over a slice of all boxes. Boxes and slices, and with them
// the order of all sums, follow from the problem alone; the sums of the slices are added as a binary tree.
// Bottleneck: FMA; with few channels the transposition of both operands, depthwise the memory.
#include <utility>

#include "outer_tile.hpp"
#include "slab.hpp"
#include "weight_rows.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

constexpr int64_t box_pixels = 160, box_pixels_of_lanes = 1024;
constexpr int64_t slab_bytes = 256 << 10;
constexpr int64_t task_bytes = 256 << 10;   // sums of a task
constexpr int64_t slices_bytes = 1 << 20;   // sums of all slices
constexpr int64_t most_slices = 8, enough_tasks = 32;
constexpr int64_t most_inputs = 64;         // input channels of a task, of kernels of several taps: three rows of them are in the slab
constexpr int64_t most_inputs_of_one_tap = 256;

constexpr int64_t few_pixels = 3;           // that are sooner copied one by one than transposed

// Elements 0, 1, ... n - 1 of a row, or every other one: then what lies between them is read, but nothing behind the last.
template <class T>
FASTCONV_INLINE Vec<T> row_of(const T* from, int64_t stride, int64_t n) {
    constexpr int L = lanes<T>;
    if (stride == 1) return load_some(from, n);
    return every_other<T, 0>(load_masked(from, lanes_between<T>(0, 2 * n - 1)), load_masked(from + L, lanes_between<T>(0, 2 * n - 1 - L)));
}

// out[i][l] = from[channel[l] + i * stride] for a vector's lanes, where pixels are few or far apart.
template <class T>
FASTCONV_INLINE void one_by_one(const T* from, const int64_t* channel, int64_t stride, int64_t count, T* out, int64_t step) {
    constexpr int L = lanes<T>;
    bool follow = true;
    for (int l = 1; l < L; ++l) follow = follow && channel[l] == channel[0] + l;
    for (int64_t i = 0; i < count; ++i, from += stride, out += step) {
        if (follow) store(out, load(from + channel[0]));
        else
            for (int l = 0; l < L; ++l) out[l] = from[channel[l]];
    }
}

// The same for `width` lanes, as many as make whole vectors.
template <class T>
FASTCONV_INLINE void side_by_side(const T* from, const int64_t* channel, int64_t width, int64_t stride, int64_t count, T* out, int64_t step) {
    constexpr int L = lanes<T>;
    if (count <= few_pixels || (stride != 1 && stride != 2)) {
        for (int64_t v = 0; v < width; v += L) one_by_one(from, channel + v, stride, count, out + v, step);
        return;
    }
    for (int64_t i = 0; i < count; i += L)
        for (int64_t v = 0; v < width; v += L) {
            const int64_t n = std::min<int64_t>(L, count - i);
            if (n <= few_pixels) {
                one_by_one(from + i * stride, channel + v, stride, n, out + i * step + v, step);
                continue;
            }
            Vec<T> row[L];
            // constant trip counts: the rows stay in registers
            if (n == L && stride == 1)
                for (int l = 0; l < L; ++l) row[l] = load(from + channel[v + l] + i);
            else if (stride == 1)
                for (int l = 0; l < L; ++l) row[l] = load_first(from + channel[v + l] + i, n);
            else
                for (int l = 0; l < L; ++l) row[l] = row_of(from + channel[v + l] + i * stride, stride, n);
            transpose<T>(row);
            if (n == L)
                for (int l = 0; l < L; ++l) store(out + (i + l) * step + v, row[l]);
            else
                for (int64_t l = 0; l < n; ++l) store(out + (i + l) * step + v, row[l]);
        }
}

template <class T>
struct Outer {
    static constexpr int64_t L = lanes<T>;
    Problem p, slice;  // slice: of one group and as many input channels as a task has, or, lane by lane, those of a vector
    Call call;
    bool lanewise;
    int64_t volume, outputs, groups;        // outputs: of a group, or, lane by lane, of all
    int64_t inputs, chunks;                 // input channels of a task
    int64_t padded, wide, blocks, at_once;  // output channels in whole vectors; of a block; blocks of a group, of a task
    int64_t rows;                           // of sums: K
    Blocking blocking;
    int64_t boxes, slices, parts;

    Outer(const Problem& of, const Call& call_, int threads)
        : p(of), call(call_), lanewise(p.groups > 1 && p.out_channels < L), volume(kernel_volume(p)),
          outputs(lanewise ? p.groups * p.out_channels : p.out_channels), groups(lanewise ? 1 : p.groups),
          inputs(lanewise ? p.in_channels : inputs_of(p, volume)), chunks(ceil_div(p.in_channels, inputs)),
          padded(round_up(outputs, L)), wide(lanewise ? L : 2 * L), blocks(ceil_div(padded, wide)),
          at_once(blocks_of(inputs * volume, wide, blocks, lanewise)), rows(p.in_channels * volume), blocking(cut(p, inputs, lanewise)),
          boxes(p.batch * blocking.boxes()), slices(slices_of()),
          parts(std::min(threads_for(multiply_adds(p), worth_a_thread::gemm, threads), tasks())) {
        slice = p;
        slice.in_channels = lanewise ? inputs * L : inputs;
    }

    static int64_t inputs_of(const Problem& p, int64_t volume) {
        const int64_t most = volume == 1 ? most_inputs_of_one_tap : most_inputs, n = ceil_div(p.in_channels, most);
        return n == 1 ? p.in_channels : round_up(ceil_div(p.in_channels, n), L);
    }
    static int64_t blocks_of(int64_t rows, int64_t wide, int64_t blocks, bool lanewise) {
        if (lanewise) return 1;
        const int64_t fit = std::max<int64_t>(1, task_bytes / (rows * wide * int64_t(sizeof(T))));
        return ceil_div(blocks, ceil_div(blocks, fit));
    }
    static Blocking cut(Problem p, int64_t inputs, bool lanewise) {
        p.in_channels = lanewise ? inputs * L : inputs;
        return {p, Limits{lanewise ? box_pixels_of_lanes : box_pixels, slab_bytes, 16, 1, false, false, true, 1}, sizeof(T)};
    }
    int64_t slices_of() const {
        int64_t n = 1;
        while (n < most_slices && n * tasks_of_slice() < enough_tasks && 2 * n <= boxes && 2 * n * sums() * int64_t(sizeof(T)) <= slices_bytes) n *= 2;
        return n;
    }
    int64_t sums() const { return groups * padded * rows; }  // of a slice
    int64_t tasks_of_slice() const { return groups * chunks * ceil_div(blocks, at_once); }
    int64_t tasks() const { return slices * tasks_of_slice(); }
    int64_t width(int64_t block) const { return std::min(wide, padded - block * wide); }

    // Sums: [slice][group][block][chunk][kd, kh, kw, input channel of the chunk][width of the block]
    struct Chunk {
        int64_t first, count;
    };
    Chunk chunk(int64_t i) const { return {i * inputs, std::min(inputs, p.in_channels - i * inputs)}; }
    int64_t place(int64_t group, int64_t block, const Chunk& c) const {
        return group * padded * rows + block * wide * rows + c.first * volume * width(block);
    }

    T* all_sums(const Crew& crew) const { return reinterpret_cast<T*>(crew.common()); }
    size_t common_bytes() const { return size_t(round_up(slices * sums() * int64_t(sizeof(T)), 64)); }

    struct Scratch {
        T *slab, *gradient;
        int64_t *pixel, *input, *output;  // offsets: of the outputs of a box, in the slab; of channels, in the arrays
        size_t bytes;
        Scratch(const Outer& j, void* base) {
            Arena arena(base);
            slab = arena.take<T>(j.blocking.slab_elements);
            gradient = arena.take<T>(j.blocking.pixels() * j.wide * j.at_once);
            pixel = arena.take<int64_t>(j.blocking.pixels());
            input = arena.take<int64_t>(j.slice.in_channels);
            output = arena.take<int64_t>(j.wide * j.at_once);
            bytes = arena.used();
        }
    };

    struct Task {
        int64_t slice, group, chunk, first, end;  // blocks
    };
    Task task(int64_t i) const {
        const int64_t pieces = ceil_div(blocks, at_once);
        Task t;
        t.first = i % pieces * at_once, t.end = std::min(blocks, t.first + at_once), i /= pieces;
        t.chunk = i % chunks, i /= chunks;
        t.slice = i % slices, t.group = i / slices;
        return t;
    }

    // ---- a task

    void compute(const Task& t, const Scratch& s, T* sums) const {
        const Chunk c = chunk(t.chunk);
        sums += t.slice * this->sums();
        for (int64_t b = t.first; b < t.end; ++b) clear(sums + place(t.group, b, c), c.count * volume * width(b));
        list_channels(t, s);
        Problem some = slice;
        if (!lanewise) some.in_channels = c.count;
        const int64_t end = boxes * (t.slice + 1) / slices;
        for (int64_t i = boxes * t.slice / slices, each = blocking.boxes(); i < end; ++i) {
            if (call.interrupt.asked && call.interrupt.asked(call.interrupt.whose)) return;
            const Box box(p, blocking, i % each);
            fill_inputs(some, box, at<T>(call.input, i / each, t.group * (lanewise ? 0 : p.in_channels) + (lanewise ? 0 : c.first)), s);
            fill_gradient(t, box, i / each, s);
            list_pixels(box, s);
            Ahead ahead;
            if (i + 1 < end) ask_for(t, c, Box(p, blocking, (i + 1) % each), (i + 1) / each, ahead);
            ahead.begin();
            multiply(t, c, box, s, sums, ahead);
        }
    }

    void list_pixels(const Box& box, const Scratch& s) const {
        int64_t* pixel = s.pixel;
        for (int64_t d = 0; d < box.size[0]; ++d)
            for (int64_t h = 0; h < box.size[1]; ++h)
                for (int64_t w = 0; w < box.size[2]; ++w) *pixel++ = blocking.slab.pixel(d, h, w);
    }

    // Lanes without an output channel repeat the last one.
    void list_channels(const Task& t, const Scratch& s) const {
        for (int64_t l = 0; l < (t.end - t.first) * wide; ++l) {
            const int64_t channel = std::min(t.first * wide + l, outputs - 1);
            s.output[l] = (lanewise ? channel : t.group * outputs + channel) * call.gradient.channel;
            for (int64_t c = 0; lanewise && c < inputs; ++c)
                s.input[c * L + l] = (channel / p.out_channels * inputs + c) * call.input.channel;
        }
        for (int64_t c = 0; !lanewise && c < inputs; ++c) s.input[c] = c * call.input.channel;
    }

    void fill_inputs(const Problem& some, const Box& box, const T* image, const Scratch& s) const {
        const bool vectors = lanewise || (call.input.channel != 1 && some.in_channels % L == 0);
        if (!vectors) return fill_channels_inner(some, blocking, box, image, call.input, s.slab);
        if (lanewise && are_planes(box)) return fill_planes(some, box, image, s);
        fill_pixels(some, blocking, box, image, call.input, s.slab, [&](const T* from, int64_t stride, int64_t count, T* out, int64_t step) {
            side_by_side(from, s.input, some.in_channels, stride, count, out, step);
        });
    }

    // Whether the rows of a box follow each other in the input, and are short: vectors of single ones would be half empty.
    bool are_planes(const Box& box) const {
        const View& x = call.input;
        const int64_t width = p.input[2], first = box.begin[2] * p.stride[2] - p.pad_lo[2];
        const bool whole = first <= 0 && first + extent(p, 2, box.size[2]) >= width;
        const bool simple = !blocking.compact[0] && !blocking.compact[1] && !blocking.compact[2] && !blocking.slab.phase;
        return whole && simple && x.space[2] == 1 && x.space[1] == width && width % L && width < 4 * L && p.padding_mode == PaddingMode::zeros;
    }
    void fill_planes(const Problem& some, const Box& box, const T* image, const Scratch& s) const {
        int64_t first[max_axes], begin[max_axes], end[max_axes];
        for (int a = 0; a < max_axes; ++a) {
            first[a] = box.begin[a] * p.stride[a] - p.pad_lo[a];
            begin[a] = std::max<int64_t>(0, first[a]), end[a] = std::min(p.input[a], first[a] + extent(p, a, box.size[a]));
        }
        clear(s.slab, blocking.slab_elements);
        const int64_t width = p.input[2], count = (end[1] - begin[1]) * width, wrap = blocking.step[1] - width * blocking.step[2];
        for (int64_t d = begin[0]; d < end[0]; ++d) {
            const T* from = image + d * call.input.space[0] + begin[1] * width;
            T* to = s.slab + (d - first[0]) * blocking.step[0] + (begin[1] - first[1]) * blocking.step[1] - first[2] * blocking.step[2];
            for (int64_t i = 0, column = 0; i < count; i += L) {
                const int64_t n = std::min<int64_t>(L, count - i);
                T* place[L];
                for (int64_t l = 0; l < n; ++l, to += blocking.step[2]) {
                    if (column == width) column = 0, to += wrap;
                    place[l] = to, ++column;
                }
                for (int64_t v = 0; v < some.in_channels; v += L) {
                    Vec<T> row[L];
                    for (int l = 0; l < L; ++l) row[l] = load_some(from + s.input[v + l] + i, n);
                    transpose<T>(row);
                    for (int64_t l = 0; l < n; ++l) store(place[l] + v, row[l]);
                }
            }
        }
    }

    // [block][pixel][width of the block]
    void fill_gradient(const Task& t, const Box& box, int64_t image, const Scratch& s) const {
        const View& y = call.gradient;
        const T* const from = at<T>(y, image, 0) + box.begin[0] * y.space[0] + box.begin[1] * y.space[1] + box.begin[2] * y.space[2];
        int64_t size[max_axes];
        std::copy(box.size, box.size + max_axes, size);
        for (int a = 1; a >= 0 && (size[a] == 1 || y.space[a] == size[2] * y.space[2]); --a)  // rows that follow each other are one
            size[2] *= std::exchange(size[a], 1);
        T* out = s.gradient;
        for (int64_t b = t.first; b < t.end; ++b) {
            const int64_t n = width(b), first = (b - t.first) * wide;
            const bool together = y.channel == 1 && b * wide + n <= outputs;
            for (int64_t d = 0; d < size[0]; ++d)
                for (int64_t h = 0; h < size[1]; ++h, out += size[2] * n) {
                    const T* row = from + d * y.space[0] + h * y.space[1];
                    if (together) fill_channels(row + s.output[first], 1, y.space[2], n, size[2], out, n);
                    else side_by_side(row, s.output + first, n, y.space[2], size[2], out, n);
                }
        }
    }

    void ask_for(const Task& t, const Chunk& c, const Box& box, int64_t image, Ahead& ahead) const {
        if (lanewise) return;  // whose boxes are so large that rows follow each other
        int64_t begin[max_axes], size[max_axes];  // of the inputs
        for (int a = 0; a < max_axes; ++a) {
            begin[a] = std::max<int64_t>(0, box.begin[a] * p.stride[a] - p.pad_lo[a]);
            size[a] = std::min(p.input[a], box.begin[a] * p.stride[a] - p.pad_lo[a] + extent(p, a, box.size[a])) - begin[a];
        }
        add(call.input, image, t.group * p.in_channels + c.first, c.count, begin, size, ahead);
        add(call.gradient, image, t.group * outputs + t.first * wide, std::min(t.end * wide, outputs) - t.first * wide, box.begin, box.size, ahead);
    }
    // Rows that follow each other are one piece of each channel, or, where the channels lie side by side, one for each pixel.
    static void add(const View& v, int64_t image, int64_t channel, int64_t channels, const int64_t* begin, const int64_t* size, Ahead& ahead) {
        constexpr int64_t bytes = sizeof(T);
        const T* from = at<T>(v, image, channel);
        int64_t last = 0;
        for (int a = 0; a < max_axes; ++a) {
            if (size[a] < 1 || v.space[a] < 0) return;
            from += begin[a] * v.space[a], last += (size[a] - 1) * v.space[a];
        }
        if (v.space[2] == 1) ahead.add(from, (last + 1) * bytes, channels, v.channel * bytes);
        else if (v.channel == 1 && v.space[2]) ahead.add(from, channels * bytes, last / v.space[2] + 1, v.space[2] * bytes);
    }

    void multiply(const Task& t, const Chunk& c, const Box& box, const Scratch& s, T* sums, Ahead& ahead) const {
        const Pixels pixels{s.pixel, box.pixels()};
        const T* y = s.gradient;
        for (int64_t b = t.first; b < t.end; y += box.pixels() * width(b), ++b) {
            T* to = sums + place(t.group, b, c);
            if (lanewise) multiply_lanes(pixels, y, s.slab, to);
            else multiply_block(c.count, width(b), pixels, y, s.slab, to, ahead);
        }
    }

    void multiply_block(int64_t channels, int64_t width, const Pixels& pixels, const T* y, const T* slab, T* sums,
                        Ahead& ahead) const {
        const bool follow = blocking.slab.tap_step[2] == channels;  // the channels of a tap those of the one before
        const int64_t run = follow ? channels * p.kernel[2] : channels, tiles = ceil_div(run, max_MR);
        for (int64_t kd = 0; kd < p.kernel[0]; ++kd)
            for (int64_t kh = 0; kh < p.kernel[1]; ++kh)
                for (int64_t kw = 0; kw < (follow ? 1 : p.kernel[2]); ++kw) {
                    const T* x = slab + blocking.slab.tap(p, kd, kh, kw);
                    for (int64_t i = 0; i < tiles; ++i) {
                        const int64_t first = run * i / tiles, n = run * (i + 1) / tiles - first;
                        outer_tile<T, false>(n, width)(x + first, pixels, y, sums + first * width, ahead);
                    }
                    sums += run * width;
                }
    }

    void multiply_lanes(const Pixels& pixels, const T* y, const T* slab, T* sums) const {
        const bool follow = blocking.slab.tap_step[2] == inputs * L;
        const int64_t run = follow ? inputs * p.kernel[2] : inputs, runs = follow ? 1 : p.kernel[2], row = runs * run * L;
        for (int64_t kd = 0; kd < p.kernel[0]; ++kd)
            for (int64_t kh = 0, taps; kh < p.kernel[1]; kh += taps, sums += taps * row) {
                taps = std::min<int64_t>(p.kernel[1] - kh, most_taps_at_once);
                while (taps > 1 && most_rows(taps) < run) --taps;
                for (int64_t kw = 0; kw < runs; ++kw) {
                    const T* x = slab + blocking.slab.tap(p, kd, kh, kw);
                    const int64_t tiles = ceil_div(run, most_rows(taps));
                    for (int64_t i = 0; i < tiles; ++i) {
                        const int64_t first = run * i / tiles, n = run * (i + 1) / tiles - first;
                        lane_tile<T>(n, taps)(x + first * L, blocking.slab.tap_step[1], pixels, y, sums + (kw * run + first) * L, row);
                    }
                }
            }
    }

    // ---- all slices together, and out

    void add_slices(int64_t begin, int64_t end, T* sums) const {
        for (int64_t apart = 1; apart < slices; apart *= 2)
            for (int64_t s = 0; s + apart < slices; s += 2 * apart) {
                T *to = sums + s * this->sums(), *from = to + apart * this->sums();
                for (int64_t i = begin; i < end; i += L) store(to + i, load(to + i) + load(from + i));
            }
    }

    // The output channels of a block.
    void write(int64_t group, int64_t block, const T* sums) const {
        const int64_t channel = (lanewise ? 0 : group * outputs) + block * wide, n = std::min(width(block), outputs - block * wide);
        const WeightRows<T> to(p, call.output);
        for (int64_t i = 0; i < chunks; ++i) {
            const Chunk c = chunk(i);
            const T* const from = sums + place(group, block, c);
            const int64_t step = width(block), first = c.first * volume;
            to.write(channel, n, first, first + c.count * volume, [=](int64_t k) {
                return from + ((k - first) % volume * c.count + (k - first) / volume) * step;
            });
        }
    }
};

template <class T>
struct OuterAlgorithm : Defaults {
    using Scratch = typename Outer<T>::Scratch;
    static Crew crew(const Outer<T>& job) {
        return {job.p, job.call, job.parts, Scratch(job, nullptr).bytes, job.common_bytes()};
    }
    static const char* refuses(const Problem& p) {
        return p.direction == Direction::backward_weight ? nullptr : "computes the gradient of the weight only";
    }
    static size_t packed_bytes(const Problem&) { return 0; }
    static size_t workspace_bytes(const Problem& p, int threads) { return crew(Outer<T>(p, Call{}, threads)).bytes(); }

    static void run(const Problem& p, const Call& call) {
        const Outer<T> job(p, call, call.threads);
        const Crew crew = OuterAlgorithm::crew(job);
        T* const sums = job.all_sums(crew);
        crew.share(job.tasks(), [&](int64_t part, const auto& each) {
            const Scratch scratch(job, crew.own(part));
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) job.compute(job.task(i), scratch, sums);
            });
        });
        crew.share(job.groups * job.blocks, [&](int64_t, const auto& each) {
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                    const int64_t group = i / job.blocks, block = i % job.blocks, first = job.place(group, block, {0, 0});
                    job.add_slices(first, first + job.rows * job.width(block), sums);
                    job.write(group, block, sums);
                }
            });
        });
    }
};

}  // namespace

const Algorithm& outer_algorithm() {
    static const Algorithm algorithm = algorithm_of<OuterAlgorithm<float>, OuterAlgorithm<double>>("outer");
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
