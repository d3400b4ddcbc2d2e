// A tile of fft: where its spectrum lies, where its inputs come from, and the passes of its transform.
//
// The data are real: two columns are the real and imaginary part of one transform, and only the n1/2 + 1 rows that are not
// conjugates of others go on. Columns are transformed `lanes` at a time, then rows, transposed in registers, then, in volumes,
// what lies behind one another. One axis of n = n1 n2 is folded to n1 rows of n2 (Bailey): between columns and rows element j
// of row k is turned by w_n^(j k), and the place of a frequency is nobody's concern, as only products of spectra are taken.
#pragma once
#include "epilogue.hpp"
#include "fft.hpp"
#include "slab.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// Where things are. Area, what columns leave for rows: [depth][block of columns][row k][real, real of partners, imaginary,
// imaginary of partners], so that columns write, and blocks of rows read, whole pages. Spectrum: [block of lanes rows][depth]
// [real, imaginary][column frequency][lanes].
template <class T>
struct Spectra {
    static constexpr int L = lanes<T>;
    bool folded;
    Radices d, h, w;
    int64_t rows, row_blocks;               // rows that go on
    int64_t partner, apart, column_blocks;  // columns from a column to its partner; from a block of columns to the next
    int64_t columns, plane, area;           // of the area: of a block of columns; of a depth; of all
    int64_t block, slab, size;              // of the spectrum: one part; a block of rows; all

    explicit Spectra(const Problem& p) : folded(p.tile[1] == 1), d(p.tile[0]), h(folded ? rows_of(p.tile[2]) : p.tile[1]),
                                         w(p.tile[2] / (folded ? h.n : 1)), rows(h.n / 2 + 1), row_blocks(ceil_div(rows, L)) {
        const bool even = w.n % (2 * L) == 0;  // pairs of vectors; else the two halves of a row
        partner = even ? L : w.n / 2, apart = even ? 2 * L : L;
        column_blocks = even ? w.n / apart : ceil_div(partner, L);
        columns = row_blocks * L * 4 * L + L, plane = column_blocks * columns, area = d.n * plane;
        block = w.n * L, slab = d.n * 2 * block, size = row_blocks * slab;
    }
    // Columns of a block, which has as many partners.
    int64_t columns_of(int64_t index) const { return apart > L ? L : std::min<int64_t>(L, partner - index * L); }
    int64_t points() const { return d.n * h.n * w.n; }
    // Rows are loaded, and finished, by so many at a time.
    static constexpr int64_t chunk = 32;
    int64_t chunks() const { return ceil_div(h.n, chunk); }

    // n = n1 n2, n2 the least power of two that is no less than n1.
    static int64_t rows_of(int64_t n) {
        int64_t columns = 32;
        while (columns * columns < n) columns *= 2;
        return n / columns;
    }
    static bool foldable(int64_t n) {
        const int64_t rows = rows_of(n);
        return n % rows == 0 && n / rows % 32 == 0 && (n / rows & (n / rows - 1)) == 0;
    }
};

// What the transforms look up: twiddles of d, h and w, the places of a column's frequencies, and of a folded axis its turns:
// w_n^(j k) = coarse[j / 16] fine[j % 16] for each block of rows k, [coarse, fine][real, imaginary][lanes].
template <class T>
struct Tables {
    static constexpr int64_t line = 64 / int64_t(sizeof(T)), step = 16;
    static constexpr int L = lanes<T>;
    typedef typename VectorOf<T>::Int Place;
    int64_t twiddle_h, twiddle_w, places, turns, turns_of_block, elements;

    explicit Tables(const Spectra<T>& s) {
        twiddle_h = round_up(2 * s.d.twiddles(), line);
        twiddle_w = twiddle_h + round_up(2 * s.h.twiddles(), line);
        places = twiddle_w + round_up(2 * s.w.twiddles(), line);
        turns = places + round_up(s.h.n, line);
        turns_of_block = s.folded ? (s.w.n / step + step) * 2 * L : 0;
        elements = turns + s.row_blocks * turns_of_block;
    }
    void fill(const Spectra<T>& s, T* out) const {
        s.d.fill_twiddles(out);
        s.h.fill_twiddles(out + twiddle_h);
        s.w.fill_twiddles(out + twiddle_w);
        for (int64_t k = 0; k < s.h.n; ++k) reinterpret_cast<Place*>(out + places)[k] = Place(s.h.place(k));
        for (int64_t k = 0; s.folded && k < s.row_blocks * L; ++k) {
            T* to = out + turns + k / L * turns_of_block + k % L;
            powers(s, k * step, s.w.n / step, to);
            powers(s, k, step, to + s.w.n / step * 2 * L);
        }
    }

