"""Convolution by Fourier transforms of tiles: which tile, and what it costs.

A tile of n0 x n1 inputs gives n - (k - 1)·dilation outputs per axis (overlap-save); where zero padding fits behind the whole
input, one tile of n >= input + padding is enough, as the wrap-around then reads zeros.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

from .problem import ConvProblem

SIZES = sorted(n for a, b, c in itertools.product(range(1, 11), range(3), range(3))
               if 16 <= (n := 2**a * 3**b * 5**c) <= 1024)
_NEAR = 5  # sizes per axis that may be better than the first
MOST_SPECTRA = 1 << 22  # complex numbers of one tile's input channels: 32 MB


def refuses(problem: ConvProblem, chosen: tuple[int, ...] | None = None) -> str | None:
    """Why it (or this tile of it) does not apply, in one line."""
    if problem.ndim == 1 or any(taps != 1 for taps in problem.kernel_size[:-2]):
        return "transforms the last two axes, and no kernel along others"
    if any(stride != 1 for stride in problem.stride[-2:]):
        return "transforms stride 1 only"
    if any(_reach(problem, axis) >= SIZES[-1] for axis in (-2, -1)):
        return f"has tiles of at most {SIZES[-1]} inputs per axis"
    if chosen is not None and not _fits(problem, chosen):
        return "has no such tile for this problem"
    if problem.in_channels // problem.groups * math.prod(chosen or tile(problem)) // 2 > MOST_SPECTRA:
        return "would keep the spectra of too many input channels at a time"
    return None


def _fits(problem: ConvProblem, chosen: tuple[int, ...]) -> bool:
    """Whether it is a tile, and leaves outputs."""
    return (len(chosen) == problem.ndim and set(chosen[:-2]) <= {1}
            and all(chosen[axis] in SIZES and chosen[axis] > _reach(problem, axis) for axis in (-2, -1)))


def _reach(problem: ConvProblem, axis: int) -> int:
    return (problem.kernel_size[axis] - 1) * problem.dilation[axis]


@functools.lru_cache(maxsize=4096)
def tile(problem: ConvProblem) -> tuple[int, ...]:
    """Inputs per tile along each axis, 1 along those before the last two; of least time per output."""
    return (1,) * (problem.ndim - 2) + tuple(_sizes(problem, axis)[0] for axis in (-2, -1))


@functools.lru_cache(maxsize=512)
def choices(problem: ConvProblem) -> tuple[tuple[int, ...], ...]:
    """`tile`, and what its neighbours combine to, those of least `cost` first."""
    near = itertools.product(*(_sizes(problem, axis)[:_NEAR] for axis in (-2, -1)))
    made = [(1,) * (problem.ndim - 2) + last for last in near]
    return (made[0], *sorted(made[1:], key=lambda chosen: cost(problem, 8, chosen)))


def _sizes(problem: ConvProblem, axis: int) -> list[int]:
    """Along one axis, that of least time per output first."""
    possible = [n for n in SIZES if n > _reach(problem, axis)]
    return sorted(possible, key=lambda n: tiles(problem, axis, n) * n * _per_element(n))


def tiles(problem: ConvProblem, axis: int, n: int) -> int:
    """How many tiles of n inputs an axis takes; as the kernel cuts them (kernels/fft.cpp)."""
    length, out = problem.input_size[axis], problem.output_size[axis]
    if problem.padding_mode == "zeros" and n >= max(length + max(0, *problem.padding[axis]), out):
        return 1
    return math.ceil(out / (n - _reach(problem, axis)))


def _per_element(n: int) -> float:
    """Cycles per vector of a transform: its stages, and moving the data in and out; a large tile leaves L2."""
    stages = math.ceil(math.log(n, 4))
    return (6.0 * stages + 4.0) * (1.0 if n <= 320 else 1.3)


def cost(problem: ConvProblem, lanes: int, chosen: tuple[int, ...] | None = None) -> float:
    """Time of one image with packed weights, in vector multiply-adds (two a cycle) of one thread."""
    rows, columns = (chosen or tile(problem))[-2:]
    count = math.prod(problem.output_size[:-2]) * tiles(problem, -2, rows) * tiles(problem, -1, columns)
    channels, outputs = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    blocks = _row_blocks(rows, lanes)
    multiply = 5 * blocks * columns * channels * outputs
    spectra = problem.groups * channels * outputs * blocks * columns * lanes * 2 * np.dtype(problem.dtype).itemsize
    read = spectra * (0.1 if spectra < 12e6 else 0.5)  # from L3 or memory (25 GB/s), for every tile
    return count * (2 * problem.groups * ((channels + outputs) * _transform(rows, columns, lanes) + multiply) + read)


def packing_cost(problem: ConvProblem, lanes: int, chosen: tuple[int, ...] | None = None) -> float:
    """The same for the weights' transforms."""
    rows, columns = (chosen or tile(problem))[-2:]
    return 2 * problem.out_channels * (problem.in_channels // problem.groups) * _transform(rows, columns, lanes)


def _row_blocks(rows: int, lanes: int) -> int:
    """Vectors of those rows of a spectrum that are no conjugates of others."""
    return math.ceil((rows // 2 + 1) / lanes)


def _transform(rows: int, columns: int, lanes: int) -> float:
    """Cycles of one tile's transform in one direction."""
    return columns / 2 / lanes * rows * _per_element(rows) + _row_blocks(rows, lanes) * columns * _per_element(columns)
