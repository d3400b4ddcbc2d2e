// Pooling by rows: each output is one of what is in its window (pool_rows.hpp).
//
//   row[ow]         = one of x[d][h][ow sw + kw]                          for all kw, of each row of the input that a window reads
//   out[od][oh][ow] = one of row(od sd + kd, oh sh + kh)[ow]              for all kd, kh
//
// Windows first, each row of the input once, in the order of memory: that is what the CPU's prefetchers foresee. Rows that are joined
// where they lie are read by turns, and wait for memory twice as long (2x2 of 224 x 224 planes, one thread: 13.9 instead of 5.8 ms). The
// rows' windows wait in a ring in L1 for all outputs that want them: kw + kd kh loads per vector in place of kd kh kw.
//
// Strides 1 to 4 run on vectors of outputs. A row is read where it lies, and the few windows that reach into padding come one by one;
// where these are many, or vectors would read what is not there, from a copy which has the value of no elements beyond its ends. Where the
// channels of a pixel lie side by side, vectors run over these. What has other windows is joined first (`joined`), as these come one by
// one. Bottleneck: memory.
#pragma once
#include "pool_cut.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <class T>
class Forward : PoolCut<T> {
    using Cut = PoolCut<T>;
    using typename Cut::Segment;
    using Cut::L, Cut::most_slots, Cut::most_at_once, Cut::segment, Cut::first_whole, Cut::end_whole, Cut::items;
    using Cut::crew, Cut::divisor_unit, Cut::divisor, Cut::divides_by_axes, Cut::p_, Cut::call_, Cut::in_, Cut::out_;
    using Cut::does_, Cut::norm_, Cut::pixels_, Cut::adjacent_, Cut::prepares_, Cut::slides_, Cut::joined_, Cut::bare_;
    using Cut::at_once_, Cut::past_, Cut::flat_, Cut::pairs_, Cut::between_, Cut::fetches_, Cut::even_, Cut::shares_, Cut::follows_;
    using Cut::straight_, Cut::unit_, Cut::blocks_, Cut::segments_, Cut::longest_, Cut::most_, Cut::deep_, Cut::group_;
    using Cut::slots_, Cut::round_, Cut::rounds_, Cut::band_, Cut::sums_, Cut::length_, Cut::pitch_;

   public:
    Forward(const PoolProblem& problem, const PoolCall& c, const Reduction<T>& reduction) : Cut(problem, c, reduction) {}

    // Whether planes are pooled as if they were one row.
    bool flat() const { return flat_; }

    size_t workspace_bytes() const { return crew().bytes(); }

    // The same by one thread, that of another call.
    size_t bytes_alone() const {
        const Crew crew = this->crew();
        return crew.common_bytes + crew.own_bytes;
    }
    void run_alone(char* memory) const {
        T* const divisors = reinterpret_cast<T*>(memory);
        fill_divisors(divisors);
        const Part mine(memory + crew().common_bytes, *this, divisors);
        const Grid<6> items = this->items();
        items.each(0, items.count(), [&](const auto& at) { band(at, mine); });
    }

    void run() const {
        const Crew crew = this->crew();
        T* const divisors = reinterpret_cast<T*>(crew.common());
        fill_divisors(divisors);
        const Grid<6> items = this->items();
        crew.share(items.count(), [&](int64_t part, const auto& each) {
            const Part mine(crew.own(part), *this, divisors);
            each([&](int64_t begin, int64_t end) { items.each(begin, end, [&](const auto& at) { band(at, mine); }); });
            if (past_) stored_past();
        });
    }

   private:
    struct Part {  // memory of a thread
        T *rows, *ring, *sums, *term, *outputs;
        const T* divisors;
        Part(char* memory, const Forward& f, const T* d)
            : rows(reinterpret_cast<T*>(memory)), ring(rows + f.slots_ * f.pitch_), sums(ring + f.deep_ * f.slots_ * f.length_),
              term(sums + f.sums_ * f.length_), outputs(term + f.length_), divisors(d) {}
    };
    struct Band {  // of an item:
        Segment seg;
        int64_t units, od, top, bottom;
        const T* from;  // the image's channel
        T* to;          // the segment's first output of row 0
    };

    void fill_divisors(T* to) const {
        if (!does_.divides) return;
        const int64_t unit = divisor_unit(), count = even_ ? 0 : p_.axis[2].output;
        for (int64_t o = 0; o < count; ++o) std::fill_n(to + o * unit, unit, divisor(o));
        std::fill_n(to + count * unit, 2 * L, divisor(0));
    }

