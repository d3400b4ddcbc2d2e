// How winograd cuts a problem, and its weights: transformed, in the order in which the products read them.
#pragma once
#include <algorithm>
#include <cstdlib>

#include "crew.hpp"
#include "pack.hpp"
#include "tiling.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

constexpr int64_t far_bytes = 4 << 20;  // more transformed weights than stay in L2
constexpr int64_t dealt_bytes = 1 << 20;  // of the weights of two vectors of output channels, of all components: they stay in L2
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
    bool is_far() const { return products * inner * padded * int64_t(sizeof(T)) > far_bytes; }  // U of a group, from L2
    size_t bytes(const Problem& p) const {
        return size_t(plain(p) + p.groups * padded * k_of(p)) * sizeof(T);
    }
};

// Lines of rows that are read soon, from L3 or memory: a few at a time, as a core waits for some twenty at once.
template <class T>
struct Ahead {
    static constexpr int64_t line = 64 / int64_t(sizeof(T));
    const T* row;
    int64_t row_step, lines, left, some, next = 0;  // lines: of a row; next: of its lines

    FASTCONV_INLINE void ask() {
        for (int64_t i = std::min(some, left); i > 0; --i, --left) {
            __builtin_prefetch(row + next * line, 0, 2);
            if (++next == lines) next = 0, row += row_step;
        }
    }
};

// Weights as they lie, transformed a few input channels of a block of two vectors of output channels at a time: to U when packing, or
// while a call goes on.
template <class T>
struct WinogradWeights {
    static constexpr int L = lanes<T>;
    static constexpr int64_t slice = 16;   // input channels at a time
    static constexpr int64_t in_l1 = 8;    // vectors of taps that go through both transforms at a time
    const Problem& p;
    const T* weight;
    const View* lie;   // null: C-contiguous
    int64_t at_once;   // input channels that are dealt

    struct Scratch {
        T *dealt, *half;  // taps of a block, and some of a component of them transformed along h; see deal, transform
        int64_t* place;   // of each tap in `dealt`
        Scratch() = default;
        Scratch(const Problem& p, int64_t at_once, Arena& arena) {
            const Tiles<T> tiles(p);
            dealt = arena.take<T>(tiles.split.taps() * at_once * WinogradPacking<T>::wide);
            half = arena.take<T>(tiles.h.size * tiles.w.taps * in_l1 * L);
            place = arena.take<int64_t>(kernel_volume(p));
        }
    };
    static int64_t few(const Problem& p) { return std::min(slice, most_packed_taps / Split(p).taps()); }  // input channels
    // In place all of them are dealt at once for all components, which are further channels there, one component after another.
    static int64_t in_place(const Problem& p) { return Split(p).count() > 1 ? p.in_channels : few(p); }
    static bool fits(const Problem& p) {
        return Split(p).taps() * in_place(p) * WinogradPacking<T>::wide * int64_t(sizeof(T)) <= dealt_bytes;
    }

    // Before blocks of so many output channels. Their taps are dealt[tap][channel][width], every axis as long as its components
    // reach, 0 where they lack taps; then a component is a stride through them.
    void begin(int64_t width, const Scratch& s) const {
        const Split split(p);
        const int64_t rows = split.h.reach(), columns = split.w.reach(), step = at_once * width;
        for (int64_t i = 0; i < kernel_volume(p); ++i) {
            const int64_t w = i % p.kernel[2], h = i / p.kernel[2] % p.kernel[1], d = i / p.kernel[2] / p.kernel[1];
            s.place[i] = ((d * rows + h) * columns + w) * step;
        }
        if (split.taps() > kernel_volume(p)) clear(s.dealt, split.taps() * step);
    }

    auto places(int64_t width, const Scratch& s) const {
        return [width, &s](int64_t channel, int64_t tap) { return s.dealt + s.place[tap] + channel * width; };
    }

    // n input channels from k on, of `width` output channels from `first` on, of which the group has `channels`: to
    // place(channel, tap)[width].
    template <class Place>
    void deal(int64_t group, int64_t first, int64_t channels, int64_t width, int64_t k, int64_t n, const Place& place) const {
        const int64_t row = k_of(p), volume = kernel_volume(p), oc = group * channels + first, there = std::min(width, channels - first);
        if (!lie) return deal_rows(weight + oc * row + k * volume, there, width, n * volume, place);
        Problem some = p;
        some.in_channels = n;
        AnyOrder<T>(some, *lie).pack(weight + oc * lie->batch + k * lie->channel, there, width, place, false);
    }

    // Where all rows lie in as many bytes behind a line, whole lines but for the first and the last: rows that share sets of L1, as with
    // 512 or 1024 channels, would be fetched twice.
    template <class Place>
    void deal_rows(const T* from, int64_t there, int64_t width, int64_t count, const Place& place) const {
        const int64_t row = k_of(p), volume = kernel_volume(p);
        const int64_t head = -int64_t(reinterpret_cast<uintptr_t>(from) / sizeof(T)) & (Ahead<T>::line - 1);
        if (head == 0 || head >= count || row % Ahead<T>::line) return pack_block(from, row, volume, count, there, width, place);
        pack_block(from, row, volume, head, there, width, place);
        int64_t channel = head / volume, tap = head % volume;
        pack_block(from + head, row, count, count - head, there, width, [&](int64_t, int64_t) {
            T* const to = place(channel, tap);
            if (++tap == volume) tap = 0, ++channel;
            return to;
        });
    }

