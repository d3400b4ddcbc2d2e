// Weights with the output channels side by side.
#pragma once
#include <algorithm>

#include "abi.hpp"
#include "squares.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// rows[i][columns] of w, transposed to out_row[column][i]; rows and columns that do not exist count as 0 and are not written.
template <class T>
FASTCONV_INLINE void transpose_block(const T* w, int64_t stride, int64_t rows, int64_t columns, T* const* out_row, int64_t v, bool past) {
    constexpr int L = lanes<T>;
    Vec<T> row[L];
    if (rows >= L && columns >= L) {  // constant trip counts: the rows stay in registers
        for (int i = 0; i < L; ++i) row[i] = load(w + i * stride);
        transpose<T>(row);
        for (int i = 0; i < L; ++i) store_past(out_row[i] + v, row[i], past);
        return;
    }
    for (int64_t i = 0; i < L; ++i) row[i] = i < rows ? load_some(w + i * stride, std::min<int64_t>(columns, L)) : Vec<T>{};
    transpose<T>(row);
    for (int64_t i = 0; i < std::min<int64_t>(columns, L); ++i) store_past(out_row[i] + v, row[i], past);
}

template <class T>
bool all_finite(const T* w, int64_t count) {
    constexpr int L = lanes<T>;
    Vec<T> odd[4] = {};  // NaN as soon as one is not
    int64_t i = 0;
    for (; i + 4 * L <= count; i += 4 * L)
        for (int v = 0; v < 4; ++v) odd[v] += load(w + i + v * L) * T(0);
    for (; i < count; i += L) odd[0] += load_some(w + i, std::min<int64_t>(L, count - i)) * T(0);
    T sum[L];
    store(sum, odd[0] + odd[1] + odd[2] + odd[3]);
    return std::all_of(sum, sum + L, [](T it) { return it == 0; });
}

// w[oc][channel][tap] -> place(channel, tap)[width], k_count = channels x taps of each; output channels that do not exist are 0. A
// line of each row of w at a time: all rows may share one set of L1, and a line would not survive until its second half is needed.
// past: see store_past; width is whole lines then.
template <class T, class Place>
void pack_block(const T* w, int64_t stride, int64_t tap_count, int64_t k_count, int64_t channels, int64_t width, Place place,
                bool past = false) {
    constexpr int L = lanes<T>, line = 64 / int(sizeof(T));
    T* out_row[line];
    int64_t tap = 0, channel = 0;
    for (int64_t k = 0; k < k_count; k += line) {
        const int64_t m = std::min<int64_t>(line, k_count - k);
        for (int64_t i = 0; i < m; ++i) {
            out_row[i] = place(channel, tap);
            if (++tap == tap_count) tap = 0, ++channel;
        }
        for (int64_t v = 0; v < width; v += L)
            for (int64_t i = 0; i < m; i += L)
                transpose_block(w + v * stride + k + i, stride, channels - v, m - i, out_row + i, v, past);
    }
}

// The same where the places follow each other: out[k][width]. Equal distances need no register each, and squares fewer shuffles.
template <class T>
void pack_rows(const T* w, int64_t k_count, int64_t channels, int64_t width, T* out) {
    constexpr int64_t line = 64 / int64_t(sizeof(T)), S = side<T>;
    const auto same = [](Side<T> v) { return v; };
    for (int64_t k = 0; k < k_count; k += line)
        for (int64_t v = 0; v < width; v += S)
            for (int64_t i = k; i < std::min(k + line, k_count); i += S) {
                const int64_t at = std::min(i, k_count - S);  // the last ones overlap their neighbours
                const T* from = w + v * k_count + at;
                if (v + S <= channels) transpose_square<T>(from, k_count, out + at * width + v, width, same);
                else transpose_square<T>(from, k_count, out + at * width + v, width, same, channels - v);
            }
}

// The same of weights that lie in another order, as those of a gradient of the input do: output channels side by side, or the taps of
// each, forwards or backwards; all else one by one.
template <class T>
class AnyOrder {
   public:
    AnyOrder(const Problem& p, const View& lies) : lie(lies), taps(p.kernel[0] * p.kernel[1] * p.kernel[2]), channels(p.in_channels) {
        std::copy(p.kernel, p.kernel + max_axes, kernel);
        forwards = adjacent(1), backwards = !forwards && adjacent(-1);
    }