    void band(const int64_t (&at)[6], const Part& mine) const {
        const PoolAxis &d = p_.axis[0], &h = p_.axis[1];
        const int64_t channel = at[1] + at[3] * unit_;
        Band of{segment(at[4]), pixels_ ? std::min(unit_, p_.channels - channel) : 1, at[2], at[5] * band_, 0, nullptr, nullptr};
        of.bottom = std::min(of.top + band_, h.output);
        of.from = static_cast<const T*>(in_.data) + at[0] * in_.batch + channel * in_.channel;
        of.to = static_cast<T*>(out_.data) + at[0] * out_.batch + channel * out_.channel + of.od * out_.space[0] +
                of.seg.begin * out_.space[2];
        if (flat_) return put_flat(of, mine);
        if (pairs_) return put_pairs(of, mine);
        if (fetches_ && !joined_) fence(of, mine);
        if (at_once_ || joined_ || straight_) {
            for (int64_t oh = of.top; oh < of.bottom; ++oh)
                at_once_ ? put_at_once(of, oh, mine) : joined_ ? join_first(of, oh, mine) : put_straight(of, oh, mine);
            return;
        }
        for (int64_t plane = 0; plane < d.count[of.od]; plane += deep_)
            for (int64_t round = 0; round < rounds_; ++round) pool_round(of, plane, round, mine);
    }
    // Rows of a plane are one; the windows at their ends, which have taken in a neighbour's elements, come once more.
    FASTCONV_NOINLINE void put_flat(const Band& of, const Part& mine) const {
        const PoolAxis &d = p_.axis[0], &h = p_.axis[1], &w = p_.axis[2];
        const T* const from = of.from + d.first[of.od] * in_.space[0];
        const int64_t size = h.input * w.input;
        does_.slide_between[0](from, size, 1, round_up(size, L), {1, 0, 0}, mine.ring);
        does_.ends_between(from, w.input, {h.input, w.input, w.input}, mine.ring);
        for (int64_t oh = 0, end; oh < h.output; oh = end) {
            const T* rows[most_slots];
            for (end = oh + 1; end < h.output && follows(end);) ++end;
            for (int64_t tap = 0; tap < h.count[oh]; ++tap) rows[tap] = mine.ring + (h.first[oh] + tap) * w.input;
            T* const to = of.to + oh * w.output;
            const Outputs<T> out{(end - oh) * w.output, mine.divisors, 0, divisor_of(of, oh), to};
            does_.join[joins(h.count[oh])](rows, h.count[oh], out);
            if (p_.operation == Pooling::lp) norm_.finish(to, out.count);
        }
    }
    // Runs of output rows whose windows differ by their place only.
    FASTCONV_NOINLINE void put_pairs(const Band& of, const Part& mine) const {
        const PoolAxis &h = p_.axis[1], &w = p_.axis[2];
        const int64_t row = in_.space[1];
        const T* const from = of.from + p_.axis[0].first[of.od] * in_.space[0];
        for (int64_t oh = of.top, end; oh < of.bottom; oh = end) {
            for (end = oh + 1; end < of.bottom && follows(end, h.stride);) ++end;
            const T divisor = divisor_of(of, oh);
            does_.pairs(from + h.first[oh] * row,
                        {end - oh, h.count[oh], w.output, row, row * h.stride, out_.space[1], mine.divisors, divisor},
                        of.to + oh * out_.space[1]);
        }
    }
    // Whether an output row's windows are those of the row before, some rows further.
    bool follows(int64_t oh, int64_t further = 1) const {
        const PoolAxis& h = p_.axis[1];
        return h.first[oh] == h.first[oh - 1] + further && h.count[oh] == h.count[oh - 1] && h.divisor[oh] == h.divisor[oh - 1];
    }

    // What some planes, and a round of their rows, make of a band.
    void pool_round(const Band& of, int64_t plane, int64_t round, const Part& mine) const {
        const PoolAxis& d = p_.axis[0];
        const int64_t planes = std::min(deep_, d.count[of.od] - plane);
        const bool first = plane + round == 0, last = plane + planes == d.count[of.od] && round + 1 == rounds_;
        int64_t held[most_slots];  // the input row of each slot
        std::fill_n(held, planes * slots_, -1);
        for (int64_t oh = of.top; oh < of.bottom; oh += group_) {
            const int64_t end = std::min(oh + group_, of.bottom);
            for (int64_t i = 0; i < planes; ++i) {
                const T* const from = of.from + (d.first[of.od] + (plane + i) * d.dilation) * in_.space[0];
                read_rows(of, from, oh, end, round, held + i * slots_, mine.ring + i * slots_ * length_, mine);
            }
            for (int64_t o = oh; o < end; ++o) put_row(of, o, planes, round, first, last, mine);
        }
    }