    // What deal reads, asked for in so many pieces: rows of all taps of several channels, input or output channels.
    Ahead<T> ahead(int64_t group, int64_t first, int64_t channels, int64_t width, int64_t k, int64_t n, int64_t pieces) const {
        const int64_t volume = kernel_volume(p), there = std::max<int64_t>(0, std::min(width, channels - first));
        const int64_t outer = lie ? lie->batch : k_of(p), inner = lie ? lie->channel : volume;
        const bool by_outputs = std::abs(outer) > std::abs(inner);
        const T* from = weight + (group * channels + first) * outer + k * inner;
        for (int a = 0; lie && a < max_axes; ++a) from += std::min<int64_t>(0, lie->space[a]) * (p.kernel[a] - 1);
        const int64_t rows = by_outputs ? there : n, lines = ceil_div((by_outputs ? n : there) * volume, Ahead<T>::line) * (there > 0);
        return {from, by_outputs ? outer : inner, lines, rows * lines, ceil_div(rows * lines, pieces)};
    }

    // to[product][channel][width], products a plane apart: n dealt channels of a component, from `first` on. Some vectors at a time,
    // whose transforms along h stay in L1.
    void transform(const Tiles<T>& tiles, int64_t component, int64_t first, int64_t n, int64_t width, T* to, int64_t plane, bool past,
                   const Scratch& s) const {
        const Axis<T>&h = tiles.h, &w = tiles.w;
        const Component c = tiles.split.at(component);
        const int64_t step = at_once * width, columns = tiles.split.w.reach();
        const T* from = s.dealt + ((c.d * tiles.split.h.reach() + c.h) * columns + c.w) * step + first * width;
        for (int64_t v = 0; v < n * width; v += in_l1 * L, from += in_l1 * L, to += in_l1 * L) {
            const int64_t vectors = std::min(in_l1, (n * width - v) / L);
            for (int64_t j = 0; j < w.taps; ++j)
                h.weights(from + j * p.stride[2] * step, p.stride[1] * columns * step, L, s.half + j * in_l1 * L, w.taps * in_l1 * L, L,
                          vectors, false);
            for (int64_t i = 0; i < h.size; ++i)
                w.weights(s.half + i * w.taps * in_l1 * L, in_l1 * L, L, to + i * w.size * plane, plane, L, vectors, past);
        }
    }
};

template <class T>
struct WinogradPack {
    using Packing = WinogradPacking<T>;
    using Weights = WinogradWeights<T>;
    const Problem p;
    const PackCall& call;
    View lie{};
    const T* bias;
    T* out;
    int64_t parts;

    WinogradPack(const Problem& problem, const PackCall& c)
        : p(upright(problem)), call(c), lie(upright(problem, c.lie ? *c.lie : View{})), bias(static_cast<const T*>(c.bias)),
          out(static_cast<T*>(c.packed)), parts(std::min<int64_t>(c.threads, p.groups * Packing(p).blocks)) {}

    size_t part_bytes() const {
        Arena arena(nullptr);
        typename Weights::Scratch(p, Weights::few(p), arena);
        return arena.used();
    }
    size_t workspace_bytes() const { return size_t(parts) * part_bytes(); }

    void compute() const {
        const Packing packing(p);
        const size_t bytes = part_bytes();
        for_ranges(call.parallel_for, parts, p.groups * packing.blocks, [&](int64_t begin, int64_t end, int64_t part) {
            Arena arena(static_cast<char*>(call.workspace) + size_t(part) * bytes);
            const typename Weights::Scratch s(p, Weights::few(p), arena);
            for (int64_t i = begin; i < end; ++i) block(packing, i / packing.blocks, i % packing.blocks, s);
            stored_past();
        });
    }

    // A block of two vectors of output channels of a group.
    void block(const Packing& packing, int64_t group, int64_t index, const typename Weights::Scratch& s) const {
        const Tiles<T> tiles(p);
        const Weights weights{p, static_cast<const T*>(call.weight), call.lie ? &lie : nullptr, Weights::few(p)};
        const int64_t first = index * packing.wide, width = std::min(packing.wide, packing.padded - first), row = k_of(p);
        const int64_t chunk = packing.chunk(index), plane = packing.inner * packing.width(chunk);  // of a product
        T* const u = out + packing.transformed(p, group, chunk) + (first - packing.first(chunk)) * packing.inner;
        T* plain = out + packing.plain(p) + (group * packing.padded + first) * row;
        weights.begin(width, s);
        for (int64_t k = 0, n; k < p.in_channels; k += n) {
            n = std::min(weights.at_once, p.in_channels - k);
            weights.deal(group, first, packing.channels, width, k, n, weights.places(width, s));
            for (int64_t v = 0; v < width; v += lanes<T>)
                keep_plain(plain + v * row + k * kernel_volume(p) * lanes<T>, s.dealt + v, s.place, width, n);
            for (int64_t i = 0; i < tiles.split.count(); ++i)
                weights.transform(tiles, i, 0, n, width, u + (i * p.in_channels + k) * width, plane, call.shared, s);
        }
        for (int64_t c = first; c < first + width; ++c)
            out[group * packing.padded + c] = bias && c < packing.channels ? bias[group * packing.channels + c] : T(0);
    }

    // The taps of n channels: to[channel][tap][lanes]
    void keep_plain(T* to, const T* dealt, const int64_t* place, int64_t width, int64_t n) const {
        for (int64_t channel = 0; channel < n; ++channel, dealt += width)
            for (int64_t tap = 0; tap < kernel_volume(p); ++tap, to += lanes<T>) store_past(to, load(dealt + place[tap]), call.shared);
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
