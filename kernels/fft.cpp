// fft: large kernels by tiles of n0 x n1 inputs, in the frequency domain.
//
//   Y = inverse( sum over c of FFT(x_c) . conj(FFT(w_c)) ), and the n - k + 1 outputs per axis that no wrap-around spoils
//
// The data are real: columns j and j + n1/2 of a tile are the real and imaginary part of one column's transform, and only the
// n0/2 + 1 rows that are not conjugates of others go on. Columns are transformed `lanes` at a time, rows too, transposed in
// registers. Spectra X, W: [block of lanes rows][column frequency][lanes], real parts, then imaginary ones.
// Along an axis with one tile whose zero padding fits behind the input (n >= input + the larger padding) the wrap-around reads
// zeros on both sides, and a tile need not hold the padding twice.
// Bottleneck: arithmetic of the transforms, about 20 cycles per element of half a tile, axis and direction in vectors.
//
// A tile and channel with a NaN or infinity among its outputs is computed again directly, so that both stay inside their windows.
#include <memory>

#include "epilogue.hpp"
#include "fft.hpp"
#include "shares.hpp"
#include "slab.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

template <class T>
struct Spectra {
    static constexpr int L = lanes<T>;
    Radices h, w;
    int64_t rows, row_blocks, block, size;  // rows that go on; elements of a block's real part; of a spectrum

    explicit Spectra(const Problem& p) : h(p.tile[1]), w(p.tile[2]), rows(h.n / 2 + 1), row_blocks(ceil_div(rows, L)),
                                         block(w.n * L), size(2 * row_blocks * block) {}
};

// twiddles of h, of w, bias [oc], spectra [oc][c], the weights as they are
template <class T>
struct FftPacking {
    static constexpr int64_t line = 64 / int64_t(sizeof(T));
    int64_t twiddle_w, bias, spectra, plain, elements;

    explicit FftPacking(const Problem& p) {
        const Spectra<T> s(p);
        const int64_t channels = p.groups * p.out_channels;
        twiddle_w = round_up(2 * s.h.twiddles(), line);
        bias = twiddle_w + round_up(2 * s.w.twiddles(), line);
        spectra = bias + round_up(channels, line);
        plain = spectra + channels * p.in_channels * s.size;
        elements = plain + channels * products(p);
    }
};

// A real tile [n0][pitch] to the rows' spectra, and back; `area` holds the half spectrum by rows, `buffer` one vector of columns.
template <class T>
struct Transform {
    static constexpr int L = lanes<T>;
    const Spectra<T>& s;
    const T *twiddle_h, *twiddle_w;
    int64_t pitch, half, plane;  // of tile and area; n1 / 2; of the area's real part
    T *tile, *area, *buffer;
    const int64_t* place;  // of each frequency of a column

    void forward(T* spectrum) const {
        const int64_t n = s.h.n;
        T *re = buffer, *im = buffer + n * L;
        for (int64_t j = 0; j < half; j += L) {
            for (int64_t r = 0; r < n; ++r) {
                store(re + r * L, load(tile + r * pitch + j));
                store(im + r * L, load(tile + r * pitch + j + half));
            }
            fft_forward(s.h, twiddle_h, re, im);
            for (int64_t k = 0; k < s.rows; ++k) {  // twice the two columns' spectra
                const int64_t a = place[k] * L, b = place[k ? n - k : 0] * L;
                T* to = area + k * pitch + j;
                store(to, load(re + a) + load(re + b));
                store(to + plane, load(im + a) - load(im + b));
                store(to + half, load(im + a) + load(im + b));
                store(to + half + plane, load(re + b) - load(re + a));
            }
        }
        for (int64_t i = 0; i < s.row_blocks; ++i, spectrum += 2 * s.block) {
            for (int part = 0; part < 2; ++part) transpose_rows(area + part * plane + i * L * pitch, spectrum + part * s.block);
            fft_forward(s.w, twiddle_w, spectrum, spectrum + s.block);
        }
    }

