"""Two records of one machine: each row's change beyond the machine's own, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...problem import ConvProblem
from .records import Measurement, Record
from .regressions import Judgement, Shift, judge, level

VAGUE = 0.05  # standard error from which a row tells nothing that a verdict needs
CONTROLS = 3  # other contenders at least: the median of fewer is one of them, with its own luck


@dataclass(frozen=True)
class Unjudged:
    """A row without a verdict: new over old time as it is, and why."""

    problem: ConvProblem
    contender: str
    ratio: float
    reason: str


@dataclass(frozen=True)
class Comparison:
    old: Record
    new: Record
    judgement: Judgement
    unjudged: tuple[Unjudged, ...]


def pairs(records: Sequence[Record]) -> list[tuple[Record, Record]]:
    """(older, newer) of every machine's successive records."""
    machines: dict[tuple[object, ...], list[Record]] = {}
    for record in sorted(records, key=lambda record: record.when):
        machines.setdefault(record.machine, []).append(record)
    return [pair for found in machines.values() for pair in zip(found, found[1:])]


def compare(old: Record, new: Record) -> Comparison:
    """What changed on all problems that both records hold."""
    shifts: list[Shift] = []
    unjudged: list[Unjudged] = []
    known = set(old.problems)
    for problem in new.problems:
        if problem in known:
            _layer(problem, old, new, shifts, unjudged)
    return Comparison(old, new, judge(shifts), tuple(unjudged))


def _layer(problem: ConvProblem, old: Record, new: Record, shifts: list[Shift], unjudged: list[Unjudged]) -> None:
    both = {a.contender: (a, b) for b in new.of(problem, estimates=True) if (a := old.get(problem, b.contender)) is not None}
    calm = {name: (a, b) for name, (a, b) in both.items() if _unfit(a, b) is None}
    drift = {name: level(np.log(b.data))[0] - level(np.log(a.data))[0] for name, (a, b) in calm.items()}
    for name, (a, b) in both.items():
        reason = _unfit(a, b)
        controls = _controls(name, calm) if reason is None else []
        machine = float(np.median([drift[other] for other in controls])) if controls else _peak_drift(problem, old, new, b)
        if reason is None and machine is None:
            reason = f"fewer than {CONTROLS} other contenders to compare the machine's own drift by, and no measured peak"
        if reason is not None or machine is None:
            unjudged.append(Unjudged(problem, name, b.seconds / a.seconds, reason or ""))
            continue
        before, error = level(*_still(a, [calm[other][0] for other in controls]))
        after, other_error = level(*_still(b, [calm[other][1] for other in controls]))
        if (wide := float(np.hypot(error, other_error))) > VAGUE:
            unjudged.append(Unjudged(problem, name, b.seconds / a.seconds, f"noisy: known to within {2 * wide:.0%} only"))
            continue
        algorithm = b.algorithm if a.algorithm == b.algorithm else f"{a.algorithm} → {b.algorithm}"
        shifts.append(Shift(problem, name, algorithm, after - before - machine, wide))


def _unfit(a: Measurement, b: Measurement) -> str | None:
    """Why a pair gets no verdict."""
    if a.estimate or b.estimate:
        return "an estimate, not measured"
    if not (a.paired and b.paired):
        return "one call, which took no turns"
    return None


def _controls(name: str, calm: dict[str, tuple[Measurement, Measurement]]) -> list[str]:
    """Who tells what the machine did: peers of unchanged version if there are enough, as no commit of ours changes them (one to
    what all backends share would look like the machine's drift); else everyone else on the same kind of device."""
    copies = calm[name][1].with_copies
    others = [other for other, (_, b) in calm.items() if other != name and b.with_copies == copies]
    peers = [o for o in others if calm[o][1].kind == "peer" and calm[o][0].library == calm[o][1].library]
    return peers if len(peers) >= CONTROLS else others if len(others) >= CONTROLS else []


def _peak_drift(problem: ConvProblem, old: Record, new: Record, row: Measurement) -> float | None:
    """The log of the time that the processor's peak took, new over old; says nothing of another device."""
    if row.with_copies or problem not in old.peaks or problem not in new.peaks:
        return None
    return float(np.log(old.peaks[problem].flops / new.peaks[problem].flops))


def _still(row: Measurement, controls: list[Measurement]) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """The rounds' log seconds without what happened to everyone in the same round, and their placements."""
    logs = np.log(row.data)
    beside = [np.log(c.data) for c in controls if len(c.data) == len(row.data)]
    if len(beside) >= CONTROLS:
        logs = logs - np.median([other - np.median(other) for other in beside], axis=0)
    return logs, row.placement
