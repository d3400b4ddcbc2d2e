"""A contender in this process: admits it to a problem, times its blocks.

What `admit` answers is plain data, so that it can cross to another process (see `worker` and `remote`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from ..errors import Unavailable, Unsupported
from ..problem import ConvProblem
from ..reasons import Failed, Refused, Wrong
from ..timing import paired
from ..timing.paired import Clock, Lost, WallClock
from ..timing.reduced import by_less
from ..verify.data import Arrays, same_arrays
from ..verify.judge import Judge, some_points
from . import memory
from .admission import Admission, Limits
from .contenders import Contender, Entry

DOUBT = 5  # how much slower than on any problem so far a contender may be on the next one


class Local:
    """One contender, here."""

    def __init__(self, contender: Contender, limits: Limits, clock: Clock | None = None) -> None:
        self.contender = contender
        self.name = contender.name
        self._limits = limits
        self._clock = clock or WallClock()
        self._slowest = 0.0  # flops per second, of all problems so far

    def start(self, threads: int) -> tuple[str, float]:
        """(library and version, seconds of its import)."""
        start = time.perf_counter()
        library = self.contender.start(threads)
        return library, time.perf_counter() - start

    def admit(self, problem: ConvProblem) -> Admission:
        """Check it on a problem, from the first call on, and get ready for `block`."""
        try:
            admission = self._admit(problem)
        except (Unsupported, Unavailable) as error:
            return Admission(Refused(error.why))
        except Exception as error:  # one broken contender must not cost the others their numbers
            return Admission(Failed.by(error))
        if admission.reason is None:
            rate = problem.flops / max(admission.seconds, 1e-9)
            self._slowest = min(self._slowest or math.inf, rate)
        return admission

    def _admit(self, problem: ConvProblem) -> Admission:
        self._arrays = same_arrays(problem)
        memory.reset_peak()
        start = self._clock.now()
        entry = self._entry = self.contender.enter(problem, self._arrays)
        prepare_seconds = self._clock.now() - start
        limit = self._limits.estimate
        if limit is not None and self._may_be_slow(problem, entry, limit):
            slow = self._estimated(problem, limit)
            if slow is not None:
                return slow
        first = self._time(entry)
        peak_bytes = memory.rise()
        self._judge = Judge(problem, self._arrays, some_points(problem))
        reason = _wrong(self._judge, entry)
        if reason is not None:
            return Admission(reason)
        seconds = self._time(entry) if first > self._limits.call else first  # the first call may have compiled
        self._calls = 0
        if seconds <= self._limits.call:
            self._calls = paired.calls_per_block(entry.call, self._clock)
            seconds = self._time(entry)
        return Admission(None, entry.algorithm, entry.isa, self._judge.count, seconds, self._calls,
                         False, prepare_seconds, first, peak_bytes)

    def _estimated(self, problem: ConvProblem, limit: float) -> Admission | None:
        """How long a call would take, or what was wrong with that of a smaller problem; None if it takes less than about
        `limit`, or nobody can tell."""
        def make(small: ConvProblem) -> tuple[tuple[Entry, Arrays], Callable[[], Any]]:
            arrays = same_arrays(small)
            entry = self.contender.enter(small, arrays)
            return (entry, arrays), entry.call

        try:
            less = by_less(problem, make, limit, self._clock)
        except Unsupported:  # of a smaller problem it may not even be the same kind
            return None
        if less is None:
            return None
        entry, arrays = less.made
        judge = Judge(less.problem, arrays, some_points(less.problem))
        reason = _wrong(judge, entry)
        if reason is not None:
            return Admission(reason)
        return Admission(None, entry.algorithm, entry.isa, judge.count, less.seconds, estimate=True)

    def _may_be_slow(self, problem: ConvProblem, entry: Entry, limit: float) -> bool:
        """Whether an estimate is worth its time: a backend that compiles for each shape compiles for the estimate too."""
        if entry.seconds is not None:
            return entry.seconds > limit
        return DOUBT * problem.flops > limit * self._slowest

    def _time(self, entry: Entry) -> float:
        start = self._clock.now()
        entry.call()
        return self._clock.now() - start

    def renew(self) -> None:
        """Bind anew to copies of the arrays in fresh memory, and check again.

        Raises:
            Lost: a result is wrong now.
        """
        old = self._entry  # kept until the new one is there: its memory is not used again
        arrays = Arrays._make(None if array is None else memory.fresh(array) for array in self._arrays)
        self._entry = self.contender.enter(self._judge.problem, arrays)
        del old
        paired.block(self._entry.call, max(1, self._calls), self._clock)  # the first pass over new memory is not what counts
        reason = _wrong(self._judge, self._entry)
        if reason is not None:
            raise Lost(reason)

    def block(self) -> float:
        """Seconds per call."""
        return paired.block(self._entry.call, max(1, self._calls), self._clock)

    def leave(self) -> None:
        """Forget the problem and its memory."""
        self._entry = self._judge = self._arrays = None  # type: ignore[assignment]

    def close(self) -> None:
        """Nothing to end."""


def _wrong(judge: Judge, entry: Entry) -> Wrong | None:
    what = judge.wrong(entry.result(), entry.bound, entry.tile)
    return None if what is None else Wrong(what)
