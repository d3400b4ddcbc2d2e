"""Tables as data: the terminal and the page draw the same ones."""

from __future__ import annotations

from dataclasses import dataclass

from .records import Measurement

BEST, GOOD, BAD, WEAK = "best", "good", "bad", "weak"  # tones


@dataclass(frozen=True)
class Cell:
    """A text, what it sorts by (the text itself if None), and a tone."""

    text: str
    value: float | None = None
    tone: str = ""


NOTHING = Cell("–", None, WEAK)


@dataclass(frozen=True)
class Column:
    """`detail`: for the page only, as a terminal is narrow."""

    name: str
    numeric: bool = True
    detail: bool = False


@dataclass(frozen=True)
class Row:
    """`contender`: whom it is about; the page hides it with them. None: everyone."""

    cells: tuple[Cell, ...]
    contender: str | None = None


@dataclass(frozen=True)
class Table:
    """`detail`: for the page only."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""
    detail: bool = False


def columns(*names: str, text: int = 1) -> tuple[Column, ...]:
    """Columns of these names; the first `text` of them hold words, the others numbers."""
    return tuple(Column(name, numeric=index >= text) for index, name in enumerate(names))


def significant(value: float) -> str:
    """Three significant digits, never in powers of ten: 0.0123, 1.23, 12.3, 123, 1230."""
    if value >= 99.95 or value == 0:
        return f"{value:.0f}"
    digits = 1 if value >= 9.995 else 2
    while digits < 9 and value < 10.0 ** (1 - digits + 1) * 0.9995:
        digits += 1
    return f"{value:.{digits}f}"


def text(value: str, tone: str = "") -> Cell:
    return Cell(value, None, tone)


def number(value: float | None, unit: str = "", tone: str = "", about: bool = False) -> Cell:
    return NOTHING if value is None else Cell(f"{'~' if about else ''}{significant(value)}{unit}", value, tone)


def count(value: int) -> Cell:
    return Cell(str(value), value)


def milliseconds(seconds: float | None, tone: str = "", about: bool = False) -> Cell:
    return number(None if seconds is None else seconds * 1e3, "", tone, about)


def percent(share: float | None) -> Cell:
    return NOTHING if share is None else Cell(f"{share:.0%}" if share >= 0.01 else "<1%", share)


def times(ratio: float | None) -> Cell:
    """A speed-up: good above 1, bad below, neither within 2 %."""
    if ratio is None:
        return NOTHING
    return number(ratio, "x", GOOD if ratio > 1.02 else BAD if ratio < 0.98 else "")


def mebibytes(size: float | None) -> Cell:
    return number(None if size is None else size / 2**20)


def remarks(measurement: Measurement) -> str:
    """What a figure's reader must know."""
    found = [("estimate", measurement.estimate), ("noisy", measurement.noisy), ("with copies", measurement.with_copies),
             ("one call", not measurement.estimate and len(measurement.data) == 1)]
    return ", ".join(name for name, holds in found if holds)


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
