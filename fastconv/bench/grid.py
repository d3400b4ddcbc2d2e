"""Tables that fit: what is wider than the terminal goes without some columns, or is stacked; no word or figure is split."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TextIO

from ..errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_PLAIN_WIDTH = 250  # where there is no terminal to ask: nothing wraps
_INDENT = "  "


class Cell(NamedTuple):
    text: str
    style: str = ""


class Line(NamedTuple):
    """A row; `ends`: a rule follows it."""

    cells: tuple[Cell, ...]
    ends: bool = False


@dataclass
class Grid:
    """A table to be drawn. `optional`: headings of columns that may be left out, the first one first."""

    title: str
    headings: tuple[str, ...]
    numeric: tuple[bool, ...]
    lines: list[Line] = field(default_factory=list)
    optional: tuple[str, ...] = ()

    def show(self, out: Console) -> list[str]:
        """Draw it; the headings that were left out."""
        left_out: list[str] = []
        for heading in (None, *self.optional):
            left_out += [] if heading is None else [heading]
            table = self._table(left_out)
            if out.measure(table, options=out.options.update(width=10_000)).maximum <= out.width:
                out.print(table)
                return left_out
        for line in self._stacked(out.width):
            out.print(line, markup=False, highlight=False, soft_wrap=True)
        return list(self.optional[:1])

    def _table(self, left_out: Sequence[str]) -> Table:
        from rich.table import Table
        from rich.text import Text

        kept = [index for index, heading in enumerate(self.headings) if heading not in left_out]
        table = Table(title=Text(printable(self.title)), title_justify="left")
        for index in kept:
            table.add_column(Text(printable(self.headings[index])), justify="right" if self.numeric[index] else "left",
                             no_wrap=True)
        for line in self.lines:
            cells = [line.cells[index] for index in kept]
            table.add_row(*(Text(printable(cell.text), cell.style) for cell in cells), end_section=line.ends)
        return table

    def _stacked(self, width: int) -> list[str]:
        """Each row as its first cell and, below, the others with their headings; without the first optional column."""
        lines = [printable(self.title)]
        for cells, _ in self.lines:
            lines += packed([printable(cells[0].text)], width) if cells[0].text else []
            pairs = [f"{heading} {cell.text}" for heading, cell in zip(self.headings[1:], cells[1:])
                     if heading not in self.optional[:1] and cell.text not in ("", "-", "–")]
            lines += packed(["", *map(printable, pairs)], width)
        return lines


def packed(parts: Sequence[str], width: int) -> list[str]:
    """The parts in as few lines as hold them, indented but for the first; none is split but between words, where it must be."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += "  " + part
        else:
            lines += textwrap.wrap(part, width, initial_indent=_INDENT, subsequent_indent=2 * _INDENT, break_long_words=False,
                                   break_on_hyphens=False)
    return [line for line in lines if line.strip()]


def width_of(stream: TextIO | None) -> int:
    """Columns of a terminal; many of anything else."""
    return shutil.get_terminal_size().columns if stream is not None and stream.isatty() else _PLAIN_WIDTH
