"""Paired timing: entrants take turns in short blocks, so that a drifting clock meets all of them alike.

Clocks drift by tens of percent within minutes; two figures taken one after the other say little about who is faster. Here a
round gives every entrant one block of calls, and what counts is the ratio within a round; the figure is the median over the
rounds, with a bootstrap interval.

Where arrays happen to lie in memory makes a call faster or slower too, for as long as they lie there. So rounds come in
placements: after some rounds everybody gets fresh memory. The bootstrap resamples placements first and rounds within them,
so that its interval covers what another run, with other placements, would find.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

BLOCK = 0.020  # seconds: long enough to time, short enough that a round fits between two changes of the clock
NOISY = 0.05  # width of a 95 % interval, relative to its middle
_RESAMPLES = 1000


class Clock(Protocol):
    def now(self) -> float: ...  # seconds
    def settle(self) -> None: ...  # return once nothing else of this process uses the CPU


class WallClock:
    """The real one."""

    now = staticmethod(time.perf_counter)

    def settle(self, patience: float = 1.0) -> None:
        """Sleep until the process is idle: thread pools spin after a call (OpenBLAS 0.11 s), on the cores the next needs."""
        end = time.perf_counter() + patience
        while time.perf_counter() < end:
            wall, cpu = time.perf_counter(), time.process_time()
            time.sleep(0.010)  # several ticks of a kernel that counts CPU time in ticks of 4 ms
            if time.process_time() - cpu < 0.2 * (time.perf_counter() - wall):
                return


class Lost(Exception):
    """An entrant cannot go on; the message says why."""


@dataclass
class Entrant:
    """Someone who takes turns."""

    name: str
    block: Callable[[], float]  # seconds per call; of a probe: a rate
    samples: list[float] = field(default_factory=list)  # one per round
    lost: str | None = None  # why it takes no turns any more; its samples mean nothing then


def calls_per_block(call: Callable[[], object], clock: Clock) -> int:
    """How many calls fill a block of about `BLOCK` seconds. Doubles until the clock can be trusted."""
    calls = 1
    while True:
        start = clock.now()
        for _ in range(calls):
            call()
        elapsed = clock.now() - start
        if elapsed > BLOCK / 5 or calls >= 1 << 20:
            break
        calls *= 2
    return max(1, round(BLOCK * calls / elapsed)) if elapsed > 0 else calls


def block(call: Callable[[], object], calls: int, clock: Clock) -> float:
    """Seconds per call of one block."""
    if calls > 1:
        call()  # wakes the threads and refills the caches; a call that fills a block alone hardly notices
    with _no_garbage_collection():
        start = clock.now()
        for _ in range(calls):
            call()
        return (clock.now() - start) / calls


def rotate(entrants: Sequence[Entrant], least: int, end: float, now: Callable[[], float], first: int = 0) -> int:
    """Let all take turns for `least` rounds and on until `now()` reaches `end`; the number of rounds. `first` counts those of
    earlier calls.

    The order rotates, and every other round runs backwards, so that nobody always follows the same neighbour. Whoever gets
    lost no longer takes part.
    """
    done = 0
    while done < least or now() < end:
        taking_part = [entrant for entrant in entrants if entrant.lost is None]
        if not taking_part:
            break
        turn = first + done
        shift = turn // 2 % len(taking_part)
        order = [*taking_part[shift:], *taking_part[:shift]]
        values = [(entrant, _turn(entrant)) for entrant in (order if turn % 2 == 0 else order[::-1])]
        for entrant, value in values:  # whole rounds only: Ctrl-C must not leave lists of different lengths
            if value is not None:
                entrant.samples.append(value)
        done += 1
    return done


def _turn(entrant: Entrant) -> float | None:
    try:
        return entrant.block()
    except Lost as lost:
        entrant.lost = str(lost)
        return None


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True)
class Interval:
    """A median with its 95 % bootstrap interval."""

    low: float
    middle: float
    high: float

    @property
    def width(self) -> float:
        return (self.high - self.low) / self.middle


def interval(values: Sequence[float] | np.ndarray, placements: Sequence[int] | None = None) -> Interval:
    """The median of per-round values, and between which two it lies with 95 % confidence. Same values, same interval.

    Args:
        placements: which placement in memory each value belongs to; None: each value has one of its own.
    """
    data = np.asarray(values, np.float64)
    rng = np.random.default_rng(0)
    if placements is None or len(set(placements)) < 2:
        medians = np.median(data[rng.integers(0, len(data), (_RESAMPLES, len(data)))], axis=1)
    else:
        medians = _clustered(data, np.asarray(placements), rng)
    low, high = np.percentile(medians, (2.5, 97.5))
    return Interval(float(low), float(np.median(data)), float(high))


def _clustered(data: np.ndarray, placements: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Medians of resamples: of the placements, then of the rounds within each that was drawn."""
    groups = [data[placements == placement] for placement in dict.fromkeys(placements.tolist())]
    sizes = np.array([len(group) for group in groups])
    padded = np.array([np.resize(group, sizes.max()) for group in groups])
    drawn = rng.integers(0, len(groups), (_RESAMPLES, len(groups)))
    rounds = (rng.random((_RESAMPLES, len(groups), sizes.max())) * sizes[drawn][..., None]).astype(np.int64)
    picked = padded[drawn[..., None], rounds]
    missing = np.arange(sizes.max()) >= sizes[drawn][..., None]  # a short placement stays short
    ordered = np.sort(np.where(missing, np.inf, picked).reshape(_RESAMPLES, -1), axis=1)
    count = sizes[drawn].sum(axis=1)
    each = np.arange(_RESAMPLES)
    return (ordered[each, (count - 1) // 2] + ordered[each, count // 2]) / 2


def ratios(numerator: Sequence[float], denominator: Sequence[float], placements: Sequence[int] | None = None) -> Interval:
    """Of two entrants' samples, round by round."""
    return interval(np.asarray(numerator) / np.asarray(denominator), placements)
