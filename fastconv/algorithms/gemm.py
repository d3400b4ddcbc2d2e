"""gemm: implicit GEMM, output channels on the vector (`kernels/gemm.cpp`)."""

from __future__ import annotations

import math

from ..native_problem import products
from ..problem import ConvProblem
from ..spent import Parts
from ._bounds import summed as bound
from ._costs import packed_once as packing_cost
from ._costs import slab, with_weights

__all__ = ["SUMS_PRODUCTS", "bound", "cost", "packing_cost"]

SUMS_PRODUCTS = True


def cost(p: ConvProblem, lanes: int) -> Parts:
    """Vectors of output channels times pixels, a last odd one at 4/3; inputs go to panels at the price of 1.4 more vectors of
    channels, and sums are read, written and transposed. One pixel takes as long as two; many weights for few pixels as
    long as they take to be read."""
    pixels, channels = math.prod(p.output_size), p.out_channels // p.groups
    vectors = math.ceil(channels / lanes)
    each = p.groups * max(pixels, 2) * products(p)
    spent = with_weights(p, lanes, {"products": (vectors + vectors % 2 / 3) * each, "inputs": 1.4 * each}, 1.35)
    spent["inputs"] += slab(p, 3 * lanes)
    spent["outputs"] = p.groups * pixels * (15 * vectors + (30 if p.channels_last and channels % lanes else 0))
    return spent
