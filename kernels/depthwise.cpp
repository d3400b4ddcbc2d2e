// depthwise: one input channel per group, pixels on the vector.
//
//   out[oc][h][w..] = bias[oc] + sum over kw, kh of w[oc][kh][kw] * x[h s + kh][w.. + kw]
//
// Tile: R rows (up to 8) of one vector. For each kw the kh weights stay in registers and each of the (R - 1) s + kh input rows is
// loaded once, shifted by kw, for all output rows that want it: H = 3, R = 8 has 13 loads for 24 multiply-adds. Rows are read
// where they lie: rows of padding are a row of zeros, at the left and right edge lanes outside the image are masked, and of two vectors
// every other lane is taken where w has stride 2. Only longer strides along w (whose phases are split), padding other than zeros and
// unusual strides of the array take a copy. Where the channels of a pixel lie side by side see depthwise_last.hpp.
// Bottleneck: FMA for H >= 3 while the maps stay in cache, then memory.
#include "depthwise_last.hpp"
#include "pack.hpp"
#include "slab.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

template <class T>
using Mask = typename VectorOf<T>::mask;

// ---- packed weights: bias [padded oc], [oc][kd][kw][kh], and for channels that lie side by side [kd][kh][kw][padded oc], which
// begin again behind the last one where vectors may run on into the next pixel

template <class T>
struct DepthwisePacking {
    int64_t channels, padded, volume;

    explicit DepthwisePacking(const Problem& p)
        : channels(p.groups * p.out_channels),
          padded(round_up(channels + (runs_on<T>(channels) ? 2 * lanes<T> : 0), lanes<T>)), volume(kernel_volume(p)) {}
    int64_t rows() const { return padded; }
    int64_t pixels() const { return padded * (1 + volume); }
    size_t bytes(const Problem&) const { return size_t(padded * (1 + 2 * volume)) * sizeof(T); }
};

template <class T>
void pack_channels(const Problem& p, const PackCall& call) {
    const DepthwisePacking<T> packing(p);
    const T *from = static_cast<const T*>(call.weight), *b = static_cast<const T*>(call.bias);
    T *to = static_cast<T*>(call.packed), *rows = to + packing.rows(), *pixels = to + packing.pixels();
    pack_block(from, packing.volume, packing.volume, packing.volume, packing.channels, packing.padded,
               [&](int64_t, int64_t tap) { return pixels + tap * packing.padded; });
    for (int64_t c = 0; c < packing.channels; ++c) to[c] = b ? b[c] : T(0);
    const auto turn = [&](auto kh, auto kw) {
        for (int64_t i = 0; i < packing.channels * p.kernel[0]; ++i, from += kh * kw, rows += kh * kw)
            for (int64_t w = 0; w < kw; ++w)
                for (int64_t h = 0; h < kh; ++h) rows[w * kh + h] = from[h * kw + w];
    };
    constexpr std::integral_constant<int64_t, 3> three;  // known, it takes half as long
    if (p.kernel[1] == 3 && p.kernel[2] == 3) turn(three, three);
    else turn(p.kernel[1], p.kernel[2]);
    if (!runs_on<T>(packing.channels)) return;
    for (int64_t c = packing.channels; c < packing.padded; ++c) {
        to[c] = to[c - packing.channels];
        for (T* row = pixels; row < pixels + packing.volume * packing.padded; row += packing.padded) row[c] = row[c - packing.channels];
    }
}

// ---- the tile

template <class T>
struct Reading {  // one output channel of one plane
    const T* const* row;  // of each padded input row that is read, for each kd
    const int64_t* shift;  // of each kw, from the place of output column 0
    const Mask<T>*mask, *more;  // [vector of columns at an edge][kw]: lanes inside the row, and with stride 2 along w of the second
                                // vector; null if they were too many to list
    int64_t masks, left_masks;  // how many there are, and at the left edge
    int64_t last, first_inside, last_inside;  // vectors of columns: from first_inside to last_inside no lane of any kw is outside the row
    int64_t kd, kh, kw, depth, stride, step, dilation, width, columns,  // depth: rows from kd to kd; step: along w, 1 or 2
         output_row, output_step, residual_row, residual_step;
    bool rounds;   // products, see rounds_products
    bool crowded;  // rows share sets of L1: fewer of them at a time
    const Epilogue<T>* epilogue;
    T* sums;  // for those that are not stored straight
    T least;  // straight stores: outputs are at least this (relu)
    // from channel to channel:
    const T *weight, *residual;
    T bias;
    T *output, *end;  // end: whole vectors may be stored up to there, null if not at all
};

