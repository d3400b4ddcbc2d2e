"""broadcast: output channels on the vector, inputs from where they lie (`kernels/broadcast.cpp`)."""

from __future__ import annotations

import math

from ..native_problem import products
from ..problem import ConvProblem
from ..spent import Parts
from ._bounds import summed as bound
from ._costs import is_widest, slab, with_weights
from ._costs import packed_once as packing_cost

__all__ = ["CALLS", "SUMS_PRODUCTS", "bound", "cost", "packing_cost"]

SUMS_PRODUCTS = True
CALLS = 3


def cost(p: ConvProblem, lanes: int) -> Parts:
    """Vectors of output channels times pixels, and the loads of inputs for each panel of up to four vectors, three of 32 bytes;
    what leaves the registers, transposed where channels are apart, and in part where the last vector is not whole. Inputs whose
    channels are apart take a line each, for so few multiply-adds of short vectors that these wait. Fitted to 70 layers in both
    layouts on Zen 4: within 1.25x of the time from 5 to 100 %. A single pixel is left to dot, which keeps no copy of so many
    weights and reads them almost as fast."""
    pixels, channels, widest = math.prod(p.output_size), p.out_channels // p.groups, is_widest(p, lanes)
    vectors = math.ceil(channels / lanes)
    panels = math.ceil(vectors / (4 if widest else 3))
    apart = 0 if widest or p.channels_last else 0.3 + 4e-4 * p.k + (0.4 if p.stride[-1] > 1 else 0)
    if p.channels_last and p.groups > 1:  # of each line the inputs of a group
        apart += 1.3 * p.groups / p.in_channels / panels
    each = p.groups * max(pixels, 2) * products(p)
    computed = {"products": (1.09 if widest else 0.8) * vectors * each, "inputs": (0.5 + apart) * panels * each}
    spent = with_weights(p, lanes, computed, 1.5 if pixels == 1 else 1.0)
    spent["inputs"] += 0.15 * slab(p)
    spent["outputs"] = p.groups * pixels * ((4.5 if p.channels_last else 13) * vectors + (6 if channels % lanes else 0))
    return spent
