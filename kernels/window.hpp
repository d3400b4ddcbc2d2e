// What all direct kernels share: how the work is cut into boxes and tasks, and how a box sees its input.
//
// A *box* is a block of output positions (d, h, w ranges) of one image and group. The input it reads is either the caller's
// array itself, or a *slab*: a scratch copy with the padding written out, so that everything after it is a valid
// convolution. In both cases one tap of one channel is a fixed offset (`tap`), and one output position is a fixed offset
// (`pixel`), whatever the stride, dilation or number of axes:  x[pixel(position) + tap(channel, kd, kh, kw)].
//
// What is summed, and in which order, does not depend on anything here: boxes and tasks follow batch and threads freely.
#pragma once
#include <algorithm>

#include "crew.hpp"
#include "fences.hpp"
#include "regions.hpp"
#include "simd.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

FASTCONV_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
FASTCONV_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

inline int64_t kernel_volume(const Problem& p) { return p.kernel[0] * p.kernel[1] * p.kernel[2]; }
inline int64_t k_of(const Problem& p) { return p.in_channels * kernel_volume(p); }  // K: products summed per output
inline double multiply_adds(const Problem& p) {
    return double(p.batch) * p.groups * p.out_channels * k_of(p) * double(p.output[0] * p.output[1] * p.output[2]);
}
inline bool is_padded(const Problem& p) {
    for (int a = 0; a < max_axes; ++a)
        if (p.pad_lo[a] > 0 || p.pad_hi[a] > 0) return true;
    return false;
}

// Under "strict" every product of one input channel is rounded, and then added to that of the opposite tap, before they are summed:
// on flat data the taps of a derivative cancel, exactly.
inline bool rounds_products(const Problem& p) { return p.strict && p.in_channels == 1; }

// The padded input coordinates that `size` outputs along axis a span.
inline int64_t extent(const Problem& p, int a, int64_t size) {
    return (size - 1) * p.stride[a] + (p.kernel[a] - 1) * p.dilation[a] + 1;
}

// Instead of an offset, where there is nothing to be read but zeros. Offsets are of either sign, and far smaller.
constexpr int64_t nowhere = INT64_MIN;

// Where padded coordinate i of axis a comes from: an input coordinate, or -1 for a zero. As numpy.pad: reflect has period
// 2(n-1), symmetric 2n, circular n.
inline int64_t source(const Problem& p, int a, int64_t i) {
    const int64_t n = p.input[a];
    if (i >= 0 && i < n) return i;
    auto modulo = [i](int64_t m) { return (i % m + m) % m; };
    switch (p.padding_mode) {
        case PaddingMode::replicate: return i < 0 ? 0 : n - 1;
        case PaddingMode::circular: return modulo(n);
        case PaddingMode::symmetric: {
            const int64_t r = modulo(2 * n);
            return r < n ? r : 2 * n - 1 - r;
        }
        case PaddingMode::reflect: {
            if (n == 1) return 0;
            const int64_t r = modulo(2 * n - 2);
            return r < n ? r : 2 * n - 2 - r;
        }
        default: return -1;
    }
}

// The first element of an image's channel in a view; null where there is no array.
template <class T>
FASTCONV_INLINE T* at(const View& v, int64_t image, int64_t channel) {
    return v.data ? static_cast<T*>(v.data) + image * v.batch + channel * v.channel : nullptr;
}

// One output, by the definition, for algorithms that transform where the transform must not be trusted: bias plus all products of
// `weight` (the output channel's own).
template <class T>
T one_output(const Problem& p, const View& input, int64_t image, int64_t group, const T* weight, T bias, int64_t od, int64_t oh,
             int64_t ow) {
    const int64_t begin[max_axes] = {od * p.stride[0] - p.pad_lo[0], oh * p.stride[1] - p.pad_lo[1], ow * p.stride[2] - p.pad_lo[2]};
    T sum = bias;
    for (int64_t c = 0; c < p.in_channels; ++c) {
        const T* x = at<const T>(input, image, group * p.in_channels + c);
        for (int64_t kd = 0; kd < p.kernel[0]; ++kd)
            for (int64_t kh = 0; kh < p.kernel[1]; ++kh)
                for (int64_t kw = 0; kw < p.kernel[2]; ++kw) {
                    const int64_t d = source(p, 0, begin[0] + kd * p.dilation[0]), h = source(p, 1, begin[1] + kh * p.dilation[1]);
                    const int64_t w = source(p, 2, begin[2] + kw * p.dilation[2]);
                    const bool zero = d < 0 || h < 0 || w < 0;
                    sum += (zero ? T(0) : x[d * input.space[0] + h * input.space[1] + w * input.space[2]]) * *weight++;
                }
    }
    return sum;
}

