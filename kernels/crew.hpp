// The frame of every algorithm: the parts of a call, one for each thread, which share its items and have memory of their own; and its
// entry in the table of a module, made of a class for each element type.
#pragma once
#include <type_traits>

#include "shares.hpp"
#include "simd.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// The least work that is worth another thread: some 10 us, while one that sleeps takes 5 to wake. In multiply-adds, of which some
// algorithms do more in that time than others, unless stated otherwise.
namespace worth_a_thread {
constexpr double gemm = 2e5;          // and direct
constexpr double winograd = 1e5;      // of transformed inputs and weights: the transforms come on top
constexpr double depthwise = 5e4;
constexpr double dot = 256 << 10;     // or bytes of weights, if they are more
constexpr double fft = 8 << 10;       // points of a tile's transforms, times channels
constexpr double pooling = 32 << 10;  // inputs and outputs
constexpr double packing = 64 << 10;  // weights, of gemm
constexpr double pointwise = 192 << 10;  // bytes read and written, or a quarter of that where each element takes an exponential
}  // namespace worth_a_thread

// How many of `threads` some work is worth, at least 1: each gets as much as is worth a thread.
inline int64_t threads_for(double work, double worth, int threads) {
    return std::max<int64_t>(1, int64_t(std::min<double>(threads, work / worth)));
}

// body(part) for part = 0 .. parts - 1, each on a thread of its own if there are as many.
template <class Body>
void for_parts(ParallelFor parallel_for, int64_t parts, const Body& body) {
    void* const context = const_cast<void*>(static_cast<const void*>(&body));
    parallel_for(parts, [](void* of, int64_t part) { (*static_cast<const Body*>(of))(part); }, context);
}

// body(begin, end, part) for the items 0 .. count - 1 in equal ranges: when packing, where waiting for the slowest thread costs little.
template <class Body>
void for_ranges(ParallelFor parallel_for, int64_t parts, int64_t count, const Body& body) {
    for_parts(parallel_for, parts, [&](int64_t part) { body(count * part / parts, count * (part + 1) / parts, part); });
}

// Its memory, a call's workspace: the ranges of the shares, what the parts have in common, what each has of its own.
struct Crew {
    int64_t parts = 1;
    size_t own_bytes = 0, common_bytes = 0;
    bool strict = false;
    char* memory = nullptr;
    ParallelFor parallel_for = nullptr;
    Interrupt interrupt{};

    Crew() = default;
    Crew(const Problem& p, const Call& call, int64_t parts_, size_t own, size_t common = 0)
        : parts(parts_), own_bytes(own), common_bytes(common), strict(p.strict), memory(static_cast<char*>(call.workspace)),
          parallel_for(call.parallel_for), interrupt(call.interrupt) {}

    size_t bytes() const { return Shares::bytes(parts) + common_bytes + size_t(parts) * own_bytes; }
    char* common() const { return memory + Shares::bytes(parts); }
    char* own(int64_t part) const { return common() + common_bytes + size_t(part) * own_bytes; }

    // body(part, each) once in every part; there, each(some) calls some(begin, end) for all that it gets of the items 0 .. count - 1.
    template <class Body>
    void share(int64_t count, const Body& body) const {
        Shares shares;
        shares.deal(memory, interrupt, count, parts);
        for_parts(parallel_for, parts, [&](int64_t part) {
            const FlushDenormals flush(!strict);
            body(part, [&](const auto& some) { shares.each(part, some); });
        });
    }
};

// Each part computes tiles of its own, or, where these are few and large, all parts the items of one tile after another. Memory: a board
// for each tile that is being worked on, a desk for each part.
struct TileCrew : Crew {
    bool together = false;
    size_t board_bytes = 0;

    TileCrew() = default;
    TileCrew(const Problem& p, const Call& call, int64_t parts_, bool together_, size_t board, size_t desk)
        : Crew(p, call, parts_, (together_ ? 0 : board) + desk + apart, together_ ? board : 0), together(together_), board_bytes(board) {}

    char* board(int64_t part) const { return together ? common() : own(part); }
    char* desk(int64_t part) const { return together ? own(part) : own(part) + board_bytes; }

    // body(tile, part)
    template <class Body>
    void tiles(int64_t count, const Body& body) const {
        if (!together) return share_one_by_one(count, body);
        for (int64_t tile = 0; tile < count; ++tile) body(tile, 0);
    }
    // body(item, part), of a tile of `part`
    template <class Body>
    void items(int64_t count, int64_t part, const Body& body) const {
        if (together) return share_one_by_one(count, body);
        for (int64_t item = 0; item < count; ++item) body(item, part);
    }

   private:
    static constexpr size_t apart = 8192;  // what a core reads ahead, behind the end of its own, is being written by another

    template <class Body>
    void share_one_by_one(int64_t count, const Body& body) const {
        share(count, [&](int64_t part, const auto& each) {
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) body(i, part);
            });
        });
    }
};

// ---- the entry of an algorithm

// What most algorithms say. pack: null, all weights are read in place.
struct Defaults {
    static const char* refuses(const Problem&) { return nullptr; }
    static size_t pack_workspace_bytes(const Problem&, int) { return 0; }
    static bool shares_packed(const Problem&, int) { return false; }
    static constexpr std::nullptr_t pack = nullptr;
    static bool in_place(const Problem&, bool) { return false; }  // where there is a pack
    static constexpr bool packs_any_order = false;
};

template <class F>
F by_dtype(const Problem& p, F f32, F f64) {
    return p.dtype == Dtype::float32 ? f32 : f64;
}

// Of two classes, one for each element type, whose static members are named as those of Algorithm.
template <class F32, class F64>
Algorithm algorithm_of(const char* name) {
    Algorithm made = {
        name,
        F32::refuses,
        [](const Problem& p) { return by_dtype(p, F32::packed_bytes, F64::packed_bytes)(p); },
        [](const Problem& p, int threads) { return by_dtype(p, F32::workspace_bytes, F64::workspace_bytes)(p, threads); },
        [](const Problem& p, int threads) { return by_dtype(p, F32::pack_workspace_bytes, F64::pack_workspace_bytes)(p, threads); },
        nullptr,
        [](const Problem&, bool) { return true; },
        [](const Problem& p, int threads) { return by_dtype(p, F32::shares_packed, F64::shares_packed)(p, threads); },
        [](const Problem& p, const Call& call) { by_dtype(p, F32::run, F64::run)(p, call); },
        F32::packs_any_order,
    };
    if constexpr (!std::is_null_pointer_v<decltype(F32::pack)>) {
        made.pack = [](const Problem& p, const PackCall& call) { by_dtype(p, F32::pack, F64::pack)(p, call); };
        made.in_place = [](const Problem& p, bool once) { return by_dtype(p, F32::in_place, F64::in_place)(p, once); };
    }
    return made;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
