"""Where a run's results go: the record, the chart, and the stream of the table."""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import files
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
        chart: a path, or None: beside the record, where that is a file.

    Attributes:
        failed: whether something could not be written where it was asked for.

    Raises:
        ValueError, OSError: they cannot be written there; said now, not after minutes of measuring.
    """

    def __init__(self, record: str | None, chart: Path | None, facts: dict[str, Any]) -> None:
        self.to_stdout = record == STDOUT
        self.text = sys.stderr if self.to_stdout else sys.stdout
        self.record = Path(record or _RESULTS / f"{datetime.now():%Y-%m-%d-%H%M%S}.json")
        self.chart = chart
        self.failed = False
        self._facts = facts
        self._kept = time.monotonic()
        if chart is not None and chart.suffix not in _CHART_SUFFIXES:
            raise ValueError(f"--chart must end in {', '.join(_CHART_SUFFIXES)}, got {chart}")
        if not self.to_stdout:
            _check(self.record)
            self._streams = files.streams(self.record)
            if chart is None and not self._streams:
                self.chart = self.record.with_suffix(".png")
        if self.chart is not None:
            _check(self.chart)

    def keep(self, results: Results) -> None:
        """Write the record so far, now and then: not even a power cut loses what took long."""
        if self.to_stdout or self._streams or not results.problems:
            return
        if time.monotonic() - self._kept > _KEEP_EVERY:
            with suppress(OSError):
                record_file.write(self.record, results, self._facts)
            self._kept = time.monotonic()

    def write(self, results: Results) -> str:
        """Write all; what to say of it."""
        if self.to_stdout:
            print(record_file.dumps(results, self._facts), end="")
            return self._draw(results)
        return f"{self._keep_all(results)}\n{self._draw(results)}".rstrip()

    def _keep_all(self, results: Results) -> str:
        try:
            record_file.write(self.record, results, self._facts)
            return f"record: {self.record}"
        except OSError as error:  # a full disk, a folder that was removed meanwhile: nothing measured gets lost
            said = self._cannot(self.record, error)
        try:
            kept = Path(tempfile.mkdtemp(prefix="fastconv-")) / (self.record.name or "record.json")
            record_file.write(kept, results, self._facts)
            return f"{said}; the record is {kept}"
        except OSError as error:
            return f"{said}, nor a temporary file ({error.strerror}): the record is lost"

    def _draw(self, results: Results) -> str:
        if self.chart is None or not results.rows:
            return ""
        try:
            drawn = chart_file.write(self.chart, results, self._facts)
        except ImportError:
            return "no chart: matplotlib is not installed (pip install 'fastconv[bench]')"
        except OSError as error:
            return self._cannot(self.chart, error)
        return f"chart:  {self.chart}" if drawn else "no chart: nothing was measured"

    def _cannot(self, path: Path, error: OSError) -> str:
        self.failed = True
        return f"cannot write {path} ({error.strerror})"


def _check(path: Path) -> None:
    """Whether it can be written, with folders made for it; raises as `Output`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    reason = files.refusal(path)
    if reason is not None:
        raise ValueError(f"cannot write {path}: {reason}")
