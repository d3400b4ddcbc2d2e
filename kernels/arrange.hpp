// Arrays in another order: weights in that of their axes, wherever they lie (those of a gradient are the layer's with channels swapped and
// taps backwards, which element by element touches another page with each), and the phases of a gradient side by side.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "threads.hpp"

namespace fastconv {

template <class Body>
void in_ranges(int64_t count, double elements, int threads, const Body& body) {
    struct Work {
        const Body& body;
        int64_t count, parts;
    } work{body, count, std::max<int64_t>(1, std::min<int64_t>({threads, count, int64_t(elements / (32 << 10))}))};
    parallel_for(work.parts, [](void* of, int64_t part) {
        const Work& w = *static_cast<const Work*>(of);
        w.body(w.count * part / w.parts, w.count * (part + 1) / w.parts);
    }, &work);
}

// ---- weights

constexpr int weight_axes = 5;

struct Arranged {
    int64_t size[weight_axes], from[weight_axes], to[weight_axes];  // steps in elements; axes that are not there are 1 long
};

// A block of elements and their taps goes through a buffer: whole lines are read, and whole lines written. Both arrays may have rows a
// power of two apart, of which a cache holds only a few at a time.
constexpr int64_t most_buffered = 9;  // taps; more are whole lines by themselves

template <class T>
struct Arranging {
    static constexpr int64_t block_side = 64 / int64_t(sizeof(T));
    const T* from;
    const Arranged& a;
    T* to;
    int64_t taps;

    // body(tap, offset in from, offset in to)
    template <class Body>
    void for_taps(const Body& body) const {
        int64_t tap = 0;
        for (int64_t d = 0; d < a.size[2]; ++d)
            for (int64_t h = 0; h < a.size[3]; ++h)
                for (int64_t w = 0; w < a.size[4]; ++w)
                    body(tap++, d * a.from[2] + h * a.from[3] + w * a.from[4], d * a.to[2] + h * a.to[3] + w * a.to[4]);
    }
    const T* source(int64_t i, int64_t j) const { return from + i * a.from[0] + j * a.from[1]; }
    T* target(int64_t i, int64_t j) const { return to + i * a.to[0] + j * a.to[1]; }

    // Rows `first` up to `end` of the result.
    void rows(int64_t first, int64_t end) const {
        if (taps > most_buffered) return one_by_one(first, end);
        int64_t from_tap[most_buffered], to_tap[most_buffered];
        bool dense = a.to[1] == taps;
        for_taps([&](int64_t tap, int64_t from_offset, int64_t to_offset) {
            from_tap[tap] = from_offset, to_tap[tap] = to_offset, dense = dense && to_offset == tap;
        });
        for (int64_t j = 0; j < a.size[1]; j += block_side)
            for (int64_t i = first; i < end; i += block_side)
                block(i, std::min(block_side, end - i), j, std::min(block_side, a.size[1] - j), from_tap, to_tap, dense);
    }
    void block(int64_t i, int64_t i_count, int64_t j, int64_t j_count, const int64_t* from_tap, const int64_t* to_tap, bool dense) const {
        T buffer[block_side][block_side * most_buffered];
        for (int64_t l = 0; l < j_count; ++l)
            for (int64_t k = 0; k < i_count; ++k) {
                const T* x = source(i + k, j + l);
                for (int64_t t = 0; t < taps; ++t) buffer[k][l * taps + t] = x[from_tap[t]];
            }
        for (int64_t k = 0; k < i_count; ++k) {
            if (dense) std::memcpy(target(i + k, j), buffer[k], size_t(j_count * taps) * sizeof(T));
            else
                for (int64_t l = 0; l < j_count; ++l)
                    for (int64_t t = 0; t < taps; ++t) target(i + k, j + l)[to_tap[t]] = buffer[k][l * taps + t];
        }
    }
    void one_by_one(int64_t first, int64_t end) const {
        for (int64_t j = 0; j < a.size[1]; ++j)
            for (int64_t i = first; i < end; ++i) {
                const T* x = source(i, j);
                T* y = target(i, j);
                for_taps([&](int64_t, int64_t from_offset, int64_t to_offset) { y[to_offset] = x[from_offset]; });
            }
    }
};

template <class T>
void arrange(const T* from, const Arranged& a, T* to, int threads) {
    const Arranging<T> arranging{from, a, to, a.size[2] * a.size[3] * a.size[4]};
    constexpr int64_t block_side = Arranging<T>::block_side;
    const int64_t blocks = (a.size[0] + block_side - 1) / block_side;
    in_ranges(blocks, double(a.size[0]) * a.size[1] * arranging.taps, threads, [&](int64_t begin, int64_t end) {
        arranging.rows(begin * block_side, std::min(end * block_side, a.size[0]));
    });
}

// ---- phases: to[image, group, channel, space] = from[image, group, phase, channel, space / stride + offset of the phase]

constexpr int phase_axes = 3;
constexpr int64_t most_phases = 64;  // along an axis

struct Phases {
    int64_t batch, groups, channels;  // of a group
    int64_t size[phase_axes], stride[phase_axes], phases[phase_axes];  // of the result; phases: at most the stride
    const int64_t* offset[phase_axes];
    int64_t from_batch, from_group, from_phase, from_channel, from_space[phase_axes];
    int64_t to_batch, to_channel, to_space[phase_axes];
};

// Vectors that every CPU has. Elements that are infinite or NaN have an exponent of ones.
template <class T>
struct Four {
    typedef std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t> Bits;
    typedef T Vector __attribute__((vector_size(16), aligned(sizeof(T)), may_alias));
    typedef Bits Mask __attribute__((vector_size(16), aligned(sizeof(T)), may_alias));
    static constexpr int64_t lanes = 16 / int64_t(sizeof(T));
    static constexpr Bits exponent = sizeof(T) == 4 ? Bits(0x7f800000) : Bits(0x7ff0000000000000);

