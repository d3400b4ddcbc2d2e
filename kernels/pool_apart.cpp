// Gradients of poolings whose windows are apart: no input is in two of them, so that nothing is added up.
//
//   of averages   x'[taps of o] = y'[o] / divisors of o
//   of maxima     x'[the first of the largest] = y'[o], the others 0, found as in pool_indices.cpp, but not written down
//
// A window's row of outputs makes as many rows of inputs as it is high. Vectors run over the channels of a pixel, or, two inputs an
// output, along rows; all else comes one by one. Bottleneck: memory, and on short rows what is done once for each.
#include "pool.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

template <class T>
struct Average;

template <class T, class Op>
class Apart {
    static constexpr bool averages = std::is_same_v<Op, Average<T>>;
    static constexpr int64_t L = lanes<T>;
    using Int = typename VectorOf<T>::Int;
    using Places = typename VectorOf<T>::mask;

   public:
    Apart(const PoolProblem& problem, const PoolCall& c)
        : p_(problem), call_(c), from_(c.grad_output), to_(c.grad_input), in_(averages ? c.grad_input : c.input) {
        const PoolAxis& w = p_.axis[2];
        pixels_ = channels_side_by_side(p_, from_, to_) && in_.channel == 1;
        unit_ = pixels_ ? channels_at_a_time<T>(p_, p_.batch * p_.axis[0].output * p_.axis[1].output, c.threads) : 1;
        pairs_ = !pixels_ && w.taps == 2 && (w.stride == 2 || w.output == 1) && adjacent(from_, w.output) && adjacent(to_, w.input) &&
                 adjacent(in_, w.input);
        varied_ = !p_.divisor && std::any_of(w.divisor, w.divisor + w.output, [&](int64_t each) { return each != w.divisor[0]; });
        whole_ = 2 * w.output == w.input;
        const bool many = c.threads == 1 || p_.batch * p_.channels * p_.axis[0].output >= 4 * c.threads;  // planes
        even_ = pairs_ && whole_ && !varied_ && many && w.output <= 4 * L && covers(p_.axis[0]) && covers(p_.axis[1]);
        band_ = even_ ? p_.axis[1].output : 1;
    }

    size_t workspace_bytes() const { return crew().bytes(); }

    void run() const {
        const Crew crew = this->crew();
        const Grid<5> items = this->items();
        crew.share(items.count(), [&](int64_t part, const auto& each) {
            T* const memory = reinterpret_cast<T*>(crew.own(part));
            each([&](int64_t begin, int64_t end) { items.each(begin, end, [&](const auto& at) { even_ ? plane(at) : row(at, memory); }); });
        });
    }

   private:
    struct Rows {  // of a window: the first row's elements in the arrays, and how many there are
        const T *gradient, *input;
        T* to;
        int64_t depths, heights;
    };
    struct Range {
        int64_t begin, end;
    };
    static bool adjacent(const View& v, int64_t length) { return v.space[2] == 1 || length == 1; }

    Grid<5> items() const {
        return {{p_.batch, pixels_ ? 1 : p_.channels, p_.axis[0].output, p_.axis[1].output / band_, pixels_ ? ceil_div(p_.channels, unit_) : 1}};
    }
    Crew crew() const {
        const int64_t own = averages && !pixels_ ? round_up((p_.axis[2].input + 4 * L) * int64_t(sizeof(T)), 64) : 0;
        return pool_crew(p_, call_, items().count(), size_t(own), 0);
    }

    // The inputs from a window to the next, of the first and the last window all that is there.
    static Range slab(const PoolAxis& a, int64_t o) {
        return {o == 0 ? 0 : a.first[o], o + 1 == a.output ? a.input : a.first[o + 1]};
    }
    static bool within(const PoolAxis& a, int64_t o, int64_t input) { return input >= a.first[o] && input < a.first[o] + a.taps; }

    // Whether windows, all of which have the same divisor, are all of an axis.
    static bool covers(const PoolAxis& a) {
        const auto same = [&](int64_t each) { return each == a.divisor[0]; };
        return a.taps * a.output == a.input && std::all_of(a.divisor, a.divisor + a.output, same);
    }

    template <class Body>
    FASTCONV_INLINE void each_row(const Rows& rows, const Body& body) const {
        for (int64_t i = 0; i < rows.depths; ++i)
            for (int64_t j = 0; j < rows.heights; ++j) body(i * rows.heights + j, i * in_.space[0] + j * in_.space[1],
                                                            i * to_.space[0] + j * to_.space[1]);
    }

