"""Runs contenders on problems: verify, estimate what would take too long, time the rest in rotation."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from .. import settings
from ..accuracy import Arrays
from ..errors import Unavailable, Unsupported
from ..problem import ConvProblem
from . import probes, verify
from .contenders import BackendContender, Entry
from .estimate import estimate
from .interrupt import Interrupt
from .results import LeftOut, Peak, Results, Row
from .timing import Clock, Entrant, Probe, WallClock, calibrate, ratios, rotate

REFERENCE = "im2col"
DOUBT = 5  # how much slower than on any problem so far a contender may be on the next one


@dataclass(frozen=True)
class Options:
    """How to run: `seconds` of timing per problem; a call that takes longer is estimated, unless `everything` is set."""

    threads: int = 1
    seconds: float = 3.0
    everything: bool = False

    @property
    def limit(self) -> float:
        """The longest call that still takes turns; one that takes longer is timed once, while it is checked."""
        return self.seconds / 3


def run(problems: Sequence[ConvProblem], contenders: Sequence[BackendContender], options: Options,
        progress: Callable[[ConvProblem], None] = lambda problem: None, clock: Clock | None = None) -> Results:
    """Measure all; after Ctrl-C, what was measured until then (`Results.interrupted`).

    Args:
        progress: called before each problem.
        clock: what times; None: the real one.
    """
    clock = clock or WallClock()
    results = Results(options.threads, REFERENCE, asked=len(problems))
    start = clock.now()
    with settings.config(num_threads=options.threads), _blas_threads(options.threads), \
            contextlib.closing(probes.Copy(options.threads)) as copy, Interrupt() as interrupt:
        bench = _Bench(contenders, options, copy, clock, interrupt)
        try:
            for problem in problems:
                progress(problem)
                rows, left_out, peak = bench.measure(problem)
                results.problems.append(problem)
                results.rows += rows
                results.left_out += left_out
                if peak is not None:
                    results.peaks[problem] = peak
        except KeyboardInterrupt:
            results.interrupted = True
    results.seconds = clock.now() - start
    return results


@contextlib.contextmanager
def _blas_threads(threads: int) -> Iterator[None]:
    """As many threads for NumPy's BLAS as for everyone, where threadpoolctl is installed."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(threads, user_api="blas"):
        yield


@dataclass
class _Bench:
    """Measures one problem after the other."""

    contenders: Sequence[BackendContender]
    options: Options
    copy: probes.Copy
    clock: Clock
    interrupt: Interrupt
    slowest: dict[str, float] = field(default_factory=dict)  # flops per second, of each contender so far

    def measure(self, problem: ConvProblem) -> tuple[list[Row], list[LeftOut], Peak | None]:
        """Everyone is checked first, then those that are fast enough take turns."""
        if problem.batch == 0:
            return [], [LeftOut(problem, c.name, "refuses: an empty batch takes no time") for c in self.contenders], None
        arrays = verify.arrays_for(problem)
        rows: list[Row] = []
        left_out: list[LeftOut] = []
        timed: list[tuple[Row, Entrant]] = []
        for contender in self.contenders:
            admitted = self._admit(contender, problem, arrays)
            self.interrupt.check()
            if isinstance(admitted, str):
                left_out.append(LeftOut(problem, contender.name, admitted))
            elif admitted[0].estimate or admitted[0].seconds > self.options.limit:
                rows.append(admitted[0])
            else:
                timed.append(admitted)
        measured, peak = self._take_turns(problem, timed)
        self.interrupt.check()
        order = {contender.name: index for index, contender in enumerate(self.contenders)}
        rows = sorted(rows + measured, key=lambda row: order[row.contender])
        for row in rows:
            self.slowest[row.contender] = min(self.slowest.get(row.contender, math.inf), row.gflops * 1e9)
        return rows, left_out, peak

    def _admit(self, contender: BackendContender, problem: ConvProblem, arrays: Arrays) -> tuple[Row, Entrant] | str:
        """A row with the first time, and who made it; or why this contender gets no number."""
        try:
            entry = contender.enter(problem, arrays)
            if self._may_be_slow(contender, problem, entry):
                slow = estimate(contender, problem, self.options.seconds, self.clock)
                if slow is not None:
                    return slow if isinstance(slow, str) else (slow, Entrant(contender.name, entry.call))
            return self._check(contender, problem, entry, arrays)
        except (Unsupported, Unavailable) as error:
            return f"refuses: {_last_part(error)}"
        except Exception as error:  # one broken contender must not cost the others their numbers
            return f"failed: {type(error).__name__}: {error}"

    def _may_be_slow(self, contender: BackendContender, problem: ConvProblem, entry: Entry) -> bool:
        """Whether an estimate is worth its time: a backend that compiles for each shape compiles for the estimate too."""
        if self.options.everything:
            return False
        if entry.seconds is not None:
            return entry.seconds > self.options.seconds
        return DOUBT * problem.flops > self.options.seconds * self.slowest.get(contender.name, 0.0)

    def _check(self, contender: BackendContender, problem: ConvProblem, entry: Entry,
               arrays: Arrays) -> tuple[Row, Entrant] | str:
        """The first call, into an output full of NaN, compared with the reference."""
        seconds = self._time(entry)
        points, reason = verify.wrong(problem, entry.algorithm, arrays, entry.out)
        if reason is not None:
            return reason
        if seconds > self.options.limit:  # the first call may have compiled
            seconds = self._time(entry)
        row = Row(problem, contender.name, contender.backend, entry.algorithm, entry.isa, points, (seconds,),
                  with_copies=contender.with_copies)
        return row, Entrant(contender.name, entry.call)

    def _time(self, entry: Entry) -> float:
        start = self.clock.now()
        entry.call()
        return self.clock.now() - start

    def _take_turns(self, problem: ConvProblem, timed: Sequence[tuple[Row, Entrant]]) -> tuple[list[Row], Peak | None]:
        if not timed:
            return [], None
        call, method = probes.peak(problem.dtype, self.options.threads)
        peak, bandwidth = Probe("peak", call), Probe("copy", self.copy)
        entrants = [entrant for _, entrant in timed]
        for entrant in entrants:
            calibrate(entrant, self.clock)
        rotate([*entrants, peak, bandwidth], self.options.seconds, self.clock)
        reference = next((entrant for entrant in entrants if entrant.name == REFERENCE), None)
        rows = []
        for row, entrant in timed:
            rates = [problem.flops / seconds for seconds in entrant.samples]
            speedup = None if reference is None else ratios(reference.samples, entrant.samples)
            rows.append(replace(row, samples=tuple(entrant.samples), calls=entrant.calls, speedup=speedup,
                                of_peak=ratios(rates, peak.samples)))
        return rows, Peak(statistics.median(peak.samples), method, statistics.median(bandwidth.samples), self.copy.method)


def _last_part(error: Exception) -> str:
    """The reason alone, of a message that names backend, algorithm and problem before it."""
    return str(error).rsplit(": ", 1)[-1]
