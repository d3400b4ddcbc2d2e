"""The two errors of fastconv's own (everything else is a ValueError, TypeError or MemoryError), and values in messages."""

from __future__ import annotations

import reprlib
from typing import Any

_MOST = 100  # characters of a value


class _Refusal(Exception):
    """An error with its reason.

    Args:
        why: the reason alone, where the message says more.
    """

    def __init__(self, message: str, why: str | None = None) -> None:
        super().__init__(message)
        self.why = message if why is None else why


class Unsupported(_Refusal, NotImplementedError):
    """A backend or algorithm asked for by name refuses this problem; the message gives its reason."""


class Unavailable(_Refusal, RuntimeError):
    """A backend or ISA asked for by name cannot run on this machine; the message says what would make it run."""


class _Short(reprlib.Repr):
    """Never walks through all of a value. (Python refuses to print an integer of thousands of digits.)"""

    def __init__(self) -> None:
        super().__init__()
        self.maxtuple = self.maxlist = 8
        self.maxstring = self.maxother = _MOST

    def repr_int(self, value: int, level: int) -> str:
        return str(value) if abs(value) < 10**40 else f"an integer of {value.bit_length()} bits"


_short = _Short()


def shown(value: Any, most: int = _MOST) -> str:
    """A value as messages show it: its repr on one line, of at most `most` characters, whatever its own repr does."""
    try:
        text = _short.repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return clipped(printable(" ".join(text.split())), most)


def clipped(text: str, most: int = _MOST) -> str:
    """`text` of at most `most` characters: where it is longer, its middle is left out."""
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[:most - tail - 3]}...{text[len(text) - tail:]}"


def printable(text: str) -> str:
    """`text` without what would steer a terminal, on one line: control characters, lone surrogates and the like are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
