"""What estimates assume of a machine, in one table by microarchitecture.

Nothing is measured when a program runs: two processes on one machine, and two machines of a kind, choose alike.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from . import hardware


@dataclass(frozen=True)
class Machine:
    """
    Attributes:
        multiply_adds: vectors of them that one thread does in a second, by ISA, as the algorithms' costs count them.
        reads: bytes per second that one thread reads, again and again, of an array of at most so many bytes.
    """

    multiply_adds: dict[str, float]
    reads: tuple[tuple[float, float], ...] = ((14e6, 60e9), (24e6, 35e9), (math.inf, 23e9))

    def rate(self, vector_bytes: int) -> float:
        """Vectors of multiply-adds by their length."""
        return self.multiply_adds[{64: "avx512", 32: "avx2"}.get(vector_bytes, "baseline")]

    def read(self, size: float, times: float = 1) -> float:
        """Seconds to read that many bytes again, so many times."""
        return size * times / next(speed for most, speed in self.reads if size <= most)


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
