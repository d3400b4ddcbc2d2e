"""winograd: minimal filtering F(m, r) (`kernels/winograd.cpp`). Its matrices, their rounding errors, the tile of a problem.

y = A^T [(G g) · (B^T d)]: m outputs of r taps g on n = m + r - 1 inputs d, with n products instead of rm; in two dimensions
once along each axis. Constructed after Toom and Cook from n - 1 points and infinity (Lavin & Gray 2015, arXiv:1509.09308;
Barabasz et al. 2018, arXiv:1803.10986). The points are those of small error: the usual 0, ±1, ±2 of F(4, 3) doubles it.

A kernel that is strided, large or deep is the sum of several *components* of up to five taps along each of the last two axes,
which add up before the outputs are transformed; see `Components`. A kernel along depth alone is transformed as one along
height; see `upright`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from .. import machine
from ..dtypes import TABLE
from ..problem import ConvProblem
from ..settings import current
from ..spent import Parts
from ..unit_axes import without_unit_axes
from ._bounds import flushed, largest, summed
from ._costs import is_widest, while_packed, while_read

SUMS_PRODUCTS = False
PACKS_ANY_ORDER = True
CALLS = 5
MOST_TAPS = 5
POINTS = {
    4: (0.0, 1.0, -1.0),
    5: (0.0, 0.7, -0.7, 2.0),
    6: (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2), -math.sqrt(2)),
    7: (0.0, 0.55, -0.55, 1.1, -1.1, 2.5),
    8: (0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0),
}  # by the number of products; the kernels' own are in kernels/toom.hpp
ERROR = {4: 0.9, 5: 1.3, 6: 1.5, 7: 2.45, 8: 3.1}  # of 3 taps: RMS over direct's along one axis, zero-mean data, 16 channels
SPILLED = 160e3  # bytes of a tile's transformed inputs, of which a block's (24 tiles at least) are beyond any L2
L2 = 1 << 20  # bytes of transformed weights that it holds
DEALT = 1 << 20  # bytes of the weights of two vectors of output channels, at most, where calls read several components in place
FAR, OF_ONE = 4 << 20, 256  # bytes of transformed weights beyond L2; of the output channels that one item computes at most
ADMITTED = {"fast": 4.0, "loose": math.inf}  # of `error`, by accuracy


class Components(NamedTuple):
    """How the taps along an axis are dealt out: to `number` components of `taps`, of which only `full` have all of them.

    With a stride s every s-th tap works on every s-th input, so that each phase is a component of its own, with stride 1.
    Phases of more than five taps are cut into pieces of three or four.
    """

    taps: int
    number: int
    full: int


@functools.cache
def components(kernel: int, stride: int) -> Components:
    phases, longest = min(kernel, stride), math.ceil(kernel / stride)
    pieces = math.ceil(longest / 4) if longest > MOST_TAPS else 1
    taps = math.ceil(longest / pieces)
    firsts = [phase + piece * taps * stride for piece in range(pieces) for phase in range(phases)]
    return Components(taps, len(firsts), sum(first + (taps - 1) * stride < kernel for first in firsts))


class Matrices(NamedTuple):
    """A^T (m, n), G (n, r), B^T (n, n), float64; the last row of each G and B^T belongs to infinity."""

    outputs: np.ndarray
    weights: np.ndarray
    inputs: np.ndarray


@functools.cache
def matrices(m: int, taps: int) -> Matrices:
    """Of F(m, taps)."""
    points = POINTS[size(m, taps)]
    products = len(points) + 1
    outputs, weights, inputs = np.zeros((m, products)), np.zeros((products, taps)), np.zeros((products, products))
    for i, point in enumerate(points):
        others = points[:i] + points[i + 1:]
        outputs[:, i] = [point**j for j in range(m)]
        weights[i] = [point**t / math.prod(point - other for other in others) for t in range(taps)]
        inputs[i, :-1] = np.poly(others)[::-1]
    outputs[-1, -1] = weights[-1, -1] = 1
    inputs[-1] = np.poly(points)[::-1]
    return Matrices(outputs, weights, inputs)


@functools.cache
def amplification(m: int, taps: int) -> float:
    """κ: an error of ε in everything that is multiplied is at most κ·ε·max|d|·Σ|g| in an output; 1 without a transform."""
    if taps == 1:
        return 1.0
    outputs, weights, inputs = map(np.abs, matrices(m, taps))
    return float((outputs @ (inputs.sum(axis=1)[:, None] * weights)).max())


def size(m: int, taps: int) -> int:
    """Products, and inputs, per axis."""
    return m + taps - 1


def refuses(problem: ConvProblem, chosen: tuple[int, ...] | None = None) -> str | None:
    """Why it (or this tile of it) does not apply, in one line."""
    problem = upright(problem)
    if all(axis.taps == 1 for axis in axes(problem)):
        return "transforms kernels of several taps along one of the last two axes, or along depth alone"
    if any(min(two) > 1 for two in zip(problem.stride[-2:], problem.dilation[-2:], problem.kernel_size[-2:])):
        return "transforms no dilation together with a stride"
    if not choices(problem):
        return "has no tile whose error this accuracy admits: so few products have hardly any in direct"
    if chosen is not None and chosen not in choices(problem):
        return "has no such tile for this problem and accuracy"
    return None


@functools.lru_cache(maxsize=512)
def upright(problem: ConvProblem) -> ConvProblem:
    """The problem, where the kernel is along depth alone with depth and height in each other's place; tiles are of this one."""
    if problem.ndim < 3 or problem.kernel_size[0] == 1 or set(problem.kernel_size[1:]) != {1}:
        return problem

    def turned(of: tuple[Any, ...]) -> tuple[Any, ...]:
        return of[1], of[0], of[2]

    return dataclasses.replace(
        problem, input_size=turned(problem.input_size), kernel_size=turned(problem.kernel_size), stride=turned(problem.stride),
        padding=turned(problem.padding), dilation=turned(problem.dilation))


