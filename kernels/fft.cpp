// fft: large kernels by tiles of n0 x n1 x n2 inputs, in the frequency domain.
//
//   Y = inverse( sum over c of FFT(x_c) . conj(FFT(w_c)) ), and the n - k + 1 outputs per axis that no wrap-around spoils
//
// Along an axis with one tile whose zero padding fits behind the input (n >= input + the larger padding) the wrap-around reads
// zeros on both sides, and a tile need not hold the padding twice.
// Bottleneck: arithmetic of the transforms, about 20 cycles per element of half a tile, axis and direction in vectors.
#include "crew.hpp"
#include "fft_spoiled.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

// tables, bias, 1 for output channels whose weights do not all count, spectra [oc][c], the weights as they are
template <class T>
struct FftPacking {
    static constexpr int64_t line = 64 / int64_t(sizeof(T));
    int64_t bias, spoiled, spectra, plain, elements;

    FftPacking(const Problem& p, const Spectra<T>& s) {
        const int64_t channels = p.groups * p.out_channels;
        bias = round_up(Tables<T>(s).elements, line);
        spoiled = bias + round_up(channels, line);
        spectra = spoiled + round_up(channels, line);
        plain = spectra + channels * p.in_channels * s.size;
        elements = plain + channels * k_of(p);
    }
};

template <class T>
int64_t buffer_of(const Spectra<T>& s) {  // of columns; of a row, whose last block of columns may be short
    return std::max(2 * std::max(s.d.n, s.h.n) * lanes<T>, round_up(s.w.n, lanes<T>) + lanes<T>);
}

// ---- packing

template <class T>
struct FftPack {
    const Problem& p;
    Spectra<T> s;
    Tables<T> tables;
    FftPacking<T> packing;
    TileCrew crew;

    FftPack(const Problem& problem, const PackCall& c, int threads) : p(problem), s(p), tables(s), packing(p, s) {
        const int64_t kernels = p.groups * p.out_channels * p.in_channels;
        const bool together = kernels < 4 * threads && kernels % threads && threads_for(double(s.points()), worth_a_thread::fft, threads) > 1;
        Call call{};
        call.workspace = c.workspace, call.parallel_for = c.parallel_for;
        crew = TileCrew(p, call, together ? threads : std::min<int64_t>(threads, kernels), together, size_t(s.area) * sizeof(T),
                        size_t(buffer_of(s)) * sizeof(T));
    }

    void compute(const PackCall& call) {
        const T *weight = static_cast<const T*>(call.weight), *bias = static_cast<const T*>(call.bias);
        T* out = static_cast<T*>(call.packed);
        const int64_t channels = p.groups * p.out_channels;
        tables.fill(s, out);
        std::copy(weight, weight + channels * k_of(p), out + packing.plain);
        for (int64_t c = 0; c < channels; ++c) {
            out[packing.bias + c] = bias ? bias[c] : T(0);
            out[packing.spoiled + c] = all_count(weight + c * k_of(p), k_of(p)) ? T(0) : T(1);
        }
        const T scale = T(0.25) / T(s.points());  // forward gives twice the spectrum, here and of the input
        crew.tiles(channels * p.in_channels, [&](int64_t i, int64_t part) {
            const Weights<T> source(p, weight + i * kernel_volume(p), scale);
            T *area = reinterpret_cast<T*>(crew.board(part)), *to = out + packing.spectra + i * s.size;
            crew.items(s.d.n * s.chunks(), part, [&](int64_t item, int64_t by) {
                const int64_t r = item % s.chunks() * s.chunk;
                transform(out, by).load_rows(source, item / s.chunks(), r, std::min(r + s.chunk, s.h.n), area);
            });
            crew.items(s.d.n * s.column_blocks, part, [&](int64_t item, int64_t by) {
                transform(out, by).columns_forward(source, item / s.column_blocks, item % s.column_blocks, area);
            });
            crew.items(s.row_blocks, part, [&](int64_t item, int64_t by) {
                transform(out, by).rows_forward(area, item, to + item * s.slab);
            });
        });
    }
    Transform<T> transform(const T* out, int64_t part) const { return {s, tables, out, reinterpret_cast<T*>(crew.desk(part))}; }
};

// ---- one call

template <class T>
struct Fft {
    static constexpr int L = lanes<T>;
    Problem p;
    Call call;
    Spectra<T> s;
    Tables<T> tables;
    FftPacking<T> packing;
    Cut cut[max_axes];
    int64_t tiles, areas;  // of an image and group; channels whose areas there are
    int64_t spans;         // of output channels, that share a block of rows
    bool stored;           // the spectra of all blocks of rows, not of one
    TileCrew crew;

