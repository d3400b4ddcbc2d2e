"""The answer in words: one sentence on who wins, by how much and on what, and what it rests on."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..timing import Interval
from . import findings
from .across import newest
from .changes import Comparison
from .contests import AHEAD, BEHIND, Contest, main_contests, score
from .records import Record, title
from .tables import plural, significant

_NAMED = 3  # layers or machines that a sentence lists


@dataclass(frozen=True)
class Answer:
    """`headline`: one sentence; `lines`: what it leaves open; `basis`: how and on what it was measured."""

    headline: str
    lines: tuple[str, ...]
    basis: str


def answer(records: Sequence[Record], compared: Sequence[Comparison] = ()) -> Answer:
    """Of all records of a report: of the machine, or of all machines where there are several that compare."""
    machines = newest(records)
    several = [(record, found[0]) for record in machines if (found := main_contests(record))]
    if len(several) > 1 and len({found.ours for _, found in several}) == 1:
        headline, lines = _machines(several)
        basis = "; ".join(dict.fromkeys(_basis(record) for record, _ in several))
    else:
        record = several[0][0] if several else machines[-1]
        headline, lines = _machine(record)
        basis = _basis(record)
    return Answer(headline, (*lines, *map(findings.summary, compared)), basis)


def of_record(record: Record) -> Answer:
    return answer([record])


def interval(found: Interval) -> str:
    """"1.85 [1.63, 2.14]"; the ends only where there are any."""
    ends = f" [{significant(found.low)}, {significant(found.high)}]" if found.high > found.low else ""
    return significant(found.middle) + ends


def _machine(record: Record) -> tuple[str, list[str]]:
    contests = main_contests(record)
    if not contests:
        return _alone(record), []
    first, *rest = contests
    lines = [_terms(record, first)]
    for other in rest:
        lines.append(f"With weights packed in every call, as a function must: {significant(other.mean.middle)} times "
                     f"{_ends(other)}, {score(other)}.")
    lines += [] if not first.left_out else [_left_out(first)]
    return f"On {record.label}, {_claim(first)}: {score(first)}.", lines


def _claim(found: Contest) -> str:
    mean = found.mean
    times = f"{significant(mean.middle)} times as fast"
    level = len(found.duels) == 1 and found.duels[0].verdict not in (AHEAD, BEHIND)
    if mean.low <= 1 <= mean.high or level:
        return f"{found.ours} and {found.rivals} are level within the noise ({times})"
    if mean.middle > 1:
        return f"{found.ours} is {times} as {found.rivals}"
    return f"{found.ours} is slower than {found.rivals}, {times}"


def _terms(record: Record, found: Contest) -> str:
    how = ""
    if found.duels[0].ours.kind == "backend" and all(duel.ours.prepared for duel in found.duels):
        alike = list(dict.fromkeys(m.contender for m in record.measurements if m.kind == "peer" and m.prepared))
        how = "; weights packed beforehand" + (f", as {', '.join(alike)} do" if alike else "")
    if len(found.duels) == 1:
        duel = found.duels[0]
        return (f"{title(duel.problem)}, {duel.ours.contender} against {duel.rival.contender}: median of the rounds' ratios, "
                f"95 % interval {_bare(duel.speedup)}{how}.")
    return (f"Geometric mean over {plural(len(found.duels), 'layer')}, each against its fastest rival; 95 % interval "
            f"{_bare(found.mean)} (bootstrap over the layers){how}.")


def _ends(found: Contest) -> str:
    return f"(95 % interval {_bare(found.mean)})"


def _bare(found: Interval) -> str:
    return f"{significant(found.low)} to {significant(found.high)}"


def _left_out(found: Contest) -> str:
    names = [title(problem) for problem in found.left_out]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"Left out, as not both sides took turns: {', '.join(names[:_NAMED])}{more}."


def _alone(record: Record) -> str:
    """One contender, or none: there is nobody to be faster than."""
    measured = [m for m in record.measurements if not m.estimate]
    if not measured:
        return f"On {record.label}, nothing was measured."
    names = dict.fromkeys(m.contender for m in measured)
    who, layers = " and ".join(list(names)[:2]), plural(len({m.problem for m in measured}), "layer")
    shares = [m.of_peak for m in measured if m.of_peak is not None]
    if not shares:
        rate = significant(statistics.median(m.gflops for m in measured))
        return f"On {record.label}, {who} computes {layers} at {rate} GFLOP/s (median), with nobody to compare with."
    return (f"On {record.label}, {who} reaches {statistics.median(shares):.0%} of the measured peak (median of {layers}), with "
            "nobody to compare with.")


def _machines(several: Sequence[tuple[Record, Contest]]) -> tuple[str, list[str]]:
    ours = several[0][1].ours
    rivals = {found.rivals for _, found in several}
    than = rivals.pop() if len(rivals) == 1 else "the best of the others on each layer"
    faster = [item for item in several if item[1].mean.low > 1]
    where = f"all {len(several)} machines" if len(faster) == len(several) else f"{len(faster)} of {len(several)} machines"
    times = [found.mean.middle for _, found in faster or several]
    low, high = significant(min(times)), significant(max(times))
    size = f"{low} times" if low == high else f"{low} to {high} times"
    headline = (f"{ours} is faster than {than} on {where}: {size} as fast." if faster
                else f"{ours} is not faster than {than} on any of {len(several)} machines: {size} as fast.")
    lines = [f"{record.label}: {interval(found.mean)} times, {score(found)}." for record, found in several]
    return headline, [*lines, "Geometric means over the layers, with 95 % intervals from a bootstrap over them."]


def _basis(record: Record) -> str:
    """Hardware, versions and day, in one line."""
    libraries = dict.fromkeys(m.library for m in record.measurements if m.kind == "peer")
    against = f" against {', '.join(libraries)}" if libraries else ""
    noisy = sum(m.noisy for m in record.measurements)
    note = f", {noisy} of {len(record.measurements)} figures noisy" if noisy else ""
    return (f"{record.label}; {record.version}{against}; {record.when:%Y-%m-%d}; results checked, contenders taking turns in "
            f"processes of their own{note}")
