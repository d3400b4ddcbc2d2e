// Gradients of pooling.
//
// Of averages and lp, gathered, so that each input is one sum, in the order of the outputs, whoever computes it:
//
//   row[ow]       = (sum over the windows (od, oh) that reach (d, h) of y'[od][oh][ow] / (divisors of od, oh)) / divisor of ow
//   x'[d][h][w]   = sum over the windows ow that reach w of row[ow],  of lp times x^(p - 1)
//
// where y' of lp is multiplied by y^(1 - p) first. With a stride s along w each of s phases of the inputs is a sum of its own outputs side
// by side. Where the channels of a pixel lie side by side, elements are pixels of channels.
//
// By indices, of maxima: plane by plane, output by output; a thread has all channels and images that it writes to for itself.
// Bottleneck: memory; by indices the additions, of which each waits for the last to the same place.
#include <atomic>

#include "pool.hpp"
#include "pool_norm.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

enum Slope { average, norm_1, norm_2, norm_any };

template <class T, Slope S>
class Gradient {
   public:
    Gradient(const PoolProblem& problem, const PoolCall& c) : p_(problem), call_(c), from_(c.grad_output), to_(c.grad_input) {
        const PoolAxis& w = p_.axis[2];
        pixels_ = channels_side_by_side(p_, from_, to_) && (S == average || (c.input.channel == 1 && c.output.channel == 1));
        const int64_t rows = p_.batch * p_.axis[0].input * p_.axis[1].input;
        unit_ = pixels_ ? channels_at_a_time<T>(p_, rows, c.threads) : 1;
        blocks_ = pixels_ ? ceil_div(p_.channels, unit_) : 1;
        const bool whole = blocks_ == 1 && (!pixels_ || to_.space[2] == unit_ || w.input == 1);
        phases_ = !w.regular || !whole || (pixels_ && w.stride > 1) ? 0 : w.stride;
        if (phases_) {
            lowest_ = floor_div(-w.begin, phases_), highest_ = floor_div(w.input - 1 - w.begin, phases_);
            before_ = std::max<int64_t>(0, ceil_div(w.taps, phases_) - 1 - lowest_), behind_ = std::max<int64_t>(0, highest_ - w.output + 1);
        }
        gaps_ = S != average && has_gaps();
    }

    size_t workspace_bytes() const { return crew().bytes(); }

    void run() const {
        const Crew crew = this->crew();
        T* const divisors = reinterpret_cast<T*>(crew.common());
        fill_divisors(divisors);
        const Grid<5> items = this->items();
        crew.share(items.count(), [&](int64_t part, const auto& each) {
            const Part mine(crew.own(part), *this, divisors);
            each([&](int64_t begin, int64_t end) { items.each(begin, end, [&](const auto& at) { row(at, mine); }); });
        });
    }

   private:
    static constexpr int64_t L = lanes<T>;
    struct Part {  // memory of a thread
        T *sums, *phase, *inputs;
        const T* divisors;
        Part(char* memory, const Gradient& g, const T* d)
            : sums(reinterpret_cast<T*>(memory)), phase(sums + g.sums_length()), inputs(phase + 2 * g.phase_length()), divisors(d) {}
    };
    struct Range {
        int64_t begin, end;
    };
    static int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

    // The windows of an axis that reach an input; its dilation is 1.
    static Range reaching(const PoolAxis& a, int64_t input) {
        if (a.regular) {
            const int64_t y = input - a.begin, last = floor_div(y, a.stride), first = floor_div(y - a.taps, a.stride) + 1;
            return {std::max<int64_t>(first, 0), std::max(std::min(last + 1, a.output), std::max<int64_t>(first, 0))};
        }
        int64_t begin = 0, end = a.output;  // the first whose last tap is not before it
        while (begin < end) {
            const int64_t middle = (begin + end) / 2;
            if (a.first[middle] + a.count[middle] - 1 < input) begin = middle + 1;
            else end = middle;
        }
        return {begin, std::max<int64_t>(std::upper_bound(a.first, a.first + a.output, input) - a.first, begin)};
    }
    bool has_gaps() const {
        for (int64_t w = 0; w < p_.axis[2].input; ++w) {
            const Range reach = reaching(p_.axis[2], w);
            if (reach.begin == reach.end) return true;
        }
        return false;
    }

