# mypy: ignore-errors
# Numba compiles this file: calls of intrinsics leave out what mypy takes for their first argument.
"""How the parts of a round share its items, none of which cares who computes it.

Each part has a range of its own, and goes through it piece by piece. One that has none left goes on with the next part's, so
that threads whose core is slowed down are waited for only as long as a piece takes. Undisturbed, the ranges are what a static
partition would be. (`kernels/shares.hpp` takes the last piece of whichever has most; in Python's words, that took 0.3 s more
to compile.)
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import intrinsic

from .pipeline import jit
from .vectors import _INT


def _emit_claim(builder: Any, args: Any) -> Any:
    words, apart, parts, pieces, part = args
    before = builder.block
    head, some, following, done = (builder.append_basic_block(name) for name in ("part", "some", "following", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    i = builder.phi(_INT)
    i.add_incoming(_INT(0), before)
    whose = builder.add(part, i)
    whose = builder.select(builder.icmp_signed("<", whose, parts), whose, builder.sub(whose, parts))
    word = builder.inttoptr(builder.add(words, builder.mul(whose, apart)), _INT.as_pointer())
    builder.cbranch(builder.icmp_signed("<", builder.load_atomic(word, "monotonic", 8), pieces), some, following)
    builder.position_at_end(some)  # unless another thread is quicker
    count = builder.atomic_rmw("add", word, _INT(1), "monotonic")
    found = builder.add(builder.mul(whose, pieces), count)
    builder.cbranch(builder.icmp_signed("<", count, pieces), done, following)
    builder.position_at_end(following)
    more = builder.add(i, _INT(1))
    i.add_incoming(more, following)
    builder.cbranch(builder.icmp_signed("<", more, parts), head, done)
    builder.position_at_end(done)
    result = builder.phi(_INT)
    result.add_incoming(found, some)
    result.add_incoming(_INT(-1), following)
    return result


@intrinsic
def claim(typingctx: Any, words: Any, apart: Any, parts: Any, pieces: Any, part: Any) -> Any:
    """The number of a piece, of parts · pieces, that `part` computes next, -1: none is left. At `words`, `apart` bytes from one
    to the next, is how many of each part's pieces are gone."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _emit_claim(builder, args)

    return types.int64(*[types.int64] * 5), codegen


@jit
def next_item(c: Any, items: Any, part: Any, item: Any, end: Any) -> Any:
    """(item, the end of its piece) that `part` computes after this one, -1: none is left; of all `items` those of this round.
    Begins with (-1, 0)."""
    item += 1
    while item >= end:  # a piece may have none
        piece = claim(c.self + c.shares, c.shares_apart, c.sharers, c.pieces, part)
        if piece < 0:
            return -1, 0
        piece += c.first * c.pieces
        item, end = piece * items // (c.parts * c.pieces), (piece + 1) * items // (c.parts * c.pieces)
    return item, end
