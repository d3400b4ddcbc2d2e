"""col2im: the gradient of the input as columns, summed into the image (`kernels/col2im.cpp`)."""

from __future__ import annotations

import math

from ..dtypes import TABLE
from ..problem import ConvProblem
from ..spent import Parts
from ._bounds import summed as bound
from ._costs import is_widest, with_weights

__all__ = ["DIRECTIONS", "SUMS_PRODUCTS", "bound", "cost", "packing_cost"]

SUMS_PRODUCTS = True
DIRECTIONS = ("backward_input",)
PIXELS = 448  # of a chunk (kernels/col2im.cpp)
CHANNELS, BLOCKS, PLANES_BYTES = 64, 8, 384 << 10  # of a task, at most; for threads to share; of a task's planes


def cost(p: ConvProblem, lanes: int) -> Parts:
    """Vectors of columns, for every pixel and output channel; the copies of the weights, and of the gradient for every block of
    channels; each column is added to its place alone, and the planes become the output in runs. Many weights for few pixels
    take as long as they take to be read. Fitted to 380 calls on Zen 4: nine of ten within 1.5x."""
    pixels, outputs, inputs = math.prod(p.output_size), p.out_channels // p.groups, p.in_channels // p.groups
    columns = inputs * p.kernel_volume
    channels = _channels(p, lanes, inputs)
    blocks = math.ceil(inputs / channels)
    vectors = blocks * math.ceil(channels * p.kernel_volume / lanes)
    weights = (2.5 if pixels > 1 else 1.5) * vectors * outputs * math.ceil(pixels / PIXELS)
    cycle, size = 1.0 if is_widest(p, lanes) else 1.7, math.prod(p.input_size)
    if p.channels_last:
        filled, placed, run, written, runs = 16.0 / lanes, 3.6, 4.0, 32.0, p.groups * blocks * size
    else:
        filled, placed, run, written, runs = 0.5 * cycle, 2.5, 22.0, 12.0, p.in_channels * math.prod(p.input_size[:-1])
    made = placed * p.groups * columns * pixels + run * runs + (_plane(p) + written * size / cycle) * p.in_channels / lanes
    copies = p.groups * (weights + filled * blocks * outputs * pixels)
    computed = {"products": 1.06 * p.groups * vectors * outputs * pixels, "copies": copies, "outputs": cycle * made}
    return {**with_weights(p, lanes, computed), "start": 4000.0}


def packing_cost(p: ConvProblem, lanes: int) -> float:
    return 0.0


def _channels(p: ConvProblem, lanes: int, inputs: int) -> int:
    """Of a task."""
    fit = max(1, PLANES_BYTES // (_plane(p) * TABLE[p.dtype].itemsize))
    most = min(CHANNELS, fit, -(-inputs // min(inputs, BLOCKS)))
    return min(range(most, 0, -1), key=lambda c: -(-inputs // c) * -(-c * p.kernel_volume // lanes))


def _plane(p: ConvProblem) -> int:
    """Elements of a channel, with the padding around it."""
    return math.prod(max((o - 1) * s + (k - 1) * d + 1, low + n) for o, s, k, d, (low, _), n in zip(
        p.output_size, p.stride, p.kernel_size, p.dilation, p.padding, p.input_size, strict=True))
