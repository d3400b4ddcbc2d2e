"""The chart of a run: GFLOP/s of each backend on each problem, with the measured peak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..problem import ConvProblem
from .machine import name
from .palette import looks
from .results import Results

_PEAK = "#b3261e"
_ESTIMATE: dict[str, Any] = {"hatch": "////", "edgecolor": "white", "linewidth": 0}
_PREPARED: dict[str, Any] = {"hatch": "....", "edgecolor": "white", "linewidth": 0}
_LOG_FROM = 30  # ratio of the largest to the smallest bar above which small ones would vanish
_LEGEND = 7  # entries in a line
_GROUP = 0.82  # of the distance between two groups; the rest is the gap


def write(path: Path, results: Results, machine: dict[str, Any]) -> None:
    """Draw into a PNG (or what the suffix says).

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = results.contenders()
    problems = [problem for problem in results.problems if results.of(problem)]
    height = 1.6 + len(problems) * max(0.34, 0.16 * len(names) + 0.1)
    figure = Figure(figsize=(10, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lowest = min(row.gflops for row in results.rows)
    highest = max([*(row.gflops for row in results.rows), *(peak.flops / 1e9 for peak in results.peaks.values())])
    if highest > _LOG_FROM * lowest:
        axes.set_xscale("log")
        axes.set_xlim(lowest / 2, highest * (highest / lowest) ** 0.07)
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.set_xlim(0, highest * 1.12)
    _bars(axes, results, problems, names)
    _peaks(axes, results, problems)
    _dress(axes, results, problems, machine)
    figure.savefig(path, dpi=140)


def _bars(axes: Any, results: Results, problems: list[ConvProblem], names: list[str]) -> None:
    from matplotlib.patheffects import withStroke

    thickness, colours = _GROUP / len(names), looks(names)
    halo = [withStroke(linewidth=2, foreground="white")]  # figures stay readable where the peak's stroke crosses them
    for place, problem in enumerate(problems):
        for row in results.of(problem):
            index = names.index(row.contender)
            y = place - _GROUP / 2 + (index + 0.5) * thickness
            bar, = axes.barh(y, row.gflops, thickness * 0.92, color=colours[row.contender].colour, zorder=2)
            if row.estimate:
                bar.set(**_ESTIMATE)
            elif row.prepared:
                bar.set(**_PREPARED)
            axes.annotate(("~" if row.estimate else "") + f"{row.gflops:.3g}", (row.gflops, y), (3, 0), path_effects=halo,
                          textcoords="offset points", va="center", fontsize=6.5, color="#444444", zorder=4)


def _peaks(axes: Any, results: Results, problems: list[ConvProblem]) -> None:
    """One stroke per problem: the peak was measured beside each, and clocks drift."""
    found = [(place, results.peaks[problem].flops / 1e9) for place, problem in enumerate(problems) if problem in results.peaks]
    if found:
        axes.vlines([flops for _, flops in found], [place - 0.5 for place, _ in found], [place + 0.5 for place, _ in found],
                    color=_PEAK, linewidth=1.4, zorder=3)


def _dress(axes: Any, results: Results, problems: list[ConvProblem], machine: dict[str, Any]) -> None:
    titles = [(problem.name or problem.text) + (f" x{problem.count}" if problem.count > 1 else "") for problem in problems]
    axes.set_yticks(range(len(problems)), [title if len(title) <= 44 else title[:43] + "…" for title in titles], fontsize=8.5)
    axes.set_ylim(len(problems) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("GFLOP/s (of the direct algorithm" + (", logarithmic)" if axes.get_xscale() == "log" else ")"))
    axes.grid(axis="x", color="#e3e3e3", linewidth=0.7, zorder=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    threads = f"{results.threads} thread" + ("s" if results.threads > 1 else "")
    axes.set_title(f"fastconv on {name(machine)}, {threads}", loc="left", fontsize=11.5, fontweight="bold",
                   pad=8 + 16 * _legend(axes, results))


def _legend(axes: Any, results: Results) -> int:
    """Above the bars; how many lines it takes."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = results.contenders()
    entries: list[Any] = [Patch(facecolor=look.colour, label=name, **(_PREPARED if look.hollow else {}))
                          for name, look in looks(names).items()]
    if any(row.estimate for row in results.rows):
        entries.append(Patch(facecolor="#c9ced4", label="estimate", **_ESTIMATE))
    if results.peaks:
        entries.append(Line2D([], [], color=_PEAK, linewidth=1.4, label="measured peak"))
    axes.legend(handles=entries, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=_LEGEND, frameon=False, fontsize=8.5,
                handlelength=1.4, columnspacing=1.4, borderaxespad=0.2)
    return -(-len(entries) // _LEGEND)