    void row(const int64_t (&at)[5], T* memory) const {
        const PoolAxis &d = p_.axis[0], &h = p_.axis[1];
        const int64_t batch = at[0], channel = at[1] + at[4] * unit_, od = at[2], oh = at[3];
        const int64_t units = pixels_ ? std::min(unit_, p_.channels - channel) : 1;
        T* const plane = static_cast<T*>(to_.data) + batch * to_.batch + channel * to_.channel;
        const Range depths = slab(d, od), heights = slab(h, oh);
        for (int64_t i = depths.begin; i < depths.end; ++i)
            for (int64_t j = heights.begin; j < heights.end; ++j)
                if (!within(d, od, i) || !within(h, oh, j)) clear(plane + i * to_.space[0] + j * to_.space[1], 0, p_.axis[2].input, units);
        const Rows rows{static_cast<const T*>(from_.data) + batch * from_.batch + channel * from_.channel + od * from_.space[0] + oh * from_.space[1],
                        static_cast<const T*>(in_.data) + batch * in_.batch + channel * in_.channel + d.first[od] * in_.space[0] + h.first[oh] * in_.space[1],
                        plane + d.first[od] * to_.space[0] + h.first[oh] * to_.space[1], d.taps, h.taps};
        clear_gaps(rows, units);
        if constexpr (averages) {
            const T weight = p_.divisor ? T(1) : 1 / (T(d.divisor[od]) * T(h.divisor[oh]));
            if (pixels_) return spread_pixels(rows, units, weight);
            return pairs_ && whole_ && !varied_ ? spread_in_pairs(rows, weight) : spread_row(rows, weight, memory);
        } else {
            if (pixels_) return find_in_pixels(rows, units);
            return pairs_ ? find_in_pairs(rows) : find(rows);
        }
    }

    void clear(T* to, int64_t begin, int64_t end, int64_t units) const {
        if (begin >= end) return;
        if (to_.space[2] == units) std::fill_n(to + begin * units, (end - begin) * units, T(0));
        else
            for (int64_t w = begin; w < end; ++w) std::fill_n(to + w * to_.space[2], units, T(0));
    }
    // What is between the windows of a row; of averages along rows `spread_row` does it.
    void clear_gaps(const Rows& rows, int64_t units) const {
        const PoolAxis& w = p_.axis[2];
        if (averages && !pixels_) return;
        const bool gaps = w.output > 1 && w.stride > w.taps;
        each_row(rows, [&](int64_t, int64_t, int64_t place) {
            T* const to = rows.to + place;
            clear(to, 0, w.first[0], units), clear(to, w.first[w.output - 1] + w.taps, w.input, units);
            for (int64_t o = 0; gaps && o + 1 < w.output; ++o) clear(to, w.first[o] + w.taps, w.first[o + 1], units);
        });
    }

    // ---- averages

    T divisor(int64_t o) const { return p_.divisor ? T(p_.divisor) : T(p_.axis[2].divisor[o]); }

