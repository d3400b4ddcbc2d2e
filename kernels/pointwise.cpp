// Functions of single elements: result = f(input), or gradient f'(input). Floor: the bytes. See README.md.
#include "batch_norm.hpp"
#include "layer_norm.hpp"
#include "pointwise.hpp"
#include "softmax.hpp"
#include "update.hpp"

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
    const T slope;
    explicit Of(double parameter) : slope(T(parameter)) {}
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
    const double slope;
    explicit Leak(double parameter) : slope(parameter) {}
    static constexpr bool gradient = Gradient;
    FASTCONV_INLINE Vec<T> operator()(Vec<T> x, Vec<T> g) const {
        if constexpr (Gradient) return x <= Vec<T>{} ? -leak_exactly<T>(-magnitude<T>(g), slope) * with_sign<T>(broadcast(T(1)), g) : g;
        else return leak_exactly<T>(x, slope);
    }
};

// What a function is compiled to: one loop over n elements, whole vectors of them; past the caches if `past`, where y begins at a line.
template <class T>
using Loop = void (*)(T* y, const T* x, const T* g, int64_t n, double parameter, bool past);

template <class T, class F>
void loop_of(T* y, const T* x, const T* g, int64_t n, double parameter, bool past) {
    const F given(parameter);
    const auto f = in_a_loop(given);
    for (int64_t i = 0; i < n; i += lanes<T>) {
        asm("" : "+r"(past));  // or there are two loops, which differ in nothing else
        store_past(y + i, f(load(x + i), F::gradient ? load(g + i) : Vec<T>{}), past);
    }
}

// A call: pieces of rows, which are runs along the last axis.
template <class T>
struct Running {
    static constexpr int L = lanes<T>;
    static constexpr int64_t piece = 4096;  // elements
    const Elements& e;
    const Loop<T> loop;
    const int last = e.axes - 1;
    const bool gradient = e.has_gradient;
    const int64_t length = e.shape[last], pieces = (length + piece - 1) / piece;
    const int64_t *y_step = e.stride[Elements::result], *x_step = e.stride[Elements::input], *g_step = e.stride[Elements::gradient];
    const bool adjacent = y_step[last] == 1 && x_step[last] == 1 && (!gradient || g_step[last] == 1);
    const bool past = goes_past(e.size(), sizeof(T)) && e.data[Elements::input] != e.data[Elements::result] && length >= piece &&
                      (!gradient || e.data[Elements::gradient] != e.data[Elements::result]);

    void items(int64_t begin, int64_t end) const {
        while (begin < end) {
            const int64_t row = begin / pieces, first = begin % pieces, count = std::min(end - begin, pieces - first);
            int64_t y = 0, x = 0, g = 0, rest = row;
            for (int a = last - 1; a >= 0; rest /= e.shape[a--]) {
                const int64_t i = rest % e.shape[a];
                y += i * y_step[a], x += i * x_step[a], g += gradient ? i * g_step[a] : 0;
            }
            run(first * piece, std::min((first + count) * piece, length), y, x, g);
            begin += count;
        }
    }
    void run(int64_t i, int64_t end, int64_t y, int64_t x, int64_t g) const {
        T* const to = static_cast<T*>(e.data[Elements::result]) + y + i * y_step[last];
        const T* const from = static_cast<const T*>(e.data[Elements::input]) + x + i * x_step[last];
        const T* const of = gradient ? static_cast<const T*>(e.data[Elements::gradient]) + g + i * g_step[last] : nullptr;
        (this->*(adjacent ? &Running::run_adjacent : &Running::run_apart))(to, from, of, end - i);
    }
    // Stores begin at a line, unless the run is short: a vector that lies in two lines takes twice as long.
    void run_adjacent(T* y, const T* x, const T* g, int64_t n) const {
        int64_t i = 0;
        if (n >= 8 * L) {
            i = int64_t(-reinterpret_cast<uintptr_t>(y) % vector_bytes / sizeof(T));
            if (i) run_few(y, x, g, i);
        }
        const auto gradients = [&] { return gradient ? g + i : nullptr; };
        const int64_t whole = (n - i) / L * L;
        loop(y + i, x + i, gradients(), whole, e.parameter, past && n >= 8 * L);
        i += whole;
        if (i < n) run_few(y + i, x + i, gradients(), n - i);
    }
    // n < L elements, through a vector on the stack
    void run_few(T* y, const T* x, const T* g, int64_t n) const {
        alignas(vector_bytes) T xs[L], gs[L], ys[L];
        store(xs, load_first(x, n));
        if (gradient) store(gs, load_first(g, n));
        loop(ys, xs, gs, L, e.parameter, false);
        store_first(y, load(ys), n);
    }
    // With steps between the elements: through vectors on the stack.
    void run_apart(T* y, const T* x, const T* g, int64_t n) const {
        constexpr int64_t most = 2048 / sizeof(T);
        alignas(vector_bytes) T xs[most] = {}, gs[most] = {}, ys[most];
        for (int64_t i = 0; i < n; i += most) {
            const int64_t count = std::min(most, n - i);
            for (int64_t l = 0; l < count; ++l) xs[l] = x[(i + l) * x_step[last]];
            if (gradient)
                for (int64_t l = 0; l < count; ++l) gs[l] = g[(i + l) * g_step[last]];
            loop(ys, xs, gs, (count + L - 1) / L * L, e.parameter, false);
            for (int64_t l = 0; l < count; ++l) y[(i + l) * y_step[last]] = ys[l];
        }
    }
};

