"""The table of a run, drawn by rich: colours and width as the terminal allows, plain text elsewhere."""

from __future__ import annotations

import shlex
import statistics
import sys
from typing import TextIO

from rich.console import Console

from ..errors import printable
from ..problem import ConvProblem
from ..reasons import Refused
from .grid import Cell, Grid, Line, width_of
from .results import Mean, Results, Row

_FIGURES = ("ms", "GFLOP/s", "% of peak")
_AGAIN = "to run it again: fastconv bench ..."


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # the command line knows the exit status


def console(stream: TextIO | None = None) -> Console:
    stream = stream or sys.stdout
    return _Console(file=stream, highlight=False, width=width_of(stream))


def show(results: Results, out: Console) -> None:
    """The table, the one-time costs, and what sums it up.

    Each line has its problem's text, which `fastconv bench` takes again; where that is too wide, the texts follow below.
    """
    left_out = _grid(results).show(out)
    if left_out[1:]:
        _say(f"not shown, for lack of room: {', '.join(left_out[1:])}", out)
    for problem in results.problems if left_out else ():
        out.print(printable(problem.text), markup=False, soft_wrap=True)
    if results.rows:
        _costs(results).show(out)
    for line in summary(results):
        _say(line, out)


def _say(line: str, out: Console) -> None:
    """Wrapped between words on a terminal; one line elsewhere."""
    out.print(printable(line), markup=False, soft_wrap=not out.is_terminal)


def _grid(results: Results) -> Grid:
    headings = ("problem", "contender", "algorithm", *_FIGURES, f"over {results.reference}", "note", _AGAIN)
    words = ("problem", "contender", "algorithm", "note", _AGAIN)
    grid = Grid(f"fastconv bench, {_plural(results.threads, 'thread')}", headings,
                tuple(heading not in words for heading in headings), optional=(_AGAIN, "% of peak", "algorithm", "GFLOP/s"))
    for problem in results.problems:
        grid.lines += _lines(problem, results)
    return grid


def _lines(problem: ConvProblem, results: Results) -> list[Line]:
    """The rows of one problem: those with a number, then those without."""
    rows, first = results.of(problem), results.first(problem)
    title = problem.name or problem.text
    if problem.count > 1:
        title += f" x{problem.count}"
    lines: list[tuple[tuple[str, ...], str]] = [
        ((row.contender, *_cells(row, results, _place(row, first) if len(rows) > 1 else "")),
         "bold green" if row in first and len(rows) > 1 else "") for row in rows]
    lines += [((out.contender, "", "-", "-", "-", "-", str(out.reason)), "" if isinstance(out.reason, Refused) else "red")
              for out in results.left_out if out.problem is problem]
    again = Cell(shlex.quote(problem.text), "dim")
    return [Line((Cell(title if index == 0 else "", style), *(Cell(text, style) for text in cells), again),
                 index == len(lines) - 1) for index, (cells, style) in enumerate(lines)]


def _place(row: Row, first: list[Row]) -> str:
    """Nobody is called the fastest whose lead is within the intervals."""
    return "" if row not in first else "fastest" if len(first) == 1 else "tied for fastest"


def _costs(results: Results) -> Grid:
    """What a contender costs once: medians over the problems it took part in; memory: the most over any."""
    headings = ("contender", "library", "import", "prepare", "first call", "memory at most")
    grid = Grid("one-time costs", headings, tuple(heading not in headings[:2] for heading in headings))
    for name in results.contenders():
        rows = [row for row in results.rows if row.contender == name and not row.estimate]
        library, seconds = results.libraries.get(name, ("", None))
        prepare = [row.prepare_seconds for row in rows if row.prepare_seconds is not None]
        first = [row.first_seconds for row in rows if row.first_seconds is not None]
        memory = [row.peak_bytes for row in rows if row.peak_bytes is not None]
        cells = (name, library, *("-" if value is None else duration(value) for value in (
            seconds, statistics.median(prepare) if prepare else None, statistics.median(first) if first else None)),
            f"{max(memory) / 1e6:.0f} MB" if memory else "-")
        grid.lines.append(Line(tuple(map(Cell, cells))))
    return grid


def _cells(row: Row, results: Results, place: str) -> tuple[str, ...]:
    about = "~" if row.estimate else ""
    speedup = results.speedup(row)
    return (
        row.algorithm + (f"/{row.isa}" if row.isa else ""),
        about + significant(row.seconds * 1e3),
        about + significant(row.gflops),
        "-" if row.of_peak is None else f"{row.of_peak.middle:.0%}" if row.of_peak.middle >= 0.01 else "<1%",
        "-" if speedup is None else ("~" if row.speedup is None else "") + significant(speedup) + "x",
        note(row, place),
    )


def note(row: Row, place: str = "") -> str:
    if row.estimate:
        return f"estimate: ~{duration(row.seconds)} a call, not run"
    parts = ([place] if place else []) + (["with copies"] if row.with_copies else [])
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
        most = max((len(mean.problems) for mean in means.values()), default=0)
        shown = [f"{name} {_mean(mean, results)}" for name, mean in means.items()
                 if 2 * len(mean.problems) > most]  # a mean of the few problems that a slow one finishes says nothing
        if shown:
            lines.append(f"geometric mean over {title}: " + ", ".join(shown))
    return lines


def _mean(mean: Mean, results: Results) -> str:
    """With its interval, and over what it is: ``1.52x [1.50, 1.54] (9 problems, without conv1)``."""
    missing = [problem.name or problem.text for problem in results.problems
               if not any(each is problem for each in mean.problems)]
    without = f", without {', '.join(missing[:3])}" if missing else ""
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    low, middle, high = map(significant, (mean.ratio.low, mean.ratio.middle, mean.ratio.high))
    return f"{middle}x [{low}, {high}] ({_plural(len(mean.problems), 'problem')}{without}{more})"


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
