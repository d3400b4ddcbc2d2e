"""Paired timing: entrants take turns in short blocks, so that a drifting clock meets all of them alike.

Clocks drift by tens of percent within minutes; two figures taken one after the other say little about who is faster. Here a
round gives every entrant a few blocks of calls, in turn, and its best one counts; what counts between entrants is the ratio
within a round; the figure is the median over the rounds, with a bootstrap interval.

Where arrays happen to lie in memory makes a call faster or slower too, for as long as they lie there. So rounds come in
placements: after some rounds everybody gets fresh memory. The bootstrap resamples placements first and rounds within them,
so that its interval covers what another run, with other placements, would find.

Other work on the machine, in other virtual machines too, takes half of a cache or a whole core away for milliseconds to
seconds, and only ever makes a block slower: so the best of a few counts (measured over 250 pairs of figures of two runs: the
median difference sinks from 3.2 to 1.4 %). A watch, the same small work each time, runs between any two blocks; a block
beside which it was slow is repeated. That says nothing about the contender, so it favours nobody.
"""

from __future__ import annotations

import gc
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..reasons import Reason

BLOCK = 0.010  # seconds: long enough to time, short enough that a round fits between two changes of the clock
PARTS = 8  # of a block: the lower quartile of them is its time, so that interruptions of some milliseconds do not count
WARM = 0.002  # seconds of calls before a block: they wake the threads and refill the caches
NOISY = 0.05  # width of a 95 % interval, relative to its middle
SLOWER = 1.07  # than its usual time: what the watch takes for a disturbance
SWEEPS = 3  # blocks of everyone in a round
TRIES = 2  # of a block; where none is undisturbed, the least disturbed counts
_REMEMBERED = 300  # times of the watch
_WAIT = 0.03  # seconds for quiet to come back
_RESAMPLES = 1000


class Clock(Protocol):
    def now(self) -> float: ...  # seconds
    def sleep(self, seconds: float) -> None: ...
    def settle(self) -> None: ...  # return once nothing else of this process uses the CPU


class WallClock:
    """The real one."""

    now = staticmethod(time.perf_counter)
    sleep = staticmethod(time.sleep)

    def settle(self, patience: float = 1.0) -> None:
        """Sleep until the process is idle: thread pools spin after a call (OpenBLAS 0.11 s), on the cores the next needs."""
        end = time.perf_counter() + patience
        while time.perf_counter() < end:
            wall, cpu = time.perf_counter(), time.process_time()
            time.sleep(0.010)  # several ticks of a kernel that counts CPU time in ticks of 4 ms
            if time.process_time() - cpu < 0.2 * (time.perf_counter() - wall):
                return


class Lost(Exception):
    """An entrant cannot go on, for that reason."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Entrant:
    """Someone who takes turns."""

    name: str
    block: Callable[[], float]  # seconds per call; of a probe: a rate
    best: Callable[[Iterable[float]], float] = min  # of a round's blocks; of a rate: max
    samples: list[float] = field(default_factory=list)  # one per round
    lost: Reason | None = None  # why it takes no turns any more; its samples mean nothing then


class Watch:
    """Tells whether the machine is undisturbed.

    Args:
        work: seconds of the same small work each time.
    """

    def __init__(self, work: Callable[[], float], clock: Clock) -> None:
        self._work, self._clock = work, clock
        self._times: deque[float] = deque((work() for _ in range(20)), _REMEMBERED)
        self.slowness = 1.0  # at the latest look
        self.repeated = 0  # blocks

    def look(self) -> float:
        """How many times slower than usual the machine is now. Usual is what a fifth of the latest times are, so that it
        follows a drifting clock."""
        taken = self._work()
        self._times.append(taken)
        self.slowness = taken / float(np.percentile(self._times, 20))
        return self.slowness

    def wait(self) -> None:
        """Until it is quiet again, for a while."""
        end = self._clock.now() + _WAIT
        while self.look() > SLOWER and self._clock.now() < end:
            self._clock.sleep(0.003)


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
    warm = clock.now() + WARM
    while calls > 1:  # a call that fills a block alone needs none
        call()
        if clock.now() >= warm:
            break
    parts = min(calls, PARTS)
    times = []
    with _no_garbage_collection():
        for part in range(parts):
            count = calls * (part + 1) // parts - calls * part // parts
            start = clock.now()
            for _ in range(count):
                call()
            times.append((clock.now() - start) / count)
    return sorted(times)[(parts - 1) // 4]


def rotate(entrants: Sequence[Entrant], least: int, end: float, clock: Clock, first: int = 0,
           watch: Watch | None = None) -> int:
    """Let all take turns for `least` rounds and on until the clock shows `end`; the number of rounds. `first` counts those of
    earlier calls.

    Whoever gets lost no longer takes part.
    """
    done = 0
    while done < least or clock.now() < end:
        taking_part = [entrant for entrant in entrants if entrant.lost is None]
        if not taking_part:
            break
        values: dict[str, list[float]] = {entrant.name: [] for entrant in taking_part}
        for sweep in range(SWEEPS):
            for entrant in _ordered(taking_part, (first + done) * SWEEPS + sweep):
                value = _turn(entrant, watch)
                if value is not None:
                    values[entrant.name].append(value)
        for entrant in taking_part:  # whole rounds only: Ctrl-C must not leave lists of different lengths
            if entrant.lost is None:
                entrant.samples.append(entrant.best(values[entrant.name]))
        done += 1
    return done


def _ordered(entrants: Sequence[Entrant], sweep: int) -> Sequence[Entrant]:
    """The order rotates, and every other sweep runs backwards, so that nobody always follows the same neighbour."""
    shift = sweep // 2 % len(entrants)
    order = [*entrants[shift:], *entrants[:shift]]
    return order if sweep % 2 == 0 else order[::-1]


def _turn(entrant: Entrant, watch: Watch | None) -> float | None:
    """One block, undisturbed if possible; None: the entrant is lost."""
    if entrant.lost is not None:
        return None
    try:
        if watch is None:
            return entrant.block()
        tried: list[tuple[float, float]] = []  # how slow the machine was beside it, value
        while len(tried) < TRIES:
            before, value, after = watch.slowness, entrant.block(), watch.look()
            tried.append((max(before, after), value))
            if tried[-1][0] <= SLOWER:
                break
            watch.repeated += 1
            watch.wait()
        return min(tried)[1]
    except Lost as lost:
        entrant.lost = lost.reason
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


def geometric_mean(values: Sequence[float]) -> Interval | None:
    """With the 95 % interval of a bootstrap over the values; None of none. One value has no interval of this kind."""
    if not values:
        return None
    logs = np.log(values)
    drawn = logs[np.random.default_rng(0).integers(0, len(logs), (_RESAMPLES, len(logs)))].mean(axis=1)
    low, high = np.exp(np.percentile(drawn, (2.5, 97.5)))
    return Interval(float(low), math.exp(float(logs.mean())), float(high))
