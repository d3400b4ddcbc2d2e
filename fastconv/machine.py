"""What estimates assume of a machine, in one table by microarchitecture.

Nothing is measured when a program runs: two processes on one machine, and two machines of a kind, choose alike.
`fastconv tune --machine` measures a row of one's own, for those who name the file (see `wisdom_file`).

What no estimate reads is not here. L1 and L2 are in the costs of the algorithms, as cycles beside the multiply-adds. Waking
threads and mapping the pages of a fresh result take what they take, whoever computes it, and change no choice: `seconds` are
those of one thread that writes to an `out`. The pages of packed weights do.
"""

from __future__ import annotations

import functools
import math
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import hardware, settings, wisdom_file

FRESH = 8.5e-11  # measured on Zen 4, of huge pages
ISAS = ("baseline", "avx2", "avx512")


class Level(NamedTuple):
    """Where an array lies that one thread reads again and again."""

    name: str
    size: float  # bytes of the array, at most
    speed: float  # bytes per second


@dataclass(frozen=True)
class Machine:
    """
    Attributes:
        multiply_adds: vectors of them that one thread does in a second, by ISA, as the algorithms' costs count them.
        levels: what one thread reads arrays from, the near first. From L2 it reads no faster than from L3, as long as it reads
            ahead (0.3 to 9 MB of weights: 54 to 72 GB/s on Zen 4).
        fresh: seconds that the system takes to map a byte that no page has yet, and clear it.
        call: seconds that the least of a kernel's calls takes.
    """

    multiply_adds: dict[str, float]
    levels: tuple[Level, ...]
    call: float
    fresh: float = FRESH

    def stored(self) -> dict[str, Any]:
        """For a file of wisdom. The sizes are not in it: they are the caches'."""
        return {"multiply_adds": self.multiply_adds, "speeds": [level.speed for level in self.levels], "call": self.call}

    def measured(self, stored: Any) -> Machine | None:
        """This one with the figures of a file; None where they are not what `stored` makes, or no machine's."""
        try:
            rates = {isa: float(stored["multiply_adds"].get(isa, rate)) for isa, rate in self.multiply_adds.items()}
            speeds, call = [float(speed) for speed in stored["speeds"]], float(stored["call"])
            levels = [level._replace(speed=speed) for level, speed in zip(self.levels, speeds, strict=True)]
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            return None
        sane = all(rate == self.multiply_adds[isa] or 1e8 < rate < 1e12 for isa, rate in rates.items())
        sane = sane and all(1e8 < speed < 1e13 for speed in speeds) and 1e-8 < call < 1e-3
        return Machine(rates, tuple(levels), call, self.fresh) if sane else None

    @functools.cached_property
    def rates(self) -> dict[int, float]:
        """The same by the bytes of a vector."""
        return {size: self.multiply_adds[isa] for isa, size in zip(ISAS, (16, 32, 64), strict=True)}

    def level(self, size: float) -> Level:
        """Where an array of that many bytes lies."""
        for level in self.levels:
            if size <= level.size:
                return level
        raise ValueError(f"no level has {size} bytes")


class Core(NamedTuple):
    """What is known of one in public: uops.info, Agner Fog's tables and the makers' manuals have the units, Chips and Cheese
    the bandwidths that one thread reaches; clocks are those of busy cores, of servers where both are sold."""

    ghz: float
    starts: tuple[float, float, float]  # vectors of multiply-adds in a cycle, by ISA; where they are not fused, of both halves
    l3: float  # GB/s, while it computes: two thirds of what it reads in a loop that does nothing else
    memory: float
    fused: bool = False  # in the baseline, too: Arm


