// One caller at a time owns the pool (`active`); everybody else, nested calls included, runs serially. The owner posts
// one part to each worker's own cache line, starts on part 0, then takes back every part whose worker has not begun.
//
//                 post                      claim (worker)            done (worker)
//     idle   ------------>  posted          ------------->  busy   ------------->  idle
//     asleep ------------>  posted_asleep   --wake-> posted
//                           posted, posted_asleep  --take back (caller)->  idle, asleep
//     idle --(worker, after spinning)-> asleep         busy --(caller, after spinning)-> busy_awaited --done-> idle
//
// Every arrow is one compare-and-swap or exchange of Worker::state, so each part is run by exactly one thread.
// Happens-before: `work` is written before the release in post and read after the acquire in claim; what a part wrote
// is published by the release in done, which the caller acquires in await. The same edge allows it to rewrite `work`.
// Workers never touch the region after done, so it may live on the caller's stack.
#include "threads.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace fastconv {
namespace {

constexpr int max_threads = 1024;
constexpr int min_thread_limit = 16;            // a small machine may be asked for this many threads all the same
constexpr size_t stack_bytes = size_t(1) << 20;
constexpr size_t line = 128;                    // two cache lines: the prefetcher fetches pairs
constexpr int64_t worker_spin_ns = 50'000;      // longer than the gap between two layers; a sleeper costs ~5 us to wake
constexpr int64_t caller_spin_ns = 200'000;
constexpr int64_t calls_before_retry = 1'000;   // after a thread could not be created
constexpr int wake_fan_out = 4;                 // woken workers wake others: 63 sleepers are up after 3 steps

void pause() {
#if defined(__x86_64__) || defined(__i386__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("isb" ::: "memory");
#endif
}

int64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

// Spins until ready() or until `limit_ns` have passed; returns ready(). The clock (~25 ns) is read every 32 pauses.
template <class Ready>
bool spin_until(Ready ready, int64_t limit_ns) {
    if (ready()) return true;
    if (limit_ns == 0) return false;
    const int64_t deadline = now_ns() + limit_ns;
    do {
        for (int i = 0; i < 32; ++i) {
            pause();
            if (ready()) return true;
        }
    } while (now_ns() < deadline);
    return false;
}

// Rounding and denormal modes. Workers take over the caller's, or results would depend on who ran a part.
#if defined(__SSE2__)
uint64_t float_mode() { return _mm_getcsr() & ~0x3fu; }  // without the sticky exception flags
void set_float_mode(uint64_t mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
uint64_t float_mode() {
    uint64_t mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
void set_float_mode(uint64_t mode) { asm volatile("msr fpcr, %0" ::"r"(mode)); }
#else
uint64_t float_mode() { return 0; }
void set_float_mode(uint64_t) {}
#endif

enum State : uint32_t { idle, posted, posted_asleep, busy, busy_awaited, asleep };

// Parts 1 .. team-1 belong to one worker each, the same one in every region (its cache is warm); parts team .. parts-1,
// which exist only when there are fewer threads than parts, go to whoever comes first.
struct Work {
    Body body;
    void* context;
    int64_t parts, team;
    uint64_t float_mode;
};

struct ThreadPool;

struct alignas(line) Worker {
    std::atomic<uint32_t> state{idle};
    Work work;
    alignas(line) std::mutex mutex;  // only for sleeping
    std::condition_variable woken, done;
    ThreadPool* pool;
    int64_t part;
#if defined(__linux__)
    std::atomic<pid_t> thread{0};
    cpu_set_t allowed;  // given back by the worker once it runs
    bool steered = false;
#endif
};

struct ThreadPool {
    alignas(line) std::atomic<bool> active{false};
    alignas(line) std::atomic<int64_t> next_extra{0};
    alignas(line) std::atomic<int64_t> spin_ns{0};  // this and all below: written by the owner of `active` only
    std::atomic<int64_t> workers{0};
    int64_t limit = 0, cpus = 1, calls_to_retry = 0;
    Worker* worker[max_threads];  // [part]; 0 unused
};

void run_extra_parts(ThreadPool& pool, const Work& work) {
    if (work.parts == work.team) return;
    for (;;) {
        const int64_t part = pool.next_extra.fetch_add(1, std::memory_order_relaxed);
        if (part >= work.parts) return;
        work.body(work.context, part);
    }
}

// A sleeper is often woken onto the CPU of its waker, and both share it until the kernel balances its load, 10 ms and more:
// all of a layer at half the speed. So it is woken beside that CPU. Done before the state changes, while the worker sleeps.
void steer(Worker& worker) {
#if defined(__linux__)
    const int here = sched_getcpu();
    const pid_t thread = worker.thread.load(std::memory_order_relaxed);
    cpu_set_t beside;
    if (here < 0 || thread == 0 || sched_getaffinity(0, sizeof beside, &beside) != 0) return;
    worker.allowed = beside;
    CPU_CLR(here, &beside);
    worker.steered = CPU_COUNT(&beside) > 0 && sched_setaffinity(thread, sizeof beside, &beside) == 0;
#endif
}

void stop_steering(Worker& worker) {
#if defined(__linux__)
    if (worker.steered) sched_setaffinity(0, sizeof worker.allowed, &worker.allowed);
    worker.steered = false;
#endif
}

void wake(Worker& worker) {
    uint32_t expected = posted_asleep;
    if (worker.state.load(std::memory_order_relaxed) != posted_asleep) return;
    steer(worker);
    if (!worker.state.compare_exchange_strong(expected, posted, std::memory_order_acq_rel)) return;
    { std::lock_guard<std::mutex> lock(worker.mutex); }  // it is now either waiting or will see `posted`
    worker.woken.notify_one();
}

void wake_children(ThreadPool& pool, int64_t part, int64_t team) {
    const int64_t first = part * wake_fan_out + 1;
    for (int64_t child = first; child < std::min(first + wake_fan_out, team); ++child) wake(*pool.worker[child]);
}

// ---------------------------------------------------------------------------------------------------- worker's side

// Returns once the worker owns `work`.
void claim(Worker& worker) {
    const auto is_posted = [&] { return worker.state.load(std::memory_order_relaxed) == posted; };
    for (;;) {
        if (spin_until(is_posted, worker.pool->spin_ns.load(std::memory_order_relaxed))) {
            uint32_t expected = posted;
            if (worker.state.compare_exchange_strong(expected, busy, std::memory_order_acquire)) return;
            continue;  // taken back by the caller: a region has just ended, the next may be near
        }
        uint32_t expected = idle;
        if (!worker.state.compare_exchange_strong(expected, asleep, std::memory_order_acq_rel)) continue;
        std::unique_lock<std::mutex> lock(worker.mutex);
        worker.woken.wait(lock, [&] {
            const uint32_t state = worker.state.load(std::memory_order_acquire);
            return state != asleep && state != posted_asleep;
        });
    }
}

void* worker_main(void* argument) {
    Worker& worker = *static_cast<Worker*>(argument);
    ThreadPool& pool = *worker.pool;
#if defined(__linux__)
    worker.thread.store(static_cast<pid_t>(syscall(SYS_gettid)), std::memory_order_relaxed);
#endif
    for (;;) {
        claim(worker);
        stop_steering(worker);
        const Work work = worker.work;
        wake_children(pool, worker.part, work.team);
        if (float_mode() != work.float_mode) set_float_mode(work.float_mode);
        work.body(work.context, worker.part);
        run_extra_parts(pool, work);
        if (worker.state.exchange(idle, std::memory_order_acq_rel) == busy_awaited) {
            { std::lock_guard<std::mutex> lock(worker.mutex); }
            worker.done.notify_one();
        }
    }
}

// ---------------------------------------------------------------------------------------------------- caller's side

void post(Worker& worker, const Work& work) {
    worker.work = work;
    uint32_t state = worker.state.load(std::memory_order_relaxed);
    while (!worker.state.compare_exchange_weak(state, state == asleep ? posted_asleep : posted,
                                               std::memory_order_acq_rel, std::memory_order_relaxed)) {
    }
}

bool take_back(Worker& worker) {
    uint32_t state = worker.state.load(std::memory_order_relaxed);
    while (state == posted || state == posted_asleep) {
        if (worker.state.compare_exchange_weak(state, state == posted ? idle : asleep, std::memory_order_acq_rel,
                                               std::memory_order_relaxed))
            return true;
    }
    return false;
}

void await(Worker& worker, int64_t spin_ns) {
    if (spin_until([&] { return worker.state.load(std::memory_order_acquire) != busy; }, spin_ns)) return;
    uint32_t expected = busy;
    if (!worker.state.compare_exchange_strong(expected, busy_awaited, std::memory_order_acq_rel,
                                              std::memory_order_acquire))
        return;
    std::unique_lock<std::mutex> lock(worker.mutex);
    worker.done.wait(lock, [&] { return worker.state.load(std::memory_order_acquire) != busy_awaited; });
}

bool start_worker(ThreadPool& pool, int64_t part) {
    Worker* worker = new (std::nothrow) Worker;
    if (!worker) return false;
    worker->pool = &pool;
    worker->part = part;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) {
        delete worker;
        return false;
    }
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, stack_bytes);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // inherited: Python's signals are for Python's threads
    pthread_t thread;
    const bool started = pthread_create(&thread, &attributes, worker_main, worker) == 0;
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_attr_destroy(&attributes);
    if (!started) {
        delete worker;
        return false;
    }
#if defined(__linux__)
    pthread_setname_np(thread, "fastconv");
#endif
    pool.worker[part] = worker;
    pool.workers.store(part, std::memory_order_relaxed);
    return true;
}

// Number of threads for a region, the caller included.
int64_t gather_team(ThreadPool& pool, int64_t parts) {
    const int64_t wanted = std::min(parts - 1, pool.limit - 1);
    int64_t workers = pool.workers.load(std::memory_order_relaxed);
    if (workers < wanted && pool.calls_to_retry > 0) {
        --pool.calls_to_retry;
    } else if (workers < wanted) {
        pool.cpus = available_cpus();
        while (workers < wanted && start_worker(pool, workers + 1)) ++workers;
        if (workers < wanted) pool.calls_to_retry = calls_before_retry;
    }
    return std::min(workers, wanted) + 1;
}

void run_region(ThreadPool& pool, int64_t parts, Body body, void* context) {
    const int64_t team = gather_team(pool, parts);
    const bool crowded = team > pool.cpus;  // a spinning thread would keep a working one from its CPU
    pool.spin_ns.store(crowded ? 0 : worker_spin_ns, std::memory_order_relaxed);
    const Work work{body, context, parts, team, float_mode()};
    if (parts > team) pool.next_extra.store(team, std::memory_order_relaxed);
    for (int64_t part = 1; part < team; ++part) post(*pool.worker[part], work);
    wake_children(pool, 0, team);
    body(context, 0);
    run_extra_parts(pool, work);
    for (int64_t part = 1; part < team; ++part)
        if (take_back(*pool.worker[part])) body(context, part);
    for (int64_t part = 1; part < team; ++part) await(*pool.worker[part], crowded ? 0 : caller_spin_ns);
}

// ------------------------------------------------------------------------------------------------------- the pool

std::atomic<ThreadPool*> the_pool{nullptr};
std::atomic<int> cpu_limit{0};  // 0: none

// Only the forking thread lives on in the child: its parent's pool, whatever state it was in, is left alone for good.
void forget_pool() { the_pool.store(nullptr, std::memory_order_relaxed); }

ThreadPool* get_pool() {
    ThreadPool* pool = the_pool.load(std::memory_order_acquire);
    if (pool) return pool;
    static const bool registered = pthread_atfork(nullptr, nullptr, forget_pool) == 0;
    if (!registered) return nullptr;
    ThreadPool* fresh = new (std::nothrow) ThreadPool;
    if (!fresh) return nullptr;
    fresh->cpus = available_cpus();
    fresh->limit = std::min<int64_t>(max_threads, std::max<int64_t>(fresh->cpus, min_thread_limit));
    if (!the_pool.compare_exchange_strong(pool, fresh, std::memory_order_acq_rel, std::memory_order_acquire)) {
        delete fresh;  // another thread was first
        return pool;
    }
    return fresh;
}

}  // namespace

void parallel_for(int64_t parts, Body body, void* context) {
    ThreadPool* pool = parts > 1 ? get_pool() : nullptr;
    const bool mine = pool && !pool->active.load(std::memory_order_relaxed) &&
                      !pool->active.exchange(true, std::memory_order_acquire);
    if (!mine) {
        for (int64_t part = 0; part < parts; ++part) body(context, part);
        return;
    }
    run_region(*pool, parts, body, context);
    pool->active.store(false, std::memory_order_release);
}

int worker_count() {
    const ThreadPool* pool = the_pool.load(std::memory_order_acquire);
    return pool ? static_cast<int>(pool->workers.load(std::memory_order_relaxed)) : 0;
}

void limit_cpus(int count) { cpu_limit.store(count, std::memory_order_relaxed); }

int available_cpus() {
    int cpus = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) cpus = CPU_COUNT(&set);
#endif
    const int limit = cpu_limit.load(std::memory_order_relaxed);
    return std::max(1, limit > 0 ? std::min(limit, cpus) : cpus);
}

}  // namespace fastconv
