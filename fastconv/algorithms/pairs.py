"""pairs: the gradient of the weight of few pixels and many channels (`kernels/pairs.cpp`)."""

from __future__ import annotations

import math

from ..problem import ConvProblem
from ._bounds import summed as bound

__all__ = ["DIRECTIONS", "SUMS_PRODUCTS", "bound", "cost", "packing_cost"]

SUMS_PRODUCTS = True
DIRECTIONS = ("backward_weight",)


def cost(p: ConvProblem, lanes: int) -> float:
    pixels, inputs, outputs = math.prod(p.output_size), p.in_channels // p.groups, p.out_channels // p.groups
    return 1.1 * p.batch * pixels * p.groups * outputs * inputs * math.prod(p.kernel_size) / lanes


def packing_cost(p: ConvProblem, lanes: int) -> float:
    return 0.0
