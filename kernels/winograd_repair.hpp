// What winograd does where a tile has a NaN or infinity among its outputs: it sums the products of that tile, so that neither leaves
// its windows.
//
//   out[pixel][oc] = bias[oc] + sum over c, tap of window[c][pixel + tap] * w[c][tap][oc]
//
// What a strip reads is copied once for a chunk of output channels, the padding written out; then 8 pixels at a time by a vector of
// output channels, so that a tile costs about what it does in gemm. Bottleneck: a load, of one input for all lanes, per multiply-add.
#pragma once
#include "slab.hpp"
#include "winograd_packing.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <class T>
struct Window {  // [c][d][row][column], of a strip of so many pixels along w
    static constexpr int L = lanes<T>;
    static constexpr int64_t at_once = 8;
    const Problem& p;
    const Tiles<T>& tiles;
    int64_t rows, columns, plane;  // plane: of a channel

    Window(const Problem& problem, const Tiles<T>& of, int64_t pixels)
        : p(problem), tiles(of), rows((of.h.m - 1) * p.stride[1] + p.kernel[1]), columns((pixels - 1) * p.stride[2] + p.kernel[2]),
          plane(p.kernel[0] * rows * columns) {}
    int64_t elements() const { return p.in_channels * plane; }

    // With a dilation the taps of an output are side by side: what lies between them is another phase's.
    void fill(const Strip& t, const View& view, int64_t group, T* out) const {
        const int64_t first_h = t.h.output(tiles.down, 0) * p.stride[1] - p.pad_lo[1];
        const Strand strand(p, t.w.output(tiles.along, 0) * p.stride[2] - p.pad_lo[2], tiles.along.dilation, columns);
        const T* image = at<const T>(view, t.image, group * p.in_channels);
        for (int64_t i = 0; i < p.kernel[0] * rows; ++i, out += columns) {
            const int64_t d = source(p, 0, t.depth * p.stride[0] - p.pad_lo[0] + i / rows * p.dilation[0]);
            const int64_t h = source(p, 1, first_h + i % rows * tiles.down.dilation);
            for (int64_t c = 0; c < p.in_channels; ++c) {
                if (d < 0 || h < 0) clear(out + c * plane, columns);
                else fill_row(p, strand, image + c * view.channel + d * view.space[0] + h * view.space[1], view.space[2], out + c * plane);
            }
        }
    }

    // Of each tap, from where its pixel is in a plane.
    void fill_offsets(int64_t* offset) const {
        for (int64_t i = 0; i < kernel_volume(p); ++i)
            offset[i] = (i / p.kernel[2] / p.kernel[1] * rows + i / p.kernel[2] % p.kernel[1]) * columns + i % p.kernel[2];
    }

    int64_t place(int64_t row, int64_t column) const { return row * p.stride[1] * columns + column * p.stride[2]; }  // of a pixel

    // Pixels whose inputs begin at x, of a vector of output channels, to y.
    FASTCONV_NOINLINE void sum(const T* const (&x)[at_once], const int64_t* offset, const T* weight, const T* bias,
                               T* const (&y)[at_once]) const {
        const int64_t end = elements(), step = plane, volume = kernel_volume(p);
        Vec<T> sum[at_once];
#pragma GCC unroll 8
        for (int64_t i = 0; i < at_once; ++i) sum[i] = load(bias);
        for (int64_t channel = 0; channel < end; channel += step)
            for (int64_t tap = 0; tap < volume; ++tap, weight += L) {
                const Vec<T> factor = load(weight);
                const int64_t at = channel + offset[tap];
#pragma GCC unroll 8
                for (int64_t i = 0; i < at_once; ++i) sum[i] += broadcast(x[i][at]) * factor;
            }
#pragma GCC unroll 8
        for (int64_t i = 0; i < at_once; ++i) store(y[i], sum[i]);
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