    Fft(const Problem& problem, const Call& c, int threads)
        : p(problem), call(c), s(p), tables(s), packing(p, s), cut{Cut(p, 0), Cut(p, 1), Cut(p, 2)},
          tiles(cut[0].count * cut[1].count * cut[2].count), spans(1) {
        const int64_t all = p.batch * p.groups * tiles, channels = std::max(p.in_channels, p.out_channels);
        const bool uneven = all < 4 * threads && all % threads;
        const bool together = threads_for(double(s.points() * channels), worth_a_thread::fft, threads) > 1 &&
                              (uneven || s.area * sizeof(T) > most_alone);
        const int64_t room = int64_t((together ? most_together : most_areas) / sizeof(T));
        areas = std::min(channels, std::max<int64_t>(1, room / s.area));
        if (together && s.row_blocks < 4 * threads) spans = std::min(p.out_channels, ceil_div(4 * threads, s.row_blocks));
        stored = areas < channels || spans > 1;
        crew = TileCrew(p, call, together ? threads : std::max<int64_t>(1, std::min<int64_t>(threads, all)), together,
                        Board(*this, nullptr).bytes, Desk(*this, nullptr).bytes);
    }
    static constexpr size_t most_alone = size_t(16) << 20, most_together = size_t(8) << 20, most_areas = size_t(256) << 10;

    struct Put;

    // What the parts of a tile share.
    struct Board {
        T *area, *spectra;
        std::atomic<bool>* spoiled;
        void* sums;
        size_t bytes;

        Board(const Fft& job, void* base) {
            Arena arena(base);
            area = arena.take<T>(job.areas * job.s.area);
            spectra = arena.take<T>(job.stored ? job.p.in_channels * job.s.size : 0);
            spoiled = arena.take<std::atomic<bool>>(1);
            sums = arena.take<char>(int64_t(Spoiled<T>::bytes(job.cut)));
            bytes = arena.used();
        }
    };
    // What each part has: a buffer, a block of rows of the input channels and of an output channel.
    struct Desk {
        T *buffer, *spectra, *product;
        size_t bytes;

        Desk(const Fft& job, void* base) {
            Arena arena(base);
            buffer = arena.take<T>(buffer_of(job.s));
            spectra = arena.take<T>(job.stored ? 0 : job.p.in_channels * job.s.slab);
            product = arena.take<T>(job.stored || job.p.in_channels > 1 || job.p.out_channels > 1 ? job.s.slab : 0);
            bytes = arena.used();
        }
    };
    Desk desk(int64_t part) const { return Desk(*this, crew.desk(part)); }
    const T* packed() const { return static_cast<const T*>(call.packed); }
    Transform<T> transform(const Desk& desk) const { return {s, tables, packed(), desk.buffer}; }

    // One tile of an image and group.
    struct Spot {
        int64_t image, group, tile[max_axes];

        Spot(const Fft& job, int64_t index) {
            for (int a = max_axes - 1; a >= 0; --a) tile[a] = index % job.cut[a].count, index /= job.cut[a].count;
            group = index % job.p.groups, image = index / job.p.groups;
        }
    };
    // seen: all that the outputs see, with the padding; else the places of the tile.
    Inputs<T> inputs(const Spot& spot, int64_t channel, bool seen) const {
        Inputs<T> x{p, call.input, at<const T>(call.input, spot.image, spot.group * p.in_channels + channel), {}, {}};
        for (int a = 0; a < max_axes; ++a) {
            x.first[a] = seen ? cut[a].first(spot.tile[a]) : cut[a].first_place(spot.tile[a]);
            x.count[a] = seen ? cut[a].span(spot.tile[a]) : cut[a].places(spot.tile[a]);
        }
        return x;
    }

    void compute() const {
        crew.tiles(p.batch * p.groups * tiles, [&](int64_t index, int64_t part) {
            const Spot spot(*this, index);
            const Board board(*this, crew.board(part));
            new (board.spoiled) std::atomic<bool>(false);
            forward(spot, board, part);
            backward(spot, board, part);
        });
    }

