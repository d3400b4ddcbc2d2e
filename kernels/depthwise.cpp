// depthwise: one input channel per group, pixels on the vector.
//
//   out[oc][h][w..] = bias[oc] + sum over kw, kh of w[oc][kh][kw] * x[h s + kh][w.. + kw]
//
// Tile: R rows (up to 8) of one vector, see depthwise_tile.hpp. Rows are read where they lie, rows of padding are a row of zeros.
// Only strides beyond 2 along w (whose phases are split), padding other than zeros and unusual strides of the array take a copy,
// and in the baseline all rows that have an edge (see reads_in_place).
// Where the channels of a pixel lie side by side see depthwise_last.hpp.
// Bottleneck: FMA for H >= 3 while the maps stay in cache, then memory.
#include "depthwise_last.hpp"
#include "depthwise_planes.hpp"
#include "depthwise_tile.hpp"
#include "pack.hpp"
#include "slab.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

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

// ---- one call: units are (plane, band of rows), a plane is one group of one image at one depth

template <class T>
struct Depthwise {
    static constexpr int64_t line = 64 / int64_t(sizeof(T)), most_listed = 4096;  // masks
    Problem p;
    Call call;
    bool raw;  // rows are read where they lie
    int64_t planes, bands, parts, band_rows, band_inputs, phase, pitch;
    int64_t half, last, first_inside, last_inside;  // see Columns
    int64_t together;

    Depthwise(const Problem& problem, const Call& c, int threads) : p(problem), call(c) {
        raw = p.padding_mode == PaddingMode::zeros && p.stride[2] <= (reads_in_place ? 2 : 1) &&
              (!c.input.data || c.input.space[2] == 1 || p.input[2] == 1);
        const int64_t span = extent(p, 2, p.output[2]);
        phase = p.stride[2] > 1 ? round_up(ceil_div(span, p.stride[2]), line) + line : 0;  // vectors may read past its end
        pitch = phase ? phase * p.stride[2] : round_up(span, line) + line;
        planes = p.batch * p.output[0] * p.groups;
        parts = threads_for(multiply_adds(p), worth_a_thread::depthwise, threads);
        bands = planes >= 4 * parts ? 1 : std::min(ceil_div(4 * parts, planes), ceil_div(p.output[1], 8));
        if (!reads_in_place) bands = std::max(bands, ceil_div(p.output[1], copied_rows()));
        band_rows = round_up(ceil_div(p.output[1], bands), 8);
        bands = ceil_div(p.output[1], band_rows);
        band_rows = std::min(band_rows, p.output[1]);
        parts = std::min(parts, planes * bands);
        band_inputs = extent(p, 1, band_rows);
        find_inside();
        if (raw && masks() > (reads_in_place ? most_listed : 0)) raw = false, find_inside();
        together = groups_together();
    }

    // Groups that a tile goes on to, whose planes stay in L1: rows of zeros move on as those of the input do.
    int64_t groups_together() const {
        const bool dense = p.input[0] == 1 && call.input.channel == p.input[1] * p.input[2];
        return raw && dense && p.out_channels == 1 && reads_in_place ? most_together() : 1;
    }
    int64_t most_together() const {  // whatever the arrays
        return std::max<int64_t>(1, together_bytes / int64_t(sizeof(T)) / (p.input[1] * p.input[2] + p.output[1] * p.output[2]));
    }
    int64_t zero_count() const { return (most_together() - 1) * p.input[1] * p.input[2] + p.input[2] + line; }