def axes(problem: ConvProblem) -> list[Components]:
    """Along the last two axes, or the only one."""
    problem = upright(problem)
    return list(map(components, problem.kernel_size[-2:], problem.stride[-2:]))


@functools.lru_cache(maxsize=1024)
def tile(problem: ConvProblem) -> tuple[int, ...]:
    """Outputs per tile along each axis, 1 where nothing is transformed; of those whose error `problem.accuracy` admits, the
    one of least `cost`. Depends on the image alone, not on batch, threads or ISA."""
    return choices(problem)[0]


@functools.lru_cache(maxsize=64)
def choices(problem: ConvProblem) -> tuple[tuple[int, ...], ...]:
    """All of these, the one of least `cost` first."""
    along = _work(problem).along
    leading = (1,) * (problem.ndim - len(along))
    limit = ADMITTED["loose" if problem.accuracy == "loose" else "fast"]
    admitted = [leading + last for last in itertools.product(*along) if error(problem, last) <= limit]
    kind = machine.typical()
    return tuple(sorted(admitted, key=lambda chosen: sum(_cost(problem, 8, chosen, 1, kind).values())))


def error(problem: ConvProblem, tile: tuple[int, ...]) -> float:
    """RMS over direct's, zero-mean data, at least: no ISA was measured above it in two dimensions, where it is up to 4.

    Direct's grows with the root of the number of taps, which here are in components. The fewer terms a sum of products has,
    the more the errors of the transforms, which are there once, stand out.
    """
    work = _work(problem)
    found = work.error
    for m, axis in zip(tile[-2:], work.along):
        found *= axis[m].error
    return found


class Along(NamedTuple):
    """What cost and error of a tile ask of an axis, by its outputs along it."""

    size: int  # products, and inputs
    tiles: int
    multiplied: int  # products of all components
    error: float