    void forward(const Spot& spot, const Board& board, int64_t part) const {
        const int64_t planes = s.d.n * s.column_blocks;
        for (int64_t first = 0; first < p.in_channels; first += areas) {
            const int64_t count = std::min(areas, p.in_channels - first);
            crew.items(count * s.d.n * s.chunks(), part, [&](int64_t item, int64_t by) {
                const int64_t r = item % s.chunks() * s.chunk, depth = item / s.chunks() % s.d.n, c = item / s.chunks() / s.d.n;
                const Inputs<T> source = inputs(spot, first + c, false);
                const int64_t end = std::min(r + s.chunk, s.h.n);
                if (!transform(desk(by)).load_rows(source, depth, r, end, board.area + c * s.area))
                    board.spoiled->store(true, std::memory_order_relaxed);
            });
            crew.items(count * planes, part, [&](int64_t item, int64_t by) {
                const Inputs<T> source = inputs(spot, first + item / planes, false);
                const int64_t depth = item % planes / s.column_blocks, block = item % s.column_blocks;
                transform(desk(by)).columns_forward(source, depth, block, board.area + item / planes * s.area);
            });
            if (!stored) continue;
            crew.items(count * s.row_blocks, part, [&](int64_t item, int64_t by) {
                const int64_t c = item / s.row_blocks, i = item % s.row_blocks;
                transform(desk(by)).rows_forward(board.area + c * s.area, i, spectrum(board.spectra, i, first + c));
            });
        }
    }
    T* spectrum(T* spectra, int64_t block, int64_t channel) const {
        return spectra + (block * p.in_channels + channel) * s.slab;
    }

    void backward(const Spot& spot, const Board& board, int64_t part) const {
        const bool spoiled = board.spoiled->load(std::memory_order_relaxed);
        const Spoiled<T> extra(p, cut, spot.tile, board.sums);
        const auto channel = [&](int64_t c) { return inputs(spot, c, true); };
        if (spoiled) extra.find(channel);
        for (int64_t first = 0; first < p.out_channels; first += areas) {
            const int64_t count = std::min(areas, p.out_channels - first);
            crew.items(s.row_blocks * spans, part, [&](int64_t item, int64_t by) {
                const int64_t span = item % spans;
                rows(spot, board, item / spans, first, count * span / spans, count * (span + 1) / spans, desk(by));
            });
            const T* odd = packed() + packing.spoiled + spot.group * p.out_channels + first;
            if (!spoiled && std::all_of(odd, odd + count, [](T it) { return it == 0; })) {
                columns(spot, board, first, 0, count, nullptr, part);
                continue;
            }
            for (int64_t i = 0; i < count; ++i) {
                extra.add(channel, weights(spot, first + i), spoiled, odd[i] != 0);
                columns(spot, board, first, i, i + 1, extra.sums, part);
            }
        }
    }
    const T* weights(const Spot& spot, int64_t channel) const {
        return packed() + packing.plain + (spot.group * p.out_channels + channel) * k_of(p);
    }

    // One block of rows of the output channels first + begin .. first + end.
    void rows(const Spot& spot, const Board& board, int64_t block, int64_t first, int64_t begin, int64_t end,
              const Desk& desk) const {
        const Transform<T> transform = this->transform(desk);
        T* x = stored ? spectrum(board.spectra, block, 0) : desk.spectra;
        for (int64_t c = 0; !stored && c < p.in_channels; ++c)
            transform.rows_forward(board.area + c * s.area, block, x + c * s.slab);
        for (int64_t i = begin; i < end; ++i) {
            const int64_t channel = spot.group * p.out_channels + first + i;
            const T* weight = packed() + packing.spectra + channel * p.in_channels * s.size + block * s.slab;
            T* product = stored || p.in_channels > 1 || p.out_channels > 1 ? desk.product : x;
            multiply(x, weight, product);
            const auto wanted = [&](int64_t place) { return is_kept(spot, place); };
            transform.rows_inverse(product, block, board.area + i * s.area, wanted);
        }
    }

    // sum over c of x . conj(w), of one block of rows
    FASTCONV_NOINLINE void multiply(const T* x, const T* weight, T* out) const {
        for (int64_t d = 0; d < s.d.n; ++d, x += 2 * s.block, weight += 2 * s.block, out += 2 * s.block)
            for (int64_t i = 0; i < s.block; i += L) {
                Vec<T> re{}, im{};
                for (int64_t c = 0; c < p.in_channels; ++c) {
                    const Vec<T> xr = load(x + c * s.slab + i), xi = load(x + c * s.slab + s.block + i);
                    const Vec<T> wr = load(weight + c * s.size + i), wi = load(weight + c * s.size + s.block + i);
                    re += xr * wr + xi * wi;
                    im += xi * wr - xr * wi;
                }
                store(out + i, re);
                store(out + s.block + i, im);
            }
    }

