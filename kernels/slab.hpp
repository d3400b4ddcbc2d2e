// Filling slabs: the input of a box with the padding written out, so that what follows is a valid convolution.
#pragma once
#include "squares.hpp"
#include "window.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// What of a row of the input goes to a strand of the slab: padded coordinates first, first + step, ... of axis w, `count` of
// them; those from `inside` to `end` lie in the input, so that no row needs to look again.
struct Strand {
    int64_t first, step, count, inside, end;

    Strand(const Problem& p, int64_t first_, int64_t step_, int64_t count_) : first(first_), step(step_), count(count_) {
        const int64_t n = p.input[2];
        inside = first >= 0 ? 0 : std::min(count, ceil_div(-first, step));
        end = first >= n ? inside : std::max(inside, std::min(count, ceil_div(n - first, step)));
    }
};

// body(padded coordinate relative to the box, its offset in the slab) along axis a: in the order of the slab, or, where each tap has
// a plane, in that of the input, so that it is read in one go.
template <class Body>
FASTCONV_INLINE void for_coordinates(const Problem& p, const Blocking& blocking, const Box& box, int a, Body body) {
    const bool compact = blocking.compact[a], swapped = blocking.planes;
    const struct { int64_t count, from, to; } loops[2] = {
        {compact ? p.kernel[a] : 1, p.dilation[a], blocking.slab.tap_step[a]},
        {compact ? box.size[a] : extent(p, a, box.size[a]), compact ? p.stride[a] : 1, blocking.step[a]}};
    const auto &outer = loops[swapped], &inner = loops[!swapped];
    for (int64_t j = 0; j < outer.count; ++j)
        for (int64_t i = 0; i < inner.count; ++i) body(j * outer.from + i * inner.from, j * outer.to + i * inner.to);
}

// body(strand, where it begins in a row of the slab): the row itself, or its phases, or (compact) one per tap.
template <class Body>
FASTCONV_INLINE void for_strands(const Problem& p, const Blocking& blocking, const Box& box, Body body) {
    const bool compact = blocking.compact[2];
    const int64_t phases = blocking.slab.phase ? p.stride[2] : 1, count = compact ? p.kernel[2] : phases;
    const int64_t first = box.begin[2] * p.stride[2] - p.pad_lo[2], span = extent(p, 2, box.size[2]);
    for (int64_t f = 0; f < count; ++f) {
        if (compact) body(Strand(p, first + f * p.dilation[2], p.stride[2], box.size[2]), f * blocking.slab.tap_step[2]);
        else body(Strand(p, first + f, phases, ceil_div(span - f, phases)), f * blocking.slab.phase);
    }
}

// write(row, out) for every row of the box in the order of the slab, one of `planes` channels after another: `row` is its first
// input, or null for a row of zeros, `out` where it begins.
template <class T, class Write>
FASTCONV_INLINE void for_rows(const Problem& p, const Blocking& blocking, const Box& box, const T* image, const View& view,
                              T* slab, int64_t planes, Write write) {
    const int64_t first_d = box.begin[0] * p.stride[0] - p.pad_lo[0], first_h = box.begin[1] * p.stride[1] - p.pad_lo[1];
    const int64_t row_d = view.space[0], row_h = view.space[1];
    for (int64_t c = 0; c < planes; ++c, image += view.channel, slab += blocking.slab.channel)
        for_coordinates(p, blocking, box, 0, [&](int64_t d, int64_t at_d) __attribute__((always_inline)) {
            const int64_t from_d = source(p, 0, first_d + d);
            for_coordinates(p, blocking, box, 1, [&](int64_t h, int64_t at_h) __attribute__((always_inline)) {
                const int64_t from_h = source(p, 1, first_h + h);
                const bool zeros = from_d < 0 || from_h < 0;
                write(zeros ? nullptr : image + from_d * row_d + from_h * row_h, slab + at_d + at_h);
            });
        });
}

// ---- rows per channel

template <class T>
FASTCONV_NOINLINE void mirrored(const Problem& p, const Strand& s, const T* row, int64_t stride, T* out) {
    for (int64_t i = 0; i < s.inside; ++i) out[i] = row[source(p, 2, s.first + i * s.step) * stride];
    for (int64_t i = s.end; i < s.count; ++i) out[i] = row[source(p, 2, s.first + i * s.step) * stride];
}

template <class T>
FASTCONV_INLINE void fill_row(const Problem& p, const Strand& s, const T* row, int64_t stride, T* out) {
    if (p.padding_mode != PaddingMode::zeros) mirrored(p, s, row, stride, out);
    else {
        for (int64_t i = 0; i < s.inside; ++i) out[i] = T(0);  // a few
        for (int64_t i = s.end; i < s.count; ++i) out[i] = T(0);
    }
    copy_strided(out + s.inside, row + (s.first + s.inside * s.step) * stride, stride * s.step, s.end - s.inside);
}

