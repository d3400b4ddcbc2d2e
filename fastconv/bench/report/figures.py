"""The figures: what is drawn, once for the page and once for a PNG file.

A figure is drawn by matplotlib in a `Theme`: on the page the ink is a sentinel that `svg.py` replaces by the colour of the
text around, so that one drawing serves light and dark; in the file it is dark grey on white.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...problem import ConvProblem
from ..palette import Look, looks
from .across import Scaling
from .hardware import speedup
from .records import Measurement, Record, title
from .tables import significant

INK, GRID = "#010203", "#040506"  # sentinels: no other thing in a figure has these colours
REFERENCE = "im2col"


@dataclass(frozen=True)
class Theme:
    ink: str
    grid: str
    ground: str
    titled: bool  # a file stands alone; on the page the heading says it


PAGE, FILE = Theme(INK, GRID, "none", False), Theme("#222222", "#dddddd", "white", True)


@dataclass(frozen=True)
class Points:
    """What a reader can point at: the elements of one group of the drawing, in order."""

    contender: str
    hints: tuple[str, ...]


@dataclass(frozen=True)
class Drawing:
    """`key` is part of its file's name; `points` belong to the groups of that gid."""

    key: str
    title: str
    caption: str
    draw: Callable[[Theme], Any]  # a matplotlib Figure
    points: Mapping[str, Points] = field(default_factory=dict)


def roofline(record: Record, key: str) -> Drawing:
    """GFLOP/s over flops per byte: each layer and contender a point below the measured roof."""
    by_name: dict[str, list[Measurement]] = {}
    for m in record.measurements:
        if not m.estimate:
            by_name.setdefault(m.contender, []).append(m)
    points = {f"roof-{i}": Points(name, tuple(map(_point_hint, found))) for i, (name, found) in enumerate(by_name.items())}

    def draw(theme: Theme) -> Any:
        figure, axes = _axes(theme, heading, 9.2, 5.4)
        look = looks(record.contenders)
        for gid, (name, found) in zip(points, by_name.items()):
            _scatter(axes, [m.flops / m.bytes for m in found], [m.gflops for m in found], look[name], gid)
        _roof(axes, record, [m for found in by_name.values() for m in found], theme)
        _logarithmic(axes)
        axes.set_xlabel("flops per byte of inputs, weights and output", color=theme.ink)
        axes.set_ylabel("GFLOP/s", color=theme.ink)
        _legend(axes, by_name, look, theme)
        return figure

    heading = f"Roofline: {record.label}"
    return Drawing(key, heading,
                   "The roof is the measured peak and the measured memory bandwidth (medians over the layers). Points above "
                   "it: data that the caches hold, or Winograd, which needs fewer operations than are counted.", draw, points)


def _point_hint(m: Measurement) -> str:
    share = "" if m.of_peak is None else f", {m.of_peak:.0%} of peak"
    speed = f"{significant(m.seconds * 1e3)} ms, {significant(m.gflops)} GFLOP/s"
    return f"{title(m.problem)}, {m.contender} ({m.algorithm}): {speed}{share}"


def _roof(axes: Any, record: Record, found: Sequence[Measurement], theme: Theme) -> None:
    if not record.peaks or not found:
        return
    bandwidth = float(np.median([peak.bandwidth for peak in record.peaks.values()]))
    x = [m.flops / m.bytes for m in found]
    for dtype in sorted({problem.dtype for problem in record.peaks}):
        peak = float(np.median([peak.flops for problem, peak in record.peaks.items() if problem.dtype == dtype]))
        knee = peak / bandwidth
        low, high = min(*x, knee) / 1.6, max(*x, knee) * 1.6
        axes.plot([low, knee, high], [low * bandwidth / 1e9, peak / 1e9, peak / 1e9], color=theme.ink, linewidth=1.3, zorder=1)
        axes.annotate(f"{dtype} peak, {significant(peak / 1e9)} GFLOP/s", (high, peak / 1e9), (0, 4), ha="right",
                      textcoords="offset points", fontsize=8, color=theme.ink)
    axes.annotate(f"memory, {significant(bandwidth / 1e9)} GB/s", (low, low * bandwidth / 1e9), (8, -4), va="top",
                  textcoords="offset points", fontsize=8, color=theme.ink)