    int64_t sums_length() const { return round_up((before_ + p_.axis[2].output + behind_) * unit_ + 4 * L, L); }
    int64_t phase_length() const { return phases_ > 1 ? round_up(highest_ - lowest_ + 1 + 4 * L, L) : 0; }
    int64_t inputs_length() const { return round_up(std::max(p_.axis[2].input, (highest_ - lowest_ + 1) * phases_) * unit_ + 4 * L, L); }
    Grid<5> items() const { return {{p_.batch, pixels_ ? 1 : p_.channels, p_.axis[0].input, p_.axis[1].input, blocks_}}; }
    Crew crew() const {
        const size_t own = size_t(round_up((sums_length() + 2 * phase_length() + inputs_length()) * int64_t(sizeof(T)), 64));
        const int64_t divisors = p_.axis[2].output * unit_ + 2 * L;
        return pool_crew(p_, call_, items().count(), own, size_t(round_up(divisors * int64_t(sizeof(T)), 64)));
    }

    // Averages by a constant, and powers that are not scaled, do not look at the divisors.
    bool by_axes() const { return (S == average) == (p_.divisor == 0); }
    void fill_divisors(T* to) const {
        const PoolAxis& w = p_.axis[2];
        for (int64_t o = 0; o < w.output; ++o) std::fill_n(to + o * unit_, unit_, divisor(o));
        std::fill_n(to + w.output * unit_, 2 * L, T(1));
    }
    T divisor(int64_t o) const {
        if (S == average) return by_axes() ? T(p_.axis[2].divisor[o]) : T(p_.divisor);
        return by_axes() ? T(double(p_.axis[2].divisor[o]) / p_.divisor) : T(1);
    }

    static T* at(const View& v, int64_t batch, int64_t channel, int64_t d, int64_t h) {
        return static_cast<T*>(v.data) + batch * v.batch + channel * v.channel + d * v.space[0] + h * v.space[1];
    }

    void row(const int64_t (&at_)[5], const Part& mine) const {
        const PoolAxis &d = p_.axis[0], &h = p_.axis[1], &w = p_.axis[2];
        const int64_t channel = at_[1] + at_[4] * unit_, units = pixels_ ? std::min(unit_, p_.channels - channel) : 1;
        const Range ds = reaching(d, at_[2]), hs = reaching(h, at_[3]);
        T* const to = at(to_, at_[0], channel, at_[2], at_[3]);
        if (ds.begin == ds.end || hs.begin == hs.end) return clear_row(to, units);
        T* const sums = mine.sums + before_ * units;
        std::fill_n(mine.sums, before_ * units, T(0));
        std::fill_n(sums + w.output * units, behind_ * units, T(0));
        bool first = true;
        for (int64_t od = ds.begin; od < ds.end; ++od)
            for (int64_t oh = hs.begin; oh < hs.end; ++oh, first = false) {
                const T weight = by_axes() ? 1 / (T(d.divisor[od]) * T(h.divisor[oh])) : T(1);
                const T* y = S == average ? nullptr : at(call_.output, at_[0], channel, od, oh);
                add_row(at(from_, at_[0], channel, od, oh), y, units, weight, first, sums);
            }
        divide(sums, units, mine.divisors);
        const bool straight = S == average && (to_.space[2] == units || w.input == 1);
        T* const inputs = straight && phases_ <= 1 ? to : mine.inputs;
        const T* const made = phases_ ? by_phases(mine, units, inputs) : by_pixels(sums, units, inputs);
        if (S != average) multiply(const_cast<T*>(made), at(call_.input, at_[0], channel, at_[2], at_[3]), units);
        if (made != to) put_row(to, made, units);
    }
    void divide(T* sums, int64_t units, const T* divisors) const {
        const int64_t pixels = p_.axis[2].output, count = pixels * units;
        if (units < unit_) {  // the last channels
            for (int64_t i = 0; i < count; ++i) sums[i] /= divisors[i / units * unit_];
            return;
        }
        int64_t i = 0;
        for (; i + L <= count; i += L) store(sums + i, load(sums + i) / load(divisors + i));
        if (i < count) store_first(sums + i, load(sums + i) / load(divisors + i), count - i);
    }