   private:
    // w_n^(k j) for j < count, by multiplication: a sine costs as much as ten.
    static void powers(const Spectra<T>& s, int64_t k, int64_t count, T* to) {
        typedef std::conditional_t<sizeof(T) == 4, double, long double> W;
        const int64_t n = s.points();
        const W angle = W(-6.283185307179586476925286766559L) * W(k % n) / W(n), c = std::cos(angle), i = std::sin(angle);
        W re = 1, im = 0;
        for (int64_t j = 0; j < count; ++j, to += 2 * L) {
            to[0] = T(re), to[L] = T(im);
            const W next = re * c - im * i;
            im = re * i + im * c, re = next;
        }
    }
};

// The tiles along an axis: `count` of them, each of `useful` outputs; output o of a tile is at place (o + shift) mod n.
// With a stride the outputs between are computed too, and left out at last; not so along an axis that is not transformed, n = 1.
struct Cut {
    int64_t n, count, useful, shift, outputs, inputs, reach, pad;
    int64_t keep, step;  // every so many outputs are kept; inputs from one to the next
    bool whole;          // one tile, the padding behind the input

    Cut(const Problem& p, int a)
        : n(p.tile[a]), shift(0), outputs(n > 1 ? (p.output[a] - 1) * p.stride[a] + 1 : p.output[a]), inputs(p.input[a]),
          reach((p.kernel[a] - 1) * p.dilation[a]), pad(p.pad_lo[a]), keep(n > 1 ? p.stride[a] : 1), step(n > 1 ? 1 : p.stride[a]) {
        const int64_t behind = p.input[a] + std::max<int64_t>({p.pad_lo[a], p.pad_hi[a], 0});
        whole = p.padding_mode == PaddingMode::zeros && n > 1 && n >= std::max(behind, outputs);
        useful = whole ? outputs : std::max<int64_t>(n - reach, 1);
        count = ceil_div(outputs, useful);
        if (whole) shift = (n - pad) % n;
    }
    int64_t outputs_of(int64_t tile) const { return std::min(useful, outputs - tile * useful); }
    int64_t span(int64_t tile) const { return outputs_of(tile) + reach; }  // padded coordinates that its outputs see
    int64_t first(int64_t tile) const { return tile * useful * step - pad; }
    int64_t first_place(int64_t tile) const { return whole ? 0 : first(tile); }
    int64_t places(int64_t tile) const { return whole ? inputs : std::min(n, span(tile)); }
    // Which output of the axis the o-th of a tile is, or -1 for one that is left out.
    int64_t kept(int64_t tile, int64_t o) const {
        const int64_t all = tile * useful + o;
        return keep == 1 ? all : all % keep ? -1 : all / keep;
    }
    int64_t output(int64_t place) const { return place - shift + (place < shift ? n : 0); }  // of the tile; or beyond
};

// What is not finite, or so large that sums might not be, and would drown the rest of a tile, counts as 0 in a transform: it is
// added to the outputs that see it (`Spoiled`).
template <class T>
constexpr T largest = sizeof(T) == 4 ? T(1e30) : T(1e300L);
template <class T>
FASTCONV_INLINE bool counts(T value) {
    return value <= largest<T> && value >= -largest<T>;
}
template <class T>
FASTCONV_INLINE typename VectorOf<T>::mask counts_of(Vec<T> v) {
    return (v <= largest<T>) & (v >= -largest<T>);
}

