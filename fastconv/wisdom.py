"""Wisdom: who was measured to be the fastest for a problem, as a file remembers it (see `wisdom_file`).

PROBLEM is the text of the problem with one image and no name: neither batch nor threads choose an algorithm, so that they
change no bit.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from typing import Any, NamedTuple

from . import settings, wisdom_file
from .backends import Candidate
from .problem import ConvProblem

_remembered: dict[tuple[str, str, str], Entry | None] = {}  # what this process measured by itself


class Entry(NamedTuple):
    """What wisdom says of one problem."""

    backend: str
    candidate: Candidate
    seconds: float  # of one image
    gain: float  # share of the time of the model's choice that it saves

    def stored(self) -> dict[str, Any]:
        algorithm, isa, tile = self.candidate
        return {"backend": self.backend, "algorithm": algorithm, "isa": isa, "tile": None if tile is None else list(tile),
                "seconds": self.seconds, "gain": self.gain}

    @staticmethod
    def of(stored: Any) -> Entry | None:
        """From a file; None where it is not what `stored` makes."""
        try:
            texts = [stored[name] for name in ("backend", "algorithm")]
            isa, tile = stored["isa"], stored["tile"]
            seconds, gain = float(stored["seconds"]), float(stored["gain"])
            lengths = None if tile is None else tuple(tile)
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        right = (all(isinstance(text, str) for text in texts) and (isa is None or isinstance(isa, str))
                 and all(type(n) is int and n > 0 for n in lengths or ())
                 and math.isfinite(gain) and math.isfinite(seconds) and seconds > 0)
        return Entry(texts[0], Candidate(texts[1], isa, lengths), seconds, gain) if right else None


# ---- looking up


def key(problem: ConvProblem) -> str:
    """The text of a problem, the same for any batch; but the gradient of the weight sums over it."""
    batch = problem.batch if problem.direction == "backward_weight" else 1
    return dataclasses.replace(problem, batch=batch, name="", count=1).text


def lookup(problem: ConvProblem, prepared: bool) -> tuple[Entry, ...]:
    """What wisdom says of a problem, if it was asked for: the file's entry, then what this process measured."""
    now = settings.current()
    if now.wisdom is None and not now.autotune:
        return ()
    path = None if now.wisdom is None else os.fspath(now.wisdom)
    found = None if path is None else _filed(key(problem), wisdom_file.mode(prepared), path, now.generation)
    measured = remembered(problem, prepared)[1] if now.autotune else None
    return tuple(entry for entry in (found, measured) if entry is not None)


@functools.lru_cache(maxsize=1024)
def _filed(problem: str, kind: str, path: str, generation: int) -> Entry | None:
    """Kept until wisdom is named again: a file that changes meanwhile must not give another batch another algorithm."""
    document = wisdom_file.document_of(path)
    return None if document is None else Entry.of(wisdom_file.entries(document, kind).get(problem))


def remember(problem: ConvProblem, prepared: bool, entry: Entry | None) -> None:
    """For the rest of this process; None: it was measured, in vain."""
    _remembered[wisdom_file.fingerprint(), wisdom_file.mode(prepared), key(problem)] = entry


def remembered(problem: ConvProblem, prepared: bool) -> tuple[bool, Entry | None]:
    """(whether this process measured it, what it found)."""
    name = wisdom_file.fingerprint(), wisdom_file.mode(prepared), key(problem)
    return name in _remembered, _remembered.get(name)
