// The register tile of depthwise, where pixels are on the vector: R rows (up to 8) of one vector of columns, for all taps.
//
// For each kw the kh weights stay in registers and each of the (R - 1) s + kh input rows is loaded once, shifted by kw, for all
// output rows that want it: H = 3, R = 8 has 13 loads for 24 multiply-adds. At the left and right edge lanes outside the image
// are masked; of two vectors every other lane is taken where w has stride 2.
#pragma once
#include "depthwise_columns.hpp"
#include "depthwise_pixels.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

constexpr bool many_registers = vector_bytes == 64;  // 32 of them
constexpr int64_t together_bytes = 24 << 10;  // of inputs and outputs of the planes that tiles go on to: they stay in L1

// Whether rows that have an edge are read where they lie, lanes beyond it masked. Without masked loads these lanes come one by one:
// a copy with the padding written out is up to 10 times as fast, and there is no tile for edges and for strides along w.
constexpr bool reads_in_place = vector_bytes > 16;

struct Steps {  // of the kernel, over rows of padded input
    int64_t kd, kh, kw, depth, stride, step, dilation;  // depth: rows from kd to kd; stride: along h; step: along w, 1 or 2
};

template <class T>
struct Target {  // where sums go
    int64_t row, step, residual_row, residual_step;
    const Epilogue<T>* epilogue;
    T* sums;   // for those that are not stored straight
    T least, most;  // straight stores: limits of the outputs (relu, relu6)
    T *output, *end;  // of the first channel; end: whole vectors may be stored up to there, null if not at all
    const T* residual;
};

template <class T>
struct Reading {  // some channels, all of them for one plane; what is addressed is that of the first
    const T* const* row;  // of each padded input row that is read, for each kd
    const T *weight, *bias;
    int64_t channels, input_step, weight_step, output_step, residual_step;  // from channel to channel
    Steps steps;
    Columns<T> columns;
    Target<T> to;
    bool rounds;   // products, see rounds_products
    bool crowded;  // rows share sets of L1: fewer of them at a time
    void (*plane)(const Reading&, int64_t rows);  // see plane_of
};

// What the compiler knows of a problem: H: kh and kw, or 0; S: stride along h, or 0; X: along w.
template <int H_, int S_, int X_>
struct Form {
    static constexpr int H = H_, S = S_, X = X_;
    // so that sums and weights fit the registers
    static constexpr int most_rows = many_registers ? 8 : H == 9 ? 4 : H == 7 || (H == 3 && X == 2) ? 7 : 8;
    // Two columns of the kernel are the even and the odd elements of what is loaded once: all but the last one, of few registers 1 and 2 of
    // 3 x 3. Of threes the last one has the even elements from the second on.
    static constexpr bool pairs = X == 2 && (H == 3 || (H > 0 && many_registers)), threes = pairs && H == 3 && many_registers;
    // A loop over kw takes as long, and a fifth or a seventh of the code, but for 3 x 3, where it costs 3 to 9 %.
    static constexpr bool unrolled = vector_bytes > 16 && H == 3 && S == 1;
    // Row by row, all taps in registers: a third of the pointers to load.
    static constexpr bool by_rows = unrolled && X == 1 && many_registers;
    // For 2 and 1 rows at the end: what is unrolled for H gains nothing there, but where these are many. Pairs are summed in another order.
    using Few = std::conditional_t<(H == 3 && S == X) || H == 9 || pairs, Form, Form<0, X == 1, X>>;
};

// From the sums to the output.
template <class T>
FASTCONV_KERNEL void finish(const Reading<T>& in, int64_t channel, int64_t h, int64_t w, int64_t rows) {
    constexpr int L = lanes<T>;
    const Target<T>& to = in.to;
    const int64_t count = std::min<int64_t>(L, in.columns.outputs - w);
    const T* const end = to.end ? to.end + channel * in.output_step : nullptr;
    const bool dense = to.step == 1 && (!to.residual || to.residual_step == 1);
    for (int64_t r = 0; r < rows; ++r) {
        T* y = to.output + channel * in.output_step + (h + r) * to.row + w * to.step;
        const T* more = to.residual ? to.residual + channel * in.residual_step + (h + r) * to.residual_row + w * to.residual_step : nullptr;
        T* sums = to.sums + r * L;
        if (more && !dense)
            for (int64_t l = 0; l < count; ++l) sums[l] += more[l * to.residual_step];
        Vec<T> sum = load(sums);
        if (more && dense) sum += load_some(more, count);
        sum = (*to.epilogue)(sum);
        if (!dense) {
            store(sums, sum);
            for (int64_t l = 0; l < count; ++l) y[l * to.step] = sums[l];
        } else if (count == L || y + L <= end) store(y, sum);
        else store_first(y, sum, count);
    }
}

