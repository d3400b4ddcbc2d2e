// How the parts of a call share its items 0 .. count - 1, none of which cares who computes it, or when.
//
// Each part has a range of its own, side by side and about as long as the others', and works through it from the front. One that has
// none left takes the last piece of whichever has most: threads whose core is slowed down, by another program or a hyperthread's
// neighbour, are waited for only as long as a piece takes. Undisturbed, the ranges are what a static partition would be.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>

#include "abi.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

class Shares {
   public:
    static size_t bytes(int64_t parts) { return size_t(parts) * sizeof(Range); }

    // In `bytes(parts)` of memory. Before parallel_for.
    void deal(void* memory, const Interrupt& interrupt, int64_t count, int64_t parts) {
        ranges_ = static_cast<Range*>(memory), count_ = count, parts_ = parts, interrupt_ = interrupt;
        grain_ = std::max<int64_t>(1, count / (std::max(pieces_per_part, interrupt.pieces) * parts));
        const uint64_t pieces = uint64_t((count + grain_ - 1) / grain_);
        for (int64_t part = 0; part < parts; ++part)
            new (ranges_ + part) Range{{pieces * part / parts | (pieces * (part + 1) / parts) << 32}};
    }

    // body(begin, end) for all that part `part` gets to compute, some items side by side at a time; less, if the call is to give way.
    template <class Body>
    void each(int64_t part, Body body) const {
        for (int64_t piece; (piece = take(part)) >= 0;) body(piece * grain_, std::min((piece + 1) * grain_, count_));
    }

   private:
    static constexpr int64_t pieces_per_part = 16;
    struct alignas(64) Range {
        std::atomic<uint64_t> pieces;  // the first in the lower half, the one behind the last in the upper half
    };
    static uint32_t first(uint64_t range) { return uint32_t(range); }
    static uint32_t end(uint64_t range) { return uint32_t(range >> 32); }

    int64_t take(int64_t part) const {
        if (interrupt_.asked && interrupt_.asked(interrupt_.whose)) return -1;
        int64_t piece = take_from(part, true);
        for (int64_t fullest; piece < 0 && (fullest = find_fullest()) >= 0;) piece = take_from(fullest, false);
        return piece;
    }

    // The first piece of a range, or its last; -1: there is none.
    int64_t take_from(int64_t part, bool front) const {
        std::atomic<uint64_t>& range = ranges_[part].pieces;
        uint64_t was = range.load(std::memory_order_relaxed);
        while (first(was) < end(was))
            if (range.compare_exchange_weak(was, front ? was + 1 : was - (uint64_t(1) << 32), std::memory_order_relaxed))
                return front ? first(was) : end(was) - 1;
        return -1;
    }

    int64_t find_fullest() const {
        int64_t fullest = -1;
        uint32_t most = 0;
        for (int64_t part = 0; part < parts_; ++part) {
            const uint64_t range = ranges_[part].pieces.load(std::memory_order_relaxed);
            if (end(range) - first(range) > most) most = end(range) - first(range), fullest = part;
        }
        return fullest;
    }

    Range* ranges_ = nullptr;
    int64_t count_ = 0, parts_ = 0, grain_ = 1;
    Interrupt interrupt_{};
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
