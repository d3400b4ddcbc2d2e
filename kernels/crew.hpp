// How the threads of a call share tiles, or the items of one tile after another.
#pragma once
#include "abi.hpp"
#include "shares.hpp"
#include "simd.hpp"

namespace fastconv {
namespace FASTCONV_ISA {

// Who computes: each part tiles of its own, or, where tiles are few and large, all parts the items of one tile after another.
// Memory: a board for each tile that is being worked on, a desk for each part.
struct Crew {
    int64_t parts;
    bool together;
    size_t board_bytes, desk_bytes;
    bool strict;
    ParallelFor parallel_for;
    Interrupt interrupt;
    char* memory;

    size_t bytes() const { return Shares::bytes(parts) + (together ? board_bytes : 0) + size_t(parts) * each(); }
    char* board(int64_t part) const { return memory + Shares::bytes(parts) + (together ? 0 : size_t(part) * each()); }
    char* desk(int64_t part) const { return memory + Shares::bytes(parts) + board_bytes + size_t(part) * each(); }

    // body(tile, part)
    template <class Body>
    void tiles(int64_t count, const Body& body) const {
        if (!together) return share(count, body);
        for (int64_t tile = 0; tile < count; ++tile) body(tile, 0);
    }
    // body(item, part), of a tile of `part`
    template <class Body>
    void items(int64_t count, int64_t part, const Body& body) const {
        if (together) return share(count, body);
        for (int64_t item = 0; item < count; ++item) body(item, part);
    }

   private:
    static constexpr size_t apart = 8192;  // what a core reads ahead, behind the end of its own, is being written by another
    size_t each() const { return (together ? 0 : board_bytes) + desk_bytes + apart; }

    template <class Body>
    void share(int64_t count, const Body& body) const {
        struct Shared {
            const Body& body;
            bool strict;
            Shares shares;
        } shared{body, strict, {}};
        shared.shares.deal(memory, interrupt, count, parts);
        parallel_for(parts, [](void* context, int64_t part) {
            const Shared& mine = *static_cast<Shared*>(context);
            const FlushDenormals flush(!mine.strict);
            mine.shares.each(part, [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) mine.body(i, part);
            });
        }, &shared);
    }
};

}  // namespace FASTCONV_ISA
}  // namespace fastconv
