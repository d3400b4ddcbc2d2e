"""The table of a run, drawn by rich: colours and width as the terminal allows, plain text elsewhere."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..problem import ConvProblem
from .results import Results, Row

_PLAIN_WIDTH = 160  # where there is no terminal to ask: nothing wraps


def console(stream: TextIO | None = None) -> Console:
    stream = stream or sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else _PLAIN_WIDTH)


def show(results: Results, out: Console) -> None:
    """The table, and below it what sums it up."""
    table = Table(title=f"fastconv bench, {_plural(results.threads, 'thread')}", title_justify="left")
    figures = ("ms", "GFLOP/s", "% of peak", f"over {results.reference}")
    for heading in ("problem", "backend", "algorithm", *figures, "note"):
        numeric = heading in figures
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for problem in results.problems:
        _add(table, problem, results)
    out.print(table)
    for line in summary(results):
        out.print(line, markup=False)


def _add(table: Table, problem: ConvProblem, results: Results) -> None:
    """The rows of one problem: those with a number, then those without."""
    rows = results.of(problem)
    fastest = min((row.seconds for row in rows if not row.estimate), default=None)
    title = problem.name or problem.text
    if problem.count > 1:
        title += f" x{problem.count}"
    lines: list[tuple[tuple[str, ...], str | None]] = [
        ((row.contender, *_cells(row, results)), "bold green" if row.seconds == fastest and len(rows) > 1 else None)
        for row in rows]
    lines += [((out.contender, "", "-", "-", "-", "-", out.reason), None if out.reason.startswith("refuses") else "red")
              for out in results.left_out if out.problem is problem]
    for index, (cells, style) in enumerate(lines):
        shown = title if index == 0 else ""
        table.add_row(*map(escape, (shown, *cells)), style=style, end_section=index == len(lines) - 1)


def _cells(row: Row, results: Results) -> tuple[str, ...]:
    about = "~" if row.estimate else ""
    speedup = results.speedup(row)
    return (
        row.algorithm + (f"/{row.isa}" if row.isa else ""),
        about + significant(row.seconds * 1e3),
        about + significant(row.gflops),
        "-" if row.of_peak is None else f"{row.of_peak.middle:.0%}" if row.of_peak.middle >= 0.01 else "<1%",
        "-" if speedup is None else ("~" if row.speedup is None else "") + significant(speedup) + "x",
        note(row),
    )


def note(row: Row) -> str:
    if row.estimate:
        return f"estimate: ~{duration(row.seconds)} a call, not run"
    parts = ["with copies"] if row.with_copies else []
    if len(row.samples) == 1:
        parts.append("one call")
    if row.noisy:
        parts.append(f"noisy: interval {row.spread:.0%} wide")
    return ", ".join(parts)


def summary(results: Results) -> list[str]:
    """Geometric means, the whole network where the suite is one, and the machine's limits."""
    lines = []
    means = [(name, results.geometric_mean(name)) for name in results.contenders() if name != results.reference]
    shown = [f"{name} {significant(mean[0])}x ({_plural(mean[1], 'problem')})" for name, mean in means if mean]
    if shown:
        lines.append(f"geometric mean over {results.reference}: " + ", ".join(shown))
    if any(problem.count > 1 for problem in results.problems):
        totals = [(name, results.network_seconds(name)) for name in results.contenders()]
        layers = sum(problem.count for problem in results.problems)
        whole = [f"{name} {significant(total * 1e3)} ms" for name, total in totals if total is not None]
        if whole:
            lines.append(f"all {layers} layers, each as often as it occurs: " + ", ".join(whole))
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
    if any(row.estimate for row in results.rows):
        lines.append("~ are estimates, or ratios to one, or of calls that did not take turns; --all runs everything")
    lines.append("times are medians of calls with out= given and inputs unchanged; weights are packed in every call")
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
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