// Merge an axis into the next where a 1-wide kernel makes one long row of both: more pixels per row, fewer tails.
inline void merge_rows(Problem& p, const Call& call, int most = max_axes - 1) {
    for (int a = 1; a >= 2 - most; --a) {
        for (int b : {a, 2})
            if (p.kernel[b] != 1 || p.stride[b] != 1 || p.pad_lo[b] || p.pad_hi[b]) return;
        for (const View* view : {&call.input, &call.output, &call.residual}) {
            const int64_t width = view == &call.input ? p.input[2] : p.output[2];
            if (view->data && p.input[a] != 1 && view->space[a] != width * view->space[2]) return;
        }
        p.input[2] *= p.input[a];
        p.output[2] *= p.output[a];
        p.input[a] = p.output[a] = 1;
    }
}

// Images as another axis of space, where that is free: a box may then have outputs of several.
inline bool has_free_axis(const Problem& p) {
    return p.input[0] == 1 && p.output[0] == 1 && p.kernel[0] == 1 && p.stride[0] == 1 && !p.pad_lo[0] && !p.pad_hi[0];
}
inline void join_images(Problem& p) {
    p.input[0] = p.output[0] = p.batch;
    p.batch = 1;
}
inline void join_images(Call& call) {
    for (View* view : {&call.input, &call.output, &call.residual}) view->space[0] = view->batch;
}

// Where things are in what the micro-kernels read, in elements: steps of a tap and of an output along each axis.
struct Strides {
    int64_t channel, tap_step[max_axes], pixel_step[max_axes];
    int64_t phase;  // slab with split phases: from one phase (w mod stride) to the next; else 0

    int64_t tap(const Problem& p, int64_t kd, int64_t kh, int64_t kw) const {
        const int64_t t = kw * p.dilation[2];
        const int64_t along = phase ? t % p.stride[2] * phase + t / p.stride[2] : kw * tap_step[2];
        return kd * tap_step[0] + kh * tap_step[1] + along;
    }
    int64_t pixel(int64_t od, int64_t oh, int64_t ow) const {
        return od * pixel_step[0] + oh * pixel_step[1] + ow * pixel_step[2];
    }
};

inline Strides input_strides(const Problem& p, const View& v) {
    Strides s{v.channel, {}, {}, 0};
    for (int a = 0; a < max_axes; ++a) {
        s.tap_step[a] = v.space[a] * p.dilation[a];
        s.pixel_step[a] = v.space[a] * p.stride[a];
    }
    return s;
}

struct Limits {
    int64_t pixels;      // aim for at most so many outputs per box
    int64_t slab_bytes;  // and for a slab of at most this size: a good half of L2
    int64_t width;       // but keep rows at least this wide
    int64_t granule;     // cut rows at multiples of this
    bool split_phases;   // slab: rows per channel, each phase of a stride along w on its own (else: as they are)
    bool planes;         // slab: and where no input is read twice, each tap too, with all outputs of the box
    bool channels_inner; // slab: all channels of a coordinate side by side, coordinates along w next
    int64_t sharing;     // threads that share the boxes of an image and group: if there are several, a multiple of these
};

// Where images and groups are many or divide evenly among the threads, their boxes need not.
inline int64_t threads_per_image(const Problem& p, int threads) {
    const int64_t images = p.batch * p.groups;
    return images % threads == 0 || images >= 4 * threads ? 1 : threads;
}

// How a problem is cut: the same for every image and group.
struct Blocking {
    int64_t box[max_axes], count[max_axes];  // outputs per box (the last may be smaller), boxes per axis
    // Along an axis the slab holds every coordinate that the box spans, or, where that is less (strides beyond the kernel,
    // wide dilations), only what is read: [tap][output]; where it is not more along any axis, [taps of all][outputs of all].
    bool compact[max_axes], planes;
    int64_t step[max_axes];  // from one coordinate (compact: output) of the slab to the next
    Strides slab;
    int64_t slab_elements;

