// What runtime.pyx needs of the machine: CPU features, aligned memory, and two measurements.
#pragma once
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
#include <utility>

#include "fences.hpp"
#include "interrupt.hpp"
#include "pointwise_abi.hpp"
#include "pool_abi.hpp"
#include "threads.hpp"
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace fastconv {

// ---------------------------------------------------------------------------------------------------- CPU features

// Every feature of x86-64-v3 and -v4, and that the system saves the registers. Asked of the CPU itself: not every
// supported compiler's __builtin_cpu_supports knows all of the names.
#if defined(__x86_64__)
inline bool has_all(unsigned word, std::initializer_list<int> bits) {
    for (int bit : bits)
        if (!(word >> bit & 1)) return false;
    return true;
}

inline bool system_saves(unsigned registers) {
    unsigned low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & registers) == registers;
}

inline bool cpu_runs_avx2() {
    unsigned a, b, c, d;
    // sse3, ssse3, fma, cmpxchg16b, sse4.1, sse4.2, movbe, popcnt, osxsave, avx, f16c
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has_all(c, {0, 9, 12, 13, 19, 20, 22, 23, 27, 28, 29})) return false;
    if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !has_all(c, {0, 5})) return false;           // lahf, lzcnt
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has_all(b, {3, 5, 8})) return false;        // bmi1, avx2, bmi2
    return system_saves(0x06);                                                                    // xmm, ymm
}

