// Forbidden memory between the pieces of a workspace, in builds with AddressSanitizer: it sees what leaves an allocation, but not
// what leaves a piece of one for the next. Elsewhere there are no fences.
#pragma once
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define FASTCONV_FENCES 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FASTCONV_FENCES 1
#endif
#endif
#ifdef FASTCONV_FENCES
#include <sanitizer/asan_interface.h>
#endif

namespace fastconv {

#ifdef FASTCONV_FENCES
constexpr size_t fence_bytes = 64;
inline void forbid(const void* memory, size_t bytes) { __asan_poison_memory_region(memory, bytes); }
inline void allow(const void* memory, size_t bytes) { __asan_unpoison_memory_region(memory, bytes); }
#else
constexpr size_t fence_bytes = 0;
inline void forbid(const void*, size_t) {}
inline void allow(const void*, size_t) {}
#endif

}  // namespace fastconv