    // The columns of the output channels first + begin .. first + end; extra: what is added to their outputs, or null.
    void columns(const Spot& spot, const Board& board, int64_t first, int64_t begin, int64_t end, const T* extra,
                 int64_t part) const {
        const int64_t planes = s.d.n * s.column_blocks;
        crew.items((end - begin) * planes, part, [&](int64_t item, int64_t by) {
            const int64_t i = begin + item / planes, place = item % planes / s.column_blocks, block = item % s.column_blocks;
            const int64_t columns = cut[2].outputs_of(spot.tile[2]);
            const auto wanted = [&](int64_t j) {
                return s.folded || cut[2].output(j) < columns || cut[2].output(j) + L > cut[2].n;
            };
            const int64_t j = block * s.apart;
            if (!is_kept(spot, place) || !(wanted(j) || wanted(j + s.partner))) return;
            transform(desk(by)).columns_inverse(board.area + i * s.area, place, block);
        });
        crew.items((end - begin) * s.d.n * s.chunks(), part, [&](int64_t item, int64_t by) {
            const int64_t r = item % s.chunks() * s.chunk, place = item / s.chunks() % s.d.n;
            const int64_t i = begin + item / s.chunks() / s.d.n;
            if (!is_kept(spot, place)) return;
            finish(Put(*this, spot, first + i, cut[0].output(place), extra), board.area + i * s.area + place * s.plane, r,
                   std::min(r + s.chunk, s.h.n), desk(by).buffer);
        });
    }

    // Whether there are outputs at a depth of the tile.
    bool is_kept(const Spot& spot, int64_t place) const {
        const int64_t depth = cut[0].output(place);
        return depth < cut[0].outputs_of(spot.tile[0]) && cut[0].kept(spot.tile[0], depth) >= 0;
    }

    // Rows r .. end - 1 of a plane of columns, [block][halves][row][L], to the output: whole rows, as columns of large images lie
    // 4 KB apart, in the same few sets of L1.
    void finish(Put put, const T* plane, int64_t r, int64_t end, T* whole) const {
        for (; r < end; ++r) {
            const int64_t row = s.folded ? 0 : cut[1].output(r);
            if (row >= put.rows || !put.begin(row)) continue;
            const bool finite = gather(plane + r * L, whole);
            put(cut[2].output(s.folded ? r * s.w.n : 0), whole, finite);
        }
    }
    // A row of the tile, one column beside the other; returns whether it is finite. A short block of columns is overwritten by the next.
    FASTCONV_NOINLINE bool gather(const T* strip, T* whole) const {
        Vec<T> zero{};
        for (int64_t half = 0; half < 2; ++half, strip += s.h.n * L)
            for (int64_t block = 0; block < s.column_blocks; ++block) {
                const Vec<T> value = load(strip + block * s.columns);
                zero += value * T(0);
                store(whole + block * s.apart + half * s.partner, value);
            }
        return Put::is_finite(zero);
    }

    // To a plane of a tile's outputs, row by row.
    struct Put {
        const Fft& job;
        const Spot& spot;
        Epilogue<T> epilogue;
        int64_t channel, depth, height, rows, columns;  // of the output: its channel, depth and row; of the tile
        const T *weight, *extra, *extra_row = nullptr;
        bool adjacent;  // one output beside the other
        T bias, *y, *row_y = nullptr;
        const T *residual, *row_residual = nullptr;

