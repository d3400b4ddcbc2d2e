// The register tile of depthwise, where pixels are on the vector: R rows (up to 8) of one vector of columns, for all taps.
//
// For each kw the kh weights stay in registers and each of the (R - 1) s + kh input rows is loaded once, shifted by kw, for all
// output rows that want it: H = 3, R = 8 has 13 loads for 24 multiply-adds. At the left and right edge lanes outside the image
// are masked; of two vectors every other lane is taken where w has stride 2.
#pragma once
#include "depthwise_last.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <class T>
using Mask = typename VectorOf<T>::mask;

struct Steps {  // of the kernel, over rows of padded input
    int64_t kd, kh, kw, depth, stride, step, dilation;  // depth: rows from kd to kd; stride: along h; step: along w, 1 or 2
};

template <class T>
struct Columns {  // of the output, in vectors
    int64_t last, first_inside, last_inside;  // from first_inside to last_inside no lane of any kw is outside the row
    int64_t inputs, outputs;                  // elements of a row
    const int64_t* shift;                     // of each kw, from the place of output column 0
    const Mask<T>*mask, *more;  // [vector at an edge][kw]: lanes inside the row, and with step 2 of the second vector of inputs;
                                // null if they were too many to list
    int64_t masks, left_masks;  // how many there are, and at the left edge
};

template <class T>
struct Target {  // where sums go
    int64_t row, step, residual_row, residual_step;
    const Epilogue<T>* epilogue;
    T* sums;   // for those that are not stored straight
    T least;   // straight stores: outputs are at least this (relu)
    T *output, *end;  // end: whole vectors may be stored up to there, null if not at all
    const T* residual;
};

template <class T>
struct Reading {  // one output channel of one plane
    const T* const* row;  // of each padded input row that is read, for each kd
    const T* weight;
    T bias;
    Steps steps;
    Columns<T> columns;
    Target<T> to;
    bool rounds;   // products, see rounds_products
    bool crowded;  // rows share sets of L1: fewer of them at a time
};

// What the compiler knows of a problem: H, W: kh, kw, or 0; S, X: stride along h and w.
template <int H_, int W_, int S_, int X_>
struct Form {
    static constexpr int H = H_, W = W_, S = S_, X = X_;
    // so that sums and weights fit the registers
    static constexpr int most_rows = H == 9 ? 4 : H == 7 || (H == 3 && X == 2) ? 7 : 8;
    // kw 1 and 2 are the even and the odd elements of what is loaded once
    static constexpr bool pairs = H == 3 && W == 3 && X == 2;
};

// From the sums to the output.
template <class T>
FASTCONV_NOINLINE void finish(const Reading<T>& in, int64_t h, int64_t w, int64_t rows) {
    constexpr int L = lanes<T>;
    const Target<T>& to = in.to;
    const int64_t count = std::min<int64_t>(L, in.columns.outputs - w);
    for (int64_t r = 0; r < rows; ++r) {
        T* y = to.output + (h + r) * to.row + w * to.step;
        const T* more = to.residual ? to.residual + (h + r) * to.residual_row + w * to.residual_step : nullptr;
        if (to.step == 1 && (!more || to.residual_step == 1)) {
            Vec<T> sum = load(to.sums + r * L);
            if (more) sum += load_some(more, count);
            sum = (*to.epilogue)(sum);
            if (count == L || y + L <= to.end) store(y, sum);
            else store_first(y, sum, count);
        } else {
            for (int64_t l = 0; l < count; ++l) {
                const T sum = to.sums[r * L + l];
                y[l * to.step] = (*to.epilogue)(more ? sum + more[l * to.residual_step] : sum);
            }
        }
    }
}

// The inputs that a vector of outputs meets with one kw.
template <class T, int X, bool Edge>
struct Inputs {
    static constexpr auto all = std::make_index_sequence<size_t(lanes<T>)>{};

    const T* const* row;
    int64_t at;  // in a row, of the first lane
    Mask<T> mask, more;

    Inputs(const Columns<T>& columns, const T* const* from, int64_t w, int64_t kw, int64_t edge)
        : row(from), at(w * X + columns.shift[kw]) {
        if (!Edge) return;
        const auto inside = [&](const Mask<T>* listed, int64_t first) {
            return listed ? listed[edge + kw] : lanes_between<T>(-first, columns.inputs - first);
        };
        mask = inside(columns.mask, at);
        if (X == 2) more = inside(columns.more, at + lanes<T>);
    }

