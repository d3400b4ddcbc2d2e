// How winograd cuts a problem, and its weights: transformed, in the order in which the products read them.
#pragma once
#include <algorithm>

#include "crew.hpp"
#include "pack.hpp"
#include "tiling.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

constexpr int64_t most_packed_taps = 1024;  // of all components, those that they lack among them: a block's stay in L2

template <class T>
struct Tiles {
    static constexpr int64_t line = 64 / int64_t(sizeof(T));
    Split split;
    Axis<T> h, w;
    Phased down, along;
    int64_t products, rows, columns, slices, count;  // a slice: one image at one depth

    explicit Tiles(const Problem& p)
        : split(p), h(p.tile[1], split.h.taps), w(p.tile[2], split.w.taps), down{h.m, h.taps > 1 ? p.dilation[1] : 1, p.output[1]},
          along{w.m, w.taps > 1 ? p.dilation[2] : 1, p.output[2]}, products(h.size * w.size), rows(down.count()),
          columns(along.count()), slices(p.batch * p.output[0]), count(slices * rows * columns) {}
};

// bias [group][padded oc], U [group][chunk][product][block of 2 vectors][c][width of the block], the weights [group][vector of oc][c][tap][lanes]
template <class T>
struct WinogradPacking {
    static constexpr int64_t wide = 2 * lanes<T>, most_of_one = 256 / int64_t(sizeof(T));
    int64_t products, channels, padded, inner, blocks, chunks;

    explicit WinogradPacking(const Problem& p)
        : products(Tiles<T>(p).products), channels(p.out_channels), padded(round_up(channels, lanes<T>)),
          inner(Split(p).count() * p.in_channels), blocks(ceil_div(padded, wide)),
          chunks(padded <= most_of_one ? 1 : std::min(blocks, 2 * std::max<int64_t>(1, padded / (2 * most_of_one)))) {}
    int64_t first(int64_t i) const { return blocks * i / chunks * wide; }
    int64_t width(int64_t i) const { return std::min(first(i + 1), padded) - first(i); }
    int64_t chunk(int64_t block) const { return ((block + 1) * chunks - 1) / blocks; }  // that the block is in
    int64_t widest() const { return std::min(ceil_div(blocks, chunks) * wide, padded); }
    int64_t transformed(const Problem& p, int64_t group, int64_t i) const {
        return round_up(p.groups * padded, Tiles<T>::line) + (group * padded + std::min(first(i), padded)) * products * inner;
    }
    int64_t plain(const Problem& p) const { return transformed(p, p.groups, 0); }  // the weights, not transformed
    size_t bytes(const Problem& p) const {
        return size_t(plain(p) + p.groups * padded * k_of(p)) * sizeof(T);
    }
};

template <class T>
struct WinogradPack {
    using Packing = WinogradPacking<T>;
    static constexpr int64_t slice = 16;  // input channels at a time
    const Problem p;
    const PackCall& call;
    View lie{};
    const T *weight, *bias;
    T* out;
    int64_t parts;

    WinogradPack(const Problem& problem, const PackCall& c)
        : p(upright(problem)), call(c), lie(upright(problem, c.lie ? *c.lie : View{})), weight(static_cast<const T*>(c.weight)), bias(static_cast<const T*>(c.bias)),
          out(static_cast<T*>(c.packed)), parts(std::min<int64_t>(c.threads, p.groups * Packing(p).blocks)) {}

    struct Scratch {
        T *dealt, *half;  // taps of a block, and a component of them transformed along h; see block, transform
        int64_t *place, *from;  // of each tap in `dealt`; where the weights do not lie one after another, from the first tap on
        size_t bytes;
        Scratch(const WinogradPack& job, void* base) {
            const Tiles<T> tiles(job.p);
            const int64_t channels = job.at_once() * Packing::wide;
            Arena arena(base);
            dealt = arena.take<T>(tiles.split.taps() * channels);
            half = arena.take<T>(tiles.h.size * tiles.w.taps * channels);
            place = arena.take<int64_t>(kernel_volume(job.p));
            from = arena.take<int64_t>(kernel_volume(job.p));
            bytes = arena.used();
        }
    };
    int64_t at_once() const { return std::min(slice, most_packed_taps / Split(p).taps()); }  // input channels
    size_t workspace_bytes() const { return size_t(parts) * Scratch(*this, nullptr).bytes; }

    void compute() const {
        const Packing packing(p);
        const size_t bytes = Scratch(*this, nullptr).bytes;
        for_ranges(call.parallel_for, parts, p.groups * packing.blocks, [&](int64_t begin, int64_t end, int64_t part) {
            const Scratch s(*this, static_cast<char*>(call.workspace) + size_t(part) * bytes);
            for (int64_t i = begin; i < end; ++i) block(packing, i / packing.blocks, i % packing.blocks, s);
            stored_past();
        });
    }