// From the sums to the output.
template <class T>
FASTCONV_NOINLINE void finish(const Reading<T>& in, int64_t h, int64_t w, int64_t rows) {
    constexpr int L = lanes<T>;
    const int64_t count = std::min<int64_t>(L, in.columns - w);
    for (int64_t r = 0; r < rows; ++r) {
        T* y = in.output + (h + r) * in.output_row + w * in.output_step;
        const T* more = in.residual ? in.residual + (h + r) * in.residual_row + w * in.residual_step : nullptr;
        if (in.output_step == 1 && (!more || in.residual_step == 1)) {
            Vec<T> sum = load(in.sums + r * L);
            if (more) sum += load_some(more, count);
            sum = (*in.epilogue)(sum);
            if (count == L || y + L <= in.end) store(y, sum);
            else store_first(y, sum, count);
        } else {
            for (int64_t l = 0; l < count; ++l) {
                const T sum = in.sums[r * L + l];
                y[l * in.output_step] = (*in.epilogue)(more ? sum + more[l * in.residual_step] : sum);
            }
        }
    }
}

// Rows h .. h + R - 1, vectors of columns last, last - lanes, ... first; W: kw where it is known, or 0; S, X: stride along h, w; edge: how
// many masks are listed up to that vector.
template <class T, int H, int W, int R, int S, int X, bool Edge>
FASTCONV_NOINLINE void tiles(const Reading<T>& in, int64_t h, int64_t last, int64_t first, [[maybe_unused]] int64_t edge = 0) {
    constexpr int L = lanes<T>;
    [[maybe_unused]] constexpr auto all = std::make_index_sequence<size_t(L)>{};
    const T* const* const first_row = in.row + h * in.stride;
    const int64_t kw_count = W ? W : in.kw;
    const Vec<T> least = broadcast(in.least);
    for (int64_t w = last; w >= first; w -= L) {
        Vec<T> sum[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r] = broadcast(in.bias);
        edge -= kw_count;
        const T* const* row = first_row;
        const T* weights = in.weight;
        const auto inside = [&](const Mask<T>* listed, int64_t kw, int64_t at) __attribute__((always_inline)) {
            return !Edge ? Mask<T>{} : listed ? listed[edge + kw] : lanes_between<T>(-at, in.width - at);
        };
        const auto column = [&](int64_t kw) __attribute__((always_inline)) {
            const T* weight = weights + kw * (H ? H : in.kh);
            const int64_t at = w * X + in.shift[kw];
            const Mask<T> mask = inside(in.mask, kw, at), more = X == 1 ? Mask<T>{} : inside(in.more, kw, at + L);
            const auto input = [&](int64_t i) __attribute__((always_inline)) {
                const Vec<T> x = Edge ? load_masked<T>(row[i] + at, mask) : load(row[i] + at);
                if constexpr (X == 1) return x;
                else {
                    const T* next = row[i] + at + L;
                    return every_other_unsorted<T, 0>(x, Edge ? load_masked<T>(next, more) : load(next), all);
                }
            };
            if constexpr (H > 0) {
                Vec<T> tap[H];
#pragma GCC unroll 9
                for (int k = 0; k < H; ++k) tap[k] = broadcast(weight[k]);
#pragma GCC unroll 24
                for (int i = 0; i < (R - 1) * S + H; ++i) {
                    const Vec<T> x = rounded(input(i));  // in a register: else it is loaded for each tap
#pragma GCC unroll 9
                    for (int k = 0; k < H; ++k)
                        if (i >= k && (i - k) % S == 0 && (i - k) / S < R) sum[(i - k) / S] += x * tap[k];
                }
            } else {
                int64_t k = 0;
                if (R > 1 && in.stride == 1 && in.dilation == 1)  // three at a time, as with H = 3
                    for (; k + 3 <= in.kh; k += 3) {
                        const Vec<T> tap[3] = {broadcast(weight[k]), broadcast(weight[k + 1]), broadcast(weight[k + 2])};
#pragma GCC unroll 10
                        for (int i = 0; i < R + 2; ++i) {
                            const Vec<T> x = rounded(input(k + i));
#pragma GCC unroll 3
                            for (int q = 0; q < 3; ++q)
                                if (i >= q && i - q < R) sum[i - q] += x * tap[q];
                        }
                    }
#pragma GCC unroll 1
                for (; k < in.kh; ++k) {
                    const Vec<T> tap = broadcast(weight[k]);
#pragma GCC unroll 8
                    for (int r = 0; r < R; ++r) sum[r] += input(r * in.stride + k * in.dilation) * tap;
                }
            }
        };
        // H = 3 with stride 2: kw and kw + 1 are the even and the odd elements of what is loaded once
        [[maybe_unused]] const auto two_columns = [&](int64_t kw) __attribute__((always_inline)) {
            const T* weight = weights + kw * H;
            const int64_t at = w * X + in.shift[kw];
            const Mask<T> mask = inside(in.mask, kw, at), more = inside(in.more, kw, at + L);
            Vec<T> tap[2 * H + 1];  // one more: H may be 0
#pragma GCC unroll 18
            for (int k = 0; k < 2 * H; ++k) tap[k] = broadcast(weight[k]);
#pragma GCC unroll 24
            for (int i = 0; i < (R - 1) * S + H; ++i) {
                const Vec<T> x = Edge ? load_masked<T>(row[i] + at, mask) : load(row[i] + at);
                const Vec<T> next = Edge ? load_masked<T>(row[i] + at + L, more) : load(row[i] + at + L);
                const Vec<T> even = every_other_unsorted<T, 0>(x, next, all), odd = every_other_unsorted<T, 1>(x, next, all);
#pragma GCC unroll 9
                for (int k = 0; k < H; ++k)
                    if (i >= k && (i - k) % S == 0 && (i - k) / S < R) sum[(i - k) / S] += even * tap[k];
#pragma GCC unroll 9
                for (int k = 0; k < H; ++k)
                    if (i >= k && (i - k) % S == 0 && (i - k) / S < R) sum[(i - k) / S] += odd * tap[H + k];
            }
        };
        if constexpr (H == 3 && W == 3 && X == 2) {
            column(0);
            two_columns(1);
        } else if constexpr (W > 0) {
#pragma GCC unroll 8
            for (int kw = 0; kw < W; ++kw) column(kw);
        } else {
            const int64_t depths = H ? 1 : in.kd;
#pragma GCC unroll 1
            for (int64_t kd = 0; kd < depths; ++kd, row += in.depth, weights += in.kh * in.kw)
#pragma GCC unroll 1
                for (int64_t kw = 0; kw < kw_count; ++kw) column(kw);
        }
        if constexpr (X == 2)
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum[r] = sorted<T>(sum[r], all);
        T* y = in.output + h * in.output_row + w;
        if (y + (R - 1) * in.output_row + L <= in.end) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) store(y + r * in.output_row, sum[r] < least ? least : sum[r]);
        } else {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) store(in.sums + r * L, sum[r]);
            finish(in, h, w, R);
        }
    }
}

