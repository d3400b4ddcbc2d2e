// The outputs of a box as algorithms go through them whose channels are on the vector: pixel by pixel, in runs along w, from sums that
// lie in this order to where the arrays have them.
#pragma once
#include "finish.hpp"
#include "tiling.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

struct Run {  // pixels that follow each other: the first of the box, how many, and where the arrays have them
    int64_t first, count, output, residual;
};

// Where the first pixel of a row of a box is read: the caller's array, if that is read where it lies (raw), or a slab.
inline int64_t first_pixel(const Strides& s, bool raw, const Box& box, int64_t d, int64_t h) {
    return raw ? s.pixel(box.begin[0] + d, box.begin[1] + h, box.begin[2]) : s.pixel(d, h, 0);
}

// to[i] = first + i step
inline void fill_steps(int64_t* to, int64_t first, int64_t step, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = first + i * step;
}

// visit(pixel, d, h, output) for each row: the number of its first pixel, its place in the box, and where the output has that. How many
// runs there are; rows that go on from each other are one.
template <class Visit>
int64_t list_runs(const Call& call, const Box& box, Run* runs, const Visit& visit) {
    const View &y = call.output, &r = call.residual;
    int64_t listed = 0, count = 0;
    for (int64_t d = 0; d < box.size[0]; ++d)
        for (int64_t h = 0; h < box.size[1]; ++h) {
            const int64_t od = box.begin[0] + d, oh = box.begin[1] + h, ow = box.begin[2];
            const Run run{count, box.size[2], od * y.space[0] + oh * y.space[1] + ow * y.space[2],
                          od * r.space[0] + oh * r.space[1] + ow * r.space[2]};
            Run* last = runs + listed - 1;
            const bool follows = listed && last->output + last->count * y.space[2] == run.output &&
                                 (!r.data || last->residual + last->count * r.space[2] == run.residual);
            if (follows) last->count += run.count;
            else runs[listed++] = run;
            visit(count, d, h, run.output);
            count += run.count;
        }
    return listed;
}

// sums[pixel][width], of which `channels` from `channel` on count, to the output.
template <class T>
void finish_runs(const Problem& p, const Call& call, int64_t image, int64_t channel, int64_t channels, const T* sums, int64_t width,
                 const Run* runs, int64_t count) {
    const Finish<T> put(p, call);
    T* const y = at<T>(call.output, image, channel);
    const T* const r = at<const T>(call.residual, image, channel);
    for (const Run* run = runs; run < runs + count; ++run)
        put(sums + run->first * width, width, channels, run->count, y + run->output, r ? r + run->residual : nullptr);
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
