"""The gradient of the input by one forward problem: all phases of a stride (see `lowering`) at once.

The phases read the same arrays with different taps. As output channels side by side they are one problem with as many times the
channels, whose windows have the taps of the longest phase, zeros behind those of the shorter ones, and begin where the first
phase's begin; a later one finds its results some positions on. What comes out is put in place last: a pass over the result that
pays where phases have few channels, or where elements that are a stride apart are written one by one (Shi et al. 2016,
arXiv:1609.07009, for the case without zeros).

The zeros meet what their phase does not read: images in which anything is not finite are computed phase by phase.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np

from . import native
from .dtypes import TABLE
from .lowering import Phase, along, pack_once, unfolded
from .problem import ConvProblem
from .settings import current

MOST = 64  # phases along an axis (kernels/arrange.hpp)
_AT_ONCE = 4 << 20  # bytes of results that wait for their places, unless one image has more


class Joined(NamedTuple):
    """The forward problem of one image, and where its arrays lie."""

    whole: ConvProblem
    problem: ConvProblem
    phases: tuple[tuple[Phase, ...], ...]  # by axis
    offsets: tuple[tuple[int, ...], ...]  # of each phase: the position that is its first result
    reads: tuple[slice, ...]  # of the output's gradient

    @property
    def number(self) -> int:
        """Of all phases."""
        return math.prod(map(len, self.phases))

    def first(self, array: np.ndarray) -> np.ndarray:
        """The forward problem's input, of all images."""
        images: tuple[slice, ...] = (slice(None),) * (1 if self.whole.channels_last else 2) + self.reads
        return array[images]

    def second(self, array: np.ndarray) -> np.ndarray:
        """Its weights: (group, phase, input channel of the group) by (output channel of the group, *taps)."""
        p = self.whole
        outputs, inputs = p.out_channels // p.groups, p.in_channels // p.groups
        made = np.zeros((p.groups, self.number, inputs, outputs, *self.problem.kernel_size), p.dtype)
        for at, phases in enumerate(itertools.product(*self.phases)):
            taps = array[(slice(None), slice(None), *(phase.taps for phase in phases))]
            if not taps.size:
                continue
            place: tuple[Any, ...] = (slice(None), at, slice(None), slice(None), *(slice(phase.number) for phase in phases))
            to: np.ndarray = made[place]
            taps = np.swapaxes(taps.reshape(p.groups, outputs, inputs, *taps.shape[2:]), 1, 2)
            if p.groups > 1:
                to[...] = taps
            else:
                native.runtime().arrange(taps[0], to[0], current().num_threads)
        return made.reshape(self.problem.weight_shape)


@functools.lru_cache(maxsize=256)
def joined(p: ConvProblem) -> Joined | None:
    """None: there is but one phase, or they do not fit together."""
    if p.direction != "backward_input" or p.residual or unfolded(p) is not p or max(p.stride) == 1 or p.batch == 0:
        return None
    if max(p.stride) > MOST or native.runtime() is None or p.accuracy == "strict":
        return None
    axes = [_axis(p, axis) for axis in range(p.ndim)]
    if None in axes:
        return None
    phases, offsets, sizes, taps, paddings, reads, apart = zip(*filter(None, axes), strict=True)
    count = math.prod(map(len, phases))
    problem = ConvProblem(
        input_size=tuple(sizes), kernel_size=tuple(taps), in_channels=p.out_channels, out_channels=p.in_channels * count,
        groups=p.groups, dilation=tuple(apart), padding=tuple(paddings), dtype=p.dtype, layout=p.layout, bias=p.bias,
        activation=p.activation, accuracy=p.accuracy)
    return Joined(p, problem, tuple(phases), tuple(offsets), tuple(reads))