// All columns of R rows, from right to left: a vector that reaches beyond its row spoils first columns of the next rows, which
// are still to come.
template <class T, int H, int W, int R, int S, int X>
void band(const Reading<T>& in, int64_t h) {
    constexpr int L = lanes<T>;
    if (in.last_inside < in.last) tiles<T, H, W, R, S, X, true>(in, h, in.last, in.last_inside + L, in.masks);
    if (in.first_inside <= in.last_inside) tiles<T, H, W, R, S, X, false>(in, h, in.last_inside, in.first_inside);
    if (in.first_inside > 0) tiles<T, H, W, R, S, X, true>(in, h, in.first_inside - L, 0, in.left_masks);
}

// Bands of 8, 7, 4, 2 and 1 rows, as few as possible.
template <class T, int H, int W, int S, int X>
void plane(const Reading<T>& in, int64_t rows) {
    constexpr int most = H == 9 ? 4 : H == 7 || (H == 3 && X == 2) ? 7 : 8;  // so that sums and weights fit the registers
    for (int64_t h = 0, n; h < rows; h += n) {
        const int64_t left = rows - h;
        const bool seven = left == 7 || left == 9 || left == 11 || left == 13 || left == 14 || left == 21 || (most == 7 && left > 14);
        n = in.crowded ? std::min<int64_t>(left, 2) : most > 4 && seven ? 7 : left >= 8 && most == 8 ? 8 : left >= 4 ? 4 : std::min<int64_t>(left, 2);
        switch (n) {
            case 8: if constexpr (most >= 8) band<T, H, W, 8, S, X>(in, h); break;
            case 7: if constexpr (most >= 7) band<T, H, W, 7, S, X>(in, h); break;
            case 4: band<T, H, W, 4, S, X>(in, h); break;
            case 2: band<T, H, W, 2, S, X>(in, h); break;
            default: band<T, H, W, 1, S, X>(in, h);
        }
    }
}

