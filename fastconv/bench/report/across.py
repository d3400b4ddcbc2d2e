"""Several machines: who wins where, by how much, whole networks, and what more threads or larger inputs bring."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...problem import ConvProblem
from ...timing.paired import Interval, geometric_mean
from .contests import Choice, fastest, leaders, per_call, prepared
from .hardware import winner, with_ends
from .records import Measurement, Record, title
from .tables import BEST, NOTHING, Cell, Column, Row, Table, columns, count, milliseconds, text

TIES = "tied"
ALIKE = 1.02  # times of networks within it are not told apart
SIZES = 3  # input sizes at least, to speak of scaling


def ours(m: Measurement) -> bool:
    """fastconv, either way, on whatever device the machine has."""
    return m.kind == "backend"


def newest(records: Sequence[Record]) -> list[Record]:
    """The latest record of every machine, in the order in which the machines first appear."""
    return list({record.machine: record for record in sorted(records, key=lambda record: record.when)}.values())


def common(machines: Sequence[Record]) -> list[ConvProblem]:
    """The problems that all of them measured."""
    return [problem for problem in machines[0].problems if all(fastest(record, problem) for record in machines)]


def layers(machines: Sequence[Record]) -> Table:
    """The best time of fastconv, by layer and machine; who is fastest there."""
    rows = []
    for problem in dict.fromkeys(problem for record in machines for problem in record.problems):
        mine = [fastest(record, problem, ours) for record in machines]
        if sum(m is not None for m in mine) < 2:
            continue
        quickest = min(m.seconds for m in mine if m is not None)
        cells = [text(title(problem))]
        for record, m in zip(machines, mine):
            cells += [NOTHING if m is None else milliseconds(m.seconds, BEST if m.seconds == quickest else ""),
                      winner(leaders(record, problem))]
        rows.append(Row(tuple(cells)))
    heads = [Column("layer", False)]
    for record in machines:
        heads += [Column(f"{record.label}: ms"), Column("fastest there", False)]
    return Table("Layer by machine", tuple(heads), tuple(rows),
                 "The time of fastconv's best backend, prepared or not; and who is fastest on that machine, peers included.")


def machines_table(machines: Sequence[Record]) -> Table:
    """How many times faster each machine is than each other."""
    rows = []
    for record in machines:
        cells = [text(record.label)]
        for other in machines:
            cells.append(Cell("1", 1.0) if other is record else with_ends(_speedup(record, other, ours)))
        rows.append(Row((*cells, count(len(common([record, *machines]))))))
    than = (Column(f"than {record.label}") for record in machines)
    heads = (Column("this machine is faster", False), *than, Column("layers"))
    return Table("Machine against machine", heads, tuple(rows),
                 "Geometric means of fastconv's best time on one machine over that on the other, over their common layers, "
                 "with 95 % intervals from a bootstrap over these layers.")


def _speedup(of: Record, over: Record, choice: Choice) -> Interval | None:
    pairs = [(fastest(of, problem, choice), fastest(over, problem, choice)) for problem in of.problems]
    return geometric_mean([b.seconds / a.seconds for a, b in pairs if a is not None and b is not None])


def wins(machines: Sequence[Record]) -> Table:
    """On how many layers each contender is the fastest, and on how many nobody alone is."""
    won: dict[str, list[int]] = {}
    for index, record in enumerate(machines):
        for problem in record.problems:
            found = leaders(record, problem)
            if found:
                name = found[0].contender if len(found) == 1 else TIES
                won.setdefault(name, [0] * len(machines))[index] += 1
    rows = [Row((text(name), *(count(layers) for layers in found)), None if name == TIES else name)
            for name, found in sorted(won.items(), key=lambda item: (item[0] == TIES, -sum(item[1])))]
    return Table("Layers won", columns("contender", *(record.label for record in machines)), tuple(rows),
                 "On how many layers a contender is the fastest of all; tied where the intervals of several overlap.")


def networks(machines: Sequence[Record]) -> Table:
    """Whole networks, each layer as often as it occurs; for those who measured every layer."""
    rows = []
    for record in machines:
        for name, layers in record.networks.items():
            totals = {who: network_seconds(layers, [record.get(p, who) for p, _ in layers]) for who in record.contenders}
            for label, choice in (("fastconv, best of each layer", per_call),
                                  ("fastconv prepared, best of each layer", prepared)):
                totals[label] = network_seconds(layers, [fastest(record, p, choice) for p, _ in layers])
            found = sorted((total, who) for who, total in totals.items() if total is not None)
            for total, who in found:
                tone = BEST if total <= ALIKE * found[0][0] else ""
                rows.append(Row((text(name), text(record.label), text(who), milliseconds(total, tone)),
                                who if who in record.contenders else None))
    return Table("Whole networks", columns("network", "machine", "contender", "ms", text=3), tuple(rows),
                 "The sum over the layers of time and count, for those who measured every layer; convolutions only. Marked "
                 "are the least and whoever is within 2 % of it.")


def network_seconds(layers: Sequence[tuple[ConvProblem, int]], found: Sequence[Measurement | None]) -> float | None:
    """The sum over the layers; None where one is missing or estimated."""
    if any(m is None or m.estimate for m in found):
        return None
    return sum(m.seconds * count for m, (_, count) in zip(found, layers) if m is not None)


@dataclass(frozen=True)
class Scaling:
    """Lines of one figure: contender -> [(x, y)]."""

    label: str
    lines: dict[str, list[tuple[float, float]]]


def by_threads(machines: Sequence[Record]) -> list[Scaling]:
    """Per hardware that was measured with several thread counts: speed-up over the fewest, geometric mean of the layers that
    the contender measured with all of them."""
    groups: dict[tuple[str, str | None], list[Record]] = {}
    for record in machines:
        groups.setdefault((record.fingerprint, record.isa), []).append(record)
    result = []
    for found in groups.values():
        found = sorted(found, key=lambda record: record.threads)
        lines = {name: line for name in found[0].contenders if len(line := _thread_line(found, name)) > 1}
        if lines:
            result.append(Scaling(found[0].label.rpartition(", ")[0] or found[0].label, lines))
    return result


def _thread_line(records: Sequence[Record], name: str) -> list[tuple[float, float]]:
    have = [r for r in records if any(m.contender == name and not m.estimate for m in r.measurements)]
    rows = [[r.get(problem, name) for r in have] for problem in (have[0].problems if have else ())]
    whole = [[m.seconds for m in row if m is not None] for row in rows if all(m is not None and not m.estimate for m in row)]
    if len({r.threads for r in have}) < 2 or not whole:
        return []
    return [(record.threads, statistics.geometric_mean([seconds[0] / seconds[i] for seconds in whole]))
            for i, record in enumerate(have)]


def by_size(record: Record) -> list[Scaling]:
    """Families of problems that differ in nothing but the input's size: GFLOP/s over the pixels of one output channel."""
    families: dict[ConvProblem, list[ConvProblem]] = {}
    for problem in record.problems:
        # some size that no real one is mixed with; what derives from it (the effective far padding) must not tell them apart
        low = tuple(low for low, _ in problem.padding)
        size = tuple((k - 1) * d + 1 + 64 * s for k, d, s in zip(problem.kernel_size, problem.dilation, problem.stride))
        same = replace(problem, input_size=size, padding=tuple((pad, pad) for pad in low))
        families.setdefault(same, []).append(problem)
    result = []
    for family in families.values():
        if len({problem.input_size for problem in family}) < SIZES:
            continue
        lines = {}
        for name in record.contenders:
            found = [record.get(problem, name) for problem in family]
            points = [(float(math.prod(m.problem.output_size)), m.gflops) for m in found if m is not None and not m.estimate]
            if len(points) >= SIZES:
                lines[name] = sorted(points)
        if lines:
            result.append(Scaling(_family(family[0]), lines))
    return result


def _family(problem: ConvProblem) -> str:
    kernel = "×".join(map(str, problem.kernel_size))
    extra = (f", stride {problem.stride[0]}" if max(problem.stride) > 1 else "") + (
        f", {problem.groups} groups" if problem.groups > 1 else "")
    return f"{kernel}, {problem.in_channels} to {problem.out_channels} channels{extra}, batch {problem.batch}"
