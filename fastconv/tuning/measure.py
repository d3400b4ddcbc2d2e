"""Which candidate of a problem is the fastest here: all that may be are verified, then take turns in short blocks.

Noise only slows, so the best block counts. First a race of all, which those far behind soon leave; then a duel between the
model's choice and the best challenger, with figures of its own: the best of many figures is too good by what luck adds, so
the figures that selected a challenger must not be those that judge it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .. import settings
from ..backends import Kernel
from ..candidates import Ranked, Rejected, bind, ranked, variants
from ..lowering import pack_once
from ..problem import ConvProblem
from ..reasons import Failed, Reason, Wrong
from ..timing import paired
from ..timing.paired import Clock, Entrant, Lost, WallClock
from ..timing.reduced import by_less
from ..verify.data import Arrays, same_arrays
from ..verify.judge import Comparison
from ..wisdom import Entry

BETTER = 0.03  # share of the time that a challenger must save to replace the model's choice
FAR = 5.0  # times the best estimate: not worth a run
SLOW = 3.0  # times the best run so far: not worth a second look
VARIED = 2.0  # times the best run: worth trying with other tiles
BEHIND = 1.25  # times the best block so far: leaves the race
ENOUGH = 2e9  # flops of a call: more images tell nothing new
PATIENCE = 0.05  # seconds: a small problem that takes so long tells how long the whole would take
BLAS = frozenset({"im2col"})  # what they sum in which order depends on batch and threads


@dataclass
class Tuned:
    """What was found out about a problem; seconds are of one image."""

    problem: ConvProblem
    prepared: bool
    model: Ranked  # its choice
    model_seconds: float | None = None  # None: it failed, or was wrong
    chosen: Ranked | None = None  # the fastest; None: nobody is right
    seconds: float = math.nan  # of the chosen one
    measured: int = 0  # candidates that took part in the race
    dropped: list[Rejected] = field(default_factory=list)  # before it
    wrong: list[Rejected] = field(default_factory=list)

    @property
    def gain(self) -> float:
        """Share of the time of the model's choice that the chosen one saves."""
        return 0.0 if self.model_seconds is None else 1 - self.seconds / self.model_seconds

    @property
    def entry(self) -> Entry | None:
        """For the file."""
        return None if self.chosen is None else Entry(self.chosen.backend, self.chosen.candidate, self.seconds, self.gain)


def measure(problem: ConvProblem, prepared: bool, seconds: float, clock: Clock | None = None) -> Tuned:
    """Let the candidates of a problem race.

    Args:
        prepared: the weights are packed beforehand; else packing them is part of every call.
        seconds: how long they take turns; what comes before, and whole rounds of slow ones, take what they take.

    Raises:
        Unsupported: nobody computes it.
    """
    few = _fewer_images(problem)
    order, _ = ranked(few, prepared=prepared)
    race = _Race(few, Tuned(problem, prepared, order[0]), clock or WallClock())
    for each in order:
        race.admit(each)
    near = [entrant.ranked for entrant in race.entrants if entrant.look <= VARIED * race.best]
    for each in near:
        for variant in variants(few, each, prepared):
            race.admit(variant)
    race.run(seconds)
    return race.found


def _fewer_images(problem: ConvProblem) -> ConvProblem:
    """At least one, and one for each thread."""
    one = dataclasses.replace(problem, batch=1)
    enough = max(settings.get_num_threads(), int(ENOUGH / one.flops))
    return dataclasses.replace(problem, batch=max(1, min(problem.batch, enough)))


@dataclass
class _Runner:
    """A candidate that computes right."""

    ranked: Ranked
    call: Callable[[], None]
    look: float  # seconds of a call, at first sight
    calls: int = 0  # of a block
    entrant: Entrant = field(init=False)


