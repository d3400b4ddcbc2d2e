"""The tables of what got slower or faster between two records of one machine."""

from __future__ import annotations

from .changes import Comparison
from .records import Record, title
from .regressions import FASTER, SAME, SLOWER, SUSPECT, WITH_GROUP, Verdict
from .tables import BAD, GOOD, NOTHING, WEAK, Cell, Column, Row, Table, count, number, plural, text

_TONES = {SLOWER: BAD, WITH_GROUP: BAD, FASTER: GOOD, SUSPECT: "", SAME: WEAK}
_WORDS = {SLOWER: "slower", WITH_GROUP: "slower with its group", FASTER: "faster", SUSPECT: "suspect: run again",
          SAME: "no change shown"}
_ORDER = (SLOWER, WITH_GROUP, SUSPECT, FASTER, SAME)


def summary(found: Comparison) -> str:
    """One line: what was compared, and how it ended."""
    states = [verdict.state for verdict in _verdicts(found)]
    slower, faster, suspects = (states.count(state) for state in (SLOWER, FASTER, SUSPECT))
    end = f"{plural(slower, 'regression')}, {plural(faster, 'improvement')}, {plural(suspects, 'suspect')}"
    rows = plural(len(found.judgement.rows), "row")
    return (f"{_run(found.new)} against {_run(found.old)}: {end}; {rows} judged, {len(found.unjudged)} not; "
            f"spread between the runs {found.judgement.spread:.1%}")


def _run(record: Record) -> str:
    return f"{record.file} ({record.when:%Y-%m-%d %H:%M})"


def _verdicts(found: Comparison) -> list[Verdict]:
    return [*(v for *_, v in found.judgement.groups), *(v for _, v in found.judgement.rows)]


def groups(found: Comparison) -> Table:
    rows = sorted(found.judgement.groups, key=lambda item: (_ORDER.index(item[2].state), -item[2].ratio))
    heads = (Column("contender", False), Column("algorithm", False), Column("layers"), Column("new / old time"),
             Column("verdict", False))
    return Table("By contender and algorithm", heads, tuple(
        Row((text(contender), text(algorithm), count(members), _ratio(verdict), _word(verdict)), contender)
        for (contender, algorithm), members, verdict in rows),
        "The middle of the layers' ratios of new over old time, divided by what other contenders' times did on the same "
        "layers, with its 95 % interval; run-to-run spread included.")


def rows(found: Comparison, detail: bool) -> Table:
    """Every row, or those alone that changed."""
    chosen = sorted((item for item in found.judgement.rows if detail or item[1].state != SAME),
                    key=lambda item: (_ORDER.index(item[1].state), -item[1].ratio))
    heads = (Column("layer", False), Column("contender", False), Column("algorithm", False), Column("new / old time"),
             Column("verdict", False))
    body = [Row((text(title(shift.problem)), text(shift.contender), text(shift.algorithm), _ratio(verdict), _word(verdict)),
                shift.contender) for shift, verdict in chosen]
    if detail:
        body += [Row((text(title(item.problem)), text(item.contender), NOTHING, number(item.ratio),
                      text(f"not judged: {item.reason}", WEAK)), item.contender) for item in found.unjudged]
    return Table("Every row" if detail else "Rows that changed", heads, tuple(body),
                 "A suspect is slower than the usual spread explains, but not than that of the occasional wild row does. What "
                 "is not judged shows the plain ratio." if detail else "", detail)


def _ratio(verdict: Verdict) -> Cell:
    return Cell(f"{verdict.ratio:.2f} [{verdict.low:.2f}, {verdict.high:.2f}]", verdict.ratio, _TONES[verdict.state])


def _word(verdict: Verdict) -> Cell:
    return text(_WORDS[verdict.state], _TONES[verdict.state])
