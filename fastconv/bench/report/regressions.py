"""Is it slower than it was? The statistics of two runs on one machine; numbers in, verdicts out.

**Drift.** The machine as a whole is tens of percent faster or slower from run to run. So what is judged is a row's new time
over its old one, divided by what other contenders' times did on the same layer meanwhile (`changes.py` does that); all
ratios here are logarithms of it.

**Spread.** What is left differs from run to run even where no code has changed: 1-3 % for most rows (memory placement, code
placement, neighbours), and 3-4 times that for about one row in twenty. The intervals of the two runs cannot show it, as each
has one such draw. The rows together can: their robust spread s (1.4826 x median absolute deviation), taken about each
group's own middle, so that a kernel that did get slower does not widen it. A contender that spreads wider than the rest
is judged by its own spread.

**Levels.** 36 layers x 9 contenders are some 320 rows and 25 groups. Two honest records should disagree never, say in 1 of
500 pairs, so:

- A group, one contender with one algorithm on at least 4 layers, is slower if the 95 % interval of its middle (Hodges-Lehmann:
  as good as the mean, and one wild row in four does not move it far) lies above 5 %, and the middle 4 standard errors above 1
  (1 in 30,000 for each group). At s = 3 % and 4 rows that is 8 %, at 6 rows 7.4 %, so 1.15x stands out.
- A single row is one of 320, some 16 of which have 3-4 times the usual spread. 4 sigmas of those (1 in 30,000 for each) are
  12 s: with s = 3 % only a row 1.4x slower is a verdict. On a quiet machine, s = 0.5 %, it is 1.07x.
- A row whose interval lies above 5 %, and which is 3 s above 1, is named as a suspect: it may be one of the wild ones; a second
  run tells. It fails nothing.

Improvements are held to the same levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...problem import ConvProblem

MARGIN = math.log(1.05)  # a change below that is not worth an alarm: a new compiler or library does as much
INTERVAL = 1.96  # standard errors: 95 %
SUSPECT_SIGMAS, CERTAIN_SIGMAS = 3, 4
GROUP = 4  # rows at least: the fewest of which one wild row is no majority together with its average
TAIL = 3  # the wild rows' spread over the usual
LEAST = 0.005  # no two runs agree better than that, whatever a few rows pretend
TYPICAL, ENOUGH = 0.03, 12  # the spread where fewer rows than that could tell it
OWN = 8  # rows from which a contender's own spread is known

SLOWER, FASTER, WITH_GROUP, SUSPECT, SAME = "slower", "faster", "with its group", "suspect", ""


@dataclass(frozen=True)
class Shift:
    """The change of one row: log of new over old time, beyond the machine's; and its standard error within the two runs."""

    problem: ConvProblem
    contender: str
    algorithm: str
    log_ratio: float
    error: float

    @property
    def group(self) -> tuple[str, str]:
        return self.contender, self.algorithm


@dataclass(frozen=True)
class Verdict:
    """A ratio of times with its 95 % interval, run-to-run spread included."""

    ratio: float
    low: float
    high: float
    state: str  # SLOWER, FASTER or SAME; of rows also SUSPECT, or WITH_GROUP where the group explains the suspicion


@dataclass(frozen=True)
class Judgement:
    rows: tuple[tuple[Shift, Verdict], ...]
    groups: tuple[tuple[tuple[str, str], int, Verdict], ...]  # (contender, algorithm), rows, verdict
    spread: float  # of all rows, relative

    @property
    def regression(self) -> bool:
        return any(verdict.state == SLOWER for verdict in [*(v for _, v in self.rows), *(v for *_, v in self.groups)])


