// Pooling by rows: each output is one of what is in its window (pool_rows.hpp).
//
//   row[w]           = one of x[od sd + kd][oh sh + kh][w]  for all kd, kh
//   out[od][oh][ow]  = one of row[ow sw + kw]               for all kw
//
// Rows first: kd kh loads per vector of inputs, side by side whatever the stride along h; then a row's windows, whose kw loads are from
// L1: kd kh + kw loads in place of kd kh kw. The row has what is in no array, beyond its ends: padding is the value of no elements. Where
// the channels of a pixel lie side by side, a row's elements are pixels of channels: with stride 1 taps are so many elements apart, else
// pixels come one by one. Otherwise strides 1 to 4 run on vectors, other windows one by one.
// Bottleneck: memory.
#pragma once
#include "pool.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <class T, class Op>
class Forward {
   public:
    Forward(const PoolProblem& problem, const PoolCall& c) : p_(problem), call_(c), in_(c.input), out_(c.output), op_(problem) {
        pixels_ = channels_side_by_side(p_, in_, out_);
        if (!pixels_) merge(0, 1), merge(1, 2);
        const PoolAxis &h = p_.axis[1], &w = p_.axis[2];
        const int64_t rows = p_.batch * p_.axis[0].output * h.output;
        unit_ = pixels_ ? channels_at_a_time<T>(p_, rows, c.threads) : 1;
        blocks_ = pixels_ ? ceil_div(p_.channels, unit_) : 1;
        dense_ = unit_ == 1 ? in_.space[2] == 1 : in_.space[2] == unit_ || w.input == 1;
        adjacent_ = out_.space[2] == unit_ || w.output == 1;
        slides_ = w.regular && (unit_ == 1 ? w.stride <= 2 || (w.stride <= 4 && w.dilation == 1)
                                           : w.stride == 1 && blocks_ == 1 && adjacent_);
        if (!pixels_ && ceil_div(w.output, L) * w.taps > w.output * (w.taps / L + 8)) slides_ = false;  // long windows, few of them
        single_ = unit_ == 1 && !slides_ && in_.space[2] == 1 && p_.axis[0].taps * h.taps == 1;
        bare_ = unit_ == 1 && slides_ && in_.space[2] == 1 && p_.axis[0].taps * h.taps == 1 && !Op::prepares;
        constexpr double from = 8 << 20;  // bytes of input: what is nearer costs a tenth more so
        asks_ = inputs_of(p_) * sizeof(T) >= from && unit_ == 1 && in_.space[2] == 1 && h.regular && h.taps > 1 && in_.space[1] > 0 &&
                h.stride * in_.space[1] * int64_t(sizeof(T)) <= 4096;
        cut();
    }

    size_t workspace_bytes() const { return crew().bytes(); }

    // The same by one thread, that of another call.
    size_t bytes_alone() const {
        const Crew crew = this->crew();
        return crew.common_bytes + crew.own_bytes;
    }
    void run_alone(char* memory) const {
        T* const divisors = reinterpret_cast<T*>(memory);
        if constexpr (Op::divides) fill_divisors(divisors);
        const Part mine(memory + crew().common_bytes, *this, divisors);
        const Grid<6> items = this->items();
        items.each(0, items.count(), [&](const auto& at) { band(at, mine); });
    }

    void run() const {
        const Crew crew = this->crew();
        T* const divisors = reinterpret_cast<T*>(crew.common());
        if constexpr (Op::divides) fill_divisors(divisors);
        const Grid<6> items = this->items();
        crew.share(items.count(), [&](int64_t part, const auto& each) {
            const Part mine(crew.own(part), *this, divisors);
            each([&](int64_t begin, int64_t end) { items.each(begin, end, [&](const auto& at) { band(at, mine); }); });
        });
    }

