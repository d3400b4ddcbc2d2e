// From a Job to an Algorithm: what all direct kernels do the same way around their own packing and computing.
//
// Job<T>(region, threads), after its rows are merged, has
//   p, call, tasks, strides                               the problem, its arrays, the cut, how x is read
//   slice                                                 the problem with as many channels as `tap` has offsets for
//   Packing<T>(problem).bytes(problem), pack(...)         the weights
//   finite(problem, packed)                               whether all of them are
//   Scratch(job, base): tap, bytes                        memory of one part, laid out from base
//   kept                                                  which of the weights the region's products have
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
        int64_t regions, parts;
        Job<T>* jobs;    // of each region
        int64_t* first;  // tasks of the regions before, at the end of all
        char *ranges, *scratch;       // of the shares; of all parts
        size_t scratch_bytes, bytes;  // of one part; of everything
        Shares shares;

        // With a null base it only adds up.
        Running(const Problem& p, const Call& call, const Regions& cut, int threads, int merges, void* base) : regions(cut.count()) {
            Arena arena(base);
            jobs = arena.take<Job<T>>(regions), first = arena.take<int64_t>(regions + 1);
            int64_t tasks = 0, most = 1;
            double work = 0;
            scratch_bytes = 0;
            for (int64_t r = 0; r < regions; ++r) {
                Region region = cut.at(p, call, r);
                merge_rows(region.p, region.call, merges);
                const auto add = [&](const Job<T>& job) {
                    scratch_bytes = std::max(scratch_bytes, typename Job<T>::Scratch(job, nullptr).bytes);
                    work += multiply_adds(job.p), most = job.tasks.parts;
                    tasks += job.tasks.count(job.tasks.chunks);
                };
                if (base) first[r] = tasks, add(*new (jobs + r) Job<T>(region, threads));
                else add(Job<T>(region, threads));
            }
            if (base) first[regions] = tasks;
            parts = regions == 1 ? most : Tasks::worthwhile(work, threads);
            ranges = arena.take<char>(int64_t(Shares::bytes(parts)));
            scratch = arena.take<char>(parts * int64_t(scratch_bytes));
            bytes = arena.used();
        }
        int64_t region(int64_t task) const {
            return regions == 1 ? 0 : std::upper_bound(first, first + regions, task) - first - 1;
        }
    };

    template <class T>
    static void part(void* context, int64_t index) {
        const Running<T>& running = *static_cast<Running<T>*>(context);
        const FlushDenormals flush(!running.jobs->p.strict);
        using Scratch = typename Job<T>::Scratch;
        char* memory = running.scratch + size_t(index) * running.scratch_bytes;
        Scratch scratch(*running.jobs, memory);
        int64_t now = -1, listed = -1, count = 0;
        running.shares.each(index, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t r = running.region(i);
                const Job<T>& job = running.jobs[r];
                if (r != now) {
                    if (running.regions > 1) scratch = Scratch(job, memory);
                    fill_taps(job.slice, job.strides, scratch.tap);
                    if (job.kept.some) fill_taps(job.slice, job.kept.weights, scratch.kept);
                    now = r, listed = -1;
                }
                const Tasks::Task task = job.tasks.at(i - running.first[r]);
                const Box box(job.p, job.blocking, task.box);
                if (task.box != listed) count = job.list(box, scratch);
                listed = task.box;
                job.compute(task, box, scratch, count);
            }
        });
    }

    template <class T>
    static void run(const Problem& p, const Call& call) {
        const Regions cut(p, true);
        const bool good = cut.whole() || Job<T>::finite(p, call.packed);
        Running<T> running(p, call, good ? cut : Regions(p, false), call.threads, max_axes - 1, call.workspace);
        running.shares.deal(running.ranges, call.interrupt, running.first[running.regions], running.parts);
        call.parallel_for(running.parts, part<T>, &running);
    }

    template <class T>
    static size_t workspace(const Problem& p, int threads) {
        size_t bytes = 0;
        for (bool finite : {false, true}) {
            const Regions cut(p, finite);
            if (finite && cut.whole()) break;
            for (int merges = 0; merges < max_axes; ++merges)  // how far rows merge, whether the input is read where it lies, and in
                for (bool raw : {false, true})                 // which order a slab is, depends on the strides of a call
                    for (int64_t channel : {0, 1}) {
                        static T anything;
                        Call some{};
                        some.input.data = raw ? &anything : nullptr;
                        some.input.channel = channel, some.input.space[2] = 1;
                        bytes = std::max(bytes, Running<T>(p, some, cut, threads, merges, nullptr).bytes);
                    }
        }
        return bytes;
    }

    // Whether two tasks of different threads have the same weights.
    template <class T>
    static bool shares_packed(const Problem& p, int threads) {
        const Tasks tasks = Job<T>(Regions(p, false).at(p, Call{}, 0), threads).tasks;
        return tasks.parts > 1 && tasks.boxes * tasks.images > 1;
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
            [](const Problem& p, const PackCall& call) { (p.dtype == Dtype::float32 ? Job<float>::pack : Job<double>::pack)(p, call); },
            [](const Problem& p, int threads) {
                return p.dtype == Dtype::float32 ? shares_packed<float>(p, threads) : shares_packed<double>(p, threads);
            },
            [](const Problem& p, const Call& call) { (p.dtype == Dtype::float32 ? run<float> : run<double>)(p, call); },
        };
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
