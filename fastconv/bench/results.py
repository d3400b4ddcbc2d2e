"""What a benchmark run found out; what tables, charts and records are made of."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..problem import ConvProblem
from ..reasons import Reason
from ..timing.paired import NOISY, Interval, geometric_mean, ratios
from .admission import Admission
from .contenders import Contender

NOISY_FROM = 2e-4  # seconds: calls below this vary by more than 5 % on any desktop system, and nobody can help it


@dataclass(frozen=True)
class Row:
    """One contender on one problem. Its result was checked in this run, or it would not be here."""

    problem: ConvProblem
    contender: str
    kind: str  # "backend" or "peer"
    backend: str
    algorithm: str
    isa: str | None
    verified: int  # output values compared with the float64 reference
    samples: tuple[float, ...]  # seconds per call, one per round
    placements: tuple[int, ...] = ()  # which placement in memory each round belonged to
    calls: int = 1  # per round
    prepared: bool = False
    prepare_seconds: float | None = None  # binding: planning, compiling, packing
    first_seconds: float | None = None  # the first call
    peak_bytes: int | None = None  # by how much resident memory rose over both
    speedup: Interval | None = None  # the reference's seconds over these, per round
    of_peak: Interval | None = None  # flops per second over the measured peak, per round
    estimate: bool = False  # `samples` is one value, scaled up from a smaller problem
    with_copies: bool = False  # the time includes copies to and from a device

    @classmethod
    def of(cls, problem: ConvProblem, contender: Contender, admission: Admission) -> Row:
        """With the time of one call."""
        return cls(problem, contender.name, contender.kind, contender.backend, admission.algorithm, admission.isa,
                   admission.verified, (admission.seconds,), calls=max(1, admission.calls), prepared=contender.prepared,
                   prepare_seconds=admission.prepare_seconds, first_seconds=admission.first_seconds,
                   peak_bytes=admission.peak_bytes, estimate=admission.estimate, with_copies=contender.with_copies)

    def measured(self, samples: Sequence[float], placements: Sequence[int], speedup: Interval | None,
                 of_peak: Interval) -> Row:
        """With the times of a rotation."""
        return replace(self, samples=tuple(samples), placements=tuple(placements), speedup=speedup, of_peak=of_peak)

    @property
    def seconds(self) -> float:
        return statistics.median(self.samples)

    @property
    def gflops(self) -> float:
        return self.problem.flops / self.seconds / 1e9

    @property
    def spread(self) -> float | None:
        """Relative width of the interval of the share of peak, which has no other contender's noise in it."""
        return None if self.of_peak is None else self.of_peak.width

    @property
    def noisy(self) -> bool:
        return self.spread is not None and self.spread > NOISY and self.seconds > NOISY_FROM


@dataclass(frozen=True)
class LeftOut:
    """A contender that got no number on a problem, and why."""

    problem: ConvProblem
    contender: str
    reason: Reason


@dataclass(frozen=True)
class Peak:
    """What the machine could do beside one problem: round by round."""

    flops_data: tuple[float, ...]  # per second
    method: str
    bandwidth_data: tuple[float, ...]  # bytes per second, read and written
    bandwidth_method: str

    @property
    def flops(self) -> float:
        return statistics.median(self.flops_data)

    @property
    def bandwidth(self) -> float:
        return statistics.median(self.bandwidth_data)


@dataclass(frozen=True)
class Mean:
    """A geometric mean of ratios, and of which problems."""

    ratio: Interval
    problems: tuple[ConvProblem, ...]


@dataclass
class Results:
    """A run, as far as it got."""

    threads: int
    reference: str
    libraries: dict[str, tuple[str, float]] = field(default_factory=dict)  # of each contender, and seconds of its import
    rows: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    peaks: dict[ConvProblem, Peak] = field(default_factory=dict)
    problems: list[ConvProblem] = field(default_factory=list)  # those that are done
    suites: tuple[str, ...] = ()  # what was asked for: suites, files, problem texts
    networks: dict[str, list[ConvProblem]] = field(default_factory=dict)  # layers, with their counts, by suite
    asked: int = 0  # problems
    seconds: float = 0.0
    repeated: int = 0  # blocks, as the machine was disturbed beside them
    share: float = 0.0  # of the run that is done
    interrupted: bool = False

    def add(self, problem: ConvProblem, rows: Sequence[Row], left_out: Sequence[LeftOut], peak: Peak | None) -> None:
        """What is known of a problem, in place of what was known before."""
        if not any(known is problem for known in self.problems):
            self.problems.append(problem)
        place = {id(known): index for index, known in enumerate(self.problems)}
        kept = [row for row in self.rows if row.problem is not problem]
        self.rows = sorted([*kept, *rows], key=lambda row: place[id(row.problem)])
        others = [out for out in self.left_out if out.problem is not problem]
        self.left_out = sorted([*others, *left_out], key=lambda out: place[id(out.problem)])
        if peak is not None:
            self.peaks[problem] = peak

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

    def first(self, problem: ConvProblem) -> list[Row]:
        """The fastest that was measured, and those whom it does not beat: 1 is in the interval of the ratio to them."""
        rows = sorted((row for row in self.of(problem) if not row.estimate), key=lambda row: row.seconds)
        return [row for row in rows if row is rows[0] or row.placements and row.placements == rows[0].placements
                and ratios(row.samples, rows[0].samples, row.placements).low <= 1]

    def geometric_mean(self, contender: str, over: Sequence[str] | None = None) -> Mean | None:
        """How much faster than the fastest of `over`, over the problems where both took turns.

        Args:
            over: contenders; None: the reference.
        """
        found = []
        for problem in self.problems:
            rows = [row for row in self.of(problem) if row.placements]
            own = next((row for row in rows if row.contender == contender), None)
            others = [row for row in rows if row.contender in (over or (self.reference,)) and row is not own]
            if own is not None and others:
                best = min(others, key=lambda row: row.seconds)
                found.append((problem, ratios(best.samples, own.samples, own.placements)))
        mean = geometric_mean([ratio.middle for _, ratio in found])
        if mean is None:
            return None
        return Mean(found[0][1] if len(found) == 1 else mean, tuple(problem for problem, _ in found))

    def peers(self) -> list[str]:
        """The peers among the contenders."""
        return list(dict.fromkeys(row.contender for row in self.rows if row.kind == "peer"))

    def network_seconds(self, network: str, contender: str) -> float | None:
        """Time of a network's layers, each as often as it occurs; None unless this contender has measured all of them."""
        measured = {row.problem: row.seconds for row in self.rows if row.contender == contender and not row.estimate}
        layers = self.networks[network]
        if any(layer not in measured for layer in layers):
            return None
        return sum(measured[layer] * layer.count for layer in layers)
