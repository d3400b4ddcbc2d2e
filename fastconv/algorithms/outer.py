"""outer: the gradient of the weight as a sum of outer products, pixel by pixel (`kernels/outer.cpp`)."""

from __future__ import annotations

import math

from ..dtypes import TABLE
from ..problem import ConvProblem
from ..spent import Parts
from ._bounds import summed as bound
from ._costs import is_widest, reached

__all__ = ["DIRECTIONS", "SUMS_PRODUCTS", "bound", "cost", "packing_cost"]

SUMS_PRODUCTS = True
DIRECTIONS = ("backward_weight",)
BOX_PIXELS, BOX_PIXELS_OF_LANES = 160, 1024  # at most, of a box (kernels/outer.cpp)
SLAB_BYTES = 256 << 10  # of the inputs of a box
MOST_INPUTS = 256  # channels of a task, of a kernel of one tap


def cost(p: ConvProblem, lanes: int) -> Parts:
    """Vectors of output channels, a last odd one at 4/3, times K, for every pixel of all images. Both operands are transposed,
    the input again for every 256 output channels, or, where the channels of all groups are on the vectors, once for each input
    channel of a group; fewer channels than lanes come one by one. Sums are read and written for every box."""
    pixels, inputs, outputs = math.prod(p.output_size), p.in_channels // p.groups, p.out_channels // p.groups
    read, widest = math.prod(reached(p)), is_widest(p, lanes)
    if p.groups > 1 and outputs < lanes:
        vectors, fit = math.ceil(p.out_channels / lanes), SLAB_BYTES / (inputs * lanes * TABLE[p.dtype].itemsize)
        boxes = max(math.ceil(pixels / BOX_PIXELS_OF_LANES), math.ceil(read / fit))
        multiplied, summed = (1.3 if widest else 1.1) * pixels * vectors * p.k, 40.0 * boxes * vectors * p.k
        moved = vectors * lanes * (1.2 if widest else 1.6) * (pixels + inputs * read)
    else:
        boxes = math.ceil(pixels / BOX_PIXELS)
        vectors = p.groups * math.ceil(outputs / lanes)
        multiplied = 1.1 * pixels * (vectors + p.groups * (math.ceil(outputs / lanes) % 2) / 3) * p.k
        summed = 5.0 * boxes * vectors * p.k
        again = math.ceil(outputs / 256) * (1 if inputs >= lanes else 10 if p.channels_last else 3)
        moved = vectors * lanes * pixels * math.ceil(inputs / MOST_INPUTS) + p.in_channels * read * again
    return {"products": p.batch * multiplied, "inputs": p.batch * moved, "outputs": p.batch * summed + 2 * p.out_channels * p.k,
            "start": 8000.0}


def packing_cost(p: ConvProblem, lanes: int) -> float:
    return 0.0