    void clear_row(T* to, int64_t units) const {
        for (int64_t w = 0; w < p_.axis[2].input; ++w) std::fill_n(to + w * to_.space[2], units, T(0));
    }
    void put_row(T* to, const T* made, int64_t units) const {
        if (units == 1) return spread(to, to_.space[2], made, p_.axis[2].input);
        for (int64_t w = 0; w < p_.axis[2].input; ++w) copy(to + w * to_.space[2], made + w * units, units);
    }

    // sums (+)= y' weight, of lp times y^(1 - p), or times 0 where y is
    void add_row(const T* gradient, const T* y, int64_t units, T weight, bool first, T* sums) const {
        const int64_t pixels = p_.axis[2].output, step = from_.space[2], y_step = S == average ? 0 : call_.output.space[2];
        const bool one = (step == units && (S == average || y_step == units)) || pixels == 1;
        for (int64_t o = 0; o < (one ? 1 : pixels); ++o) {
            const T* g = gradient + o * step;
            const T* out = y + o * y_step;
            T* to = sums + o * units;
            const int64_t n = one ? pixels * units : units;
            int64_t i = 0;
            for (; i + L <= n; i += L) {
                const Vec<T> more = rounded(sloped(load(g + i), S == average ? Vec<T>{} : load(out + i)) * weight);
                store(to + i, first ? more : load(to + i) + more);
            }
            if (i == n) continue;
            const Vec<T> more = rounded(sloped(load_first(g + i, n - i), S == average ? Vec<T>{} : load_first(out + i, n - i)) * weight);
            store_first(to + i, first ? more : load_first(to + i, n - i) + more, n - i);
        }
    }
    Vec<T> sloped(Vec<T> gradient, Vec<T> y) const {
        if constexpr (S == average) return gradient;
        else if constexpr (S == norm_1) return y != 0 ? gradient : gradient * T(0);
        else if constexpr (S == norm_2) return y != 0 ? gradient / y : gradient * T(0);
        else return gradient * (y != 0 ? power<T>(y, T(1 - p_.norm)) : Vec<T>{});
    }

    // Inputs of phase f are f + m s + begin, of outputs m - q where f + q s is a tap.
    const T* by_phases(const Part& mine, int64_t units, T* inputs) const {
        const PoolAxis& w = p_.axis[2];
        const int64_t count = highest_ - lowest_ + 1;
        if (phases_ == 1) {
            const T* row = mine.sums + (before_ + lowest_ - (w.taps - 1)) * units;
            slide<T, Sum<T>, 0>(row, w.taps, units, w.input * units, {1, 0, 0}, inputs);
            return inputs;
        }
        const int64_t length = phase_length();
        for (int64_t f = 0; f < phases_; ++f) {
            const int64_t taps = f < w.taps ? (w.taps - 1 - f) / phases_ + 1 : 0;
            T* const phase = mine.phase + (phases_ == 2 ? f * length : 0);
            if (taps == 0) std::fill_n(phase, count, T(0));
            else slide<T, Sum<T>, 0>(mine.sums + before_ + lowest_ - (taps - 1), taps, 1, count, {1, 0, 0}, phase);
            if (phases_ > 2)
                for (int64_t m = 0; m < count; ++m) inputs[m * phases_ + f] = phase[m];
        }
        if (phases_ == 2)
            for (int64_t m = 0; m < count; m += L) {
                const Vec<T> a = load(mine.phase + m), b = load(mine.phase + length + m);
                store(inputs + 2 * m, by_turns<T, false>(a, b)), store(inputs + 2 * m + L, by_turns<T, true>(a, b));
            }
        return inputs + (-w.begin - lowest_ * phases_);
    }
    const T* by_pixels(const T* sums, int64_t units, T* inputs) const {
        const PoolAxis& w = p_.axis[2];
        for (int64_t i = 0; i < w.input; ++i) {
            const Range reach = reaching(w, i);
            const int64_t outputs = reach.end - reach.begin;
            if (units > 1) {
                if (outputs == 0) std::fill_n(inputs + i * units, units, T(0));
                else slide_pixels<T, Sum<T>>(&sums, 1, {&reach.begin, &outputs, units, units, units, 1, nullptr, 1, units}, inputs + i * units);
                continue;
            }
            inputs[i] = 0;
            for (int64_t o = reach.begin; o < reach.end; ++o) inputs[i] += sums[o];
        }
        return inputs;
    }

