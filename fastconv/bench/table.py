"""The table of a run, drawn by rich: colours and width as the terminal allows, plain text elsewhere."""

from __future__ import annotations

import shlex
import statistics
import sys
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from ..problem import ConvProblem
from .results import Results, Row

_PLAIN_WIDTH = 250  # where there is no terminal to ask: nothing wraps
_FIGURES = ("ms", "GFLOP/s", "% of peak")


def console(stream: TextIO | None = None) -> Console:
    stream = stream or sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else _PLAIN_WIDTH)


def show(results: Results, out: Console) -> None:
    """The table, the one-time costs, and what sums it up.

    Each line has its problem's text, which `fastconv bench` takes again; where that is too wide, the texts follow below.
    """
    table = _table(results, texts=True)
    wide = Measurement.get(out, out.options.update(width=10_000), table).maximum <= out.width
    out.print(table if wide else _table(results, texts=False))
    if not wide:
        for problem in results.problems:
            out.print(problem.text, markup=False, soft_wrap=True)
    out.print(_costs(results))
    for line in summary(results):
        out.print(line, markup=False, soft_wrap=True)


def _table(results: Results, texts: bool) -> Table:
    table = Table(title=f"fastconv bench, {_plural(results.threads, 'thread')}", title_justify="left")
    for heading in ("problem", "contender", "algorithm", *_FIGURES, f"over {results.reference}", "note"):
        numeric = heading not in ("problem", "contender", "algorithm", "note")
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    if texts:
        table.add_column("to run it again: fastconv bench ...", no_wrap=True, style="dim")
    for problem in results.problems:
        _add(table, problem, results, texts)
    return table


def _add(table: Table, problem: ConvProblem, results: Results, texts: bool) -> None:
    """The rows of one problem: those with a number, then those without."""
    rows = results.of(problem)
    fastest = min((row.seconds for row in rows if not row.estimate), default=None)
    title = problem.name or problem.text
    if problem.count > 1:
        title += f" x{problem.count}"
    lines: list[tuple[tuple[str, ...], str | None]] = [
        ((row.contender, *_cells(row, results, first := row.seconds == fastest and len(rows) > 1)),
         "bold green" if first else None) for row in rows]
    lines += [((out.contender, "", "-", "-", "-", "-", out.reason), None if out.reason.startswith("refuses") else "red")
              for out in results.left_out if out.problem is problem]
    for index, (cells, style) in enumerate(lines):
        shown = title if index == 0 else ""
        again = [shlex.quote(problem.text)] if texts else []
        table.add_row(*map(escape, (shown, *cells, *again)), style=style, end_section=index == len(lines) - 1)


def _costs(results: Results) -> Table:
    """What a contender costs once: medians over the problems it took part in; memory: the most over any."""
    table = Table(title="one-time costs", title_justify="left")
    for heading in ("contender", "library", "import", "prepare", "first call", "memory at most"):
        table.add_column(heading, justify="left" if heading in ("contender", "library") else "right")
    for name in results.contenders():
        rows = [row for row in results.rows if row.contender == name and not row.estimate]
        library, seconds = results.libraries.get(name, ("", None))
        prepare = [row.prepare_seconds for row in rows if row.prepare_seconds is not None]
        first = [row.first_seconds for row in rows if row.first_seconds is not None]
        memory = [row.peak_bytes for row in rows if row.peak_bytes is not None]
        table.add_row(name, library, *("-" if value is None else duration(value) for value in (
            seconds, statistics.median(prepare) if prepare else None, statistics.median(first) if first else None)),
            f"{max(memory) / 1e6:.0f} MB" if memory else "-")
    return table


def _cells(row: Row, results: Results, fastest: bool) -> tuple[str, ...]:
    about = "~" if row.estimate else ""
    speedup = results.speedup(row)
    return (
        row.algorithm + (f"/{row.isa}" if row.isa else ""),
        about + significant(row.seconds * 1e3),
        about + significant(row.gflops),
        "-" if row.of_peak is None else f"{row.of_peak.middle:.0%}" if row.of_peak.middle >= 0.01 else "<1%",
        "-" if speedup is None else ("~" if row.speedup is None else "") + significant(speedup) + "x",
        note(row, fastest),
    )