   private:
    static constexpr int64_t L = lanes<T>;
    struct Part {  // memory of a thread
        T *rows, *outputs;
        const T* divisors;
        Part(char* memory, const Forward& f, const T* d)
            : rows(reinterpret_cast<T*>(memory)), outputs(rows + f.band_ * f.pitch_), divisors(d) {}
    };
    struct Segment {  // outputs begin .. end - 1 of a row, from inputs first .. last - 1, of which inside_first .. inside_last - 1 exist
        int64_t begin, end, first, last, inside_first, inside_last;
    };

    struct Line {  // of a segment:
        const T* row;  // whose element w is row[w units]
        T divisor;     // what the axes d and h divide by
        T* to;         // the outputs
    };

    // One window over all of two axes, of inputs that lie in a row: one axis. In place of the second.
    void merge(int a, int b) {
        const PoolAxis &x = p_.axis[a], &y = p_.axis[b];
        const auto whole = [](const PoolAxis& axis) {
            return axis.output == 1 && axis.count[0] == axis.input && (axis.dilation == 1 || axis.input == 1);
        };
        if (!whole(x) || !whole(y)) return;
        if (x.input > 1 && y.input > 1 && in_.space[a] != y.input * in_.space[b]) return;
        if (y.input == 1 && x.input > 1) in_.space[b] = in_.space[a];
        count_[a] = x.input * y.input, divisor_[a] = x.divisor[0] * y.divisor[0];
        p_.axis[b] = {count_[a], 1, 1, count_[a], &nothing, &count_[a], &divisor_[a], 0, 1, true};
        p_.axis[a] = {1, 1, 1, 1, &nothing, &one, &one, 0, 1, true};
    }

    // Bands of rows, which fit into half of L1, and segments of columns, of which a long one does not fill L2.
    void cut() {
        constexpr int64_t room = (16 << 10) / int64_t(sizeof(T)), most_in_a_band = 16;
        const PoolAxis &h = p_.axis[1], &w = p_.axis[2];
        const int64_t span = w.regular ? (w.output - 1) * w.stride + (w.taps - 1) * w.dilation + 1 : w.input;
        segments_ = std::min(std::max<int64_t>(span * unit_ / (4 * room), 1), w.output);
        int64_t longest = 0, most = 0;
        for (int64_t s = 0; s < segments_; ++s) {
            const Segment each = segment(s);
            longest = std::max(longest, each.last - each.first), most = std::max(most, each.end - each.begin);
        }
        pitch_ = single_ ? 0 : round_up(longest * unit_ + 8 * L, L);  // vectors may read past its end
        length_ = most;
        band_ = pitch_ ? std::min({std::max<int64_t>(room / pitch_, 1), h.output, most_in_a_band}) : 1;
    }
    Segment segment(int64_t s) const { return outputs(p_.axis[2].output * s / segments_, p_.axis[2].output * (s + 1) / segments_); }
    Segment outputs(int64_t begin, int64_t end) const {
        const PoolAxis& w = p_.axis[2];
        Segment of{begin, end, 0, 0, 0, 0};
        if (w.regular) {
            of.first = w.begin + of.begin * w.stride;
            of.last = w.begin + (of.end - 1) * w.stride + (w.taps - 1) * w.dilation + 1;
        } else {
            of.first = w.input;
            for (int64_t o = of.begin; o < of.end; ++o) {
                of.first = std::min(of.first, w.first[o]);
                of.last = std::max(of.last, w.first[o] + (w.count[o] - 1) * w.dilation + 1);
            }
        }
        of.inside_first = std::min(std::max<int64_t>(of.first, 0), w.input);
        of.inside_last = std::max(std::min(of.last, w.input), of.inside_first);
        return of;
    }

    Grid<6> items() const {
        return {{p_.batch, pixels_ ? 1 : p_.channels, p_.axis[0].output, blocks_, segments_, ceil_div(p_.axis[1].output, band_)}};
    }
    Crew crew() const {
        const size_t own = size_t(round_up((band_ * pitch_ + round_up(length_ * unit_ + L, L)) * int64_t(sizeof(T)), 64));
        const int64_t divisors = Op::divides ? p_.axis[2].output * divisor_unit() + 2 * L : 0;
        return pool_crew(p_, call_, items().count(), own, size_t(round_up(divisors * int64_t(sizeof(T)), 64)));
    }
    int64_t divisor_unit() const { return slides_ ? unit_ : 1; }  // of pixels one by one, one is enough

