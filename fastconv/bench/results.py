"""What a benchmark run found out; what tables, charts and records are made of."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from ..problem import ConvProblem
from .timing import NOISY, Interval

NOISY_FROM = 2e-4  # seconds: calls below this vary by more than 5 % on any desktop system, and nobody can help it


@dataclass(frozen=True)
class Row:
    """One contender on one problem. Its result was checked in this run, or it would not be here."""

    problem: ConvProblem
    contender: str
    backend: str
    algorithm: str
    isa: str | None
    verified: int  # output values compared with the float64 reference
    samples: tuple[float, ...]  # seconds per call, one per round
    calls: int = 1  # per round
    speedup: Interval | None = None  # the reference's seconds over these, per round
    of_peak: Interval | None = None  # flops per second over the measured peak, per round
    estimate: bool = False  # `samples` is one value, scaled up from a smaller problem
    with_copies: bool = False  # the time includes copies to and from a device

    @property
    def seconds(self) -> float:
        return statistics.median(self.samples)

    @property
    def gflops(self) -> float:
        return self.problem.flops / self.seconds / 1e9

    @property
    def spread(self) -> float | None:
        """Relative width of the paired interval (of the speed-up; the reference has that of its share of peak)."""
        intervals = [i for i in (self.speedup, self.of_peak) if i is not None and i.width > 0]
        return intervals[0].width if intervals else None

    @property
    def noisy(self) -> bool:
        return self.spread is not None and self.spread > NOISY and self.seconds > NOISY_FROM


@dataclass(frozen=True)
class LeftOut:
    """A contender that got no number on a problem, and why."""

    problem: ConvProblem
    contender: str
    reason: str


@dataclass(frozen=True)
class Peak:
    """What the machine could do beside one problem: medians over the same rounds."""

    flops: float  # per second
    method: str
    bandwidth: float  # bytes per second, read and written
    bandwidth_method: str


@dataclass
class Results:
    """A run, as far as it got."""

    threads: int
    reference: str
    rows: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    peaks: dict[ConvProblem, Peak] = field(default_factory=dict)
    problems: list[ConvProblem] = field(default_factory=list)  # those that are done
    asked: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    def of(self, problem: ConvProblem) -> list[Row]:
        return [row for row in self.rows if row.problem is problem]

    def contenders(self) -> list[str]:
        """Everyone who got a number, in order of appearance."""
        return list(dict.fromkeys(row.contender for row in self.rows))

    def speedup(self, row: Row) -> float | None:
        """How much faster than the reference: paired where it was, else from the two medians."""
        if row.speedup is not None:
            return row.speedup.middle
        found = [other for other in self.of(row.problem) if other.contender == self.reference]
        return found[0].seconds / row.seconds if found else None

    def geometric_mean(self, contender: str) -> tuple[float, int] | None:
        """(mean speed-up, number of problems) over the problems where nothing is an estimate."""
        measured = [row for row in self.rows if not row.estimate]
        references = {id(row.problem) for row in measured if row.contender == self.reference}
        values = [value for row in measured if row.contender == contender and id(row.problem) in references
                  if (value := self.speedup(row)) is not None]
        return (statistics.geometric_mean(values), len(values)) if values else None

    def network_seconds(self, contender: str) -> float | None:
        """Time of all layers with their counts, or None unless this contender has measured all problems of the run."""
        rows = [row for row in self.rows if row.contender == contender and not row.estimate]
        if len(rows) != len(self.problems) or len(self.problems) != self.asked:
            return None
        return sum(row.seconds * row.problem.count for row in rows)
