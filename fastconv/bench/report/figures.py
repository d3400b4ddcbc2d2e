"""The figures: what is drawn, wide and narrow for the page, once more for a file that is read alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...problem import ConvProblem
from ...timing.paired import Interval, interval
from .answer import Answer, of_record
from .changes import Comparison
from .contests import (
    AHEAD,
    BEHIND,
    TIED,
    Contest,
    Duel,
    by,
    contest,
    elsewhere,
    kind,
    main_contests,
    peer,
    per_call,
    prepared,
    speedup,
    verdict,
)
from .records import Measurement, Record, title
from .regressions import FASTER, SLOWER, SUSPECT, WITH_GROUP
from .scene import Scene, Who
from .strips import DOT, MAIN, MEAN, OTHER, TICK, Axis, Mark, Strip, Words, picture, times
from .tables import plural, significant

WIDTHS = {"wide": 1040.0, "middle": 700.0, "narrow": 358.0}  # pixels: of a page on a laptop, a tablet, a phone
CARD = 1280.0  # of a file
HOPELESS = 100.0  # times slower than the fastest: not drawn, as the rest would be squeezed
_FAR = 20.0  # times as fast on average: nor is that
_FEW = 12  # layers, up to which each has a row in the first picture
_DOTS = ((MEAN, AHEAD, "geometric mean, 95 % interval"), (DOT, AHEAD, "a layer: ahead"), (DOT, TIED, "tied"),
         (DOT, BEHIND, "behind"))
_STROKES = {"soft": "other libraries", "pale": "other backends of fastconv"}
_MOST = 20  # single layers that changed
_COLUMN = 18  # rows, from which on a file has two columns


@dataclass(frozen=True)
class Drawing:
    """`key` is part of its file's name; `draw` takes the width, and whether it stands alone, with title and source."""

    key: str
    title: str
    caption: str
    draw: Callable[[float, bool], Scene]
    fixed: bool = False  # whatever the width; it scrolls


def verdict_picture(records: Sequence[Record], found: Answer, key: str = "answer") -> Drawing | None:
    """The answer at a glance: the average of each machine, or of each kind of layer where there is one machine. None where
    nobody has rivals, and of few layers, which need no averages."""
    contests = [(record, sides) for record in records if (sides := main_contests(record))]
    if not contests:
        return None
    if len(contests) > 1:
        rows = [_average(record.label, "", sides[0], sides[0].duels) for record, sides in contests]
        return _first(key, found, rows, contests[0][1], "one row a machine")
    (_, sides), = contests
    if len(sides[0].duels) <= _FEW:
        return None
    kinds: dict[str, list[Duel]] = {}
    for duel in sides[0].duels:
        kinds.setdefault(kind(duel.problem), []).append(duel)
    best = max(sides[0].duels, key=lambda duel: duel.speedup.middle)  # what stands out has its name
    per_kind = sorted((_average(name, plural(len(duels), "layer"), sides[0], duels, best)
                       for name, duels in kinds.items()), key=lambda row: -row.marks[0].x)
    whole = _average("all layers", plural(len(sides[0].duels), "layer"), sides[0], sides[0].duels)
    return _first(key, found, [whole, *per_kind] if len(per_kind) > 1 else [whole], sides, "one row a kind of layer")


def _first(key: str, found: Answer, rows: list[Strip], sides: Sequence[Contest], what: str) -> Drawing:
    axis = Axis(sides[0].rivals, "slower than the best rival", "faster", keys=_DOTS)
    note = f"Times as fast as {sides[0].rivals}, {what}. {found.basis}."

    def draw(width: float, alone: bool) -> Scene:
        words = Words(found.headline, found.lines[0] if found.lines else "", (note,) if alone else ())
        return picture(rows, axis, words, width, alone)

    caption = (f"How many times as fast as {sides[0].rivals}: each small dot a layer with its 95 % interval, each large one "
               "the geometric mean of its row. Blue is ahead, orange behind, grey a tie.")
    return Drawing(key, "The answer", caption, draw)


