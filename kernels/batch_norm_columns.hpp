// Batch norm's arithmetic, and columns of values side by side: moments, sums, results of rows that are `step` apart, four vectors of
// columns at a time. A column is a channel, or a position of one.
#pragma once
#include "pointwise.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// The same of channels side by side, of all of which as many values are known: `more` values' join them, without a division for each
// channel. At first none are known, and mean and squares are 0.
class Merging {
   public:
    void begin(double more) { share_ = more / (count_ + more), apart_ = count_ * share_, count_ += more; }
    FASTCONV_INLINE void merge(double& mean, double& squares, double more_mean, double more_squares) const {
        const double off = more_mean - mean;
        mean += off * share_;
        squares += more_squares + off * off * apart_;
    }

   private:
    double count_ = 0, share_ = 0, apart_ = 0;
};

// Rectifies: see Normalization.
template <class T, bool Rectifies>
struct NormColumns {
    static constexpr int L = lanes<T>;
    static constexpr int64_t rows_of_block = 128;
    static constexpr int W = 4;  // vectors of channels at a time: whole lines side by side
    static constexpr int64_t wide = W * L;

    static FASTCONV_INLINE Vec<T> normalized(Vec<T> x, Vec<T> mean, Vec<T> factor, Vec<T> bias) { return madd<T>(x - mean, factor, bias); }
    static FASTCONV_INLINE Vec<T> activated(Vec<T> y, Vec<T> limit) {
        if constexpr (!Rectifies) return y;
        y = y < Vec<T>{} ? Vec<T>{} : y;
        return y > limit ? limit : y;
    }
    // What of the output's gradient reaches y.
    static FASTCONV_INLINE Vec<T> reaching(Vec<T> g, Vec<T> y, Vec<T> limit) {
        if constexpr (!Rectifies) return g;
        return (y <= Vec<T>{}) | (y >= limit) ? Vec<T>{} : g;
    }
    static FASTCONV_INLINE Vec<T> differentiated(Vec<T> x, Vec<T> g, Vec<T> mean, Vec<T> scale, Vec<T> mean_g, Vec<T> slope) {
        return scale * madd<T>(mean - x, slope, g - mean_g);
    }

    // body(first column, columns, V): W vectors of columns at a time, and one by one what is left.
    template <class Body>
    static void strip_of(int64_t index, int64_t columns, const Body& body) {
        const int64_t begin = index * wide, end = std::min(begin + wide, columns);
        if (end - begin == wide) return body(begin, wide, std::integral_constant<int, W>{});
        for (int64_t c = begin; c < end; c += L) body(c, std::min<int64_t>(L, end - c), std::integral_constant<int, 1>{});
    }
    template <class Body>
    static void each_strip(int64_t columns, const Body& body) {
        for (int64_t i = 0; i * wide < columns; ++i) strip_of(i, columns, body);
    }

