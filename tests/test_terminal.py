"""Columns, and the bar that is only there where somebody sees it."""

from __future__ import annotations

import io
import sys

import pytest

from fastconv import terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_columns_of_words_and_of_numbers() -> None:
    rows = [("what", "how many", ""), ("a", "7", "x"), ("longer", "1,234", "")]
    assert terminal.aligned(rows) == ["what    how many", "a       7         x", "longer  1,234"]
    assert terminal.aligned(rows, numbers=[1]) == ["what    how many", "a              7  x", "longer     1,234"]
    assert terminal.aligned([]) == []


@pytest.mark.parametrize("stays", [False, True])
def test_a_bar_on_a_terminal(stays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", seen := Terminal())
    with terminal.progress(stays=stays) as advance:
        advance(0.5, "half [of] it")
    assert "half [of] it" in seen.getvalue() and "50%" in seen.getvalue()
    assert seen.getvalue().rstrip().endswith("\x1b[2K") != stays, repr(seen.getvalue())


@pytest.mark.parametrize(("stream", "show"), [(Terminal(), False), (io.StringIO(), True)])
def test_no_bar(stream: io.StringIO, show: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with terminal.progress(show) as advance:
        advance(1.0, "all of it")
    assert stream.getvalue() == ""


def test_no_bar_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", seen := Terminal())
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with terminal.progress() as advance:
        advance(1.0, "all of it")
    assert seen.getvalue() == ""
