"""The file in which wisdom is kept: what was measured before, of which machine. This module reads; `tuning` writes.

    {"format": "fastconv wisdom", "version": 1, "machines": {FINGERPRINT: {
        "cpu": ..., "cpu_id": ..., "caches": ..., "isas": ...,
        "fastconv": {VERSION: {"per call": {PROBLEM: ENTRY, ...}, "prepared": {...}, "machine": {"row": ROW}}}}}}

ENTRY is `wisdom.Entry`, ROW `machine.Machine`, as they store themselves. Only what this machine and this version of fastconv
measured is used; the rest stays in the file.

A regular file of at most 64 MiB (`files.LARGEST`). Whatever is wrong with a file or an entry, a lookup goes on without it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import warnings
from typing import Any, TypeGuard

from . import files, hardware, native, settings

FORMAT, VERSION = "fastconv wisdom", 1
MODES = ("per call", "prepared")
MACHINE, ROW = "machine", "row"  # the kind of entry that is no problem's, and its only name
KINDS = (*MODES, MACHINE)

Document = dict[str, Any]  # a parsed file
_warned: set[str] = set()


# ---- what it is filed under


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


def document_of(path: str) -> Document | None:
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
