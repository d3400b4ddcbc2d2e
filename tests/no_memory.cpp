// Preloaded by test_no_memory: the n-th allocation (or thread) that fastconv's own modules ask for fails.
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <atomic>
#include <new>

extern "C" void* __libc_malloc(size_t);
extern "C" void* __libc_memalign(size_t, size_t);
static std::atomic<long> left{0}, failed{0};
static std::atomic<bool> forever{false};
extern "C" void fail_allocation(long n, int from_then_on) { failed = 0, forever = from_then_on, left = n; }
extern "C" long allocations_failed() { left = 0; forever = false; return failed; }

static bool fails(void* caller) {
    Dl_info who;
    if ((left <= 0 && !(forever && failed > 0)) || !dladdr(caller, &who) || !strstr(who.dli_fname, "/fastconv/_")) return false;
    if (failed > 0 && forever) return ++failed, true;
    return left > 0 && --left == 0 && ++failed;
}
#define FAILS fails(__builtin_return_address(0))

extern "C" int posix_memalign(void** memory, size_t alignment, size_t size) {
    if (FAILS) return ENOMEM;
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : ENOMEM;
}
extern "C" void* malloc(size_t size) { return FAILS ? nullptr : __libc_malloc(size); }
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* how, void* (*body)(void*), void* argument) {
    if (FAILS) return EAGAIN;
    return reinterpret_cast<decltype(&pthread_create)>(dlsym(RTLD_NEXT, "pthread_create"))(thread, how, body, argument);
}
using std::align_val_t;
using std::nothrow_t;
static void* made(size_t size, size_t alignment, bool no, bool throws) {
    void* const memory = no ? nullptr : alignment ? __libc_memalign(alignment, size) : __libc_malloc(size);
    if (!memory && throws) throw std::bad_alloc();
    return memory;
}
void* operator new(size_t n) { return made(n, 0, FAILS, true); }
void* operator new[](size_t n) { return made(n, 0, FAILS, true); }
void* operator new(size_t n, const nothrow_t&) noexcept { return made(n, 0, FAILS, false); }
void* operator new[](size_t n, const nothrow_t&) noexcept { return made(n, 0, FAILS, false); }
void* operator new(size_t n, align_val_t a) { return made(n, size_t(a), FAILS, true); }
void* operator new[](size_t n, align_val_t a) { return made(n, size_t(a), FAILS, true); }
void* operator new(size_t n, align_val_t a, const nothrow_t&) noexcept { return made(n, size_t(a), FAILS, false); }
void* operator new[](size_t n, align_val_t a, const nothrow_t&) noexcept { return made(n, size_t(a), FAILS, false); }
