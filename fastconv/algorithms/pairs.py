"""pairs: the gradient of the weight of few pixels and many channels (`kernels/pairs.cpp`)."""

from __future__ import annotations

import math

from ..dtypes import TABLE
from ..problem import ConvProblem
from ..spent import Parts
from ._bounds import summed as bound
from ._costs import reached

__all__ = ["DIRECTIONS", "SUMS_PRODUCTS", "bound", "cost", "packing_cost"]

SUMS_PRODUCTS = True
DIRECTIONS = ("backward_weight",)


AT_ONCE = 400  # pairs (kernels/pairs.cpp)
NEAR = 3 << 20  # bytes of both operands that tiles read again and again from the caches (measured)


def cost(p: ConvProblem, lanes: int) -> Parts:
    """Vectors of one operand's channels, a last odd one at 4/3, times the channels of the other, for every pair of pixels that
    a tap brings together; 4 for each vector of sums that is written, 10 where the result is transposed, 4 where sums wait for
    further pairs. Both operands are put in order, and pairs listed; 1 for each of their bytes beyond the caches."""
    inputs, outputs, taps = p.in_channels // p.groups, p.out_channels // p.groups, math.prod(p.kernel_size)
    listed = p.batch * math.prod(p.output_size)
    pairs = p.batch * math.prod(_inside(p, axis) for axis in range(p.ndim))

    def multiplied(rows: int, columns: int, written: float) -> float:
        vectors = math.ceil(columns / lanes)
        waits = 4 * taps * math.ceil(pairs / taps / AT_ONCE - 1) if pairs else 0
        return max(rows, 8) * (vectors + vectors % 2 / 3) * (1.03 * pairs + written * taps + waits)

    transposed = multiplied(inputs, outputs, 10)
    least = min(transposed, multiplied(outputs, inputs, 4)) if taps == 1 else transposed
    filled = sum(math.ceil(channels / lanes) * math.ceil(math.prod(size) / lanes) * lanes
                 for channels, size in ((p.in_channels, p.input_size), (p.out_channels, p.output_size)))
    kept = sum(p.batch * math.ceil(channels / lanes) * lanes * math.prod(size) * TABLE[p.dtype].itemsize
               for channels, size in ((p.in_channels, reached(p)), (p.out_channels, p.output_size)))
    return {"products": p.groups * least, "inputs": 7 * p.batch * filled + max(0, kept - NEAR), "start": 4.0 * taps * listed}


def _inside(p: ConvProblem, axis: int) -> int:
    """Pairs of an output and a tap that do not meet in the padding."""
    if p.padding_mode != "zeros":
        return p.output_size[axis] * p.kernel_size[axis]
    stride, before, size = p.stride[axis], p.padding[axis][0], p.input_size[axis]
    begins = [tap * p.dilation[axis] - before for tap in range(p.kernel_size[axis])]
    return sum(max(0, min(p.output_size[axis], -(-(size - begin) // stride)) - max(0, -(begin // stride))) for begin in begins)


def packing_cost(p: ConvProblem, lanes: int) -> float:
    return 0.0
