"""The answer in words: one sentence on who wins, by how much and on what, and what it rests on."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ...timing.paired import Interval
from . import findings
from .across import newest
from .changes import Comparison
from .contests import AHEAD, BEHIND, TIED, Contest, main_contests
from .records import Record, title
from .tables import plural, significant

_LONGEST = 60  # characters of a machine's name
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
        basis = _basis([record for record, _ in several])
    else:
        record = several[0][0] if several else machines[-1]
        headline, lines = _machine(record)
        basis = _basis([record])
    return Answer(headline, (*lines, *map(findings.summary, compared)), basis)


def of_record(record: Record) -> Answer:
    return answer([record])


def _interval(found: Interval) -> str:
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
                     f"(95 % interval {_bare(other.mean)}), {_score(other)}.")
    lines += [] if not first.left_out else [_left_out(first)]
    return f"On {_where(record)}, {_claim(first)}.", lines


def _where(record: Record) -> str:
    """Its label; a very long one loses its middle, so that the sentence remains one."""
    label = record.label
    return label if len(label) <= _LONGEST else f"{label[:_LONGEST - 20]}…{label[-18:]}"


def _claim(found: Contest) -> str:
    times = f"{significant(found.mean.middle)} times as fast"
    alone = found.duels[0] if len(found.duels) == 1 else None
    named = alone is not None and alone.rival.contender != found.rivals
    rivals = f"{alone.rival.contender}, {found.rivals}" if alone and named else found.rivals
    end = f": {_score(found)}" if alone is None else f", on {title(alone.problem)}"
    level = " are level on average" if alone is None else ", are tied" if named else " are tied"
    return {TIED: f"{found.ours} and {rivals}{level} ({times}){end}",
            AHEAD: f"{found.ours} is {times} as {rivals}{end}",
            BEHIND: f"{found.ours} is slower than {rivals}, {times}{end}"}[found.verdict]


def _score(found: Contest) -> str:
    """"ahead on 27 of 36 layers, tied on 3, behind on 6"."""
    total = plural(len(found.duels), "layer")
    parts = [(word, count) for word in (AHEAD, TIED, BEHIND) if (count := found.count(word))]
    if len(parts) == 1:
        return parts[0][0] + (f" on all {total}" if len(found.duels) > 1 else "")
    (word, count), *others = parts
    return ", ".join([f"{word} on {count} of {total}", *(f"{word} on {count}" for word, count in others)])


def _terms(record: Record, found: Contest) -> str:
    how = ""
    if found.duels[0].ours.kind == "backend" and all(duel.ours.prepared for duel in found.duels):
        alike = list(dict.fromkeys(m.contender for m in record.measurements if m.kind == "peer" and m.prepared))
        how = "; weights packed beforehand" + (f", as {_listed(alike)} do" if alike else "")
    if len(found.duels) == 1:
        duel = found.duels[0]
        return (f"{title(duel.problem)}, {duel.ours.contender} against {duel.rival.contender}: median of the rounds' ratios, "
                f"95 % interval {_bare(duel.speedup)}{how}.")
    return (f"Geometric mean over {plural(len(found.duels), 'layer')}, each against its fastest rival; 95 % interval "
            f"{_bare(found.mean)} (bootstrap over the layers){how}.")


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


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
        return f"On {_where(record)}, nothing was measured."
    who, layers = measured[0].contender, plural(len({m.problem for m in measured}), "layer")
    shares = [m.of_peak for m in measured if m.of_peak is not None]
    if not shares:
        rate = significant(statistics.median(m.gflops for m in measured))
        return f"On {_where(record)}, {who} computes {layers} at {rate} GFLOP/s (median), with nobody to compare with."
    share = f"{100 * statistics.median(shares):.0f} %"
    return (f"On {_where(record)}, {who} reaches {share} of the measured peak (median of {layers}), with nobody to compare "
            "with.")


def _machines(several: Sequence[tuple[Record, Contest]]) -> tuple[str, list[str]]:
    ours = several[0][1].ours
    rivals = {found.rivals for _, found in several}
    than = rivals.pop() if len(rivals) == 1 else "the best of the others on each layer"
    verdicts = [found.verdict for _, found in several]
    times = [found.mean.middle for _, found in several]
    size = f"{significant(min(times))} to {significant(max(times))} times as fast"
    words = [(words, verdicts.count(verdict)) for verdict, words in (
        (AHEAD, "faster than"), (TIED, "level with"), (BEHIND, "slower than")) if verdict in verdicts]
    if len(words) == 1:
        headline = f"On all {len(several)} machines, {ours} is {words[0][0]} {than}: {size}."
    else:
        counts = ", ".join(f"{words.split()[0]} on {count}" for words, count in words)
        headline = f"On {len(several)} machines, {ours} against {than} is {counts}: {size}."
    lines = [f"{record.label}: {_interval(found.mean)} times, {_score(found)}." for record, found in several]
    return headline, [*lines, "Geometric means over the layers, with 95 % intervals from a bootstrap over them."]


def _basis(records: Sequence[Record]) -> str:
    """Hardware, versions and days, in one line."""
    everything = [m for record in records for m in record.measurements]
    libraries = dict.fromkeys(m.library for m in everything if m.kind == "peer")
    against = f" against {', '.join(libraries)}" if libraries else ""
    noisy = sum(m.noisy for m in everything)
    note = f", {noisy} of {len(everything)} figures noisy" if noisy else ""
    machines = _where(records[0]) if len(records) == 1 else f"{len(records)} machines"
    versions = ", ".join(dict.fromkeys(record.version for record in records))
    days = sorted({f"{record.when:%Y-%m-%d}" for record in records})
    return (f"{machines}; {versions}{against}; {' to '.join(dict.fromkeys((days[0], days[-1])))}; results checked, contenders "
            f"taking turns in processes of their own{note}")
