"""depthwise: each output channel reads one input channel (`kernels/depthwise.cpp`)."""

from __future__ import annotations

import math

from ..dtypes import TABLE
from ..problem import ConvProblem
from ..spent import Parts
from ._bounds import summed as bound
from ._costs import MOST_POSITIONS, is_widest, slab, small_planes
from ._costs import packed_in_panels as packing_cost

__all__ = ["SUMS_PRODUCTS", "bound", "cost", "packing_cost"]

SUMS_PRODUCTS = True
TOGETHER_BYTES = 24 << 10  # of the planes that tiles go on to, inputs and outputs (kernels/depthwise_tile.hpp)
MOST_WIDENED = 512 << 10  # bytes of rows that a thread keeps widened (kernels/depthwise_last.hpp)


def cost(p: ConvProblem, lanes: int) -> Parts:
    """Vectors along rows; loads, masks and stores beside the multiply-adds, more loads with stride 2, and the copy that splits
    the phases of longer strides, all of them. More loads but for square kernels of 3, 5, 7 and 9, and where rows of the tile
    share no input rows; a single row has one sum at a time, and each multiply-add waits for the one before, but for kernels of
    one row, whose tiles have several vectors. Channels side by side are vectors of a pixel's, or few of them of several
    pixels'; where each has several outputs, rows are widened, or if they take too much memory, outputs transposed."""
    rows, width = math.prod(p.output_size[:-1]), p.output_size[-1]
    few = 2 * p.out_channels <= lanes
    kept = math.prod(p.kernel_size[:-1]) * p.input_size[-1] * p.out_channels * TABLE[p.dtype].itemsize  # of widened rows
    if p.channels_last and (p.groups == p.out_channels or kept <= MOST_WIDENED) and not (few and p.stride[-1] > 1):
        edges = min(width, (p.kernel_size[-1] - 1) * p.dilation[-1]) if few else 0  # one by one
        together = 1.6 * p.out_channels / lanes if few else math.ceil(p.out_channels / lanes)
        vectors = 2 * edges + (width - edges) * together
        widened = 3.0 * math.prod(p.input_size) * p.groups if p.groups < p.out_channels else 0
        return {"products": rows * vectors * 2.2 * p.k, "outputs": rows * vectors * 9, "inputs": widened, "start": 100.0 * rows}
    if _small_planes_pay(p, lanes):
        return small_planes(p, lanes)
    kernel = p.kernel_size[-2:]
    depths = p.kernel_volume // math.prod(kernel)
    tuned = kernel in ((3, 3), (5, 5), (7, 7), (9, 9)) and set(p.dilation) == {1} and depths == 1
    near = p.dilation[-2:-1] == p.stride[-2:-1] == (1,) and kernel[0] > 2
    copied = 0 if p.stride[-1] <= 2 else depths * (slab(p) + p.in_channels * math.prod(p.input_size))
    widest, along = is_widest(p, lanes), rows == 1 and p.kernel_volume == p.kernel_size[-1]
    loads = 3.1 if along else 8.0 if rows == 1 else 1.3 if tuned else 1.4 if near else 3.5
    written = 22 if along else 5 if widest else 4
    if p.stride[-1] == 2:
        loads *= 1.3 if tuned and widest else 2.0  # where columns of the kernel share them, or each has its own
    transposed = 9.0 * p.out_channels * rows * width if p.channels_last and p.out_channels > 1 else 0
    vectors = p.out_channels * rows * (width + _empty(p, lanes)) / lanes
    plane = TABLE[p.dtype].itemsize * (math.prod(p.input_size) + rows * width)
    together = 2 * plane <= TOGETHER_BYTES and p.groups == p.out_channels  # tiles go on to the next channel
    start = 35.0 if together and lanes * TABLE[p.dtype].itemsize > 16 else 80.0
    return {"products": vectors * loads * p.k, "inputs": copied, "start": start * p.out_channels,
            "outputs": written * vectors + transposed}


def _empty(p: ConvProblem, lanes: int) -> int:
    """Lanes of a row's vectors, of which the last one may be half a vector where these are the longest."""
    return -p.output_size[-1] % (lanes // 2 if is_widest(p, lanes) else lanes)


def _small_planes_pay(p: ConvProblem, lanes: int) -> bool:
    """As `kernels/depthwise.cpp` has it, but for the smallest details."""
    width, empty = p.output_size[-1], _empty(p, lanes)
    few = 4 * empty >= width and width <= min(10, 2 * lanes) if lanes * TABLE[p.dtype].itemsize > 16 else width <= 3 * lanes
    sums = p.padding_mode == "zeros" and p.accuracy != "strict" and p.groups == p.out_channels
    return few and sums and 2 * p.groups > lanes and math.prod(p.input_size) < MOST_POSITIONS