// Rows whose inputs are side by side: all strands in one pass, a vector of each at a time. The inputs of a strand are S apart;
// there are S strands, or (not All) one. The last vector overlaps its neighbour, or in short strands reaches into what follows.
template <class T, int S, bool All>
struct RowsAtOnce {
    static constexpr int64_t L = lanes<T>, strands = All ? S : 1;
    typedef typename VectorOf<T>::mask Mask;
    int64_t first, span;   // of the row, in the input
    int64_t begin, end;    // relative to `first`: what lies in the input
    int64_t count, apart;  // of a strand; from one to the next
    Mask low[S], high[S];  // what to load for the first and the last vectors

    RowsAtOnce(const Problem& p, const Blocking& blocking, const Box& box)
        : first(box.begin[2] * p.stride[2] - p.pad_lo[2]), span(extent(p, 2, box.size[2])),
          begin(std::min(std::max<int64_t>(0, -first), span)), end(std::max(begin, std::min(span, p.input[2] - first))),
          count(ceil_div(span, S)), apart(blocking.compact[2] ? blocking.slab.tap_step[2] : blocking.slab.phase) {
        inside(0, low);
        inside(count - L, high);
    }
    FASTCONV_INLINE void inside(int64_t i, Mask (&mask)[S]) const {
        for (int64_t v = 0; v < S; ++v) mask[v] = lanes_between<T>(begin - i * S - v * L, end - i * S - v * L);
    }

    // The lines of a row that comes soon.
    FASTCONV_INLINE void ask_for(const T* row) const {
        constexpr int64_t line = 64 / int64_t(sizeof(T));
        for (int64_t i = begin; i < end; i += line) __builtin_prefetch(row + first + i);
    }

    FASTCONV_INLINE void fill(const T* row, T* out) const {
        put(row, out, 0, low);
        int64_t i = L;
        for (; i + L < count && i * S < begin; i += L) put_masked(row, out, i);
        for (; i + L < count && (i + L) * S <= end; i += L) put(row, out, i, nullptr);
        for (; i + L < count; i += L) put_masked(row, out, i);
        if (count > L) put(row, out, count - L, high);
    }
    FASTCONV_NOINLINE void put_masked(const T* row, T* out, int64_t i) const {
        Mask mask[S];
        inside(i, mask);
        put(row, out, i, mask);
    }
    FASTCONV_INLINE void put(const T* row, T* out, int64_t i, const Mask* mask) const {
        const T* from = row + first + i * S;
        Vec<T> value[S];
#pragma GCC unroll 4
        for (int64_t v = 0; v < S; ++v) value[v] = mask ? load_masked(from + v * L, mask[v]) : load(from + v * L);
        split<T, S>(value);
#pragma GCC unroll 4
        for (int64_t v = 0; v < strands; ++v) store(out + v * apart + i, value[v]);
    }

    FASTCONV_NOINLINE void mirror(const Problem& p, const T* row, T* out) const {
        const auto put = [&](int64_t i) {
            if (i % S < strands) out[i % S * apart + i / S] = row[source(p, 2, first + i)];
        };
        for (int64_t i = 0; i < begin; ++i) put(i);
        for (int64_t i = end; i < span; ++i) put(i);
    }
};

// Asks: for the next channel's row meanwhile.
template <class T, int S, bool All, bool Asks>
FASTCONV_NOINLINE void fill_rows_asking(const Problem& p, const Blocking& blocking, const Box& box, const T* image, const View& view, T* slab) {
    const RowsAtOnce<T, S, All> rows(p, blocking, box);
    const bool zeros = p.padding_mode == PaddingMode::zeros;
    for_rows(p, blocking, box, image, view, slab, p.in_channels, [&](const T* row, T* out) __attribute__((always_inline)) {
        if (Asks && row) rows.ask_for(row + view.channel);
        if (row) rows.fill(row, out);
        else
            for (int64_t v = 0; v < rows.strands; ++v) clear(out + v * rows.apart, rows.count);
        if (row && !zeros) rows.mirror(p, row, out);
    });
}

// Where inputs come from L3 or memory no processor foresees at which row of the next channel a box goes on; of few channels, which have
// many rows each, it need not.
template <class T, int S, bool All>
void fill_rows_at_once(const Problem& p, const Blocking& blocking, const Box& box, const T* image, const View& view, T* slab) {
    const int64_t bytes = p.in_channels * p.input[0] * p.input[1] * p.input[2] * int64_t(sizeof(T));
    const bool asks = p.in_channels >= 16 && bytes > 512 << 10;
    (asks ? fill_rows_asking<T, S, All, true> : fill_rows_asking<T, S, All, false>)(p, blocking, box, image, view, slab);
}

