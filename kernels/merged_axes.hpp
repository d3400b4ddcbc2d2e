// Arrays of any strides as few axes as possible, in the order in which the result lies in memory.
#pragma once
#include <utility>

#include "pointwise_abi.hpp"

namespace fastconv {

namespace merging {

inline void swap_axes(Elements& e, int a, int b) {
    std::swap(e.shape[a], e.shape[b]);
    for (auto& stride : e.stride) std::swap(stride[a], stride[b]);
}

// Backwards where the result lies forwards.
inline void turn(Elements& e, int axis, size_t size) {
    for (int i = 0; i < Elements::arrays; ++i) {
        if (!e.data[i]) continue;
        e.data[i] = static_cast<char*>(e.data[i]) + (e.shape[axis] - 1) * e.stride[i][axis] * int64_t(size);
        e.stride[i][axis] = -e.stride[i][axis];
    }
}

inline bool continues(const Elements& e, int outer, int inner) {
    for (const auto& stride : e.stride)
        if (stride[outer] != stride[inner] * e.shape[inner]) return false;
    return true;
}

}  // namespace merging

// The elements and what is computed stay the same; arrays that are not there have strides of 0.
inline void merge_axes(Elements& e, size_t size) {
    using namespace merging;
    int kept = 0;
    for (int a = 0; a < e.axes; ++a)
        if (e.shape[a] != 1) swap_axes(e, kept++, a);
    for (int a = 0; a < kept; ++a) {
        if (e.stride[Elements::result][a] < 0) turn(e, a, size);
        for (int b = a; b > 0 && e.stride[Elements::result][b - 1] < e.stride[Elements::result][b]; --b) swap_axes(e, b - 1, b);
    }
    e.axes = 0;
    for (int a = 0; a < kept; ++a) {
        if (e.axes && continues(e, e.axes - 1, a)) {
            e.shape[e.axes - 1] *= e.shape[a];
            for (auto& stride : e.stride) stride[e.axes - 1] = stride[a];
        } else {
            swap_axes(e, e.axes++, a);
        }
    }
    if (e.axes == 0) {
        e.axes = 1, e.shape[0] = 1;
        for (auto& stride : e.stride) stride[0] = 1;
    }
}

}  // namespace fastconv