    // gradient *= x^(p - 1), but for what no window reaches
    void multiply(T* gradient, const T* x, int64_t units) const {
        if (S == norm_1) return;
        const int64_t step = call_.input.space[2];
        for (int64_t w = 0; w < p_.axis[2].input; ++w, gradient += units) {
            if (gaps_) {
                const Range reach = reaching(p_.axis[2], w);
                if (reach.begin == reach.end) continue;
            }
            for (int64_t c = 0; c < units; ++c) {
                const T each = x[w * step + c];
                gradient[c] *= S == norm_2 ? each : power(each, T(p_.norm - 1));
            }
        }
    }

    PoolProblem p_;
    PoolCall call_;
    View from_, to_;
    bool pixels_, gaps_;
    int64_t unit_, blocks_;
    int64_t phases_;                          // 0: inputs come one by one
    int64_t lowest_ = 0, highest_ = -1;       // m
    int64_t before_ = 0, behind_ = 0;         // zeros around the outputs of a row
};

// ---- by indices

template <class T, bool Add>
class Scatter {
   public:
    Scatter(const PoolProblem& problem, const PoolCall& c)
        : p_(problem), call_(c), from_(c.grad_output), to_(c.grad_input), places_(c.indices) {
        pixels_ = channels_side_by_side(p_, from_, to_) && places_.channel == 1;
        unit_ = pixels_ ? channels_at_a_time<T>(p_, p_.batch, c.threads) : 1;
        const PoolAxis &h = p_.axis[1], &w = p_.axis[2];
        step_ = w.input > 1 ? to_.space[2] : h.input > 1 ? to_.space[1] : to_.space[0];
        even_ = (w.input == 1 || h.input == 1 || to_.space[1] == w.input * to_.space[2]) &&
                (p_.axis[0].input == 1 || h.input * w.input == 1 || to_.space[0] == h.input * w.input * step_);
    }

    size_t workspace_bytes() const { return crew().bytes(); }

    bool run() const {
        std::atomic<bool> inside{true};
        const Grid<3> items = this->items();
        crew().share(items.count(), [&](int64_t, const auto& each) {
            each([&](int64_t begin, int64_t end) {
                items.each(begin, end, [&](const auto& at) {
                    if (!plane(at)) inside.store(false, std::memory_order_relaxed);
                });
            });
        });
        return inside.load(std::memory_order_relaxed);
    }

   private:
    Grid<3> items() const { return {{p_.batch, pixels_ ? 1 : p_.channels, pixels_ ? ceil_div(p_.channels, unit_) : 1}}; }
    Crew crew() const { return pool_crew(p_, call_, items().count(), 0, 0); }