def _axis(p: ConvProblem, axis: int) -> tuple[Any, ...] | None:
    """(phases, offsets, inputs, taps, padding, what is read, dilation)."""
    phases = along(p, axis)
    met = [phase for phase in phases if phase.number]
    if not met:
        return None
    begins = {phase.begin: phase.reads.start - phase.padding[0] for phase in met}
    first, taps, apart = min(begins.values()), max(phase.number for phase in met), met[0].dilation
    offsets = tuple(begins.get(phase.begin, first) - first for phase in phases)
    positions = max(offset - (phase.begin - p.input_size[axis]) // p.stride[axis]
                    for offset, phase in zip(offsets, phases, strict=True))
    end, outputs = first + positions + (taps - 1) * apart, p.output_size[axis]
    read = slice(min(max(first, 0), outputs), min(max(end, 0), outputs))
    if read.start >= read.stop:
        return None
    return tuple(phases), offsets, read.stop - read.start, taps, (read.start - first, end - read.stop), read, apart


class JoinedKernel:
    """The kernel of all phases, as one of the gradient.

    Args:
        bind: the kernel of a forward problem.
        otherwise: a kernel of a gradient, phase by phase, for images with anything that is not finite.
    """

    def __init__(self, problem: ConvProblem, bind: Callable[[ConvProblem], Any],
                 otherwise: Callable[[ConvProblem], Any]) -> None:
        found = joined(problem)
        assert found is not None
        self.problem, self.joined, self._bind, self._otherwise = problem, found, bind, otherwise
        self._image = math.prod(found.problem.output_shape) * TABLE[problem.dtype].itemsize
        self._images = max(1, min(problem.batch, _AT_ONCE // self._image))
        self._kernel = bind(dataclasses.replace(found.problem, batch=self._images))
        self.packed_bytes = self._kernel.packed_bytes
        taps = str([[phase.taps for phase in axis] for axis in found.phases])
        self.pack_key: Hashable = ("at once", problem.second_shape, taps, self._kernel.pack_key)

    @property
    def workspace_bytes(self) -> int:
        return self._images * self._image + int(self._kernel.workspace_bytes)

    def pack(self, second: np.ndarray, bias: np.ndarray | None) -> Any:
        """The weights of all phases; those that came, for images that need them."""
        return self._pack(second, bias, self._kernel.pack)

    def once(self, second: np.ndarray, bias: np.ndarray | None) -> Any:
        return self._pack(second, bias, functools.partial(pack_once, self._kernel))

    def _pack(self, second: np.ndarray, bias: np.ndarray | None, of_kernel: Callable[..., Any]) -> Any:
        if not np.isfinite(second).all():
            return second, bias, None
        repeated = None if bias is None else np.repeat(
            bias.reshape(self.problem.groups, 1, -1), self.joined.number, axis=1).reshape(-1)
        return second, bias, of_kernel(self.joined.second(second), repeated)

    def run(self, first: np.ndarray, packed: Any, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        second, bias, weights = packed
        if weights is None:
            other = self._otherwise(self.problem)
            other.run(first, other.pack(second, bias), out)
            return
        spoiled = [begin + int(i) for begin in range(0, self.problem.batch, self._images)
                   for i in np.flatnonzero(self._some(first, weights, out, begin))]
        if spoiled:
            other = self._otherwise(dataclasses.replace(self.problem, batch=1))
            packed = other.pack(second, bias)
            for i in spoiled:
                other.run(first[i:i + 1], packed, out[i:i + 1])

    def _some(self, first: np.ndarray, weights: Any, out: np.ndarray, begin: int) -> np.ndarray:
        """Some images; whether anything in them is not finite."""
        p, found = self.problem, self.joined
        images = slice(begin, min(begin + self._images, p.batch))
        count = images.stop - images.start
        forward = dataclasses.replace(found.problem, batch=count)
        kernel = self._kernel if count == self._images else self._bind(forward)
        parts = (p.groups, found.number, p.in_channels // p.groups)
        size = found.problem.output_size
        made = np.empty((count, *size, *parts) if p.channels_last else (count, *parts, *size), p.dtype)
        kernel.run(found.first(first[images]), weights, made.reshape(forward.output_shape))
        flags: np.ndarray = native.runtime().join_phases(
            made, out[images], p.stride, found.offsets, p.channels_last, current().num_threads)
        return flags
