"""A progress bar with loss, accuracy and time left: rich's, where that is installed and a terminal looks on."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


class Bar:
    """Nobody sees it."""

    def advance(self, epoch: int, loss: float, accuracy: float | None) -> None:
        """One batch more."""


class _Rich(Bar):
    def __init__(self, progress: Any, epochs: int, batches: int) -> None:
        self.progress, self.epochs = progress, epochs
        self.task = progress.add_task("training", total=epochs * batches)

    def advance(self, epoch: int, loss: float, accuracy: float | None) -> None:
        share = "" if accuracy is None else f", accuracy {accuracy:.2%}"
        self.progress.update(self.task, advance=1, description=f"epoch {epoch + 1}/{self.epochs}: loss {loss:.4f}{share}")


@contextlib.contextmanager
def bar(epochs: int, batches: int, show: bool) -> Iterator[Bar]:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        show = False
    if not show or not sys.stderr.isatty():
        yield Bar()
        return
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Rich(progress, epochs, batches)
