// Weights in the order of their axes, from wherever they lie: those of a gradient are the layer's with channels swapped and taps backwards,
// which element by element in the order of the result touches another page with each.
#pragma once
#include <algorithm>
#include <cstdint>

#include "threads.hpp"

namespace fastconv {

constexpr int weight_axes = 5;

struct Arranged {
    int64_t size[weight_axes], stride[weight_axes];  // in elements; axes that an array lacks, behind the first two, are 1 long
};

// A few dozen rows of the result side by side: what is read for one of them is in the caches for the others, and each is written on.
constexpr int64_t rows_at_once = 32;

template <class T>
void arrange_rows(const T* from, const Arranged& a, T* to, int64_t first, int64_t end) {
    const int64_t taps = a.size[2] * a.size[3] * a.size[4], row = a.size[1] * taps;
    for (int64_t j = 0; j < a.size[1]; ++j)
        for (int64_t i = first; i < end; ++i) {
            const T* x = from + i * a.stride[0] + j * a.stride[1];
            T* out = to + i * row + j * taps;
            for (int64_t d = 0; d < a.size[2]; ++d)
                for (int64_t h = 0; h < a.size[3]; ++h)
                    for (int64_t w = 0; w < a.size[4]; ++w) *out++ = x[d * a.stride[2] + h * a.stride[3] + w * a.stride[4]];
        }
}

// to: C-contiguous.
template <class T>
void arrange(const T* from, const Arranged& a, T* to, int threads) {
    struct Work {
        const T* from;
        const Arranged& a;
        T* to;
        int64_t blocks, parts;
    } work{from, a, to, (a.size[0] + rows_at_once - 1) / rows_at_once, 1};
    const double elements = double(a.size[0]) * a.size[1] * a.size[2] * a.size[3] * a.size[4];
    work.parts = std::max<int64_t>(1, std::min<int64_t>({threads, work.blocks, int64_t(elements / (32 << 10))}));
    const Body body = [](void* of, int64_t part) {
        const Work& w = *static_cast<const Work*>(of);
        for (int64_t b = w.blocks * part / w.parts; b < w.blocks * (part + 1) / w.parts; ++b)
            arrange_rows(w.from, w.a, w.to, b * rows_at_once, std::min((b + 1) * rows_at_once, w.a.size[0]));
    };
    parallel_for(work.parts, body, &work);
}

}  // namespace fastconv