    // Beyond the ends of what rows are copied to
    void fence(const Band& of, const Part& mine) const {
        const Segment& s = of.seg;
        if (s.inside_first == s.first && s.inside_last == s.last) return;
        for (int64_t i = 0; i < slots_; ++i) {
            T* const row = mine.rows + i * pitch_;
            std::fill_n(row, (s.inside_first - s.first) * of.units, does_.identity);
            std::fill_n(row + (s.inside_last - s.first) * of.units, (s.last - s.inside_last) * of.units, does_.identity);
        }
    }

    int64_t slot_of(int64_t row, int64_t tap) const { return shares_ ? row & (slots_ - 1) : tap % round_; }
    int64_t taps_of(int64_t oh, int64_t round) const {  // the last one's end
        return std::min(p_.axis[1].count[oh], (round + 1) * round_);
    }

    // To the ring: the windows of all rows that outputs oh .. end - 1 read, of this round, and that it does not have.
    void read_rows(const Band& of, const T* from, int64_t oh, int64_t end, int64_t round, int64_t* held, T* ring,
                   const Part& mine) const {
        const PoolAxis& h = p_.axis[1];
        if (follows_) {  // held[0]: the last row so far
            int64_t first = h.first[oh], last = h.first[end - 1] + h.count[end - 1];
            if (h.regular) {
                first = std::max<int64_t>(h.begin + oh * h.stride, 0);
                last = std::min(h.begin + (end - 1) * h.stride + (h.taps - 1) * h.dilation + 1, h.input);
            }
            first = std::max(held[0] + 1, first);
            for (int64_t row = first, n; row < last; row += n) {
                n = std::min(last - row, slots_ - slot_of(row, 0));
                pool_rows(of, from + row * in_.space[1], in_.space[1], n, ring + slot_of(row, 0) * length_, mine);
            }
            held[0] = std::max(held[0], last - 1);
            return;
        }
        for (; oh < end; ++oh)
            for (int64_t tap = round * round_; tap < taps_of(oh, round); ++tap) {
                const int64_t row = h.first[oh] + tap * h.dilation, slot = slot_of(row, tap);
                if (held[slot] == row) continue;
                held[slot] = row;
                pool_rows(of, from + row * in_.space[1], 0, 1, ring + slot * length_, mine);
            }
    }
    // n rows `apart` to as many slots. All are copied first: what was stored just now is slow to load at another offset.
    void pool_rows(const Band& of, const T* from, int64_t apart, int64_t n, T* to, const Part& mine) const {
        if (!fetches_) return pool_lines(of, from, to, true, {n, apart, length_});
        for (int64_t i = 0; i < n; ++i) fetch(of, from + i * apart, mine.rows + i * pitch_);
        pool_lines(of, mine.rows - of.seg.first * of.units, to, true, {n, pitch_, length_});
    }

    // A segment's inputs of a row that exist.
    FASTCONV_NOINLINE void fetch(const Band& of, const T* row, T* to) const {
        const Segment& s = of.seg;
        const int64_t count = s.inside_last - s.inside_first, step = in_.space[2];
        row += s.inside_first * step, to += (s.inside_first - s.first) * of.units;
        if (step == of.units || of.units == 1) {
            const int64_t n = count * of.units, apart = of.units == 1 ? step : 1;
            if (prepares_) norm_.prepare(row, apart, n, to);
            else if (apart == 1) copy(to, row, n);
            else
                for (int64_t i = 0; i < n; ++i) to[i] = row[i * apart];
            return;
        }
        for (int64_t i = 0; i < count; ++i, row += step, to += of.units) {
            if (prepares_) norm_.prepare(row, 1, of.units, to);
            else copy(to, row, of.units);
        }
    }