    void spread_row(const Rows& rows, T weight, T* line) const {
        const PoolAxis& w = p_.axis[2];
        const int64_t covered = w.taps * w.output;
        if (covered < w.input) std::fill_n(line, w.input, T(0));
        T* const first = line + w.first[0];
        int64_t o = 0;
        if (pairs_ && !varied_)
            for (const Vec<T> by = broadcast(divisor(0)); o < w.output; o += L) {
                const int64_t n = std::min(L, w.output - o);
                const Vec<T> y = rounded((n == L ? load(rows.gradient + o) : load_first(rows.gradient + o, n)) * weight) / by;
                store(first + 2 * o, by_turns<T, false>(y, y));
                if (2 * n > L) store(first + 2 * o + L, by_turns<T, true>(y, y));
            }
        for (; o < w.output; ++o) std::fill_n(first + o * w.stride, w.taps, scaled(rows.gradient[o * from_.space[2]], weight, o));
        if (pairs_ && covered < w.input) std::fill(first + covered, line + w.input, T(0));  // beyond the last vector's lanes
        each_row(rows, [&](int64_t, int64_t, int64_t place) { spread(rows.to + place, to_.space[2], line, w.input); });
    }
    // Where windows of two cover the row, and all divisors are one.
    void spread_in_pairs(const Rows& rows, T weight) const {
        const Vec<T> by = broadcast(divisor(0));
        for (int64_t o = 0; o < p_.axis[2].output; o += L) {
            const int64_t n = std::min(L, p_.axis[2].output - o), first = std::min(2 * n, L), second = 2 * n - first;
            const Vec<T> y = rounded((n == L ? load(rows.gradient + o) : load_first(rows.gradient + o, n)) * weight) / by;
            const Vec<T> low = by_turns<T, false>(y, y), high = by_turns<T, true>(y, y);
            each_row(rows, [&](int64_t, int64_t, int64_t place) __attribute__((always_inline)) {
                put(rows.to + place + 2 * o, low, first);
                if (second) put(rows.to + place + 2 * o + L, high, second);
            });
        }
    }
    // All rows of outputs of a plane, where windows of two elements are all of it: what a short row costs by itself is the time.
    void plane(const int64_t (&at)[5]) const {
        const PoolAxis &d = p_.axis[0], &h = p_.axis[1], &w = p_.axis[2];
        const T* from = static_cast<const T*>(from_.data) + at[0] * from_.batch + at[1] * from_.channel + at[2] * from_.space[0];
        T* const to = static_cast<T*>(to_.data) + at[0] * to_.batch + at[1] * to_.channel + d.first[at[2]] * to_.space[0];
        if constexpr (averages) {
            const T weight = p_.divisor ? T(1) : 1 / (T(d.divisor[0]) * T(h.divisor[0])), by = divisor(0);
            for (int64_t i = 0; i < d.taps; ++i)
                for (int64_t o = 0; o < w.output; o += L)
                    spread_column(from + o, to + i * to_.space[0] + 2 * o, std::min(L, w.output - o), weight, by);
        } else {
            const T* input = static_cast<const T*>(in_.data) + at[0] * in_.batch + at[1] * in_.channel + d.first[at[2]] * in_.space[0];
            for (int64_t oh = 0; oh < h.output; ++oh, from += from_.space[1])
                find_in_pairs({from, input + h.first[oh] * in_.space[1], to + h.first[oh] * to_.space[1], d.taps, h.taps});
        }
    }
    // n outputs side by side of each row of a plane.
    FASTCONV_NOINLINE void spread_column(const T* from, T* to, int64_t n, T weight, T by) const {
        const int64_t rows = p_.axis[1].output, heights = p_.axis[1].taps, row = to_.space[1], below = from_.space[1];
        const int64_t first = std::min(2 * n, L), second = 2 * n - first;
        const Vec<T> divisors = broadcast(by);
        for (int64_t o = 0; o < rows; ++o, from += below) {
            const Vec<T> y = rounded((n == L ? load(from) : load_first(from, n)) * weight) / divisors;
            const Vec<T> low = by_turns<T, false>(y, y), high = by_turns<T, true>(y, y);
            for (int64_t j = 0; j < heights; ++j, to += row) {
                put(to, low, first);
                if (second) put(to + L, high, second);
            }
        }
    }
    T scaled(T gradient, T weight, int64_t o) const {
        return gradient * weight / divisor(o);
    }
    void spread_pixels(const Rows& rows, int64_t channels, T weight) const {
        const PoolAxis& w = p_.axis[2];
        for (int64_t o = 0; o < w.output; ++o) {
            const T* const from = rows.gradient + o * from_.space[2];
            for (int64_t c = 0; c < channels; c += L) {
                const int64_t n = std::min(L, channels - c);
                const Vec<T> y = rounded((n == L ? load(from + c) : load_first(from + c, n)) * weight) / divisor(o);
                each_row(rows, [&](int64_t, int64_t, int64_t place) {
                    for (int64_t j = 0; j < w.taps; ++j) put(rows.to + place + (w.first[o] + j) * to_.space[2] + c, y, n);
                });
            }
        }
    }
    static void put(T* to, Vec<T> values, int64_t n) { return n == L ? store(to, values) : store_first(to, values, n); }

    // ---- maxima and minima

    static Places all(int64_t place) { return Places{} + Int(place); }
    FASTCONV_INLINE static void take(Vec<T>& best, Places& found, Vec<T> x, int64_t place) {
        const Places beaten = Op::beats(x, best);
        best = beaten ? x : best, found = beaten ? all(place) : found;
    }
    FASTCONV_INLINE static Vec<T> only(Places found, int64_t place, Vec<T> gradient) { return found == all(place) ? gradient : Vec<T>{}; }

