"""What estimates assume of a machine, in one table by microarchitecture.

Nothing is measured when a program runs: two processes on one machine, and two machines of a kind, choose alike.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

from . import hardware


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
        levels: what one thread reads arrays from, the near first.
    """

    multiply_adds: dict[str, float]
    levels: tuple[Level, ...] = (Level("L3", 14e6, 60e9), Level("L3", 24e6, 35e9), Level("memory", math.inf, 23e9))

    def rate(self, vector_bytes: int) -> float:
        """Vectors of multiply-adds by their length."""
        return self.multiply_adds[{64: "avx512", 32: "avx2"}.get(vector_bytes, "baseline")]

    def level(self, size: float) -> Level:
        """Where an array of that many bytes lies."""
        return next(level for level in self.levels if size <= level.size)


USUAL = Machine({"baseline": 5e9, "avx2": 6e9, "avx512": 6e9})  # two units at 3 GHz; reads as of Zen 4
KNOWN = {
    # 512 bits go through twice, which costs the more the less else there is to do; measured on 106 layers
    "zen4": Machine({"baseline": 5e9, "avx2": 6.4e9, "avx512": 4.3e9}),
    "zen5": Machine({"baseline": 6e9, "avx2": 8e9, "avx512": 8e9}),
}


@functools.cache
def this() -> Machine:
    """The one that this process runs on."""
    return KNOWN.get(hardware.microarchitecture() or "", USUAL)