// R rows of a plane where products are rounded (see rounds_products); X: step along w.
template <class T, int R, int X>
FASTCONV_NOINLINE void rounded_tiles(const Reading<T>& in, int64_t h) {
    constexpr int L = lanes<T>;
    constexpr auto all = std::make_index_sequence<size_t(L)>{};
    const int64_t rows = in.kd * in.kh;
    for (int64_t w = in.last; w >= 0; w -= L) {
        const auto product = [&](int64_t k, int64_t kw, int r) __attribute__((always_inline)) {
            const int64_t kd = in.kd == 1 ? 0 : k / in.kh, kh = k - kd * in.kh, at = w * X + in.shift[kw];
            const T* from = in.row[kd * in.depth + (h + r) * in.stride + kh * in.dilation] + at;
            const bool inside = at >= 0 && at + X * L <= in.width;
            const auto read = [&](int64_t i) __attribute__((always_inline)) {
                return inside ? load(from + i) : load_masked<T>(from + i, lanes_between<T>(-at - i, in.width - at - i));
            };
            const Vec<T> tap = broadcast(in.weight[(kd * in.kw + kw) * in.kh + kh]);
            if constexpr (X == 1) return rounded(read(0) * tap);
            else return rounded(every_other_unsorted<T, 0>(read(0), read(L), all) * tap);
        };
        Vec<T> sum[R];
        for (int r = 0; r < R; ++r) sum[r] = broadcast(in.bias);
        for_opposites(rows, in.kw, [&](int64_t k, int64_t kw) __attribute__((always_inline)) {
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) sum[r] += product(k, kw, r) + product(rows - 1 - k, in.kw - 1 - kw, r);
        });
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            if (rows * in.kw % 2) sum[r] += product(rows / 2, in.kw / 2, r);
            store(in.sums + r * L, X == 1 ? sum[r] : sorted<T>(sum[r], all));
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
    if (in.dilation != 1 || in.kd != 1 || in.kh != H || in.kw != H) return false;
    constexpr int W = H < 9 ? H : 0;
    if (H == 3 && in.step == 2 && in.shift[2] != in.shift[1] + 1) return false;  // two columns at once: see tiles
    if (in.stride == 1 && in.step == 1) plane<T, H, W, 1, 1>(in, rows);
    else if (in.stride == 2 && in.step == 1) plane<T, H, W, 2, 1>(in, rows);
    else if (in.stride == 2 && in.step == 2) plane<T, H, W, 2, 2>(in, rows);
    else return false;
    return true;
}