    // The windows of rows, of whose first one element 0 is at `row`. There is room for whole vectors behind them, or not.
    void pool_lines(const Band& of, const T* row, T* to, bool room, const Lines& lines) const {
        const PoolAxis& w = p_.axis[2];
        const Segment& s = of.seg;
        const int64_t n = s.end - s.begin, pixel = fetches_ ? of.units : in_.space[2], step = w.dilation * pixel;
        if (slides_ && !bare_) {
            const int64_t count = n * of.units;
            return slide(row + (w.begin + s.begin * w.stride) * of.units, step, room ? round_up(count, L) : count, lines, to);
        }
        if (pixels_) {
            for (int64_t line = 0; line < lines.count; ++line, row += lines.from, to += lines.to)
                does_.pixels(&row, 1, {w.first + s.begin, w.count + s.begin, pixel, step, of.units, n, nullptr, 1, of.units}, to);
            return;
        }
        const auto one_by_one = [&](int64_t begin, int64_t end) {
            if (begin < end) does_.windows(row, w.first + begin, w.count + begin, pixel, step, end - begin, lines, to + (begin - s.begin));
        };
        if (!slides_) return one_by_one(s.begin, s.end);
        if (between_) return does_.slide_between[w.stride - 1](row, w.input, 1, room ? round_up(n, L) : n, lines, to);
        const int64_t begin = first_whole(s), end = end_whole(s);
        one_by_one(s.begin, begin);
        slide(row + w.begin + begin * w.stride, step, end - begin, lines, to + (begin - s.begin));
        one_by_one(end, s.end);
    }
    void slide(const T* row, int64_t step, int64_t count, const Lines& lines, T* to) const {
        const PoolAxis& w = p_.axis[2];
        const int few = w.taps == 2 ? 0 : w.taps == 3 ? 1 : 2;
        if (w.stride == 1) does_.slide[few](row, w.taps, step, count, lines, to);
        else if (w.stride == 2) does_.slide_two[step == 1 ? few : 2](row, w.taps, step, count, lines, to);
        else does_.slide_split[w.stride - 3](row, w.taps, step, count, lines, to);
    }

    // Small windows of pixels: all taps in registers. Their rows lie in different pages, which prefetchers tell from each other.
    FASTCONV_NOINLINE void put_at_once(const Band& of, int64_t oh, const Part& mine) const {
        const PoolAxis &d = p_.axis[0], &h = p_.axis[1], &w = p_.axis[2];
        const Segment& s = of.seg;
        const T* rows[most_at_once];
        int64_t n = 0;
        for (int64_t plane = 0; plane < d.count[of.od]; ++plane)
            for (int64_t tap = 0; tap < h.count[oh]; ++tap)
                rows[n++] = of.from + (d.first[of.od] + plane * d.dilation) * in_.space[0] + (h.first[oh] + tap * h.dilation) * in_.space[1];
        T* const to = of.to + oh * out_.space[1];
        const bool lines = (of.units | out_.space[2]) % L == 0 && reinterpret_cast<uintptr_t>(to) % vector_bytes == 0;
        does_.pixels(rows, n, {w.first + s.begin, w.count + s.begin, in_.space[2], w.dilation * in_.space[2], of.units, s.end - s.begin,
                               does_.divides ? mine.divisors + s.begin : nullptr, divisor_of(of, oh), out_.space[2], past_ && lines}, to);
        if (p_.operation != Pooling::lp) return;
        for (int64_t o = 0; o < s.end - s.begin; ++o) norm_.finish(to + o * out_.space[2], of.units);
    }
    void put_straight(const Band& of, int64_t oh, const Part& mine) const {
        const T* const from = of.from + p_.axis[0].first[of.od] * in_.space[0] + p_.axis[1].first[oh] * in_.space[1];
        if (fetches_) fetch(of, from, mine.rows);
        pool_lines(of, fetches_ ? mine.rows - of.seg.first * of.units : from, of.to + oh * out_.space[1], false, {1, 0, 0});
    }

    // Of an output row, what this round's rows make of it: with the rounds before, and, if it is the last one, to the output. Up to eight
    // rows of a window are one sum; of more each eight of a plane are a term of it, however they come.
    void put_row(const Band& of, int64_t oh, int64_t planes, int64_t round, bool first, bool last, const Part& mine) const {
        const PoolAxis& h = p_.axis[1];
        const T* rows[most_slots + 1];
        T* const sums = mine.sums + (oh - of.top) * length_;
        const bool few = p_.axis[0].taps * h.taps <= most_rows;
        int64_t n = 0;
        if (!first && few) rows[n++] = sums;
        for (const T* ring = mine.ring; planes > 0; --planes, ring += slots_ * length_)
            for (int64_t tap = round * round_; tap < taps_of(oh, round); ++tap)
                rows[n++] = ring + slot_of(h.first[oh] + tap * h.dilation, tap) * length_;
        if (!first && !few) return put_terms(of, oh, rows, n, last, mine);
        if (last) deliver(of, oh, rows, n, mine);
        else (does_.divides ? does_.partial : does_.join[joins(n)])(rows, n, {length_, nullptr, 0, 1, sums});
    }
    FASTCONV_NOINLINE void put_terms(const Band& of, int64_t oh, const T* const* rows, int64_t n, bool last, const Part& mine) const {
        T* const sums = mine.sums + (oh - of.top) * length_;
        const T* const both[] = {sums, mine.term};
        for (int64_t from = 0; from < n; from += most_rows) {
            does_.partial(rows + from, std::min<int64_t>(n - from, most_rows), {length_, nullptr, 0, 1, mine.term});
            if (!last || from + most_rows < n) does_.partial(both, 2, {length_, nullptr, 0, 1, sums});
        }
        if (last) deliver(of, oh, both, n > 0 ? 2 : 1, mine);
    }