    FASTCONV_INLINE Vec<T> of_row(int64_t i) const {
        const Vec<T> x = Edge ? load_masked<T>(row[i] + at, mask) : load(row[i] + at);
        if constexpr (X == 1) return x;
        else {
            const T* next = row[i] + at + lanes<T>;
            return every_other_unsorted<T, 0>(x, Edge ? load_masked<T>(next, more) : load(next), all);
        }
    }

    FASTCONV_INLINE void split_row(int64_t i, Vec<T>& even, Vec<T>& odd) const {
        const Vec<T> x = Edge ? load_masked<T>(row[i] + at, mask) : load(row[i] + at);
        const Vec<T> next = Edge ? load_masked<T>(row[i] + at + lanes<T>, more) : load(row[i] + at + lanes<T>);
        even = every_other_unsorted<T, 0>(x, next, all), odd = every_other_unsorted<T, 1>(x, next, all);
    }
};

// R rows of one vector of columns: sums, which add the columns of the kernel one after the other.
template <class T, class F, int R, bool Edge>
struct Tile {
    static constexpr int L = lanes<T>, H = F::H, S = F::S, reads = (R - 1) * S + H;  // reads: rows of inputs, where H is known
    using Column = Inputs<T, F::X, Edge>;

    const Reading<T>& in;
    int64_t w, edge;  // edge: of its masks, see Columns
    const T *const* row, *weight;
    Vec<T> sum[R];

    FASTCONV_INLINE Tile(const Reading<T>& reading, const T* const* first_row, int64_t place, int64_t masks)
        : in(reading), w(place), edge(masks), row(first_row), weight(reading.weight) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r] = broadcast(in.bias);
    }

    FASTCONV_INLINE Column column(int64_t kw) const { return Column(in.columns, row, w, kw, edge); }

    FASTCONV_INLINE void add_kernel() {
        if constexpr (F::pairs) {
            add_known(0);
            add_pair(1);
        } else if constexpr (F::W > 0) {
#pragma GCC unroll 8
            for (int kw = 0; kw < F::W; ++kw) add_known(kw);
        } else if constexpr (H > 0) {
#pragma GCC unroll 1
            for (int64_t kw = 0; kw < in.steps.kw; ++kw) add_known(kw);
        } else if (R > 1 && in.steps.stride == 1 && in.steps.dilation == 1) {
            for_columns([&](const Column& input, const T* taps) __attribute__((always_inline)) { add_near(input, taps); });
        } else if (in.steps.stride == 1) {
            for_columns([&](const Column& input, const T* taps) __attribute__((always_inline)) { add_apart<1>(input, taps); });
        } else {
            for_columns([&](const Column& input, const T* taps) __attribute__((always_inline)) { add_apart<0>(input, taps); });
        }
    }

    template <class Body>
    FASTCONV_INLINE void for_columns(Body body) const {
        const T *const* first = row, *taps = weight;  // of kd
#pragma GCC unroll 1
        for (int64_t kd = 0; kd < in.steps.kd; ++kd, first += in.steps.depth)
#pragma GCC unroll 1
            for (int64_t kw = 0; kw < in.steps.kw; ++kw, taps += in.steps.kh)
                body(Column(in.columns, first, w, kw, edge), taps);
    }

    // Input row i, to all sums that want it.
    FASTCONV_INLINE void add(int i, Vec<T> x, const Vec<T>* tap) {
#pragma GCC unroll 9
        for (int k = 0; k < H; ++k)
            if (i >= k && (i - k) % S == 0 && (i - k) / S < R) sum[(i - k) / S] += x * tap[k];
    }

    FASTCONV_INLINE void add_known(int64_t kw) {
        const Column input = column(kw);
        Vec<T> tap[H];
#pragma GCC unroll 9
        for (int k = 0; k < H; ++k) tap[k] = broadcast(weight[kw * H + k]);
#pragma GCC unroll 24
        for (int i = 0; i < reads; ++i) add(i, rounded(input.of_row(i)), tap);  // in a register, else it is loaded for each tap
    }

    // kw and kw + 1
    FASTCONV_INLINE void add_pair(int64_t kw) {
        const Column input = column(kw);
        Vec<T> tap[2 * H];
#pragma GCC unroll 18
        for (int k = 0; k < 2 * H; ++k) tap[k] = broadcast(weight[kw * H + k]);
#pragma GCC unroll 24
        for (int i = 0; i < reads; ++i) {
            Vec<T> even, odd;
            input.split_row(i, even, odd);
            add(i, even, tap);
            add(i, odd, tap + H);
        }
    }

    // Rows that follow each other: three taps at a time, as with H = 3.
    FASTCONV_INLINE void add_near(const Column& input, const T* taps) {
        int64_t k = 0;
        for (; k + 3 <= in.steps.kh; k += 3) {
            const Vec<T> tap[3] = {broadcast(taps[k]), broadcast(taps[k + 1]), broadcast(taps[k + 2])};
#pragma GCC unroll 10
            for (int i = 0; i < R + 2; ++i) {
                const Vec<T> x = rounded(input.of_row(k + i));
#pragma GCC unroll 3
                for (int q = 0; q < 3; ++q)
                    if (i >= q && i - q < R) sum[i - q] += x * tap[q];
            }
        }
#pragma GCC unroll 1
        for (; k < in.steps.kh; ++k) {
            const Vec<T> tap = broadcast(taps[k]);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[r] += input.of_row(k + r) * tap;
        }
    }

    // One tap at a time; Stride: along h, or 0 if it is not 1.
    template <int Stride>
    FASTCONV_INLINE void add_apart(const Column& input, const T* taps) {
        const int64_t stride = Stride ? Stride : in.steps.stride;
#pragma GCC unroll 1
        for (int64_t k = 0; k < in.steps.kh; ++k) {
            const Vec<T> tap = broadcast(taps[k]);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[r] += input.of_row(r * stride + k * in.steps.dilation) * tap;
        }
    }

    FASTCONV_INLINE void write(int64_t h, Vec<T> least) {
        if constexpr (F::X == 2)
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[r] = sorted<T>(sum[r], std::make_index_sequence<size_t(L)>{});
        T* y = in.to.output + h * in.to.row + w;
        if (y + (R - 1) * in.to.row + L <= in.to.end) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) store(y + r * in.to.row, sum[r] < least ? least : sum[r]);
        } else {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) store(in.to.sums + r * L, sum[r]);
            finish(in, h, w, R);
        }
    }
};

