"""Paired timing: entrants take turns in short blocks, so that a drifting clock meets all of them alike.

Clocks drift by tens of percent within minutes; two figures taken one after the other say little about who is faster. Here a
round gives every entrant one block of calls, and what counts is the ratio within a round; the figure is the median over the
rounds, with a bootstrap interval.
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
ROUNDS = (5, 40)
NOISY = 0.05  # width of a 95 % interval, relative to its middle
_RESAMPLES = 2000


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


@dataclass
class Entrant:
    """Someone who takes turns. A block is `calls` calls of `call`."""

    name: str
    call: Callable[[], object]
    calls: int = 1
    samples: list[float] = field(default_factory=list)  # seconds per call; of a probe: what it returned

    def block(self, clock: Clock) -> float:
        call = self.call
        clock.settle()
        if self.calls > 1:
            call()  # wakes the threads and refills the caches; a call that fills a block alone hardly notices
        start = clock.now()
        for _ in range(self.calls):
            call()
        return (clock.now() - start) / self.calls


class Probe(Entrant):
    """An entrant that measures by itself: `call` returns a rate, such as flops per second."""

    def block(self, clock: Clock) -> float:
        clock.settle()
        return float(self.call())  # type: ignore[arg-type]


def calibrate(entrant: Entrant, clock: Clock) -> float:
    """Choose `calls` for a block of about `BLOCK` seconds; the seconds per call. Doubles until the clock can be trusted."""
    calls = 1
    while True:
        start = clock.now()
        for _ in range(calls):
            entrant.call()
        elapsed = clock.now() - start
        if elapsed > BLOCK / 5 or calls >= 1 << 20:
            break
        calls *= 2
    each = elapsed / calls
    entrant.calls = max(1, round(BLOCK / each)) if each > 0 else calls
    return each


def rotate(entrants: Sequence[Entrant], seconds: float, clock: Clock, rounds: tuple[int, int] = ROUNDS) -> int:
    """Let all take turns for about `seconds`; returns the number of rounds.

    The order rotates, and every other round runs backwards, so that nobody always follows the same neighbour.
    """
    end = clock.now() + seconds
    with _no_garbage_collection():
        for done in range(rounds[1]):
            if done >= rounds[0] and clock.now() >= end:
                return done
            shift = done // 2 % len(entrants)
            order = [*entrants[shift:], *entrants[:shift]]
            values = [(entrant, entrant.block(clock)) for entrant in (order if done % 2 == 0 else order[::-1])]
            for entrant, value in values:  # whole rounds only: Ctrl-C must not leave lists of different lengths
                entrant.samples.append(value)
    return rounds[1]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
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


def interval(values: Sequence[float] | np.ndarray) -> Interval:
    """The median of per-round values, and between which two it lies with 95 % confidence. Same values, same interval."""
    data = np.asarray(values, np.float64)
    picks = np.random.default_rng(0).integers(0, len(data), (_RESAMPLES, len(data)))
    low, high = np.percentile(np.median(data[picks], axis=1), (2.5, 97.5))
    return Interval(float(low), float(np.median(data)), float(high))


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> Interval:
    """Of two entrants' samples, round by round."""
    return interval(np.asarray(numerator) / np.asarray(denominator))
