// How a long call gives way to Python's signal handlers (Ctrl-C): every 50 ms its own thread asks Python between two pieces of work.
// A handler that raises ends the call. One that does not may do anything, convolutions too: whatever is not on the stack of a call is
// its own for as long as it runs.
#pragma once
#include <Python.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <pthread.h>
#endif

#include "abi.hpp"

namespace fastconv {

// Python's handlers run on the main thread only; the others need not wait for the interpreter to learn that.
inline bool on_main_thread() {
#if defined(__linux__)
    return syscall(SYS_gettid) == getpid();
#elif defined(__APPLE__)
    return pthread_main_np();
#else
    return true;
#endif
}

class Signals {
public:
    Signals(const Problem& p, int threads) : work_(double(p.batch) * double(p.groups * p.out_channels) * double(p.in_channels)) {
        for (int a = 0; a < max_axes; ++a) work_ *= double(p.output[a]) * double(p.kernel[a]);
        work_ /= threads;
    }
    explicit Signals(double work) : work_(work) {}  // of a thread, in multiply-adds or what takes as long
    Signals(const Signals&) = delete;

    Interrupt interrupt() {
        if (work_ < long_work) return {};
        return {ask, this, static_cast<int64_t>(work_ / piece_work)};
    }

    // Whether a handler raised: Python's error is set.
    bool raised() const { return raised_.load(std::memory_order_relaxed); }

private:
    static constexpr double long_work = 1e7;   // multiply-adds of a thread: a millisecond or less, unless something is very slow
    static constexpr double piece_work = 3e7;  // about a millisecond
    static constexpr std::chrono::milliseconds pause{50};
    using Clock = std::chrono::steady_clock;

    static bool ask(void* whose) {
        Signals& call = *static_cast<Signals*>(whose);
        if (call.raised()) return true;
        if (call.thread_ != this_thread() || Clock::now() < call.next_) return false;
        if (call.asking_) call.raised_.store(handlers_raise(), std::memory_order_relaxed);
        call.asking_ = on_main_thread();
        call.next_ = call.asking_ ? Clock::now() + pause : Clock::time_point::max();
        return call.raised();
    }
    static bool handlers_raise() {
        const PyGILState_STATE state = PyGILState_Ensure();
        const bool raise = PyErr_CheckSignals() != 0;
        PyGILState_Release(state);
        return raise;
    }
    static const void* this_thread() {
        static thread_local char here;
        return &here;
    }

    double work_;
    const void* thread_ = this_thread();
    bool asking_ = false;  // the first time only looks at the clock and at the thread
    Clock::time_point next_{};
    std::atomic<bool> raised_{false};
};

}  // namespace fastconv