    // From the rows' spectra in `area` (by `row_block`) to the tile.
    void inverse_columns() const {
        const int64_t n = s.h.n;
        T *re = buffer, *im = buffer + n * L;
        for (int64_t j = (half - 1) / L * L; j >= 0; j -= L) {  // backwards: the last vector may spoil what its neighbour writes
            for (int64_t k = 0; k < s.rows; ++k) {
                const int64_t a = place[k] * L, b = place[k ? n - k : 0] * L;
                const T* from = area + k * pitch + j;
                const Vec<T> xr = load(from), xi = load(from + plane), yr = load(from + half), yi = load(from + half + plane);
                store(re + b, xr + yi);
                store(im + b, yr - xi);
                store(re + a, xr - yi);
                store(im + a, xi + yr);
            }
            fft_inverse(s.h, twiddle_h, re, im);
            for (int64_t r = 0; r < n; ++r) {
                store(tile + r * pitch + j, load(re + r * L));
                store(tile + r * pitch + j + half, load(im + r * L));
            }
        }
    }

    // One block of rows: inverse transform of `spectrum` (which is overwritten) into `area`.
    void row_block(int64_t i, T* spectrum) const {
        fft_inverse(s.w, twiddle_w, spectrum, spectrum + s.block);
        for (int part = 0; part < 2; ++part) {
            const T* from = spectrum + part * s.block;
            T* to = area + part * plane + i * L * pitch;
            for (int64_t j = 0; j < s.w.n; j += L) {
                Vec<T> row[L] = {};
                for (int64_t l = 0; l < L && j + l < s.w.n; ++l) row[l] = load(from + (j + l) * L);
                transpose<T>(row);
                for (int l = 0; l < L; ++l) store(to + l * pitch + j, row[l]);
            }
        }
    }

   private:
    // from[L rows][pitch] -> to[column][L]
    void transpose_rows(const T* from, T* to) const {
        for (int64_t j = 0; j < s.w.n; j += L) {
            Vec<T> row[L];
            for (int l = 0; l < L; ++l) row[l] = load(from + l * pitch + j);
            transpose<T>(row);
            for (int64_t l = 0; l < L && j + l < s.w.n; ++l) store(to + (j + l) * L, row[l]);
        }
    }
};

// Scratch of one thread.
template <class T>
struct FftScratch {
    static constexpr int L = lanes<T>;
    int64_t pitch, plane;
    T *tile, *area, *buffer, *spectra, *product;
    int64_t* place;
    size_t bytes;

    FftScratch(const Problem& p, const Spectra<T>& s, void* base) {
        Arena arena(base);
        pitch = round_up(s.w.n, L) + 2 * L;  // not a power of two
        plane = s.row_blocks * L * pitch;
        tile = arena.take<T>(s.h.n * pitch);
        area = arena.take<T>(2 * plane);
        buffer = arena.take<T>(2 * s.h.n * L);
        spectra = arena.take<T>(p.in_channels * s.size);
        product = arena.take<T>(2 * s.block);
        place = arena.take<int64_t>(s.h.n);
        bytes = arena.used();
    }
    Transform<T> transform(const Spectra<T>& s, const T* packed, const FftPacking<T>& packing) const {
        return {s, packed, packed + packing.twiddle_w, pitch, s.w.n / 2, plane, tile, area, buffer, place};
    }
    // Once, before any transform. What is never written of `area` must not be NaN.
    void start(const Spectra<T>& s) const {
        clear(area, 2 * plane);
        clear(tile, s.h.n * pitch);
        for (int64_t k = 0; k < s.h.n; ++k) place[k] = s.h.place(k);
    }
};

// ---- packing

template <class T>
struct FftPack {
    const Problem& p;
    const T *weight, *bias;
    T* out;
    char* memory;  // scratch, one for each part
    size_t each;
    int64_t parts;