template <class T>
void any_plane(const Reading<T>& in, int64_t rows) {
    if (in.rounds) return in.step == 1 ? rounded_plane<T, 1>(in, rows) : rounded_plane<T, 2>(in, rows);
    if (square_plane<T, 3>(in, rows) || square_plane<T, 5>(in, rows)) return;
    if (square_plane<T, 7>(in, rows) || square_plane<T, 9>(in, rows)) return;
    if (in.step == 1) plane<T, 0, 0, 1, 1>(in, rows);
    else plane<T, 0, 0, 1, 2>(in, rows);
}

// ---- one call: units are (plane, band of rows), a plane is one group of one image at one depth

template <class T>
struct Depthwise {
    static constexpr int64_t line = 64 / int64_t(sizeof(T));
    Problem p;
    Call call;
    bool raw;  // rows are read where they lie
    int64_t planes, bands, parts, band_rows, band_inputs, phase, pitch;
    int64_t last, first_inside, last_inside;  // of the vectors of columns, see Reading

    Depthwise(const Problem& problem, const Call& c, int threads) : p(problem), call(c) {
        raw = p.padding_mode == PaddingMode::zeros && p.stride[2] <= 2 && (!c.input.data || c.input.space[2] == 1 || p.input[2] == 1);
        planes = p.batch * p.output[0] * p.groups;
        parts = threads_for(multiply_adds(p), worth_a_thread::depthwise, threads);
        bands = planes >= 4 * parts ? 1 : std::min(ceil_div(4 * parts, planes), ceil_div(p.output[1], 8));
        band_rows = round_up(ceil_div(p.output[1], bands), 8);
        bands = ceil_div(p.output[1], band_rows);
        band_rows = std::min(band_rows, p.output[1]);
        parts = std::min(parts, planes * bands);
        band_inputs = extent(p, 1, band_rows);
        const int64_t span = extent(p, 2, p.output[2]);
        phase = p.stride[2] > 1 ? round_up(ceil_div(span, p.stride[2]), line) + line : 0;  // vectors may read past its end
        pitch = phase ? phase * p.stride[2] : round_up(span, line) + line;
        find_inside();
    }

    void find_inside() {
        constexpr int64_t L = lanes<T>;
        const int64_t room = width() - step() * L - shift(p.kernel[2] - 1);
        last = (p.output[2] - 1) / L * L;
        first_inside = shift(0) < 0 ? round_up(ceil_div(-shift(0), step()), L) : 0;
        last_inside = std::min(last, room < 0 ? -L : room / step() / L * L);
        if (first_inside > last_inside) first_inside = last + L, last_inside = last;  // none: all are at the left edge
    }

    int64_t step() const { return raw ? p.stride[2] : 1; }
    int64_t width() const { return raw ? p.input[2] : pitch; }
    int64_t shift(int64_t kw) const {  // from the place of output column 0
        const int64_t at = kw * p.dilation[2];
        return raw ? at - p.pad_lo[2] : phase ? at % p.stride[2] * phase + at / p.stride[2] : at;
    }
    int64_t edges() const { return (first_inside + last - last_inside) / lanes<T>; }
    int64_t masks() const { return edges() * p.kernel[2] <= 4096 ? edges() * p.kernel[2] : 0; }
    int64_t most_masks() const { return std::min<int64_t>(4096, ceil_div(p.output[2], lanes<T>) * p.kernel[2]); }  // whatever the arrays

    struct Scratch {
        const T** row;
        int64_t *from, *shift;  // of each row of a band, for each kd: where it is in a channel, or `nowhere`
        Mask<T>*mask, *more;
        T *zeros, *slab;
        size_t bytes;
        Scratch(const Depthwise& job, void* base, bool raw) {
            Arena arena(base);
            row = arena.take<const T*>(job.p.kernel[0] * job.band_inputs);
            from = arena.take<int64_t>(job.p.kernel[0] * job.band_inputs);
            shift = arena.take<int64_t>(job.p.kernel[2]);
            mask = arena.take<Mask<T>>(job.most_masks());
            more = arena.take<Mask<T>>(job.most_masks());
            zeros = raw ? arena.take<T>(job.p.input[2] + line) : nullptr;
            slab = raw ? nullptr : arena.take<T>(job.p.kernel[0] * job.band_inputs * job.pitch);
            bytes = arena.used();
        }
    };