// R rows of one vector of N columns: sums, which add the columns of the kernel one after the other.
// Many: of any of some channels, else of the first.
template <class T, class F, int R, int N, bool Edge, bool Many>
struct Tile {
    static constexpr int L = lanes<T>, H = F::H, S = F::S, reads = (R - 1) * S + H;  // reads: rows of inputs, where H is known
    using V = Vec<T, N>;
    using Column = Inputs<T, N, F::X, Edge>;

    const Reading<T>& in;
    int64_t channel, offset, w, edge;  // offset: of the channel's inputs; edge: of the masks, see Columns
    const T *const* row, *weight;
    V sum[R];

    FASTCONV_INLINE Tile(const Reading<T>& reading, int64_t c, const T* const* first_row, int64_t place, int64_t masks)
        : in(reading), channel(Many ? c : 0), offset(Many ? c * reading.input_step : 0), w(place), edge(masks), row(first_row),
          weight(reading.weight + (Many ? c * reading.weight_step : 0)) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r] = broadcast<T, N>(in.bias[Many ? c : 0]);
    }

    FASTCONV_INLINE Column column(int64_t kw) const { return Column(in.columns, row, offset, w, kw, edge); }

    FASTCONV_INLINE void add_kernel() {
        if constexpr (F::by_rows) {
            add_rows();
        } else if constexpr (F::threes) {
            add_pair(0);
        } else if constexpr (F::pairs && H == 3) {
            add_known(0);
            add_pair(1);
        } else if constexpr (F::pairs) {
#pragma GCC unroll 1
            for (int64_t kw = 0; kw + 1 < in.steps.kw; kw += 2) {
                asm("" : "+r"(row));
                add_pair(kw);
            }
            add_known(H - 1);
        } else if constexpr (F::unrolled) {
#pragma GCC unroll 8
            for (int kw = 0; kw < H; ++kw) add_known(kw);
        } else if constexpr (H > 0) {
#pragma GCC unroll 1
            for (int64_t kw = 0; kw < in.steps.kw; ++kw) {
                asm("" : "+r"(row));  // else the pointers in it are kept in vector registers, which sums and weights need
                add_known(kw);
            }
        } else if (S > 0 && R > 1 && in.steps.stride == 1 && in.steps.dilation == 1) {
            for_columns([&](const Column& input, const T* taps) __attribute__((always_inline)) { add_near(input, taps); });
        } else if (S > 0 && in.steps.stride == 1) {
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
                body(Column(in.columns, first, offset, w, kw, edge), taps);
    }

    // Input row i, to all sums that want it.
    FASTCONV_INLINE void add(int i, V x, const V* tap) {
#pragma GCC unroll 9
        for (int k = 0; k < H; ++k)
            if (i >= k && (i - k) % S == 0 && (i - k) / S < R) sum[(i - k) / S] += x * tap[k];
    }

    FASTCONV_INLINE void add_known(int64_t kw) {
        const Column input = column(kw);
        V tap[H];
#pragma GCC unroll 9
        for (int k = 0; k < H; ++k) tap[k] = broadcast<T, N>(weight[kw * H + k]);
#pragma GCC unroll 24
        for (int i = 0; i < reads; ++i) add(i, rounded(input.of_row(i)), tap);  // in a register, else it is loaded for each tap
    }

    FASTCONV_INLINE void add_rows() {
        const Column input[] = {column(0), column(1), column(2)};
        V tap[3 * 3];
#pragma GCC unroll 9
        for (int k = 0; k < 3 * 3; ++k) tap[k] = broadcast<T, N>(weight[k]);
#pragma GCC unroll 24
        for (int i = 0; i < R + 2; ++i)
#pragma GCC unroll 3
            for (int kw = 0; kw < 3; ++kw) add(i, rounded(input[kw].of_row(i)), tap + 3 * kw);
    }

    // kw and kw + 1, and of threes kw + 2
    FASTCONV_INLINE void add_pair(int64_t kw) {
        constexpr int together = F::threes ? 3 : 2;
        const Column input = column(kw), after = F::threes ? column(kw + 1) : input;
        V tap[together * H];
#pragma GCC unroll 18
        for (int k = 0; k < together * H; ++k) tap[k] = broadcast<T, N>(weight[kw * H + k]);
#pragma GCC unroll 24
        for (int i = 0; i < reads; ++i) {
            V even, odd;
            input.split_row(i, even, odd);
            add(i, even, tap);
            add(i, odd, tap + H);
            if constexpr (F::threes) add(i, input.third_of_row(i, even, after), tap + 2 * H);
        }
    }

    // Rows that follow each other: three taps at a time, as with H = 3.
    FASTCONV_INLINE void add_near(const Column& input, const T* taps) {
        int64_t k = 0;
        for (; k + 3 <= in.steps.kh; k += 3) {
            const V tap[3] = {broadcast<T, N>(taps[k]), broadcast<T, N>(taps[k + 1]), broadcast<T, N>(taps[k + 2])};
#pragma GCC unroll 10
            for (int i = 0; i < R + 2; ++i) {
                const V x = rounded(input.of_row(k + i));
#pragma GCC unroll 3
                for (int q = 0; q < 3; ++q)
                    if (i >= q && i - q < R) sum[i - q] += x * tap[q];
            }
        }
#pragma GCC unroll 1
        for (; k < in.steps.kh; ++k) {
            const V tap = broadcast<T, N>(taps[k]);
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
            const V tap = broadcast<T, N>(taps[k]);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[r] += input.of_row(r * stride + k * in.steps.dilation) * tap;
        }
    }

    FASTCONV_INLINE void write(int64_t h, const Limited<T, N>& limited) {
        if constexpr (F::X == 2)
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[r] = sorted<T>(sum[r], std::make_index_sequence<size_t(N)>{});
        const int64_t offset = Many ? channel * in.output_step : 0;
        T *const y = in.to.output + offset + h * in.to.row + w, *const end = in.to.end ? in.to.end + offset : nullptr;
        if (y + (R - 1) * in.to.row + N <= end) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) store<T, N>(y + r * in.to.row, limited(sum[r]));
        } else if (Many && end && (R == 1 || y + (R - 2) * in.to.row + N <= end)) {  // the last row alone reaches too far
#pragma GCC unroll 8
            for (int r = 0; r < R - 1; ++r) store<T, N>(y + r * in.to.row, limited(sum[r]));
            store_within<T, N>(y + (R - 1) * in.to.row, limited(sum[R - 1]), in.columns.outputs - w);
        } else {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) store<T, N>(in.to.sums + r * L, sum[r]);
            finish(in, channel, h, w, R);
        }
    }
};