    void find(const Rows& rows) const {
        const PoolAxis& w = p_.axis[2];
        for (int64_t o = 0; o < w.output; ++o) {
            const int64_t begin = w.first[o];
            T best = rows.input[begin * in_.space[2]];
            int64_t found = 0;
            each_row(rows, [&](int64_t number, int64_t place, int64_t) {
                for (int64_t j = 0; j < w.taps; ++j) {
                    const T x = rows.input[place + (begin + j) * in_.space[2]];
                    if (Op::beats(x, best)) best = x, found = number * w.taps + j;
                }
            });
            each_row(rows, [&](int64_t number, int64_t, int64_t place) {
                for (int64_t j = 0; j < w.taps; ++j)
                    rows.to[place + (begin + j) * to_.space[2]] = found == number * w.taps + j ? rows.gradient[o * from_.space[2]] : T(0);
            });
        }
    }

    // Two inputs an output along w, side by side.
    void find_in_pairs(const Rows& rows) const {
        const PoolAxis& w = p_.axis[2];
        const T* const input = rows.input + w.first[0];
        T* const to = rows.to + w.first[0];
        for (int64_t o = 0; o < w.output; o += L) {
            const int64_t n = 2 * std::min(L, w.output - o), first = std::min(n, L), second = n - first;
            const auto half = [&](const T* at, int64_t count) { return count == L ? load(at) : load_first(at, count); };
            Vec<T> best = broadcast(Op::identity());
            Places found{};
            each_row(rows, [&](int64_t number, int64_t place, int64_t) __attribute__((always_inline)) {
                const T* const at = input + place + 2 * o;
                const Vec<T> a = half(at, first), b = second ? half(at + L, second) : Vec<T>{};
                take(best, found, every_other<T, 0>(a, b), 2 * number), take(best, found, every_other<T, 1>(a, b), 2 * number + 1);
            });
            const Vec<T> gradient = half(rows.gradient + o, n / 2);
            each_row(rows, [&](int64_t number, int64_t, int64_t place) __attribute__((always_inline)) {
                const Vec<T> even = only(found, 2 * number, gradient), odd = only(found, 2 * number + 1, gradient);
                put(to + place + 2 * o, by_turns<T, false>(even, odd), first);
                if (second) put(to + place + 2 * o + L, by_turns<T, true>(even, odd), second);
            });
        }
    }

    void find_in_pixels(const Rows& rows, int64_t channels) const {
        const PoolAxis& w = p_.axis[2];
        for (int64_t o = 0; o < w.output; ++o)
            for (int64_t c = 0; c < channels; c += L) {
                const int64_t n = std::min(L, channels - c);
                Vec<T> best = broadcast(Op::identity());
                Places found{};
                each_row(rows, [&](int64_t number, int64_t place, int64_t) __attribute__((always_inline)) {
                    for (int64_t j = 0; j < w.taps; ++j) {
                        const T* const at = rows.input + place + (w.first[o] + j) * in_.space[2] + c;
                        take(best, found, n == L ? load(at) : load_first(at, n), number * w.taps + j);
                    }
                });
                const T* const from = rows.gradient + o * from_.space[2] + c;
                const Vec<T> gradient = n == L ? load(from) : load_first(from, n);
                each_row(rows, [&](int64_t number, int64_t, int64_t place) __attribute__((always_inline)) {
                    for (int64_t j = 0; j < w.taps; ++j)
                        put(rows.to + place + (w.first[o] + j) * to_.space[2] + c, only(found, number * w.taps + j, gradient), n);
                });
            }
    }

    PoolProblem p_;
    PoolCall call_;
    View from_, to_, in_;
    bool pixels_, pairs_, varied_, whole_;  // whole_: pairs are all of a row
    bool even_;                             // and of a plane, with one divisor
    int64_t unit_, band_;                   // rows of outputs at a time
};

template <class Worker>
constexpr PoolKernel kernel{[](const PoolProblem& p, const PoolCall& call) { return Worker(p, call).workspace_bytes(); },
                            [](const PoolProblem& p, const PoolCall& call) {
                                Worker(p, call).run();
                                return true;
                            }};

template <class T>
const PoolKernel& of(const PoolProblem& p) {
    if (p.operation == Pooling::max) return kernel<Apart<T, Largest<T>>>;
    return p.operation == Pooling::min ? kernel<Apart<T, Smallest<T>>> : kernel<Apart<T, Average<T>>>;
}

}  // namespace

const PoolKernel& pool_apart_kernel(const PoolProblem& p) { return p.dtype == Dtype::float32 ? of<float>(p) : of<double>(p); }

}  // namespace FASTCONV_ISA
}  // namespace fastconv