    static void part(void* context, int64_t index) {
        const FftPack& job = *static_cast<FftPack*>(context);
        const Problem& p = job.p;
        const Spectra<T> s(p);
        const FftPacking<T> packing(p);
        const FftScratch<T> scratch(p, s, job.memory + size_t(index) * job.each);
        const Transform<T> transform = scratch.transform(s, job.out, packing);
        const int64_t count = p.groups * p.out_channels * p.in_channels, tap_count = taps(p);
        const T scale = T(0.25) / (T(s.h.n) * T(s.w.n));  // forward gives twice the spectrum, here and of the input
        scratch.start(s);
        for (int64_t i = count * index / job.parts; i < count * (index + 1) / job.parts; ++i) {
            const T* from = job.weight + i * tap_count;
            clear(scratch.tile, s.h.n * scratch.pitch);
            for (int64_t kh = 0; kh < p.kernel[1]; ++kh)
                for (int64_t kw = 0; kw < p.kernel[2]; ++kw)
                    scratch.tile[kh * p.dilation[1] * scratch.pitch + kw * p.dilation[2]] = *from++ * scale;
            T* to = job.out + packing.spectra + i * s.size;
            transform.forward(to);
        }
    }
};

template <class T>
void pack(const Problem& p, const void* weight, const void* bias, void* packed, int threads, ParallelFor parallel_for) {
    const Spectra<T> s(p);
    const FftPacking<T> packing(p);
    const T *w = static_cast<const T*>(weight), *b = static_cast<const T*>(bias);
    T* out = static_cast<T*>(packed);
    const int64_t channels = p.groups * p.out_channels;
    s.h.fill_twiddles(out);
    s.w.fill_twiddles(out + packing.twiddle_w);
    for (int64_t c = 0; c < channels; ++c) out[packing.bias + c] = b ? b[c] : T(0);
    std::copy(w, w + channels * products(p), out + packing.plain);
    FftPack<T> job{p, w, b, out, nullptr, FftScratch<T>(p, s, nullptr).bytes, std::min<int64_t>(threads, channels * p.in_channels)};
    std::unique_ptr<char[]> memory(new char[size_t(job.parts) * job.each + 64]);
    job.memory = memory.get() + (64 - reinterpret_cast<uintptr_t>(memory.get()) % 64) % 64;
    parallel_for(job.parts, FftPack<T>::part, &job);
}

// ---- one call

// The tiles along an axis: `count` of them, each of `useful` outputs; output o of tile t is at place (o - t useful + shift) mod n.
struct Cut {
    int64_t n, count, useful, shift;
    bool whole;  // one tile, the padding behind the input

    Cut(const Problem& p, int a) : n(p.tile[a]) {
        const int64_t room = n - (p.kernel[a] - 1) * p.dilation[a];
        const int64_t behind = p.input[a] + std::max<int64_t>({p.pad_lo[a], p.pad_hi[a], 0});
        whole = p.padding_mode == PaddingMode::zeros && n >= std::max(behind, p.output[a]);
        useful = whole ? p.output[a] : std::max<int64_t>(room, 1);
        count = ceil_div(p.output[a], useful);
        shift = whole ? (n - p.pad_lo[a]) % n : 0;
    }
};

template <class T>
struct Fft {
    static constexpr int L = lanes<T>;
    Problem p;
    Call call;
    Spectra<T> s;
    FftPacking<T> packing;
    Cut h, w;
    int64_t tiles, spans, parts;  // spans: of output channels, where there are fewer tiles than threads
    Shares shares;

    Fft(const Problem& problem, const Call& c, int threads)
        : p(problem), call(c), s(p), packing(p), h(p, 1), w(p, 2), tiles(p.batch * p.output[0] * p.groups * h.count * w.count),
          spans(tiles < threads ? std::min<int64_t>(threads, p.out_channels) : 1),
          parts(std::max<int64_t>(1, std::min<int64_t>(threads, tiles * spans))) {}

