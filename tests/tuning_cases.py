"""What the tests of wisdom and of tuning share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import fastconv
from fastconv import wisdom, wisdom_file
from fastconv.backends import Candidate, cython_native
from fastconv.plan import plan
from fastconv.problem import ConvProblem
from fastconv.timing import paired
from fastconv.wisdom import Entry

P = ConvProblem.from_text("mb1_ic8ih14_oc8oh14_kh3ph1")
IM2COL = Entry("im2col", Candidate("im2col"), 1e-4, 0.25)  # what no model would choose
NEWER = b'{"format": "fastconv wisdom", "version": 2, "machines": {}}'
native = pytest.mark.skipif(cython_native.backend.unavailable() is not None, reason="the native kernels are not available")


@contextmanager
def untuned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No memory of other tests, no settings of the user, short blocks."""
    monkeypatch.setattr(wisdom_file, "_warned", set())
    monkeypatch.setattr(wisdom, "_remembered", {})
    monkeypatch.setattr(paired, "BLOCK", 5e-4)
    monkeypatch.setattr(paired, "WARM", 1e-4)
    monkeypatch.delenv("FASTCONV_ISA", raising=False)  # of the processes that tests start
    with fastconv.config(wisdom=None, autotune=False, backend="auto", isa=None):
        yield


def planned(path: Path, problem: ConvProblem = P, **keywords: Any) -> fastconv.Plan:
    """With that file in use."""
    with fastconv.config(wisdom=str(path)):
        return plan(problem, **keywords)