// Rows h .. h + R - 1, vectors of columns last, last - step, ... first; masks: how many are listed up to that vector. Many: from channel
// to channel, so that where rows are and what is masked is found out once for all, which for short rows takes as long as their sums.
template <class T, class F, int R, int N, bool Edge, bool Many>
FASTCONV_KERNEL void tiles(const Reading<T>& in, int64_t h, int64_t last, int64_t first, [[maybe_unused]] int64_t masks = 0,
                          int64_t step = N) {
    const T* const* const row = in.row + h * in.steps.stride;
    const Limited<T, N> limited(in.to.least, in.to.most);
    for (int64_t channel = 0; channel < (Many ? in.channels : 1); ++channel)
        for (int64_t w = last, edge = masks; w >= first; w -= step) {
            edge -= in.steps.kw;
            Tile<T, F, R, N, Edge, Many> tile(in, channel, row, w, edge);
            tile.add_kernel();
            tile.write(h, limited);
        }
}

// All columns of R rows, from right to left: a vector that reaches beyond its row spoils first columns of the next rows, which
// are still to come. inside: computes those from first_inside to last_inside.
template <class T, class F, int R, bool Many, class Inside>
FASTCONV_INLINE void band_of(const Reading<T>& in, int64_t h, Inside inside) {
    constexpr int L = lanes<T>;
    const Columns<T>& c = in.columns;
    if constexpr (has_halves)
        if (c.half >= 0) tiles<T, F, R, L / 2, true, true>(in, h, c.half, c.half, c.masks + in.steps.kw);  // also of one channel
    if constexpr (reads_in_place)  // else there are none
        if (c.last_inside < c.last) tiles<T, F, R, L, true, Many>(in, h, c.last, c.last_inside + L, c.masks);
    if (c.first_inside <= c.last_inside) inside();
    if constexpr (reads_in_place)
        if (c.first_inside > 0) tiles<T, F, R, L, true, Many>(in, h, c.first_inside - L, 0, c.left_masks);
}