def libraries(record: Record, key: str) -> Drawing | None:
    """fastconv against each other library over all layers; None where there are fewer than two of them."""
    side = prepared if any(map(prepared, record.measurements)) else per_call
    names = dict.fromkeys(m.contender for m in record.measurements if peer(m))
    found = [(name, one) for name in names if (one := contest(record, side, by(name), "fastconv", name)) is not None]
    far = [name for name, one in found if one.mean.middle > _FAR]
    rows = sorted((_average(name, plural(len(one.duels), "layer"), one, one.duels) for name, one in found if name not in far),
                  key=lambda row: row.marks[0].x)
    if len(rows) < 2:
        return None
    packed = ", weights packed beforehand" if side is prepared else ""
    caption = (f"How many times as fast as each library fastconv is{packed}: each small dot a layer with its 95 % interval, "
               "each large one the geometric mean over the layers on which both took turns, with the interval of a bootstrap "
               "over them.")
    note = f"Not drawn, as fastconv is more than {_FAR:.0f} times as fast: {', '.join(far)}." if far else ""
    axis = Axis("library", "fastconv slower", "fastconv faster", keys=_DOTS)

    def draw(width: float, alone: bool) -> Scene:
        notes = (caption, note, f"{of_record(record).basis}.") if alone else (note,)
        words = Words(f"fastconv against each library: {record.label}", "", tuple(filter(None, notes)))
        return picture(rows, axis, words, width, alone)

    return Drawing(key, f"fastconv against each library: {record.label}", caption, draw)


def _average(name: str, under: str, side: Contest, duels: Sequence[Duel], named: Duel | None = None) -> Strip:
    part = Contest(side.ours, side.rivals, tuple(duels), ())
    mean = part.mean
    dots = [Mark(d.speedup.middle, d.speedup.low, d.speedup.high, DOT, d.verdict, Who(d.ours.contender, _duel_hint(d)),
                 title(d.problem) if d is named and len(duels) > 1 else "")
            for d in sorted(duels, key=lambda d: d.verdict != TIED)]
    ends = f"{significant(mean.low)} to {significant(mean.high)}" if mean.high > mean.low else ""
    hint = f"{name}: {times(mean.middle)}, 95 % interval {ends}, over {plural(len(duels), 'layer')}"
    average = Mark(mean.middle, mean.low, mean.high, MEAN, part.verdict, Who("", hint))
    return Strip(name, (average, *dots), times(mean.middle), ends, part.verdict, under)


def _duel_hint(duel: Duel) -> str:
    found = duel.speedup
    return (f"{title(duel.problem)}: {duel.ours.contender} {times(found.middle)} as fast as {duel.rival.contender}, 95 % "
            f"interval {significant(found.low)} to {significant(found.high)}, {duel.verdict}")


def layers(record: Record, key: str) -> Drawing | None:
    """Layer by layer: both sides' best with error bars, everyone else as a stroke; a lone contender, by peak."""
    sides = main_contests(record)
    rows = _one_layer(record, sides[0].duels[0]) if sides and len(sides[0].duels) == 1 else _rows(record, sides) if sides \
        else _solo_rows(record)
    if not rows:
        return None
    omitted = hopeless(record)
    notes = [_legend_note(sides, record)]
    if omitted:
        notes.append(omission(omitted))
    estimates = dict.fromkeys(m.contender for m in record.measurements if m.estimate)
    if estimates:
        notes.append(f"Not drawn where only estimated: {', '.join(estimates)}.")
    found = of_record(record)
    axis = _axis(sides, record, rows)

    def draw(width: float, alone: bool) -> Scene:
        words = Words(found.headline, " ".join(found.lines[:2]), (*notes, f"{found.basis}.") if alone else tuple(notes[1:]))
        return picture(rows, axis, words, width, alone, 2 if width >= CARD and len(rows) > _COLUMN else 1)

    return Drawing(key, f"Layer by layer: {record.label}", notes[0], draw)


