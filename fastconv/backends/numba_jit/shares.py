# mypy: ignore-errors
# Numba compiles this file: calls of intrinsics leave out what mypy takes for their first argument.
"""How the parts of a round share its items, none of which cares who computes it: as `kernels/shares.hpp`.

Each part has a range of its own, and goes through it from the front, a piece at a time. One that has none left takes the last
piece of whichever has most, so that threads whose core is slowed down are waited for only as long as a piece takes.
Undisturbed, the ranges are what a static partition would be.

What is gone of a part's range is a word behind the context, 0 when a call begins; from its top: the round it is of, pieces from
the end, pieces from the front.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .kernels import jit

PIECES = 8  # of a part's range
_BITS, _MASK = 16, (1 << 16) - 1  # of each number in a word


@intrinsic
def _peek(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), "monotonic", 8)

    return types.int64(types.int64), codegen


@intrinsic
def _replace(typingctx: Any, address: Any, old: Any, new: Any) -> Any:
    """Whether the word at `address` was `old`, and is `new` now."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.extract_value(builder.cmpxchg(place, args[1], args[2], "monotonic"), 1)

    return types.boolean(types.int64, types.int64, types.int64), codegen


@jit
def _range(c: Any, whose: Any, items: Any) -> Any:
    """(begin, end, items of a piece, pieces) of a part in this round."""
    begin, end = (c.first + whose) * items // c.parts, (c.first + whose + 1) * items // c.parts
    piece = max((end - begin + PIECES - 1) // PIECES, 1) if c.sharers > 1 else max(end - begin, 1)
    return begin, end, piece, (end - begin + piece - 1) // piece


@jit
def _gone(c: Any, word: Any) -> Any:
    """(pieces from the front, from the end)."""
    if word >> 2 * _BITS != c.first // c.sharers & _MASK:  # of a round before
        return 0, 0
    return word & _MASK, word >> _BITS & _MASK


@jit
def _fullest(c: Any, items: Any) -> Any:
    """Whose range has most pieces left, -1: none has any."""
    whose, most = -1, 0
    for part in range(c.sharers):
        front, behind = _gone(c, _peek(c.self + c.shares + part * c.shares_apart))
        left = _range(c, part, items)[3] - front - behind
        if left > most:
            whose, most = part, left
    return whose


@jit
def claim(c: Any, part: Any, items: Any) -> Any:
    """(begin, end) of what this part of a round computes next, of so many items of all rounds; begin = end: nothing is left."""
    whose = part
    while whose >= 0:
        begin, end, piece, pieces = _range(c, whose, items)
        place = c.self + c.shares + whose * c.shares_apart
        word = _peek(place)
        front, behind = _gone(c, word)
        if front + behind < pieces:
            gone = front + 1 | behind << _BITS if whose == part else front | behind + 1 << _BITS
            if _replace(place, word, (c.first // c.sharers & _MASK) << 2 * _BITS | gone):
                begin += (front if whose == part else pieces - 1 - behind) * piece
                return begin, min(begin + piece, end)
        else:
            whose = _fullest(c, items)
    return 0, 0
