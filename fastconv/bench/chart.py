"""The chart of a run: the answer as its title, every problem with error bars, and what it rests on. The report's picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import files
from . import record
from .report import figures, raster, records
from .results import Results


def write(path: Path, results: Results, machine: dict[str, Any]) -> bool:
    """Draw into a PNG (or what the suffix says); False, and no file, where nothing was measured.

    Raises:
        ImportError: matplotlib is not installed, which all but SVG needs.
        OSError: it cannot be written.
    """
    drawing = figures.layers(records.parse(record.build(results, machine), path), "chart")
    if drawing is None:
        return False
    files.write(path, raster.content(drawing.draw(figures.CARD, True), path.suffix))
    return True
