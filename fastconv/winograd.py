"""Winograd's minimal filtering F(m, 3): its matrices, how much they amplify rounding errors, and the tile of a problem.

y = A^T [(G g) · (B^T d)]: m outputs of 3 taps g on m + 2 inputs d, with m + 2 products instead of 3m; in two dimensions once
along each axis. Constructed after Toom and Cook from m + 1 points and infinity (Lavin & Gray 2015, arXiv:1509.09308; Barabasz
et al. 2018, arXiv:1803.10986). The points are those of small error: the usual 0, ±1, ±2 of F(4, 3) doubles it.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from .problem import ConvProblem

TAPS = 3
POINTS = {
    2: (0.0, 1.0, -1.0),
    3: (0.0, 0.7, -0.7, 2.0),
    4: (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2), -math.sqrt(2)),
    5: (0.0, 0.55, -0.55, 1.1, -1.1, 2.5),
    6: (0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0),
}  # the kernels' own are in kernels/toom.hpp
ERROR = {1: 1.0, 2: 0.9, 3: 1.3, 4: 1.5, 5: 2.45, 6: 3.1}  # RMS over direct's along one axis, zero-mean data, 16 channels
ADMITTED = 4.0  # of the product over the axes, by accuracy="fast"


class Matrices(NamedTuple):
    """A^T (m, m + 2), G (m + 2, 3), B^T (m + 2, m + 2), float64; the last row of each G and B^T belongs to infinity."""

    outputs: np.ndarray
    weights: np.ndarray
    inputs: np.ndarray


@functools.cache
def matrices(m: int) -> Matrices:
    """Of F(m, 3), m from 2 to 6."""
    points = POINTS[m]
    size = len(points) + 1
    outputs, weights, inputs = np.zeros((m, size)), np.zeros((size, TAPS)), np.zeros((size, size))
    for i, point in enumerate(points):
        others = points[:i] + points[i + 1:]
        outputs[:, i] = [point**j for j in range(m)]
        weights[i] = [point**t / math.prod(point - other for other in others) for t in range(TAPS)]
        inputs[i, :-1] = np.poly(others)[::-1]
    outputs[-1, -1] = weights[-1, -1] = 1
    inputs[-1] = np.poly(points)[::-1]
    return Matrices(outputs, weights, inputs)


@functools.cache
def amplification(m: int) -> float:
    """κ: an error of ε in everything that is multiplied is at most κ·ε·max|d|·Σ|g| in an output; 1 without a transform."""
    if m == 1:
        return 1.0
    outputs, weights, inputs = map(np.abs, matrices(m))
    return float((outputs @ (inputs.sum(axis=1)[:, None] * weights)).max())


def size(m: int) -> int:
    """Products, and inputs, per axis."""
    return m + TAPS - 1 if m > 1 else 1


def refuses(problem: ConvProblem, chosen: tuple[int, ...] | None = None) -> str | None:
    """Why it (or this tile of it) does not apply, in one line."""
    last = problem.kernel_size[-2:]
    if any(taps not in (1, TAPS) for taps in last) or TAPS not in last or any(taps != 1 for taps in problem.kernel_size[:-2]):
        return "transforms kernels of 3 taps along the last two axes or one of them"
    if any(stride != 1 for stride in problem.stride[-2:]):
        return "transforms stride 1 only"
    if chosen is not None and chosen not in choices(problem):
        return "has no such tile for this problem and accuracy"
    return None


@functools.lru_cache(maxsize=4096)
def tile(problem: ConvProblem) -> tuple[int, ...]:
    """Outputs per tile along each axis, 1 where nothing is transformed; of those whose error `problem.accuracy` admits, the
    one of least `cost`. Depends on the image alone, not on batch, threads or ISA."""
    return choices(problem)[0]


@functools.lru_cache(maxsize=512)
def choices(problem: ConvProblem) -> tuple[tuple[int, ...], ...]:
    """All of these, the one of least `cost` first."""
    lengths = [tuple(POINTS) if taps == TAPS else (1,) for taps in problem.kernel_size[-2:]]
    leading = (1,) * (problem.ndim - len(lengths))
    made = [leading + last for last in itertools.product(*lengths) if problem.accuracy == "loose" or admitted(last)]
    return tuple(sorted(made, key=lambda tile: cost(problem, tile, 8)))


def admitted(tile: tuple[int, ...]) -> bool:
    """Whether accuracy="fast" takes it."""
    return math.prod(ERROR[m] for m in tile) <= ADMITTED


def cost(problem: ConvProblem, tile: tuple[int, ...], lanes: int) -> float:
    """Time of one image with packed weights, in vector multiply-adds of one thread (see kernels/README.md).

    Products, then per tile and vector of channels 3 cycles per element of a transformed column and side, then the
    transformed weights, which come from L3 or memory once for every few dozen tiles.
    """
    channels, outputs = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    tiles = math.prod(map(_tiles, problem.output_size, problem.dilation, tile))
    products = math.prod(map(size, tile))
    transform = 6.6 * _columns(tile)
    out_vectors = math.ceil(outputs / lanes)
    vectors = math.ceil(channels / lanes) + out_vectors
    weights = products * channels * outputs * np.dtype(problem.dtype).itemsize
    per_byte = 0.03 if weights < 12e6 else 0.14 if weights < 32e6 else 0.22
    multiplied = tiles * products * (channels * max(out_vectors, 1.4) + 8 * out_vectors)
    return problem.groups * (multiplied + tiles * vectors * transform + math.ceil(tiles / 48) * weights * per_byte)


def _tiles(length: int, dilation: int, m: int) -> int:
    """Tiles along an axis; every `dilation`-th output is a convolution of its own."""
    phases = min(dilation, length) if m > 1 else 1
    shorter, longer = divmod(length, phases)
    return longer * math.ceil((shorter + 1) / m) + (phases - longer) * math.ceil(shorter / m)


def _columns(tile: tuple[int, ...]) -> float:
    """Elements of the columns that the two passes over a tile transform."""
    first, last = ((1,) + tile)[-2:]
    return last * size(first) * (first > 1) + size(first) * size(last) * (last > 1) + size(first) * last
