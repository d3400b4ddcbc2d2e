"""Which tile a GEMM takes, and into how many parts its sum is split: the smallest estimated time.

A multiprocessor does 128 float32 (64 float64) multiply-adds per cycle; small tiles reach less of that, as they read more per
product. Where tiles are too few to occupy the device, the sum over k is split, at the price of writing and reading the
partial sums. Counted for one device, an H100, on any: the choice is a function of the problem, so that results are too.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

from ...problem import ConvProblem
from .gemm import Tile
from .intrinsics import SIMULATOR, VECTOR_BYTES

PROCESSORS = 132
PARTIAL_SUMS_PER_CYCLE = 225  # 3 TB/s at 1.7 GHz, written and read, 4 bytes each
LAUNCH_CYCLES = 5000  # of the second kernel
PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
LEAST_STEPS = 6  # of a part


class Choice(NamedTuple):
    tile: Tile
    width: int  # elements of a vector access
    parts: int


# the share of a multiprocessor's peak that a block of the tile reaches: estimates until measured
TILES = {
    "float32": {Tile(128, 128, 8, 8, 8): 0.75, Tile(64, 128, 8, 8, 8): 0.65, Tile(64, 64, 16, 4, 4): 0.5,
                Tile(32, 64, 16, 4, 4): 0.35},
    "float64": {Tile(64, 64, 8, 4, 4): 0.7, Tile(32, 32, 8, 4, 2): 0.4},
}
TINY = Tile(8, 8, 4, 2, 2)  # the simulator runs every thread as one of Python's


def choose(problem: ConvProblem) -> Choice:
    """By the problem as given; with accuracy="strict" as if it had one image, so that no batch changes any sum."""
    if SIMULATOR:
        return Choice(TINY, 2, min(3, -(-problem.k // TINY.bk)) if problem.k > 32 else 1)
    batch = 1 if problem.accuracy == "strict" else problem.batch
    return _choose(problem.dtype, problem.out_channels // problem.groups, max(1, batch) * math.prod(problem.output_size),
                   problem.k, problem.groups)


@functools.lru_cache(maxsize=4096)
def _choose(dtype: str, m: int, n: int, k: int, groups: int) -> Choice:
    item = 4 if dtype == "float32" else 8
    width = VECTOR_BYTES // item
    options = [(_cycles(tile, share * 512 / item, parts, m, n, k, groups, item), -parts, Choice(tile, width, parts))
               for (tile, share), parts in itertools.product(TILES[dtype].items(), PARTS)
               if parts == 1 or k // tile.bk >= LEAST_STEPS * parts]
    return min(options)[2]


def _cycles(tile: Tile, per_cycle: float, parts: int, m: int, n: int, k: int, groups: int, item: int) -> float:
    blocks = -(-m // tile.bm) * -(-n // tile.bn) * groups * parts
    rounds = -(-blocks // PROCESSORS)
    work = rounds * tile.bm * tile.bn * -(-k // parts) / per_cycle
    sums = 0 if parts == 1 else parts * m * n * groups * item / 4 / PARTIAL_SUMS_PER_CYCLE + LAUNCH_CYCLES
    return work + sums