class _Race:
    """All candidates of one problem, on the same arrays."""

    def __init__(self, problem: ConvProblem, found: Tuned, clock: Clock) -> None:
        self.problem, self.found, self.clock = problem, found, clock
        self.arrays = same_arrays(problem)
        self.out = np.empty(problem.result_shape, problem.dtype)
        self.results = Comparison(problem, self.arrays)
        self.entrants: list[_Runner] = []

    @property
    def best(self) -> float:
        """Seconds of the quickest call so far."""
        return min((runner.look for runner in self.entrants), default=math.inf)

    def admit(self, each: Ranked) -> None:
        """Run a candidate and check its result, unless it is known to be slow; notes why it takes no part."""
        reason = self._hopeless(each)
        if reason is None:
            try:
                reason = self._look(each)
            except Exception as error:  # one that breaks must not cost the others their figures
                reason = Failed.by(error)
        if reason is not None:
            self.found.dropped.append(Rejected(each.backend, each.candidate, reason))

    def _hopeless(self, each: Ranked) -> Reason | None:
        """Why it is not even run."""
        model = self.found.model
        if each.candidate.algorithm in BLAS and model.candidate.algorithm not in BLAS:
            return Reason("would give other bits in another batch or with other threads")
        if each.seconds is not None and model.seconds is not None and each.seconds > FAR * model.seconds:
            return Reason(f"estimated {each.seconds / model.seconds:.1f} times the best estimate")
        if each.seconds is None and self.entrants:
            try:
                less = by_less(self.problem, lambda small: (None, self._small(small, each)), SLOW * self.best, self.clock)
            except Exception:  # of a smaller problem it may not even be the same kind
                return None
            if less is not None:
                return Reason(f"would take about {less.seconds / self.best:.0f} times the best run")
        return None

    def _small(self, problem: ConvProblem, each: Ranked) -> Callable[[], None]:
        """A call of a smaller problem."""
        out = np.empty(problem.result_shape, problem.dtype)
        return _call(bind(problem, each.backend, each.candidate), same_arrays(problem), out, self.found.prepared)

    def _look(self, each: Ranked) -> Reason | None:
        """Why a candidate that was run takes no part; None if it does, or is wrong."""
        kernel = bind(self.problem, each.backend, each.candidate)
        call = _call(kernel, self.arrays, self.out, self.found.prepared)
        self.out.fill(np.nan)  # what is not written shows
        limit = SLOW * self.best
        look = _timed(call, self.clock)
        wrong = self.results.wrong(self.out, each.candidate)
        if wrong is not None:
            self.found.wrong.append(Rejected(each.backend, each.candidate, Wrong(wrong)))
            return None
        for _ in range(2):  # the first call may have compiled, or met cold caches
            if look > limit or look < PATIENCE:
                look = min(look, _timed(call, self.clock))
        if look > limit:
            return Reason(f"took {look / self.best:.1f} times the best run")
        self.entrants.append(_Runner(each, call, look))
        return None

    def run(self, seconds: float) -> None:
        """The race, the duel, and who has won."""
        found, end = self.found, self.clock.now() + seconds
        going = [runner for runner in self.entrants if runner.look <= SLOW * self.best or runner.ranked == found.model]
        found.measured = len(going)
        for runner in going:
            runner.calls = paired.calls_per_block(runner.call, self.clock)
        self._restart(going)
        rounds = 0
        while len(going) > 1:
            rounds += paired.rotate([runner.entrant for runner in going], 1, 0.0, self.clock, rounds)
            going = [runner for runner in going if runner.entrant.lost is None]
            best = min((_best(runner) for runner in going), default=math.inf)
            going = [runner for runner in going if runner.ranked == found.model or _best(runner) <= BEHIND * best]
            if self.clock.now() >= end - seconds / 2:
                break
        self._decide(going, end)

    def _decide(self, going: list[_Runner], end: float) -> None:
        found = self.found
        model = next((runner for runner in going if runner.ranked == found.model), None)
        others = sorted((runner for runner in going if runner is not model), key=_best)
        duel = [runner for runner in (model, *others[:1]) if runner is not None]
        self._restart(duel)
        paired.rotate([runner.entrant for runner in duel], 2, end, self.clock)
        duel = [runner for runner in duel if runner.entrant.lost is None]
        if not duel:
            return
        winner = duel[0]
        if len(duel) > 1 and _best(duel[1]) <= (1 - BETTER) * _best(duel[0]):
            winner = duel[1]
        if model in duel:
            found.model_seconds = _best(model) / self.problem.batch
        found.chosen, found.seconds = winner.ranked, _best(winner) / self.problem.batch

    def _restart(self, runners: list[_Runner]) -> None:
        """Figures of their own for what comes now."""
        for runner in runners:
            runner.entrant = Entrant(str(runner.ranked), _block(runner, self.clock))


def _best(runner: _Runner) -> float:
    return min(runner.entrant.samples, default=math.inf)


def _block(runner: _Runner, clock: Clock) -> Callable[[], float]:
    def block() -> float:
        try:
            return paired.block(runner.call, runner.calls, clock)
        except Exception as error:
            raise Lost(Failed.by(error)) from error

    return block


def _call(kernel: Kernel, arrays: Arrays, out: np.ndarray, prepared: bool) -> Callable[[], None]:
    x, w, b, residual = arrays
    if not prepared:
        return lambda: kernel.run(x, pack_once(kernel, w, b), out, residual)
    packed = kernel.pack(w, b)
    return lambda: kernel.run(x, packed, out, residual)


def _timed(call: Callable[[], None], clock: Clock) -> float:
    start = clock.now()
    call()
    return clock.now() - start