inline bool cpu_runs_avx512() {
    unsigned a, b, c, d;
    if (!cpu_runs_avx2() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    return has_all(b, {16, 17, 28, 30, 31}) && system_saves(0xe6);  // f, dq, cd, bw, vl; also masks, zmm
}
#else
inline bool cpu_runs_avx2() { return false; }
inline bool cpu_runs_avx512() { return false; }
#endif

// Asked once: in a virtual machine each CPUID takes some 50 us, as long as a small convolution.
inline bool runs_avx2() {
    static const bool runs = cpu_runs_avx2();
    return runs;
}

inline bool runs_avx512() {
    static const bool runs = cpu_runs_avx512();
    return runs;
}

// ---------------------------------------------------------------------------------------------------------- memory

constexpr size_t huge_page = size_t(2) << 20;

// 64-byte aligned, uninitialised, to be freed with free(); null when there is none. From `huge_from` bytes on in huge pages:
// whether 4 KiB pages fall on each other in L2 is luck (up to 1.3x from one process to the next), and each costs a fault.
inline void* allocate(size_t bytes, size_t huge_from) {
    if (bytes > SIZE_MAX / 2) return nullptr;
    const bool large = bytes >= huge_from;
    const size_t size = large ? (bytes + huge_page - 1) / huge_page * huge_page : std::max<size_t>(bytes, 64);
    void* memory = nullptr;
    if (posix_memalign(&memory, large ? huge_page : 64, size) != 0) return nullptr;
#if defined(__linux__)
    if (large) madvise(memory, size, MADV_HUGEPAGE);
#endif
    forbid(static_cast<char*>(memory) + bytes, size - bytes);
    return memory;
}

struct Freer {
    void operator()(void* memory) const { free(memory); }
};

// Memory of packed weights. A call that packs for itself alone would have the system map and clear the same megabytes again
// and again: the last large block that was released is kept for the next of its size.
class Blocks {
public:
    static void* take(size_t bytes) {
        if (bytes >= kept_from) {
            std::unique_ptr<Block> block(kept().exchange(nullptr));
            if (block && block->bytes == bytes) return block->memory.release();
            keep(std::move(block));
        }
        return allocate(bytes, huge_page);
    }
    static void release(void* memory, size_t bytes) {
        std::unique_ptr<void, Freer> freed(memory);
        if (bytes >= kept_from && bytes <= kept_up_to) keep(std::unique_ptr<Block>(new (std::nothrow) Block{std::move(freed), bytes}));
    }

private:
    struct Block {
        std::unique_ptr<void, Freer> memory;
        size_t bytes;
    };
    static constexpr size_t kept_from = size_t(128) << 10, kept_up_to = size_t(128) << 20;
    static void keep(std::unique_ptr<Block> block) {
        if (block) std::unique_ptr<Block> dropped(kept().exchange(block.release()));
    }
    static std::atomic<Block*>& kept() {  // no lock: a forked child may not find one held
        static std::atomic<Block*> one{nullptr};
        return one;
    }
};

// A call's scratch memory: the calling thread's, which grows, and is kept between calls unless it is very large; a call inside a
// call (of a signal handler) has its own.
class Workspace {
public:
    explicit Workspace(size_t bytes) : mine_(std::exchange(kept(), Block{})) {
        if (bytes > mine_.bytes) {
            mine_.memory.reset();
            mine_.memory.reset(allocate(bytes, huge_page / 16));
            mine_.bytes = mine_.memory ? bytes : 0;
        }
        if (mine_.memory) forbid(static_cast<char*>(get()) + bytes, mine_.bytes - bytes);
    }
    ~Workspace() {
        allow(get(), mine_.bytes);
        if (mine_.bytes <= kept_bytes) kept() = std::move(mine_);
    }
    void* get() const { return mine_.memory.get(); }

private:
    struct Block {
        std::unique_ptr<void, Freer> memory;
        size_t bytes = 0;
    };
    static constexpr size_t kept_bytes = size_t(64) << 20;
    static Block& kept() {
        static thread_local Block block;
        return block;
    }
    Block mine_;
};

// body(memory), unless there is no scratch memory: false then.
template <class Body>
bool with_workspace(size_t bytes, Body body) {
    if (bytes == 0) return body(nullptr), true;
    const Workspace workspace(bytes);
    return workspace.get() && (body(workspace.get()), true);
}

// What became of a call. `raised`: it gave way to a signal handler that raised; Python's error is set. `outside`: an index was.
// `spoilt`: it has to be done again, in another way.
enum Outcome : int { raised = -1, no_memory = 0, done = 1, outside = 2, spoilt = 3 };

inline double multiply_adds_of(const Problem& p) {
    double all = double(p.batch) * double(p.groups * p.out_channels) * double(p.in_channels);
    for (int a = 0; a < max_axes; ++a) all *= double(p.output[a]) * double(p.kernel[a]);
    return all;
}

inline Outcome run_ready(const Algorithm& algorithm, const Problem& problem, Call& call, size_t workspace_bytes) {
    Signals signals(multiply_adds_of(problem) / call.threads);
    call.interrupt = signals.interrupt();
    const bool ran = with_workspace(workspace_bytes, [&](void* memory) {
        call.workspace = memory;
        algorithm.run(problem, call);
    });
    return signals.raised() ? raised : ran ? done : no_memory;
}

// ---- pointwise functions

// work: of all threads, in elements of vectors that are loaded, or what takes as long
template <class Operation>
Outcome run_team(void (*run)(const Operation&, const Team&), const Operation& operation, int threads, double work) {
    Signals signals(work / threads);
    const bool ran = with_workspace(operation.workspace_bytes(threads), [&](void* memory) {
        run(operation, {memory, threads, parallel_for, signals.interrupt()});
    });
    return signals.raised() ? raised : ran ? done : no_memory;
}

inline Outcome run_elements(const Module& module, const Elements& e, int threads) {
    return run_team(module.pointwise->elements, e, threads, 16.0 * double(e.size()));
}
inline Outcome run_batch_norm(const Module& module, const Normalization& n, int threads) {
    const double work = 16.0 * double(n.batch) * double(n.channels) * double(n.space);
    return run_team(n.gradient.data ? module.pointwise->batch_norm_gradient : module.pointwise->batch_norm, n, threads, work);
}
inline Outcome run_layer_norm(const Module& module, const LayerNormalization& n, int threads) {
    return run_team(module.pointwise->layer_norm, n, threads, 32.0 * double(n.rows) * double(n.length));
}
inline Outcome run_rows(const Module& module, const Rows& rows, int threads) {
    return run_team(module.pointwise->rows, rows, threads, 32.0 * double(rows.outer) * double(rows.length) * double(rows.inner));
}

inline Outcome run_update(const Module& module, const Update& u, int threads) {
    return run_team(module.pointwise->update, u, threads, 16.0 * double(u.count));
}

// With call.packed as pack_with_workspace or, in place, keep_plain wrote it.
inline Outcome run_with_workspace(const Algorithm& algorithm, const Problem& problem, Call& call, size_t workspace_bytes) {
    if (call.in_place) call.bias = problem.has_bias ? static_cast<const char*>(call.packed) + weight_bytes(problem) : nullptr;
    return run_ready(algorithm, problem, call, workspace_bytes);
}

// Weights that are read in place, and the bias behind them.
inline void keep_plain(const Problem& packing, const PackCall& call, void* to) {
    std::memcpy(to, call.weight, weight_bytes(packing));
    if (call.bias) std::memcpy(static_cast<char*>(to) + weight_bytes(packing), call.bias, plain_bytes(packing) - weight_bytes(packing));
}

// `call` but for the workspace; false if there is none.
inline bool pack_with_workspace(const Algorithm& algorithm, const Problem& packing, PackCall call) {
    return with_workspace(algorithm.pack_workspace_bytes(packing, call.threads), [&](void* memory) {
        call.workspace = memory;
        algorithm.pack(packing, call);
    });
}

// Memory that two cores have in their caches is slow to write (measured: 2.4 to 15 GB/s, by the hour, in a virtual machine; 40 past the
// caches), and the same block holds the packed weights of one call after another. A few bytes are better read from there.
constexpr size_t shared_from = size_t(32) << 10;
inline bool packed_is_shared(const Algorithm& algorithm, const Problem& problem, size_t packed_bytes, int threads) {
    return packed_bytes >= shared_from && threads > 1 && algorithm.shares_packed && algorithm.shares_packed(problem, threads);
}

// The same with weights that are packed for this call alone.
inline Outcome pack_and_run(const Algorithm& algorithm, const Problem& problem, const void* weight, const void* bias,
                         size_t packed_bytes, Call& call, size_t workspace_bytes) {
    call.in_place = algorithm.in_place(problem, true);
    if (call.in_place) {
        call.packed = weight, call.bias = bias;
        return run_ready(algorithm, problem, call, workspace_bytes);
    }
    void* const packed = Blocks::take(packed_bytes);
    if (!packed) return no_memory;
    call.packed = packed;
    const bool shared = packed_is_shared(algorithm, problem, packed_bytes, call.threads);
    const PackCall pack{weight, bias, packed, nullptr, call.threads, call.parallel_for, shared, nullptr};
    const bool ready = pack_with_workspace(algorithm, packing_of(problem), pack);
    const Outcome outcome = ready ? run_with_workspace(algorithm, problem, call, workspace_bytes) : no_memory;
    Blocks::release(packed, packed_bytes);
    return outcome;
}

// A call of pooling, ready but for the workspace. Every tap is worth a multiply-add, every input four: it comes from memory.
inline Outcome run_pool(const PoolKernel& kernel, const PoolProblem& problem, PoolCall& call) {
    double inputs = double(problem.batch) * double(problem.channels), taps = inputs;
    for (const PoolAxis& a : problem.axis) inputs *= double(a.input), taps *= double(a.output) * double(a.taps);
    Signals signals((taps + 4 * inputs) / call.threads);
    call.interrupt = signals.interrupt();
    bool inside = true;
    const bool ran = with_workspace(kernel.workspace_bytes(problem, call), [&](void* memory) {
        call.workspace = memory;
        inside = kernel.run(problem, call);
    });
    return signals.raised() ? raised : !ran ? no_memory : inside ? done : outside;
}

// What a job's context begins with (fastconv/backends/numba_jit/contexts.py): its own address, those of the arrays and of the scratch
// memory, how many parts there are, and the first of this round of them; set by a part: whether the call is spoilt.
struct JobHead {
    int64_t self, x, weights, bias, out, residual, scratch, parts, first, spoilt;
};

// `head` with the arrays and the parts, in front of what else `fields` has.
inline Outcome run_job(void (*body)(void*, int64_t), JobHead head, const void* fields, size_t bytes, size_t context_bytes,
                       size_t scratch_bytes) {
    const Workspace workspace(context_bytes + scratch_bytes);
    if (!workspace.get()) return no_memory;
    JobHead* const here = static_cast<JobHead*>(std::memcpy(workspace.get(), fields, bytes));
    head.self = int64_t(reinterpret_cast<uintptr_t>(here)), head.scratch = head.self + int64_t(context_bytes);
    *here = head;
    parallel_for(head.parts, body, here);
    return here->spoilt ? spoilt : done;
}

// ---------------------------------------------------------------------------------------------------- measurements

inline double now_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct alignas(128) Amount {
    double done;
};

// Calls step(part), which returns the amount it did, on `threads` threads until `seconds` have passed; amount per
// second. A thread that comes late does less, if only one step: the figure is what was done.
template <class Step>
double measure_rate(int threads, double seconds, Step step) {
    struct Region {
        Step& step;
        double deadline;
        std::unique_ptr<Amount[]> amounts;
    } region{step, 0, std::unique_ptr<Amount[]>(new (std::nothrow) Amount[threads])};
    if (!region.amounts) return 0;
    const Body body = [](void* context, int64_t part) {
        Region& mine = *static_cast<Region*>(context);
        double done = 0;
        do done += mine.step(part);
        while (now_seconds() < mine.deadline);
        mine.amounts[part].done = done;
    };
    region.deadline = now_seconds() + std::min(0.002, seconds);  // wakes the workers, warms the caches and the clocks
    parallel_for(threads, body, &region);
    const double start = now_seconds();
    region.deadline = start + seconds;
    parallel_for(threads, body, &region);
    const double elapsed = now_seconds() - start;
    double total = 0;
    for (int part = 0; part < threads; ++part) total += region.amounts[part].done;
    return total / elapsed;
}

inline double peak_flops(const Module& module, Dtype dtype, int threads, double seconds) {
    return measure_rate(threads, seconds, [&](int64_t) { return module.fma_loop(dtype, 64); });  // ~6 us
}

// Bytes read plus bytes written per second; negative when there is no memory for the two buffers.
inline double copy_bandwidth(size_t bytes, int threads, double seconds) {
    const std::unique_ptr<void, Freer> from(allocate(bytes, 2 * huge_page)), to(allocate(bytes, 2 * huge_page));
    if (!from || !to) return -1;
    const size_t chunk = bytes / threads;
    const int copies = static_cast<int>(std::max<size_t>(1, (size_t(1) << 18) / std::max<size_t>(chunk, 1)));
    struct Touch {
        char *from, *to;
        size_t chunk;
    } touch{static_cast<char*>(from.get()), static_cast<char*>(to.get()), chunk};
    parallel_for(threads, [](void* context, int64_t part) {  // by the thread that will use it: its memory node
        const Touch& t = *static_cast<Touch*>(context);
        std::memset(t.from + part * t.chunk, 1, t.chunk);
        std::memset(t.to + part * t.chunk, 2, t.chunk);
    }, &touch);
    return measure_rate(threads, seconds, [&](int64_t part) {
        for (int copy = 0; copy < copies; ++copy) {
            std::memcpy(touch.to + part * chunk, touch.from + part * chunk, chunk);
            asm volatile("" ::: "memory");
        }
        return 2.0 * static_cast<double>(chunk) * copies;
    });
}

}  // namespace fastconv