    // One plane, or those of some channels; false: an index was outside.
    bool plane(const int64_t (&at)[3]) const {
        const int64_t channel = at[1] + at[2] * unit_, units = pixels_ ? std::min(unit_, p_.channels - channel) : 1;
        const PoolAxis &d = p_.axis[0], &h = p_.axis[1], &w = p_.axis[2];
        const T* from = static_cast<const T*>(from_.data) + at[0] * from_.batch + channel * from_.channel;
        const int64_t* places = static_cast<const int64_t*>(places_.data) + at[0] * places_.batch + channel * places_.channel;
        T* const to = static_cast<T*>(to_.data) + at[0] * to_.batch + channel * to_.channel;
        clear_plane(to, units);
        const uint64_t size = uint64_t(d.input * h.input * w.input);
        bool inside = true;
        for (int64_t od = 0; od < d.output; ++od)
            for (int64_t oh = 0; oh < h.output; ++oh) {
                const T* y = from + od * from_.space[0] + oh * from_.space[1];
                const int64_t* place = places + od * places_.space[0] + oh * places_.space[1];
                if (units == 1 && even_) {
                    inside &= row(y, place, w.output, size, to);
                    continue;
                }
                for (int64_t ow = 0; ow < w.output; ++ow, y += from_.space[2], place += places_.space[2])
                    for (int64_t c = 0; c < units; ++c) {
                        if (uint64_t(place[c]) >= size) inside = false;
                        else if (Add) to[offset(place[c]) + c] += y[c];
                        else to[offset(place[c]) + c] = y[c];
                    }
            }
        return inside;
    }
    bool row(const T* y, const int64_t* place, int64_t n, uint64_t size, T* to) const {
        const int64_t y_step = from_.space[2], place_step = places_.space[2], step = step_;
        bool inside = true;
        for (int64_t i = 0; i < n; ++i, y += y_step, place += place_step) {
            if (uint64_t(*place) >= size) inside = false;
            else if (Add) to[*place * step] += *y;
            else to[*place * step] = *y;
        }
        return inside;
    }
    FASTCONV_INLINE int64_t offset(int64_t place) const {
        if (even_) return place * step_;
        const int64_t h = p_.axis[1].input, w = p_.axis[2].input, row = place / w;
        return row / h * to_.space[0] + row % h * to_.space[1] + place % w * to_.space[2];
    }
    void clear_plane(T* to, int64_t units) const {
        const PoolAxis &d = p_.axis[0], &h = p_.axis[1], &w = p_.axis[2];
        if (even_ && step_ == units) {
            std::fill_n(to, d.input * h.input * w.input * units, T(0));
            return;
        }
        for (int64_t i = 0; i < d.input; ++i)
            for (int64_t j = 0; j < h.input; ++j)
                for (int64_t k = 0; k < w.input; ++k)
                    std::fill_n(to + i * to_.space[0] + j * to_.space[1] + k * to_.space[2], units, T(0));
    }

    PoolProblem p_;
    PoolCall call_;
    View from_, to_, places_;
    bool pixels_, even_;  // channels lie side by side; inputs of a plane are `step_` apart, in order
    int64_t unit_, step_;
};

template <class Worker>
constexpr PoolKernel gathers{[](const PoolProblem& p, const PoolCall& call) { return Worker(p, call).workspace_bytes(); },
                             [](const PoolProblem& p, const PoolCall& call) {
                                 Worker(p, call).run();
                                 return true;
                             }};
template <class Worker>
constexpr PoolKernel scatters{[](const PoolProblem& p, const PoolCall& call) { return Worker(p, call).workspace_bytes(); },
                              [](const PoolProblem& p, const PoolCall& call) { return Worker(p, call).run(); }};

template <class T>
PoolKernel gradient_of(const PoolProblem& p) {
    if (p.operation == Pooling::average) return gathers<Gradient<T, average>>;
    if (p.norm == 1) return gathers<Gradient<T, norm_1>>;
    return p.norm == 2 ? gathers<Gradient<T, norm_2>> : gathers<Gradient<T, norm_any>>;
}
PoolKernel any_gradient(const PoolProblem& p) {
    if (p.operation != Pooling::lp && are_apart(p)) return pool_apart_kernel(p);
    return p.dtype == Dtype::float32 ? gradient_of<float>(p) : gradient_of<double>(p);
}
template <bool Add>
PoolKernel any_scatter(const PoolProblem& p) {
    return p.dtype == Dtype::float32 ? scatters<Scatter<float, Add>> : scatters<Scatter<double, Add>>;
}

template <PoolKernel (*Any)(const PoolProblem&)>
constexpr PoolKernel chosen{[](const PoolProblem& p, const PoolCall& call) { return Any(p).workspace_bytes(p, call); },
                            [](const PoolProblem& p, const PoolCall& call) { return Any(p).run(p, call); }};

}  // namespace

const PoolKernel& pool_gradient_kernel() {
    static const PoolKernel kernel = chosen<any_gradient>;
    return kernel;
}
const PoolKernel& pool_add_kernel() {
    static const PoolKernel kernel = chosen<any_scatter<true>>;
    return kernel;
}
const PoolKernel& pool_put_kernel() {
    static const PoolKernel kernel = chosen<any_scatter<false>>;
    return kernel;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
