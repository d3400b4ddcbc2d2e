// The inputs of winograd's tiles, transformed: V[product][vector of c][tile][lanes], see winograd.cpp.
//
// Tiles that follow each other along w are a strip. What it reads of a vector of input channels is put in rows, [row][pixel][lanes], the
// padding written out; the vertical transform is done once per column of these, the horizontal one writes to V. Of a kernel that is
// several, all components of a channel are read while its rows are in L1.
#pragma once
#include "slab.hpp"
#include "winograd_packing.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// body(strip) for the strips of the tiles first .. end
template <class T, class Body>
FASTCONV_INLINE void for_strips(const Problem& p, const Tiles<T>& tiles, int64_t first, int64_t end, Body body) {
    for (int64_t t = first; t < end;) {
        const int64_t row = t / tiles.columns, slice = row / tiles.rows;
        const Spot h(tiles.down, row % tiles.rows), w(tiles.along, t % tiles.columns);
        const int64_t count = std::min(ceil_div(w.length - w.begin, tiles.w.m), end - t);
        body(Strip{slice / p.output[0], slice % p.output[0], h, w, count, t - first});
        t += count;
    }
}

template <class T>
struct WinogradInputs {
    static constexpr int L = lanes<T>;
    const Problem& p;
    const View& view;
    const Tiles<T>& tiles;
    int64_t inner, most, v_plane;  // channels of all components; tiles of a block; elements between products

    struct Scratch { T *v, *rows, *half; };  // the last two: of a strip

    static int64_t vectors(const Problem& p) { return ceil_div(p.in_channels, L); }  // of input channels

    // Of the tiles first_tile .. end_tile the vectors of input channels first .. end.
    void transform(int64_t first_tile, int64_t end_tile, int64_t group, int64_t first, int64_t end, const Scratch& s) const {
        const T* image = at<const T>(view, 0, group * p.in_channels);
        for_strips(p, tiles, first_tile, end_tile, [&](const Strip& t) __attribute__((always_inline)) {
            const int64_t pixels = t.count * tiles.w.m + tiles.w.size - tiles.w.m;
            Rows of = rows(t, tiles.split.at(0), pixels);
            for (int64_t c = first; c < end; ++c)  // all components of a channel while its rows are in L1
                for (int64_t k = c * L; k < inner; k += vectors(p) * L) {
                    if (tiles.split.count() > 1) of = rows(t, tiles.split.at(k / p.in_channels), pixels);
                    fill(t, of, image + t.image * view.batch, k, pixels, s);
                    const T* from = s.rows;
                    if (tiles.h.size > 1) {
                        tiles.h.input(s.rows, pixels * L, L, s.half, pixels * L, L, pixels);
                        from = s.half;
                    }
                    for (int64_t i = 0; i < tiles.h.size; ++i)
                        tiles.w.input(from + i * pixels * L, L, tiles.w.m * L,
                                      s.v + i * tiles.w.size * v_plane + k * most + t.first * L, v_plane, L, t.count);
                }
        });
    }

    // What a strip reads of any input channel for one component of the kernel.
    struct Rows {
        int64_t plane;  // from the channel's first element; -1: zeros
        int64_t first;  // padded coordinate of row 0
        Strand strand;
    };
    Rows rows(const Strip& t, const Component& c, int64_t pixels) const {
        const int64_t d = source(p, 0, t.depth * p.stride[0] - p.pad_lo[0] + c.d * p.dilation[0]);
        const int64_t read = std::min(pixels, t.w.length + tiles.w.taps - 1 - t.w.begin);
        return {d < 0 ? -1 : d, t.h.output(tiles.down, 0) * p.stride[1] - p.pad_lo[1] + c.h * tiles.down.dilation,
                Strand(p, t.w.output(tiles.along, 0) * p.stride[2] - p.pad_lo[2] + c.w * tiles.along.dilation,
                       p.stride[2] * tiles.along.dilation, read)};
    }
    const T* row(const Strip& t, const Rows& r, const T* channel, int64_t i) const {  // null: zeros, or no output needs it
        if (r.plane < 0 || i >= t.h.length + tiles.h.taps - 1 - t.h.begin) return nullptr;
        const int64_t h = source(p, 1, r.first + i * p.stride[1] * tiles.down.dilation);
        return h < 0 ? nullptr : channel + r.plane * view.space[0] + h * view.space[1];
    }

    // out[row][pixel][L]: the inputs of a vector of k, which is an input channel of a component; the padding written out, and 0 where
    // no output needs them
    void fill(const Strip& t, const Rows& of, const T* image, int64_t k, int64_t pixels, const Scratch& s) const {
        const int64_t count = std::min<int64_t>(L, inner - k), c = k % p.in_channels;
        if (count < L) clear(s.rows, tiles.h.size * pixels * L);
        if (c + count > p.in_channels || (of.strand.step * view.space[2] != 1 && view.channel != 1))
            return fill_one_by_one(t, of, image, k, count, pixels, s);
        for (int64_t i = 0; i < tiles.h.size; ++i) {
            const T* from = row(t, of, image + c * view.channel, i);
            T* out = s.rows + i * pixels * L;
            if (from) fill_strand(p, view, of.strand, from, count, pixels, out);
            else clear(out, pixels * L);
        }
    }

    // Channels of several components (`of` is the first one's), or with a stride along w: every channel's rows on their own, before
    // they come together.
    void fill_one_by_one(const Strip& t, const Rows& of, const T* image, int64_t k, int64_t count, int64_t pixels, const Scratch& s) const {
        const int64_t channels = p.in_channels, step = pixels * L;
        for (int64_t l = 0, n; l < count; l += n) {
            const int64_t c = (k + l) % channels;
            n = std::min(count - l, channels - c);
            const Rows its = l ? rows(t, tiles.split.at((k + l) / channels), pixels) : of;
            for (int64_t i = 0; i < tiles.h.size; ++i)
                fill_plain(its.strand, row(t, its, image + c * view.channel, i), n, pixels, s.half + i * step + l * pixels);
        }
        for (int64_t i = 0; i < tiles.h.size; ++i)
            fill_channels(static_cast<const T*>(s.half + i * step), pixels, 1, count, pixels, s.rows + i * step, L);
    }

    // out[channel][pixel], of a row that may be null
    FASTCONV_INLINE void fill_plain(const Strand& strand, const T* row, int64_t channels, int64_t pixels, T* out) const {
        if (!row) return clear(out, channels * pixels);
        for (int64_t c = 0; c < channels; ++c, out += pixels, row += view.channel) {
            fill_row(p, strand, row, view.space[2], out);
            for (int64_t i = strand.count; i < pixels; ++i) out[i] = T(0);
        }
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
