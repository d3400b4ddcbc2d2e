"""What the system tells of the processor: its model, its microarchitecture, its caches, and how much of it a container may use.

No optional package is asked, so none changes the answers.
"""

from __future__ import annotations

import functools
import math
import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_CPUINFO = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_PROCESS = Path("/proc/self")
_USUAL_GROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/cpu,cpuacct"))
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


def cache_bytes(level: str) -> int | None:
    """The size of one of them."""
    told = re.fullmatch(r"(\d+)([KMG]?)", caches().get(level, ""))
    return int(told[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[told[2]] if told and int(told[1]) else None


def cpu_quota() -> float | None:
    """How many CPUs' time this process may use, by the tightest quota of its control group (cgroup v2 or v1) and the groups
    above it; None: nothing limits it."""
    found = [quota for folder in _groups() for quota in (_quota_v2(folder), _quota_v1(folder)) if quota is not None]
    return min(found, default=None)


def whole_cpus(quota: float | None) -> int | None:
    """As many threads as make use of a quota: 1.5 CPUs are worth two, of which none has to wait for all of a period."""
    return None if quota is None else max(1, math.ceil(quota - 1e-6))


def _groups() -> Iterator[Path]:
    """The folders of this process' groups that may tell a quota, each with those above it, as far as they are mounted."""
    yield from _USUAL_GROUPS
    for version, place, mounted in _mounts():
        group = _own_group(version)
        with suppress(ValueError):  # a group outside what is mounted: what is mounted is all there is to see
            group = group.relative_to(mounted)
        inside = PurePosixPath(*(part for part in group.parts if part not in ("/", "..")))
        yield from (place / each for each in (inside, *inside.parents))


def _mounts() -> Iterator[tuple[int, Path, PurePosixPath]]:
    """(cgroup version, where it is mounted, which group is seen there) of each hierarchy that may limit CPUs."""
    for line in _lines(_PROCESS / "mountinfo"):
        before, _, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if len(left) < 5 or len(right) < 3:
            continue
        if right[0] == "cgroup2" or (right[0] == "cgroup" and "cpu" in right[2].split(",")):
            version = 2 if right[0] == "cgroup2" else 1
            yield version, Path(_unescaped(left[4])), PurePosixPath(_unescaped(left[3]))


def _own_group(version: int) -> PurePosixPath:
    """Of this process: v2 is hierarchy 0 and names no controllers."""
    for line in _lines(_PROCESS / "cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (number == "0" and not controllers) if version == 2 else "cpu" in controllers.split(","):
            return PurePosixPath(path)
    return PurePosixPath("/")


def _quota_v2(folder: Path) -> float | None:
    words = " ".join(_lines(folder / "cpu.max")).split()
    return _share(words[0], words[1]) if len(words) == 2 else None  # "max 100000": no limit


def _quota_v1(folder: Path) -> float | None:
    quota, period = (" ".join(_lines(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
    return _share(quota, period)  # -1: no limit


def _share(quota: str, period: str) -> float | None:
    if not (quota.isdecimal() and period.isdecimal() and int(quota) and int(period)):
        return None
    return int(quota) / int(period)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []


def _unescaped(text: str) -> str:
    """Spaces and the like are octal in mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
