"""What the system tells of the processor: its model, its caches, and how much of it a container may use.

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
