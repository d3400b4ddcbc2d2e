"""gemm: implicit GEMM, output channels on the vector (`kernels/gemm.cpp`)."""

from __future__ import annotations

import math

from ..native_problem import products
from ..problem import ConvProblem
from ..settings import current
from ..spent import Parts
from ._bounds import summed as bound
from ._costs import is_widest, slab, weight_bytes, while_read
from ._costs import packed_once as packing_cost

__all__ = ["CALLS", "SUMS_PRODUCTS", "bound", "cost", "packing_cost"]

SUMS_PRODUCTS = True
CALLS = 3


def cost(p: ConvProblem, lanes: int) -> Parts:
    """Vectors of output channels times pixels, a last odd one at 4/3; inputs go to panels at the price of so many more vectors
    of channels, and sums are read, written and transposed. One pixel takes as long as two; many weights for few pixels as
    long as those take to be read of taps that are not in the padding for all pixels."""
    pixels, channels, widest = math.prod(p.output_size), p.out_channels // p.groups, is_widest(p, lanes)
    vectors = math.ceil(channels / lanes)
    each, filled = (1.23, 0.55) if widest else (0.9, 1.25)  # of high tiles a vector of inputs is filled at a time
    all_products = p.groups * max(pixels, 2) * products(p)
    computed = {"products": each * (vectors + vectors % 2 / 3) * all_products, "inputs": filled * all_products}
    read = weight_bytes(p) * (products(p) / p.k if pixels == 1 else 1)
    spent = while_read(p, lanes, computed, read, 1.35 / (current().expected_batch or 1))
    spent["inputs"] += slab(p, 3 * lanes) * (0.5 if widest else 1)
    spent["outputs"] = p.groups * pixels * (15 * vectors + (30 if p.channels_last and channels % lanes else 0))
    return spent
