"""Where a run's results go: the record, the chart, and the stream of the table."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from . import chart as chart_file
from . import record as record_file
from .results import Results

STDOUT = "-"
_CHART_SUFFIXES = (".png", ".svg", ".pdf")
_RESULTS = Path("fastconv-results")
_KEEP_EVERY = 20.0  # seconds


class Output:
    """Where record, chart and table go.

    Args:
        record: a path, "-" for stdout, or None for one named after the date.
        chart: a path, or None: beside the record.

    Raises:
        ValueError, OSError: they cannot be written there; said now, not after minutes of measuring.
    """

    def __init__(self, record: str | None, chart: Path | None, facts: dict[str, Any]) -> None:
        self.to_stdout = record == STDOUT
        self.text = sys.stderr if self.to_stdout else sys.stdout
        self.record = Path(record or _RESULTS / f"{datetime.now():%Y-%m-%d-%H%M%S}.json")
        self.chart = chart or (None if self.to_stdout else self.record.with_suffix(".png"))
        self._facts = facts
        self._kept = time.monotonic()
        if self.chart is not None and self.chart.suffix not in _CHART_SUFFIXES:
            raise ValueError(f"--chart must end in {', '.join(_CHART_SUFFIXES)}, got {self.chart}")
        for path in ([] if self.to_stdout else [self.record]) + ([] if self.chart is None else [self.chart]):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
                raise ValueError(f"cannot write {path}")

    def keep(self, results: Results) -> None:
        """Write the record so far, now and then: not even a power cut loses what took long."""
        if results.problems and not self.to_stdout and time.monotonic() - self._kept > _KEEP_EVERY:
            with suppress(OSError):
                record_file.write(self.record, results, self._facts)
            self._kept = time.monotonic()

    def write(self, results: Results) -> str:
        """Write all; what to say of it."""
        if self.to_stdout:
            print(record_file.dumps(results, self._facts), end="")
            return self._draw(results)
        try:
            record_file.write(self.record, results, self._facts)
            return f"record: {self.record}\n{self._draw(results)}".rstrip()
        except OSError as error:  # a full disk, a folder that was removed meanwhile: nothing measured gets lost
            kept = Path(tempfile.mkdtemp(prefix="fastconv-")) / self.record.name
            record_file.write(kept, results, self._facts)
            return f"cannot write {self.record} ({error.strerror}); the record is {kept}"

    def _draw(self, results: Results) -> str:
        if self.chart is None or not results.rows:
            return ""
        try:
            drawn = chart_file.write(self.chart, results, self._facts)
        except ImportError:
            return "no chart: matplotlib is not installed (pip install 'fastconv[bench]')"
        return f"chart:  {self.chart}" if drawn else "no chart: nothing was measured"