// Rows h .. h + R - 1, vectors of columns last, last - lanes, ... first; masks: how many are listed up to that vector.
template <class T, class F, int R, bool Edge>
FASTCONV_NOINLINE void tiles(const Reading<T>& in, int64_t h, int64_t last, int64_t first, [[maybe_unused]] int64_t masks = 0) {
    const T* const* const row = in.row + h * in.steps.stride;
    const Vec<T> least = broadcast(in.to.least);
    for (int64_t w = last; w >= first; w -= lanes<T>) {
        masks -= F::W ? F::W : in.steps.kw;
        Tile<T, F, R, Edge> tile(in, row, w, masks);
        tile.add_kernel();
        tile.write(h, least);
    }
}

// All columns of R rows, from right to left: a vector that reaches beyond its row spoils first columns of the next rows, which
// are still to come.
template <class T, class F, int R>
void band(const Reading<T>& in, int64_t h) {
    constexpr int L = lanes<T>;
    const Columns<T>& c = in.columns;
    if (c.last_inside < c.last) tiles<T, F, R, true>(in, h, c.last, c.last_inside + L, c.masks);
    if (c.first_inside <= c.last_inside) tiles<T, F, R, false>(in, h, c.last_inside, c.first_inside);
    if (c.first_inside > 0) tiles<T, F, R, true>(in, h, c.first_inside - L, 0, c.left_masks);
}

// Bands of 8, 7, 4, 2 and 1 rows, as few as possible.
template <class T, class F>
void plane(const Reading<T>& in, int64_t rows) {
    constexpr int most = F::most_rows;
    for (int64_t h = 0, n; h < rows; h += n) {
        const int64_t left = rows - h;
        const bool seven = left == 7 || left == 9 || left == 11 || left == 13 || left == 14 || left == 21
                           || (most == 7 && left > 14);
        const int64_t few = std::min<int64_t>(left, 2);
        n = in.crowded ? few : most > 4 && seven ? 7 : left >= 8 && most == 8 ? 8 : left >= 4 ? 4 : few;
        switch (n) {
            case 8: if constexpr (most >= 8) band<T, F, 8>(in, h); break;
            case 7: if constexpr (most >= 7) band<T, F, 7>(in, h); break;
            case 4: band<T, F, 4>(in, h); break;
            case 2: band<T, F, 2>(in, h); break;
            default: band<T, F, 1>(in, h);
        }
    }
}

