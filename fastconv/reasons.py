"""Why somebody was not chosen, or has no figure: objects, which tables and records write down with `str`.

`Refused` is to a plan and a table what the exception `Unsupported` is to a call; `Absent`, what `Unavailable` is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Reason:
    """A reason of no further kind: slower, not worth a run."""

    why: str
    word: ClassVar[str] = ""

    def __str__(self) -> str:
        return f"{self.word}: {self.why}" if self.word else self.why


class Refused(Reason):
    """It does not compute such a problem, and says so."""

    word = "refuses"


class Absent(Reason):
    """It cannot run here."""

    word = "unavailable"


class Failed(Reason):
    """It raised an error, or its process ended."""

    word = "failed"

    @classmethod
    def by(cls, error: Exception) -> Failed:
        return cls(f"{type(error).__name__}: {error}")


class TimedOut(Reason):
    """It did not answer in time."""

    word = "timed out"


class Wrong(Reason):
    """It computed something else."""

    word = "wrong result"


_KINDS = {kind.word: kind for kind in (Refused, Absent, Failed, TimedOut, Wrong)}


def read(text: str) -> Reason:
    """The reason that was written as `text` (in a record, by another process). The only place that looks into such a text."""
    word, colon, why = text.partition(": ")
    return _KINDS[word](why) if colon and word in _KINDS else Reason(text)
