// depthwise where the channels of a pixel lie side by side: channels on the vector.
//
//   out[pixel][c] = bias[c] + sum over kd, kh, kw of w[kd][kh][kw][c] * x[pixel s + (kd, kh, kw) d][c]
//
// Tile: up to 6 pixels of a row x 2 vectors of channels, see depthwise_pixels.hpp. All channels of the same pixels come one after another,
// as they lie, but of many taps four vectors over all rows. So few channels that most lanes would be empty run on into those of the next
// pixels, 6 runs of pixels in place of 6 pixels: the weights of all channels go round. Pixels whose taps reach outside the image come as
// tiles where edges weigh, else one by one. Where a channel has several outputs, each thread keeps the rows that its outputs read widened:
// every input as often as it has outputs.
// Bottleneck: FMA in cache.
#pragma once
#include "depthwise_pixels.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// ---- one call: units are (output row, group of pixels)

// Whether so few channels would leave most lanes of a vector empty, so that weights go round.
template <class T>
bool runs_on(int64_t channels) {
    return 2 * channels <= lanes<T>;
}

// Rows of the input, every channel `times` over: as many as an output row reads.
template <class T>
struct WidenedRows {
    static constexpr int L = lanes<T>;
    static constexpr int64_t most_bytes = 512 << 10;
    int64_t count, channels, times, pixels, length;
    const T** whose;  // the row that each is of, or null
    bool* wanted;     // by the output row at hand
    T* rows;

    WidenedRows(const Problem& p, Arena& arena)
        : count(p.out_channels > 1 ? p.kernel[0] * p.kernel[1] : 0), channels(p.groups), times(p.out_channels), pixels(p.input[2]),
          length(round_up(pixels * channels * times, L) + round_up(times, L)), whose(arena.take<const T*>(count)),
          wanted(arena.take<bool>(count)), rows(arena.take<T>(count * length)) {}
    static bool suits(const Problem& p) {  // or none are needed
        return p.out_channels == 1 || p.kernel[0] * p.kernel[1] * p.input[2] * p.groups * p.out_channels * int64_t(sizeof(T)) <= most_bytes;
    }
    void start() const { std::fill(whose, whose + count, nullptr); }

    void keep(const PixelRow<T>* row) const {
        for (int64_t i = 0; i < count; ++i)
            wanted[i] = std::any_of(row, row + count, [&](const PixelRow<T>& one) { return !one.zeros && one.begin == whose[i]; });
    }
    const T* of(const T* row, int64_t pixel) const {
        int64_t i = std::find(whose, whose + count, row) - whose;
        if (i == count) {
            i = std::find(wanted, wanted + count, false) - wanted;
            whose[i] = row, wanted[i] = true;
            widen(row, pixel, rows + i * length);
        }
        return rows + i * length;
    }

   private:
    // Whole vectors, of which the next ones overwrite what is too much.
    FASTCONV_NOINLINE void widen(const T* row, int64_t pixel, T* to) const {
        for (int64_t w = 0; w < pixels; ++w, row += pixel)
            for (int64_t c = 0; c < channels; ++c, to += times)
                for (int64_t i = 0; i < times; i += L) store(to + i, broadcast(row[c]));
    }
};

template <class T>
struct DepthwiseLast {
    static constexpr int L = lanes<T>;
    static constexpr int64_t most = 6, many_taps = 20;
    Problem p;
    Call call;
    const T *bias, *weight;  // [kd][kh][kw][weight_step]
    int64_t weight_step, inside, outside, groups, rows, parts;  // inside .. outside: columns whose taps are all inside the image, in so many groups
    int64_t phases, shared;  // columns of a tile are `phases` apart, which is `shared` taps; 0: not 1 or 2, or not worth it
    int64_t channels, pixel;  // of the output; from one pixel of the input, or of widened rows, to the next
    int64_t run;              // the most columns of a run, 0: a pixel at a time
    int64_t whole_from, whole_to;  // columns whose taps are all inside: with `listed` tiles reach beyond them
    bool listed;
    int64_t at_once;          // channels that are computed of all pixels before the next ones: their weights and inputs stay in L1

    static bool applies(const Problem& p, const Call& c) {
        return p.in_channels == 1 && WidenedRows<T>::suits(p) && (c.input.channel == 1 || p.groups == 1) &&
               c.output.channel == 1 && (!c.residual.data || c.residual.channel == 1);
    }