    T divisor_of(const Band& of, int64_t oh) const {  // that of axes d and h
        return does_.divides && divides_by_axes() ? T(p_.axis[0].divisor[of.od]) * T(p_.axis[1].divisor[oh]) : T(1);
    }

    // A row of outputs: all of `rows`, divided.
    void deliver(const Band& of, int64_t oh, const T* const* rows, int64_t n, const Part& mine) const {
        const int64_t count = of.seg.end - of.seg.begin;
        T* const to = of.to + oh * out_.space[1];
        T* const made = adjacent_ ? to : mine.outputs;
        const T divisor = divisor_of(of, oh);
        if (even_ || !does_.divides || divisor_unit() == of.units) {
            const Outputs<T> out{count * of.units, mine.divisors + (even_ ? 0 : of.seg.begin * of.units), even_ ? 0 : -1, divisor, made};
            does_.join[out.count < L ? 3 : joins(n)](rows, n, out);
        } else {
            join_pixels(of, rows, n, divisor, mine.divisors + of.seg.begin, made);
        }
        if (p_.operation == Pooling::lp) norm_.finish(made, count * of.units);
        if (adjacent_) return;
        for (int64_t o = 0; o < count; ++o) copy(to + o * out_.space[2], made + o * of.units, of.units);
    }
    static int joins(int64_t n) { return n >= 2 && n <= 4 ? int(n) - 2 : 3; }
    // Runs of pixels with the same divisor
    FASTCONV_NOINLINE void join_pixels(const Band& of, const T* const* rows, int64_t n, T divisor, const T* divisors, T* to) const {
        const int64_t count = of.seg.end - of.seg.begin;
        for (int64_t o = 0, end; o < count; o = end) {
            for (end = o + 1; end < count && divisors[end] == divisors[o];) ++end;
            const T* some[most_slots + 1];
            T same[L];
            std::fill_n(same, L, divisors[o]);
            for (int64_t r = 0; r < n; ++r) some[r] = rows[r] + o * of.units;
            does_.join[3](some, n, {(end - o) * of.units, same, 0, divisor, to + o * of.units});
        }
    }

    // Rows first, up to eight at a time: those of a window to one, whose windows come one by one.
    FASTCONV_NOINLINE void join_first(const Band& of, int64_t oh, const Part& mine) const {
        const PoolAxis &d = p_.axis[0], &h = p_.axis[1], &w = p_.axis[2];
        const Segment& s = of.seg;
        const T* rows[most_rows + 1];
        const T* sofar = nullptr;
        int64_t n = 0, turn = 0;
        const auto join = [&] {
            T* const to = mine.ring + turn * length_;
            does_.partial(rows, n, {s.inside_last - s.inside_first, nullptr, 0, 1, to});
            sofar = rows[0] = to, n = 1, turn = 1 - turn;
        };
        for (int64_t plane = 0; plane < d.count[of.od]; ++plane)
            for (int64_t tap = 0; tap < h.count[oh]; ++tap) {
                const T* row = of.from + (d.first[of.od] + plane * d.dilation) * in_.space[0] + (h.first[oh] + tap * h.dilation) * in_.space[1];
                T* const copied = mine.rows + (n - (sofar != nullptr)) * pitch_;
                if (fetches_) fetch(of, row, copied);
                rows[n++] = fetches_ ? copied + (s.inside_first - s.first) : row + s.inside_first;
                if (n - (sofar != nullptr) == std::min<int64_t>(slots_, most_rows)) join();
            }
        if (n > (sofar != nullptr)) join();
        does_.windows(sofar - s.inside_first, w.first + s.begin, w.count + s.begin, 1, w.dilation, s.end - s.begin, {1, 0, 0}, mine.sums);
        const T* const made[] = {mine.sums};
        deliver(of, oh, made, 1, mine);
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