template <class T>
bool is_none(typename VectorOf<T>::mask mask) {
    typename VectorOf<T>::Int all = 0;
    for (int l = 0; l < lanes<T>; ++l) all |= mask[l];
    return all == 0;
}
template <class T>
FASTCONV_NOINLINE bool all_count(const T* values, int64_t n) {
    typename VectorOf<T>::mask bad{};
    for (int64_t i = 0; i < n; i += lanes<T>) bad |= ~counts_of<T>(load_some(values + i, std::min<int64_t>(lanes<T>, n - i)));
    return is_none<T>(bad);
}

// Which vectors of a row can be loaded as they are: those of columns first .. last, of column i from line + place + i on.
struct Whole {
    int64_t place, first, last;
};

// One channel of the input: from padded coordinate `first` on, `count` along each axis, zeros behind.
template <class T>
struct Inputs {
    static constexpr int L = lanes<T>;
    const Problem& p;
    const View& view;
    const T* x;
    int64_t first[max_axes], count[max_axes];

    const T* line(int64_t d, int64_t h) const {
        if (d >= count[0] || h >= count[1]) return nullptr;
        const int64_t from_d = source(p, 0, first[0] + d), from_h = source(p, 1, first[1] + h);
        return from_d < 0 || from_h < 0 ? nullptr : x + from_d * view.space[0] + from_h * view.space[1];
    }
    // Where whole vectors lie side by side, from line + place on.
    Whole whole() const {
        const int64_t end = view.space[2] == 1 ? std::min(count[2], p.input[2] - first[2]) : 0;
        return {first[2], std::max<int64_t>(0, -first[2]), end - L};
    }
    FASTCONV_INLINE Vec<T> at(const T* line, int64_t i) const {
        const Whole inside = whole();
        return i >= inside.first && i <= inside.last ? load(line + inside.place + i) : some(line, i);
    }
    FASTCONV_NOINLINE Vec<T> some(const T* line, int64_t i) const {
        const int64_t from = first[2] + i;
        if (i >= count[2]) return Vec<T>{};
        if (view.space[2] == 1 && p.padding_mode == PaddingMode::zeros)
            return load_masked(line + from, lanes_between<T>(-from, std::min(count[2] - i, p.input[2] - from)));
        T lane[L] = {};
        for (int64_t l = 0; l < std::min<int64_t>(L, count[2] - i); ++l) {
            const int64_t place = source(p, 2, from + l);
            if (place >= 0) lane[l] = line[place * view.space[2]];
        }
        return load(lane);
    }
    static FASTCONV_INLINE Vec<T> clean(Vec<T> v, typename VectorOf<T>::mask& bad) {
        const auto good = counts_of<T>(v);
        bad |= ~good;
        return good ? v : Vec<T>{};
    }
};

// The weights between one input and one output channel, spread by the dilation and scaled.
template <class T>
struct Weights {
    static constexpr int L = lanes<T>;
    const Problem& p;
    const T* w;
    T scale;
    int64_t count[max_axes];

    Weights(const Problem& problem, const T* weight, T factor) : p(problem), w(weight), scale(factor) {
        for (int a = 0; a < max_axes; ++a) count[a] = (p.kernel[a] - 1) * p.dilation[a] + 1;
    }
    const T* line(int64_t d, int64_t h) const {
        if (d >= count[0] || h >= count[1] || d % p.dilation[0] || h % p.dilation[1]) return nullptr;
        return w + (d / p.dilation[0] * p.kernel[1] + h / p.dilation[1]) * p.kernel[2];
    }
    Whole whole() const { return {0, 0, p.dilation[2] == 1 ? count[2] - L : -1}; }
    FASTCONV_NOINLINE Vec<T> some(const T* line, int64_t i) const {
        if (p.dilation[2] == 1) return load_masked(line + i, lanes_between<T>(0, count[2] - i));
        T lane[L] = {};
        for (int64_t l = 0; l < L && i + l < count[2]; ++l)
            if ((i + l) % p.dilation[2] == 0) lane[l] = line[(i + l) / p.dilation[2]];
        return load(lane);
    }
    FASTCONV_INLINE Vec<T> clean(Vec<T> v, typename VectorOf<T>::mask&) const {
        return (counts_of<T>(v) ? v : Vec<T>{}) * scale;
    }
};