    DepthwiseLast(const Problem& problem, const Call& c, const T* bias_, const T* weight_, int64_t weight_step_, int threads)
        : p(problem), call(c), bias(bias_), weight(weight_), weight_step(weight_step_), rows(p.batch * p.output[0] * p.output[1]),
          channels(p.groups * p.out_channels), pixel(p.out_channels > 1 ? channels : c.input.space[2]) {
        inside = std::min(p.output[2], ceil_div(std::max<int64_t>(p.pad_lo[2], 0), p.stride[2]));
        const int64_t room = p.input[2] - 1 - (p.kernel[2] - 1) * p.dilation[2] + p.pad_lo[2];
        outside = room < 0 || rounds_products(p) ? inside : std::max(inside, std::min(p.output[2], room / p.stride[2] + 1));
        const bool whole = p.dilation[2] % p.stride[2] == 0;
        phases = whole && outside - inside >= 4 * (p.dilation[2] / p.stride[2]) ? p.dilation[2] / p.stride[2] : 1;
        shared = phases * p.stride[2] == p.dilation[2] ? 1 : p.stride[2] == 2 * p.dilation[2] ? 2 : 0;
        if (p.kernel[2] == 1) shared = 0;  // a single tap shares nothing, and its loop is shorter
        run = longest_run();
        whole_from = inside, whole_to = outside;
        const int64_t edges = p.output[2] - (outside - inside);
        listed = most_shared > 0 && shared == 1 && phases == 1 && !run && !rounds_products(p) &&
                 (kernel_volume(p) >= many_taps ? edges > 0 : 8 * edges >= p.output[2]);
        if (listed) inside = 0, outside = p.output[2];
        at_once = run || p.out_channels > 1 || kernel_volume(p) < many_taps ? channels : 4 * L;
        groups = run ? ceil_div(outside - inside, most * run) : phases * groups_of_phase();
        parts = threads_for(multiply_adds(p), worth_a_thread::depthwise, threads);
        parts = std::min(parts, units());
    }
    int64_t groups_of_phase() const { return ceil_div(ceil_div(outside - inside, phases), most); }
    int64_t in_a_row() const { return groups + p.output[2] - (outside - inside); }
    int64_t units() const { return rows * in_a_row(); }

    // Runs of 16 vectors, or less in short rows, where they have half the vectors of as many pixels: they share no inputs.
    int64_t longest_run() const {
        const int64_t columns = std::min((outside - inside) / most, most_of_a_run(p));
        const auto lies_dense = [&](const View& v) { return !v.data || v.space[2] == channels; };
        if (channels == 1 || columns < 1 || !runs_on<T>(channels) || p.stride[2] != 1) return 0;
        if (pixel != channels || !lies_dense(call.output) || !lies_dense(call.residual)) return 0;
        return 2 * ceil_div(columns * channels, L) <= columns ? columns : 0;
    }
    static int64_t most_of_a_run(const Problem& p) { return ceil_div(16 * L, p.groups * p.out_channels); }

    struct Scratch {
        PixelRow<T>* row;
        int64_t* column;
        T* zeros;
        int64_t zero_count;
        WidenedRows<T> widened;
        size_t bytes;
        Scratch(const Problem& p, void* base) : Scratch(p, Arena(base)) {}
        Scratch(const Problem& p, Arena arena)
            : row(arena.take<PixelRow<T>>(p.kernel[0] * p.kernel[1])), column(arena.take<int64_t>(p.kernel[2] + most)), zeros(nullptr),
              zero_count(most_of_a_run(p) * p.groups * p.out_channels + 2 * L), widened(p, arena) {
            zeros = arena.take<T>(zero_count);
            bytes = arena.used();
        }
    };

    static Crew crew(const Problem& p, const Call& call, int64_t parts) { return {p, call, parts, Scratch(p, nullptr).bytes}; }

    void compute() const {
        const Crew crew = DepthwiseLast::crew(p, call, parts);
        crew.share(units(), [&](int64_t part, const auto& each) {
            const Scratch s(p, crew.own(part));
            const Epilogue<T> epilogue(p);
            clear(s.zeros, s.zero_count);
            s.widened.start();
            each([&](int64_t begin, int64_t end) {
                for (int64_t c = 0; c < channels; c += at_once)
                    for (int64_t i = begin; i < end;) {
                        const int64_t row = i / in_a_row(), first = i % in_a_row(), last = std::min(in_a_row(), first + end - i);
                        list_rows(row, s);
                        compute(row, first, last, c, s, epilogue);
                        i += last - first;
                    }
            });
        });
    }

    void list_columns(int64_t w, int64_t count, const Scratch& s) const {
        for (int64_t k = 0; k < p.kernel[2] + count - 1; ++k) {
            const int64_t from = source(p, 2, w * p.stride[2] - p.pad_lo[2] + k * p.dilation[2]);
            s.column[k] = from < 0 ? nowhere : from * pixel;
        }
    }

