// Pooling of small planes whose channels do not lie side by side: as many at a time as a vector has lanes, so that these are channels.
// A transposition of lanes x lanes elements costs 4 lanes shuffles; row by row, most lanes of a short row would be empty, and each row
// has its own beginning and end (3x3 over 8x2048x7x7: 1.0 -> 0.18 ms).
// Bottleneck: shuffles.
#pragma once
#include "pool_forward.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// Small planes: a vector's worth of them at a time, transposed, so that channels lie side by side.
template <class T>
class Turned {
   public:
    Turned(const PoolProblem& problem, const PoolCall& c, const Reduction<T>& reduction) : p_(problem), call_(c), does_(reduction) {
        inputs_ = p_.axis[0].input * p_.axis[1].input * p_.axis[2].input, outputs_ = p_.axis[0].output * p_.axis[1].output * p_.axis[2].output;
        groups_ = ceil_div(p_.channels, L);
    }

    static bool suits(const PoolProblem& p, const PoolCall& c) {
        constexpr int64_t most = (96 << 10) / vector_bytes;  // of inputs and of outputs: both stay in L2
        const PoolAxis *d = p.axis, *h = d + 1, *w = d + 2;
        if (p.channels < L / 2 || d->input * h->input * w->input > most || d->output * h->output * w->output > most) return false;
        const auto plain = [](const View& v, int64_t depth, int64_t height, int64_t width) {
            return (width == 1 || v.space[2] == 1) && (height == 1 || v.space[1] == width) && (depth == 1 || v.space[0] == height * width);
        };
        return plain(c.input, d->input, h->input, w->input) && plain(c.output, d->output, h->output, w->output);
    }

    size_t workspace_bytes() const { return crew().bytes(); }

    void run() const {
        const Crew crew = this->crew();
        const Grid<2> items{{p_.batch, groups_}};
        crew.share(items.count(), [&](int64_t part, const auto& each) {
            T* const inputs = reinterpret_cast<T*>(crew.own(part));
            T* const outputs = inputs + round_up(inputs_, L) * L;
            const Forward<T> all(inner_problem(), inner_call(inputs, outputs), does_);
            char* const memory = reinterpret_cast<char*>(outputs + round_up(outputs_, L) * L);
            each([&](int64_t begin, int64_t end) {
                items.each(begin, end, [&](const int64_t(&at)[2]) {
                    const int64_t channel = at[1] * L, channels = std::min(L, p_.channels - channel);
                    turn_in(plane(call_.input, at[0], channel), channels, inputs);
                    all.run_alone(memory);
                    turn_out(outputs, channels, plane(call_.output, at[0], channel));
                });
            });
        });
    }

   private:
    static constexpr int64_t L = lanes<T>;

    Crew crew() const {
        const size_t planes = size_t((round_up(inputs_, L) + round_up(outputs_, L)) * vector_bytes);
        const size_t rest = Forward<T>(inner_problem(), inner_call(nullptr, nullptr), does_).bytes_alone();
        return pool_crew(p_, call_, p_.batch * groups_, planes + rest, 0);
    }
    PoolProblem inner_problem() const {
        PoolProblem inner = p_;
        inner.batch = 1, inner.channels = L;
        return inner;
    }
    PoolCall inner_call(T* inputs, T* outputs) const {
        PoolCall inner = call_;
        const PoolAxis &h = p_.axis[1], &w = p_.axis[2];
        inner.input = {inputs, 0, 1, {h.input * w.input * L, w.input * L, L}};
        inner.output = {outputs, 0, 1, {h.output * w.output * L, w.output * L, L}};
        inner.threads = 1;
        return inner;
    }
    static T* plane(const View& v, int64_t batch, int64_t channel) { return static_cast<T*>(v.data) + batch * v.batch + channel * v.channel; }

    void turn_in(const T* from, int64_t channels, T* to) const {
        for (int64_t i = 0; i < inputs_; i += L) {
            const int64_t n = std::min(L, inputs_ - i);
            Vec<T> row[L];
            for (int64_t c = 0; c < L; ++c) row[c] = c < channels ? load_some(from + c * call_.input.channel + i, n) : Vec<T>{};
            transpose<T>(row);
            for (int64_t k = 0; k < L; ++k) store(to + (i + k) * L, row[k]);
        }
    }
    void turn_out(const T* from, int64_t channels, T* to) const {
        for (int64_t i = 0; i < outputs_; i += L) {
            const int64_t n = std::min(L, outputs_ - i);
            Vec<T> row[L];
            for (int64_t k = 0; k < L; ++k) row[k] = load(from + (i + k) * L);
            transpose<T>(row);
            for (int64_t c = 0; c < channels; ++c) {
                T* const at = to + c * call_.output.channel + i;
                if (n == L) store(at, row[c]);
                else store_first(at, row[c], n);
            }
        }
    }

    PoolProblem p_;
    PoolCall call_;
    const Reduction<T>& does_;
    int64_t inputs_, outputs_, groups_;  // of a plane; of planes, a vector's worth each
};