    static Vector load(const T* x) { return *reinterpret_cast<const Vector*>(x); }
    static void store(T* x, Vector v) { *reinterpret_cast<Vector*>(x) = v; }
    static Mask spoiled(Vector v) { return Mask((Mask(v) & exponent) == exponent); }
    // Elements of a and b by turns, of the first or the second half of each. All compilers make one instruction of it.
    static Vector by_turns(Vector a, Vector b, bool second) {
        const int64_t from = second ? lanes / 2 : 0;
        if constexpr (lanes == 4) return Vector{a[from], b[from], a[from + 1], b[from + 1]};
        else return Vector{a[from], b[from]};
    }
    static bool any(Mask m) {
        Bits all = 0;
        for (int64_t i = 0; i < lanes; ++i) all |= m[i];
        return all;
    }
    static bool is_spoiled(T x) {
        Bits bits;
        std::memcpy(&bits, &x, sizeof bits);
        return (bits & exponent) == exponent;
    }
};

template <class T>
bool any_spoiled(const T* x, int64_t count) {
    using V = Four<T>;
    typename V::Mask spoiled{};
    bool last = false;
    int64_t i = 0;
    for (; i + V::lanes <= count; i += V::lanes) spoiled |= V::spoiled(V::load(x + i));
    for (; i < count; ++i) last |= V::is_spoiled(x[i]);
    return last || V::any(spoiled);
}

// S phases of a row, side by side in the result.
template <class T, int S>
void zip(const T* const* row, int64_t count, T* to) {
    const T* x[S];
    for (int r = 0; r < S; ++r) x[r] = row[r];
    for (int64_t i = 0; i < count; ++i)
        for (int r = 0; r < S; ++r) to[i * S + r] = x[r][i];
}

// Two phases, of which b may be an element shorter; whether anything in them is not finite.
template <class T>
bool zip_two(const T* a, const T* b, int64_t size, T* to) {
    using V = Four<T>;
    typename V::Mask spoiled{};
    bool last = false;
    int64_t i = 0;
    for (; 2 * (i + V::lanes) <= size; i += V::lanes) {
        const typename V::Vector even = V::load(a + i), odd = V::load(b + i);
        spoiled |= V::spoiled(even) | V::spoiled(odd);
        V::store(to + 2 * i, V::by_turns(even, odd, false));
        V::store(to + 2 * i + V::lanes, V::by_turns(even, odd, true));
    }
    for (; 2 * i < size; ++i) {
        last |= V::is_spoiled(to[2 * i] = a[i]);
        if (2 * i + 1 < size) last |= V::is_spoiled(to[2 * i + 1] = b[i]);
    }
    return last || V::any(spoiled);
}

template <class T>
void put_row(const T* const* row, int64_t size, int64_t stride, int64_t phases, int64_t from_step, T* to, int64_t step) {
    const int64_t whole = size / stride;
    const bool plain = step == 1 && from_step == 1 && phases == stride;
    if (plain && stride == 3) zip<T, 3>(row, whole, to);
    else if (plain && stride == 4) zip<T, 4>(row, whole, to);
    else if (plain && stride == 8) zip<T, 8>(row, whole, to);
    else
        for (int64_t r = 0; r < phases; ++r)
            for (int64_t i = 0; i < whole; ++i) to[(i * stride + r) * step] = row[r][i * from_step];
    for (int64_t r = 0; whole * stride + r < size; ++r) to[(whole * stride + r) * step] = row[r][whole * from_step];
}

// A row of the result: of a channel, or, where channels lie side by side, of all.
struct Row {
    int64_t image, channel, d, h, from_d, from_h, rd, rh;  // the place along d and h, as a quotient and a rest of the stride