    static void part(void* context, int64_t index) {
        const Fft& job = *static_cast<Fft*>(context);
        const FlushDenormals flush(!job.p.strict);
        const size_t each = FftScratch<T>(job.p, job.s, nullptr).bytes;
        const FftScratch<T> scratch(job.p, job.s, static_cast<char*>(job.call.workspace) + Shares::bytes(job.parts) + size_t(index) * each);
        scratch.start(job.s);
        job.shares.each(index, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) job.compute(i / job.spans, i % job.spans, scratch);
        });
    }

    void compute(int64_t index, int64_t span, const FftScratch<T>& scratch) const {
        const int64_t column = index % w.count, row = index / w.count % h.count;
        const int64_t group = index / (w.count * h.count) % p.groups, slice = index / (w.count * h.count * p.groups);
        const int64_t image = slice / p.output[0], depth = slice % p.output[0];
        const T* packed = static_cast<const T*>(call.packed);
        const Transform<T> transform = scratch.transform(s, packed, packing);
        for (int64_t c = 0; c < p.in_channels; ++c) {
            fill(image, depth, group * p.in_channels + c, row, column, scratch);
            transform.forward(scratch.spectra + c * s.size);
        }
        const int64_t first = group * p.out_channels + p.out_channels * span / spans;
        const int64_t end = group * p.out_channels + p.out_channels * (span + 1) / spans;
        for (int64_t c = first; c < end; ++c) {
            const T* spectrum = packed + packing.spectra + c * p.in_channels * s.size;
            for (int64_t i = 0; i < s.row_blocks; ++i) {
                multiply(scratch.spectra + i * 2 * s.block, spectrum + i * 2 * s.block, scratch.product);
                transform.row_block(i, scratch.product);
            }
            transform.inverse_columns();
            finish(image, depth, c, row, column, scratch);
        }
    }

    // sum over c of x . conj(w), of one block of rows
    FASTCONV_NOINLINE void multiply(const T* x, const T* weight, T* out) const {
        for (int64_t i = 0; i < s.block; i += L) {
            Vec<T> re{}, im{};
            for (int64_t c = 0; c < p.in_channels; ++c) {
                const Vec<T> xr = load(x + c * s.size + i), xi = load(x + c * s.size + s.block + i);
                const Vec<T> wr = load(weight + c * s.size + i), wi = load(weight + c * s.size + s.block + i);
                re += xr * wr + xi * wi;
                im += xi * wr - xr * wi;
            }
            store(out + i, re);
            store(out + s.block + i, im);
        }
    }

    void fill(int64_t image, int64_t depth, int64_t channel, int64_t row, int64_t column, const FftScratch<T>& scratch) const {
        const View& view = call.input;
        const int64_t from_d = source(p, 0, depth * p.stride[0] - p.pad_lo[0]);
        const T* x = at<const T>(view, image, channel) + std::max<int64_t>(from_d, 0) * view.space[0];
        const Strand strand = w.whole ? Strand(p, 0, 1, p.input[2])
                                      : Strand(p, column * w.useful - p.pad_lo[2], 1,
                                               std::min(w.n, extent(p, 2, p.output[2]) - column * w.useful));
        const int64_t rows = h.whole ? p.input[1] : std::min(h.n, extent(p, 1, p.output[1]) - row * h.useful);
        for (int64_t i = 0; i < h.n; ++i) {
            T* to = scratch.tile + i * scratch.pitch;
            const int64_t from_h = i >= rows ? -1 : h.whole ? i : source(p, 1, row * h.useful - p.pad_lo[1] + i);
            if (from_d < 0 || from_h < 0) {
                clear(to, scratch.pitch);
                continue;
            }
            fill_row(p, strand, x + from_h * view.space[1], view.space[2], to);
            clear(to + strand.count, scratch.pitch - strand.count);
        }
    }

    void finish(int64_t image, int64_t depth, int64_t channel, int64_t row, int64_t column, const FftScratch<T>& scratch) const {
        const int64_t h0 = row * h.useful, w0 = column * w.useful;
        const int64_t rows = std::min(h.useful, p.output[1] - h0), columns = std::min(w.useful, p.output[2] - w0);
        const T* packed = static_cast<const T*>(call.packed);
        const T* weight = packed + packing.plain + channel * products(p);
        const T bias = packed[packing.bias + channel];
        const Epilogue<T> epilogue(p);
        bool finite = true;
        for (int64_t i = 0; finite && i < rows; ++i) finite = all_finite(scratch.tile + (i + h.shift) % h.n * scratch.pitch, columns);
        for (int64_t i = 0; i < rows; ++i) {
            const T* from = scratch.tile + (i + h.shift) % h.n * scratch.pitch;
            T* y = at<T>(call.output, image, channel) + depth * call.output.space[0] + (h0 + i) * call.output.space[1] +
                   w0 * call.output.space[2];
            const T* r = at<const T>(call.residual, image, channel);
            if (r) r += depth * call.residual.space[0] + (h0 + i) * call.residual.space[1] + w0 * call.residual.space[2];
            if (!finite) {
                for (int64_t j = 0; j < columns; ++j)
                    put(one_output(p, call.input, image, channel / p.out_channels, weight, bias, depth, h0 + i, w0 + j),
                        y + j * call.output.space[2], r ? r + j * call.residual.space[2] : nullptr, epilogue);
                continue;
            }
            const int64_t first = std::min(columns, w.n - w.shift);  // then from place 0
            put_row(from + w.shift, first, bias, y, r, epilogue);
            put_row(from, columns - first, bias, y + first * call.output.space[2], r ? r + first * call.residual.space[2] : nullptr,
                    epilogue);
        }
    }

    // Whether the places of a row's outputs hold numbers.
    FASTCONV_NOINLINE bool all_finite(const T* row, int64_t columns) const {
        Vec<T> zero{};
        const int64_t first = std::min(columns, w.n - w.shift);
        for (int64_t j = 0; j < first; j += L) zero += load_some(row + w.shift + j, std::min<int64_t>(L, first - j)) * T(0);
        for (int64_t j = 0; j < columns - first; j += L) zero += load_some(row + j, std::min<int64_t>(L, columns - first - j)) * T(0);
        T lane[L], total = 0;
        store(lane, zero);
        for (T value : lane) total += value;
        return total == 0;
    }

    FASTCONV_INLINE void put(T value, T* y, const T* r, const Epilogue<T>& epilogue) const { *y = epilogue(r ? value + *r : value); }

    FASTCONV_NOINLINE void put_row(const T* from, int64_t count, T bias, T* y, const T* r, const Epilogue<T>& epilogue) const {
        int64_t j = 0;
        if (call.output.space[2] == 1 && (!r || call.residual.space[2] == 1))
            for (; j + L <= count; j += L) {
                Vec<T> value = load(from + j) + bias;
                if (r) value += load(r + j);
                store(y + j, epilogue(value));
            }
        for (; j < count; ++j) put(from[j] + bias, y + j * call.output.space[2], r ? r + j * call.residual.space[2] : nullptr, epilogue);
    }
};

