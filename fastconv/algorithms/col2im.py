"""col2im: the gradient of the input as columns, summed into the image (`kernels/col2im.cpp`)."""

from __future__ import annotations

import math

from ..dtypes import TABLE
from ..problem import ConvProblem
from ..spent import Parts
from ._bounds import summed as bound
from ._costs import with_weights

__all__ = ["DIRECTIONS", "SUMS_PRODUCTS", "bound", "cost", "packing_cost"]

SUMS_PRODUCTS = True
DIRECTIONS = ("backward_input",)
PIXELS = 448  # of a chunk (kernels/col2im.cpp)
CHANNELS, BLOCKS, PLANES_BYTES = 64, 8, 384 << 10  # of a task, at most; for threads to share; of a task's planes


def cost(p: ConvProblem, lanes: int) -> Parts:
    """Vectors of columns, for every pixel and output channel; the copies of the weights; each column is added to its place
    alone. Many weights for few pixels take as long as they take to be read."""
    pixels, outputs, inputs = math.prod(p.output_size), p.out_channels // p.groups, p.in_channels // p.groups
    columns = inputs * p.kernel_volume
    channels = _channels(p, lanes, inputs)
    vectors = math.ceil(inputs / channels) * math.ceil(channels * p.kernel_volume / lanes)
    copied = (2.5 if pixels > 1 else 1.5) * vectors * outputs * math.ceil(pixels / PIXELS)
    placed = 2.5 * p.groups * columns * pixels + 2 * p.in_channels * math.prod(p.input_size) / lanes
    spent = with_weights(p, lanes, {"products": p.groups * 1.2 * vectors * outputs * pixels, "copies": p.groups * copied,
                                    "outputs": placed})
    spent["start"] = 500.0
    return spent


def packing_cost(p: ConvProblem, lanes: int) -> float:
    return 0.0


def _channels(p: ConvProblem, lanes: int, inputs: int) -> int:
    """Of a task."""
    plane = math.prod(max((o - 1) * s + (k - 1) * d + 1, low + n) for o, s, k, d, (low, _), n in zip(
        p.output_size, p.stride, p.kernel_size, p.dilation, p.padding, p.input_size, strict=True))
    fit = max(1, PLANES_BYTES // (plane * TABLE[p.dtype].itemsize))
    most = min(CHANNELS, fit, -(-inputs // min(inputs, BLOCKS)))
    return min(range(most, 0, -1), key=lambda c: -(-inputs // c) * -(-c * p.kernel_volume // lanes))