    Row(const Phases& p, int64_t channels, int64_t i)
        : image(i / p.size[1] / p.size[0] / channels), channel(i / p.size[1] / p.size[0] % channels), d(i / p.size[1] % p.size[0]),
          h(i % p.size[1]), from_d(d / p.stride[0]), from_h(h / p.stride[1]), rd(d % p.stride[0]), rh(h % p.stride[1]) {}

    // Divisions would take longer than a short row.
    void next(const Phases& p, int64_t channels) {
        if (++rh == p.stride[1]) rh = 0, ++from_h;
        if (++h < p.size[1]) return;
        h = from_h = rh = 0;
        if (++rd == p.stride[0]) rd = 0, ++from_d;
        if (++d < p.size[0]) return;
        d = from_d = rd = 0;
        if (++channel == channels) channel = 0, ++image;
    }
};

template <class T>
struct Joining {
    const T* from;
    const Phases& p;
    T* to;
    bool last = p.from_channel == 1 && p.to_channel == 1;

    // Whether anything in it is not finite. `from` of the row's channel.
    bool put(const Row& row, const T* from_channel, T* to_channel) const {
        const int64_t phase = (row.rd * p.phases[1] + row.rh) * p.phases[2];
        const T* x = from_channel + phase * p.from_phase + (row.from_d + p.offset[0][row.rd]) * p.from_space[0] +
                     (row.from_h + p.offset[1][row.rh]) * p.from_space[1];
        T* y = to_channel + row.d * p.to_space[0] + row.h * p.to_space[1];
        return last ? put_pixels(x, y) : put_one(x, y);
    }
    bool put_pixels(const T* x, T* y) const {
        bool bad = false;
        for (int64_t w = 0, from_w = 0, rw = 0; w < p.size[2]; ++w, y += p.to_space[2]) {
            const T* pixel = x + rw * p.from_phase + (from_w + p.offset[2][rw]) * p.from_space[2];
            for (int64_t g = 0; g < p.groups; ++g) {
                std::memcpy(y + g * p.channels, pixel + g * p.from_group, size_t(p.channels) * sizeof(T));
                bad |= any_spoiled(pixel + g * p.from_group, p.channels);
            }
            if (++rw == p.stride[2]) rw = 0, ++from_w;
        }
        return bad;
    }
    bool put_one(const T* x, T* y) const {
        if (p.stride[2] == 2 && p.phases[2] == 2 && p.from_space[2] == 1 && p.to_space[2] == 1)
            return zip_two(x + p.offset[2][0], x + p.from_phase + p.offset[2][1], p.size[2], y);
        bool bad = false;
        const T* row[most_phases];
        int64_t count = p.size[2] / p.stride[2], rest = p.size[2] % p.stride[2];
        for (int64_t r = 0; r < p.phases[2]; ++r) {
            row[r] = x + r * p.from_phase + p.offset[2][r] * p.from_space[2];
            const int64_t elements = count + (r < rest);
            if (p.from_space[2] == 1) bad |= any_spoiled(row[r], elements);
            else
                for (int64_t j = 0; j < elements; ++j) bad |= any_spoiled(row[r] + j * p.from_space[2], 1);
        }
        put_row(row, p.size[2], p.stride[2], p.phases[2], p.from_space[2], y, p.to_space[2]);
        return bad;
    }
};

// spoiled[image]: whether any element of it is not finite.
template <class T>
void join_phases(const T* from, const Phases& p, T* to, unsigned char* spoiled, int threads) {
    const Joining<T> joining{from, p, to};
    const int64_t channels = joining.last ? 1 : p.groups * p.channels, rows = p.batch * channels * p.size[0] * p.size[1];
    const double elements = double(p.batch) * p.groups * p.channels * p.size[0] * p.size[1] * p.size[2];
    in_ranges(rows, elements, threads, [&](int64_t begin, int64_t end) {
        Row row(p, channels, begin);
        for (int64_t i = begin; i < end;) {
            const int64_t image = row.image, channel = row.channel;
            const T* x = from + image * p.from_batch + channel / p.channels * p.from_group + channel % p.channels * p.from_channel;
            T* y = to + image * p.to_batch + channel * p.to_channel;
            bool bad = false;
            for (; i < end && row.image == image && row.channel == channel; ++i, row.next(p, channels)) bad |= joining.put(row, x, y);
            if (bad) __atomic_store_n(spoiled + image, 1, __ATOMIC_RELAXED);
        }
    });
}

}  // namespace fastconv