const char* refusal(const Problem& p) {
    if (p.kernel[0] != 1 || p.tile[0] != 1) return "transforms the last two axes only";
    if (p.stride[1] != 1 || p.stride[2] != 1) return "transforms stride 1 only";
    for (int a = 1; a < max_axes; ++a)
        if (p.tile[a] < 16 || p.tile[a] > 4096 || p.tile[a] % 2 || !Radices::possible(p.tile[a]) ||
            (p.kernel[a] - 1) * p.dilation[a] >= p.tile[a])
            return "no tile was chosen";
    return nullptr;
}

template <class T>
void run(const Problem& p, const Call& call) {
    Fft<T> job(p, call, call.threads);
    job.shares.deal(call, job.tiles * job.spans, job.parts);
    call.parallel_for(job.parts, Fft<T>::part, &job);
}

template <class T>
size_t workspace(const Problem& p, int threads) {
    const Fft<T> job(p, Call{}, threads);
    return Shares::bytes(job.parts) + size_t(job.parts) * FftScratch<T>(p, job.s, nullptr).bytes;
}

}  // namespace

const Algorithm& fft_algorithm() {
    static const Algorithm algorithm = {
        "fft",
        refusal,
        [](const Problem& p) {
            return p.dtype == Dtype::float32 ? size_t(FftPacking<float>(p).elements) * sizeof(float)
                                             : size_t(FftPacking<double>(p).elements) * sizeof(double);
        },
        [](const Problem& p, int threads) { return (p.dtype == Dtype::float32 ? workspace<float> : workspace<double>)(p, threads); },
        [](const Problem&, int) { return size_t(0); },
        [](const Problem& p, const void* weight, const void* bias, void* packed, void*, int threads, ParallelFor parallel_for) {
            (p.dtype == Dtype::float32 ? pack<float> : pack<double>)(p, weight, bias, packed, threads, parallel_for);
        },
        [](const Problem& p, const Call& call) { (p.dtype == Dtype::float32 ? run<float> : run<double>)(p, call); },
    };
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