    Crew crew() const {  // for arrays of any strides: with and without a copy
        return {p, call, parts, std::max(Scratch(*this, nullptr, false).bytes, Scratch(*this, nullptr, true).bytes)};
    }

    void compute() const {
        const Crew crew = this->crew();
        crew.share(planes * bands, [&](int64_t part, const auto& each) {
            const Scratch s(*this, crew.own(part), raw);
            list_columns(s);
            const Epilogue<T> epilogue(p);
            alignas(vector_bytes) T sums[8 * lanes<T>];
            Reading<T> reading = this->reading(s, &epilogue, sums);
            int64_t listed = -1;
            each([&](int64_t begin, int64_t end) {
                Unit unit(*this, begin);
                for (int64_t i = begin; i < end; ++i, unit.advance(*this)) {
                    const int64_t place = unit.depth * bands + unit.band;
                    if (listed != place) list_rows(unit.depth, unit.band * band_rows, s);
                    listed = place;
                    compute(unit, i + 1 < end && unit.group + 1 < p.groups, reading, s);
                }
            });
        });
    }

    // Band of rows x group x depth x image, so that neighbours share what is known of the rows.
    struct Unit {
        int64_t band, group, depth, image;

        Unit(const Depthwise& job, int64_t i)
            : band(i % job.bands), group(i / job.bands % job.p.groups), depth(i / job.bands / job.p.groups % job.p.output[0]),
              image(i / job.bands / job.p.groups / job.p.output[0]) {}
        void advance(const Depthwise& job) {
            if (++band < job.bands) return;
            band = 0;
            if (++group < job.p.groups) return;
            group = 0;
            if (++depth < job.p.output[0]) return;
            depth = 0, ++image;
        }
    };

    // What is known of the columns.
    void list_columns(const Scratch& s) const {
        constexpr int64_t L = lanes<T>;
        if (raw) clear(s.zeros, p.input[2] + line);
        for (int64_t k = 0; k < p.kernel[2]; ++k) s.shift[k] = shift(k);
        for (int64_t i = 0; i < masks(); ++i) {
            const int64_t v = i / p.kernel[2] * L, w = v < first_inside ? v : v - first_inside + last_inside + L;
            const int64_t at = w * step() + shift(i % p.kernel[2]);
            s.mask[i] = lanes_between<T>(-at, width() - at);
            s.more[i] = lanes_between<T>(-at - L, width() - at - L);
        }
    }

    Reading<T> reading(const Scratch& s, const Epilogue<T>* epilogue, T* sums) const {
        return {s.row, s.shift, masks() ? s.mask : nullptr, masks() ? s.more : nullptr, edges() * p.kernel[2],
                first_inside / lanes<T> * p.kernel[2], last, first_inside, last_inside,
                p.kernel[0], p.kernel[1], p.kernel[2], band_inputs, p.stride[1], step(), p.dilation[1], width(), p.output[2],
                call.output.space[1], call.output.space[2], call.residual.space[1], call.residual.space[2], rounds_products(p),
                crowds(call.output.space[1]) || crowds(raw ? call.input.space[1] : pitch), epilogue, sums, epilogue->least(),
                nullptr, nullptr, T(0), nullptr, nullptr};
    }

    // Where the padded input rows of a band come from.
    void list_rows(int64_t depth, int64_t first, const Scratch& s) const {
        for (int64_t kd = 0; kd < p.kernel[0]; ++kd) {
            const int64_t from_d = source(p, 0, depth * p.stride[0] - p.pad_lo[0] + kd * p.dilation[0]);
            for (int64_t i = 0; i < band_inputs; ++i) {
                const int64_t from_h = source(p, 1, first * p.stride[1] - p.pad_lo[1] + i);
                const bool zeros = from_d < 0 || from_h < 0 || i >= extent(p, 1, std::min(band_rows, p.output[1] - first));
                s.from[kd * band_inputs + i] = zeros ? nowhere : from_d * call.input.space[0] + from_h * call.input.space[1];
            }
        }
    }

