"""What the system tells of the processor: its model, its caches. No optional package is asked, so none changes the answers."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_NAMES = ("model name", "CPU implementer", "CPU part")  # x86; Arm, which has numbers only


@functools.cache
def cpu_model() -> str:
    """The processor's model, as Linux names it; elsewhere whatever Python knows."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in _NAMES:
            found.setdefault(key.strip(), value.strip())
    return " ".join(found.values()) or platform.processor() or platform.machine()


@functools.cache
def caches() -> dict[str, str]:
    """Sizes of one core's caches by level, where Linux tells: {"L1d": "32K", ...}."""
    found = {}
    for index in sorted(_CACHES.glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            found[f"L{level}" + ("d" if kind == "Data" else "")] = size
    return found
