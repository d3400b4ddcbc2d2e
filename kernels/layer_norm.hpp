// Layer normalisation of rows: y = (x - mean) / sqrt(variance + epsilon) * weight + bias, mean and (biased) variance the row's own, weight
// and bias of each position; and its gradients. A row is read from memory once where it fits into L2: its sum, the squares about its mean,
// and the result. Sums are staged (pointwise.hpp), less the row's first value, as batch norm's.
#pragma once
#include <cmath>

#include "pointwise.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <class T>
class LayerNorm {
   public:
    LayerNorm(const LayerNormalization& of, const Team& t) : n(of), team(t) {}

    void forward() const {
        share(2, [&](int64_t begin, int64_t end) {
            moments(begin, end);
            for (int64_t row = begin; row < end; ++row) normalize(row);
        });
    }

    // The sums along columns first: the gradient of the input may be written where input or gradient lie.
    void backward() const {
        if (!n.known) share(1, [&](int64_t begin, int64_t end) { moments(begin, end); });
        const int64_t strips = (n.length + wide - 1) / wide;
        crew_of(team, bytes(2), false).share(strips, [&](int64_t, const auto& each) {
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) column_sums(i * wide, std::min(wide, n.length - i * wide));
            });
        });
        share(3, [&](int64_t begin, int64_t end) {
            for (int64_t row = begin; row < end; ++row) differentiate(row);
        });
    }

   private:
    static constexpr int L = lanes<T>;
    static constexpr int64_t abreast = 8;   // rows that take each step one after another: what a step waits for, the others fill
    static constexpr int64_t wide = 4 * L;  // columns that are summed together
    const LayerNormalization& n;
    const Team& team;

    double bytes(int arrays) const { return double(n.rows) * double(n.length) * sizeof(T) * arrays; }
    const T* input(int64_t row) const { return static_cast<const T*>(n.input) + row * n.length; }
    const T* gradient(int64_t row) const { return static_cast<const T*>(n.gradient) + row * n.length; }
    T* result(int64_t row) const { return static_cast<T*>(n.result) + row * n.length; }
    const T* weights() const { return static_cast<const T*>(n.weight); }
    static FASTCONV_INLINE Vec<T> weight(const T* w, int64_t i, int64_t count) { return w ? load_some(w + i, count) : broadcast(T(1)); }

    // body(first, end) for all rows, a few at a time.
    template <class Body>
    void share(int arrays, const Body& body) const {
        crew_of(team, bytes(arrays), false).share(n.rows, [&](int64_t, const auto& each) {
            each([&](int64_t begin, int64_t end) {
                for (; begin < end; begin += abreast) body(begin, std::min(begin + abreast, end));
            });
        });
    }

    void moments(int64_t begin, int64_t end) const {
        for (int64_t row = begin; row < end; ++row) n.mean[row] = near_mean(row);
        for (int64_t row = begin; row < end; ++row) deviation(row);
    }
    FASTCONV_NOINLINE double near_mean(int64_t row) const {
        const T* x = input(row);
        const Vec<T> pivot = broadcast(*x);
        WideSum<T> sum[1];
        add_staged(sum, n.length, [&](int64_t i, int64_t some, Vec<T> (&v)[1]) __attribute__((always_inline)) {
            v[0] = only<T>(load_some(x + i, some) - pivot, some);
        });
        return double(*x) + sum[0].total() / double(n.length);
    }
    FASTCONV_NOINLINE void deviation(int64_t row) const {
        const T *x = input(row), about = T(n.mean[row]);
        const double count = double(n.length);
        const Vec<T> middle = broadcast(about);
        WideSum<T> off[2];
        add_staged(off, n.length, [&](int64_t i, int64_t some, Vec<T> (&v)[2]) __attribute__((always_inline)) {
            v[1] = only<T>(load_some(x + i, some) - middle, some), v[0] = rounded(v[1] * v[1]);
        });
        const double apart = off[1].total() / count;  // what the mean lacks, rounded as it is
        n.mean[row] = double(about) + apart;
        n.inverse[row] = 1 / std::sqrt(off[0].total() / count - apart * apart + n.epsilon);
    }

    FASTCONV_NOINLINE void normalize(int64_t row) const {
        const T *x = input(row), *w = weights(), *bias = static_cast<const T*>(n.bias);
        T* y = result(row);
        const Vec<T> mean = broadcast(T(n.mean[row])), inverse = broadcast(T(n.inverse[row]));
        by_vectors(y, n.length, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
            const Vec<T> normal = rounded((load_some(x + i, count) - mean) * inverse);
            store_some(y + i, madd<T>(normal, weight(w, i, count), bias ? load_some(bias + i, count) : Vec<T>{}), count, false);
        });
    }

    // gradients of weight and bias: sums of g (x - mean) inverse and of g along `count` columns, a few rows in T, then in double
    FASTCONV_NOINLINE void column_sums(int64_t first, int64_t count) const {
        for (int64_t c = first; c < first + count; c += L) {
            const int64_t some = std::min<int64_t>(L, first + count - c);
            WideSum<T> sum[2];
            for (int64_t begin = 0; begin < n.rows; begin += staged) {
                Vec<T> near[2] = {};
                for (int64_t row = begin; row < std::min(begin + staged, n.rows); ++row) {
                    const Vec<T> g = load_some(gradient(row) + c, some), mean = broadcast(T(n.mean[row]));
                    near[0] += g;
                    near[1] += rounded(g * rounded((load_some(input(row) + c, some) - mean) * broadcast(T(n.inverse[row]))));
                }
                sum[0].add(near[0]), sum[1].add(near[1]);
            }
            for (int64_t l = 0; l < some; ++l) n.grad_bias[c + l] = sum[0].lane(int(l)), n.grad_weight[c + l] = sum[1].lane(int(l));
        }
    }

    // inverse (h - mean h - (x - mean) inverse² mean(h (x - mean))), h = g weight
    FASTCONV_NOINLINE void differentiate(int64_t row) const {
        const T *x = input(row), *g = gradient(row), *w = weights();
        T* y = result(row);
        const double inverse = n.inverse[row], count = double(n.length);
        const Vec<T> mean = broadcast(T(n.mean[row])), factor = broadcast(T(inverse));
        WideSum<T> sum[2];
        add_staged(sum, n.length, [&](int64_t i, int64_t some, Vec<T> (&v)[2]) __attribute__((always_inline)) {
            v[0] = only<T>(rounded(load_some(g + i, some) * weight(w, i, some)), some);
            v[1] = only<T>(rounded(v[0] * (load_some(x + i, some) - mean)), some);
        });
        const Vec<T> mean_h = broadcast(T(sum[0].total() / count));
        const Vec<T> slope = broadcast(T(sum[1].total() / count * inverse * inverse));
        by_vectors(y, n.length, [&](int64_t i, int64_t some) __attribute__((always_inline)) {
            const Vec<T> h = rounded(load_some(g + i, some) * weight(w, i, some));
            store_some(y + i, factor * madd<T>(mean - load_some(x + i, some), slope, h - mean_h), some, false);
        });
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