def heat_map(record: Record, key: str) -> Drawing | None:
    """Layer by contender: the speed-up over a reference, im2col's where it was measured."""
    reference = _reference(record)
    if reference is None:
        return None
    problems = [problem for problem in record.problems if record.get(problem, reference) is not None]
    cells = {(row, column): cell for row, problem in enumerate(problems) for column, name in enumerate(record.contenders)
             if (cell := _heat(record, problem, name, reference)) is not None}
    points = {f"heat-{column}": Points(name, tuple(f"{title(problems[r])}, {name}: {cell[1]} over {reference}"
                                                   for (r, c), cell in cells.items() if c == column))
              for column, name in enumerate(record.contenders)}

    def draw(theme: Theme) -> Any:
        figure, axes = _axes(theme, heading, 2.6 + 0.78 * len(record.contenders), 1.1 + 0.235 * len(problems))
        for column, gid in enumerate(points):
            _heat_column(axes, {r: cell for (r, c), cell in cells.items() if c == column}, column, gid)
        axes.set_xlim(-0.5, len(record.contenders) - 0.5)
        axes.set_ylim(len(problems) - 0.5, -0.5)
        axes.grid(False)
        axes.set_yticks(range(len(problems)), [_short(title(problem)) for problem in problems], fontsize=8)
        axes.set_xticks(range(len(record.contenders)), map(_short, record.contenders), fontsize=8, rotation=35, ha="left",
                        rotation_mode="anchor")
        axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return figure

    heading = f"Speed-up over {reference}: {record.label}"
    return Drawing(key, heading,
                   f"How many times faster than {reference}; blue is faster, orange slower, the colour on a logarithmic scale. "
                   "~ an estimate, * noisy.", draw, points)


def _reference(record: Record) -> str | None:
    """im2col, or who was measured on most layers, the slowest of those."""
    slowness: dict[str, list[float]] = {}
    for m in record.measurements:
        if not m.estimate:
            slowness.setdefault(m.contender, []).append(m.seconds / m.flops)
    if REFERENCE in slowness:
        return REFERENCE
    return max(slowness, key=lambda name: (len(slowness[name]), np.median(slowness[name])), default=None)


def _heat(record: Record, problem: ConvProblem, name: str, reference: str) -> tuple[float, str] | None:
    """(speed-up, its text) of one cell."""
    m, base = record.get(problem, name), record.get(problem, reference)
    if m is None or base is None:
        return None
    paired = speedup(m, base) if not (m.estimate or base.estimate) else None
    ratio = base.seconds / m.seconds if paired is None else paired.middle
    about = "~" if m.estimate or base.estimate else ""
    return ratio, about + significant(ratio) + ("*" if m.noisy else "")


def _heat_column(axes: Any, cells: dict[int, tuple[float, str]], column: int, gid: str) -> None:
    from matplotlib.collections import PolyCollection

    x = (column - 0.48, column + 0.48)
    squares = [[(x[0], row - 0.46), (x[1], row - 0.46), (x[1], row + 0.46), (x[0], row + 0.46)] for row in cells]
    colours = [_heat_colour(ratio) for ratio, _ in cells.values()]
    axes.add_collection(PolyCollection(squares, facecolors=colours, edgecolors="none", gid=gid))
    for (row, (_, shown)), colour in zip(cells.items(), colours):
        light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 0.55
        axes.text(column, row, shown, ha="center", va="center", fontsize=7.5, color="#111111" if light else "#ffffff")


def _heat_colour(ratio: float) -> tuple[float, float, float]:
    """Orange (8 times slower, or more) over near-white (equal) to blue (8 times faster, or more), by the logarithm."""
    share = max(-1.0, min(1.0, math.log(ratio) / math.log(8)))
    end = np.array((0.06, 0.36, 0.58) if share > 0 else (0.78, 0.36, 0.05))
    mixed = (1 - abs(share)) * np.array((0.95, 0.95, 0.93)) + abs(share) * end
    return float(mixed[0]), float(mixed[1]), float(mixed[2])