// R rows of a plane where products are rounded (see rounds_products); X: step along w.
template <class T, int R, int X>
FASTCONV_NOINLINE void rounded_tiles(const Reading<T>& in, int64_t h) {
    constexpr int L = lanes<T>;
    constexpr auto all = std::make_index_sequence<size_t(L)>{};
    const int64_t rows = in.steps.kd * in.steps.kh;
    for (int64_t w = in.columns.last; w >= 0; w -= L) {
        const auto product = [&](int64_t k, int64_t kw, int r) __attribute__((always_inline)) {
            const int64_t kd = in.steps.kd == 1 ? 0 : k / in.steps.kh, kh = k - kd * in.steps.kh;
            const int64_t at = w * X + in.columns.shift[kw];
            const T* from = in.row[kd * in.steps.depth + (h + r) * in.steps.stride + kh * in.steps.dilation] + at;
            const bool inside = at >= 0 && at + X * L <= in.columns.inputs;
            const auto read = [&](int64_t i) __attribute__((always_inline)) {
                return inside ? load(from + i)
                              : load_masked<T>(from + i, lanes_between<T>(-at - i, in.columns.inputs - at - i));
            };
            const Vec<T> tap = broadcast(in.weight[(kd * in.steps.kw + kw) * in.steps.kh + kh]);
            if constexpr (X == 1) return rounded(read(0) * tap);
            else return rounded(every_other_unsorted<T, 0>(read(0), read(L), all) * tap);
        };
        Vec<T> sum[R];
        for (int r = 0; r < R; ++r) sum[r] = broadcast(in.bias);
        for_opposites(rows, in.steps.kw, [&](int64_t k, int64_t kw) __attribute__((always_inline)) {
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) sum[r] += product(k, kw, r) + product(rows - 1 - k, in.steps.kw - 1 - kw, r);
        });
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            if (rows * in.steps.kw % 2) sum[r] += product(rows / 2, in.steps.kw / 2, r);
            store(in.to.sums + r * L, X == 1 ? sum[r] : sorted<T>(sum[r], all));
        }
        finish(in, h, w, R);
    }
}

template <class T, int X>
void rounded_plane(const Reading<T>& in, int64_t rows) {
    int64_t h = 0;
    for (; h + 4 <= rows; h += 4) rounded_tiles<T, 4, X>(in, h);
    for (; h < rows; ++h) rounded_tiles<T, 1, X>(in, h);
}

template <class T, int H>
bool square_plane(const Reading<T>& in, int64_t rows) {
    if (in.steps.dilation != 1 || in.steps.kd != 1 || in.steps.kh != H || in.steps.kw != H) return false;
    constexpr int W = H < 9 ? H : 0;
    if (H == 3 && in.steps.step == 2 && in.columns.shift[2] != in.columns.shift[1] + 1) return false;  // see Form::pairs
    if (in.steps.stride == 1 && in.steps.step == 1) plane<T, Form<H, W, 1, 1>>(in, rows);
    else if (in.steps.stride == 2 && in.steps.step == 1) plane<T, Form<H, W, 2, 1>>(in, rows);
    else if (in.steps.stride == 2 && in.steps.step == 2) plane<T, Form<H, W, 2, 2>>(in, rows);
    else return false;
    return true;
}

template <class T>
void any_plane(const Reading<T>& in, int64_t rows) {
    if (in.rounds) return in.steps.step == 1 ? rounded_plane<T, 1>(in, rows) : rounded_plane<T, 2>(in, rows);
    if (square_plane<T, 3>(in, rows) || square_plane<T, 5>(in, rows)) return;
    if (square_plane<T, 7>(in, rows) || square_plane<T, 9>(in, rows)) return;
    if (in.steps.step == 1) plane<T, Form<0, 0, 1, 1>>(in, rows);
    else plane<T, Form<0, 0, 1, 2>>(in, rows);
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