def judge(shifts: Sequence[Shift]) -> Judgement:
    """Verdicts for every row, and for every contender x algorithm of at least `GROUP` rows."""
    groups: dict[tuple[str, str], list[Shift]] = {}
    for shift in shifts:
        groups.setdefault(shift.group, []).append(shift)
    pooled, own = _spreads(groups)

    def sigma(shift: Shift) -> float:  # the larger one: the spread between runs has the error within them in it
        return max(shift.error, pooled, own.get(shift.contender, 0.0))

    def of_group(members: list[Shift]) -> Verdict:
        # 1.023 = sqrt(pi / 3): the Hodges-Lehmann estimate's standard error over the mean's, for normal values
        error = 1.023 * math.sqrt(sum(sigma(s) ** 2 for s in members)) / len(members)
        return _verdict(middle([s.log_ratio for s in members]), error, CERTAIN_SIGMAS)

    def of_row(shift: Shift) -> Verdict:
        verdict = _verdict(shift.log_ratio, sigma(shift), TAIL * CERTAIN_SIGMAS, SUSPECT_SIGMAS)
        return replace(verdict, state=WITH_GROUP) if verdict.state == SUSPECT and shift.group in slower else verdict

    judged = tuple((key, len(members), of_group(members)) for key, members in groups.items() if len(members) >= GROUP)
    slower = {key for key, _, verdict in judged if verdict.state == SLOWER}
    return Judgement(tuple((shift, of_row(shift)) for shift in shifts), judged, pooled)


def _verdict(log_ratio: float, error: float, certain: float, suspicious: float = math.inf) -> Verdict:
    """`certain` and `suspicious` are in standard errors from 1; the interval must clear the margin besides."""
    state, size = SAME, abs(log_ratio)
    if size - INTERVAL * error > MARGIN:
        if size > certain * error:
            state = SLOWER if log_ratio > 0 else FASTER
        elif log_ratio > suspicious * error:
            state = SUSPECT
    low, ratio, high = (math.exp(log_ratio + step * error) for step in (-INTERVAL, 0, INTERVAL))
    return Verdict(ratio, low, high, state)


def _spreads(groups: dict[tuple[str, str], list[Shift]]) -> tuple[float, dict[str, float]]:
    """The run-to-run spread of all rows, and of each contender that has enough of them."""
    residuals: dict[str, list[float]] = {}
    for (contender, _), members in groups.items():
        logs = np.array([shift.log_ratio for shift in members])
        if len(logs) >= GROUP:  # about its own middle, which takes one degree of freedom
            logs = (logs - middle(logs)) * math.sqrt(len(logs) / (len(logs) - 1))
        residuals.setdefault(contender, []).extend(logs)
    together = [value for values in residuals.values() for value in values]
    least = LEAST if len(together) >= ENOUGH else TYPICAL
    return max(least, spread(together)), {name: spread(values) for name, values in residuals.items() if len(values) >= OWN}


def spread(values: Sequence[float] | np.ndarray) -> float:
    """1.4826 x median absolute value: the standard deviation of normal values about 0, whatever a few wild ones do."""
    return 1.4826 * float(np.median(np.abs(values))) if len(values) else 0.0


def middle(values: Sequence[float] | np.ndarray) -> float:
    """The Hodges-Lehmann estimate: the median of the averages of all pairs, each value with itself included."""
    data = np.asarray(values, np.float64)
    i, j = np.triu_indices(len(data))
    return float(np.median((data[i] + data[j]) / 2))


def level(log_seconds: np.ndarray, placements: Sequence[int] | None = None) -> tuple[float, float]:
    """The median of one run's rounds, and its standard error.

    A closed form and not the bootstrap of `paired`: a thousand rows are judged at once, and the spread between runs, which
    only the rows together show, is the larger part. For independent rounds it is 1.2533 sigma / sqrt(n), sigma being robust.
    Rounds of one memory placement share its luck, so it is at least that of the placements' medians.
    """
    centre = float(np.median(log_seconds))
    error = 1.2533 * spread(log_seconds - centre) / math.sqrt(len(log_seconds))
    if placements is not None and len(set(placements)) >= 3:
        of = np.asarray(placements)
        medians = [float(np.median(log_seconds[of == each])) for each in sorted(set(placements))]
        error = max(error, float(np.std(medians, ddof=1)) / math.sqrt(len(medians)))
    return centre, error