template <bool Gradient, class T>
Loop<T> loop_by_name(const Elements& e) {
    switch (e.function) {
#define FASTCONV_CASE(name) \
    case Function::name: return loop_of<T, Of<Function::name, Gradient, T>>
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
            if (std::isnormal(T(e.parameter))) return loop_of<T, Of<Function::leaky_relu, Gradient, T>>;
            return loop_of<T, Leak<Gradient, T>>;
        case Function::none: break;
#undef FASTCONV_CASE
    }
    return nullptr;
}

template <class T>
void share_elements(const Elements& e, const Team& team) {
    const Running<T> running{e, (e.has_gradient ? loop_by_name<true, T> : loop_by_name<false, T>)(e)};
    if (!running.loop) return;
    const Crew crew = crew_of(team, double(e.size()) * sizeof(T) * (running.gradient ? 3 : 2), is_curved(e.function));
    crew.share(e.size() / running.length * running.pieces, [&](int64_t, const auto& each) {
        each([&](int64_t begin, int64_t end) { running.items(begin, end); });
        if (running.past) stored_past();
    });
}

template <bool Gradient>
void batch_norm(const Normalization& n, const Team& team) {
    const auto run = [](const auto& of) { Gradient ? of.backward() : of.forward(); };
    if (n.dtype == Dtype::float32) n.rectifies ? run(BatchNorm<float, true>(n, team)) : run(BatchNorm<float, false>(n, team));
    else n.rectifies ? run(BatchNorm<double, true>(n, team)) : run(BatchNorm<double, false>(n, team));
}

template <class T>
void layer_norm_of(const LayerNormalization& n, const Team& team) {
    const LayerNorm<T> of(n, team);
    n.gradient ? of.backward() : of.forward();
}

void elements(const Elements& e, const Team& team) {
    if (e.size() == 0) return;
    (e.dtype == Dtype::float32 ? share_elements<float> : share_elements<double>)(e, team);
}

}  // namespace

const Pointwise& pointwise() {
    static const Pointwise table = {
        elements,
        batch_norm<false>,
        batch_norm<true>,
        [](const LayerNormalization& n, const Team& team) {
            n.dtype == Dtype::float32 ? layer_norm_of<float>(n, team) : layer_norm_of<double>(n, team);
        },
        [](const Rows& rows, const Team& team) {
            rows.dtype == Dtype::float32 ? share_rows<float>(rows, team) : share_rows<double>(rows, team);
        },
        [](const Update& u, const Team& team) {
            u.dtype == Dtype::float32 ? share_update<float>(u, team) : share_update<double>(u, team);
        }};
    return table;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
