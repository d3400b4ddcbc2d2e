"""broadcast: output channels on the vector, inputs from where they lie (`kernels/broadcast.cpp`)."""

from __future__ import annotations

import math

from ..native_problem import products
from ..problem import ConvProblem
from ._bounds import summed as bound
from ._costs import is_widest, slab, with_weights
from ._costs import packed_once as packing_cost

__all__ = ["SUMS_PRODUCTS", "bound", "cost", "packing_cost"]

SUMS_PRODUCTS = True


def cost(p: ConvProblem, lanes: int) -> float:
    """Vectors of output channels times pixels, and the loads of inputs for each panel of up to four vectors, three of 32 bytes;
    what leaves the registers, transposed where channels are apart. Fitted to 70 layers in both layouts on Zen 4: within 1.25x of
    the time from 5 to 100 %."""
    pixels, vectors = math.prod(p.output_size), math.ceil(p.out_channels // p.groups / lanes)
    widest = is_widest(p, lanes)
    panels = math.ceil(vectors / (4 if widest else 3))
    multiplied = ((1.1 if widest else 0.8) * vectors + 0.5 * panels) * products(p)
    finished = (4.5 if p.channels_last else 13) * vectors
    return with_weights(p, lanes, p.groups * pixels * (multiplied + finished)) + 0.15 * slab(p)