    // A block of two vectors of output channels of a group. Its taps first: dealt[tap][channel][width], every axis as long as its
    // components reach, 0 where they lack taps; then a component is a stride through them.
    void block(const Packing& packing, int64_t group, int64_t index, const Scratch& s) const {
        const Split split(p);
        const int64_t first = index * packing.wide, width = std::min(packing.wide, packing.padded - first);
        const int64_t rows = split.h.reach(), columns = split.w.reach(), row = k_of(p);
        const int64_t at_once = this->at_once(), step = at_once * width;
        for (int64_t i = 0; i < kernel_volume(p); ++i) {
            const int64_t w = i % p.kernel[2], h = i / p.kernel[2] % p.kernel[1], d = i / p.kernel[2] / p.kernel[1];
            s.place[i] = ((d * rows + h) * columns + w) * step;
            s.from[i] = d * lie.space[0] + h * lie.space[1] + w * lie.space[2];
        }
        if (split.taps() > kernel_volume(p)) clear(s.dealt, split.taps() * step);
        const T* from = weight + (group * packing.channels + first) * (call.lie ? lie.batch : row);
        for (int64_t k = 0; k < p.in_channels; k += at_once) {
            const int64_t n = std::min(at_once, p.in_channels - k);
            if (call.lie) deal(from + k * lie.channel, packing.channels - first, width, n, s);
            else
                pack_block(from + k * kernel_volume(p), row, kernel_volume(p), n * kernel_volume(p), packing.channels - first, width,
                           [&](int64_t channel, int64_t tap) { return s.dealt + s.place[tap] + channel * width; });
            T* plain = out + packing.plain(p) + (group * packing.padded + first) * row + k * kernel_volume(p) * lanes<T>;
            for (int64_t v = 0; v < width; v += lanes<T>) keep_plain(plain + v * row, s.dealt + v, s.place, width, n);
            for (int64_t i = 0; i < split.count(); ++i) {
                const Component c = split.at(i);
                transform(packing, group, index, s.dealt + ((c.d * rows + c.h) * columns + c.w) * step, columns * step, step,
                          i * p.in_channels + k, n, s.half);
            }
        }
        for (int64_t c = first; c < first + width; ++c)
            out[group * packing.padded + c] = bias && c < packing.channels ? bias[group * packing.channels + c] : T(0);
    }

    // Weights in any order, as those of a gradient, where the taps of output channels lie side by side.
    FASTCONV_NOINLINE void deal(const T* from, int64_t channels, int64_t width, int64_t n, const Scratch& s) const {
        const int64_t there = std::min(width, channels), step = lie.batch;
        for (int64_t channel = 0; channel < n; ++channel, from += lie.channel)
            for (int64_t tap = 0; tap < kernel_volume(p); ++tap) {
                const T* x = from + s.from[tap];
                T* to = s.dealt + s.place[tap] + channel * width;
                for (int64_t i = 0; i < there; ++i) to[i] = x[i * step];
                for (int64_t i = there; i < width; ++i) to[i] = T(0);
            }
    }

    // The taps of n channels: to[channel][tap][lanes]
    void keep_plain(T* to, const T* dealt, const int64_t* place, int64_t width, int64_t n) const {
        for (int64_t channel = 0; channel < n; ++channel, dealt += width)
            for (int64_t tap = 0; tap < kernel_volume(p); ++tap, to += lanes<T>) store_past(to, load(dealt + place[tap]), call.shared);
    }

    // n channels of a component, k of U on, whose taps are row_step and column_step apart before the stride.
    void transform(const Packing& packing, int64_t group, int64_t index, const T* from, int64_t row_step, int64_t column_step, int64_t k,
                   int64_t n, T* half) const {
        const Tiles<T> tiles(p);
        const Axis<T>&h = tiles.h, &w = tiles.w;
        const int64_t first = index * packing.wide, width = std::min(packing.wide, packing.padded - first), chunk = packing.chunk(index);
        const int64_t plane = packing.inner * packing.width(chunk), tap = n * width, vectors = tap / lanes<T>;  // plane: of a product
        T* to = out + packing.transformed(p, group, chunk) + (first - packing.first(chunk)) * packing.inner + k * width;
        for (int64_t j = 0; j < w.taps; ++j)
            h.weights(from + j * p.stride[2] * column_step, p.stride[1] * row_step, lanes<T>, half + j * tap, w.taps * tap, lanes<T>, vectors,
                      false);
        for (int64_t i = 0; i < h.size; ++i)
            w.weights(half + i * w.taps * tap, tap, lanes<T>, to + i * w.size * plane, plane, lanes<T>, vectors, call.shared);
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
