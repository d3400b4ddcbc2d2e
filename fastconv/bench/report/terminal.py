"""The tables on a terminal, drawn by rich."""

from __future__ import annotations

from itertools import compress

from rich.console import Console

from ..grid import Cell, Grid, Line
from .tables import BAD, BEST, GOOD, WEAK, Table

_STYLES = {BEST: "bold green", GOOD: "green", BAD: "red", WEAK: "dim", "": ""}


def show(table: Table, out: Console) -> None:
    """Draw one table; nothing where it is empty."""
    if not table.rows:
        return
    shown = [not column.detail for column in table.columns]
    columns = list(compress(table.columns, shown))
    lines = [Line(tuple(Cell(cell.text, _STYLES[cell.tone]) for cell in compress(row.cells, shown))) for row in table.rows]
    Grid(table.title, tuple(column.name for column in columns), tuple(column.numeric for column in columns), lines).show(out)