// The passes, with the tables of packed weights and a buffer of one thread (kernels/fft.cpp: buffer_of).
template <class T>
struct Transform {
    static constexpr int L = lanes<T>;
    const Spectra<T>& s;
    const Tables<T>& tables;
    const T* table;
    T* buffer;

    // Rows r .. end - 1 of one depth, from `source` to the area: [block][halves][row][L]. Whole rows, as columns of large images lie
    // 4 KB apart, in the same few sets of L1. Returns whether all of it counts.
    template <class Source>
    FASTCONV_NOINLINE bool load_rows(const Source& source, int64_t depth, int64_t r, int64_t end, T* area) const {
        typename VectorOf<T>::mask bad{};
        const Whole whole = source.whole();
        const int64_t partner = s.partner, apart = s.apart, columns = s.columns, half = s.h.n * L;
        const int64_t blocks = depth >= source.count[0] ? 0 : s.folded ? s.column_blocks
                                                            : std::min(s.column_blocks, ceil_div(source.count[2], apart));
        for (; r < end; ++r) {
            const T* line = source.line(depth, s.folded ? 0 : r);
            T* to = area + depth * s.plane + r * L;
            int64_t i = s.folded ? r * s.w.n : 0;
            const auto take = [&](int64_t column) {
                if (!line) return Vec<T>{};
                const bool inside = column >= whole.first && column <= whole.last;
                return source.clean(inside ? load(line + whole.place + column) : source.some(line, column), bad);
            };
            for (int64_t block = 0; block < blocks; ++block, to += columns, i += apart) {
                store(to, take(i));
                store(to + half, take(i + partner));
            }
        }
        return is_none<T>(bad);
    }
    // Whether a block of columns of one depth has inputs.
    template <class Source>
    bool used(const Source& source, int64_t depth, int64_t index) const {
        return depth < source.count[0] && (s.folded || index * s.apart < source.count[2]);
    }

    // One block of columns of one depth, in the area.
    template <class Source>
    void columns_forward(const Source& source, int64_t depth, int64_t index, T* area) const {
        const int64_t n = s.h.n;
        T *re = buffer, *im = buffer + n * L, *out = area + depth * s.plane + index * s.columns;
        if (!used(source, depth, index)) return clear(out, s.columns);
        fft_forward<T>(s.h, table + tables.twiddle_h, {out, out + n * L}, {re, im}, n);
        for (int64_t k = 0; k < s.rows; ++k, out += 4 * L) {  // twice the two columns' spectra
            const int64_t a = place(k), b = place(k ? n - k : 0);
            store(out, load(re + a) + load(re + b));
            store(out + L, load(im + a) + load(im + b));
            store(out + 2 * L, load(im + a) - load(im + b));
            store(out + 3 * L, load(re + b) - load(re + a));
        }
    }

    // Back to columns: row r at vector r of two halves, a column and its partner.
    void columns_inverse(T* area, int64_t depth, int64_t index) const {
        const int64_t n = s.h.n;
        T *to = area + depth * s.plane + index * s.columns, *re = buffer, *im = buffer + n * L;
        const T* from = to;
        for (int64_t k = 0; k < s.rows; ++k, from += 4 * L) {
            const int64_t a = place(k), b = place(k ? n - k : 0);
            const Vec<T> xr = load(from), yr = load(from + L), xi = load(from + 2 * L), yi = load(from + 3 * L);
            store(re + b, xr + yi);
            store(im + b, yr - xi);
            store(re + a, xr - yi);
            store(im + a, xi + yr);
        }
        fft_inverse<T>(s.h, table + tables.twiddle_h, {re, im}, {to, to + n * L}, n);
    }

    // One block of rows at all depths, from the area to its part of the spectrum.
    void rows_forward(const T* area, int64_t index, T* spectrum) const {
        for (int64_t depth = 0; depth < s.d.n; ++depth) {
            T* to = spectrum + depth * 2 * s.block;
            transpose_rows(area + depth * s.plane + index * L * 4 * L, index, to);
            fft_forward(s.w, table + tables.twiddle_w, to, to + s.block);
        }
        if (s.d.n > 1) depths<-1>(spectrum);
    }

