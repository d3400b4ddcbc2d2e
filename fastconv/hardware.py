"""What the system tells of the processor: its model, its microarchitecture, its caches. No optional package is asked, so none
changes the answers."""

from __future__ import annotations

import functools
import platform
import re
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_NAMES = ("model name", "CPU implementer", "CPU part")  # x86; Arm, which has numbers only

# by vendor and family: models as [first, last] or [one]. The words are archspec's, where it has one.
_X86: dict[tuple[str, int], dict[str, list[list[int]]]] = {
    ("AuthenticAMD", 0x17): {"zen": [[0x00, 0x2F], [0x50, 0x5F]],
                             "zen2": [[0x30, 0x4F], [0x60, 0x7F], [0x90, 0x91], [0xA0, 0xAF]]},
    ("AuthenticAMD", 0x19): {"zen3": [[0x00, 0x0F], [0x20, 0x5F]], "zen4": [[0x10, 0x1F], [0x60, 0xAF]]},
    ("AuthenticAMD", 0x1A): {"zen5": [[0x00, 0x2F], [0x40, 0x4F], [0x60, 0x7F]],
                             "zen6": [[0x50, 0x5F], [0x80, 0xAF], [0xC0, 0xCF]]},
    ("GenuineIntel", 6): {
        "sandybridge": [[0x2A], [0x2D]], "ivybridge": [[0x3A], [0x3E]], "haswell": [[0x3C], [0x3F], [0x45, 0x46]],
        "broadwell": [[0x3D], [0x47], [0x4F], [0x56]], "skylake": [[0x4E], [0x5E], [0x8E], [0x9E], [0xA5, 0xA6]],
        "skylake_avx512": [[0x55]], "cannonlake": [[0x66]], "icelake": [[0x6A], [0x6C], [0x7D, 0x7E]],
        "tigerlake": [[0x8C, 0x8D]], "rocketlake": [[0xA7]], "alderlake": [[0x97], [0x9A]],
        "raptorlake": [[0xB7], [0xBA], [0xBF]], "meteorlake": [[0xAA], [0xAC]], "arrowlake": [[0xB5], [0xC5, 0xC6]],
        "lunarlake": [[0xBD]], "sapphirerapids": [[0x8F]], "emeraldrapids": [[0xCF]], "graniterapids": [[0xAD, 0xAE]],
        "sierraforest": [[0xAF]], "gracemont": [[0xBE]]},
}
_ARM = {("0x41", "0xd08"): "cortex_a72", ("0x41", "0xd0b"): "cortex_a76", ("0x41", "0xd0c"): "neoverse_n1",
        ("0x41", "0xd40"): "neoverse_v1", ("0x41", "0xd49"): "neoverse_n2", ("0x41", "0xd4f"): "neoverse_v2",
        ("0x46", "0x001"): "a64fx"}


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """The first value of each of Linux's words."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    return found


@functools.cache
def cpu_model() -> str:
    """The processor's model, as Linux names it; elsewhere whatever Python knows."""
    found = _cpuinfo()
    return " ".join(found[name] for name in _NAMES if name in found) or platform.processor() or platform.machine()


@functools.cache
def cpu_id() -> str:
    """The numbers that tell microarchitectures apart, where clouds call all of them by one name: "AuthenticAMD family 25 model
    17", "implementer 0x41 part 0xd0c". They never change, as words of ours may: caches and wisdom are keyed by them."""
    found = _cpuinfo()
    if "cpu family" in found:
        return f"{found.get('vendor_id', '')} family {found['cpu family']} model {found.get('model', '')}".strip()
    if "CPU part" in found:
        return f"implementer {found.get('CPU implementer', '')} part {found['CPU part']}"
    told = re.search(r"Family (\d+) Model (\d+).*?(\w+)$", platform.processor())  # Windows
    return f"{told[3]} family {told[1]} model {told[2]}" if told else platform.processor() or platform.machine()


def microarchitecture() -> str | None:
    """What `cpu_id` stands for, in a word such as "zen4"; None: no word is known."""
    x86 = re.fullmatch(r"(\w+) family (\d+) model (\d+)", cpu_id())
    if x86:
        model = int(x86[3])
        known = _X86.get((x86[1], int(x86[2])), {})
        return next((name for name, spans in known.items() if any(span[0] <= model <= span[-1] for span in spans)), None)
    arm = re.fullmatch(r"implementer (\w+) part (\w+)", cpu_id())
    return _ARM.get((arm[1], arm[2])) if arm else None


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
