"""Who is faster than whom in one record, layer by layer and on average, and what may be said of it.

Ahead of the others on a layer is who is faster than each of them with all of the 95 % interval of the ratio of their rounds;
behind, who is slower than one of them so; anything between is a tie. An average is the geometric mean over the layers where
both sides took turns, its interval what a bootstrap over these layers finds: what other layers of the same kinds might give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ...problem import ConvProblem
from ...timing.paired import Interval, geometric_mean, ratios
from .records import Measurement, Record

AHEAD, TIED, BEHIND = "ahead", "tied", "behind"
CLEAR = 2.0  # single calls have no interval: only from this factor on one is called faster

Choice = Callable[[Measurement], bool]


def per_call(m: Measurement) -> bool:
    """fastconv as a function call, weights packed each time."""
    return m.kind == "backend" and not m.prepared and not elsewhere(m)


def prepared(m: Measurement) -> bool:
    return m.kind == "backend" and m.prepared and not elsewhere(m)


def peer(m: Measurement) -> bool:
    return m.kind == "peer" and not elsewhere(m)


def elsewhere(m: Measurement) -> bool:
    """On another device than the processor that a record is named after: such figures stand apart."""
    return m.with_copies or "cudnn" in m.library


def anyone(m: Measurement) -> bool:
    return True


def by(name: str) -> Choice:
    return lambda m: m.contender == name


def fastest(record: Record, problem: ConvProblem, choice: Choice = anyone) -> Measurement | None:
    """The least time that was measured, not estimated; `leaders` says who may be called the fastest."""
    return min(filter(choice, record.of(problem)), key=lambda m: m.seconds, default=None)


def speedup(of: Measurement | None, over: Measurement | None) -> Interval | None:
    """How many times faster `of` is: by rounds where they took turns, else from the medians alone."""
    if of is None or over is None or of.estimate or over.estimate:
        return None
    if took_turns(of, over):
        return ratios(over.data, of.data, of.placement)
    ratio = over.seconds / of.seconds
    return Interval(ratio, ratio, ratio)


def took_turns(a: Measurement, b: Measurement) -> bool:
    return a.paired and b.paired and len(a.data) == len(b.data)


def verdict(of: Measurement, others: Iterable[Measurement]) -> str:
    """`of` against all of the others."""
    found = {_verdict(of, other) for other in others}
    return BEHIND if BEHIND in found else TIED if TIED in found else AHEAD


def _verdict(of: Measurement, over: Measurement) -> str:
    if took_turns(of, over):
        if all(b > a for a, b in zip(of.data, over.data)):  # so does every resample: no need to draw any
            return AHEAD
        if all(b < a for a, b in zip(of.data, over.data)):
            return BEHIND
        found = ratios(over.data, of.data, of.placement)
    else:
        ratio = over.seconds / of.seconds
        found = Interval(ratio / CLEAR, ratio, ratio * CLEAR)
    return AHEAD if found.low > 1 else BEHIND if found.high < 1 else TIED


def leaders(record: Record, problem: ConvProblem) -> tuple[Measurement, ...]:
    """Who may be called the fastest: whoever has the least time, and all who are not clearly slower. Several are tied."""
    best = fastest(record, problem)
    if best is None:
        return ()
    return (best, *(m for m in sorted(record.of(problem), key=lambda m: m.seconds)
                    if m is not best and _verdict(best, m) != AHEAD))


@dataclass(frozen=True)
class Duel:
    """One layer: our fastest, the others' fastest, how many times faster ours is, and the verdict against all of them."""

    problem: ConvProblem
    ours: Measurement
    rival: Measurement
    speedup: Interval
    verdict: str


