"""The picture of ratios: a row for each thing, its marks on one logarithmic axis, a line where both sides are equal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .scene import NOBODY, Circle, Path, Point, Scene, Text, Who, balanced, fit, text_width, wrap
from .tables import significant

MEAN, MAIN, OTHER, DOT, TICK = "mean", "main", "other", "dot", "tick"  # styles of marks, the most important first
_ROW = {MEAN: 38.0, MAIN: 23.0}  # pixels, by the strip's most important mark
_NARROW = 430.0  # pixels of a column, from which on a row's words stand above its marks
_GAP = 44.0  # between columns
_FARTHEST = 0.2  # of the reference: strokes below stand at the edge
_TITLE, _SUBTITLE, _NOTE, _LABEL, _TICKS = 21.0, 13.0, 11.5, 12.5, 11.0  # sizes of text
_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8))


@dataclass(frozen=True)
class Mark:
    """`low` and `high` are the ends of its error bar; equal where there is none."""

    x: float
    low: float
    high: float
    style: str
    tone: str
    who: Who = NOBODY
    name: str = ""  # drawn beside it


@dataclass(frozen=True)
class Strip:
    """One row: its name, its marks, and what stands behind them, the weightier part first."""

    label: str
    marks: tuple[Mark, ...]
    value: str = ""
    note: str = ""
    tone: str = "ink"
    under: str = ""  # a second line below the label, of rows that are high enough

    @property
    def high(self) -> bool:
        return any(mark.style == MEAN for mark in self.marks)


@dataclass(frozen=True)
class Axis:
    """`reference` stands where x is 1; None: nothing does. `keys` explain the styles: (style, tone, words)."""

    reference: str | None
    below: str = "slower"
    above: str = "faster"
    unit: str = "×"
    keys: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Words:
    """What stands around the rows in a file that is read alone; on a page only `notes` are drawn."""

    title: str
    subtitle: str = ""
    notes: tuple[str, ...] = ()


def picture(strips: Sequence[Strip], axis: Axis, words: Words, width: float, alone: bool, columns: int = 1) -> Scene:
    """The rows from top to bottom, in columns of equal length."""
    margin = 28.0 if alone else 2.0
    scene = Scene(width, 0.0, words.title, " ".join((words.subtitle, *words.notes)).strip())
    y = _heading(scene, words, margin, width) if alone else 0.0
    y = _keys(scene, axis, margin, y + 4, width - margin)
    each = -(-len(strips) // columns)
    inner = (width - 2 * margin - _GAP * (columns - 1)) / columns
    scale = _Scale.over(strips, axis.reference is not None)
    layout = _Layout.of(strips, inner, alone)
    ends = [_column(scene, strips[i * each:(i + 1) * each], axis, scale, layout, margin + i * (inner + _GAP), y)
            for i in range(columns) if strips[i * each:(i + 1) * each]]
    y = max(ends, default=y)
    for note in words.notes:
        for line in wrap(note, _NOTE, width - 2 * margin):
            y += _NOTE * 1.4
            scene.add(Text(margin, y, line, _NOTE, "soft"))
    scene.height = y + (20 if alone else 6)
    return scene


def _heading(scene: Scene, words: Words, margin: float, width: float) -> float:
    y = margin - 8
    for line in balanced(words.title, _TITLE, width - 2 * margin, bold=True):
        y += _TITLE * 1.28
        scene.add(Text(margin, y, line, _TITLE, bold=True))
    for line in wrap(words.subtitle, _SUBTITLE, width - 2 * margin):
        y += _SUBTITLE * 1.45
        scene.add(Text(margin, y + 2, line, _SUBTITLE, "soft"))
    return y + 14


def _keys(scene: Scene, axis: Axis, x: float, y: float, right: float) -> float:
    """What the marks are, each drawn beside its words; as many lines as it takes."""
    left = x
    for style, tone, words in axis.keys:
        needed = 30 + text_width(words, _TICKS)
        if x > left and x + needed > right:
            x, y = left, y + 18
        ends = _Place(_Scale(0.5, 2.0), x + 1, x + 19)
        for draw in (_bar, _point):
            draw(scene, Mark(1.0, *((1.0, 1.0) if style == TICK else (0.5, 2.0)), style, tone), ends, y + 8)
        scene.add(Text(x + 25, y + 12, words, _TICKS, "soft"))
        x += needed + 14
    return y + (24 if axis.keys else 0)


@dataclass(frozen=True)
class _Scale:
    """From values to shares of the axis."""

    low: float
    high: float

    @classmethod
    def over(cls, strips: Sequence[Strip], reference: bool) -> _Scale:
        """Averages and their layers as a whole; single rows without the few that are far out, or the rest looks alike."""
        marks = [mark for strip in strips for mark in strip.marks]
        ends = [end for mark in marks if mark.style != TICK for end in (mark.low, mark.high)] or [1.0]
        ends += [1.0] if reference else []
        low, high = min(ends), max(ends)
        if marks and reference and not any(strip.high for strip in strips):
            most = 1.3 * max(2.0, _quantile([mark.x for mark in marks if mark.style != TICK], 0.9))
            high = min(high, max([most, *(mark.high for mark in marks if mark.x <= most)]))  # no bar is cut
            low = min(low, max(_FARTHEST, _quantile([mark.x for mark in marks], 0.1)))
        room = max((high / low) ** 0.04, 1.04)
        return cls(low / room, high * room)

    def share(self, value: float) -> float:
        return math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self, width: float, unit: str) -> list[float]:
        """Round values, as many as stand side by side."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        choices = [[step * 10.0 ** power for power in powers for step in steps] for steps in _STEPS]
        choices.insert(3, [2.0 ** power for power in range(-20, 20)])
        if self.high < 5:  # where all is close to equal
            choices += [[i * fine for i in range(math.ceil(self.high / fine))] for fine in (0.1, 0.05, 0.02)]
        found: list[float] = []
        for choice in choices:
            fine = [round(tick, 9) for tick in choice if self.low <= tick <= self.high]
            room = (text_width(f"{tick:g}{unit}", _TICKS) + 12 for tick in fine)
            fits = all((self.share(b) - self.share(a)) * width >= needed for a, b, needed in zip(fine, fine[1:], room))
            found = fine if fits and len(fine) > len(found) else found
        return found


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[round(share * (len(values) - 1))] if values else 1.0


