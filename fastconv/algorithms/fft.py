"""fft: convolution by Fourier transforms of tiles (`kernels/fft.cpp`). Which tile, and what it costs.

A tile of n inputs along an axis gives n - (k - 1)·dilation outputs (overlap-save); where zero padding fits behind the whole
input, one tile of n >= input + padding is enough, as the wrap-around then reads zeros. Images and volumes have tiles of two or
three sizes; where the kernel reaches along the last axis alone, and far, a tile is one row, folded to n1 x n2 (Bailey).
"""

from __future__ import annotations

import functools
import itertools
import math
from bisect import bisect_left, bisect_right

import numpy as np

from ..dtypes import TABLE
from ..problem import ConvProblem
from ..spent import Parts
from ..unit_axes import without_unit_axes
from ._bounds import flushed, largest, summed

SUMS_PRODUCTS = False

_SMOOTH = sorted(2**a * 3**b * 5**c for a, b, c in itertools.product(range(1, 16), range(5), range(4)))
SIZES = [n for n in _SMOOTH if 16 <= n <= 1 << 15 and (n <= 512 or n % 32 == 0)]  # large ones are whole vectors, for all ISAs
DEPTHS = [n for n in _SMOOTH if 4 <= n <= 1 << 15]
FOLDED = sorted(n1 * n2 for n2 in (2**a for a in range(5, 14)) for n1 in _SMOOTH if n2 // 2 < n1 <= n2)
SHORTEST_FOLDED = 256  # outputs and taps in a row, for a tile of its own
_NEAR = 5  # sizes per axis that may be better than the first
MOST_BYTES = 1 << 30  # of the spectra of all weights, unless these take a fourth of it themselves


LARGEST = {"float32": 1e30, "float64": 1e300}  # what is transformed; the rest is added (kernels/fft_spoiled.hpp)


def refuses(problem: ConvProblem, chosen: tuple[int, ...] | None = None) -> str | None:
    """Why it (or this tile of it) does not apply, in one line."""
    for axis in _axes(problem):
        largest = _possible(problem, axis)[-1]
        if _reach(problem, axis) >= largest:
            return f"has tiles of at most {largest} inputs along this axis, and a kernel reaches {_reach(problem, axis) + 1}"
    if chosen is not None and not _fits(problem, chosen):
        return "has no such tile for this problem"
    channels, size = problem.in_channels // problem.groups, TABLE[problem.dtype].itemsize
    most = max(MOST_BYTES, 4 * size * math.prod(problem.weight_shape))
    if channels * problem.out_channels * size * math.prod(chosen or tile(problem)) > most:
        return f"would take more than {most >> 20} MB for the spectra of all weights"
    return None


def _axes(problem: ConvProblem) -> tuple[int, ...]:
    """Those that are transformed, from the last."""
    ndim, kernel = problem.ndim, problem.kernel_size
    if ndim == 1 or (all(taps == 1 for taps in kernel[:-1]) and min(problem.output_size[-1], kernel[-1]) >= SHORTEST_FOLDED):
        return (-1,)
    return (-2, -1) if ndim == 2 or kernel[0] == 1 else (-3, -2, -1)


def _possible(problem: ConvProblem, axis: int) -> list[int]:
    return FOLDED if _axes(problem) == (-1,) else DEPTHS if axis == -3 else SIZES


def _fits(problem: ConvProblem, chosen: tuple[int, ...]) -> bool:
    """Whether it is a tile, and leaves outputs."""
    axes = _axes(problem)
    return (len(chosen) == problem.ndim and set(chosen[:-len(axes)]) <= {1}
            and all(chosen[axis] in _possible(problem, axis) and chosen[axis] > _reach(problem, axis) for axis in axes))


def _reach(problem: ConvProblem, axis: int) -> int:
    return (problem.kernel_size[axis] - 1) * problem.dilation[axis]


def _outputs(problem: ConvProblem, axis: int) -> int:
    """With stride 1: those between the strides are computed too."""
    return (problem.output_size[axis] - 1) * problem.stride[axis] + 1


@functools.lru_cache(maxsize=1024)
def tile(problem: ConvProblem) -> tuple[int, ...]:
    """Inputs per tile along each axis, 1 along those that are not transformed; of least time for the transforms of an input, of
    an output and of a kernel."""
    axes = _axes(problem)
    least, best = math.inf, tuple[int, ...]()
    for few in itertools.product(*(_few(problem, axis) for axis in axes)):
        chosen = tuple(n for n, _ in few)
        seconds = (2 * math.prod(count for _, count in few) + 1) * _transform(chosen, 8)
        if seconds < least:
            least, best = seconds, chosen
    return _whole(problem, best)


@functools.lru_cache(maxsize=64)
def choices(problem: ConvProblem) -> tuple[tuple[int, ...], ...]:
    """`tile`, and what its neighbours combine to, those of least `cost` first."""
    first, near = tile(problem), itertools.product(*(_sizes(problem, axis)[:_NEAR] for axis in _axes(problem)))
    made = {_whole(problem, tuple(n for n, _ in each)) for each in near} - {first}
    return (first, *sorted(made, key=lambda chosen: (sum(cost(problem, 8, chosen).values()), chosen)))


def _whole(problem: ConvProblem, last: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (problem.ndim - len(last)) + last


def _few(problem: ConvProblem, axis: int) -> list[tuple[int, int]]:
    """Two of `_sizes`, and that of a single tile, which can be better together with others than it is alone."""
    near = _sizes(problem, axis)
    return near[:2] + [each for each in near[2:] if each[1] == 1][:1]


def _sizes(problem: ConvProblem, axis: int) -> list[tuple[int, int]]:
    """(size, number of tiles) along one axis, those of least time for all outputs first; a single tile's is among them."""
    possible, reach, out = _possible(problem, axis), _reach(problem, axis), _outputs(problem, axis)
    first, last = bisect_right(possible, reach), bisect_left(possible, out + reach) + 1
    enough = _enough(problem, axis)
    rated = [((2 * count + 1) * _weight(n, possible is FOLDED), n, count) for n in possible[first:last]
             for count in (1 if n >= enough else -(-out // (n - reach)),)]
    best = [(n, count) for _, n, count in sorted(rated)[:_NEAR]]
    single = min((n for _, n, count in rated if count == 1), default=0)
    return best if single == 0 or (single, 1) in best else [*best[:-1], (single, 1)]


def tiles(problem: ConvProblem, axis: int, n: int) -> int:
    """How many tiles of n inputs an axis takes; as the kernel cuts them (kernels/fft_tile.hpp)."""
    return 1 if n >= _enough(problem, axis) else math.ceil(_outputs(problem, axis) / (n - _reach(problem, axis)))


def _enough(problem: ConvProblem, axis: int) -> float:
    """The least size of a tile behind whose inputs zero padding fits."""
    if problem.padding_mode != "zeros":
        return math.inf
    return max(problem.input_size[axis] + max(0, *problem.padding[axis]), _outputs(problem, axis))


@functools.cache
def _weight(n: int, folded: bool) -> float:
    """Of a transform along one of several axes, or of a folded one."""
    return _transform((n,), 8) if folded else n * _per_element(n)


@functools.cache
def _per_element(n: int) -> float:
    """Cycles per vector of a transform: its stages, and moving the data in and out."""
    return 6.0 * math.ceil(math.log(n, 4)) + 4.0


_FILL = 8.0  # cycles per vector of columns: to read the input, and to write the output
_CALL = 200.0  # cycles of a transform beside its elements
_TURN = 6.0  # cycles per vector of a folded row
_TABLES = 100.0  # cycles per row and column of a tile, for sines: a folded one three times for rows


def cost(problem: ConvProblem, lanes: int, chosen: tuple[int, ...] | None = None) -> Parts:
    """Time of one image with packed weights, in vector multiply-adds (two a cycle) of one thread."""
    made = chosen or tile(problem)
    axes = _axes(problem)
    count = math.prod(problem.output_size[:-len(axes)]) * math.prod(tiles(problem, axis, made[axis]) for axis in axes)
    channels, outputs = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    depth, rows, columns = _folded(made)
    blocks = depth * _row_blocks(rows, lanes)
    multiply = 5 * blocks * columns * channels * outputs
    spectra = _spectra(problem, made, lanes)
    read = spectra * (0.1 if spectra < 12e6 else 0.5)  # from L3 or memory (25 GB/s), for every tile
    each = 2 * problem.groups * count
    transformed = each * (channels + outputs) * _transform(made, lanes)
    return {"products": each * multiply, "transforms": transformed, "weights": count * read, **_one_by_one(problem)}


def _one_by_one(problem: ConvProblem) -> Parts:
    """Inputs and outputs that do not lie side by side, and outputs between which others are left out."""
    apart = problem.channels_last and problem.in_channels + problem.out_channels > 2
    read = problem.in_channels * math.prod(problem.input_size) if apart else 0
    written = problem.out_channels * math.prod(problem.output_size) if apart or problem.stride[-1] > 1 else 0
    return {"inputs": 16.0 * read, "outputs": 8.0 * written}


def packing_cost(problem: ConvProblem, lanes: int, chosen: tuple[int, ...] | None = None) -> float:
    """The same for the weights' transforms; many are written to memory that must be mapped first."""
    made = chosen or tile(problem)
    depth, rows, columns = _folded(made)
    spectra = _spectra(problem, made, lanes)
    written = spectra * (0.3 if spectra < 12e6 else 1.0)
    tables = _TABLES * (depth + rows * (3 if made[-1] != columns else 1) + columns)
    return 2 * (problem.out_channels * (problem.in_channels // problem.groups) * _transform(made, lanes) + tables) + written


def _spectra(problem: ConvProblem, chosen: tuple[int, ...], lanes: int) -> int:
    """Bytes of all weights' spectra."""
    depth, rows, columns = _folded(chosen)
    size = depth * _row_blocks(rows, lanes) * columns * lanes * 2 * TABLE[problem.dtype].itemsize
    return problem.out_channels * (problem.in_channels // problem.groups) * size


def _folded(chosen: tuple[int, ...]) -> tuple[int, int, int]:
    """Depth, rows and columns of a tile as the kernel transforms it (kernels/fft_tile.hpp)."""
    if math.prod(chosen[:-1]) > 1:
        return (1, *chosen)[-3:]  # type: ignore[return-value]
    columns = 32
    while columns * columns < chosen[-1]:
        columns *= 2
    return 1, chosen[-1] // columns, columns


def _row_blocks(rows: int, lanes: int) -> int:
    """Vectors of those rows of a spectrum that are no conjugates of others."""
    return math.ceil((rows // 2 + 1) / lanes)


@functools.lru_cache(maxsize=1024)
def _transform(chosen: tuple[int, ...], lanes: int) -> float:
    """Cycles of one tile's transform in one direction; a large one leaves L2, and then L3."""
    depth, rows, columns = _folded(chosen)
    along = _per_element(columns) + (_per_element(depth) + _FILL if depth > 1 else 0.0)
    along += _TURN if chosen[-1] != columns else 0.0
    far = max(1.0, 1.0 + 0.12 * math.log2(depth * rows * columns / (1 << 17)))
    uneven = 1.15 if columns % 32 else 1.0  # not pairs of vectors: these straddle lines
    return far * uneven * depth * (math.ceil(columns / 2 / lanes) * (rows * (_per_element(rows) + _FILL) + _CALL)
                          + _row_blocks(rows, lanes) * (columns * along + _CALL))


def bound(problem: ConvProblem, magnitude: np.ndarray, x: np.ndarray, w: np.ndarray,
          chosen: tuple[int, ...] | None = None) -> np.ndarray:
    """32·u·log2(n)·√C·max|x|·‖w‖₂ with n inputs per tile, w being one input channel's of an output channel, on top of the bound
    of direct. What is larger than `LARGEST` is not transformed.

    Not proven for all data: the transforms' roundings spread over a whole tile, and add up like independent ones. The root of
    their mean square is about u·√log2(n)·‖x‖₂·‖w‖₂ / √n with ‖x‖₂ <= √n·max|x|, so 32 leaves 5 standard deviations and more.
    """
    problem, _ = without_unit_axes(problem)
    size = math.prod(chosen or tile(problem))
    most = LARGEST[problem.dtype]
    most_input = largest(x)
    if most_input > most:
        most_input = float(np.max(np.abs(x), where=np.abs(x) <= most, initial=0.0))
    finite = np.where(np.abs(w) <= most, w, 0).astype(np.float64)
    norm = math.sqrt(float((finite**2).sum(axis=tuple(range(2, w.ndim))).max(initial=0.0)))
    channels = math.sqrt(problem.in_channels // problem.groups)
    spread = 32 * TABLE[problem.dtype].roundoff * math.log2(size) * channels * most_input * norm
    return summed(problem, magnitude, x, w) + spread + size * flushed(problem, x, w)