def note(row: Row, fastest: bool = False) -> str:
    if row.estimate:
        return f"estimate: ~{duration(row.seconds)} a call, not run"
    parts = (["fastest"] if fastest else []) + (["with copies"] if row.with_copies else [])
    if len(row.samples) == 1:
        parts.append("one call")
    if row.noisy:
        parts.append(f"noisy: interval {row.spread:.0%} wide")
    return ", ".join(parts)


def summary(results: Results) -> list[str]:
    """Geometric means, the whole network where the suite is one, and the machine's limits."""
    lines = _means(results)
    for network, problems in results.networks.items():
        totals = [(name, results.network_seconds(network, name)) for name in results.contenders()]
        whole = [f"{name} {significant(total * 1e3)} ms" for name, total in totals if total is not None]
        if whole:
            layers = sum(problem.count for problem in problems)
            lines.append(f"{network}, all {_plural(layers, 'convolution')}: " + ", ".join(whole))
    peaks = list(results.peaks.items())
    for dtype in ("float32", "float64"):
        found = sorted(peak.flops / 1e9 for problem, peak in peaks if problem.dtype == dtype)
        if found:
            lines.append(f"peak, {dtype}: {_range(found)} GFLOP/s ({peaks[0][1].method})")
    if peaks:
        rates = sorted(peak.bandwidth / 1e9 for _, peak in peaks)
        lines.append(f"memory: {_range(rates)} GB/s ({peaks[0][1].bandwidth_method})")
    noisy = sum(row.noisy for row in results.rows)
    if noisy:
        lines.append(f"{noisy} of {_plural(len(results.rows), 'figure')} noisy: other work on this machine disturbs them")
    if results.repeated:
        lines.append(f"{_plural(results.repeated, 'block')} timed again, as the machine was disturbed beside them")
    if any(row.estimate for row in results.rows):
        lines.append("~ are estimates, or ratios to one, or of calls that did not take turns; --all runs everything")
    lines.append("times are medians of calls with inputs unchanged and, of backends, out= given; weights are packed in every "
                 "call but for prepared contenders")
    return lines


def _means(results: Results) -> list[str]:
    """Geometric means over the reference, and of fastconv's contenders over the peers."""
    lines = []
    peers = results.peers()
    own = [name for name in results.contenders() if name not in (*peers, results.reference)]
    for title, names, over in [
        (results.reference, [name for name in results.contenders() if name != results.reference], None),
        *([("the best peer of each layer", own, peers)] if len(peers) > 1 else []), *((peer, own, [peer]) for peer in peers),
    ]:
        means = {name: mean for name in names if (mean := results.geometric_mean(name, over))}
        most = max((count for _, count in means.values()), default=0)
        shown = [f"{name} {significant(mean)}x ({_plural(count, 'problem')})" for name, (mean, count) in means.items()
                 if 2 * count > most]  # a mean of the few problems that a slow one finishes says nothing
        if shown:
            lines.append(f"geometric mean over {title}: " + ", ".join(shown))
    return lines


def _range(values: list[float]) -> str:
    low, high = significant(values[0]), significant(values[-1])
    return low if low == high else f"{low} to {high}"


def significant(value: float) -> str:
    """Three significant digits, never in powers of ten: 0.0123, 1.23, 12.3, 123, 1230."""
    if value >= 100:
        return f"{value:.0f}"
    digits = 2
    while digits < 9 and value < 10.0 ** (1 - digits + 1) * 0.9995:
        digits += 1
    return f"{value:.{digits if value < 9.995 else 1}f}"


def duration(seconds: float) -> str:
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    for least, factor, unit in ((1.0, 1.0, "s"), (1e-3, 1e3, "ms")):
        if seconds >= least:
            return f"{seconds * factor:.0f} {unit}" if seconds * factor >= 10 else f"{seconds * factor:.1f} {unit}"
    return f"{seconds * 1e6:.0f} µs"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
