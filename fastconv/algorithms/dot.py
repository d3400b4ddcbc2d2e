"""dot: scalar products with the weights read where they lie (`kernels/dot.cpp`)."""

from __future__ import annotations

import math

from ..problem import ConvProblem
from ..spent import Parts
from ._bounds import summed as bound
from ._costs import with_weights

__all__ = ["SUMS_PRODUCTS", "bound", "cost", "packing_cost"]

SUMS_PRODUCTS = True


def cost(p: ConvProblem, lanes: int) -> Parts:
    """Vectors of products: the loads of a tile where it is small; inputs that are gathered one by one for every 256 output
    channels, or transposed, as are channels side by side; what each tile takes beside. Many weights for few pixels take as
    long as they take to be read."""
    pixels, channels = math.prod(p.output_size), p.out_channels // p.groups
    rows, at_once = min(4, channels), min(6, pixels)
    step = max(1.35 * rows * at_once, 2.4 * rows + 1.2 * at_once, 5) * math.ceil(p.k / lanes) + 160
    dense = p.kernel_volume == 1 and (p.channels_last or math.prod(p.input_size) == 1)
    if p.kernel_volume == 1:
        gathered = 0.5 if dense else 1.3 if set(p.stride) == {1} else 2.5
    else:
        gathered = 1.2 if p.channels_last and p.kernel_volume <= lanes <= p.in_channels // p.groups else 2.8
    gathered *= math.ceil(channels / 256)
    each = p.groups * pixels
    return with_weights(p, lanes, {"products": each * channels * step / (rows * at_once), "inputs": each * gathered * p.k,
                                   "start": each * 80 + p.groups * 200})


def packing_cost(p: ConvProblem, lanes: int) -> float:
    return 0.0