// Of the one window over all of a plane.
template <class T>
T whole_divisor(const PoolProblem& p) {
    if ((p.operation == Pooling::average) != (p.divisor == 0)) return p.operation == Pooling::average ? T(p.divisor) : T(1);
    return T(p.axis[0].divisor[0]) * T(p.axis[1].divisor[0]) * T(p.axis[2].divisor[0]);
}

// One window over all of a plane that lies in one piece: a vector's worth of planes at a time, whose sums, vectors, are transposed.
template <class T>
class Whole {
   public:
    Whole(const PoolProblem& problem, const PoolCall& c, const Reduction<T>& reduction) : p_(problem), call_(c), does_(reduction) {}

    static bool suits(const PoolProblem& p, const PoolCall& c) {
        if (p.operation == Pooling::lp) return false;
        constexpr int64_t most = 4096;  // of one long plane and few others the threads had too little to share
        int64_t size = 1;
        for (int a = max_axes - 1; a >= 0; --a) {
            const PoolAxis& axis = p.axis[a];
            if (axis.output > 1 || axis.count[0] < axis.input || (axis.dilation > 1 && axis.input > 1)) return false;
            if (axis.input > 1 && c.input.space[a] != size) return false;
            size *= axis.input;
        }
        return p.channels >= L / 2 && size <= most;
    }

    size_t workspace_bytes() const { return crew().bytes(); }

    void run() const {
        const Grid<2> items = this->items();
        const int64_t size = p_.axis[0].input * p_.axis[1].input * p_.axis[2].input;
        const T divisor = whole_divisor<T>(p_);
        crew().share(items.count(), [&](int64_t, const auto& each) {
            each([&](int64_t begin, int64_t end) {
                items.each(begin, end, [&](const int64_t(&at)[2]) { planes(at[0], at[1] * L, size, divisor); });
            });
        });
    }

   private:
    static constexpr int64_t L = lanes<T>;
    Grid<2> items() const { return {{p_.batch, ceil_div(p_.channels, L)}}; }
    Crew crew() const { return pool_crew(p_, call_, items().count(), 0, 0); }

    void planes(int64_t batch, int64_t channel, int64_t size, T divisor) const {
        const T* from = static_cast<const T*>(call_.input.data) + batch * call_.input.batch + channel * call_.input.channel;
        T* to = static_cast<T*>(call_.output.data) + batch * call_.output.batch + channel * call_.output.channel;
        T all[L];
        does_.planes(from, call_.input.channel, std::min(L, p_.channels - channel), size, all);
        if (does_.divides)
            for (T& each : all) each /= divisor;
        spread(to, call_.output.channel, all, std::min(L, p_.channels - channel));
    }

    PoolProblem p_;
    PoolCall call_;
    const Reduction<T>& does_;
};

// The same where channels lie side by side: a few vectors of them at a time, pixel by pixel, with nothing in between.
template <class T>
class WholePixels {
   public:
    WholePixels(const PoolProblem& problem, const PoolCall& c, const Reduction<T>& reduction) : p_(problem), call_(c), does_(reduction) {}

    static bool suits(const PoolProblem& p, const PoolCall& c) {
        if (p.operation == Pooling::lp) return false;
        constexpr int64_t most = 64;  // pixels: as many roundings as row by row
        int64_t pixels = 1, step = 0;
        for (int a = max_axes - 1; a >= 0; --a) {
            const PoolAxis& axis = p.axis[a];
            if (axis.output > 1 || axis.count[0] < axis.input || (axis.dilation > 1 && axis.input > 1)) return false;
            if (axis.input == 1) continue;
            if (pixels == 1) step = c.input.space[a];
            else if (c.input.space[a] != step * pixels) return false;
            pixels *= axis.input;
        }
        return channels_side_by_side(p, c.input, c.output) && pixels <= most;
    }

    size_t workspace_bytes() const { return crew().bytes(); }

    void run() const {
        const Grid<2> items = this->items();
        crew().share(items.count(), [&](int64_t, const auto& each) {
            each([&](int64_t begin, int64_t end) {
                items.each(begin, end, [&](const int64_t(&at)[2]) { some(at[0], at[1] * V * L); });
            });
        });
    }

   private:
    static constexpr int64_t L = lanes<T>, V = pixel_vectors;
    Grid<2> items() const { return {{p_.batch, ceil_div(p_.channels, V * L)}}; }
    Crew crew() const { return pool_crew(p_, call_, items().count(), 0, 0); }

    void some(int64_t batch, int64_t channel) const {
        int64_t pixels = 1, step = 0;
        for (int a = max_axes - 1; a >= 0; --a) {
            if (pixels == 1 && p_.axis[a].input > 1) step = call_.input.space[a];
            pixels *= p_.axis[a].input;
        }
        const T* from = static_cast<const T*>(call_.input.data) + batch * call_.input.batch + channel;
        T* to = static_cast<T*>(call_.output.data) + batch * call_.output.batch + channel;
        const int64_t n = std::min(V * L, p_.channels - channel);
        does_.whole_pixels(from, step, pixels, n, to);
        if (!does_.divides) return;
        const T divisor = whole_divisor<T>(p_);
        for (int64_t i = 0; i < n; ++i) to[i] /= divisor;
    }

    PoolProblem p_;
    PoolCall call_;
    const Reduction<T>& does_;
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