class Work(NamedTuple):
    """What cost and error of a tile ask of a problem, upright."""

    along: tuple[dict[int, Along], ...]
    before: int  # outputs along the axes where nothing is transformed
    depth: int
    channels: int  # per group, as are outputs; times depth and components: of the transforms
    transformed: int
    outputs: int
    groups: int
    strided: bool
    dilated: bool
    itemsize: int
    error: float  # what of it is the same for all tiles


@functools.lru_cache(maxsize=64)
def _work(problem: ConvProblem) -> Work:
    p = upright(problem)
    parts = axes(p)
    along = tuple(map(_along, parts, p.output_size[-2:], p.dilation[-2:]))
    depth, channels, outputs = math.prod(p.kernel_size[:-2]), p.in_channels // p.groups, p.out_channels // p.groups
    transformed = channels * depth * math.prod(axis.number for axis in parts)
    error = math.sqrt(max(1.0, 0.8 + 20 / transformed))
    for axis, kernel in zip(parts, p.kernel_size[-2:]):
        if axis.taps > 1:
            error *= math.sqrt(3 * axis.number / kernel)
    return Work(along, math.prod(p.output_size[:-2]), depth, channels, transformed, outputs, p.groups, p.stride[-1] > 1,
                p.dilation[-1] > 1 and parts[-1].taps > 1, TABLE[p.dtype].itemsize, error)


def _along(axis: Components, outputs: int, dilation: int) -> dict[int, Along]:
    """By the outputs of a tile that are possible."""
    taps, number, full = axis
    if taps == 1:
        return {1: Along(1, outputs, full, 1.0)}
    sizes = {m: size(m, taps) for m in range(2, 8) if size(m, taps) in POINTS}
    return {m: Along(n, _tiles(outputs, dilation, m), n * full + (n - 1) * (number - full), ERROR[n]) for m, n in sizes.items()}


def cost(problem: ConvProblem, lanes: int, chosen: tuple[int, ...] | None = None) -> Parts:
    """Time of one image with packed weights, in vector multiply-adds of one thread (see kernels/README.md).

    Products, nearly a half more in vectors of 64 bytes, which wait for loads, and as of three tiles where there are fewer,
    whose sums wait for each other; then per tile 12 for each vector of products that comes out, 5 per vector of input channels
    and element of a column that is transformed, 22 per input where a stride is taken out, 3 per input and 95 per output between
    which a dilation lies; the transformed weights are read meanwhile, from L3 or memory, once for every block of tiles, of all
    images that a call is expected to have. Fitted to 548 pairs of layer and tile on Zen 4, from 3 input channels on: within
    1.2x of the time from 10 to 98 %.
    """
    return _cost(problem, lanes, chosen or tile(problem), current().expected_batch or 1)