    Blocking(const Problem& p, const Limits& limits, int itemsize) {
        std::copy(p.output, p.output + max_axes, box);
        while (box[2] > limits.width && (box[2] > limits.pixels || layout(p, limits, 1, 1, itemsize) * itemsize > limits.slab_bytes))
            box[2] = round_up(ceil_div(box[2], 2), limits.granule);
        box[1] = grow(p.output[1], [&](int64_t h) { return fits(p, limits, itemsize, 1, h); });
        box[0] = box[1] < p.output[1] ? 1 : grow(p.output[0], [&](int64_t d) { return fits(p, limits, itemsize, d, box[1]); });
        for (int a = 0; a < max_axes; ++a) count[a] = ceil_div(p.output[a], box[a]);
        const int64_t even = round_up(count[1], limits.sharing);
        if (count[1] > 1 && boxes() == count[1] && even <= std::min(2 * count[1], p.output[1])) count[1] = even;
        for (int a = 0; a < max_axes; ++a) box[a] = ceil_div(p.output[a], count[a]);
        if (count[2] > 1) {
            box[2] = round_up(box[2], limits.granule);
            count[2] = ceil_div(p.output[2], box[2]);
        }
        slab_elements = layout(p, limits, box[0], box[1], itemsize);
    }

    int64_t boxes() const { return count[0] * count[1] * count[2]; }
    int64_t pixels() const { return box[0] * box[1] * box[2]; }

   private:
    template <class Fits>
    static int64_t grow(int64_t limit, Fits fits) {  // the largest size that fits, at least 1
        int64_t low = 1, high = limit;
        while (low < high) {
            const int64_t middle = (low + high + 1) / 2;
            if (fits(middle)) low = middle;
            else high = middle - 1;
        }
        return low;
    }
    bool fits(const Problem& p, const Limits& limits, int itemsize, int64_t d, int64_t h) {
        return d * h * box[2] <= limits.pixels && layout(p, limits, d, h, itemsize) * itemsize <= limits.slab_bytes;
    }
    int64_t layout(const Problem& p, const Limits& limits, int64_t d, int64_t h, int itemsize) {
        const int64_t outputs[max_axes] = {d, h, box[2]};
        const int64_t line = 64 / itemsize;
        slab.phase = 0;
        planes = limits.planes && patches(p, outputs);
        if (planes) return layout_patches(p, outputs, itemsize);
        int64_t size = limits.channels_inner ? apart(p.in_channels, itemsize) : 1;
        for (int a = max_axes - 1; a >= 0; --a) {
            const int64_t dense = extent(p, a, outputs[a]), sparse = outputs[a] * p.kernel[a];
            compact[a] = sparse < dense;
            step[a] = size;
            slab.tap_step[a] = size * (compact[a] ? outputs[a] : p.dilation[a]);
            slab.pixel_step[a] = size * (compact[a] ? 1 : p.stride[a]);
            if (a == 2 && limits.split_phases && p.stride[2] > 1 && !compact[2]) {
                slab.phase = ceil_div(dense, p.stride[2]);
                slab.pixel_step[2] = 1;
                size = slab.phase * p.stride[2];
            } else {
                size *= compact[a] ? sparse : dense;
            }
        }
        if (limits.channels_inner) {
            slab.channel = 1;
            return size + line;
        }
        slab.channel = apart(round_up(size, line), itemsize);
        return p.in_channels * slab.channel + line;  // vectors may read past the last row
    }
    // Where no input is read twice, a slab can be a matrix, a plane of all outputs for each tap: rows follow each other, so that
    // the vectors that read them need not end where a row does, and all of them begin at half a line.
    static bool patches(const Problem& p, const int64_t* outputs) {
        for (int a = 0; a < max_axes; ++a)
            if (outputs[a] * p.kernel[a] > extent(p, a, outputs[a])) return false;
        return true;
    }
    int64_t layout_patches(const Problem& p, const int64_t* outputs, int itemsize) {
        const int64_t line = 64 / itemsize;
        int64_t size = 1;
        for (int a = max_axes - 1; a >= 0; --a) {
            compact[a] = true;
            step[a] = slab.pixel_step[a] = size;
            size *= outputs[a];
        }
        size = apart(round_up(size + (outputs[2] < line ? line : 0), line), itemsize);  // vectors of short rows reach past the last
        for (int a = max_axes - 1; a >= 0; --a) {
            slab.tap_step[a] = size;
            size *= p.kernel[a];
        }
        slab.channel = apart(round_up(size, line), itemsize);
        return p.in_channels * slab.channel + line;
    }
    // A distance that does not put neighbours into the same few sets of L1.
    static int64_t apart(int64_t elements, int itemsize) {
        return elements * itemsize % 1024 == 0 ? elements + 64 / itemsize : elements;
    }
};

