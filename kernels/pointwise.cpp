// Functions of single elements: result = f(input), or gradient f'(input). Floor: the bytes. See README.md.
#include "batch_norm.hpp"
#include "pointwise.hpp"
#include "softmax.hpp"

#include <cmath>

#include "epilogue.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

// Derivatives that are 0 on an interval: whatever the gradient is, infinite, too, there is none.
constexpr bool is_flat(Function f) { return f == Function::relu || f == Function::relu6 || f == Function::hardswish; }

// Those that take an exponential
constexpr bool is_curve(Function f) { return f > Function::leaky_relu && f < Function::hardswish; }
constexpr bool is_curved(Function f) { return is_curve(f) || f > Function::hardswish; }

template <Function F, class T>
FASTCONV_INLINE Vec<T> value_of(Vec<T> x, T slope) {
    if constexpr (F == Function::exp) return fastconv::FASTCONV_ISA::exp<T>(x);
    else if constexpr (F == Function::erf) return fastconv::FASTCONV_ISA::erf<T>(x);
    else return Activated<static_cast<Activation>(F), T>::value(x, slope);
}

template <Function F, class T>
FASTCONV_INLINE Vec<T> gradient_of(Vec<T> x, Vec<T> g, T slope) {
    if constexpr (F == Function::exp || F == Function::erf) return g;  // have none
    else {
        const Vec<T> slopes = Activated<static_cast<Activation>(F), T>::derivative(x, slope);
        if constexpr (is_flat(F)) return slopes == Vec<T>{} ? Vec<T>{} : g * slopes;
        return g * slopes;
    }
}

// The call's function on vectors.
template <Function F, bool Gradient, class T>
struct Of {
    T slope;
    static constexpr bool gradient = Gradient;
    FASTCONV_INLINE Vec<T> operator()(Vec<T> x, Vec<T> g) const {
        if constexpr (Gradient) return gradient_of<F, T>(x, g, slope);
        else return value_of<F, T>(x, slope);
    }
};

// The same with its tables in the registers of a loop.
template <Function F, bool Gradient, class T>
struct OfCurve {
    const Curve<static_cast<Activation>(F), Gradient, T> curve;
    FASTCONV_INLINE Vec<T> operator()(Vec<T> x, Vec<T> g) const { return Gradient ? g * curve(x) : curve(x); }
};
template <class F>
FASTCONV_INLINE const F& in_a_loop(const F& f) { return f; }
template <Function F, bool Gradient, class T, class = std::enable_if_t<is_curve(F)>>
FASTCONV_INLINE OfCurve<F, Gradient, T> in_a_loop(const Of<F, Gradient, T>&) { return {}; }

// leaky_relu with a slope that T cannot hold
template <bool Gradient, class T>
struct Leak {
    double slope;
    static constexpr bool gradient = Gradient;
    FASTCONV_INLINE Vec<T> operator()(Vec<T> x, Vec<T> g) const {
        if constexpr (Gradient) return x <= Vec<T>{} ? -leak_exactly<T>(-magnitude<T>(g), slope) * with_sign<T>(broadcast(T(1)), g) : g;
        else return leak_exactly<T>(x, slope);
    }
};

template <class T, class F>
FASTCONV_NOINLINE void run_adjacent(T* y, const T* x, const T* g, int64_t n, bool past, const F& given) {
    const auto f = in_a_loop(given);
    past = past && n >= 8 * lanes<T>;  // by_vectors: else it begins anywhere
    by_vectors(y, n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        store_some(y + i, f(load_some(x + i, count), F::gradient ? load_some(g + i, count) : Vec<T>{}), count, past);
    });
}

// The same with steps between the elements.
template <class T, class F>
FASTCONV_NOINLINE void run_apart(T* y, const T* x, const T* g, int64_t n, int64_t y_step, int64_t x_step, int64_t g_step, const F& f) {
    constexpr int L = lanes<T>;
    alignas(vector_bytes) T xs[L] = {}, gs[L] = {}, ys[L];
    for (int64_t i = 0; i < n; i += L) {
        const int64_t count = std::min<int64_t>(L, n - i);
        for (int64_t l = 0; l < count; ++l) xs[l] = x[(i + l) * x_step];
        if constexpr (F::gradient)
            for (int64_t l = 0; l < count; ++l) gs[l] = g[(i + l) * g_step];
        store(ys, f(load(xs), load(gs)));
        for (int64_t l = 0; l < count; ++l) y[(i + l) * y_step] = ys[l];
    }
}

