// The tables of piecewise.hpp: on each interval the polynomial that has the function's values at Chebyshev's points, made in double when
// the module is loaded (2,000 values, 0.2 ms).
#include "piecewise.hpp"

#if defined(__AVX512F__)
#include <cmath>

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

constexpr double root_half = 0.70710678118654752, density = 0.39894228040143268, scale = 1.5957691216057308, cube = 0.044715;

double logistic(double x) { return 1 / (1 + std::exp(-x)); }
double normal(double x) { return 0.5 * std::erfc(-root_half * x); }

// At -a where the function is 1 or x less at a; all are smooth at 0.
double value(Piecewise which, double a) {
    const double s = logistic(-a), u = scale * (a + cube * a * a * a);
    switch (which) {
        case Piecewise::sigmoid: return s;
        case Piecewise::gelu: return normal(-a);
        case Piecewise::gelu_tanh: return logistic(-u);
        case Piecewise::tanh: return std::tanh(a) / a;  // even
        case Piecewise::d_sigmoid: return s * logistic(a);
        case Piecewise::d_tanh: return 4 * logistic(-2 * a) * logistic(2 * a);
        case Piecewise::d_gelu: return normal(-a) - a * density * std::exp(-a * a / 2);
        case Piecewise::d_gelu_tanh: return logistic(-u) * (1 - a * logistic(u) * scale * (1 + 3 * cube * a * a));
        case Piecewise::d_silu: return s * (1 - a * logistic(a));
        case Piecewise::tables: break;
    }
    return 0;
}

constexpr int most = Pieces::most_degree + 1;

void fit(Piecewise which, double middle, double half, double (&c)[most]) {
    const int n = degree_of(which) + 1;
    double at[most], divided[most];
    for (int i = 0; i < n; ++i) {
        at[i] = half * std::cos(M_PI * (2 * i + 1) / (2 * n));
        divided[i] = value(which, middle + at[i]);
    }
    for (int order = 1; order < n; ++order)  // Newton's divided differences
        for (int i = n - 1; i >= order; --i) divided[i] = (divided[i] - divided[i - 1]) / (at[i] - at[i - order]);
    for (double& each : c) each = 0;
    for (int i = n - 1; i >= 0; --i) {  // c = c (d - at[i]) + divided[i]
        for (int j = n - 1; j > 0; --j) c[j] = c[j - 1] - c[j] * at[i];
        c[0] = divided[i] - c[0] * at[i];
    }
}

struct Tables {
    Pieces of[int(Piecewise::tables)];

    Tables() {
        for (int t = 0; t < int(Piecewise::tables); ++t) {
            const double step = step_of(Piecewise(t));
            for (int k = 0; k < 2 * Pieces::count; ++k) {
                double c[most];
                fit(Piecewise(t), k * step, step / 2, c);
                for (int i = 0; i < most; ++i) of[t].coefficient[k / Pieces::count][i][k % Pieces::count] = float(c[i]);
            }
        }
    }
};
const Tables tables;

}  // namespace

const Pieces* const pieces = tables.of;

}  // namespace FASTCONV_ISA
}  // namespace fastconv
#endif