    // each(vector, lanes) of a strip: where there are several, all are whole.
    template <int V, class Each>
    static FASTCONV_INLINE void strip(int64_t count, const Each& each) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) each(v, V > 1 ? L : count);
    }

    template <int N>
    static FASTCONV_INLINE void to_lanes(double* lane, const WideSum<T> (&sum)[N]) {
        for (int v = 0; v < N; ++v)
            for (int p = 0; p < doubles<T>; ++p) store(lane + v * L + p * lanes<double>, sum[v].part[p]);
    }

    // Of columns of rows `step` apart, less the first values of their channels.
    template <int V>
    static FASTCONV_NOINLINE void column_moments(const T* x, int64_t step, int64_t rows, const T* firsts, int64_t count, double* mean,
                                                 double* squares) {
        constexpr int all = V * L;
        alignas(vector_bytes) double start[all], means[all], off_means[all], lane[2 * all];
        alignas(vector_bytes) T near[all];
        for (int l = 0; l < all; ++l) start[l] = l < count ? double(firsts[l]) : 0, means[l] = off_means[l] = 0;
        Merging merging;
        for (int64_t begin = 0; begin < rows; begin += rows_of_block, x += rows_of_block * step) {
            const int64_t some = std::min(rows_of_block, rows - begin);
            const double part = 1 / double(some);
            if (begin == 0) {
                WideSum<T> sum[V];
                for (int l = 0; l < all; ++l) near[l] = T(start[l]);
                add_rows(sum, some, [&](int64_t r, Vec<T> (&of)[V]) __attribute__((always_inline)) {
                    strip<V>(count, [&](int v, int64_t n_) __attribute__((always_inline)) {
                        of[v] = load_some(x + r * step + v * L, n_) - load(near + v * L);
                    });
                });
                to_lanes(lane, sum);
                for (int l = 0; l < all; ++l) near[l] = T(start[l] + lane[l] * part);
            } else {
                for (int l = 0; l < all; ++l) near[l] = T(start[l] + means[l]);
            }
            WideSum<T> off[2 * V];
            add_rows(off, some, [&](int64_t r, Vec<T> (&of)[2 * V]) __attribute__((always_inline)) {
                strip<V>(count, [&](int v, int64_t n_) __attribute__((always_inline)) {
                    of[V + v] = load_some(x + r * step + v * L, n_) - load(near + v * L), of[v] = rounded(of[V + v] * of[V + v]);
                });
            });
            to_lanes(lane, off);
            merging.begin(double(some));
            for (int l = 0; l < all; ++l) {  // as block_moments
                const double apart = lane[all + l] * part;
                merging.merge(means[l], off_means[l], double(near[l]) - start[l] + apart, lane[l] - apart * lane[all + l]);
            }
        }
        for (int64_t l = 0; l < count; ++l) mean[l] = means[l], squares[l] = off_means[l];
    }
    // As add_staged, lane by lane, of values that value(row, v) sets.
    template <int N, class Value>
    static FASTCONV_INLINE void add_rows(WideSum<T> (&sum)[N], int64_t rows, const Value& value) {
        for (int64_t begin = 0; begin < rows; begin += staged) {
            Vec<T> near[N] = {};
            for (int64_t r = begin; r < std::min(begin + staged, rows); ++r) {
                Vec<T> v[N];
                value(r, v);
                for (int j = 0; j < N; ++j) near[j] += v[j];
            }
            for (int j = 0; j < N; ++j) sum[j].add(near[j]);
        }
    }

    template <int V>
    static FASTCONV_NOINLINE void normalize_columns(const T* x, int64_t x_step, T* y, int64_t y_step, int64_t rows, const T* mean,
                                                    const T* factor, const T* bias, T limit, int64_t count, bool far) {
        const Vec<T> most = broadcast(limit);
        Vec<T> middle[V], scales[V], biases[V];
        for (int v = 0; v < V; ++v) middle[v] = load(mean + v * L), scales[v] = load(factor + v * L), biases[v] = load(bias + v * L);
        for (int64_t r = 0; r < rows; ++r, x += x_step, y += y_step)
            strip<V>(count, [&](int v, int64_t n_) __attribute__((always_inline)) {
                const Vec<T> value = normalized(load_some(x + v * L, n_), middle[v], scales[v], biases[v]);
                store_some(y + v * L, activated(value, most), n_, far);
            });
    }

    template <int V>
    static FASTCONV_NOINLINE void differentiate_columns(const T* x, int64_t x_step, const T* g, int64_t g_step, T* y, int64_t y_step,
                                                        int64_t rows, const T* mean, const T* factor, const T* mean_g,
                                                        const T* slopes, const T* bias, T limit, int64_t count, bool far) {
        const Vec<T> most = broadcast(limit);
        Vec<T> middle[V], scales[V], mean_of_g[V], slope_of[V], biases[V];
        for (int v = 0; v < V; ++v) {
            middle[v] = load(mean + v * L), scales[v] = load(factor + v * L), biases[v] = load(bias + v * L);
            mean_of_g[v] = load(mean_g + v * L), slope_of[v] = load(slopes + v * L);
        }
        for (int64_t r = 0; r < rows; ++r, x += x_step, g += g_step, y += y_step)
            strip<V>(count, [&](int v, int64_t n_) __attribute__((always_inline)) {
                const Vec<T> value = load_some(x + v * L, n_);
                const Vec<T> reached = reaching(load_some(g + v * L, n_), normalized(value, middle[v], scales[v], biases[v]), most);
                store_some(y + v * L, differentiated(value, reached, middle[v], scales[v], mean_of_g[v], slope_of[v]), n_, far);
            });
    }

    // Sums of columns of rows, about the means in a table.
    template <int V>
    static FASTCONV_NOINLINE void column_sums(const T* x, int64_t x_step, const T* g, int64_t g_step, int64_t rows, const T* mean,
                                              const T* factor, const T* bias, T limit, int64_t count, double* of_g, double* of_gx) {
        const Vec<T> most = broadcast(limit);
        WideSum<T> sum[2 * V];
        add_rows(sum, rows, [&](int64_t r, Vec<T> (&of)[2 * V]) __attribute__((always_inline)) {
            strip<V>(count, [&](int v, int64_t n_) __attribute__((always_inline)) {
                const Vec<T> value = load_some(x + r * x_step + v * L, n_), middle = load(mean + v * L);
                of[v] = load_some(g + r * g_step + v * L, n_);
                if constexpr (Rectifies)
                    of[v] = reaching(of[v], normalized(value, middle, load(factor + v * L), load(bias + v * L)), most);
                of[V + v] = rounded(of[v] * (value - middle));
            });
        });
        alignas(vector_bytes) double lane[2 * V * L];
        to_lanes(lane, sum);
        for (int64_t l = 0; l < count; ++l) of_g[l] = lane[l], of_gx[l] = lane[V * L + l];
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