// The same for longer strides, or where only the first inputs of each stride are read: lanes outputs by lanes taps at a time,
// transposed in registers. Outputs whose taps are not all in the input come one by one, last, as vectors of short strands reach
// into what follows them.
template <class T>
struct RowsTransposed {
    static constexpr int64_t L = lanes<T>;
    typedef typename VectorOf<T>::mask Mask;
    int64_t first, step, strands;  // of the row, in the input; from an output to the next; inputs of each
    int64_t count, apart;          // of a strand; from one to the next
    int64_t low, high;             // outputs whose inputs are all there
    Mask some;                     // what to load of fewer strands than lanes

    // Each vector costs as much, however few of its lanes are wanted.
    static bool suits(const Problem& p, const Blocking& blocking) {
        return strands_of(p, blocking) >= L / 2 && (!blocking.compact[2] || p.dilation[2] == 1);
    }
    static int64_t strands_of(const Problem& p, const Blocking& blocking) {
        return blocking.compact[2] ? p.kernel[2] : blocking.slab.phase ? p.stride[2] : 1;
    }

    RowsTransposed(const Problem& p, const Blocking& blocking, const Box& box)
        : first(box.begin[2] * p.stride[2] - p.pad_lo[2]), step(p.stride[2]), strands(strands_of(p, blocking)),
          count(blocking.compact[2] ? box.size[2] : ceil_div(extent(p, 2, box.size[2]), step)),
          apart(blocking.compact[2] ? blocking.slab.tap_step[2] : blocking.slab.phase),
          low(std::min(count, ceil_div(std::max<int64_t>(0, -first), step))),
          high(std::max(low, std::min(count, (p.input[2] - first - strands + step) / step))), some(lanes_between<T>(0, strands)) {}

    FASTCONV_INLINE void fill(const Problem& p, const T* row, T* out) const {
        for (int64_t f = 0; f < strands && low < high; f += L) {
            const int64_t strand = strands < L ? 0 : std::min(f, strands - L);  // the last ones overlap their neighbours
            for (int64_t i = low; i < high; i += L) {
                if (strands >= L && high - low >= L) put<true>(row, out, strand, std::min(i, high - L));
                else put<false>(row, out, strand, high - low < L ? low : std::min(i, high - L));
            }
        }
        for (int64_t i = 0; i < low; ++i) put_one(p, row, out, i);
        for (int64_t i = high; i < count; ++i) put_one(p, row, out, i);
    }
    template <bool Whole>  // lanes outputs, and as many strands at least
    FASTCONV_INLINE void put(const T* row, T* out, int64_t strand, int64_t i) const {
        const T* from = row + first + i * step + strand;
        T* to = out + strand * apart + i;
        const int64_t last = high - i - 1;
        Vec<T> value[L];
        for (int64_t l = 0; l < L; ++l) value[l] = Whole ? load(from + l * step) : load_masked(from + std::min(l, last) * step, some);
        transpose<T>(value);
        for (int64_t l = 0; l < L; ++l)
            if (Whole || l < strands) store(to + l * apart, value[l]);
    }
    FASTCONV_NOINLINE void put_one(const Problem& p, const T* row, T* out, int64_t i) const {
        for (int64_t f = 0; f < strands; ++f) {
            const int64_t from = source(p, 2, first + i * step + f);
            out[f * apart + i] = from < 0 ? T(0) : row[from];
        }
    }
};

template <class T>
FASTCONV_NOINLINE void fill_rows_transposed(const Problem& p, const Blocking& blocking, const Box& box, const T* image,
                                            const View& view, T* slab) {
    const RowsTransposed<T> rows(p, blocking, box);
    for_rows(p, blocking, box, image, view, slab, p.in_channels, [&](const T* row, T* out) __attribute__((always_inline)) {
        if (row) return rows.fill(p, row, out);
        for (int64_t f = 0; f < rows.strands; ++f) clear(out + f * rows.apart, rows.count);
    });
}