def _legend_note(sides: Sequence[Contest], record: Record) -> str:
    if not sides:
        share = ", as a share of the peak that a multiply-add loop reached beside it" if _all_peaks(record) else ""
        return f"Medians of the rounds with 95 % intervals{share}."
    if len(sides[0].duels) == 1:
        duel = sides[0].duels[0]
        return (f"{title(duel.problem)}: how many times as fast as {duel.rival.contender}, the best rival; medians of the "
                "rounds' ratios with 95 % intervals. Blue is ahead of it, orange behind; other libraries are grey.")
    return (f"How many times as fast as the best rival of the layer, named on the right with the time of {sides[0].ours}: "
            "medians of the rounds' ratios with 95 % intervals. Blue is ahead of all rivals, orange behind one, grey tied; "
            "arrows are further out than the axis goes.")


def _all_peaks(record: Record) -> bool:
    return all(problem in record.peaks for problem in record.problems)


def _axis(sides: Sequence[Contest], record: Record, rows: Sequence[Strip]) -> Axis:
    if not sides:
        return Axis("the measured peak", "below the measured peak", "above it") if _all_peaks(record) \
            else Axis(None, unit=" GFLOP/s")
    first, *rest = sides
    if len(first.duels) == 1:
        return Axis(first.rivals, f"slower than {first.duels[0].rival.contender}", "faster")
    packed = first.duels[0].ours.prepared
    keys = [(MAIN, AHEAD, f"{first.ours}, weights packed beforehand" if packed and rest else first.ours)]
    keys += [(OTHER, AHEAD, "packed in every call") for _ in rest]
    strokes = {mark.tone for row in rows for mark in row.marks if mark.style == TICK}
    keys += [(TICK, tone, words) for tone, words in _STROKES.items() if tone in strokes]
    return Axis(first.rivals, "slower than the best rival", "faster", keys=tuple(keys))


def hopeless(record: Record) -> list[Measurement]:
    """What is so much slower than the fastest of its layer, on the same device, that drawing it would squeeze the rest."""
    best: dict[tuple[ConvProblem, bool], float] = {}
    measured = [m for m in record.measurements if not m.estimate]
    for m in measured:
        where = m.problem, elsewhere(m)
        best[where] = min(m.seconds, best.get(where, m.seconds))
    return [m for m in measured if m.seconds > HOPELESS * best[m.problem, elsewhere(m)]]


def omission(found: Sequence[Measurement]) -> str:
    """Says so."""
    counts = Counter(m.contender for m in found).most_common()
    names = ", ".join(f"{name} ({plural(count, 'layer')})" for name, count in counts)
    return f"Not drawn, as more than {HOPELESS:.0f} times slower than the fastest of the layer: {names}."


def _rows(record: Record, sides: Sequence[Contest]) -> list[Strip]:
    second = {duel.problem: duel for side in sides[1:] for duel in side.duels}
    omitted = {id(m) for m in hopeless(record)}
    return [_row(duel, second.get(duel.problem),
                 [m for m in record.of(duel.problem) if id(m) not in omitted and elsewhere(m) == elsewhere(duel.ours)])
            for duel in sides[0].duels]


def _row(duel: Duel, other: Duel | None, everyone: Sequence[Measurement]) -> Strip:
    marks = [_duel_mark(duel, MAIN)] + ([_duel_mark(other, OTHER)] if other else [])
    drawn = {duel.ours.contender, duel.rival.contender} | ({other.ours.contender} if other else set())
    for m in everyone:
        found = None if m.contender in drawn else speedup(m, duel.rival)
        if found is not None:
            hint = f"{title(duel.problem)}: {m.contender} {times(found.middle)}, {significant(m.seconds * 1e3)} ms"
            marks.append(Mark(found.middle, found.middle, found.middle, TICK, "soft" if m.kind == "peer" else "pale",
                              Who(m.contender, hint)))
    count = f" ×{duel.problem.count}" if duel.problem.count > 1 else ""
    return Strip(title(duel.problem) + count, tuple(marks), times(duel.speedup.middle),
                 f"{duel.rival.contender}, {significant(duel.ours.seconds * 1e3)} ms", duel.verdict)


