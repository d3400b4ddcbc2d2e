"""Memory of this process: its peak, and arrays in fresh places."""

from __future__ import annotations

import gc
import mmap
import re
from pathlib import Path

import numpy as np

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MAPPED_FROM = 128 << 10  # bytes from which malloc maps memory of its own (its M_MMAP_THRESHOLD)
_HUGE_FROM = 4 << 20  # bytes from which NumPy asks for huge pages
_HEADER = 16  # bytes by which malloc's chunk header moves a mapped array off the page


_before: int | None = None


def reset_peak() -> None:
    """Begin to watch (only Linux tells). Garbage goes first: freed while watched, it would hide as much of the rise."""
    global _before
    gc.collect()
    try:
        _CLEAR.write_text("5")
    except OSError:
        _before = None
    else:
        _before = _status("VmRSS")


def rise() -> int | None:
    """By how many bytes resident memory rose since `reset_peak` at most; None where the system does not tell."""
    peak = _status("VmHWM")
    return None if peak is None or _before is None else max(0, peak - _before)


def _status(field: str) -> int | None:
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) << 10 if found else None


def fresh(array: np.ndarray) -> np.ndarray:
    """A copy in newly mapped pages, placed as NumPy would place it; small ones where malloc likes."""
    if array.nbytes < _MAPPED_FROM:
        return array.copy()
    pages = mmap.mmap(-1, array.nbytes + _HEADER)
    if array.nbytes >= _HUGE_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    copied = np.frombuffer(pages, array.dtype, array.size, _HEADER).reshape(array.shape)
    np.copyto(copied, array)
    return copied