    void fill_divisors(T* to) const {
        const PoolAxis& w = p_.axis[2];
        const int64_t unit = divisor_unit();
        for (int64_t o = 0; o < w.output; ++o) std::fill_n(to + o * unit, unit, divides_by_axes() ? T(w.divisor[o]) : constant());
        std::fill_n(to + w.output * unit, 2 * L, T(1));
    }
    // Averages that divide by a constant, and sums of powers that are not scaled, do not look at the axes' divisors.
    bool divides_by_axes() const { return (p_.operation == Pooling::average) == (p_.divisor == 0); }
    T constant() const { return p_.operation == Pooling::average ? T(p_.divisor) : T(1); }

    void band(const int64_t (&at)[6], const Part& mine) const {
        const PoolAxis &d = p_.axis[0], &h = p_.axis[1];
        const int64_t od = at[2], channel = at[1] + at[3] * unit_, units = pixels_ ? std::min(unit_, p_.channels - channel) : 1;
        const int64_t top = at[5] * band_, bottom = std::min(top + band_, h.output);
        const Segment seg = segment(at[4]);
        const T* from = static_cast<const T*>(in_.data) + at[0] * in_.batch + channel * in_.channel;
        T* to = static_cast<T*>(out_.data) + at[0] * out_.batch + channel * out_.channel + od * out_.space[0] + seg.begin * out_.space[2];
        const auto place = [&](int64_t oh) {  // of the first row of a window
            return from + d.first[od] * in_.space[0] + h.first[oh] * in_.space[1];
        };
        const auto rows = [&](int64_t oh) {
            return Rows<T>{place(oh), d.count[od], h.count[oh], d.dilation * in_.space[0], h.dilation * in_.space[1]};
        };
        const auto line = [&](int64_t oh, const T* row, T* at_first) {
            Line of{row, 1, at_first};
            if (Op::divides && divides_by_axes()) of.divisor = T(d.divisor[od]) * T(h.divisor[oh]);
            return of;
        };
        if (bare_) {
            for (int64_t oh = top; oh < bottom; ++oh) put_bare(rows(oh), line(oh, place(oh), to + oh * out_.space[1]), seg, mine);
            return;
        }
        if (!single_)
            for (int64_t oh = top; oh < bottom; ++oh) {
                if (asks_) ask(place(oh) + h.taps * in_.space[1], h.stride * in_.space[1]);
                join_rows(rows(oh), seg, units, mine.rows + (oh - top) * pitch_);
            }
        for (int64_t oh = top; oh < bottom; ++oh) {
            const T* const row = single_ ? place(oh) : mine.rows + (oh - top) * pitch_ - seg.first * units;
            const Line of = line(oh, row, to + oh * out_.space[1]);
            if (pixels_ && !slides_) put_pixels(of, seg, units, mine);
            else put(of, seg, units, mine);
        }
    }

    // For what the next row of windows reads beyond this one's, line after line: rows that are joined are read by turns, which no prefetcher
    // of the CPU foresees.
    static void ask(const T* from, int64_t elements) {
        for (int64_t i = 0; i < elements; i += 64 / int64_t(sizeof(T))) __builtin_prefetch(from + i);
    }

    // A row where it lies, but for the outputs whose vectors would read beyond its ends: these get a copy.
    void put_bare(const Rows<T>& rows, const Line& line, const Segment& seg, const Part& mine) const {
        const PoolAxis& w = p_.axis[2];
        const int64_t begin = std::min(std::max(seg.begin, ceil_div(std::max<int64_t>(-w.begin, 0), w.stride)), seg.end);
        const int64_t inputs = w.input - (w.begin + begin * w.stride) - w.taps * w.dilation - w.stride;  // that vectors may read
        const int64_t vectors = std::max<int64_t>(0, std::min(seg.end - begin, inputs / w.stride)) / (2 * L);
        const int64_t end = begin + vectors * 2 * L;
        const auto some = [&](int64_t from, int64_t to, bool bare) {
            if (from == to) return;
            const Segment of = outputs(from, to);
            Line one = line;
            one.to += (from - seg.begin) * out_.space[2];
            if (!bare) join_rows(rows, of, 1, mine.rows), one.row = mine.rows - of.first;
            put(one, of, 1, mine);
        };
        some(seg.begin, begin, false), some(begin, end, true), some(end, seg.end, false);
    }