    // followed: this thread goes on with the next channel of the same image
    void compute(const Unit& unit, bool followed, Reading<T>& reading, const Scratch& s) const {
        const int64_t first = unit.band * band_rows, rows = std::min(band_rows, p.output[1] - first);
        place_rows(at<const T>(call.input, unit.image, unit.group), p.kernel[0] * band_inputs, s);
        const T* packed = static_cast<const T*>(call.packed);
        const DepthwisePacking<T> packing(p);
        const bool dense = call.output.space[1] == p.output[2] && call.output.space[2] == 1;
        const bool simple = !call.residual.data && reading.epilogue->is_limit();
        // a vector may also reach into the next channel, as far as that one goes
        const bool runs_on = followed && bands == 1 && p.output[0] == 1 && call.output.channel == p.output[1] * p.output[2];
        const int64_t beyond = runs_on ? std::min<int64_t>(lanes<T>, p.output[1] * p.output[2]) : 0;
        for (int64_t c = unit.group * p.out_channels; c < (unit.group + 1) * p.out_channels; ++c) {
            T* y = at<T>(call.output, unit.image, c) + unit.depth * call.output.space[0] + first * call.output.space[1];
            const T* r = at<const T>(call.residual, unit.image, c);
            if (r) r += unit.depth * call.residual.space[0] + first * call.residual.space[1];
            reading.weight = packed + packing.rows() + c * packing.volume, reading.bias = packed[c], reading.residual = r;
            reading.output = y, reading.end = dense && simple ? y + rows * p.output[2] + beyond : nullptr;
            any_plane(reading, rows);
        }
    }

    static bool crowds(int64_t stride) { return stride * int64_t(sizeof(T)) % 4096 == 0; }

    void place_rows(const T* x, int64_t count, const Scratch& s) const {
        if (raw) {
            for (int64_t i = 0; i < count; ++i) s.row[i] = s.from[i] == nowhere ? s.zeros : x + s.from[i];
            return;
        }
        const int64_t span = extent(p, 2, p.output[2]), strands = phase ? p.stride[2] : 1;
        for (int64_t i = 0; i < count; ++i) s.row[i] = s.slab + i * pitch;
        for (int64_t f = 0; f < strands; ++f) {
            const Strand strand(p, f - p.pad_lo[2], strands, ceil_div(span - f, strands));
            T* to = s.slab + f * phase;
            for (int64_t i = 0; i < count; ++i, to += pitch) {
                if (s.from[i] == nowhere) clear(to, strand.count);
                else fill_row(p, strand, x + s.from[i], call.input.space[2], to);
            }
        }
    }
};

template <class T>
struct DepthwiseAlgorithm : Defaults {
    static const char* refuses(const Problem& p) { return p.in_channels != 1 ? "computes one input channel per group only" : nullptr; }
    static size_t packed_bytes(const Problem& p) { return DepthwisePacking<T>(p).bytes(p); }
    static size_t workspace_bytes(const Problem& p, int threads) {
        const size_t side_by_side = WidenedRows<T>::suits(p) ? DepthwiseLast<T>::crew(p, Call{}, threads).bytes() : 0;
        return std::max(side_by_side, Depthwise<T>(p, Call{}, threads).crew().bytes());
    }
    static void pack(const Problem& p, const PackCall& call) { pack_channels<T>(p, call); }
    static void run(const Problem& p, const Call& call) {
        if (DepthwiseLast<T>::applies(p, call)) {
            const T* packed = static_cast<const T*>(call.packed);
            const DepthwisePacking<T> packing(p);
            const DepthwiseLast<T> job(p, call, packed, packed + packing.pixels(), packing.padded, call.threads);
            if (job.run || 2 * job.channels > lanes<T>) return job.compute();
        }
        Depthwise<T>(p, call, call.threads).compute();
    }
};

}  // namespace

const Algorithm& depthwise_algorithm() {
    static const Algorithm algorithm = algorithm_of<DepthwiseAlgorithm<float>, DepthwiseAlgorithm<double>>("depthwise");
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