def _cost(problem: ConvProblem, lanes: int, chosen: tuple[int, ...], images: int,
          here: machine.Machine | None = None) -> Parts:
    work = _work(problem)
    m, n = ((1,) + chosen)[-2:]  # outputs of a tile
    w = work.along[-1][n]
    h = work.along[0][m] if len(work.along) > 1 else Along(1, 1, 1, 1.0)
    tiles, multiplied, products = work.before * h.tiles * w.tiles, work.depth * h.multiplied * w.multiplied, h.size * w.size
    out_vectors, in_vectors = -(-work.outputs // lanes), -(-work.transformed // lanes)
    weights = multiplied * work.channels * work.outputs * work.itemsize
    each = 1.42 if is_widest(problem, lanes) else 1.0 if weights <= L2 else 1.14
    each *= max(1.0, 3 / (tiles * images))
    multiplying = each * multiplied * work.channels * out_vectors  # of a tile
    columns = n * h.size * (m > 1) + products * (n > 1) + h.size * n  # of the two passes over a tile, and its inputs
    transforming = 12.3 * products * out_vectors + 4.9 * in_vectors * columns
    if products * work.transformed * work.itemsize > SPILLED:
        transforming += 135 * products * in_vectors
    if work.strided:
        transforming += 22 * in_vectors * n * h.size
    elif work.dilated:
        transforming += n * (3 * in_vectors * h.size + 95 * out_vectors * m)
    times = _times_read(weights, products * (work.transformed + 64) * work.itemsize, tiles * images) / images
    tiles *= work.groups
    return while_read(problem, lanes, {"products": tiles * multiplying, "transforms": tiles * transforming}, weights,
                      work.groups * times, here=here)


def _times_read(weights: int, tile_bytes: int, tiles: int) -> int:
    """The weights, once for each of the blocks that the kernel makes of the tiles."""
    return math.ceil(tiles / (min(120, max(30, 5e6 / tile_bytes)) if weights > 4e6 else 48))


def packing_cost(problem: ConvProblem, lanes: int, chosen: tuple[int, ...] | None = None) -> float:
    """The same of transforming the weights: taps of all components are dealt out and transformed, twice as long where that is
    more than a cache holds; few input channels are handled as one would be. Where a call transforms them on the way
    (`in_place` in kernels/winograd.cpp), they are dealt out for each block of tiles, and nothing goes to memory."""
    made = chosen or tile(problem)
    work, item = _work(problem), TABLE[problem.dtype].itemsize
    problem = upright(problem)
    along, depth = axes(problem), math.prod(problem.kernel_size[:-2])
    dealt = depth * math.prod(axis.number * axis.taps for axis in along)
    written = depth * math.prod(axis.number * size(m, axis.taps) for m, axis in zip(made[-2:], along))
    channels = problem.in_channels // problem.groups
    pairs = problem.out_channels * (channels + 2)
    one = written < 2 * math.prod(size(m, axis.taps) for m, axis in zip(made[-2:], along))  # component
    if (one or dealt * channels * 2 * lanes * item <= DEALT) and work.outputs * item > OF_ONE:
        tiles = work.before * math.prod(axis[m].tiles for m, axis in zip(made[-len(along):], work.along))
        blocks = math.ceil(tiles * (current().expected_batch or 1) / max(30, 5e6 / (written * (channels * item + OF_ONE))))
        if blocks == 1 or written * channels * work.outputs * item > FAR:
            return blocks * pairs / lanes * (12 * dealt + 3 * written)
    in_bytes = (written + problem.kernel_volume) * item * pairs
    return while_packed(problem, lanes, pairs / lanes * (dealt + written) * 8, in_bytes)


def _tiles(length: int, dilation: int, m: int) -> int:
    """Tiles along an axis; every `dilation`-th output is a convolution of its own."""
    phases = min(dilation, length) if m > 1 else 1
    shorter, longer = divmod(length, phases)
    return longer * math.ceil((shorter + 1) / m) + (phases - longer) * math.ceil(shorter / m)


def bound(problem: ConvProblem, magnitude: np.ndarray, x: np.ndarray, w: np.ndarray,
              chosen: tuple[int, ...] | None = None) -> np.ndarray:
    """γ_n·κ·max|x|·Σ|w|, and the bound of direct for what is computed again or added.

    κ is the product of the axes' amplifications (`amplification`). On its way a value is rounded at most a + 3 times
    by each of the two transforms along an axis with a products, r + 1 times by that of r weights (their constants included),
    and C + 1 times among C input channels, each once for every component of the kernel. What is flushed to 0 on the way is
    amplified likewise.
    """
    problem, _ = without_unit_axes(problem)
    along = list(zip((chosen or tile(problem))[-2:], axes(problem)))
    kappa = math.prod(amplification(m, axis.taps) for m, axis in along)
    components = math.prod(problem.kernel_size[:-2]) * math.prod(axis.number for _, axis in along)
    roundings = problem.in_channels // problem.groups * components + 1
    roundings += sum(2 * (size(m, axis.taps) + 3) + axis.taps + 1 for m, axis in along if axis.taps > 1)
    weights = np.where(np.isfinite(w), np.abs(w), 0).reshape(len(w), -1).sum(axis=1, dtype=np.float64).max(initial=0.0)
    transformed = TABLE[problem.dtype].gamma(roundings) * kappa * largest(x) * float(weights)
    return summed(problem, magnitude, x, w) + transformed + kappa * flushed(problem, x, w)