    void find_inside() {
        constexpr int64_t L = lanes<T>;
        const int64_t room = width() - step() * L - shift(p.kernel[2] - 1);
        const int64_t whole = p.output[2] / L * L, left = p.output[2] - whole;
        half = has_halves && left > 0 && left <= L / 2 && p.kernel[2] <= most_listed ? whole : -1;  // whose masks are always listed
        last = left == 0 || half >= 0 ? whole - L : whole;
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
    int64_t masks() const { return (edges() + (half >= 0)) * p.kernel[2]; }
    int64_t most_masks() const { return std::min(most_listed, ceil_div(p.output[2], lanes<T>) * p.kernel[2]); }  // whatever the arrays
    int64_t copied_rows() const {  // of the output: the copy of what they read stays in the caches
        return std::max<int64_t>(1, (128 << 10) / int64_t(sizeof(T)) / (p.kernel[0] * pitch * p.stride[1]));
    }

    struct Scratch {
        const T** row;
        int64_t *from, *shift;  // of each row of a band, for each kd: where it is in a channel, or `nowhere`
        LaneMask<T>*mask, *more;
        T *zeros, *slab;
        size_t bytes;
        Scratch(const Depthwise& job, void* base, bool raw) {
            Arena arena(base);
            row = arena.take<const T*>(job.p.kernel[0] * job.band_inputs);
            from = arena.take<int64_t>(job.p.kernel[0] * job.band_inputs);
            shift = arena.take<int64_t>(job.p.kernel[2]);
            mask = arena.take<LaneMask<T>>(job.most_masks());
            more = arena.take<LaneMask<T>>(job.most_masks());
            zeros = raw ? arena.take<T>(job.zero_count()) : nullptr;
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
            alignas(vector_bytes) T sums[8 * lanes<T>] = {};  // halves leave lanes as they are
            Reading<T> reading = this->reading(s, &epilogue, sums);
            int64_t listed = -1;
            each([&](int64_t begin, int64_t end) {
                Unit unit(*this, begin);
                for (int64_t i = begin, groups; i < end; i += groups, unit.advance(*this, groups)) {
                    const int64_t place = unit.depth * bands + unit.band;
                    if (listed != place) list_rows(unit.depth, unit.band * band_rows, s);
                    listed = place;
                    groups = bands > 1 ? 1 : std::min({together, p.groups - unit.group, end - i});
                    compute(unit, groups, i + groups < end && unit.group + groups < p.groups, reading, s);
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
        void advance(const Depthwise& job, int64_t groups) {
            if (++band < job.bands) return;
            band = 0;
            if ((group += groups) < job.p.groups) return;
            group = 0;
            if (++depth < job.p.output[0]) return;
            depth = 0, ++image;
        }
    };

    // What is known of the columns.
    void list_columns(const Scratch& s) const {
        constexpr int64_t L = lanes<T>;
        if (raw) clear(s.zeros, zero_count());
        for (int64_t k = 0; k < p.kernel[2]; ++k) s.shift[k] = shift(k);
        for (int64_t i = 0; i < masks(); ++i) {
            const int64_t v = i / p.kernel[2] * L, w = v < first_inside ? v : v - first_inside + last_inside + L;  // half: the last one
            const int64_t at = w * step() + shift(i % p.kernel[2]), next = at + (w == half ? L / 2 : L);
            s.mask[i] = mask_between<T>(-at, width() - at);
            s.more[i] = mask_between<T>(-next, width() - next);
        }
    }

    Reading<T> reading(const Scratch& s, const Epilogue<T>* epilogue, T* sums) const {
        Reading<T> r{};
        r.row = s.row;
        r.steps = {p.kernel[0], p.kernel[1], p.kernel[2], band_inputs, p.stride[1], step(), p.dilation[1]};
        r.columns = {half, last, first_inside, last_inside, width(), p.output[2], s.shift,
                     s.mask, s.more, edges() * p.kernel[2], first_inside / lanes<T> * p.kernel[2]};
        r.to = {call.output.space[1], call.output.space[2], call.residual.space[1], call.residual.space[2], epilogue, sums,
                epilogue->least(), epilogue->most(), nullptr, nullptr, nullptr};
        r.input_step = call.input.channel, r.weight_step = DepthwisePacking<T>(p).volume;
        r.output_step = call.output.channel, r.residual_step = call.residual.channel;
        r.rounds = rounds_products(p);
        r.crowded = crowds(call.output.space[1]) || crowds(raw ? call.input.space[1] : pitch);
        r.plane = plane_of(r);
        return r;
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

    // Some groups, one after the other. followed: this thread goes on with the next one of this image.
    void compute(const Unit& unit, int64_t groups, bool followed, Reading<T>& reading, const Scratch& s) const {
        const int64_t first = unit.band * band_rows, rows = std::min(band_rows, p.output[1] - first);
        place_rows(at<const T>(call.input, unit.image, unit.group), p.kernel[0] * band_inputs, s);
        const T* packed = static_cast<const T*>(call.packed);
        const DepthwisePacking<T> packing(p);
        const bool dense = call.output.space[1] == p.output[2] && call.output.space[2] == 1;
        const bool simple = !call.residual.data && reading.to.epilogue->is_limit();
        // a vector may also reach into the next channel, as far as that one goes, if that is still to come
        const bool runs_on = followed && groups == 1 && bands == 1 && p.output[0] == 1 &&
                             call.output.channel == p.output[1] * p.output[2];
        const int64_t beyond = runs_on ? std::min<int64_t>(lanes<T>, p.output[1] * p.output[2]) : 0;
        reading.channels = groups;
        for (int64_t c = unit.group * p.out_channels, end = c + p.out_channels; c < end; ++c) {
            T* y = at<T>(call.output, unit.image, c) + unit.depth * call.output.space[0] + first * call.output.space[1];
            const T* r = at<const T>(call.residual, unit.image, c);
            if (r) r += unit.depth * call.residual.space[0] + first * call.residual.space[1];
            reading.weight = packed + packing.rows() + c * packing.volume, reading.bias = packed + c, reading.to.residual = r;
            reading.to.output = y, reading.to.end = dense && simple ? y + rows * p.output[2] + beyond : nullptr;
            reading.plane(reading, rows);
        }
    }

    static bool crowds(int64_t stride) { return stride * int64_t(sizeof(T)) % 4096 == 0; }

    void place_rows(const T* x, int64_t count, const Scratch& s) const {
        if (!raw) return copy_rows(x, count, s);
        for (int64_t i = 0; i < count; ++i) s.row[i] = s.from[i] == nowhere ? s.zeros : x + s.from[i];
    }

    void copy_rows(const T* x, int64_t count, const Scratch& s) const {
        const int64_t span = extent(p, 2, p.output[2]), strands = phase ? p.stride[2] : 1;
        const bool only_first = p.kernel[2] == 1 || p.dilation[2] % strands == 0;  // is read by taps
        for (int64_t i = 0; i < count; ++i) s.row[i] = s.slab + i * pitch;
        for (int64_t f = 0; f < (only_first ? 1 : strands); ++f) {
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
    // Where many lanes of a row's vectors would be empty; without masked loads rows are copied, which takes longer.
    static bool small_planes_pay(const Problem& p) {
        constexpr int64_t L = lanes<T>;
        const int64_t width = p.output[2];
        const int64_t rows = round_up(width, has_halves ? L / 2 : L);
        const bool empty = reads_in_place ? width <= std::min<int64_t>(10, 2 * L) && 5 * width <= 4 * rows : width <= 3 * L;
        return empty && 2 * p.groups > L && SmallPlanes<T>::suits(p);
    }
    static const char* refuses(const Problem& p) { return p.in_channels != 1 ? "computes one input channel per group only" : nullptr; }
    static size_t packed_bytes(const Problem& p) { return DepthwisePacking<T>(p).bytes(p); }
    static size_t workspace_bytes(const Problem& p, int threads) {
        const size_t side_by_side = WidenedRows<T>::suits(p) ? DepthwiseLast<T>::crew(p, Call{}, threads).bytes() : 0;
        const size_t by_planes = small_planes_pay(p) ? SmallPlanes<T>(p, Call{}, nullptr, nullptr, 0, threads).crew().bytes() : 0;
        return std::max({side_by_side, by_planes, Depthwise<T>(p, Call{}, threads).crew().bytes()});
    }
    static void pack(const Problem& p, const PackCall& call) { pack_channels<T>(p, call); }
    static void run(const Problem& p, const Call& call) {
        if (DepthwiseLast<T>::applies(p, call)) {
            const T* packed = static_cast<const T*>(call.packed);
            const DepthwisePacking<T> packing(p);
            const DepthwiseLast<T> job(p, call, packed, packed + packing.pixels(), packing.padded, call.threads);
            if (job.run || 2 * job.channels > lanes<T>) return job.compute();
        }
        if (small_planes_pay(p)) {
            const T* packed = static_cast<const T*>(call.packed);
            const DepthwisePacking<T> packing(p);
            return SmallPlanes<T>(p, call, packed + packing.pixels(), packed, packing.padded, call.threads).compute();
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