// A call: pieces of rows, which are runs along the last axis.
template <class T, class F>
struct Running {
    static constexpr int64_t piece = 4096;  // elements
    const Elements& e;
    const F& f;
    const int last = e.axes - 1;
    const int64_t length = e.shape[last], pieces = (length + piece - 1) / piece;
    const int64_t *y_step = e.stride[Elements::result], *x_step = e.stride[Elements::input], *g_step = e.stride[Elements::gradient];
    const bool adjacent = y_step[last] == 1 && x_step[last] == 1 && (!F::gradient || g_step[last] == 1);
    const bool past = goes_past(e.size(), sizeof(T)) && e.data[Elements::input] != e.data[Elements::result] && length >= piece &&
                      (!F::gradient || e.data[Elements::gradient] != e.data[Elements::result]);

    void items(int64_t begin, int64_t end) const {
        while (begin < end) {
            const int64_t row = begin / pieces, first = begin % pieces, count = std::min(end - begin, pieces - first);
            int64_t y = 0, x = 0, g = 0, rest = row;
            for (int a = last - 1; a >= 0; rest /= e.shape[a--]) {
                const int64_t i = rest % e.shape[a];
                y += i * y_step[a], x += i * x_step[a], g += F::gradient ? i * g_step[a] : 0;
            }
            run(first * piece, std::min((first + count) * piece, length), y, x, g);
            begin += count;
        }
    }
    FASTCONV_INLINE void run(int64_t i, int64_t end, int64_t y, int64_t x, int64_t g) const {
        T* const to = static_cast<T*>(e.data[Elements::result]) + y + i * y_step[last];
        const T* const from = static_cast<const T*>(e.data[Elements::input]) + x + i * x_step[last];
        const T* const of = F::gradient ? static_cast<const T*>(e.data[Elements::gradient]) + g + i * g_step[last] : nullptr;
        if (adjacent) run_adjacent(to, from, of, end - i, past, f);
        else run_apart(to, from, of, end - i, y_step[last], x_step[last], F::gradient ? g_step[last] : 0, f);
    }
};

template <class T, class F>
void share(const Elements& e, const Team& team, const F& f) {
    const Running<T, F> running{e, f};
    const Crew crew = crew_of(team, double(e.size()) * sizeof(T) * (F::gradient ? 3 : 2), is_curved(e.function));
    crew.share(e.size() / running.length * running.pieces, [&](int64_t, const auto& each) {
        each([&](int64_t begin, int64_t end) { running.items(begin, end); });
        if (running.past) stored_past();
    });
}

template <bool Gradient, class T>
void by_function(const Elements& e, const Team& team) {
    const T slope = T(e.parameter);
    switch (e.function) {
#define FASTCONV_CASE(name) \
    case Function::name: return share<T>(e, team, Of<Function::name, Gradient, T>{slope})
        FASTCONV_CASE(relu);
        FASTCONV_CASE(relu6);
        FASTCONV_CASE(sigmoid);
        FASTCONV_CASE(tanh);
        FASTCONV_CASE(gelu);
        FASTCONV_CASE(gelu_tanh);
        FASTCONV_CASE(silu);
        FASTCONV_CASE(hardswish);
        FASTCONV_CASE(exp);
        FASTCONV_CASE(erf);
        case Function::leaky_relu:
            if (std::isnormal(slope)) return share<T>(e, team, Of<Function::leaky_relu, Gradient, T>{slope});
            return share<T>(e, team, Leak<Gradient, T>{e.parameter});
        case Function::none: return;
#undef FASTCONV_CASE
    }
}

void elements(const Elements& e, const Team& team) {
    if (e.size() == 0) return;
    if (e.dtype == Dtype::float32) (e.has_gradient ? by_function<true, float> : by_function<false, float>)(e, team);
    else (e.has_gradient ? by_function<true, double> : by_function<false, double>)(e, team);
}

}  // namespace

const Pointwise& pointwise() {
    static const Pointwise table = {
        elements,
        [](const Normalization& n, const Team& team) {
            n.dtype == Dtype::float32 ? BatchNorm<float>(n, team).forward() : BatchNorm<double>(n, team).forward();
        },
        [](const Normalization& n, const Team& team) {
            n.dtype == Dtype::float32 ? BatchNorm<float>(n, team).backward() : BatchNorm<double>(n, team).backward();
        },
        [](const Rows& rows, const Team& team) {
            rows.dtype == Dtype::float32 ? share_rows<float>(rows, team) : share_rows<double>(rows, team);
        }};
    return table;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