    // A segment's row of `rows`, from its first input on; identities beyond the ends.
    void join_rows(Rows<T> rows, const Segment& seg, int64_t units, T* to) const {
        const int64_t count = seg.inside_last - seg.inside_first;
        std::fill_n(to, (seg.inside_first - seg.first) * units, op_.identity());
        to += (seg.inside_first - seg.first) * units;
        rows.base += seg.inside_first * in_.space[2];
        const Runs runs = dense_ && blocks_ == 1 ? Runs{1, count * units, 0} : Runs{count, units, in_.space[2]};
        if (count > 0) join_all(op_, rows, runs, to);
        std::fill_n(to + count * units, (seg.last - seg.inside_last) * units, op_.identity());
    }

    void put_pixels(const Line& line, const Segment& seg, int64_t units, const Part& mine) const {
        const PoolAxis& w = p_.axis[2];
        T* to = line.to;
        for (int64_t o = seg.begin; o < seg.end; ++o, to += out_.space[2])
            join_pixels(op_, line.row + w.first[o] * units, w.count[o], w.dilation * units, units,
                        Op::divides ? mine.divisors[o] * line.divisor : T(1), to);
    }
    void put(const Line& line, const Segment& seg, int64_t units, const Part& mine) const {
        const PoolAxis& w = p_.axis[2];
        const int64_t n = seg.end - seg.begin;
        const Outputs<T> out{n * units, mine.divisors + seg.begin * divisor_unit(), line.divisor, adjacent_ ? line.to : mine.outputs};
        if (slides_) slide_any(line.row + (w.begin + seg.begin * w.stride) * units, units, out);
        else windows(op_, line.row, w.first + seg.begin, w.count + seg.begin, w.dilation, !single_, out);
        if (!adjacent_) spread(line.to, out_.space[2], mine.outputs, n);
    }
    void slide_any(const T* row, int64_t units, const Outputs<T>& out) const {
        const PoolAxis& w = p_.axis[2];
        const int64_t step = w.dilation * units;
        switch (w.stride) {
            case 2:
                if (w.taps == 2 && step == 1) return slide_two<T, Op, 2>(op_, row, 2, 1, out);
                if (w.taps == 3 && step == 1) return slide_two<T, Op, 3>(op_, row, 3, 1, out);
                return slide_two<T, Op, 0>(op_, row, w.taps, step, out);
            case 3: return slide_split<T, Op, 3>(op_, row, w.taps, out);
            case 4: return slide_split<T, Op, 4>(op_, row, w.taps, out);
        }
        if (w.taps == 2) slide<T, Op, 2>(op_, row, 2, step, out);
        else if (w.taps == 3) slide<T, Op, 3>(op_, row, 3, step, out);
        else slide<T, Op, 0>(op_, row, w.taps, step, out);
    }

    PoolProblem p_;
    PoolCall call_;
    View in_, out_;
    Op op_;
    bool pixels_;    // channels lie side by side
    bool dense_;     // a row's elements do
    bool adjacent_;  // and an output row's
    bool slides_;    // windows run on vectors of outputs
    bool single_;    // windows are in one row of the input, which is read where it lies
    bool asks_;      // for what the next windows read
    bool bare_;      // the same for those that run on vectors, but for the ends
    int64_t unit_, blocks_, segments_ = 1, band_ = 1, pitch_ = 0, length_ = 0;
    int64_t count_[2], divisor_[2];
    static constexpr int64_t nothing = 0, one = 1;
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
