"""What is known of one problem so far, pass after pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..problem import ConvProblem
from ..timing.paired import Entrant, ratios
from .results import LeftOut, Peak, Row

Probe = tuple[Callable[[], float], str]  # a rate, and how it is measured


class Timed(NamedTuple):
    """A contender that takes turns."""

    row: Row  # as it was admitted
    entrant: Entrant


class Course:
    """The contenders on one problem, and their rounds."""

    def __init__(self, problem: ConvProblem) -> None:
        self.problem = problem
        self.timed: dict[str, Timed] = {}  # by contender
        self.others: list[Row] = []  # with the time of one call, or an estimate
        self.refused: list[LeftOut] = []
        self.placements: list[int] = []  # of each round
        self.open = False  # whether everyone was admitted or refused

    def start(self, flops: Probe, bandwidth: Probe) -> None:
        """Everyone was admitted or refused; the probes take turns, too."""
        self.open = True
        self._methods = flops[1], bandwidth[1]
        self._flops, self._bandwidth = Entrant("peak", flops[0], best=max), Entrant("copy", bandwidth[0], best=max)

    @property
    def going(self) -> list[Entrant]:
        """Everyone who still takes turns but the probes."""
        return [timed.entrant for timed in self.timed.values() if timed.entrant.lost is None]

    @property
    def entrants(self) -> list[Entrant]:
        """Everyone who takes turns."""
        return [*self.going, self._flops, self._bandwidth]

    def rows(self, reference: str) -> list[Row]:
        """The figures so far.

        Args:
            reference: the contender that speed-ups are relative to.
        """
        there = [timed for timed in self.timed.values() if timed.entrant.lost is None]
        base = next((timed.entrant.samples for timed in there if timed.row.contender == reference), None)
        return [self._row(timed, base) for timed in there] + self.others

    def _row(self, timed: Timed, base: Sequence[float] | None) -> Row:
        samples, placements = timed.entrant.samples, self.placements
        rates = [self.problem.flops / seconds for seconds in samples]
        return timed.row.measured(samples, placements, None if base is None else ratios(base, samples, placements),
                                  ratios(rates, self._flops.samples, placements))

    @property
    def left_out(self) -> list[LeftOut]:
        """Who got no number, and why."""
        return self.refused + [LeftOut(self.problem, name, timed.entrant.lost) for name, timed in self.timed.items()
                               if timed.entrant.lost is not None]

    @property
    def peak(self) -> Peak | None:
        """What the machine could do meanwhile; None if nobody took turns."""
        if not self.placements:
            return None
        return Peak(tuple(self._flops.samples), self._methods[0], tuple(self._bandwidth.samples), self._methods[1])