@dataclass(frozen=True)
class Contest:
    """One side against another over all layers of a record.

    Attributes:
        ours, rivals: their names, as they stand in a sentence.
        left_out: the layers without a duel, as one side has no figure or did not take turns.
    """

    ours: str
    rivals: str
    duels: tuple[Duel, ...]
    left_out: tuple[ConvProblem, ...]

    @property
    def mean(self) -> Interval:
        if len(self.duels) == 1:
            return self.duels[0].speedup
        found = geometric_mean([duel.speedup.middle for duel in self.duels])
        assert found is not None, "a contest has a duel"
        return found

    @property
    def verdict(self) -> str:
        """Over all layers. Level, too, is who is tied on most of them: of equal rivals the luckiest one counts."""
        if len(self.duels) == 1:
            return self.duels[0].verdict
        mostly_tied = 2 * self.count(TIED) > len(self.duels)
        return TIED if mostly_tied or self.mean.low <= 1 <= self.mean.high else AHEAD if self.mean.low > 1 else BEHIND

    def count(self, verdict: str) -> int:
        return sum(duel.verdict == verdict for duel in self.duels)


def contest(record: Record, ours: Choice, others: Choice, name: str = "", rivals: str = "") -> Contest | None:
    """None where no layer has both sides."""
    duels, left_out = [], []
    for problem in record.problems:
        mine = fastest(record, problem, lambda m: ours(m) and m.paired)
        against = [m for m in record.of(problem) if others(m) and mine is not None and took_turns(mine, m)]
        if mine is None or not against:
            left_out.append(problem)
            continue
        rival = min(against, key=lambda m: m.seconds)
        found = speedup(mine, rival)
        assert found is not None, "both were measured"
        duels.append(Duel(problem, mine, rival, found, verdict(mine, against)))
    return Contest(name, rivals, tuple(duels), tuple(left_out)) if duels else None


def main_contests(record: Record) -> list[Contest]:
    """What the record is about, the most telling first: fastconv, prepared and per call, against the other libraries; without
    these, who is ahead on most layers against the rest; nothing where somebody stands alone."""
    libraries = list(dict.fromkeys(m.library.split()[0] for m in record.measurements if peer(m)))
    rivals = libraries[0] if len(libraries) == 1 else f"the best of {len(libraries)} other libraries"
    found = [contest(record, side, peer, "fastconv", rivals) for side in (prepared, per_call)]
    if any(found):
        return [one for one in found if one is not None]
    return [] if (alone := _champions_contest(record)) is None else [alone]


def _champions_contest(record: Record) -> Contest | None:
    """Who has the least time on most layers, against the rest. A contender and its prepared twin are one, but alone."""
    measured = [m for m in record.measurements if m.paired]
    several = len({_family(m) for m in measured}) > 1
    side = _family if several else lambda m: m.contender
    won = Counter(side(best) for problem in record.problems if (best := fastest(record, problem)) is not None)
    champion = won.most_common(1)[0][0] if won else ""
    others = list(dict.fromkeys(side(m) for m in measured if side(m) != champion))
    if not others:
        return None
    kinds = {m.kind for m in measured}
    what = "other contenders" if len(kinds) > 1 else "other libraries" if "peer" in kinds else "other backends"
    rivals = others[0] if len(others) == 1 else f"the best of {len(others)} {what}"
    return contest(record, lambda m: side(m) == champion, lambda m: side(m) != champion, champion, rivals)


def _family(m: Measurement) -> str:
    return m.contender.removesuffix("/prepared")


def kind(problem: ConvProblem) -> str:
    """A few words for what a layer is, so that layers of a kind stand together."""
    if problem.ndim != 2:
        return "signals, 1-D" if problem.ndim == 1 else "volumes, 3-D"
    if problem.in_channels == problem.out_channels == 1:
        return "images, one channel"
    if problem.groups > 1:
        return "depthwise" if problem.groups == problem.in_channels else "grouped"
    height, width = problem.kernel_size
    if height != width:
        return "oblong kernels"
    return f"{height}×{width}" if height in (1, 3) else "5×5 and larger" if height > 3 else "2×2"
