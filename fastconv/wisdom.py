"""Wisdom: who was measured to be the fastest for a problem, as a file remembers it. This module reads; `tuning` writes.

    {"format": "fastconv wisdom", "version": 1, "machines": {FINGERPRINT: {
        "cpu": ..., "cpu_id": ..., "caches": ..., "isas": ...,
        "fastconv": {VERSION: {"per call": {PROBLEM: ENTRY, ...}, "prepared": {...}}}}}}

ENTRY is {"backend", "algorithm", "isa", "tile", "seconds" (of one image), "gain" (share of the time of the model's choice that
it saves)}. PROBLEM is the text of the problem with one image and no name: neither batch nor threads choose an algorithm, so
that they change no bit. Only what this machine and this version of fastconv measured is used; the rest stays in the file.

A regular file of at most 64 MiB (`files.LARGEST`). Whatever is wrong with a file or an entry, a lookup goes on without it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import warnings
from typing import Any, NamedTuple, TypeGuard

from . import files, hardware, native, settings
from .backends import Candidate
from .problem import ConvProblem

FORMAT, VERSION = "fastconv wisdom", 1
MODES = ("per call", "prepared")

Document = dict[str, Any]  # a parsed file
_warned: set[str] = set()
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


# ---- what it is filed under


def key(problem: ConvProblem) -> str:
    """The text of a problem, the same for any batch; but the gradient of the weight sums over it."""
    batch = problem.batch if problem.direction == "backward_weight" else 1
    return dataclasses.replace(problem, batch=batch, name="", count=1).text


def mode(prepared: bool) -> str:
    """How it is used: one of `MODES`."""
    return MODES[prepared]


def release() -> str:
    """The version of fastconv that measures and uses."""
    from . import __version__

    return __version__


def machine() -> dict[str, Any]:
    """What makes machines alike: the CPU's name and numbers (one name may stand for several microarchitectures), its larger
    caches, and the ISAs that are in use here."""
    now = settings.current()
    isas = [] if now.no_native else [isa for isa in native.runnable_isas() if now.isa in (None, isa)]
    caches = {level: size for level, size in hardware.caches().items() if level in ("L2", "L3")}
    return {"cpu": hardware.cpu_model(), "cpu_id": hardware.cpu_id(), "caches": caches, "isas": isas}


def fingerprint() -> str:
    """The same on machines that are alike."""
    return hashlib.sha256(json.dumps(machine(), sort_keys=True).encode()).hexdigest()[:12]


# ---- the file


class Newer(ValueError):
    """A file whose format only a later fastconv knows."""


def empty() -> Document:
    """A file without entries."""
    return {"format": FORMAT, "version": VERSION, "machines": {}}


def parse(text: bytes) -> Document:
    """A file's content, every level but the entries checked.

    Raises:
        ValueError: it is something else; Newer: of a later format.
    """
    try:
        found = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}" if text.strip() else "empty") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT or type(found.get("version")) is not int:
        raise ValueError("not a file of fastconv tune")
    if found["version"] > VERSION:
        raise Newer(f"written by a newer fastconv, in format {found['version']}")
    machines = found.get("machines")
    if not _dicts(machines) or not all(_dicts(about.get("fastconv")) for about in machines.values()):
        raise ValueError("damaged: its machines are not what they should be")
    if not all(_dicts(modes) for about in machines.values() for modes in about["fastconv"].values()):
        raise ValueError("damaged: its entries are not what they should be")
    return found


def _dicts(value: Any) -> TypeGuard[dict[str, Document]]:
    """Whether it is a dict of dicts."""
    return isinstance(value, dict) and all(isinstance(each, dict) for each in value.values())


def entries(document: Document, kind: str) -> dict[str, Any]:
    """This machine's and version's entries for a mode, by problem, as stored."""
    return document["machines"].get(fingerprint(), {}).get("fastconv", {}).get(release(), {}).get(kind, {})


def _document(path: str) -> Document | None:
    """What a file says now; read once for each of its states."""
    try:
        found = os.stat(path)
        document, reason = _read(path, found.st_mtime_ns, found.st_size, found.st_ino)
    except OSError as error:
        document, reason = None, error.strerror or str(error)
        if isinstance(error, FileNotFoundError) and settings.current().autotune:
            return None  # it will be written
    if document is None and path not in _warned:
        _warned.add(path)
        warnings.warn(f"fastconv goes on without the wisdom in {path}: {reason}", stacklevel=2)
    return document


@functools.lru_cache(maxsize=8)
def _read(path: str, changed: int, size: int, number: int) -> tuple[Document | None, str]:
    try:
        return parse(files.read(path)), ""
    except ValueError as error:
        return None, str(error)


# ---- looking up


def lookup(problem: ConvProblem, prepared: bool) -> tuple[Entry, ...]:
    """What wisdom says of a problem, if it was asked for: the file's entry, then what this process measured."""
    now = settings.current()
    if now.wisdom is None and not now.autotune:
        return ()
    found = None if now.wisdom is None else _filed(key(problem), mode(prepared), os.fspath(now.wisdom), now.generation)
    measured = remembered(problem, prepared)[1] if now.autotune else None
    return tuple(entry for entry in (found, measured) if entry is not None)


@functools.lru_cache(maxsize=1024)
def _filed(problem: str, kind: str, path: str, generation: int) -> Entry | None:
    """Kept until wisdom is named again: a file that changes meanwhile must not give another batch another algorithm."""
    document = _document(path)
    return None if document is None else Entry.of(entries(document, kind).get(problem))


def remember(problem: ConvProblem, prepared: bool, entry: Entry | None) -> None:
    """For the rest of this process; None: it was measured, in vain."""
    _remembered[fingerprint(), mode(prepared), key(problem)] = entry


def remembered(problem: ConvProblem, prepared: bool) -> tuple[bool, Entry | None]:
    """(whether this process measured it, what it found)."""
    name = fingerprint(), mode(prepared), key(problem)
    return name in _remembered, _remembered.get(name)