    void list_rows(int64_t row, const Scratch& s) const {
        const View& x = call.input;
        const int64_t h = row % p.output[1], d = row / p.output[1] % p.output[0], image = row / p.output[1] / p.output[0];
        PixelRow<T>* to = s.row;
        for (int64_t kd = 0; kd < p.kernel[0]; ++kd) {
            const int64_t from_d = source(p, 0, d * p.stride[0] - p.pad_lo[0] + kd * p.dilation[0]);
            for (int64_t kh = 0; kh < p.kernel[1]; ++kh) {
                const int64_t from_h = source(p, 1, h * p.stride[1] - p.pad_lo[1] + kh * p.dilation[1]);
                if (from_d < 0 || from_h < 0) *to++ = {s.zeros, 0, 0, 0, true};
                else *to++ = {at<const T>(x, image, 0) + from_d * x.space[0] + from_h * x.space[1], -p.pad_lo[2] * pixel,
                              p.stride[2] * pixel, p.dilation[2] * pixel, false};
            }
        }
        if (p.out_channels == 1) return;
        s.widened.keep(s.row);
        for (PixelRow<T>* one = s.row; one < to; ++one)
            if (!one->zeros) one->begin = s.widened.of(one->begin, x.space[2]);
    }

    // The units first .. last of a row, of the channels from `channel` on: single pixels, groups, single pixels.
    void compute(int64_t row, int64_t first, int64_t last, int64_t channel, const Scratch& s, const Epilogue<T>& epilogue) const {
        const int64_t h = row % p.output[1], d = row / p.output[1] % p.output[0], image = row / p.output[1] / p.output[0];
        const auto place = [&](const View& v) { return v.data ? at<T>(v, image, 0) + d * v.space[0] + h * v.space[1] : nullptr; };
        ChannelVectors<T> in{s.row, s.column, s.zeros, weight, bias, p.kernel[0] * p.kernel[1], p.kernel[2], weight_step, channels,
                             std::min(channel + at_once, channels), 1, place(call.output), place(call.residual), call.output.space[2],
                             call.residual.space[2], &epilogue, channel};
        for (int64_t i = first; i < last; ++i) {
            const int64_t group = i - inside;
            if (group >= 0 && group < groups) {
                if (run) runs(in, group);
                else pixels(in, group, s);
                continue;
            }
            const int64_t w = group < 0 ? i : outside + group - groups;
            list_columns(w, 1, s);
            (rounds_products(p) ? rounded_channels<T> : all_channels<T, 1, 0, true>)(in, w);
        }
    }

    void pixels(ChannelVectors<T> in, int64_t group, const Scratch& s) const {
        const int64_t each = groups_of_phase(), width = outside - inside, phase = group / each, i = group % each;
        in.apart = phases;
        const int64_t all = ceil_div(width - phase, in.apart), begin = all * i / each, count = all * (i + 1) / each - begin;
        const int64_t w = inside + phase + begin * in.apart;
        if (!listed || (w >= whole_from && w + count <= whole_to)) return several(shared, count)(in, w);
        list_columns(w, count, s);
        at_an_edge(count)(in, w);
    }

    // As many columns as make equal runs, then the few that are left.
    void runs(ChannelVectors<T> in, int64_t group) const {
        const int64_t width = outside - inside, w = inside + width * group / groups, n = inside + width * (group + 1) / groups - w;
        if (n % most) several(phases == 1 ? shared : 0, n % most)(in, w);
        in.apart = n / most, in.length = in.apart * channels;
        if (in.apart) several(0, most)(in, w + n % most);
    }

    static auto several(int64_t taps, int64_t columns) {
        constexpr auto sizes = std::make_index_sequence<size_t(most)>{};
        if constexpr (most_shared > 0) {
            if (taps == 1) return by_number<1>(columns, sizes);
            if (taps == 2) return by_number<2>(columns, sizes);
        }
        return by_number<0>(columns, sizes);
    }
    static auto at_an_edge(int64_t columns) { return edges<most_shared ? 1 : 0>(columns, std::make_index_sequence<size_t(most)>{}); }
    template <int S, size_t... I>
    static auto edges(int64_t columns, std::index_sequence<I...>) {
        static constexpr void (*table[])(const ChannelVectors<T>&, int64_t) = {all_channels<T, S ? int(I) + 1 : 1, S, true>...};
        return table[columns - 1];
    }
    template <int S, size_t... I>
    static auto by_number(int64_t columns, std::index_sequence<I...>) {
        static constexpr void (*table[])(const ChannelVectors<T>&, int64_t) = {all_channels<T, int(I) + 1, S, false>...};
        return table[columns - 1];
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