    // Weights w of `n` output channels, as pack_block packs them; whether all are finite.
    template <class Place>
    bool pack(const T* w, int64_t n, int64_t width, Place place, bool past) const {
        Vec<T> odd = {};  // NaN as soon as one is not
        for (int64_t c = 0; c < channels; ++c, w += lie.channel) {
            const auto row = [&](int64_t tap) { return place(c, tap); };
            if (lie.batch == 1) pack_outputs(w, n, width, row, past, odd);
            else if (forwards || backwards) pack_taps(w, n, width, row, past, odd);
            else pack_each(w, n, width, row, odd);
        }
        T sum[L];
        store(sum, odd);
        return std::all_of(sum, sum + L, [](T it) { return it == 0; });
    }

   private:
    static constexpr int L = lanes<T>;
    const View& lie;
    int64_t taps, channels, kernel[max_axes];
    bool forwards, backwards;

    int64_t offset(int64_t tap) const {
        const int64_t w = tap % kernel[2], h = tap / kernel[2] % kernel[1], d = tap / kernel[2] / kernel[1];
        return d * lie.space[0] + h * lie.space[1] + w * lie.space[2];
    }
    bool adjacent(int64_t step) const {
        for (int64_t tap = 0; tap < taps; ++tap)
            if (offset(tap) != tap * step) return false;
        return true;
    }

    template <class Row>
    FASTCONV_INLINE void pack_outputs(const T* w, int64_t n, int64_t width, const Row& row, bool past, Vec<T>& odd) const {
        for (int64_t tap = 0; tap < taps; ++tap) {
            const T *from = w + offset(tap), *ahead = from + 8 * lie.channel;
            T* to = row(tap);
            for (int64_t v = 0; v < width; v += L) {
                __builtin_prefetch(ahead + v);
                const int64_t there = std::min<int64_t>(L, n - v);
                const Vec<T> value = there > 0 ? load_some(from + v, there) : Vec<T>{};
                odd += value * T(0);
                store_past(to + v, value, past);
            }
        }
    }

    template <class Row>
    void pack_taps(const T* w, int64_t n, int64_t width, const Row& row, bool past, Vec<T>& odd) const {
        const T* first = w + (backwards ? 1 - taps : 0);
        for (int64_t t = 0; t < taps; t += L) {
            const int64_t m = std::min<int64_t>(L, taps - t);
            T* out_row[L] = {};
            for (int64_t i = 0; i < m; ++i) out_row[i] = row(backwards ? taps - 1 - t - i : t + i);
            for (int64_t i = 0; i < n; ++i) odd += load_some(first + i * lie.batch + t, m) * T(0);
            for (int64_t v = 0; v < width; v += L)
                transpose_block(first + v * lie.batch + t, lie.batch, n - v, m, out_row, v, past);
        }
    }

    template <class Row>
    void pack_each(const T* w, int64_t n, int64_t width, const Row& row, Vec<T>& odd) const {
        for (int64_t tap = 0; tap < taps; ++tap)
            for (int64_t i = 0; i < width; ++i) {
                const T value = i < n ? w[offset(tap) + i * lie.batch] : T(0);
                row(tap)[i] = value, odd += value * T(0);
            }
    }
};

// Weights of `n` output channels from `channel` (of all groups) on, however they lie, to out[k][width]; whether all are finite.
template <class T>
bool pack_as_they_lie(const Problem& p, const PackCall& call, int64_t channel, int64_t n, int64_t width, T* out) {
    const int64_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2], k = p.in_channels * taps;
    const T* const weight = static_cast<const T*>(call.weight) + channel * (call.lie ? call.lie->batch : k);
    const auto place = [&](int64_t c, int64_t tap) { return out + (c * taps + tap) * width; };
    if (call.lie) return AnyOrder<T>(p, *call.lie).pack(weight, n, width, place, call.shared);
    if (call.shared || k < side<T>) pack_block(weight, k, taps, k, n, width, place, call.shared);
    else pack_rows(weight, k, n, width, out);
    return all_finite(weight, n * k);
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