def thread_scaling(scaling: Scaling, key: str) -> Drawing:
    """Speed-up over the fewest threads."""
    counts = sorted({x for line in scaling.lines.values() for x, _ in line})

    def dress(axes: Any, theme: Theme) -> None:
        axes.plot([counts[0], counts[-1]], [1, counts[-1] / counts[0]], color=theme.ink, linestyle=":", linewidth=1.2, zorder=1)
        axes.annotate("ideal", (counts[-1], counts[-1] / counts[0]), (-4, 2), ha="right", textcoords="offset points",
                      fontsize=8, color=theme.ink)
        axes.set_xticks(counts, [f"{count:g}" for count in counts])
        axes.set_xlabel("threads", color=theme.ink)
        axes.set_ylabel(f"times faster than with {counts[0]:g}", color=theme.ink)

    return _lines(scaling, key, f"Scaling with threads: {scaling.label}",
                  "Geometric means over the layers that a contender measured with every number of threads.", dress,
                  "threads", "x")


def size_scaling(scaling: Scaling, record: Record, key: str) -> Drawing:
    """GFLOP/s over the output's pixels."""
    sizes = sorted({x for line in scaling.lines.values() for x, _ in line})

    def dress(axes: Any, theme: Theme) -> None:
        _logarithmic(axes)
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("output pixels per channel", color=theme.ink)
        axes.set_ylabel("GFLOP/s", color=theme.ink)

    return _lines(scaling, key, f"Scaling with size: {scaling.label} ({record.label})",
                  "Problems that differ in nothing but the input's size.", dress, "pixels", " GFLOP/s")


def _lines(scaling: Scaling, key: str, name: str, caption: str, dress: Callable[[Any, Theme], None], what: str,
           unit: str) -> Drawing:
    look = looks(list(scaling.lines))
    points = {f"line-{i}": Points(contender, tuple(f"{contender}, {x:g} {what}: {significant(y)}{unit}" for x, y in line))
              for i, (contender, line) in enumerate(scaling.lines.items())}

    def draw(theme: Theme) -> Any:
        figure, axes = _axes(theme, name, 9.2, 4.4)
        for gid, (contender, line) in zip(points, scaling.lines.items()):
            x, y = zip(*line)
            axes.plot(x, y, color=look[contender].colour, linewidth=1.2, zorder=2, gid=gid + "-stroke",
                      linestyle="--" if look[contender].hollow else "-")
            _scatter(axes, x, y, look[contender], gid)
        dress(axes, theme)
        _legend(axes, scaling.lines, look, theme)
        return figure

    return Drawing(key, name, caption, draw, points)


def _axes(theme: Theme, heading: str, width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor=theme.ground)
    if theme.titled:
        figure.suptitle(heading, x=0.01, ha="left", fontsize=11, fontweight="bold", color=theme.ink)
    axes = figure.add_subplot(facecolor="none")
    axes.grid(color=theme.grid, linewidth=0.6, zorder=0)
    axes.tick_params(colors=theme.ink, labelsize=8.5, which="both")
    for side, spine in axes.spines.items():
        spine.set_color(theme.ink)
        spine.set_visible(side in ("left", "bottom"))
    return figure, axes


def _logarithmic(axes: Any) -> None:
    """Both axes; with 2 and 5 besides the powers of ten where there are few of these."""
    from matplotlib.ticker import LogLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")


def _scatter(axes: Any, x: Sequence[float], y: Sequence[float], look: Look, gid: str) -> None:
    faces = "none" if look.hollow else look.colour
    axes.scatter(x, y, s=26, marker=look.marker, facecolors=faces, edgecolors=look.colour, linewidths=1.1, zorder=3, gid=gid,
                 clip_on=False)


def _legend(axes: Any, names: Iterable[str], look: Mapping[str, Look], theme: Theme) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linestyle="", marker=look[name].marker, color=look[name].colour, label=_short(name), markersize=5,
                      markerfacecolor="none" if look[name].hollow else look[name].colour) for name in names]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8.5, labelcolor=theme.ink,
                borderaxespad=0)


def _short(name: str, longest: int = 30) -> str:
    return name if len(name) <= longest else name[:longest - 1] + "…"