@dataclass(frozen=True)
class _Place:
    """Where a value stands between two ends of an axis, or at the nearer one."""

    scale: _Scale
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + max(0.0, min(1.0, self.scale.share(value))) * (self.end - self.start)

    def outside(self, value: float) -> bool:
        return not 0 <= self.scale.share(value) <= 1


@dataclass(frozen=True)
class _Layout:
    """Of one column: where its words and its axis stand."""

    labels: float  # width
    values: float
    notes: float
    width: float
    narrow: bool

    @classmethod
    def of(cls, strips: Sequence[Strip], width: float, alone: bool) -> _Layout:
        narrow = width < _NARROW
        labels = max((text_width(strip.label, _LABEL, strip.high) for strip in strips), default=0)
        values = max((text_width(strip.value, _LABEL, True) for strip in strips), default=0)
        notes = max((text_width(strip.note, _TICKS) for strip in strips), default=0)
        return cls(min(labels, width * (0.6 if narrow else 0.33)), values, min(notes, width * 0.3), width, narrow)

    @property
    def axis(self) -> tuple[float, float]:
        """Left and right, from the column's left."""
        if self.narrow:
            return 4.0, self.width - 4.0
        return self.labels + 16, self.width - (self.values + 14 if self.values else 4) - (self.notes + 10 if self.notes else 0)

    def row(self, strip: Strip) -> float:
        return _ROW[MEAN if strip.high else MAIN] + (18 if self.narrow else 0)


def _column(scene: Scene, strips: Sequence[Strip], axis: Axis, scale: _Scale, layout: _Layout, left: float, y: float) -> float:
    """Draw one; where it ends."""
    place = _Place(scale, *(left + side for side in layout.axis))
    top, bottom = y + 34, y + 34 + sum(map(layout.row, strips)) + 4
    _grid(scene, axis, place, top, bottom)
    y = top
    for strip in strips:
        _strip(scene, strip, layout, place, left, y)
        y += layout.row(strip)
    return bottom + 8


def _grid(scene: Scene, axis: Axis, place: _Place, top: float, bottom: float) -> None:
    for tick in place.scale.ticks(place.end - place.start, axis.unit):
        x, words = place(tick), f"{tick:g}{axis.unit}"
        equal = axis.reference is not None and abs(tick - 1) < 1e-9
        scene.line((x, top - 4), (x, bottom), "soft" if equal else "line", 1.4 if equal else 0.8)
        scene.add(Text(x, top - 8, words, _TICKS, "ink" if equal else "soft", "middle", equal))
    if axis.reference is not None:
        x = place(1.0)
        left, right = f"← {axis.below}", f"{axis.above} →"
        if x - place.start > text_width(left, _TICKS) + 8:
            scene.add(Text(x - 8, top - 24, left, _TICKS, "soft", "end"))
        if place.end - x > text_width(right, _TICKS) + 8:
            scene.add(Text(x + 8, top - 24, right, _TICKS, "soft"))


