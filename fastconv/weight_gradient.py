"""The gradient of the weight as products of matrices: pixels are what is summed over.

∂w[o, c, t] = Σ ∂y[n, o, j]·x[n, c, j·s + t·d - p] over all images n and outputs j. Where the padded input and ∂y lie with the
same distance from row to row (∂y with zeros between its rows), j is one index q, a tap is an offset into the input, and the sum
is a scalar product of two contiguous runs: a forward problem with a 1x1 kernel, whose channels are the pixels q (those of a few
images, where these are small), whose positions are the input channels and the taps, an overlapping view, and whose weights are
∂y. With a stride the taps of each phase are such a problem. Images are added up in their order, by means of the residual.

The zeros between rows meet inputs that they should not: where these are not finite, the sum is made another way.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np

from .problem import ConvProblem
from .window import pad

_ENOUGH = 2048  # pixels of a product: fewer are those of several images
_MOST_GROUPS = 32  # each is a product of its own


class Taps(NamedTuple):
    """Those of one phase along an axis: every `step`-th from `first` on."""

    first: int
    step: int
    number: int
    begin: int  # what the first output reads by the first of them, in the padded input
    apart: int  # what it reads by the next, in inputs of the phase
    length: int  # of all inputs that a phase reads, the one with most taps


def applies(p: ConvProblem) -> bool:
    """Whether there are not too many groups."""
    return p.direction == "backward_weight" and p.groups <= _MOST_GROUPS and p.batch > 0


@functools.lru_cache(maxsize=256)
def phases(p: ConvProblem) -> tuple[tuple[Taps, ...], ...]:
    """The taps that are products of their own, by axis."""
    return tuple(itertools.product(*(_along(*axis) for axis in zip(p.kernel_size, p.stride, p.dilation, p.output_size))))


def _along(kernel: int, stride: int, dilation: int, outputs: int) -> list[Taps]:
    common = math.gcd(stride, dilation)
    step, apart = stride // common, dilation // common
    length = (-(-kernel // step) - 1) * apart + outputs
    return [Taps(first, step, -(-(kernel - first) // step), first * dilation, apart, length)
            for first in range(min(step, kernel))]


def images_at_once(p: ConvProblem) -> int:
    return min(p.batch, -(-_ENOUGH // math.prod(p.output_size)))


def product(p: ConvProblem, taps: tuple[Taps, ...], images: int, more: bool) -> ConvProblem:
    """The forward problem of some images; `more`: its products are added to those of others. The channels of the input are one
    more axis, or, after three axes of taps, images."""
    channels, numbers = p.in_channels // p.groups, tuple(along.number for along in taps)
    batch, space = (channels, numbers) if p.ndim == 3 else (1, (channels, *numbers))
    return ConvProblem(
        input_size=space, kernel_size=(1,) * len(space), in_channels=_pixels(p, taps, images),
        out_channels=p.out_channels // p.groups, batch=batch, dtype=p.dtype, layout="channels_last", residual=more,
        accuracy=p.accuracy)


def _pixels(p: ConvProblem, taps: tuple[Taps, ...], images: int) -> int:
    """Of all images, zeros between the rows included, up to the last output."""
    last = 0
    for outputs, along in zip(p.output_size, taps, strict=True):
        last = last * along.length + outputs - 1
    return (images - 1) * math.prod(along.length for along in taps) + last + 1


@functools.lru_cache(maxsize=256)
def products(p: ConvProblem) -> tuple[tuple[ConvProblem, int], ...]:
    """(forward problem, how often) that make up the gradient."""
    at_once = images_at_once(p)
    found: dict[ConvProblem, int] = {}
    for taps in phases(p):
        for first in range(0, p.batch, at_once):
            problem = product(p, taps, min(at_once, p.batch - first), first > 0)
            found[problem] = found.get(problem, 0) + p.groups
    return tuple(found.items())


class ProductKernel:
    """The kernels of the products, as one of the gradient.

    Args:
        bind: the kernel of a forward problem.
        otherwise: a kernel of the gradient for input that is not finite.
    """

    def __init__(self, problem: ConvProblem, bind: Callable[[ConvProblem], Any], otherwise: Callable[[], Any]) -> None:
        self.problem, self._otherwise = problem, otherwise
        self._kernels = {each: bind(each) for each, _ in products(problem)}
        image = max(math.prod(along.length for along in taps) for taps in phases(problem)) * np.dtype(problem.dtype).itemsize
        channels = (problem.in_channels + problem.out_channels) // problem.groups
        self._copied = images_at_once(problem) * channels * image
        self.packed_bytes = 0
        self.pack_key: Hashable = ("products", problem)

    @property
    def workspace_bytes(self) -> int:
        return self._copied + max(kernel.workspace_bytes for kernel in self._kernels.values())

    def pack(self, gradient: np.ndarray, bias: np.ndarray | None) -> Any:
        return gradient

    def run(self, array: np.ndarray, gradient: np.ndarray, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        p, at_once = self.problem, images_at_once(self.problem)
        first, second = (np.moveaxis(a, -1, 1) if p.channels_last else a for a in (array, gradient))
        inputs, outputs = p.in_channels // p.groups, p.out_channels // p.groups
        for begin, g in itertools.product(range(0, p.batch, at_once), range(p.groups)):
            images = slice(begin, min(begin + at_once, p.batch))
            x = pad(first[images, g * inputs:(g + 1) * inputs], p)
            y = second[images, g * outputs:(g + 1) * outputs]
            weights = _side_by_side(y, tuple(along.length for along in phases(p)[0])).reshape(outputs, -1)
            for taps in phases(p):
                self._add(x, weights, out[g * outputs:(g + 1) * outputs], taps, begin > 0)
        if not np.isfinite(out).all():
            other = self._otherwise()
            other.run(array, other.pack(gradient, None), out)

    def _add(self, x: np.ndarray, weights: np.ndarray, out: np.ndarray, taps: tuple[Taps, ...], more: bool) -> None:
        """The products of some images for the taps of a phase."""
        p = self.problem
        problem = product(p, taps, len(x), more)
        kernel, pixels = self._kernels[problem], problem.in_channels
        windows = _side_by_side(x[(slice(None), slice(None), *_read(p, taps))], tuple(along.length for along in taps))
        steps: list[int] = []
        pitch = windows.itemsize
        for along in reversed(taps):
            steps.insert(0, along.apart * pitch)
            pitch *= along.length
        seen = np.lib.stride_tricks.as_strided(windows, (x.shape[1], *(along.number for along in taps), pixels),
                                               (windows.strides[0], *steps, windows.itemsize), writeable=False)
        result = np.moveaxis(out[(slice(None), slice(None), *(slice(along.first, None, along.step) for along in taps))], 0, -1)
        if p.ndim < 3:
            seen, result = seen[None], result[None]
        packed = kernel.pack(weights[:, :pixels].reshape(len(weights), pixels, *[1] * problem.ndim), None)
        kernel.run(seen, packed, result, result if more else None)


def _read(p: ConvProblem, taps: tuple[Taps, ...]) -> tuple[slice, ...]:
    """Of the padded input, what a phase reads."""
    return tuple(slice(along.begin, along.begin + (along.length - 1) * stride + 1, stride)
                 for along, stride in zip(taps, p.stride, strict=True))


def _side_by_side(images: np.ndarray, lengths: tuple[int, ...]) -> np.ndarray:
    """(images, channels, *space) as contiguous (channels, images, *lengths), zeros behind what there is; itself where it lies
    like that."""
    swapped = np.swapaxes(images, 0, 1)
    if lengths == images.shape[2:]:
        return np.ascontiguousarray(swapped)
    made = np.zeros((*swapped.shape[:2], *lengths), images.dtype)
    made[(slice(None), slice(None), *map(slice, images.shape[2:]))] = swapped
    return made
