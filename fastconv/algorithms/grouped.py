"""grouped: several groups of a few channels side by side on the vector (`kernels/grouped.cpp`)."""

from __future__ import annotations

import functools
import math
from fractions import Fraction

from ..dtypes import TABLE
from ..native_problem import products
from ..problem import ConvProblem
from ..spent import Parts
from ._bounds import summed as bound
from ._costs import packed_once, reached, with_weights

__all__ = ["CALLS", "SUMS_PRODUCTS", "bound", "cost", "packing_cost"]

SUMS_PRODUCTS = True
CALLS = 3


def cost(p: ConvProblem, lanes: int) -> Parts:
    """Vectors of as many groups as they hold, a permutation for each multiply-add; inputs that do not fit into a vector, and
    all where there are no permutations, come lane by lane. Where something is padded pixels are copied to a slab, block by
    block; channels that are apart are transposed on the way, and back."""
    inputs, outputs = p.in_channels // p.groups, p.out_channels // p.groups
    joined = _joined(p.groups, inputs, outputs, lanes)
    blocks, pixels = p.groups // joined, math.prod(p.output_size)
    vectors = blocks * math.ceil(joined * outputs / lanes) * pixels
    permutes = joined * inputs <= lanes and lanes * TABLE[p.dtype].itemsize > 16
    each = 1.7 if permutes else 5.5 if lanes > 2 else 2.5
    stored = 8 if p.channels_last else 14
    spent = with_weights(p, lanes, {"products": each * vectors * products(p), "outputs": stored * vectors})
    if any(map(any, p.padding)) or not p.channels_last:
        spent["inputs"] = blocks * math.prod(reached(p)) * (10 if p.channels_last else 16)
    return spent


def packing_cost(p: ConvProblem, lanes: int) -> float:
    """One by one."""
    return packed_once(p, lanes, 1.5 * lanes)


@functools.lru_cache(maxsize=32)
def _joined(groups: int, inputs: int, outputs: int, lanes: int) -> int:
    """Groups of a block: their inputs fit into a vector, and the vectors of their outputs are as few as possible."""
    fit = [n for n in range(1, max(1, lanes // inputs) + 1) if groups % n == 0]
    return min(fit, key=lambda n: (Fraction(math.ceil(n * outputs / lanes), n), -n))
