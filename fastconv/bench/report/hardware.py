"""One machine: who is fastest on which layer, by how much, and what it costs besides time per call."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from ...problem import ConvProblem
from ...timing.paired import Interval
from .contests import AHEAD, BEHIND, TIED, Choice, by, contest, fastest, leaders, peer, per_call, prepared, speedup
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


def layers(record: Record) -> Table:
    """A row per layer: the fastest, and fastconv against the best peer."""
    rows = []
    for problem in record.problems:
        best = fastest(record, problem)
        if best is None:
            continue
        call, ready, other = (fastest(record, problem, choice) for choice in (per_call, prepared, peer))
        rows.append(Row((
            text(_counted(problem)), winner(leaders(record, problem)), milliseconds(best.seconds), number(best.gflops),
            percent(best.of_peak), with_ends(speedup(call, other)), with_ends(speedup(ready, other)),
            *(cell for m in (call, ready, other) for cell in _who(m)))))
    words, numbers, detail = False, True, True
    heads = (Column("layer", words), Column("fastest", words), Column("ms", numbers), Column("GFLOP/s", numbers),
             Column("% of peak", numbers), Column("call vs peer", numbers), Column("prepared vs peer", numbers),
             Column("fastconv", words, detail), Column("ms", numbers, detail), Column("prepared", words, detail),
             Column("ms", numbers, detail), Column("best peer", words), Column("ms", numbers, detail))
    return Table("Fastest per layer", heads, tuple(rows),
                 "Tied are those whose intervals overlap. fastconv: its best backend, weights packed in every call; prepared: "
                 "packed beforehand. The columns against the best peer are speed-ups, medians of per-round ratios with 95 % "
                 "intervals; above 1, fastconv is faster.")


def winner(found: Sequence[Measurement]) -> Cell:
    """Who is the fastest; all who may be, where intervals overlap."""
    if len(found) < 2:
        return text(found[0].contender, BEST) if found else NOTHING
    more = f" and {len(found) - 2} more" if len(found) > 2 else ""
    return text(f"tied: {found[0].contender}, {found[1].contender}{more}")


def _counted(problem: ConvProblem) -> str:
    return title(problem) + (f" ×{problem.count}" if problem.count > 1 else "")


def _who(m: Measurement | None) -> tuple[Cell, Cell]:
    return (NOTHING, NOTHING) if m is None else (text(m.contender), milliseconds(m.seconds))


def with_ends(found: Interval | None) -> Cell:
    """A speed-up and its interval."""
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
        shown = library if library.startswith(name) else f"{name} ({library})"
        rows.append(Row((text(shown), *_means(record, by(name))), name))
    scores = "ahead, tied, behind"
    heads = columns("against", "call", "layers", scores, "prepared", "layers", scores)
    return Table("fastconv against the peers", (*heads, Column("left out", False, True)), tuple(rows) if names else (),
                 "Geometric means of the speed-ups of fastconv's best backend of each layer, over the layers where both took "
                 "turns, with 95 % intervals from a bootstrap over these layers; on how many it is ahead, tied and behind.")


def _means(record: Record, other: Choice) -> tuple[Cell, ...]:
    cells: list[Cell] = []
    missing: tuple[ConvProblem, ...] = ()
    for choice in (per_call, prepared):
        found = contest(record, choice, other)
        if found is None:
            cells += [NOTHING] * 3
            continue
        missing = found.left_out
        shares = "/".join(str(found.count(verdict)) for verdict in (AHEAD, TIED, BEHIND))
        cells += [with_ends(found.mean), count(len(found.duels)), Cell(shares, found.count(AHEAD))]
    named = ", ".join(title(problem) for problem in missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    return (*cells, text(named) if missing else NOTHING)


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
        best = leaders(record, problem)
        for m in record.of(problem, estimates=True):
            tone = BEST if m in best else ""
            rows.append(Row((
                text(title(problem)), text(m.contender, tone), text(m.algorithm + (f"/{m.isa}" if m.isa else "")),
                milliseconds(m.seconds, tone, m.estimate), number(m.gflops, about=m.estimate), percent(m.of_peak),
                milliseconds(m.first_seconds), mebibytes(m.peak_bytes), text(remarks(m))), m.contender))
    rows += [Row((text(title(out.problem)), text(out.contender), *[NOTHING] * 6, text(str(out.reason))), out.contender)
             for out in record.left_out]
    heads = columns("layer", "contender", "algorithm", "ms", "GFLOP/s", "% of peak", "first call ms", "memory MiB", text=3)
    return Table("Every figure", (*heads, Column("note", numeric=False)), tuple(rows),
                 "Medians over the rounds; ~ marks estimates; the fastest of a layer stand out, several where intervals "
                 "overlap. GFLOP/s count the direct algorithm's operations for everyone, so Winograd can pass 100 % of the "
                 "peak.", detail=True)


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
