"""depthwise_input: the gradient of the input, of one channel per group (`kernels/depthwise_input.cpp`)."""

from __future__ import annotations

import math

from ..dtypes import TABLE
from ..problem import ConvProblem
from ..spent import Parts
from ._bounds import summed as bound
from ._costs import MOST_POSITIONS, is_widest, small_planes

__all__ = ["DIRECTIONS", "SUMS_PRODUCTS", "bound", "cost", "packing_cost"]

SUMS_PRODUCTS = True
DIRECTIONS = ("backward_input",)


def cost(p: ConvProblem, lanes: int) -> Parts:
    """Planes of few pixels, transposed on the way in and out; else two strands of a row at a time, vectors of each. Of channels
    that lie side by side elements are written one by one."""
    size = TABLE[p.dtype].itemsize
    narrow = p.input_size[-1] * size <= (80 if lanes * size > 16 else 56) and 2 * p.groups > lanes
    small = math.prod(p.input_size) + math.prod(p.output_size) < MOST_POSITIONS
    if p.stride[-1] != 2 or (small and (narrow or p.channels_last)):
        return small_planes(p, lanes, arranged=True)
    planes, height = p.groups * math.prod(p.input_size[:-2]), math.prod(p.input_size[-2:-1])
    read = math.prod(p.output_size[-2:-1])
    vectors = math.ceil(math.ceil(p.input_size[-1] / 2) / lanes)
    apart = 4.6 * p.groups * math.prod(p.input_size) if p.channels_last else 0
    stored, multiplied = (22, 3) if is_widest(p, lanes) else (15, 2)
    return {"products": planes * vectors * multiplied * p.kernel_volume * read, "start": 150.0 * planes,
            "outputs": planes * vectors * stored * height + apart}


def packing_cost(p: ConvProblem, lanes: int) -> float:
    return 0.0