def _strip(scene: Scene, strip: Strip, layout: _Layout, place: _Place, left: float, y: float) -> None:
    height = layout.row(strip)
    middle = y + (18 + (height - 18) / 2 if layout.narrow else height / 2)
    base = y + 14 if layout.narrow else middle + 4.5
    room = layout.width - layout.values - layout.notes - 16 if layout.narrow else layout.labels
    second = strip.under and not layout.narrow
    label = strip.label if not (strip.under and layout.narrow) else f"{strip.label}, {strip.under}"
    shown = fit(label, _LABEL, room, strip.high)
    scene.add(Text(left, base - (6 if second else 0), shown, _LABEL, "ink", bold=strip.high, halo=layout.narrow,
                   who=NOBODY if shown == label else Who("", strip.label)))
    if second:
        scene.add(Text(left, base + 8, fit(strip.under, _TICKS, room), _TICKS, "soft"))
    _marks(scene, strip, place, middle)
    if strip.value:
        right = left + layout.width - (layout.notes + 10 if layout.notes else 0)
        scene.add(Text(right, base, strip.value, _LABEL, strip.tone, "end", True, layout.narrow))
    if strip.note:
        whole = text_width(strip.note, _TICKS) <= layout.notes
        shown = strip.note if whole else fit(strip.note.partition(",")[0], _TICKS, layout.notes)
        scene.add(Text(left + layout.width - layout.notes, base, shown, _TICKS, "soft", halo=layout.narrow,
                       who=NOBODY if whole else Who("", strip.note)))


def _marks(scene: Scene, strip: Strip, place: _Place, middle: float) -> None:
    """Bars below points, and the first, the most important, on top; averages above their layers."""
    lanes = {MEAN: -7.0} if strip.high else {}
    others = 8.0 if strip.high else 0.0
    for draw in (_bar, _point):
        for mark in reversed(strip.marks):
            draw(scene, mark, place, middle + lanes.get(mark.style, others))


def _bar(scene: Scene, mark: Mark, place: _Place, y: float) -> None:
    """The error bar; of single rows in one stroke with a cap at either end."""
    if mark.high <= mark.low or place.outside(mark.x):
        return
    low, high = place(mark.low), place(mark.high)
    bar: tuple[Point, ...] = ((low, y), (high, y))
    if mark.style in (MAIN, OTHER):
        bar = ((low, y - 3), (low, y + 3), *bar, (high, y - 3), (high, y + 3))
    thick, opacity = {MEAN: (7.0, 0.35), DOT: (1.2, 0.45)}.get(mark.style, (1.4, 1.0))
    scene.add(Path(bar, stroke=mark.tone, width=thick, opacity=opacity, who=Who(mark.who.contender)))


def _point(scene: Scene, mark: Mark, place: _Place, y: float) -> None:
    x = place(mark.x)
    if place.outside(mark.x):
        side = -1 if place.scale.share(mark.x) < 0 else 1  # an arrow at the edge
        points = ((x - 3 * side, y - 4), (x + 3 * side, y), (x - 3 * side, y + 4))
        scene.add(Path(points, mark.tone if mark.style != TICK else "none", mark.tone, 1.2, who=mark.who))
    elif mark.style == TICK:
        scene.line((x, y - 5), (x, y + 5), mark.tone, 1.4, who=mark.who)
    elif mark.style == OTHER:
        scene.add(Circle(x, y, 3.4, "ground", mark.tone, 1.4, who=mark.who))
    else:
        radius, opacity = {MEAN: (6.0, 1.0), MAIN: (4.3, 1.0), DOT: (3.2, 0.65)}[mark.style]
        scene.add(Circle(x, y, radius, mark.tone, "ground", 1.0, opacity, mark.who))
    if mark.name:
        name = fit(mark.name, _NOTE, place.end - place.start)
        half = text_width(name, _NOTE) / 2
        scene.add(Text(max(place.start + half, min(x, place.end - half)), y - 7, name, _NOTE, "soft", "middle", halo=True,
                       who=Who(mark.who.contender)))


def times(ratio: float) -> str:
    return f"{significant(ratio)}×"
