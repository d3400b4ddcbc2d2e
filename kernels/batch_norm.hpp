// Batch normalisation: y = (x - mean) scale + bias with scale = weight / sqrt(variance + epsilon), in training with the statistics of
// the batch; and its gradients, or, without a result, their sums alone. The data of a channel are summed block by block, the squares
// about the mean of the blocks before, which is as good as their own: what that adds, block by block, is at most twice what the blocks
// differ. Only of the first block the mean comes first, while it is in L1. Blocks are merged as Chan, Golub and LeVeque do it
// ("Algorithms for computing the sample variance", 1983). Sums are double, or staged (pointwise.hpp). Blocks, and the order in which
// they are merged, follow from sizes alone, so that any number of threads makes the same bits.
#pragma once
#include <cmath>

#include "batch_norm_columns.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// What is known of some values: how many, their mean, the sum of the squares about it. Values are less the channel's first, so that
// rounding a mean that is large beside the deviation costs no digits of the squares.
struct Moments {
    double count = 0, mean = 0, squares = 0;

    void merge(const Moments& more) {
        if (count == 0) return void(*this = more);
        const double all = count + more.count, apart = more.mean - mean;
        mean += apart * (more.count / all);
        squares += more.squares + apart * apart * (count * more.count / all);
        count = all;
    }
};

// Sums of a gradient g, and of g (x - mean).
struct Sums {
    double g = 0, gx = 0;
};

// Rectifies: see Normalization.
template <class T, bool Rectifies>
class BatchNorm : NormColumns<T, Rectifies> {
    using Columns = NormColumns<T, Rectifies>;
    using Columns::L, Columns::wide, Columns::rows_of_block, Columns::normalized, Columns::activated, Columns::reaching,
        Columns::differentiated, Columns::strip_of, Columns::each_strip;

   public:
    BatchNorm(const Normalization& of, const Team& t) : n(of), team(t) {}

    void forward() const {
        if (n.channels_last) return forward_last();
        if (planes_are_small()) return forward_small();
        if (!counts()) return evaluate();
        share_channels([&](int64_t c) {
            keep(c, moments_of(c));
            for (int64_t b = 0; b < n.batch; ++b) normalize(b, c);
        }, 2);
    }

    void backward() const {
        if (n.channels_last) return backward_last();
        if (planes_are_small()) return backward_small();
        share_channels([&](int64_t c) {
            if (counts()) keep(c, moments_of(c));
            finish(c, sums_of(c));
            if (n.result.data) differentiate(c);
        }, 3);
    }

   private:
    static constexpr int64_t block = 4096;  // elements of a channel, which stay in L1 while they are read twice
    const Normalization& n;
    const Team& team;

    bool counts() const { return n.training && !n.known; }
    bool past() const { return goes_past(n.batch * n.channels * n.space, sizeof(T)) && n.result.data != n.input.data &&
                               n.result.data != n.gradient.data && (n.channels_last || n.space >= 8 * L); }
    double bytes(int arrays) const { return double(n.batch) * double(n.channels) * double(n.space) * sizeof(T) * arrays; }
    const T* input(int64_t b, int64_t c) const { return static_cast<const T*>(n.input.data) + b * n.input.outer + c * n.input.middle; }
    const T* gradient(int64_t b, int64_t c) const {
        return static_cast<const T*>(n.gradient.data) + b * n.gradient.outer + c * n.gradient.middle;
    }
    T* result(int64_t b, int64_t c) const { return static_cast<T*>(n.result.data) + b * n.result.outer + c * n.result.middle; }
    double deviation(int64_t c) const { return std::sqrt(n.variance[c] + n.epsilon); }
    double scale(int64_t c) const { return n.weight[c] / deviation(c); }
    // The gradient of the input is scale (g - mean g - (x - mean) slope), the last two in training only.
    double slope(const Sums& of, int64_t c) const { return of.gx / (double(n.batch * n.space) * (n.variance[c] + n.epsilon)); }

    T limit() const { return T(n.limit); }

    double first(int64_t c) const { return double(*input(0, c)); }
    void keep(int64_t c, const Moments& m) const { n.mean[c] = first(c) + m.mean, n.variance[c] = m.squares / m.count; }
    // ---- rows along space: a channel is one item, whose data are read from memory once where they fit into L2

    template <class Each>
    void share_channels(const Each& each_channel, int arrays) const {
        const Crew crew = crew_of(team, bytes(arrays), false);
        crew.share(n.channels, [&](int64_t, const auto& each) {
            each([&](int64_t begin, int64_t end) {
                for (int64_t c = begin; c < end; ++c) each_channel(c);
            });
            if (past()) stored_past();
        });
    }

