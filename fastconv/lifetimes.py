"""Memory of what a program computes on the way: one array, in which a result lies where one lay that nobody reads any more.

A step's result is read by the next few steps alone. In an array of its own each would be written to memory that no cache holds,
and read from there; side by side, and over those that are done, they take little more than the largest ones do.

Which results there are, and how long each is read, is seen in a call and remembered for inputs of that shape: `Plain`, the
first call (where branches of a concatenation find out what they give), `Seen`, the second one, `Planned`, those that follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import settings

SHAPES_KEPT = 4
KEPT_BYTES = 32 << 20  # caches hold no more; who computes large batches has better use for it
_LINE = 64
GIVEN: Any = object()  # the array that a chain of calls is given


class Call(NamedTuple):
    """Of a prepared operator's shortcut, with its arrays. place: of the result; None: a new one."""

    take: Any
    input: Any
    residual: Any
    place: np.ndarray | None


class Plain:
    """Results have arrays of their own. What a program tells and asks the memory of a call."""

    def place(self, step: Any, shape: tuple[int, ...]) -> np.ndarray | None:
        """Where a step's result of an input of that `shape` goes; None: it makes an array, and says so with `made`."""
        return None

    def made(self, result: np.ndarray, step: Any, shape: tuple[int, ...]) -> None:
        """What the step made of an input of that `shape`."""

    def computed(self, operator: Any, x: np.ndarray, residual: np.ndarray | None, result: np.ndarray) -> None:
        """A prepared operator has made `result` of these."""

    def shares(self, result: np.ndarray, x: np.ndarray) -> None:
        """A step has made `result` of `x`, and perhaps it is a view of it."""

    def stays(self, x: np.ndarray) -> None:
        """Somebody may read `x` for ever."""

    def drop(self, x: np.ndarray) -> None:
        """It is read no more; a view of it may be."""

    def chain(self, key: Any, run: Callable[[], np.ndarray], given: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        """What `run` makes of an array that it is given, by calls of prepared operators alone."""
        return run()


TOO_LARGE = Plain()


class _Result:
    """begin, end: the numbers of the results between which it is read."""

    def __init__(self, begin: int, made: np.ndarray, of: tuple[Any, tuple[int, ...]]) -> None:
        self.begin, self.end, self.readers = begin, -1, 1
        self.of, self.shape, self.dtype, self.bytes = of, made.shape, made.dtype, made.nbytes
        self.stays = False


class Seen(Plain):
    """Sees a call."""

    def __init__(self) -> None:
        self.results: list[_Result] = []
        self.named: dict[int, _Result] = {}  # by the id of an array that is still read

    def made(self, result: np.ndarray, step: Any, shape: tuple[int, ...]) -> None:
        self.results.append(_Result(len(self.results), result, (step, shape)))
        self.named[id(result)] = self.results[-1]

    def shares(self, result: np.ndarray, x: np.ndarray) -> None:
        found = self.named.get(id(x))
        if found is not None and result is not x and np.may_share_memory(result, x):
            found.readers += 1
            self.named[id(result)] = found

    def stays(self, x: np.ndarray) -> None:
        if id(x) in self.named:
            self.named[id(x)].stays = True

    def drop(self, x: np.ndarray) -> None:
        found = self.named.pop(id(x), None)
        if found is not None:
            found.readers -= 1
            if not found.readers:
                found.end = len(self.results)

    def planned(self) -> Plain:
        """For the next call. Places: the largest result first, each the lowest that is free as long as it is read."""
        placed: list[tuple[int, int, _Result]] = []
        for result in sorted(self.results, key=lambda it: -it.bytes):
            if result.stays or result.end < 0:  # read for ever, as by whoever called
                continue
            begin, length = 0, -(-result.bytes // _LINE) * _LINE
            for low, high, other in sorted(placed, key=lambda it: it[0]):
                if other.begin < result.end and result.begin < other.end and low < begin + length:
                    begin = max(begin, high)
            placed.append((begin, begin + length, result))
        size = max((high for _, high, _ in placed), default=0)
        if size > KEPT_BYTES:
            return TOO_LARGE
        memory = np.empty(size + _LINE, np.uint8)
        first = -memory.ctypes.data % _LINE
        at = {result.begin: first + low for low, _, result in placed}
        return Planned(size, [(it.of, np.ndarray(it.shape, it.dtype, memory, at[it.begin]) if it.begin in at else None)
                              for it in self.results])


class Planned(Plain):
    """Results have places; one call at a time. What a chain of steps has called before, it calls again."""

    def __init__(self, size: int, places: list[tuple[tuple[Any, tuple[int, ...]], np.ndarray | None]]) -> None:
        self.size, self.places = size, places
        self.known = {id(array) for _, array in places if array is not None}
        self.chains: dict[Any, tuple[list[Call], int]] = {}  # and how many places they have
        self.begin()

    def begin(self) -> None:
        self.fits, self.watching, self.next, self.first = True, False, 0, 0
        self.seen: list[tuple[Any, Any, Any, Any]] = []

    def place(self, step: Any, shape: tuple[int, ...]) -> np.ndarray | None:
        seen, array = self.places[self.next] if self.next < len(self.places) else (None, None)
        self.next += 1
        self.fits = self.fits and seen == (step, shape)  # a module that is not ours may give other shapes than it did
        return array if self.fits else None

    def chain(self, key: Any, run: Callable[[], np.ndarray], given: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        """What `run` makes of an array that it is given: if it made the same calls as before, by these alone."""
        if self.watching:  # inside another one
            return run()
        made = self._again(self.chains[key][0], given, out) if self.fits and key in self.chains else None
        if made is not None:
            self.next += self.chains[key][1]
            return made
        self.chains.pop(key, None)
        self.watching, self.first = True, self.next
        made = run()
        self._watched(key, given)
        return made

    @staticmethod
    def _again(calls: list[Call], given: np.ndarray, out: np.ndarray | None) -> np.ndarray | None:
        """None: one of them is not what it was, as when settings have changed."""
        made, current = None, settings.current()
        for take, input, residual, place in calls:
            made = take(current, (), given if input is GIVEN else input, None, None, given if residual is GIVEN else residual,
                        out if place is None else place)  # only the last one's may be None
            if made is None:
                break
        return made

    def computed(self, operator: Any, x: np.ndarray, residual: np.ndarray | None, result: np.ndarray) -> None:
        if self.watching:
            self.seen.append((operator.shortcut, x, residual, result))

    def _watched(self, key: Any, given: np.ndarray) -> None:
        def lasting(array: Any) -> Any:
            return GIVEN if array is given else array

        calls = [Call(shortcut and shortcut.take, lasting(x), lasting(residual), result if id(result) in self.known else None)
                 for shortcut, x, residual, result in self.seen]
        told = all(call.take and all(it is None or it is GIVEN or id(it) in self.known for it in call[1:3]) for call in calls)
        if self.fits and told and all(call.place is not None for call in calls[:-1]):
            self.chains[key] = calls, self.next - self.first
        self.watching, self.seen = False, []


class Memories:
    """Of a program, for the shapes of input that it was called with: `take` one for a call, and `give` it back."""

    def __init__(self) -> None:
        self.kept: dict[Any, Plain | None] = {}  # None: called once, or a call has it; the latest last

    def take(self, x: np.ndarray) -> Plain:
        key = x.shape, x.dtype
        memory: Plain = Seen() if key in self.kept else Plain()
        kept = self.kept.pop(key, None)  # at once: another thread's call does not get it
        for old in [*self.kept][:max(0, len(self.kept) + 1 - SHAPES_KEPT)]:
            self.kept.pop(old, None)
        self.kept[key] = None
        if kept is TOO_LARGE:
            self.kept[key] = kept
        if isinstance(kept, Planned):
            kept.begin()
        return kept or memory

    def give(self, memory: Plain, x: np.ndarray) -> None:
        """After a call, of `x`."""
        if isinstance(memory, Seen):
            self.kept[x.shape, x.dtype] = memory.planned()
        elif isinstance(memory, Planned) and memory.fits:
            self.kept[x.shape, x.dtype] = memory

    def __reduce__(self) -> Any:
        return Memories, ()