CORES = {
    "sandybridge": Core(3.1, (1, 0, 0), 20, 12), "ivybridge": Core(3.1, (1, 0, 0), 20, 12),
    "haswell": Core(2.9, (1, 2, 0), 25, 12), "broadwell": Core(2.9, (1, 2, 0), 25, 12),
    "skylake": Core(3.9, (1, 2, 0), 45, 20), "skylake_avx512": Core(2.9, (1, 2, 2), 20, 12),
    "cannonlake": Core(3.0, (1, 2, 1), 40, 20), "icelake": Core(3.0, (1, 2, 2), 22, 13),
    "tigerlake": Core(4.0, (1, 2, 1), 45, 25), "rocketlake": Core(4.5, (1, 2, 1), 45, 28),
    "alderlake": Core(4.7, (1.5, 2, 0), 50, 33), "raptorlake": Core(5.0, (1.5, 2, 0), 50, 35),
    "meteorlake": Core(4.5, (1.5, 2, 0), 45, 30), "arrowlake": Core(5.0, (2, 2, 0), 50, 35),
    "lunarlake": Core(4.5, (2, 2, 0), 45, 35), "gracemont": Core(3.2, (1, 1, 0), 20, 15),
    "sapphirerapids": Core(3.0, (1.5, 2, 2), 20, 12), "emeraldrapids": Core(3.0, (1.5, 2, 2), 22, 13),
    "graniterapids": Core(3.2, (1.5, 2, 2), 20, 14), "sierraforest": Core(2.8, (1, 1, 0), 15, 12),
    "zen": Core(3.1, (2, 1, 0), 35, 15), "zen2": Core(3.2, (2, 2, 0), 55, 20),
    "zen3": Core(3.15, (2, 2, 0), 60, 23),  # its clock measured
    "zen4": Core(3.65, (2, 2, 1), 70, 23),  # measured
    "zen5": Core(4.15, (2, 2, 2), 70, 25),  # its clock measured, of a server
    "zen6": Core(4.3, (2, 2, 2), 70, 28),
    "cortex_a72": Core(2.3, (1, 0, 0), 12, 7, True), "cortex_a76": Core(2.6, (2, 0, 0), 20, 12, True),
    "neoverse_n1": Core(2.8, (2, 0, 0), 20, 18, True), "neoverse_n2": Core(3.0, (2, 0, 0), 25, 22, True),
    "neoverse_v1": Core(2.6, (4, 0, 0), 25, 22, True), "neoverse_v2": Core(2.9, (4, 0, 0), 30, 28, True),
    "a64fx": Core(2.0, (2, 0, 0), 30, 30, True),
}
UNKNOWN = Core(3.2, (1.5, 2, 2), 40, 20)  # whatever it is, it has two units of all that it has

# of the multiply-adds that could start, those that the costs count; measured on Zen 4, where vectors of 64 bytes go through
# twice: the costs of these are above those of two halves, and less of the rest is beside them
ACHIEVED, FUSED, IN_HALVES = (0.66, 0.905, 1.03), 0.9, 1.22
NEAR, SPREAD = (0.42, 1.0), (0.72, 0.5)  # of L3 that an array takes, of its speed (measured: 14 of 32 MB; 24)
CALL_CYCLES = 1300  # measured on Zen 4, as `fastconv tune --machine` does it
USUAL_L3, MOST_L3 = 32 << 20, 32 << 20  # bytes; what a machine has beyond them is its other programs'


def of_core(core: Core, l3: float = USUAL_L3) -> Machine:
    """Of such a core, with that many bytes of L3."""
    achieved = [share * starts * core.ghz * 1e9 for share, starts in zip(ACHIEVED, core.starts, strict=True)]
    if core.fused:
        achieved[0] *= FUSED / ACHIEVED[0]
    if core.starts[2] < core.starts[1]:
        achieved[2] *= IN_HALVES / ACHIEVED[2]
    for i in (1, 2):
        achieved[i] = achieved[i] or achieved[i - 1] / 2  # tiles are chosen by costs of one length, whatever there is
    levels = [Level("L3", part * min(l3, MOST_L3), speed * core.l3 * 1e9) for part, speed in (NEAR, SPREAD)]
    levels.append(Level("memory", math.inf, core.memory * 1e9))
    return Machine(dict(zip(ISAS, achieved, strict=True)), tuple(levels), CALL_CYCLES / (core.ghz * 1e9))


def this() -> Machine:
    """The one that this process runs on: as it was measured, where wisdom that is in use knows that."""
    now = settings.current()
    return typical() if now.wisdom is None else own() or typical()


def own() -> Machine | None:
    """As it was measured."""
    now = settings.current()
    return None if now.wisdom is None else _own(os.fspath(now.wisdom), now.generation, now.isa, now.no_native)


@functools.lru_cache(maxsize=8)
def _own(path: str, *_: Any) -> Machine | None:
    """Kept until wisdom is named again, as are its other entries; other ISAs in use are another fingerprint."""
    document = wisdom_file.document_of(path)
    kept = None if document is None else wisdom_file.entries(document, wisdom_file.MACHINE).get(wisdom_file.ROW)
    return typical().measured(kept)


@functools.cache
def typical() -> Machine:
    """A machine of this one's kind, by the table. What may not change with wisdom is estimated for it: the tiles of kernels."""
    return of_core(CORES.get(hardware.microarchitecture() or "", UNKNOWN), hardware.cache_bytes("L3") or USUAL_L3)
