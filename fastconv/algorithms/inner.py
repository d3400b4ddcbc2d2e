"""inner: the gradient of the weight of few channels, as inner products of planes (`kernels/inner.cpp`)."""

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
BOX_BYTES, BOX_WIDTH = 48 << 10, 1024  # at most, of a box (kernels/inner.cpp)


def cost(p: ConvProblem, lanes: int) -> Parts:
    """Vectors of pixels, a last one of every box whatever it has, for every weight, and once more for the taps that each block
    of output channels loads again; 12 for each weight's sum in every box; every row of the input for every tap along it; both
    operands are read once, a few rows of a plane at a time, one by one where channels lie side by side."""
    depth, height, width = (1,) * (3 - p.ndim) + p.output_size
    taps_d, taps_h, taps_w = (1,) * (3 - p.ndim) + p.kernel_size
    stride = p.stride[-2] if p.ndim > 1 else 1
    reach = (taps_h - 1) * (p.dilation[-2] if p.ndim > 1 else 1) + 1
    inputs, outputs = p.in_channels // p.groups, p.out_channels // p.groups
    least, size = min(height, max(1, reach // stride)), TABLE[p.dtype].itemsize
    # bytes of a box of r rows: what taps along them meet, r + halo rows of every phase, and dy
    of_row = size * min(width, BOX_WIDTH) * (inputs * taps_d * taps_w * min(stride, taps_h) + outputs)
    halo = size * min(width, BOX_WIDTH) * inputs * taps_d * taps_w * min(stride, taps_h) * ((reach - 1) // stride)
    at_once = math.ceil(height / min(height, max(least, (BOX_BYTES - halo) // of_row)))
    boxes = depth * at_once * math.ceil(width / BOX_WIDTH)
    rows, columns = height / at_once, min(width, BOX_WIDTH)
    vectors = boxes * math.ceil(rows * columns / lanes)
    multiplied = vectors * p.k * (0.65 * outputs + math.ceil(outputs / (6 if is_widest(p, lanes) else 3)))
    row = 15 + 2.4 * columns / lanes + (columns * 2.0 if p.channels_last else columns * 0.6 if p.stride[-1] > 1 else 0)
    filled = boxes * inputs * taps_d * ((rows - 1) * stride + reach) * taps_w * row
    lines = 8.0 if p.channels_last and p.stride[-1] > 2 else 0.5
    read = lines * inputs * math.prod(reached(p)) + (1.2 if p.channels_last else 0.4) * outputs * math.prod(p.output_size)
    each = p.batch * p.groups
    return {"products": each * multiplied, "inputs": each * (filled + read), "outputs": each * 12 * boxes * outputs * p.k,
            "start": 8000.0}


def packing_cost(p: ConvProblem, lanes: int) -> float:
    return 0.0
