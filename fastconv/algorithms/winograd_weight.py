"""winograd_weight: the gradient of the weight by minimal filtering (`kernels/winograd_weight.cpp`). Its tiles, their errors,
its cost.

∂w = A^T [Σ (G ∂y G^T) · (B^T x B)] A, summed over tiles and images: winograd's matrices (`winograd.matrices`) of F(r, m), in
which the m outputs of a tile are the taps, and the r taps of the kernel the outputs.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from ..dtypes import TABLE
from ..problem import ConvProblem
from ..spent import Parts
from . import winograd
from ._bounds import flushed, largest, summed

SUMS_PRODUCTS = False
DIRECTIONS = ("backward_weight",)
MOST_CHANNELS = 256  # of a task, of either array
AT_ONCE = 12 << 20  # bytes of transformed arrays, where these are one chunk
CHUNK = 1 << 20  # of others
LEAST_TILES = 96  # of a chunk
SUMMED = 48  # tiles, at a time
# RMS over outer's along one axis, by taps and outputs of a tile, zero-mean data, 8 images of few pixels (measured, all ISAs)
ERROR = {(1, 1): 1.3, (2, 3): 1.6, (2, 4): 2.6, (2, 5): 2.85, (3, 2): 1.65, (3, 3): 2.5, (3, 4): 2.65, (3, 5): 4.6,
         (4, 2): 2.85, (4, 3): 2.95, (4, 4): 4.85, (4, 5): 5.4, (5, 2): 3.2, (5, 3): 5.1, (5, 4): 5.6}
FEW = 45  # outputs of an image, from which on outer errs more, the more there are: sums here are shorter


class Axis(NamedTuple):
    """The last two of a problem, or the only one and one of length 1."""

    taps: int
    outputs: int


def _axes(kernel: tuple[int, ...], outputs: tuple[int, ...]) -> tuple[Axis, Axis]:
    h, w = map(Axis, ((1, *kernel))[-2:], ((1, *outputs))[-2:])
    return h, w


def refuses(problem: ConvProblem, chosen: tuple[int, ...] | None = None) -> str | None:
    """Why it (or this tile of it) does not apply, in one line."""
    if set(problem.kernel_size[:-2]) - {1} or problem.kernel_volume == 1:
        return "transforms kernels of several taps along the last two axes only"
    if any(step > 1 for step in problem.stride[-2:]) or any(
            apart > 1 and taps > 1 for apart, taps in zip(problem.dilation, problem.kernel_size, strict=True)):
        return "transforms no stride and no dilation"
    if max(problem.kernel_size) > winograd.MOST_TAPS:
        return f"transforms at most {winograd.MOST_TAPS} taps along an axis"
    if not choices(problem):
        return "has no tile whose error this accuracy admits: sums of so few products have hardly any"
    if chosen is not None and chosen not in choices(problem):
        return "has no such tile for this problem and accuracy"
    return None


def tile(problem: ConvProblem) -> tuple[int, ...]:
    """Outputs per tile along each axis, 1 where nothing is transformed; of those whose error `problem.accuracy` admits, the
    one of least `cost`. Depends on the image alone, not on batch, threads or ISA."""
    return choices(problem)[0]


@functools.lru_cache(maxsize=64)
def choices(problem: ConvProblem) -> tuple[tuple[int, ...], ...]:
    """All of these, the one of least `cost` first."""
    along = [[m for taps, m in ERROR if taps == axis.taps] for axis in _axes(problem.kernel_size, problem.output_size)]
    limit = winograd.ADMITTED["loose" if problem.accuracy == "loose" else "fast"]
    admitted = [(h, w) for h, w in itertools.product(*along) if error(problem, (h, w)) <= limit]
    by_cost = sorted(admitted, key=lambda each: sum(_cost(problem, 8, each, 8).values()))
    return tuple(((1,) * problem.ndim + each)[-problem.ndim:] for each in by_cost)


def error(problem: ConvProblem, tile: tuple[int, int]) -> float:
    """RMS over that of outer, at least: where it is up to 4, no ISA was measured above it."""
    axes = _axes(problem.kernel_size, problem.output_size)
    found = math.prod(ERROR[axis.taps, m] for axis, m in zip(axes, tile, strict=True))
    return found / math.sqrt(1 + math.prod(problem.output_size) / FEW)


def cost(problem: ConvProblem, lanes: int, chosen: tuple[int, ...] | None = None) -> Parts:
    """Of all images: products, and 5 per vector of sums that are added to others; 6.6 per element of a column that is
    transformed, on its way in or out, of each array once for every 256 channels of the other; the sums of all products, which
    are read and written for every chunk."""
    h, w = ((1,) + (chosen or tile(problem)))[-2:]
    return _cost(problem, lanes, (h, w), problem.batch)


def _cost(p: ConvProblem, lanes: int, tile: tuple[int, int], images: int) -> Parts:
    h, w = _axes(p.kernel_size, p.output_size)
    sizes = [winograd.size(axis.taps, m) for axis, m in zip((h, w), tile, strict=True)]
    products, itemsize = math.prod(sizes), TABLE[p.dtype].itemsize
    tiles = images * math.prod(p.output_size[:-2]) * math.ceil(h.outputs / tile[0]) * math.ceil(w.outputs / tile[1])
    inputs, outputs = p.in_channels // p.groups, p.out_channels // p.groups
    vectors = math.ceil(outputs / lanes)
    pairs = max(inputs, 4) * (vectors + vectors % 2 / 3)  # a last odd vector is a tile of its own, half as wide
    multiplied = products * pairs * (1.05 * tiles + 5 * math.ceil(tiles / SUMMED))
    columns_in = products + sizes[0] * tile[1] + (sizes[0] + tile[0]) / 2 * tile[1]
    again = [math.ceil(channels / MOST_CHANNELS) for channels in (outputs, inputs)]
    moved = _filled(inputs, lanes) * again[0] + _filled(outputs, lanes) * again[1]
    columns_out = products + sizes[0] * w.taps + h.taps * w.taps
    transformed = 6.6 * (tiles * moved * columns_in + pairs * columns_out)
    both = products * (min(inputs, MOST_CHANNELS) + min(outputs, MOST_CHANNELS)) * itemsize
    chunks = 0 if tiles * both <= AT_ONCE else tiles / max(LEAST_TILES, CHUNK / both)
    written = products * inputs * outputs * itemsize * 2 * 0.06 * chunks
    return {"products": p.groups * multiplied, "transforms": p.groups * transformed, "outputs": p.groups * written}


def _filled(channels: int, lanes: int) -> float:
    """Vectors of channels, a last one that is not full takes longer: its channels come one by one."""
    return channels // lanes + 1.3 * (channels % lanes > 0)


def packing_cost(problem: ConvProblem, lanes: int, chosen: tuple[int, ...] | None = None) -> float:
    return 0.0


def bound(problem: ConvProblem, magnitude: np.ndarray, x: np.ndarray, w: np.ndarray,
          chosen: tuple[int, ...] | None = None) -> np.ndarray:
    """γ_n·κ·max|x|·Σ|∂y|, of the forward problem that the gradient is (see `lowering`): its taps are the outputs.

    κ is that of winograd, and so are the roundings of the transforms; a product is rounded once for each tile at most, and
    where it is added to others. Of all tiles that there are, the worst, and the bound of outer, which computes what is not
    finite.
    """
    axes = _axes(problem.output_size, problem.kernel_size)
    images = problem.in_channels // problem.groups * math.prod(problem.kernel_size[:-2])
    weights = np.where(np.isfinite(w), np.abs(w), 0).reshape(len(w), -1).sum(axis=1, dtype=np.float64).max(initial=0.0)
    worst, kappas = 0.0, 0.0
    for h, v in itertools.product(*([m for taps, m in ERROR if taps == axis.taps] for axis in axes)):
        kappa = math.prod(winograd.amplification(axis.taps, m) if axis.taps > 1 else 1.0 for axis, m in zip(axes, (h, v)))
        roundings = images * math.prod(math.ceil(axis.outputs / m) for axis, m in zip(axes, (h, v))) + 2
        roundings += sum(2 * (winograd.size(axis.taps, m) + 3) + m + 1 for axis, m in zip(axes, (h, v)))
        worst, kappas = max(worst, kappa * TABLE[problem.dtype].gamma(roundings)), max(kappas, kappa)
    transformed = worst * largest(x) * float(weights)
    return summed(problem, magnitude, x, w) + transformed + kappas * flushed(problem, x, w)