    // And back, for the depths that are wanted; the spectrum is overwritten.
    template <class Wanted>
    void rows_inverse(T* spectrum, int64_t index, T* area, Wanted wanted) const {
        if (s.d.n > 1) depths<1>(spectrum);
        for (int64_t depth = 0; depth < s.d.n; ++depth) {
            if (!wanted(depth)) continue;
            T* from = spectrum + depth * 2 * s.block;
            fft_inverse(s.w, table + tables.twiddle_w, from, from + s.block);
            transpose_back(from, index, area + depth * s.plane + index * L * 4 * L);
        }
    }

   private:
    FASTCONV_INLINE int64_t place(int64_t k) const {
        return int64_t(reinterpret_cast<const typename Tables<T>::Place*>(table + tables.places)[k]) * L;
    }

    // from[block of columns][L rows][4 L] -> to[real, imaginary][column][L]
    FASTCONV_NOINLINE void transpose_rows(const T* from, int64_t index, T* to) const {
        for (int64_t b = 0; b < s.column_blocks; ++b, from += s.columns)
            for (int v = 0; v < 4; ++v) {
                const int64_t j = b * s.apart + v % 2 * s.partner, count = s.columns_of(b);
                T* out = to + v / 2 * s.block + j * L;
                Vec<T> row[L];
                for (int l = 0; l < L; ++l) row[l] = load(from + (4 * l + v) * L);
                transpose<T>(row);
                if (count == L)
                    for (int l = 0; l < L; ++l) store(out + l * L, row[l]);
                else
                    for (int64_t l = 0; l < count; ++l) store(out + l * L, row[l]);
                for (int64_t i = j; v >= 2 && s.folded && i < j + L; ++i) turn<false>(index, i, to);
            }
    }
    FASTCONV_NOINLINE void transpose_back(T* from, int64_t index, T* to) const {
        for (int64_t b = 0; b < s.column_blocks; ++b, to += s.columns)
            for (int v = 0; v < 4; ++v) {
                const int64_t j = b * s.apart + v % 2 * s.partner, count = s.columns_of(b);
                for (int64_t i = j; v < 2 && s.folded && i < j + L; ++i) turn<true>(index, i, from);
                const T* in = from + v / 2 * s.block + j * L;
                Vec<T> row[L] = {};
                if (count == L)
                    for (int l = 0; l < L; ++l) row[l] = load(in + l * L);
                else
                    for (int64_t l = 0; l < count; ++l) row[l] = load(in + l * L);
                transpose<T>(row);
                for (int l = 0; l < L; ++l) store(to + (4 * l + v) * L, row[l]);
            }
    }

    // Column j of a block of rows, times w_n^(j k) or its conjugate.
    template <bool Conjugate>
    FASTCONV_INLINE void turn(int64_t index, int64_t j, T* at) const {
        constexpr int64_t step = Tables<T>::step;
        const T* turns = table + tables.turns + index * tables.turns_of_block;
        const T *coarse = turns + j / step * 2 * L, *fine = turns + (s.w.n / step + j % step) * 2 * L;
        at += j * L;
        const Vec<T> a = load(coarse), b = load(coarse + L), c = load(fine), d = load(fine + L);
        const Complex<T> x = Complex<T>{load(at), load(at + s.block)}.template turned<Conjugate>(a * c - b * d, a * d + b * c);
        store(at, x.re);
        store(at + s.block, x.im);
    }

    // The transforms along depth of a block of rows.
    template <int Sign>
    FASTCONV_NOINLINE void depths(T* spectrum) const {
        T *re = buffer, *im = buffer + s.d.n * L;
        for (T* at = spectrum; at < spectrum + s.block; at += L) {
            for (int64_t i = 0; i < s.d.n; ++i) {
                store(re + i * L, load(at + i * 2 * s.block));
                store(im + i * L, load(at + i * 2 * s.block + s.block));
            }
            if constexpr (Sign < 0) fft_forward(s.d, table, re, im);
            else fft_inverse(s.d, table, re, im);
            for (int64_t i = 0; i < s.d.n; ++i) {
                store(at + i * 2 * s.block, load(re + i * L));
                store(at + i * 2 * s.block + s.block, load(im + i * L));
            }
        }
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
