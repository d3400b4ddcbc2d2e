// How winograd cuts an axis into tiles, and a kernel into kernels that its transforms can take.
#pragma once
#include <utility>

#include "toom.hpp"
#include "window.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// A kernel along depth alone is one along height: the two change places, but for the tile, which is chosen for what comes out.
inline bool along_depth(const Problem& p) { return p.kernel[0] > 1 && p.kernel[1] == 1 && p.kernel[2] == 1; }
inline Problem upright(Problem p) {
    if (!along_depth(p)) return p;
    for (int64_t* of : {p.input, p.output, p.kernel, p.stride, p.dilation, p.pad_lo, p.pad_hi}) std::swap(of[0], of[1]);
    return p;
}
inline View upright(const Problem& p, View view) {
    if (along_depth(p)) std::swap(view.space[0], view.space[1]);
    return view;
}
inline Call upright(const Problem& p, Call call) {
    for (View* of : {&call.input, &call.output, &call.residual}) *of = upright(p, *of);
    return call;
}

// The tiles along an axis. With a dilation every d-th output is a convolution of its own, without dilation, over every d-th input:
// the tiles of phase 0 come first, then those of phase 1, ...
struct Phased {
    int64_t m, dilation, outputs;

    int64_t length(int64_t phase) const { return (outputs + dilation - 1 - phase) / dilation; }  // outputs of a phase
    int64_t long_phases() const { return (outputs - 1) % dilation + 1; }                          // the others have one output less
    int64_t tiles(int64_t phase) const { return ceil_div(length(phase), m); }
    int64_t count() const {
        const int64_t longer = std::min(long_phases(), dilation);
        return longer * tiles(0) + (dilation - longer) * (length(0) > 1 ? ceil_div(length(0) - 1, m) : 0);
    }
};

// A tile's place along an axis: its phase, the outputs of the phase, and which of those it begins with.
struct Spot {
    int64_t phase, length, begin;

    Spot(const Phased& axis, int64_t tile) {
        const int64_t longer = axis.long_phases() * axis.tiles(0);
        if (tile < longer) {
            phase = tile / axis.tiles(0), tile %= axis.tiles(0);
        } else {
            const int64_t each = axis.tiles(axis.dilation - 1);
            phase = axis.long_phases() + (tile - longer) / each, tile = (tile - longer) % each;
        }
        length = axis.length(phase), begin = tile * axis.m;
    }
    int64_t output(const Phased& axis, int64_t i) const { return phase + (begin + i) * axis.dilation; }
};

// Tiles of a block that follow each other along w.
struct Strip {
    int64_t image, depth;
    Spot h, w;
    int64_t count, first;
};

// The taps along an axis, dealt out to components of a few taps each. With a stride s each phase, every s-th tap over every s-th
// input, is a component; phases of more than five taps are cut into pieces of three or four. Component i has the taps
// first(i) + s t, t = 0 .. taps - 1; the last ones may lack their last taps, and then have no product at infinity.
struct Components {
    int64_t kernel, stride, phases, taps, count, full;  // full: the first so many lack nothing

    Components(int64_t kernel_, int64_t stride_) : kernel(kernel_), stride(stride_), phases(std::min(kernel_, stride_)) {
        const int64_t longest = ceil_div(kernel, stride), pieces = longest > most_taps ? ceil_div(longest, 4) : 1;
        taps = ceil_div(longest, pieces), count = phases * pieces, full = 0;
        while (full < count && length(full) == taps) ++full;
    }
    int64_t first(int64_t i) const { return i % phases + i / phases * taps * stride; }
    int64_t length(int64_t i) const { return std::min(taps, ceil_div(kernel - first(i), stride)); }
    int64_t reach() const { return first(count - 1) + (taps - 1) * stride + 1; }  // taps, those that components lack among them
};

// One component of a kernel, as its first tap along each axis.
struct Component {
    int64_t d, h, w;
};

// All components of a kernel, every tap along depth among them. Those that lack taps along h come first, those that lack taps along w
// last: what has a product at infinity, along either axis or both, lies side by side.
struct Split {
    Components h, w;
    int64_t depth;

    explicit Split(const Problem& p) : h(p.kernel[1], p.stride[1]), w(p.kernel[2], p.stride[2]), depth(p.kernel[0]) {}

    int64_t count() const { return h.count * w.count * depth; }
    int64_t taps() const { return h.reach() * w.reach() * depth; }
    int64_t begin(bool h_infinite) const { return h_infinite ? (h.count - h.full) * w.full * depth : 0; }
    int64_t end(bool h_infinite, bool w_infinite) const {
        return w_infinite ? h.count * w.full * depth : h_infinite ? (h.count * w.full + h.full * (w.count - w.full)) * depth : count();
    }

    Component at(int64_t i) const {
        const int64_t d = i % depth, lacking_h = h.count - h.full, lacking_w = w.count - w.full;
        const auto in = [&](int64_t first_h, int64_t first_w, int64_t columns) {
            return Component{d, h.first(first_h + i / columns), w.first(first_w + i % columns)};
        };
        i /= depth;
        if (i < lacking_h * w.full) return in(h.full, 0, w.full);
        i -= lacking_h * w.full;
        if (i < h.full * w.full) return in(0, 0, w.full);
        i -= h.full * w.full;
        if (i < h.full * lacking_w) return in(0, w.full, lacking_w);
        i -= h.full * lacking_w;
        return in(h.full, w.full, lacking_w);
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