        Put(const Fft& fft, const Spot& where, int64_t out_channel, int64_t of_tile, const T* more)
            : job(fft), spot(where), epilogue(fft.p), channel(where.group * fft.p.out_channels + out_channel),
              depth(fft.cut[0].kept(where.tile[0], of_tile)), height(0), rows(fft.cut[1].outputs_of(where.tile[1])),
              columns(fft.cut[2].outputs_of(where.tile[2])), weight(fft.weights(where, out_channel)),
              extra(more ? more + of_tile * rows * columns : nullptr),
              adjacent(fft.cut[2].keep == 1 && fft.call.output.space[2] == 1 &&
                       (!fft.call.residual.data || fft.call.residual.space[2] == 1)),
              bias(fft.packed()[fft.packing.bias + channel]),
              y(at<T>(fft.call.output, where.image, channel) + depth * fft.call.output.space[0]),
              residual(at<const T>(fft.call.residual, where.image, channel)) {
            if (residual) residual += depth * fft.call.residual.space[0];
        }
        // Whether there are outputs in a row of the tile.
        bool begin(int64_t row) {
            height = job.cut[1].kept(spot.tile[1], row);
            if (height < 0) return false;
            row_y = y + height * job.call.output.space[1];
            if (residual) row_residual = residual + height * job.call.residual.space[1];
            if (extra) extra_row = extra + row * columns;
            return true;
        }
        // A row of the tile, from column o on, which may wrap around to column 0, or be none that is wanted.
        void operator()(int64_t o, const T* from, bool finite) const {
            const int64_t count = job.s.w.n, before = std::min(count, job.cut[2].n - o);
            if (o < columns) some(o, std::min(before, columns - o), from, finite);
            if (before < count) some(0, std::min(count - before, columns), from + before, finite);
        }
        static FASTCONV_INLINE bool is_finite(Vec<T> value) {
            const auto odd = value * T(0) != T(0);
            int64_t words[vector_bytes / 8], all = 0;
            std::memcpy(words, &odd, sizeof odd);
            for (int64_t word : words) all |= word;
            return all == 0;
        }

       private:
        FASTCONV_NOINLINE void some(int64_t o, int64_t count, const T* from, bool finite) const {
            const int64_t w = spot.tile[2] * job.cut[2].useful + o, keep = job.cut[2].keep;
            int64_t l = 0;
            for (; adjacent && finite && l + L <= count; l += L) store(row_y + w + l, sum(load(from + l), o + l, w + l, L));
            if (adjacent && finite && l < count)
                return store_first(row_y + w + l, sum(load_some(from + l, count - l), o + l, w + l, count - l), count - l);
            l += round_up(w + l, keep) - w - l;
            for (int64_t to = (w + l) / keep; l < count; l += keep, ++to) one(o + l, to, from[l]);
        }
        FASTCONV_INLINE Vec<T> sum(Vec<T> value, int64_t o, int64_t w, int64_t count) const {
            value += bias;
            if (extra) value += count == L ? load(extra_row + o) : load_some(extra_row + o, count);
            if (residual) value += count == L ? load(row_residual + w) : load_some(row_residual + w, count);
            return epilogue(value);
        }
        FASTCONV_INLINE void one(int64_t o, int64_t w, T value) const {
            const bool finite = value * T(0) == T(0);
            value += bias;
            if (!finite) value = one_output(job.p, job.call.input, spot.image, spot.group, weight, bias, depth, height, w);
            else if (extra) value += extra_row[o];
            if (residual) value += row_residual[w * job.call.residual.space[2]];
            row_y[w * job.call.output.space[2]] = epilogue(value);
        }
    };
};

template <class T>
struct FftAlgorithm : Defaults {
    static const char* refuses(const Problem& p) {
        constexpr int64_t longest = 1 << 15, longest_folded = 1 << 26;
        const bool folded = p.tile[1] == 1;
        for (int a = 0; a < max_axes; ++a) {
            const int64_t n = p.tile[a];
            if (n < 1 || (n == 1 && p.kernel[a] != 1)) return "no tile was chosen";
            if (n == 1) continue;
            if (n % 2 || n > (folded ? longest_folded : longest) || !Radices::possible(n)) return "no tile was chosen";
            if ((p.kernel[a] - 1) * p.dilation[a] >= n) return "no tile was chosen";
        }
        if (p.tile[2] < 16 || (folded && (p.tile[0] != 1 || p.tile[2] < 512 || !Spectra<T>::foldable(p.tile[2]))))
            return "no tile was chosen";
        return nullptr;
    }
    static size_t packed_bytes(const Problem& p) { return size_t(FftPacking<T>(p, Spectra<T>(p)).elements) * sizeof(T); }
    static size_t workspace_bytes(const Problem& p, int threads) { return Fft<T>(p, Call{}, threads).crew.bytes(); }
    static size_t pack_workspace_bytes(const Problem& p, int threads) { return FftPack<T>(p, PackCall{}, threads).crew.bytes(); }
    static void pack(const Problem& p, const PackCall& call) { FftPack<T>(p, call, call.threads).compute(call); }
    static void run(const Problem& p, const Call& call) { Fft<T>(p, call, call.threads).compute(); }
};

}  // namespace

const Algorithm& fft_algorithm() {
    static const Algorithm algorithm = algorithm_of<FftAlgorithm<float>, FftAlgorithm<double>>("fft");
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
