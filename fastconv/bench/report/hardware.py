"""One machine: who is fastest on which layer, by how much, and what it costs besides time per call."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable

from ...problem import ConvProblem
from ..timing import Interval, ratios
from ..timing import geometric_mean as mean_of
from .records import Measurement, Record, title
from .tables import (
    BEST,
    NOTHING,
    Cell,
    Column,
    Row,
    Table,
    columns,
    count,
    mebibytes,
    milliseconds,
    number,
    percent,
    plural,
    remarks,
    significant,
    text,
    times,
)

Choice = Callable[[Measurement], bool]


def per_call(m: Measurement) -> bool:
    """fastconv as a function call, weights packed each time. Figures with copies are another device's, and stand apart."""
    return m.kind == "backend" and not m.prepared and not m.with_copies


def prepared(m: Measurement) -> bool:
    return m.kind == "backend" and m.prepared and not m.with_copies


def peer(m: Measurement) -> bool:
    return m.kind == "peer" and not m.with_copies


def anyone(m: Measurement) -> bool:
    return True


def fastest(record: Record, problem: ConvProblem, choice: Choice = anyone) -> Measurement | None:
    """The fastest that was measured, not estimated."""
    return min(filter(choice, record.of(problem)), key=lambda m: m.seconds, default=None)


def first(record: Record, problem: ConvProblem) -> list[str]:
    """The fastest, and those whom it does not beat: the interval of the ratio of their times has 1 in it."""
    best = fastest(record, problem)
    if best is None:
        return []
    found = [m for m in record.of(problem) if m is not best]
    leads = {m.contender: speedup(best, m) for m in found if m.paired and best.paired}
    return [best.contender, *(name for name, lead in leads.items() if lead is not None and lead.low <= 1)]


def winner(record: Record, problem: ConvProblem) -> Cell:
    """Who is the fastest; nobody is called so whose lead is within the intervals."""
    names = first(record, problem)
    return NOTHING if not names else text(names[0], BEST) if len(names) == 1 else text(f"tied: {', '.join(names)}")


def speedup(of: Measurement | None, over: Measurement | None) -> Interval | None:
    """How many times faster `of` is: by rounds where they took turns, else from the medians alone."""
    if of is None or over is None or of.estimate or over.estimate:
        return None
    if of.paired and over.paired and len(of.data) == len(over.data):
        return ratios(over.data, of.data, of.placement)
    ratio = over.seconds / of.seconds
    return Interval(ratio, ratio, ratio)


def geometric_mean(values: Iterable[float | None]) -> tuple[float | None, int]:
    """(mean, how many there were); None of none."""
    found = [value for value in values if value is not None]
    return (statistics.geometric_mean(found) if found else None), len(found)


def layers(record: Record) -> Table:
    """A row per layer: the fastest, and fastconv against the best peer."""
    rows = []
    for problem in record.problems:
        best = fastest(record, problem)
        if best is None:
            continue
        call, ready, other = (fastest(record, problem, choice) for choice in (per_call, prepared, peer))
        rows.append(Row((
            text(_counted(problem)), winner(record, problem), milliseconds(best.seconds), number(best.gflops),
            percent(best.of_peak), _interval(speedup(call, other)), _interval(speedup(ready, other)),
            *(cell for m in (call, ready, other) for cell in _who(m)))))
    words, numbers, detail = False, True, True
    heads = (Column("layer", words), Column("fastest", words), Column("ms", numbers), Column("GFLOP/s", numbers),
             Column("% of peak", numbers), Column("call vs peer", numbers), Column("prepared vs peer", numbers),
             Column("fastconv", words, detail), Column("ms", numbers, detail), Column("prepared", words, detail),
             Column("ms", numbers, detail), Column("best peer", words), Column("ms", numbers, detail))
    return Table("Fastest per layer", heads, tuple(rows),
                 "fastconv: its best backend, weights packed in every call; prepared: packed beforehand. The columns against "
                 "the best peer are speed-ups, medians of per-round ratios with 95 % intervals; above 1, fastconv is faster.")


def _counted(problem: ConvProblem) -> str:
    return title(problem) + (f" ×{problem.count}" if problem.count > 1 else "")


def _who(m: Measurement | None) -> tuple[Cell, Cell]:
    return (NOTHING, NOTHING) if m is None else (text(m.contender), milliseconds(m.seconds))


def _interval(found: Interval | None) -> Cell:
    if found is None:
        return NOTHING
    cell = times(found.middle)
    ends = f" [{significant(found.low)}, {significant(found.high)}]" if found.high > found.low else ""
    return Cell(cell.text + ends, cell.value, cell.tone)


