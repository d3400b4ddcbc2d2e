// Filling slabs: the input of a box with the padding written out, so that what follows is a valid convolution.
#pragma once
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

// body(padded coordinate relative to the box, index in the slab) along axis a.
template <class Body>
FASTCONV_INLINE void for_coordinates(const Problem& p, const Blocking& blocking, const Box& box, int a, Body body) {
    if (!blocking.compact[a]) {
        const int64_t span = extent(p, a, box.size[a]);
        for (int64_t i = 0; i < span; ++i) body(i, i);
        return;
    }
    for (int64_t t = 0; t < p.kernel[a]; ++t)
        for (int64_t o = 0; o < box.size[a]; ++o) body(t * p.dilation[a] + o * p.stride[a], t * blocking.box[a] + o);
}

// write(strand, row, out) for every row of the box, one of `planes` channels after another: `row` is its first input, or null for a
// row of zeros, `out` where its strand begins. Strands are the row itself, or its phases, or (compact) one per tap.
template <class T, class Write>
FASTCONV_INLINE void for_rows(const Problem& p, const Blocking& blocking, const Box& box, const T* image, const View& view, T* slab,
                              int64_t planes, Write write) {
    const Strides& s = blocking.slab;
    int64_t first[max_axes];
    for (int a = 0; a < max_axes; ++a) first[a] = box.begin[a] * p.stride[a] - p.pad_lo[a];
    const bool compact = blocking.compact[2];
    const int64_t strands = compact ? p.kernel[2] : s.phase ? p.stride[2] : 1, span = extent(p, 2, box.size[2]);
    for (int64_t f = 0; f < strands; ++f) {
        const Strand strand = compact ? Strand(p, first[2] + f * p.dilation[2], p.stride[2], box.size[2])
                                      : Strand(p, first[2] + f, strands, ceil_div(span - f, strands));
        for (int64_t c = 0; c < planes; ++c) {
            const T* plane = image + c * view.channel;
            T* begin = slab + c * s.channel + f * (compact ? s.tap_step[2] : s.phase);
            for_coordinates(p, blocking, box, 0, [&](int64_t d, int64_t at_d) {
                const int64_t from_d = source(p, 0, first[0] + d);
                for_coordinates(p, blocking, box, 1, [&](int64_t h, int64_t at_h) {
                    const int64_t from_h = source(p, 1, first[1] + h);
                    const bool zeros = from_d < 0 || from_h < 0;
                    write(strand, zeros ? nullptr : plane + from_d * view.space[0] + from_h * view.space[1],
                          begin + at_d * blocking.step[0] + at_h * blocking.step[1]);
                });
            });
        }
    }
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

template <class T>
void fill_rows(const Problem& p, const Blocking& blocking, const Box& box, const T* image, const View& view, T* slab) {
    for_rows(p, blocking, box, image, view, slab, p.in_channels, [&](const Strand& strand, const T* row, T* out) {
        if (row) fill_row(p, strand, row, view.space[2], out);
        else clear(out, strand.count);
    });
}

// ---- channels side by side

// out[i][c] = from[c * channel + i * stride]: a copy, a transposition in registers, or one by one.
template <class T>
FASTCONV_INLINE void fill_channels(const T* from, int64_t channel, int64_t stride, int64_t channels, int64_t count, T* out, int64_t step) {
    constexpr int L = lanes<T>;
    if (channel == 1) {
        for (int64_t i = 0; i < count; ++i) copy(out + i * step, from + i * stride, channels);
        return;
    }
    const int64_t whole = stride == 1 ? channels / L * L : 0;
    for (int64_t i = 0; i < count; i += L)
        for (int64_t c = 0; c < whole; c += L) {
            const int64_t n = std::min<int64_t>(L, count - i);
            Vec<T> row[L];
            if (n == L) {  // constant trip counts: the rows stay in registers
                for (int l = 0; l < L; ++l) row[l] = load(from + (c + l) * channel + i);
                transpose<T>(row);
                for (int l = 0; l < L; ++l) store(out + (i + l) * step + c, row[l]);
            } else {
                for (int l = 0; l < L; ++l) row[l] = load_first(from + (c + l) * channel + i, n);
                transpose<T>(row);
                for (int64_t l = 0; l < n; ++l) store(out + (i + l) * step + c, row[l]);
            }
        }
    for (int64_t c = whole; c < channels; ++c)
        for (int64_t i = 0; i < count; ++i) out[i * step + c] = from[c * channel + i * stride];
}

template <class T>
void fill_channels_inner(const Problem& p, const Blocking& blocking, const Box& box, const T* image, const View& view, T* slab) {
    const int64_t step = blocking.step[2], channels = p.in_channels;
    for_rows(p, blocking, box, image, view, slab, 1, [&](const Strand& s, const T* row, T* out) {
        const bool zeros = !row || p.padding_mode == PaddingMode::zeros;
        const auto outside = [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                if (zeros) clear(out + i * step, channels);
                else fill_channels(row + source(p, 2, s.first + i * s.step) * view.space[2], view.channel, 0, channels, 1, out + i * step, step);
            }
        };
        outside(0, row ? s.inside : s.count);
        if (!row) return;
        fill_channels(row + (s.first + s.inside * s.step) * view.space[2], view.channel, s.step * view.space[2], channels,
                      s.end - s.inside, out + s.inside * step, step);
        outside(s.end, s.count);
    });
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