struct Box {
    int64_t begin[max_axes], size[max_axes];

    // Rows are spread evenly, so that threads get as many; pieces of a row begin at multiples of the granule.
    Box(const Problem& p, const Blocking& blocking, int64_t index) {
        for (int a = max_axes - 1; a >= 0; --a) {
            const int64_t count = blocking.count[a], i = index % count, n = p.output[a];
            begin[a] = a == 2 ? i * blocking.box[a] : n * i / count;
            size[a] = (a == 2 ? std::min(begin[a] + blocking.box[a], n) : n * (i + 1) / count) - begin[a];
            index /= count;
        }
    }
    int64_t pixels() const { return size[0] * size[1] * size[2]; }
};

// The offset of every product's input, in the order of the weights: taps (kd, kh, kw) of a channel after another. Calls of a few
// microseconds feel it, so that only those of the first channel are worked out.
inline void fill_taps(const Problem& p, const Strides& s, int64_t* offsets) {
    int64_t* of = offsets;
    for (int64_t kd = 0; kd < p.kernel[0]; ++kd)
        for (int64_t kh = 0; kh < p.kernel[1]; ++kh)
            for (int64_t kw = 0; kw < p.kernel[2]; ++kw) *of++ = s.tap(p, kd, kh, kw);
    const int64_t volume = of - offsets;
    for (int64_t c = 1; c < p.in_channels; ++c, of += volume)
        for (int64_t t = 0; t < volume; ++t) of[t] = offsets[t] + c * s.channel;
}

// The weights of a region, channel by channel: where its taps are in the whole kernel.
struct Kept {
    bool some;      // but not all
    Strides weights;
    int64_t first;  // of a channel's weights
    int64_t taps;   // from a channel's to the next

    explicit Kept(const Region& r)
        : some(!std::equal(r.kernel, r.kernel + max_axes, r.p.kernel)), weights{}, taps(r.kernel[0] * r.kernel[1] * r.kernel[2]) {
        weights.channel = taps;
        const int64_t step[max_axes] = {r.kernel[1] * r.kernel[2], r.kernel[2], 1};
        std::copy(step, step + max_axes, weights.tap_step);
        first = r.first[0] * step[0] + r.first[1] * step[1] + r.first[2];
    }
};

// The tasks of a region: (chunk of output-channel panels) x box x image x group, shared by as many parts as there are threads.
struct Tasks {
    int64_t chunks, boxes, images, groups, panels, parts;

    // fill: what it takes to prepare the inputs of a box, in panels; every chunk of a box does it again.
    Tasks(const Problem& p, const Blocking& blocking, int64_t panel_count, double fill, int threads)
        : chunks(1), boxes(blocking.boxes()), images(p.batch), groups(p.groups), panels(panel_count) {
        parts = threads_for(multiply_adds(p), worth_a_thread::gemm, threads);
        if (parts == 1) return;
        double least = 1e300;
        for (int64_t c = 1; c <= std::min(panels, 4 * parts); ++c) {
            const double load = double(ceil_div(count(c), parts)) * (double(ceil_div(panels, c)) + fill);  // of the busiest thread
            if (load < least * 0.98) {
                least = load;
                chunks = c;
            }
        }
        parts = std::min(parts, count(chunks));
    }
    int64_t count(int64_t c) const { return c * boxes * images * groups; }

    struct Task {
        int64_t chunk, box, image, group;
    };
    Task at(int64_t index) const {
        Task t;
        t.group = index % groups, index /= groups;
        t.image = index % images, index /= images;
        t.box = index % boxes;
        t.chunk = index / boxes;
        return t;
    }
    int64_t first_panel(int64_t chunk) const { return panels * chunk / chunks; }
};

// Hands out aligned pieces of a buffer, with fences between them; with a null base it only adds up.
class Arena {
   public:
    explicit Arena(void* base) : base_(static_cast<char*>(base)) {}
    template <class T>
    T* take(int64_t n) {
        const int64_t bytes = n * int64_t(sizeof(T)), reserved = round_up(bytes, 64) + int64_t(fence_bytes);
        char* p = base_ + used_;
        if (base_) allow(p, size_t(bytes)), forbid(p + bytes, size_t(reserved - bytes));
        used_ += reserved;
        return reinterpret_cast<T*>(p);
    }
    size_t used() const { return size_t(used_); }

   private:
    char* base_;
    int64_t used_ = 0;
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
