// From a Job to an Algorithm: what all direct kernels do the same way around their own packing and computing.
//
// Job<T>(problem, call, threads) has
//   p, call, tasks, strides                               the problem (rows merged), its arrays, the cut, how x is read
//   slice                                                 the problem with as many channels as `tap` has offsets for
//   Packing<T>(problem).bytes(problem), pack(...)         the weights
//   Scratch(job, base): tap, bytes                        memory of one part, laid out from base
//   list(box, scratch) -> count                           where the box reads and writes; kept while the box stays the same
//   compute(task, box, scratch, count)                    one task
//
// Jobs need names of their own (Gemm, Direct): gcc gives Driver<Job> external linkage even where Job is in an unnamed
// namespace, and two of one name would silently become one.
#pragma once
#include "shares.hpp"
#include "slab.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <template <class> class Job>
struct Driver {
    template <class T>
    struct Running {
        Job<T> job;
        Shares shares;
    };

    template <class T>
    static void part(void* context, int64_t index) {
        const Running<T>& running = *static_cast<Running<T>*>(context);
        const Job<T>& job = running.job;
        const FlushDenormals flush(!job.p.strict);
        using Scratch = typename Job<T>::Scratch;
        char* memory = static_cast<char*>(job.call.workspace) + Shares::bytes(job.tasks.parts);
        Scratch scratch(job, memory + size_t(index) * Scratch(job, nullptr).bytes);
        fill_taps(job.slice, job.strides, scratch.tap);
        int64_t listed = -1, count = 0;
        running.shares.each(index, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const Tasks::Task task = job.tasks.at(i);
                const Box box(job.p, job.blocking, task.box);
                if (task.box != listed) count = job.list(box, scratch);
                listed = task.box;
                job.compute(task, box, scratch, count);
            }
        });
    }

    template <class T>
    static void run(const Problem& problem, const Call& call) {
        Problem p = problem;
        merge_rows(p, call);
        Running<T> running{Job<T>(p, call, call.threads), {}};
        const Tasks& tasks = running.job.tasks;
        running.shares.deal(call, tasks.count(tasks.chunks), tasks.parts);
        call.parallel_for(tasks.parts, part<T>, &running);
    }

    template <class T>
    static size_t workspace(const Problem& problem, int threads) {
        size_t bytes = 0;
        for (int merges = 0; merges < max_axes; ++merges)  // how far rows merge, whether the input is read where it lies, and in
            for (bool raw : {false, true})                 // which order a slab is, depends on the strides of a call
                for (int64_t channel : {0, 1}) {
                    static T anything;
                    Problem p = problem;
                    Call some{};
                    merge_rows(p, some, merges);
                    some.input.data = raw ? &anything : nullptr;
                    some.input.channel = channel, some.input.space[2] = 1;
                    const Job<T> job(p, some, threads);
                    const size_t scratch = size_t(job.tasks.parts) * typename Job<T>::Scratch(job, nullptr).bytes;
                    bytes = std::max(bytes, Shares::bytes(job.tasks.parts) + scratch);
                }
        return bytes;
    }

    static Algorithm algorithm(const char* name) {
        return {
            name,
            [](const Problem&) -> const char* { return nullptr; },
            [](const Problem& p) {
                return p.dtype == Dtype::float32 ? typename Job<float>::Packing(p).bytes(p) : typename Job<double>::Packing(p).bytes(p);
            },
            [](const Problem& p, int threads) {
                return p.dtype == Dtype::float32 ? workspace<float>(p, threads) : workspace<double>(p, threads);
            },
            [](const Problem&, int) { return size_t(0); },
            [](const Problem& p, const void* weight, const void* bias, void* packed, void*, int threads, ParallelFor parallel_for) {
                (p.dtype == Dtype::float32 ? Job<float>::pack : Job<double>::pack)(p, weight, bias, packed, threads, parallel_for);
            },
            [](const Problem& p, const Call& call) { (p.dtype == Dtype::float32 ? run<float> : run<double>)(p, call); },
        };
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
