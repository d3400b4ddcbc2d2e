"""Runs contenders on problems: verify, estimate what would take too long, time the rest in rotation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .. import settings
from ..problem import ConvProblem
from . import probes
from .admission import Admission, Limits
from .contenders import Contender
from .remote import Remote
from .results import LeftOut, Peak, Results, Row
from .timing import Clock, Entrant, Lost, WallClock, Watch, ratios, rotate

REFERENCE = "im2col"
TURNS = 0.05  # seconds: a call that takes longer takes turns only if it is less than ...
SLOW = 20  # times slower than the fastest
PLACEMENTS = 4  # fresh memory for everybody so often within the time of a problem
LEAST_PLACEMENTS, LEAST_ROUNDS = 3, 2  # and rounds in each
LONGER = 4  # so many times the time where a figure is still noisy


@dataclass(frozen=True)
class Options:
    """How to run: `seconds` of timing per problem; a call that takes longer is estimated, unless `everything` is set."""

    threads: int = 1
    seconds: float = 2.0
    everything: bool = False
    patience: float = 120.0  # seconds after which a contender that does not answer is ended (not where everything runs)

    @property
    def limits(self) -> Limits:
        """The longest call that still takes turns (one that takes longer is timed once, while it is checked), and so on."""
        return Limits(self.seconds / 3, None if self.everything else self.seconds)


@dataclass(frozen=True)
class Work:
    """What is measured."""

    problems: Sequence[ConvProblem]
    suites: tuple[str, ...] = ()  # what was asked for: suites, files, problem texts
    networks: dict[str, list[ConvProblem]] = field(default_factory=dict)  # the layers of those that are networks


class Seat(Protocol):
    """A contender where it runs: `Local` or `Remote`."""

    name: str
    contender: Contender

    def start(self, threads: int) -> tuple[str, float]: ...
    def admit(self, problem: ConvProblem) -> Admission: ...
    def renew(self) -> None: ...
    def block(self) -> float: ...
    def leave(self) -> None: ...
    def close(self) -> None: ...


def remote(contender: Contender, options: Options) -> Seat:
    """A process of its own."""
    return Remote(contender, options.limits, None if options.everything else options.patience)


def run(work: Work, contenders: Sequence[Contender], options: Options,
        progress: Callable[[Results, str], None] = lambda results, text: None,
        seat: Callable[[Contender, Options], Seat] | None = None, clock: Clock | None = None) -> Results:
    """Measure all; after Ctrl-C, what was measured until then (`Results.interrupted`).

    Args:
        progress: called with what there is and what comes next: each contender that starts, each problem, and nothing ("").
        seat: puts a contender somewhere; None: `remote`.
        clock: what times; None: the real one.
    """
    clock = clock or WallClock()
    results = Results(options.threads, REFERENCE, suites=work.suites, networks=work.networks, asked=len(work.problems))
    begin = clock.now()
    with settings.config(num_threads=options.threads), contextlib.ExitStack() as stack:
        bench = _Bench(options, stack.enter_context(contextlib.closing(probes.Copy(options.threads))), clock, results)
        try:
            for contender in contenders:
                progress(results, f"starting {contender.name}")
                bench.add(stack.enter_context(contextlib.closing((seat or remote)(contender, options))))
            for problem in work.problems:
                progress(results, problem.name or problem.text)
                bench.measure(problem)
            progress(results, "")
        except KeyboardInterrupt:
            results.interrupted = True
    results.seconds = clock.now() - begin
    return results


class _Bench:
    """Measures one problem after the other."""

    def __init__(self, options: Options, copy: probes.Copy, clock: Clock, results: Results) -> None:
        self.options, self.copy, self.clock, self.results = options, copy, clock, results
        self.seats: list[Seat] = []
        self.absent: dict[str, str] = {}  # contenders that did not start, and why
        work = probes.small_work()
        self.watch = None if work is None else Watch(work, clock)

    def add(self, seat: Seat) -> None:
        try:
            self.results.libraries[seat.name] = seat.start(self.options.threads)
            self.seats.append(seat)
        except Lost as lost:
            self.absent[seat.name] = str(lost)

    def measure(self, problem: ConvProblem) -> None:
        """Everyone is checked first, then those that are fast enough take turns; results are added as a whole."""
        left_out = [LeftOut(problem, name, reason) for name, reason in self.absent.items()]
        rows: list[Row] = []
        ready: list[tuple[Seat, Row]] = []
        for seat in self.seats:
            admission = seat.admit(problem) if problem.batch else Admission("refuses: an empty batch takes no time")
            row = Row.of(problem, seat.contender, admission)
            if admission.reason is not None:
                left_out.append(LeftOut(problem, seat.name, admission.reason))
            elif admission.calls:
                ready.append((seat, row))
            else:
                rows.append(row)
        timed = _of_a_size(ready)
        if timed:
            measured, lost, peak = self._take_turns(problem, timed)
            rows, left_out = rows + measured, left_out + lost
            self.results.peaks[problem] = peak
        rows += [row for seat, row in ready if (seat, row) not in timed]
        for seat in self.seats:
            seat.leave()
        order = {seat.name: index for index, seat in enumerate(self.seats)}
        self.results.rows += sorted(rows, key=lambda row: order[row.contender])
        self.results.left_out += left_out
        self.results.problems.append(problem)
        self.results.repeated = 0 if self.watch is None else self.watch.repeated

    def _take_turns(self, problem: ConvProblem, timed: Sequence[tuple[Seat, Row]]) -> tuple[list[Row], list[LeftOut], Peak]:
        call, method = probes.peak(problem.dtype, self.options.threads)
        entrants = [Entrant(seat.name, seat.block) for seat, _ in timed]
        peak, bandwidth = Entrant("peak", call), Entrant("copy", self.copy)
        now = self.clock.now
        begin, seconds = now(), self.options.seconds
        look = begin + seconds  # is anything noisy?
        placements: list[int] = []
        for placement in range(PLACEMENTS * LONGER):
            if placement:
                _renew(timed, entrants)
            end = begin + seconds * (placement + 1) / PLACEMENTS
            placements += [placement] * rotate([*entrants, peak, bandwidth], LEAST_ROUNDS, end, self.clock, len(placements),
                                               self.watch)
            if placement + 1 < LEAST_PLACEMENTS or now() < look:
                continue
            if now() >= begin + seconds * LONGER or not any(
                    row.noisy for row in _with_samples(timed, entrants, peak, placements)):
                break
            look += seconds / 2
        rows = _with_samples(timed, entrants, peak, placements)
        lost = [LeftOut(problem, entrant.name, entrant.lost) for entrant in entrants if entrant.lost is not None]
        return rows, lost, Peak(tuple(peak.samples), method, tuple(bandwidth.samples), self.copy.method)


def _of_a_size(ready: Sequence[tuple[Seat, Row]]) -> list[tuple[Seat, Row]]:
    """Those that take turns: one that needs as long as all others together would leave them few rounds."""
    fastest = min((row.seconds for _, row in ready), default=0.0)
    return [(seat, row) for seat, row in ready if row.seconds <= max(TURNS, SLOW * fastest)]


def _renew(timed: Sequence[tuple[Seat, Row]], entrants: Sequence[Entrant]) -> None:
    for (seat, _), entrant in zip(timed, entrants):
        if entrant.lost is None:
            try:
                seat.renew()
            except Lost as lost:
                entrant.lost = str(lost)


def _with_samples(timed: Sequence[tuple[Seat, Row]], entrants: Sequence[Entrant], peak: Entrant,
                  placements: Sequence[int]) -> list[Row]:
    """The rows of those that are still there, with their figures so far."""
    there = [(row, entrant.samples) for (_, row), entrant in zip(timed, entrants) if entrant.lost is None]
    reference = next((samples for row, samples in there if row.contender == REFERENCE), None)
    return [row.measured(samples, placements, None if reference is None else ratios(reference, samples, placements),
                         ratios([row.problem.flops / seconds for seconds in samples], peak.samples, placements))
            for row, samples in there]