template <class T>
void fill_rows(const Problem& p, const Blocking& blocking, const Box& box, const T* image, const View& view, T* slab) {
    const bool compact = blocking.compact[2], phases = blocking.slab.phase || compact;
    const int64_t step = phases ? p.stride[2] : 1;
    const bool all = !compact || (p.kernel[2] == step && p.dilation[2] == 1);  // strands, and whole ones
    if (view.space[2] == 1) {
        if (step == 1 && (all || p.kernel[2] == 1)) return fill_rows_at_once<T, 1, true>(p, blocking, box, image, view, slab);
        if (step == 2 && all) return fill_rows_at_once<T, 2, true>(p, blocking, box, image, view, slab);
        if (step == 2 && p.kernel[2] == 1) return fill_rows_at_once<T, 2, false>(p, blocking, box, image, view, slab);
        if (step == 3 && all) return fill_rows_at_once<T, 3, true>(p, blocking, box, image, view, slab);
        if (step == 4 && all) return fill_rows_at_once<T, 4, true>(p, blocking, box, image, view, slab);
    }
    if (view.space[2] == 1 && phases && RowsTransposed<T>::suits(p, blocking))
        return fill_rows_transposed(p, blocking, box, image, view, slab);
    for_strands(p, blocking, box, [&](const Strand& strand, int64_t at) {
        for_rows(p, blocking, box, image, view, slab + at, p.in_channels, [&](const T* row, T* out) {
            if (row) fill_row(p, strand, row, view.space[2], out);
            else clear(out, strand.count);
        });
    });
}

// ---- channels side by side

// out[i][c] = from[c * channel + i * stride]: a copy, a transposition in registers, or one by one.
template <class T>
FASTCONV_INLINE void fill_channels(const T* from, int64_t channel, int64_t stride, int64_t channels, int64_t count, T* out, int64_t step) {
    constexpr int L = lanes<T>;
    if (channel == 1) {
        if (stride == channels && step == channels) return copy(out, from, count * channels);
        for (int64_t i = 0; i < count; ++i) copy(out + i * step, from + i * stride, channels);
        return;
    }
    const int64_t whole = stride == 1 ? channels / L * L : 0;
    if (count >= side<T>) transpose_rows(from, channel, whole, count, out, step);
    else
        for (int64_t c = 0; c < whole; c += L) {
            Vec<T> row[L];
            for (int l = 0; l < L; ++l) row[l] = load_first(from + (c + l) * channel, count);
            transpose<T>(row);
            for (int64_t l = 0; l < count; ++l) store(out + l * step + c, row[l]);
        }
    for (int64_t c = whole; c < channels; ++c)
        for (int64_t i = 0; i < count; ++i) out[i * step + c] = from[c * channel + i * stride];
}

// out[i][lane] = the strand's inputs in a row of `channels` channels, lanes at most, with the padding written out, and zeros up to
// `pixels`. Lanes without a channel stay as they are.
template <class T>
FASTCONV_INLINE void fill_strand(const Problem& p, const View& view, const Strand& strand, const T* row, int64_t channels,
                                 int64_t pixels, T* out) {
    constexpr int L = lanes<T>;
    const auto outside = [&](int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; ++j) {
            if (p.padding_mode == PaddingMode::zeros) clear(out + j * L, L);
            else {
                const T* from = row + source(p, 2, strand.first + j * strand.step) * view.space[2];
                fill_channels(from, view.channel, 0, channels, 1, out + j * L, L);
            }
        }
    };
    outside(0, strand.inside);
    fill_channels(row + (strand.first + strand.inside * strand.step) * view.space[2], view.channel, strand.step * view.space[2],
                  channels, strand.end - strand.inside, out + strand.inside * L, L);
    outside(strand.end, strand.count);
    clear(out + strand.count * L, (pixels - strand.count) * L);
}

// Pixel by pixel: put(from, stride, count, out, step) writes all channels of `count` pixels, which begin at `from` and are `stride` apart,
// `step` apart.
template <class T, class Put>
FASTCONV_INLINE void fill_pixels(const Problem& p, const Blocking& blocking, const Box& box, const T* image, const View& view, T* slab, Put put) {
    const int64_t step = blocking.step[2], channels = p.in_channels;
    const auto fill = [&](const Strand& s, const T* row, T* out) {
        const bool zeros = !row || p.padding_mode == PaddingMode::zeros;
        const auto outside = [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                if (zeros) clear(out + i * step, channels);
                else put(row + source(p, 2, s.first + i * s.step) * view.space[2], 0, 1, out + i * step, step);
            }
        };
        outside(0, row ? s.inside : s.count);
        if (!row) return;
        put(row + (s.first + s.inside * s.step) * view.space[2], s.step * view.space[2], s.end - s.inside, out + s.inside * step, step);
        outside(s.end, s.count);
    };
    for_strands(p, blocking, box, [&](const Strand& strand, int64_t at) {
        for_rows(p, blocking, box, image, view, slab + at, 1, [&](const T* row, T* out) { fill(strand, row, out); });
    });
}

template <class T>
void fill_channels_inner(const Problem& p, const Blocking& blocking, const Box& box, const T* image, const View& view, T* slab) {
    fill_pixels(p, blocking, box, image, view, slab, [&](const T* from, int64_t stride, int64_t count, T* out, int64_t step) {
        fill_channels(from, view.channel, stride, p.in_channels, count, out, step);
    });
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
