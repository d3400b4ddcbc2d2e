"""The tables on a terminal, drawn by rich."""

from __future__ import annotations

from itertools import compress

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from .tables import BAD, BEST, GOOD, WEAK, Cell, Table

_STYLES = {BEST: "bold green", GOOD: "green", BAD: "red", WEAK: "dim", "": ""}


def show(table: Table, out: Console) -> None:
    """Draw one table; nothing where it is empty."""
    if not table.rows:
        return
    drawn = RichTable(title=escape(table.title), title_justify="left")
    shown = [not column.detail for column in table.columns]
    for column in compress(table.columns, shown):
        drawn.add_column(escape(column.name), justify="right" if column.numeric else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(_styled, compress(row.cells, shown)))
    out.print(drawn)


def _styled(cell: Cell) -> str:
    style = _STYLES[cell.tone]
    return f"[{style}]{escape(cell.text)}[/]" if style else escape(cell.text)
