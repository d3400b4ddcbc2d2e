// From a Job to an algorithm: what gemm and direct do the same way around their own packing and computing.
//
// Job(region, threads), after the region's rows are merged, has
//   p, call, tasks, strides                               the problem, its arrays, the cut, how x is read
//   slice                                                 the problem with as many channels as `tap` has offsets for
//   Packing(problem).bytes(problem), pack(...)            the weights
//   finite(problem, packed)                               whether all of them are
//   joins(problem)                                        whether boxes should have outputs of several images
//   Scratch(job, base): tap, bytes                        memory of one part, laid out from base
//   kept                                                  which of the weights the region's products have
//   list(box, scratch) -> count                           where the box reads and writes; kept while the box stays the same
//   compute(task, box, scratch, count)                    one task
#pragma once
#include "crew.hpp"
#include "slab.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

template <class Job>
struct Driver : Defaults {
    using Scratch = typename Job::Scratch;

    // All regions of a call. The workspace begins with their jobs; without one it only adds up.
    struct Running {
        int64_t regions;
        Job* jobs;       // of each region
        int64_t* first;  // tasks of the regions before, at the end of all
        Crew crew;
        size_t bytes;

        Running(const Problem& p, const Call& call, const Regions& cut, int threads, int merges) : regions(cut.count()) {
            const bool lives = call.workspace;
            Arena arena(call.workspace);
            jobs = arena.take<Job>(regions), first = arena.take<int64_t>(regions + 1);
            int64_t tasks = 0, most = 1;
            double work = 0;
            size_t scratch_bytes = 0;
            for (int64_t r = 0; r < regions; ++r) {
                Region region = cut.at(p, call, r);
                merge_rows(region.p, region.call, merges);
                const auto add = [&](const Job& job) {
                    scratch_bytes = std::max(scratch_bytes, Scratch(job, nullptr).bytes);
                    work += multiply_adds(job.p), most = job.tasks.parts;
                    tasks += job.tasks.count(job.tasks.chunks);
                };
                if (lives) first[r] = tasks, add(*new (jobs + r) Job(region, threads));
                else add(Job(region, threads));
            }
            if (lives) first[regions] = tasks;
            crew = Crew(p, call, regions == 1 ? most : threads_for(work, worth_a_thread::gemm, threads), scratch_bytes);
            crew.memory += arena.used();
            bytes = arena.used() + crew.bytes();
        }
        int64_t region(int64_t task) const {
            return regions == 1 ? 0 : std::upper_bound(first, first + regions, task) - first - 1;
        }

        template <class Each>
        void part(char* memory, const Each& each) const {
            Scratch scratch(*jobs, memory);
            int64_t now = -1, listed = -1, count = 0;
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                    const int64_t r = region(i);
                    const Job& job = jobs[r];
                    if (r != now) {
                        if (regions > 1) scratch = Scratch(job, memory);
                        fill_taps(job.slice, job.strides, scratch.tap);
                        if (job.kept.some) fill_taps(job.slice, job.kept.weights, scratch.kept);
                        now = r, listed = -1;
                    }
                    const Tasks::Task task = job.tasks.at(i - first[r]);
                    const Box box(job.p, job.blocking, task.box);
                    if (task.box != listed) count = job.list(box, scratch);
                    listed = task.box;
                    job.compute(task, box, scratch, count);
                }
            });
        }
    };

    static bool joins(const Problem& p) { return p.batch > 1 && has_free_axis(p) && Job::joins(p); }

    static void run(const Problem& p, const Call& call) {
        if (!joins(p)) return run_as_it_is(p, call);
        Problem joined = p;
        Call of_all = call;
        join_images(joined), join_images(of_all);
        run_as_it_is(joined, of_all);
    }

    // As many threads as a call is worth: for others it need not be cut.
    static int worth(const Problem& p, int threads) { return int(threads_for(multiply_adds(p), worth_a_thread::gemm, threads)); }

    static void run_as_it_is(const Problem& p, const Call& call) {
        const Regions cut(p, true);
        const bool good = cut.whole() || Job::finite(p, call.packed);
        const Running running(p, call, good ? cut : Regions(p, false), worth(p, call.threads), max_axes - 1);
        running.crew.share(running.first[running.regions],
                           [&](int64_t part, const auto& each) { running.part(running.crew.own(part), each); });
    }

    static size_t workspace_bytes(Problem p, int threads) {
        if (joins(p)) join_images(p);
        threads = worth(p, threads);
        size_t bytes = 0;
        for (bool finite : {false, true}) {
            const Regions cut(p, finite);
            if (finite && cut.whole()) break;
            for (int merges = 0; merges < max_axes; ++merges)  // how far rows merge, whether the input is read where it lies, and in
                for (bool raw : {false, true})                 // which order a slab is, depends on the strides of a call
                    for (int64_t channel : {0, 1}) {
                        static char anything;
                        Call some{};
                        some.input.data = raw ? &anything : nullptr;
                        some.input.channel = channel, some.input.space[2] = 1;
                        bytes = std::max(bytes, Running(p, some, cut, threads, merges).bytes);
                    }
        }
        return bytes;
    }

    static constexpr bool packs_any_order = Job::packs_any_order;
    static size_t packed_bytes(const Problem& p) { return typename Job::Packing(p).bytes(p); }
    static void pack(const Problem& p, const PackCall& call) { Job::pack(p, call); }

    // Whether two tasks of different threads have the same weights.
    static bool shares_packed(Problem p, int threads) {
        if (joins(p)) join_images(p);
        threads = worth(p, threads);
        const Tasks tasks = Job(Regions(p, false).at(p, Call{}, 0), threads).tasks;
        return tasks.parts > 1 && tasks.boxes * tasks.images > 1;
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