template <class T, class F, int R>
void band(const Reading<T>& in, int64_t h) {
    constexpr int L = lanes<T>;
    const int64_t first = in.columns.first_inside, last = in.columns.last_inside;
    if constexpr (reads_in_place)
        if (in.channels > 1) return band_of<T, F, R, true>(in, h, [&] { tiles<T, F, R, L, false, true>(in, h, last, first); });
    band_of<T, F, R, false>(in, h, [&] { tiles<T, F, R, L, false, false>(in, h, last, first); });
}

// Up to 8 vectors of a single row, for a kernel of one row, are the rows of a tile: a sum alone waits for its own last product.
template <class T, class F>
void single_row(const Reading<T>& in) {
    constexpr int L = lanes<T>;
    const T* row[8];
    for (int r = 0; r < 8; ++r) row[r] = in.row[0] + r * L * F::X;
    Reading<T> along = in;
    along.row = row, along.steps.stride = along.steps.dilation = 1;
    along.to.row = L * in.to.step, along.to.residual_row = L * in.to.residual_step;
    int64_t first = in.columns.first_inside;
    const auto vectors = [&](auto together) {
        constexpr int R = decltype(together)::value;
        const Columns<T>& c = in.columns;
        const int64_t last = R > 1 ? std::min(c.last_inside, c.outputs / L * L - L) : c.last_inside;  // not all its lanes may be outputs
        const int64_t end = first + (last + L - first) / (R * L) * (R * L);
        tiles<T, F, R, L, false, reads_in_place>(along, 0, end - R * L, first, 0, R * L);
        first = end;
    };
    band_of<T, F, 1, reads_in_place>(in, 0, [&] {
        vectors(std::integral_constant<int, 8>{});
        vectors(std::integral_constant<int, 4>{});
        vectors(std::integral_constant<int, 2>{});
        vectors(std::integral_constant<int, 1>{});
    });
}

// Bands of 8, 7, 4, 2 and 1 rows, as few as possible.
template <class T, class F>
void plane(const Reading<T>& in, int64_t rows) {
    if constexpr (F::H == 0)
        if (rows == 1 && in.steps.kd * in.steps.kh == 1 && in.columns.first_inside < in.columns.last_inside) return single_row<T, F>(in);
    constexpr int most = F::most_rows;
    for (int64_t h = 0, n; h < rows; h += n) {
        const int64_t left = rows - h;
        const bool seven = left == 7 || left == 9 || left == 11 || left == 13 || left == 14 || left == 21
                           || (most == 7 && left > 14);
        const int64_t few = std::min<int64_t>(left, 2);
        // Crowded ones: what four gain in loads they lose in misses where a vector is less than a line, and there are few loads.
        const bool four = in.steps.stride == 1 && (F::H != 3 || vector_bytes == 64);
        if (in.crowded) n = four && left >= 4 ? 4 : few;
        else n = most > 4 && seven ? 7 : left >= 8 && most == 8 ? 8 : left >= 4 ? 4 : few;
        switch (n) {
            case 8: if constexpr (most >= 8) band<T, F, 8>(in, h); break;
            case 7: if constexpr (most >= 7) band<T, F, 7>(in, h); break;
            case 4: band<T, F, 4>(in, h); break;
            case 2: band<T, typename F::Few, 2>(in, h); break;
            default: band<T, typename F::Few, 1>(in, h);
        }
    }
}

