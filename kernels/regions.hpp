// Where wide padding meets a wide dilation most taps of most outputs lie in the zeros (3x3 with dilation 24 over 33 x 33: three
// quarters). The outputs are cut into regions, each a problem of its own with the taps that any of its outputs has inside the input;
// the others' products are zeros, as long as the weights are finite. What is cut follows from sizes alone, so that batch and
// threads change no bit.
#pragma once
#include <algorithm>

#include "abi.hpp"

namespace fastconv {

// Outputs begin .. end - 1 along an axis, and their taps first .. last - 1: at least one.
struct Reach {
    int64_t begin, end, first, last;
};

// One axis, cut where a tap enters or leaves the input, unless pieces become so small that they cost more than they spare.
class AxisRegions {
   public:
    int64_t count = 1;

    AxisRegions() = default;
    AxisRegions(const Problem& p, int a, bool skips)
        : outputs_(p.output[a]), taps_(p.kernel[a]), stride_(p.stride[a]), dilation_(p.dilation[a]), pad_(p.pad_lo[a]),
          inputs_(p.input[a]), skips_(skips && taps_ > 1 && worth_a_look(std::max(p.pad_lo[a], p.pad_hi[a]))) {
        border_[0] = 0, border_[1] = outputs_;
        if (skips_) cut(), join();
    }

    bool whole() const { return count == 1 && at(0).last - at(0).first == taps_; }
    Reach at(int64_t i) const { return reach(border_[i], border_[i + 1]); }
    int64_t products() const {
        int64_t sum = 0;
        for (int64_t i = 0; i < count; ++i) sum += (at(i).end - at(i).begin) * (at(i).last - at(i).first);
        return sum;
    }

   private:
    static constexpr int64_t taps_seen = 8, most = 5;  // where borders are looked for; regions
    static constexpr int64_t overhead = 2;             // of a region, in outputs: its weights are read, its tiles are not full
    int64_t outputs_ = 1, taps_ = 1, stride_ = 1, dilation_ = 1, pad_ = 0, inputs_ = 1;
    bool skips_ = false;
    int64_t border_[2 * taps_seen + 2] = {0, 1};

    // The usual padding of small kernels is none.
    bool worth_a_look(int64_t padding) const { return padding > overhead * stride_ || (padding > 0 && outputs_ <= overhead); }

    Reach reach(int64_t begin, int64_t end) const {
        if (!skips_) return {begin, end, 0, taps_};
        const int64_t low = pad_ - (end - 1) * stride_, high = inputs_ - 1 + pad_ - begin * stride_;  // taps between are inside
        const int64_t first = low <= 0 ? 0 : std::min((low + dilation_ - 1) / dilation_, taps_ - 1);
        const int64_t last = high < 0 ? 0 : high / dilation_ + 1;
        return {begin, end, first, std::min(std::max(last, first + 1), taps_)};
    }
    int64_t cost(int64_t begin, int64_t end) const {
        const Reach r = reach(begin, end);
        return (r.end - r.begin + overhead) * (r.last - r.first);
    }

    void cut() {
        const auto first_output = [this](int64_t at) { return at <= 0 ? 0 : std::min((at + stride_ - 1) / stride_, outputs_); };
        int64_t n = 1;
        for (int64_t t = 0, step = (taps_ + taps_seen - 1) / taps_seen; t < taps_; t += step)
            for (int64_t from : {int64_t(0), inputs_}) border_[n++] = first_output(from + pad_ - t * dilation_);
        border_[n++] = outputs_;
        std::sort(border_, border_ + n);
        count = std::unique(border_, border_ + n) - border_ - 1;
    }

    // Neighbours become one again, those that gain least by being two first.
    void join() {
        while (count > 1) {
            int64_t least = INT64_MAX, at = 0;
            for (int64_t i = 1; i < count; ++i) {
                const int64_t begin = border_[i - 1], end = border_[i + 1];
                const int64_t more = cost(begin, end) - cost(begin, border_[i]) - cost(border_[i], end);
                if (more < least) least = more, at = i;
            }
            if (least > 0 && count <= most) return;
            std::copy(border_ + at + 1, border_ + count + 1, border_ + at);
            --count;
        }
    }
};

// One region as a problem and a call, and where its taps are in the kernel whose weights are packed.
struct Region {
    Problem p;
    Call call;
    int64_t kernel[max_axes], first[max_axes];

};

struct Regions {
    AxisRegions axis[max_axes];

    // finite: all weights are. Under "strict" the taps of a single channel are summed in pairs, and stay together.
    Regions(const Problem& p, bool finite) {
        const bool skips = finite && p.padding_mode == PaddingMode::zeros && !(p.strict && p.in_channels == 1);
        for (int a = 0; a < max_axes; ++a) axis[a] = AxisRegions(p, a, skips);
    }
    bool whole() const {
        return std::all_of(axis, axis + max_axes, [](const AxisRegions& a) { return a.whole(); });
    }
    int64_t count() const { return axis[0].count * axis[1].count * axis[2].count; }

    // Of the products of all outputs, those that are computed.
    static double computed(const Problem& p) {
        const Regions regions(p, true);
        double share = 1;
        for (int a = 0; a < max_axes; ++a) share *= double(regions.axis[a].products()) / double(p.kernel[a] * p.output[a]);
        return share;
    }

    Region at(const Problem& p, const Call& call, int64_t index) const {
        Region region{p, call, {}, {}};
        const int64_t itemsize = p.dtype == Dtype::float32 ? 4 : 8;
        for (int a = max_axes - 1; a >= 0; --a) {
            const Reach reach = axis[a].at(index % axis[a].count);
            index /= axis[a].count;
            region.kernel[a] = p.kernel[a], region.first[a] = reach.first;
            if (reach.end - reach.begin == p.output[a] && reach.last - reach.first == p.kernel[a]) continue;
            Problem& q = region.p;
            q.output[a] = reach.end - reach.begin, q.kernel[a] = reach.last - reach.first;
            const int64_t from = reach.begin * p.stride[a] - p.pad_lo[a] + reach.first * p.dilation[a];
            const int64_t span = (q.output[a] - 1) * p.stride[a] + (q.kernel[a] - 1) * p.dilation[a] + 1;
            const int64_t skipped = std::min(std::max<int64_t>(from, 0), p.input[a] - 1);
            q.pad_lo[a] = skipped - from;
            q.input[a] = std::min(std::max<int64_t>(span - q.pad_lo[a], 1), p.input[a] - skipped);
            q.pad_hi[a] = span - q.pad_lo[a] - q.input[a];
            shift(region.call.input, a, skipped * itemsize);
            shift(region.call.output, a, reach.begin * itemsize);
            shift(region.call.residual, a, reach.begin * itemsize);
        }
        return region;
    }

   private:
    static void shift(View& v, int a, int64_t bytes) {
        if (v.data) v.data = static_cast<char*>(v.data) + bytes * v.space[a];
    }
};

}  // namespace fastconv
