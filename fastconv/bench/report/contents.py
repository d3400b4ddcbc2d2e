"""What a report holds, in order: the same sections for the terminal and the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from . import across, answer, figures, findings, hardware, heat, plots
from .answer import Answer
from .changes import Comparison
from .figures import Drawing
from .records import Record
from .tables import Table


@dataclass(frozen=True)
class Section:
    key: str
    title: str
    lines: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    drawings: tuple[Drawing, ...] = field(default=())


def sections(records: Sequence[Record], compared: Sequence[Comparison]) -> list[Section]:
    """What changed first, then what differs between machines, then each machine by its latest record."""
    machines = across.newest(records)
    keys = _keys(machines)
    found = [_changes(comparison, index) for index, comparison in enumerate(compared, 1)]
    if len(machines) > 1:
        found.append(_across(machines))
    found += [_machine(record, keys[record.label], len(machines) > 1) for record in machines]
    return found


def first(records: Sequence[Record], compared: Sequence[Comparison]) -> tuple[Answer, Drawing | None]:
    """What stands above all sections: the answer, and its picture (of few layers, these)."""
    said = answer.answer(records, compared)
    machines = across.newest(records)
    drawing = figures.verdict_picture(machines, said)
    return said, drawing or figures.layers(machines[-1], "answer")


def _changes(found: Comparison, index: int) -> Section:
    drawing = figures.changes(found, f"changes-{index}")
    return Section(f"changes-{index}", f"Changes: {found.new.label}", (findings.summary(found),),
                   (findings.groups(found), findings.rows(found, False), findings.rows(found, True)), (), _drawn(drawing))


def _across(machines: Sequence[Record]) -> Section:
    tables = [across.machines_table(machines)] if across.common(machines) else []
    tables += [across.layers(machines), across.wins(machines), across.networks(machines)]
    drawings = [plots.thread_scaling(scaling, f"threads-{i}") for i, scaling in enumerate(across.by_threads(machines), 1)]
    return Section("machines", "Across machines", (), tuple(tables), (), tuple(drawings))


def _machine(record: Record, key: str, several: bool) -> Section:
    tables = [hardware.layers(record), hardware.means(record), hardware.costs(record), across.networks([record]),
              hardware.everything(record)]
    said = answer.of_record(record)
    kinds = figures.verdict_picture([record], said, f"answer-{key}")
    families = enumerate(across.by_size(record), 1)
    drawings = (kinds if several else None,  # what stands first of all is not repeated
                figures.libraries(record, f"libraries-{key}"),
                figures.layers(record, f"layers-{key}") if several or kinds else None,
                plots.roofline(record, f"roofline-{key}"),
                heat.heat_map(record, f"heat-map-{key}"),
                *(plots.size_scaling(scaling, record, f"size-{i}-{key}") for i, scaling in families))
    lines = (said.headline, *said.lines) if several else ()
    return Section(key, record.label, lines, tuple(tables), tuple(hardware.facts(record)), _drawn(*drawings))


def _drawn(*drawings: Drawing | None) -> tuple[Drawing, ...]:
    return tuple(drawing for drawing in drawings if drawing is not None)


def _keys(machines: Sequence[Record]) -> dict[str, str]:
    """A short word for every label, for anchors and file names."""
    result: dict[str, str] = {}
    for record in machines:
        word = re.sub(r"[^a-z0-9]+", "-", record.label.lower()).strip("-") or "machine"
        result[record.label] = word if word not in result.values() else f"{word}-{len(result) + 1}"
    return result