def _one_layer(record: Record, duel: Duel) -> list[Strip]:
    """A row for everyone, the fastest first: there is room for their names."""
    omitted = {id(m) for m in hopeless(record)}
    rows = []
    for m in sorted(record.of(duel.problem), key=lambda m: m.seconds):
        found = speedup(m, duel.rival)
        if found is not None and id(m) not in omitted:
            tone = "soft" if m.kind == "peer" else verdict(m, [duel.rival]) if m is not duel.rival else TIED
            hint = f"{m.contender}: {times(found.middle)} as fast as {duel.rival.contender}"
            mark = Mark(found.middle, found.low, found.high, MAIN, tone, Who(m.contender, hint))
            rows.append(Strip(m.contender, (mark,), times(found.middle), f"{significant(m.seconds * 1e3)} ms", tone))
    return rows


def _duel_mark(duel: Duel, style: str) -> Mark:
    found = duel.speedup
    return Mark(found.middle, found.low, found.high, style, duel.verdict, Who(duel.ours.contender, _duel_hint(duel)))


def _solo_rows(record: Record) -> list[Strip]:
    """Nobody to compare with: the share of the peak, or GFLOP/s."""
    rows = []
    for problem in record.problems:
        for m in record.of(problem):
            unit = record.peaks[problem].flops if _all_peaks(record) else 1e9
            rate = interval([m.flops / seconds / unit for seconds in m.data], m.placement)
            speed, took = f"{significant(m.gflops)} GFLOP/s", f"{significant(m.seconds * 1e3)} ms"
            who = Who(m.contender, f"{title(problem)}, {m.contender}: {took}, {speed}")
            rows.append(Strip(title(problem), (Mark(rate.middle, rate.low, rate.high, MAIN, AHEAD, who),), speed, took))
    return rows


def changes(found: Comparison, key: str) -> Drawing | None:
    """What two records of one machine say of each contender and algorithm: how the speed changed beyond the machine's own."""
    tones = {SLOWER: BEHIND, WITH_GROUP: BEHIND, SUSPECT: TIED, FASTER: AHEAD}
    rows = []
    groups = [(f"{who}, {how}", plural(count, "layer"), judged) for (who, how), count, judged in found.judgement.groups]
    groups.sort(key=lambda group: -abs(math.log(group[2].ratio)))
    single = [(f"{title(shift.problem)}, {shift.contender}", shift.algorithm, judged)
              for shift, judged in found.judgement.rows if judged.state in (SLOWER, FASTER)]
    for name, note, judged in [*groups, *single[:_MOST]]:
        speed = Interval(1 / judged.high, 1 / judged.ratio, 1 / judged.low)
        tone = tones.get(judged.state, TIED)
        hint = f"{name}: {times(speed.middle)} as fast as before, {significant(speed.low)} to {significant(speed.high)}"
        mark = Mark(speed.middle, speed.low, speed.high, MAIN, tone, Who("", hint))
        rows.append(Strip(name, (mark,), times(speed.middle), note, tone))
    if not rows:
        return None
    caption = ("How many times as fast as in the earlier record, beyond what the machine itself did; with 95 % intervals. "
               "Blue is faster, orange slower, grey not shown to differ.")

    def draw(width: float, alone: bool) -> Scene:
        files = f"{found.new.file} against {found.old.file}."
        words = Words(f"What changed: {found.new.label}", files, (caption,) if alone else ())
        return picture(rows, Axis("before", "slower than before", "faster"), words, width, alone)

    return Drawing(key, "What changed", caption, draw)


