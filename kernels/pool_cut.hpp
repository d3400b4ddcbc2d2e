// How a pooling by rows (pool_forward.hpp) is cut: what vectors run over, segments of columns, groups and bands of rows, and what of it
// lies in memory of the call. What is summed in which order follows from the problem alone.
#pragma once
#include "pool.hpp"
#include "pool_norm.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <class T>
class PoolCut {
   protected:
    static constexpr int64_t L = lanes<T>, most_slots = 64, most_at_once = 12;
    struct Segment {  // outputs begin .. end - 1 of a row, from inputs first .. last - 1, of which inside_first .. inside_last - 1 exist
        int64_t begin, end, first, last, inside_first, inside_last;
    };

    PoolCut(const PoolProblem& problem, const PoolCall& c, const Reduction<T>& reduction)
        : p_(problem), call_(c), in_(c.input), out_(c.output), does_(reduction), norm_(problem) {
        pixels_ = channels_side_by_side(p_, in_, out_);
        if (!pixels_) merge(0, 1), merge(1, 2);
        const PoolAxis &d = p_.axis[0], &h = p_.axis[1], &w = p_.axis[2];
        unit_ = pixels_ ? channels_at_a_time<T>(p_, p_.batch * d.output * h.output, c.threads) : 1;
        blocks_ = pixels_ ? ceil_div(p_.channels, unit_) : 1;
        adjacent_ = out_.space[2] == unit_ || w.output == 1;
        prepares_ = p_.operation == Pooling::lp && norm_.prepares();
        slides_ = w.regular && (pixels_ ? w.stride == 1 && blocks_ == 1 && unit_ < 4 * L
                                        : w.stride <= 2 || (w.stride <= 4 && w.dilation == 1));
        if (!pixels_ && ceil_div(w.output, L) * w.taps > w.output * (w.taps / L + 8)) slides_ = false;  // long windows, few of them
        joined_ = !pixels_ && !slides_ && d.taps * h.taps > 1;
        cut_columns();
        bare_ = slides_ && !pixels_ && !prepares_ && in_.space[2] == 1 && vectors_fit();
        between_ = bare_ && w.taps == 3 && w.dilation == 1 && w.begin == -1 && w.stride <= 2 && segments_ == 1;
        fetches_ = prepares_ || (slides_ && !bare_) || (joined_ && in_.space[2] != 1);
        at_once_ = pixels_ && !slides_ && !prepares_ && d.taps * h.taps <= most_rows && d.taps * h.taps * w.taps <= most_at_once;
        straight_ = d.taps * h.taps == 1 && adjacent_ && !does_.divides;
        even_ = true;
        if (does_.divides && divides_by_axes())
            for (int64_t o = 1; o < w.output; ++o) even_ &= w.divisor[o] == w.divisor[0];
        even_ = even_ && !at_once_;
        flat_ = lies_flat();
        pairs_ = are_pairs();
        cut_rows();
        constexpr double from = 24 << 20;  // bytes
        past_ = at_once_ && outputs_of(p_) * sizeof(T) >= from;
    }

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