// R rows of a plane where products are rounded (see rounds_products); X: step along w.
template <class T, int R, int X>
FASTCONV_NOINLINE void rounded_tiles(const Reading<T>& in, int64_t channel, int64_t h) {
    constexpr int L = lanes<T>;
    const Steps& steps = in.steps;
    const int64_t rows = steps.kd * steps.kh;
    const T* const weight = in.weight + channel * in.weight_step;
    for (int64_t w = (in.columns.outputs - 1) / L * L; w >= 0; w -= L) {
        struct Product {
            Inputs<T, L, X, reads_in_place> input;
            Vec<T> tap;
            int64_t stride;
            FASTCONV_INLINE Vec<T> of_row(int r) const { return rounded(input.of_row(r * stride) * tap); }
        };
        const auto product = [&](int64_t k, int64_t kw) __attribute__((always_inline)) {
            const int64_t kd = steps.kd == 1 ? 0 : k / steps.kh, kh = k - kd * steps.kh;
            const T* const* row = in.row + kd * steps.depth + h * steps.stride + kh * steps.dilation;
            return Product{{in.columns, row, channel * in.input_step, w, kw}, broadcast(weight[(kd * steps.kw + kw) * steps.kh + kh]),
                           steps.stride};
        };
        Vec<T> sum[R];
        for (int r = 0; r < R; ++r) sum[r] = broadcast(in.bias[channel]);
        for_opposites(rows, steps.kw, [&](int64_t k, int64_t kw) __attribute__((always_inline)) {
            const Product one = product(k, kw), other = product(rows - 1 - k, steps.kw - 1 - kw);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) sum[r] += one.of_row(r) + other.of_row(r);
        });
        const bool middle = rows * steps.kw % 2;
        const Product one = product(middle ? rows / 2 : 0, middle ? steps.kw / 2 : 0);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            if (middle) sum[r] += one.of_row(r);
            store(in.to.sums + r * L, X == 1 ? sum[r] : sorted<T>(sum[r], std::make_index_sequence<size_t(L)>{}));
        }
        finish(in, channel, h, w, R);
    }
}

template <class T, int X>
void rounded_plane(const Reading<T>& in, int64_t rows) {
    for (int64_t channel = 0; channel < in.channels; ++channel) {
        int64_t h = 0;
        for (; h + 4 <= rows; h += 4) rounded_tiles<T, 4, X>(in, channel, h);
        for (; h < rows; ++h) rounded_tiles<T, 1, X>(in, channel, h);
    }
}

template <class T>
using Plane = void (*)(const Reading<T>&, int64_t rows);

// The form of a square kernel, if there is one.
template <class T, int H, int X>
Plane<T> square_plane(const Reading<T>& in) {
    if (in.steps.dilation != 1 || in.steps.kd != 1 || in.steps.kh != H || in.steps.kw != H) return nullptr;
    if (X == 2 && in.columns.shift[1] != in.columns.shift[0] + 1) return nullptr;  // see Form::pairs
    if (in.steps.stride == 2) return plane<T, Form<H, 2, X>>;
    if constexpr (X == 1)
        if (in.steps.stride == 1) return plane<T, Form<H, 1, 1>>;
    return nullptr;
}

template <class T, int X>
Plane<T> plane_of(const Reading<T>& in) {
    if (in.rounds) return rounded_plane<T, X>;
    for (const auto square : {square_plane<T, 3, X>, square_plane<T, 5, X>, square_plane<T, 7, X>, square_plane<T, 9, X>})
        if (const Plane<T> found = square(in)) return found;
    return plane<T, Form<0, X == 1, X>>;
}

template <class T>
Plane<T> plane_of(const Reading<T>& in) {
    if constexpr (reads_in_place)
        if (in.steps.step == 2) return plane_of<T, 2>(in);
    return plane_of<T, 1>(in);
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
