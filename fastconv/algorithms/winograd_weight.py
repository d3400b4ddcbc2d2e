"""winograd_weight: prototype."""

from __future__ import annotations

import os
from ..problem import ConvProblem
from ._bounds import summed as bound

SUMS_PRODUCTS = False
DIRECTIONS = ("backward_weight",)

def tile(p):
    m = os.environ.get("WW_TILE", "4,4").split(",")
    return (1,) * (p.ndim - 2) + tuple(int(m[i]) if p.kernel_size[i - 2] > 1 else 1 for i in range(2))[-min(2, p.ndim):]

def choices(p): return (tile(p),)
def refuses(p, chosen=None): return None

def cost(p: ConvProblem, lanes: int, *tile) -> float:
    return 1e18
def packing_cost(p: ConvProblem, lanes: int, *tile) -> float:
    return 0.0
