"""What a terminal shows: rows in columns, and a bar with the time left."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

Advance = Callable[[float, str], object]  # of the share that is done, and what is said of it


def aligned(rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> list[str]:
    """A line for each row; cells of these columns, of `numbers`, end below each other, the others begin so."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.rjust(width) if column in numbers else cell.ljust(width)
                      for column, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows]


@contextlib.contextmanager
def progress(show: bool = True, stays: bool = False) -> Iterator[Advance]:
    """A bar on standard error, where that is a terminal and rich is installed; nothing elsewhere.

    Args:
        stays: whether it is still to be seen at the end.
    """
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    except ImportError:
        show = False
    if not show or not sys.stderr.isatty():
        yield lambda done, text: None
        return
    columns = BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=Console(stderr=True), transient=not stays) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda done, text: bar.update(task, completed=done, description=text)