def means(record: Record) -> Table:
    """fastconv against the best peer of each layer, and against each one."""
    rows = [Row((text("the best peer of each layer"), *_means(record, peer)))]
    names = [name for name in record.contenders if any(m.contender == name and peer(m) for m in record.measurements)]
    for name in names:
        library = next(m.library for m in record.measurements if m.contender == name)
        rows.append(Row((text(library if library.startswith(name) else f"{name} ({library})"),
                         *_means(record, lambda m, name=name: m.contender == name)), name))  # type: ignore[misc]
    heads = columns("against", "call", "layers", "faster on", "prepared", "layers", "faster on")
    return Table("fastconv against the peers", heads, tuple(rows) if names else (),
                 "Geometric means of the speed-ups of fastconv's best backend of each layer, with 95 % intervals, over the "
                 "layers that both did; faster where the layer's interval lies above 1.")


def _means(record: Record, other: Choice) -> tuple[Cell, ...]:
    cells: list[Cell] = []
    for choice in (per_call, prepared):
        found = [s for problem in record.problems
                 if (s := speedup(fastest(record, problem, choice), fastest(record, problem, other))) is not None]
        cells += [_interval(mean_of(found)), Cell(f"{len(found)} of {len(record.problems)}", len(found)),
                  count(sum(s.low > 1 for s in found))] if found else [NOTHING] * 3
    return tuple(cells)


def costs(record: Record) -> Table:
    """What a contender costs once, and in memory: median over the layers and, of memory and first calls, the worst."""
    rows = []
    for name in record.contenders:
        found = [m for m in record.measurements if m.contender == name]
        first, memory = _known(m.first_seconds for m in found), _known(m.peak_bytes for m in found)
        rows.append(Row((
            text(name), text(found[0].library), milliseconds(_median(m.import_seconds for m in found)),
            milliseconds(_median(m.prepare_seconds for m in found)), milliseconds(_median(first)),
            milliseconds(max(first, default=None)), mebibytes(_median(memory)), mebibytes(max(memory, default=None))), name))
    heads = columns("contender", "library", "import ms", "prepare ms", "first call ms", "first call, worst", "memory MiB",
                    "memory, worst", text=2)
    return Table("One-time costs and memory", heads, tuple(rows), "Medians over the layers. Memory is the resident "
                 "memory above what was there before the contender was bound to the layer.")


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _median(values: Iterable[float | None]) -> float | None:
    known = _known(values)
    return statistics.median(known) if known else None


def everything(record: Record) -> Table:
    """A row per layer and contender, those without a figure included."""
    rows = []
    for problem in record.problems:
        best = fastest(record, problem)
        for m in record.of(problem, estimates=True):
            tone = BEST if m is best else ""
            rows.append(Row((
                text(title(problem)), text(m.contender, tone), text(m.algorithm + (f"/{m.isa}" if m.isa else "")),
                milliseconds(m.seconds, tone, m.estimate), number(m.gflops, about=m.estimate), percent(m.of_peak),
                milliseconds(m.first_seconds), mebibytes(m.peak_bytes), text(remarks(m))), m.contender))
    rows += [Row((text(title(out.problem)), text(out.contender), *[NOTHING] * 6, text(out.reason)), out.contender)
             for out in record.left_out]
    heads = columns("layer", "contender", "algorithm", "ms", "GFLOP/s", "% of peak", "first call ms", "memory MiB", text=3)
    return Table("Every figure", (*heads, Column("note", numeric=False)), tuple(rows),
                 "Medians over the rounds; ~ marks estimates. GFLOP/s count the direct algorithm's operations for everyone, so "
                 "Winograd can pass 100 % of the peak.", detail=True)


def facts(record: Record) -> list[tuple[str, str]]:
    """What the machine was, for people. Nothing that names a host or a folder."""
    known = record.facts
    commit = f", commit {record.commit[:12]}" if record.commit else ""
    names = [str(known[key]) for key in ("microarchitecture", "cpu_id") if known.get(key)]
    numbers = f", {', '.join(dict.fromkeys(names))}" if names else ""
    caches = ", ".join(f"{level} {size}" for level, size in known.get("caches", {}).items()) or "unknown"
    packages = [f"{name} {version}" for name, version in known.get("packages", {}).items()]
    software = [f"Python {known.get('python', '?')}", f"NumPy {known.get('numpy', '?')}", str(known.get("blas", "")), *packages]
    lines = [
        ("record", f"{record.file}, {record.when:%Y-%m-%d %H:%M} UTC, {record.version}{commit}"),
        ("processor", f"{known['cpu']}{numbers} ({known.get('architecture', '?')}), "
                      f"{plural(int(known.get('cores') or 0), 'core')}, caches {caches}"),
        ("measured", f"{len(record.problems)} of {plural(record.asked, 'layer')} ({', '.join(record.suites)}), "
                     f"{plural(record.threads, 'thread')}" + (", interrupted" if record.interrupted else "")),
        ("software", ", ".join(software)),
    ]
    peaks = list(record.peaks.values())
    if peaks:
        flops, rate = statistics.median(p.flops for p in peaks), statistics.median(p.bandwidth for p in peaks)
        lines.append(("limits", f"{significant(flops / 1e9)} GFLOP/s ({peaks[0].flops_method}), {significant(rate / 1e9)} GB/s "
                                f"({peaks[0].bandwidth_method}); medians over the layers"))
    return lines