    // each(first image, images, first position, positions) for every block of a channel, in order: parts of rows, or several rows.
    template <class Each>
    void blocks(const Each& each) const {
        if (n.space > block / 2) {
            const int64_t pieces = (n.space + block / 2) / block, length = (n.space / pieces + 4 * L) / (4 * L) * (4 * L);
            for (int64_t b = 0; b < n.batch; ++b)
                for (int64_t s = 0; s < n.space; s += length) each(b, int64_t(1), s, std::min(length, n.space - s));
        } else {
            const int64_t images = block / n.space;
            for (int64_t b = 0; b < n.batch; b += images) each(b, std::min(images, n.batch - b), int64_t(0), n.space);
        }
    }

    // Rows in the order of memory: nothing is read twice.
    void evaluate() const {
        crew_of(team, bytes(2), false).share(n.batch * n.channels, [&](int64_t, const auto& each) {
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) normalize(i / n.channels, i % n.channels);
            });
            if (past()) stored_past();
        });
    }

    FASTCONV_NOINLINE Moments moments_of(int64_t c) const {
        Moments all;
        blocks([&](int64_t image, int64_t images, int64_t s, int64_t length) {
            const double count = double(images * length);
            double near = all.mean;
            if (all.count == 0) {
                WideSum<T> sum[1];
                const Vec<T> pivot = broadcast(*input(0, c));
                for (int64_t b = image; b < image + images; ++b) {
                    const T* x = input(b, c) + s;
                    add_staged(sum, length, [&](int64_t i, int64_t n_, Vec<T> (&v)[1]) __attribute__((always_inline)) {
                        v[0] = only<T>(load_some(x + i, n_) - pivot, n_);
                    });
                }
                near = sum[0].total() / count;
            }
            const T about = T(first(c) + near);
            const Vec<T> middle = broadcast(about);
            WideSum<T> off[2];
            for (int64_t b = image; b < image + images; ++b) {
                const T* x = input(b, c) + s;
                add_staged(off, length, [&](int64_t i, int64_t n_, Vec<T> (&v)[2]) __attribute__((always_inline)) {
                    v[1] = only<T>(load_some(x + i, n_) - middle, n_), v[0] = rounded(v[1] * v[1]);
                });
            }
            all.merge(block_moments(count, double(about) - first(c), off[0].total(), off[1].total()));
        });
        return all;
    }
    // `apart`: the sum of what the values differ from a mean that is not exact.
    static Moments block_moments(double count, double mean, double squares, double apart) {
        return {count, mean + apart / count, squares - apart * apart / count};
    }

    FASTCONV_NOINLINE Sums sums_of(int64_t c) const {
        Sums all;
        const Vec<T> middle = broadcast(T(n.mean[c])), factor = broadcast(T(scale(c))), bias = broadcast(T(n.bias[c]));
        const Vec<T> most = broadcast(limit());
        blocks([&](int64_t image, int64_t images, int64_t s, int64_t length) {
            WideSum<T> sum[2];
            for (int64_t b = image; b < image + images; ++b) {
                const T *x = input(b, c) + s, *g = gradient(b, c) + s;
                add_staged(sum, length, [&](int64_t i, int64_t count, Vec<T> (&v)[2]) __attribute__((always_inline)) {
                    const Vec<T> value = load_some(x + i, count);
                    v[0] = only<T>(reaching(load_some(g + i, count), normalized(value, middle, factor, bias), most), count);
                    v[1] = only<T>(rounded(v[0] * (value - middle)), count);
                });
            }
            all.g += sum[0].total(), all.gx += sum[1].total();
        });
        return all;
    }

    FASTCONV_NOINLINE void normalize(int64_t b, int64_t c) const {
        const Vec<T> mean = broadcast(T(n.mean[c])), factor = broadcast(T(scale(c))), bias = broadcast(T(n.bias[c]));
        const Vec<T> most = broadcast(limit());
        const bool far = past();
        const T* x = input(b, c);
        T* y = result(b, c);
        by_vectors(y, n.space, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
            store_some(y + i, activated(normalized(load_some(x + i, count), mean, factor, bias), most), count, far);
        });
    }

    // Of sums about the rounded mean.
    void finish(int64_t c, const Sums& sums) const {
        n.grad_bias[c] = sums.g, n.grad_weight[c] = (sums.gx - (n.mean[c] - double(T(n.mean[c]))) * sums.g) / deviation(c);
    }
    Sums sums_again(int64_t c) const { return {n.grad_bias[c], n.grad_weight[c] * deviation(c)}; }

    struct Factors {
        T mean, scale, mean_g, slope, bias;
    };
    Factors factors(int64_t c) const {
        const Sums sums = sums_again(c);
        if (!n.training) return {T(n.mean[c]), T(scale(c)), T(0), T(0), T(n.bias[c])};
        return {T(n.mean[c]), T(scale(c)), T(sums.g / double(n.batch * n.space)), T(slope(sums, c)), T(n.bias[c])};
    }

    void differentiate(int64_t c) const {
        const Factors f = factors(c);
        const Vec<T> mean = broadcast(f.mean), factor = broadcast(f.scale), mean_g = broadcast(f.mean_g), slope_ = broadcast(f.slope);
        const Vec<T> bias = broadcast(f.bias), most = broadcast(limit());
        const bool far = past();
        for (int64_t b = 0; b < n.batch; ++b) {
            const T *x = input(b, c), *g = gradient(b, c);
            T* y = result(b, c);
            by_vectors(y, n.space, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
                const Vec<T> value = load_some(x + i, count);
                const Vec<T> reached = reaching(load_some(g + i, count), normalized(value, mean, factor, bias), most);
                const Vec<T> dx = differentiated(value, reached, mean, factor, mean_g, slope_);
                store_some(y + i, dx, count, far);
            });
        }
    }
    // ---- channels side by side: `space` pixels in chunks, of which each channel has partial results in the workspace

    int64_t chunk() const {  // pixels
        const int64_t least = (n.space + Normalization::most_chunks - 1) / Normalization::most_chunks;
        return (least + rows_of_block - 1) / rows_of_block * rows_of_block;
    }
    int64_t chunks() const { return (n.space + chunk() - 1) / chunk(); }
    int64_t rows_of(int64_t k) const { return std::min(chunk(), n.space - k * chunk()); }
    int64_t padded() const { return (n.channels + L - 1) / L * L; }
    double* partial() const { return reinterpret_cast<double*>(static_cast<char*>(team.workspace) + size_t(team.threads) * 64); }

    int64_t count_strips() const { return (n.channels + wide - 1) / wide; }

    // body(chunk, first channel, channels, V) of every strip
    template <class Body>
    void share_chunks(int arrays, const Body& body) const {
        const int64_t count = count_strips();
        crew_of(team, bytes(arrays), false).share(chunks() * count, [&](int64_t, const auto& each) {
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i)
                    strip_of(i % count, n.channels,
                             [&](int64_t c, int64_t channels, auto vectors) { body(i / count, c, channels, vectors); });
            });
        });
    }

    // The moments of every channel, to mean and variance.
    void moments_last() const {
        double* const means = partial();
        double* const squares = means + chunks() * padded();
        share_chunks(1, [&](int64_t k, int64_t c, int64_t count, auto vectors) {
            Columns::template column_moments<vectors.value>(
                input(0, c) + k * chunk() * n.input.inner, n.input.inner, rows_of(k), input(0, c), count, means + k * padded() + c,
                squares + k * padded() + c);
        });
        Merging all;
        for (int64_t c = 0; c < n.channels; ++c) n.mean[c] = n.variance[c] = 0;
        for (int64_t k = 0; k < chunks(); ++k) {
            all.begin(double(rows_of(k)));
            for (int64_t c = 0; c < n.channels; ++c)
                all.merge(n.mean[c], n.variance[c], means[k * padded() + c], squares[k * padded() + c]);
        }
        for (int64_t c = 0; c < n.channels; ++c) keep(c, {double(n.space), n.mean[c], n.variance[c]});
    }

    // Tables of a value per channel, in T, so that vectors of them are loaded.
    T* table(int which) const { return reinterpret_cast<T*>(partial() + chunks() * padded() * 2) + which * padded(); }

    // put(first pixel, end, first channel, channels, V, whether past the caches) of every strip
    template <class Put>
    void share_pixels(int arrays, const Put& put) const {
        constexpr int64_t pixels = 16;
        const bool far = past() && n.channels % L == 0 && n.result.inner % L == 0 &&
                         reinterpret_cast<uintptr_t>(n.result.data) % vector_bytes == 0;
        crew_of(team, bytes(arrays), false).share((n.space + pixels - 1) / pixels, [&](int64_t, const auto& each) {
            each([&](int64_t begin, int64_t end) {
                const int64_t some = count_strips() == 1 ? end - begin : 1;
                for (int64_t i = begin; i < end; i += some)
                    for (int64_t s = 0; s < count_strips(); ++s)
                        strip_of(s, n.channels, [&](int64_t c, int64_t channels, auto vectors) {
                            put(i * pixels, std::min((i + some) * pixels, n.space), c, channels, vectors, far);
                        });
            });
            if (far) stored_past();
        });
    }

    void forward_last() const {
        if (counts()) moments_last();
        T *const mean = table(0), *const factor = table(1), *const bias = table(2);
        for (int64_t c = 0; c < n.channels; ++c) mean[c] = T(n.mean[c]), factor[c] = T(scale(c)), bias[c] = T(n.bias[c]);
        share_pixels(2, [&](int64_t begin, int64_t end, int64_t c, int64_t count, auto vectors, bool far) {
            Columns::template normalize_columns<vectors.value>(
                input(0, c) + begin * n.input.inner, n.input.inner, result(0, c) + begin * n.result.inner, n.result.inner,
                end - begin, mean + c, factor + c, bias + c, limit(), count, far);
        });
    }

    void backward_last() const {
        if (counts()) moments_last();
        double* const of_g = partial();
        double* const of_gx = of_g + chunks() * padded();
        T *const mean = table(0), *const factor = table(1), *const mean_g = table(2), *const slopes = table(3), *const bias = table(4);
        for (int64_t c = 0; c < n.channels; ++c) mean[c] = T(n.mean[c]), factor[c] = T(scale(c)), bias[c] = T(n.bias[c]);
        share_chunks(2, [&](int64_t k, int64_t c, int64_t count, auto vectors) {
            const int64_t begin = k * chunk();
            Columns::template column_sums<vectors.value>(
                input(0, c) + begin * n.input.inner, n.input.inner, gradient(0, c) + begin * n.gradient.inner, n.gradient.inner,
                rows_of(k), mean + c, factor + c, bias + c, limit(), count, of_g + k * padded() + c, of_gx + k * padded() + c);
        });
        for (int64_t c = 0; c < n.channels; ++c) n.grad_bias[c] = n.grad_weight[c] = 0;
        for (int64_t k = 0; k < chunks(); ++k)
            for (int64_t c = 0; c < n.channels; ++c)
                n.grad_bias[c] += of_g[k * padded() + c], n.grad_weight[c] += of_gx[k * padded() + c];
        for (int64_t c = 0; c < n.channels; ++c) {
            finish(c, {n.grad_bias[c], n.grad_weight[c]});
            if (!n.result.data) continue;
            const Factors f = factors(c);
            mean[c] = f.mean, factor[c] = f.scale, mean_g[c] = f.mean_g, slopes[c] = f.slope;
        }
        if (n.result.data) share_pixels(3, [&](int64_t begin, int64_t end, int64_t c, int64_t count, auto vectors, bool far) {
            Columns::template differentiate_columns<vectors.value>(
                input(0, c) + begin * n.input.inner, n.input.inner, gradient(0, c) + begin * n.gradient.inner, n.gradient.inner,
                result(0, c) + begin * n.result.inner, n.result.inner, end - begin, mean + c, factor + c, mean_g + c, slopes + c,
                bias + c, limit(), count, far);
        });
    }

    // ---- planes of a few positions, adjacent in memory: the positions of some channels side by side, each a column of `batch` rows

    static constexpr int64_t most_columns = Normalization::most_columns;
    bool planes_are_small() const {
        const auto dense = [&](const Cube& cube) { return !cube.data || cube.middle == n.space; };
        return n.batch > 1 && n.space < 8 * L && dense(n.input) && dense(n.gradient) && dense(n.result);
    }
    // What a thread keeps of a group of channels: of each column, and tables for whole vectors.
    struct Desk {
        double first[most_columns], second[most_columns];
        T mean[most_columns + L], scale[most_columns + L], third[most_columns + L], fourth[most_columns + L], bias[most_columns + L];
    };

    // body(first channel, channels, desk) of groups with at most so many columns
    template <class Body>
    void share_groups(int arrays, const Body& body) const {
        static_assert(sizeof(Desk) <= Normalization::desk_bytes, "of the workspace");
        int64_t group = 1;
        while (2 * group * n.space <= most_columns) group *= 2;
        crew_of(team, bytes(arrays), false).share((n.channels + group - 1) / group, [&](int64_t part, const auto& each) {
            Desk& desk = *reinterpret_cast<Desk*>(reinterpret_cast<char*>(partial()) + size_t(part) * Normalization::desk_bytes);
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) body(i * group, std::min(group, n.channels - i * group), desk);
            });
        });
    }

    // A value for every position of a group's channel; what is written beyond is written again for the next.
    void spread(T* table, int64_t channel, T value) const {
        const Vec<T> all = broadcast(value);
        for (int64_t s = 0; s < n.space; s += L) store(table + channel * n.space + s, all);
    }

    static FASTCONV_INLINE double total(const double* values, int64_t count) {
        WideSum<double> sum[1];
        add_staged(sum, count, [&](int64_t i, int64_t some, Vec<double> (&v)[1]) __attribute__((always_inline)) {
            v[0] = load_some(values + i, some);
        });
        return sum[0].total();
    }

    void moments_small(int64_t c, int64_t count, Desk& desk) const {
        for (int64_t i = 0; i < count; ++i) spread(desk.mean, i, *input(0, c + i));
        each_strip(count * n.space, [&](int64_t column, int64_t columns, auto vectors) {
            Columns::template column_moments<vectors.value>(
                input(0, c) + column, n.input.outer, n.batch, desk.mean + column, columns, desk.first + column,
                desk.second + column);
        });
        const double rows = double(n.batch);
        for (int64_t i = 0; i < count; ++i) {
            const double *means = desk.first + i * n.space, *squares = desk.second + i * n.space;
            const double mean = total(means, n.space) / double(n.space);
            const Vec<double> middle = broadcast(mean);
            WideSum<double> between[1];
            add_staged(between, n.space, [&](int64_t s, int64_t some, Vec<double> (&v)[1]) __attribute__((always_inline)) {
                v[0] = only<double>(load_some(means + s, some) - middle, some), v[0] = rounded(v[0] * v[0]);
            });
            keep(c + i, {rows * double(n.space), mean, total(squares, n.space) + rows * between[0].total()});
        }
    }

    void forward_small() const {
        share_groups(2, [&](int64_t c, int64_t count, Desk& desk) {
            if (counts()) moments_small(c, count, desk);
            for (int64_t i = 0; i < count; ++i) {
                spread(desk.mean, i, T(n.mean[c + i])), spread(desk.scale, i, T(scale(c + i)));
                spread(desk.bias, i, T(n.bias[c + i]));
            }
            each_strip(count * n.space, [&](int64_t i, int64_t columns, auto vectors) {
                Columns::template normalize_columns<vectors.value>(
                    input(0, c) + i, n.input.outer, result(0, c) + i, n.result.outer, n.batch, desk.mean + i, desk.scale + i,
                    desk.bias + i, limit(), columns, false);
            });
        });
    }

    void backward_small() const {
        share_groups(3, [&](int64_t c, int64_t count, Desk& desk) {
            if (counts()) moments_small(c, count, desk);
            for (int64_t i = 0; i < count; ++i) spread(desk.mean, i, T(n.mean[c + i]));
            for (int64_t i = 0; Rectifies && i < count; ++i)
                spread(desk.scale, i, T(scale(c + i))), spread(desk.bias, i, T(n.bias[c + i]));
            each_strip(count * n.space, [&](int64_t i, int64_t columns, auto vectors) {
                Columns::template column_sums<vectors.value>(
                    input(0, c) + i, n.input.outer, gradient(0, c) + i, n.gradient.outer, n.batch, desk.mean + i, desk.scale + i,
                    desk.bias + i, limit(), columns, desk.first + i, desk.second + i);
            });
            for (int64_t i = 0; i < count; ++i) {
                finish(c + i, {total(desk.first + i * n.space, n.space), total(desk.second + i * n.space, n.space)});
                if (!n.result.data) continue;
                const Factors f = factors(c + i);
                spread(desk.mean, i, f.mean), spread(desk.scale, i, f.scale), spread(desk.third, i, f.mean_g);
                spread(desk.fourth, i, f.slope), spread(desk.bias, i, f.bias);
            }
            if (n.result.data) each_strip(count * n.space, [&](int64_t i, int64_t columns, auto vectors) {
                Columns::template differentiate_columns<vectors.value>(
                    input(0, c) + i, n.input.outer, gradient(0, c) + i, n.gradient.outer, result(0, c) + i, n.result.outer, n.batch,
                    desk.mean + i, desk.scale + i, desk.third + i, desk.fourth + i, desk.bias + i, limit(), columns, false);
            });
        });
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
