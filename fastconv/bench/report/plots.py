"""The figures with two axes: the roofline, a small panel for each contender, and lines of scaling."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..palette import looks
from .across import Scaling
from .contests import elsewhere
from .figures import Drawing, hopeless, omission
from .records import Measurement, Record, title
from .scene import Circle, Path, Point, Scene, Text, Who, fit, spread, text_width, wrap
from .tables import significant

FEWER = ("winograd", "winograd_weight", "fft")  # algorithms with fewer multiplications than are counted
TOLERANCE = 1.05  # above the roof by less is the clock's doing
_SMALL, _LABEL, _TITLE = 10.5, 12.0, 21.0  # sizes of text
_FEWEST = 3  # layers that make a roofline worth its place
_PANEL = 150.0  # pixels of a panel's height


@dataclass(frozen=True)
class _Field:
    """Two logarithmic axes in a box."""

    x: tuple[float, float]
    y: tuple[float, float]
    box: tuple[float, float, float, float]  # left, top, right, bottom

    def place(self, x: float, y: float) -> Point:
        left, top, right, bottom = self.box
        return (left + _share(x, *self.x) * (right - left), bottom - _share(y, *self.y) * (bottom - top))


def _share(value: float, low: float, high: float) -> float:
    return math.log(value / low) / math.log(high / low)


def _range(values: Sequence[float], room: float = 1.25) -> tuple[float, float]:
    return min(values) / room, max(values) * room


def roofline(record: Record, key: str) -> Drawing | None:
    """GFLOP/s over flops per byte, a panel for each contender, below or above the same roof."""
    by_name: dict[str, list[Measurement]] = {}
    omitted = hopeless(record)
    left_out = {id(m) for m in omitted}
    for m in record.measurements:
        if not m.estimate and id(m) not in left_out:
            by_name.setdefault(m.contender, []).append(m)
    if len({m.problem for measured in by_name.values() for m in measured}) < _FEWEST:
        return None
    caption = ("Each dot is a layer: operations of the direct algorithm a second, over operations per byte of inputs, weights "
               "and output. The roof is the measured peak and the measured memory bandwidth, medians over the layers.")
    explained = ("Above the roof (shaded): Winograd and FFT (rings) need fewer multiplications than are counted, and small "
                 "data stays in the caches, which are faster than memory. Other libraries do not tell their algorithm; above "
                 "the level part of the roof it must save multiplications too. ") if record.peaks else ""
    text = f"{caption} {explained}{omission(omitted) if omitted else ''}".strip()

    def draw(width: float, alone: bool) -> Scene:
        scene, margin, y = _start(f"Roofline: {record.label}", text, width, alone)
        every = 2 if width < 500 else 4
        gap, left = 14.0, 34.0
        panel = (width - 2 * margin - left - 12 - gap * (every - 1)) / every
        found = [m for measured in by_name.values() for m in measured]
        fields = _range([m.flops / m.bytes for m in found]), _range([
            *(m.gflops for m in found), *(peak.flops / 1e9 for peak in record.peaks.values())])
        y = _roof_keys(scene, margin, y, width - margin) if record.peaks else y
        scene.add(Text(margin, y + 10, "GFLOP/s", _SMALL, "soft"))
        y += 12
        for index, (name, measured) in enumerate(by_name.items()):
            row, column = divmod(index, every)
            x, top = margin + left + column * (panel + gap), y + row * (_PANEL + 66) + 44
            field = _Field(*fields, (x, top, x + panel, top + _PANEL))
            _panel(scene, record, name, measured, field, looks(record.contenders)[name].colour, column == 0, index == 0)
        scene.height = y + -(-len(by_name) // every) * (_PANEL + 66) + 12
        scene.add(Text(width - margin, scene.height - 6, "flops per byte →", _SMALL, "soft", "end"))
        _notes(scene, margin, text if alone else "")
        return scene

    return Drawing(key, f"Roofline: {record.label}", text, draw)


def _roof_keys(scene: Scene, x: float, y: float, right: float) -> float:
    """What rings and the shade mean, beside one of each; where the next thing begins."""
    left = x
    for kind, words in (("dot", "computes every product"), ("ring", "Winograd or FFT: fewer products than are counted"),
                        ("shade", "faster than the roof: fewer products, or data in caches")):
        needed = 22 + text_width(words, _SMALL)
        if x > left and x + needed > right:
            x, y = left, y + 17
        if kind == "shade":
            scene.box(x, y + 2, 16, 11, "roof", stroke="line")
        else:
            scene.add(Circle(x + 8, y + 8, 3.6, "ground" if kind == "ring" else "soft", "soft", 1.5))
        scene.add(Text(x + 21, y + 12, words, _SMALL, "soft"))
        x += needed + 12
    return y + 26


def _panel(scene: Scene, record: Record, name: str, found: Sequence[Measurement], field: _Field, colour: str, labelled: bool,
           first: bool) -> None:
    left, top, right, bottom = field.box
    width = right - left
    scene.add(Text(left, top - 30, fit(name, _LABEL, width, True), _LABEL, bold=True, who=Who(name, name)))
    above = Counter(reason for m in found if (reason := above_roof(record, m)) is not None)
    words = ", ".join(f"{count} {reason}" for reason, count in above.most_common())
    lines = wrap(f"above: {words}" if above else "none above" if record.peaks else "", _SMALL, width)
    for index, line in enumerate(lines[:2]):
        scene.add(Text(left, top - 17 + 12 * index, line, _SMALL, "soft", who=Who(name, f"{name}, above the roof: {words}")))
    _roof(scene, record, field, first)
    for x in _round_values(*field.x):
        scene.add(Text(field.place(x, 1)[0], bottom + 14, f"{x:g}", _SMALL, "soft", "middle"))
    for y in _round_values(*field.y):
        at = field.place(1, y)[1]
        scene.line((left, at), (right, at), width=0.7)
        if labelled:
            scene.add(Text(left - 5, at + 4, f"{y:g}", _SMALL, "soft", "end"))
    for m in sorted(found, key=lambda m: m.algorithm not in FEWER, reverse=True):
        x, y = field.place(m.flops / m.bytes, m.gflops)
        ring = m.algorithm in FEWER
        scene.add(Circle(x, y, 3.0, "ground" if ring else colour, colour if ring else "ground", 1.5 if ring else 0.6,
                         who=Who(name, _point_hint(m))))


def _round_values(low: float, high: float) -> list[float]:
    """Powers of ten, up to five of them; with 2 and 5 besides where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens, fine = ([step * 10.0 ** power for power in powers for step in steps if low <= step * 10.0 ** power <= high]
                  for steps in ((1,), (1, 2, 5)))
    return fine if len(tens) < 2 else tens[::-(-len(tens) // 5)]


def _roof(scene: Scene, record: Record, field: _Field, labelled: bool) -> None:
    """One for each dtype; what lies above the highest is shaded."""
    if not record.peaks:
        return
    left, top, right, _ = field.box
    bandwidth = statistics.median(peak.bandwidth for peak in record.peaks.values()) / 1e9
    peaks = {dtype: statistics.median(p.flops for problem, p in record.peaks.items() if problem.dtype == dtype) / 1e9
             for dtype in sorted({problem.dtype for problem in record.peaks})}
    for dtype, peak in sorted(peaks.items(), key=lambda item: -item[1]):
        low = max(field.x[0], field.y[0] / bandwidth)  # where the slope enters the box
        knee = min(max(peak / bandwidth, low), field.x[1])
        line = [field.place(low, min(low * bandwidth, peak)), field.place(knee, min(knee * bandwidth, peak)),
                field.place(field.x[1], min(field.x[1] * bandwidth, peak))]
        if peak == max(peaks.values()):
            start = [(left, line[0][1])] if line[0][0] > left else []
            scene.add(Path((*start, *line, (right, top), (left, top)), fill="roof", closed=True))
        scene.add(Path(tuple(line), stroke="soft", width=1.3))
        if labelled:
            words = f"{significant(peak)}" + (f" {dtype}" if len(peaks) > 1 else "")
            scene.add(Text(right - 2, line[2][1] - 4, words, _SMALL, "soft", "end"))
    if labelled and knee > 1.5 * low:
        x, y = field.place(math.sqrt(low * knee), math.sqrt(low * knee) * bandwidth)
        scene.add(Text(x + 6, y + 14, f"{significant(bandwidth)} GB/s", _SMALL, "soft"))


def above_roof(record: Record, m: Measurement) -> str | None:
    """Why a layer is above what the machine could do beside it; None where it is not."""
    peak = record.peaks.get(m.problem)
    if peak is None or elsewhere(m):
        return None
    rate = m.flops / m.seconds
    if rate <= TOLERANCE * min(peak.flops, peak.bandwidth * m.flops / m.bytes):
        return None
    if rate <= TOLERANCE * peak.flops:
        return "in caches"
    return m.algorithm if m.algorithm in FEWER else "fewer products"


def _point_hint(m: Measurement) -> str:
    share = "" if m.of_peak is None else f", {m.of_peak:.0%} of peak"
    speed = f"{significant(m.seconds * 1e3)} ms, {significant(m.gflops)} GFLOP/s"
    return f"{title(m.problem)}, {m.contender} ({m.algorithm}): {speed}{share}"


def thread_scaling(scaling: Scaling, key: str) -> Drawing:
    """Speed-up over the fewest threads."""
    counts = sorted({x for line in scaling.lines.values() for x, _ in line})
    ideal = {"ideal": [(counts[0], 1.0), (counts[-1], counts[-1] / counts[0])]}
    return _lines(scaling, key, f"Scaling with threads: {scaling.label}",
                  "Geometric means over the layers that a contender measured with every number of threads.", "threads",
                  f"times as fast as with {counts[0]:g}", "×", ideal)


def size_scaling(scaling: Scaling, record: Record, key: str) -> Drawing:
    """GFLOP/s over the output's pixels."""
    return _lines(scaling, key, f"Scaling with size: {scaling.label} ({record.label})",
                  "Problems that differ in nothing but the input's size.", "output pixels per channel", "GFLOP/s", " GFLOP/s",
                  {})


def _lines(scaling: Scaling, key: str, name: str, caption: str, across: str, up: str, unit: str,
           dashed: Mapping[str, list[Point]]) -> Drawing:
    lines = {**dashed, **scaling.lines}
    points = [point for line in lines.values() for point in line]

    def draw(width: float, alone: bool) -> Scene:
        scene, margin, y = _start(name, caption, width, alone)
        labels = min(max(text_width(who, 11.5) for who in lines) + 10, width * 0.32)
        height = max(260.0, 17.0 * len(lines) + 20)
        field = _Field(_range([x for x, _ in points], 1.12), _range([y for _, y in points], 1.12),
                       (margin + 40, y + 22, width - margin - labels, y + 22 + height))
        scene.add(Text(margin, y + 10, up, _SMALL, "soft"))
        _frame(scene, field, sorted({x for x, _ in points}))
        _curves(scene, lines, set(dashed), field, across, unit, width - margin - labels)
        scene.add(Text(field.box[2], field.box[3] + 30, across + " →", _SMALL, "soft", "end"))
        scene.height = field.box[3] + 38
        _notes(scene, margin, caption if alone else "")
        return scene

    return Drawing(key, name, caption, draw)


def _frame(scene: Scene, field: _Field, across: Sequence[float]) -> None:
    left, _, right, bottom = field.box
    taken = -math.inf
    for x in across:
        at = field.place(x, field.y[0])[0]
        if at - text_width(f"{x:g}", _SMALL) / 2 > taken:
            scene.add(Text(at, bottom + 15, f"{x:g}", _SMALL, "soft", "middle"))
            taken = at + text_width(f"{x:g}", _SMALL) / 2 + 4
    for y in _round_values(*field.y):
        at = field.place(field.x[0], y)[1]
        scene.line((left, at), (right, at))
        scene.add(Text(left - 5, at + 4, f"{y:g}", _SMALL, "soft", "end"))


def _curves(scene: Scene, lines: Mapping[str, Sequence[Point]], dashed: set[str], field: _Field, across: str,
            unit: str, right: float) -> None:
    """Each with its name at its end."""
    look = looks(who for who in lines if who not in dashed)
    ends = [field.place(*line[-1]) for line in lines.values()]
    labels = spread((y for _, y in ends), 14.0, field.box[1], field.box[3])
    for (who, line), end, label in zip(lines.items(), ends, labels):
        colour, hollow = ("soft", False) if who in dashed else (look[who].colour, look[who].hollow)
        about = "" if who in dashed else who
        scene.add(Path(tuple(field.place(x, y) for x, y in line), stroke=colour, width=1.6, who=Who(about),
                       dash=(2, 4) if who in dashed else (5, 3) if hollow else None))
        if who not in dashed:
            for x, y in line:
                at = field.place(x, y)
                hint = f"{who}, {x:g} {across}: {significant(y)}{unit}"
                scene.add(Circle(*at, 3.6, "ground" if hollow else colour, colour, 1.4, who=Who(who, hint)))
        scene.line((end[0] + 5, end[1]), (right + 6, label), colour, 0.6, who=Who(about))
        scene.add(Text(right + 9, label + 4, fit(who, 11.5, scene.width - right - 9), 11.5, who=Who(about, who)))


def _start(name: str, text: str, width: float, alone: bool) -> tuple[Scene, float, float]:
    """The scene, its margin, and where the picture begins."""
    scene, margin, y = Scene(width, 0.0, name, text), 28.0 if alone else 2.0, 0.0
    if alone:
        y = margin - 8
        for line in wrap(name, _TITLE, width - 2 * margin, bold=True):
            y += _TITLE * 1.28
            scene.add(Text(margin, y, line, _TITLE, bold=True))
        y += 10
    return scene, margin, y


def _notes(scene: Scene, margin: float, words: str) -> None:
    for line in wrap(words, 11.5, scene.width - 2 * margin):
        scene.height += 16
        scene.add(Text(margin, scene.height, line, 11.5, "soft"))
    scene.height += 20 if words else 0
