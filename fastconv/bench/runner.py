"""Runs contenders on problems: verify, estimate what would take too long, time the rest in rotation.

The problems are gone through more than once, each time with new processes: some layers are ten percent faster or slower for as
long as a process lives, and a noisy minute should not be all that a problem gets. Those that are still noisy get more passes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .. import settings
from ..problem import ConvProblem
from ..reasons import Failed, Reason, Refused
from ..timing.paired import Clock, Entrant, Lost, WallClock, Watch, rotate
from . import probes
from .admission import Admission, Limits
from .contenders import Contender
from .course import Course, Timed
from .remote import Remote
from .results import LeftOut, Results, Row

REFERENCE = "im2col"
PASSES = 2  # over all problems, each with new processes
MORE_PASSES = 4  # twice as long, for problems with noisy figures only ...
LONGER = 2  # and only until the run has taken so many times the time of the usual passes
TURNS = 0.05  # seconds: a call that takes longer takes turns only if it is less than ...
SLOW = 20  # times slower than the fastest
PLACEMENTS = 4  # fresh memory for everybody so often in a problem's time
_EMPTY = Admission(Refused("an empty batch takes no time"))


@dataclass(frozen=True)
class Options:
    """How to run: `seconds` of timing per problem, up to five times that where figures stay noisy; a call that takes longer is
    estimated, unless `everything` is set."""

    threads: int = 1
    seconds: float = 1.5
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
    courses = [Course(problem) for problem in dict.fromkeys(work.problems)]
    results = Results(options.threads, REFERENCE, suites=work.suites, networks=work.networks, asked=len(courses))
    begin = clock.now()
    with settings.config(num_threads=options.threads), contextlib.ExitStack() as stack:
        bench = _Bench(options, stack.enter_context(contextlib.closing(probes.Copy(options.threads))), clock, results)
        try:
            for contender in contenders:
                progress(results, f"starting {contender.name}")
                bench.add(stack.enter_context(contextlib.closing((seat or remote)(contender, options))))
            for number in range(PASSES):
                for index, course in enumerate(courses):
                    results.share = (number + index / len(courses)) / PASSES / LONGER
                    progress(results, course.problem.name or course.problem.text)
                    bench.measure(course, PLACEMENTS // PASSES)
                bench.end_processes()
            usual = clock.now() - begin
            for _ in range(MORE_PASSES):
                for course in filter(bench.noisy, courses):
                    results.share = min(1.0, (clock.now() - begin) / usual / LONGER)
                    if results.share < 1:
                        progress(results, course.problem.name or course.problem.text)
                        bench.measure(course, PLACEMENTS)
                bench.end_processes()
            results.share = 1.0
            progress(results, "")
        except KeyboardInterrupt:
            results.interrupted = True
    results.seconds = clock.now() - begin
    return results


class _Bench:
    """Measures one problem after the other."""

    def __init__(self, options: Options, copy: probes.Copy, clock: Clock, results: Results) -> None:
        self.options, self.copy, self.clock, self.results = options, copy, clock, results
        self.seats: dict[str, Seat] = {}
        self.absent: dict[str, Reason] = {}  # contenders that did not start, and why
        work = probes.small_work()
        self.watch = None if work is None else Watch(work, clock)

    def add(self, seat: Seat) -> None:
        try:
            self.results.libraries[seat.name] = seat.start(self.options.threads)
            self.seats[seat.name] = seat
        except Lost as lost:
            self.absent[seat.name] = lost.reason

    def end_processes(self) -> None:
        """Each starts anew where it is needed next."""
        for seat in self.seats.values():
            seat.close()

    def noisy(self, course: Course) -> bool:
        """Whether more rounds would help."""
        return any(row.noisy for row in self.results.of(course.problem))

    def measure(self, course: Course, placements: int) -> None:
        """Everyone is checked first, then those that are fast enough take turns."""
        if course.open:
            self._admit_again(course)
        else:
            self._admit(course)
        if course.going:
            self._take_turns(course, placements)
        for seat in self.seats.values():
            seat.leave()
        order = {name: index for index, name in enumerate(self.seats)}
        self.results.add(course.problem, sorted(course.rows(REFERENCE), key=lambda row: order[row.contender]),
                         course.left_out, course.peak)
        self.results.repeated = 0 if self.watch is None else self.watch.repeated

    def _admit(self, course: Course) -> None:
        problem = course.problem
        course.refused += [LeftOut(problem, name, reason) for name, reason in self.absent.items()]
        ready: list[Row] = []
        for seat in self.seats.values():
            admission = seat.admit(problem) if problem.batch else _EMPTY
            if admission.reason is not None:
                course.refused.append(LeftOut(problem, seat.name, admission.reason))
            else:
                (ready if admission.calls else course.others).append(Row.of(problem, seat.contender, admission))
        fastest = min((row.seconds for row in ready), default=0.0)
        for row in ready:
            if row.seconds <= max(TURNS, SLOW * fastest):
                course.timed[row.contender] = Timed(row, Entrant(row.contender, self.seats[row.contender].block))
            else:  # it needs as long as all others together, and would leave them few rounds
                course.others.append(row)
        course.start(probes.peak(problem.dtype, self.options.threads), (self.copy, self.copy.method))

    def _admit_again(self, course: Course) -> None:
        for entrant in course.going:
            admission = self.seats[entrant.name].admit(course.problem)
            if admission.reason is not None or admission.estimate:
                entrant.lost = admission.reason or Failed(f"a call took {admission.seconds:.3g} s in a later pass")

    def _take_turns(self, course: Course, placements: int) -> None:
        begin, first = self.clock.now(), course.placements[-1] + 1 if course.placements else 0
        for placement in range(placements):
            if placement:
                self._renew(course)
            end = begin + self.options.seconds * (placement + 1) / PLACEMENTS
            rounds = rotate(course.entrants, 1, end, self.clock, len(course.placements), self.watch)
            course.placements += [first + placement] * rounds

    def _renew(self, course: Course) -> None:
        for entrant in course.going:
            try:
                self.seats[entrant.name].renew()
            except Lost as lost:
                entrant.lost = lost.reason