    // Segments of a row's outputs: what rows wait for each other fits into L2.
    void cut_columns() {
        const PoolAxis& w = p_.axis[2];
        const int64_t room = (pixels_ || p_.axis[0].taps * p_.axis[1].taps == 1 ? 64 << 10 : 32 << 10) / int64_t(sizeof(T));
        const int64_t span = w.regular ? (w.output - 1) * w.stride + (w.taps - 1) * w.dilation + 1 : w.input;
        segments_ = std::max<int64_t>(span * unit_ / room, 1);
        segments_ = ceil_div(w.output, length_of_segment());
        longest_ = most_ = 0;
        for (int64_t s = 0; s < segments_; ++s) {
            const Segment each = segment(s);
            longest_ = std::max(longest_, each.last - each.first), most_ = std::max(most_, each.end - each.begin);
        }
    }
    // In outputs; vectors that cross lines take twice as long.
    int64_t length_of_segment() const {
        const int64_t length = ceil_div(p_.axis[2].output, segments_);
        return pixels_ || segments_ == 1 ? length : round_up(length, L);
    }
    Segment segment(int64_t s) const {
        const PoolAxis& w = p_.axis[2];
        const int64_t whole = length_of_segment();
        Segment of{std::min(s * whole, w.output), std::min((s + 1) * whole, w.output), 0, 0, 0, 0};
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
    // Those outputs of a segment whose windows lie in the input.
    int64_t first_whole(const Segment& s) const {
        const PoolAxis& w = p_.axis[2];
        return std::min(std::max(s.begin, ceil_div(std::max<int64_t>(-w.begin, 0), w.stride)), s.end);
    }
    int64_t end_whole(const Segment& s) const {
        const PoolAxis& w = p_.axis[2];
        const int64_t last = w.input - 1 - (w.taps - 1) * w.dilation - w.begin;  // where the last one may begin
        return std::max(std::min(s.end, last < 0 ? 0 : last / w.stride + 1), first_whole(s));
    }
    // Whether vectors read nothing beyond a row, and little is left for others.
    bool vectors_fit() const {
        constexpr int64_t few = 12;
        const PoolAxis& w = p_.axis[2];
        if (w.taps == 3 && w.dilation == 1 && w.begin == -1 && w.stride <= 2 && segments_ == 1) return true;
        if (w.stride == 2 ? w.taps == 1 : w.stride > 2 && w.taps % w.stride != 0) return false;
        int64_t others = 0;
        for (int64_t s = 0; s < segments_; ++s) {
            const Segment each = segment(s);
            if (end_whole(each) - first_whole(each) < L) return false;
            for (int64_t o = each.begin; o < first_whole(each); ++o) others += w.count[o];
            for (int64_t o = end_whole(each); o < each.end; ++o) others += w.count[o];
        }
        return others <= few;
    }

    bool lies_flat() const {
        const PoolAxis &d = p_.axis[0], &h = p_.axis[1], &w = p_.axis[2];
        const int64_t most = (16 << 10) / int64_t(sizeof(T));
        return between_ && even_ && adjacent_ && w.stride == 1 && w.output == w.input && w.input >= 16 && w.input < 48 && d.taps == 1 &&
               h.taps <= most_slots && h.dilation == 1 && in_.space[1] == w.input && out_.space[1] == w.output && h.input * w.input <= most && h.output * w.output <= most;
    }

    // Windows of two by two and alike, of rows that a vector or two hold: what a row costs by itself is more than its elements do.
    bool are_pairs() const {
        const PoolAxis &d = p_.axis[0], &h = p_.axis[1], &w = p_.axis[2];
        const bool two = w.regular && w.taps == 2 && w.stride == 2 && w.begin == 0 && 2 * w.output <= w.input && w.dilation == 1;
        const bool joins = d.taps == 1 && h.taps <= 4 && h.dilation == 1 && p_.operation != Pooling::lp;
        return two && joins && vector_bytes >= 32 && w.output <= 2 * L && !pixels_ && in_.space[2] == 1 && adjacent_ && even_;
    }

    // Groups of output rows, whose input rows are read one after the other and kept in a ring; bands of groups, the items. Rows of a
    // window that are too many come in rounds, as those of several planes do.
    void cut_rows() {
        const PoolAxis &d = p_.axis[0], &h = p_.axis[1], &w = p_.axis[2];
        length_ = round_up(std::max(most_ * unit_, joined_ ? longest_ : 0), L);
        pitch_ = fetches_ ? round_up(longest_ * unit_ + (std::min<int64_t>(w.stride, 4) + 4) * L, L) : 0;  // vectors may read past its end
        const auto bytes = [&](int64_t slots) { return slots * (length_ + pitch_) * int64_t(sizeof(T)); };
        // From memory, planes come one after the other, and few rows at a time; sums are the same: those of up to eight rows have one order
        const bool near = inputs_of(p_) * sizeof(T) <= 16 << 20;
        deep_ = near && d.taps * h.taps <= most_rows ? d.taps : 1;
        const auto fits = [&] { return rows_of(group_) * deep_ <= most_slots && bytes(rows_of(group_) * deep_) <= 32 << 10; };
        for (group_ = joined_ ? 1 : deep_ > 1 ? 16 : near ? 8 : 4; group_ > 1 && !fits(); group_ /= 2) {}
        slots_ = rows_of(group_), round_ = h.taps;  // a power of two
        shares_ = !joined_ && slots_ <= most_slots && bytes(slots_) <= 384 << 10;
        if (!shares_) group_ = 1, slots_ = round_ = std::min<int64_t>(h.taps, most_rows);
        rounds_ = ceil_div(h.taps, round_);
        follows_ = shares_ && (h.regular ? h.stride == 1 || (h.dilation == 1 && h.stride <= h.taps) : h.dilation == 1);
        for (int64_t o = 1; follows_ && !h.regular && o < h.output; ++o) follows_ = h.first[o] <= h.first[o - 1] + h.count[o - 1];
        if (rounds_ > 1 || deep_ * slots_ > most_slots || bytes(deep_ * slots_) > 384 << 10) deep_ = 1;
        const int64_t rounds = ceil_div(d.taps, deep_) * rounds_;
        if (flat_) deep_ = slots_ = 1, length_ = round_up(h.input * w.input, L);
        if (joined_) slots_ = std::min<int64_t>(std::max<int64_t>(d.taps * h.taps, 2), most_rows);
        const int64_t items = p_.batch * (pixels_ ? 1 : p_.channels) * d.output * blocks_ * segments_;
        const int64_t bands = items >= 16 * call_.threads || call_.threads == 1 ? 1 : ceil_div(16 * call_.threads, items);
        const double row = double(longest_) * double(unit_ * h.stride * d.taps) * sizeof(T);
        band_ = std::min({h.output, std::max<int64_t>(ceil_div(h.output, bands), 8), std::max<int64_t>(int64_t((256 << 10) / row), 1)});
        if (flat_) band_ = h.output;
        if (rounds > 1) band_ = std::min(band_, std::max<int64_t>((16 << 10) / (length_ * int64_t(sizeof(T))), 1));
        sums_ = joined_ ? 1 : rounds > 1 ? band_ : 0;
    }
    // Slots for the input rows from the first to the last of any `outputs` rows, a power of two.
    int64_t rows_of(int64_t outputs) const {
        const PoolAxis& h = p_.axis[1];
        int64_t most = h.regular ? (outputs - 1) * h.stride + (h.taps - 1) * h.dilation + 1 : 1, slots = 1;
        for (int64_t o = 0; o < (h.regular ? 0 : h.output); ++o) {
            int64_t first = h.first[o], last = first;
            for (int64_t i = o; i < std::min(o + outputs, h.output); ++i)
                first = std::min(first, h.first[i]), last = std::max(last, h.first[i] + (h.count[i] - 1) * h.dilation);
            most = std::max(most, last - first + 1);
        }
        while (slots < most) slots *= 2;
        return slots;
    }

    Grid<6> items() const {
        return {{p_.batch, pixels_ ? 1 : p_.channels, p_.axis[0].output, blocks_, segments_, ceil_div(p_.axis[1].output, band_)}};
    }
    Crew crew() const {
        const int64_t own = slots_ * (pitch_ + deep_ * length_) + (sums_ + 2) * length_ + L;
        const int64_t divisors = does_.divides ? (even_ ? 0 : p_.axis[2].output * divisor_unit()) + 2 * L : 0;
        return pool_crew(p_, call_, items().count(), size_t(round_up(own * int64_t(sizeof(T)), 64)),
                         size_t(round_up(divisors * int64_t(sizeof(T)), 64)));
    }

    // ---- divisors

    int64_t divisor_unit() const { return slides_ ? unit_ : 1; }  // of pixels one by one, one is enough

    T divisor(int64_t o) const { return divides_by_axes() ? T(p_.axis[2].divisor[o]) : constant(); }
    // Averages that divide by a constant, and sums of powers that are not scaled, do not look at the axes' divisors.
    bool divides_by_axes() const { return (p_.operation == Pooling::average) == (p_.divisor == 0); }
    T constant() const { return p_.operation == Pooling::average ? T(p_.divisor) : T(1); }

    PoolProblem p_;
    PoolCall call_;
    View in_, out_;
    const Reduction<T>& does_;
    Norm<T> norm_;
    bool pixels_;    // channels lie side by side
    bool adjacent_;  // an output row's elements do
    bool prepares_;  // elements become powers first
    bool slides_;    // windows run on vectors of outputs
    bool joined_;    // rows come first
    bool bare_;      // rows are read where they lie, by vectors
    bool at_once_;   // all of a window of pixels
    bool past_;      // outputs are written past the caches
    bool flat_;      // rows of a plane as one
    bool pairs_;     // windows of two elements of short rows
    bool between_;   // of three inputs, one before and one behind their place
    bool fetches_;   // rows are copied first
    bool even_;      // all windows of a row have the same divisor
    bool shares_;    // outputs share what is in the ring
    bool follows_;   // and their rows follow each other without gaps
    bool straight_;  // windows of a row are outputs
    int64_t unit_, blocks_, segments_, longest_, most_;
    int64_t deep_;  // planes whose rows are joined at a time
    int64_t group_, slots_, round_, rounds_, band_, sums_, length_, pitch_;
    int64_t count_[2], divisor_[2];
    static constexpr int64_t nothing = 0, one = 1;
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
