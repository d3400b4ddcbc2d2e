"""The figure of all figures: layer by contender, the speed-up over one that everybody knows."""

from __future__ import annotations

import math
import statistics

from ...problem import ConvProblem
from .contests import speedup
from .figures import Drawing
from .records import Record, title
from .scene import NOBODY, Scene, Text, Who, fit, text_width, wrap
from .tables import significant

REFERENCE = "im2col"
_ROW, _CELL, _SIZE = 20.0, 78.0, 11.0
_DEEPEST = 0.55  # of the colour, so that figures keep their contrast to it
_EIGHTFOLD = math.log(8)  # where it is reached


def heat_map(record: Record, key: str) -> Drawing | None:
    """The speed-up over a reference, im2col's where it was measured."""
    reference = _reference(record)
    if reference is None:
        return None
    problems = [problem for problem in record.problems if record.get(problem, reference) is not None]
    heading = f"Speed-up over {reference}: {record.label}"
    caption = (f"How many times faster than {reference}; blue is faster, orange slower, the depth of the colour on a "
               "logarithmic scale. ~ an estimate, * noisy.")

    def draw(width: float, alone: bool) -> Scene:
        margin = 28.0 if alone else 2.0
        labels = min(max((text_width(title(problem), _SIZE) for problem in problems), default=0), 230.0) + 10
        scene = Scene(2 * margin + labels + _CELL * len(record.contenders), 0.0, heading, caption)
        y = margin
        for line in wrap(heading, 19.0, scene.width - 2 * margin, True) if alone else ():
            scene.add(Text(margin, y + 14, line, 19.0, bold=True))
            y += 26
        _heads(scene, record, margin + labels, y)
        y += 34
        for problem in problems:
            name = fit(title(problem), _SIZE, labels - 10)
            scene.add(Text(margin, y + 14, name, _SIZE, who=Who("", title(problem))))
            _row(scene, record, problem, reference, margin + labels, y)
            y += _ROW
        for line in wrap(caption, 11.0, scene.width - 2 * margin) if alone else ():
            y += 16
            scene.add(Text(margin, y + 4, line, 11.0, "soft"))
        scene.height = y + margin
        return scene

    return Drawing(key, heading, caption, draw, fixed=True)


def _heads(scene: Scene, record: Record, x: float, y: float) -> None:
    """A prepared contender's name takes two lines."""
    for column, contender in enumerate(record.contenders):
        name, slash, rest = contender.partition("/")
        for index, part in enumerate([name + slash, rest] if rest else ["", name]):
            scene.add(Text(x + _CELL * (column + 0.5), y + 12 + 14 * index, fit(part, _SIZE, _CELL - 4), _SIZE, "soft",
                           "middle", who=Who(contender, contender) if part else NOBODY))


def _row(scene: Scene, record: Record, problem: ConvProblem, reference: str, x: float, y: float) -> None:
    shown = []
    for column, name in enumerate(record.contenders):
        found = _heat(record, problem, name, reference)
        if found is not None:
            ratio, words = found
            left = x + _CELL * column
            depth = min(1.0, abs(math.log(ratio)) / _EIGHTFOLD) * _DEEPEST
            scene.box(left + 1, y + 1, _CELL - 2, _ROW - 2, "ahead" if ratio > 1 else "behind", opacity=depth, who=Who(name))
            who = Who(name, f"{title(problem)}, {name}: {words} over {reference}")
            shown.append(Text(left + _CELL / 2, y + 14, words, _SIZE, "ink", "middle", who=who))
    scene.add(*shown)


def _reference(record: Record) -> str | None:
    """im2col, or who was measured on most layers, the slowest of those."""
    slowness: dict[str, list[float]] = {}
    for m in record.measurements:
        if not m.estimate:
            slowness.setdefault(m.contender, []).append(m.seconds / m.flops)
    if REFERENCE in slowness:
        return REFERENCE
    return max(slowness, key=lambda name: (len(slowness[name]), statistics.median(slowness[name])), default=None)


def _heat(record: Record, problem: ConvProblem, name: str, reference: str) -> tuple[float, str] | None:
    """(speed-up, its text) of one cell."""
    m, base = record.get(problem, name), record.get(problem, reference)
    if m is None or base is None:
        return None
    paired = speedup(m, base)
    ratio = base.seconds / m.seconds if paired is None else paired.middle
    about = "~" if m.estimate or base.estimate else ""
    return ratio, about + significant(ratio) + ("*" if m.noisy else "")
