"""A direction as forward problems on views of the same arrays, so that whoever computes the forward direction computes all.

*Gradient of the input*, ∂x[i] = Σ w[t]·∂y[j] over all t, j with j·s + t·d - p = i. Along each axis the inputs i fall into s
phases r = (i + p) mod s; a phase meets only the taps with t·d ≡ r (mod s), that is every (s / gcd(s, d))-th one, and reads ∂y
with stride 1 and dilation d / gcd(s, d): a forward problem with these taps flipped, input and output channels swapped, that
writes every s-th element of ∂x. A phase that meets no tap is zero. Where the padding repeats the input, it is the gradient of
the padded input, each border element of which is then added to the one that it repeats. Transposed convolution is this
gradient with bias and activation (Dumoulin & Visin 2016, arXiv:1603.07285, chapter 4).

*Gradient of the weight*, ∂w[o, c, t] = Σ x[n, c, j·s + t·d - p]·∂y[n, o, j] over all n, j: a forward problem with batch and
channels swapped, ∂y as its kernel, stride and dilation swapped.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np

from . import activations
from .problem import ConvProblem
from .window import index_map, pad

Index = tuple[slice, ...]


class Phase(NamedTuple):
    """The inputs of one phase along an axis."""

    begin: int  # the first of them; they are a stride apart
    taps: slice  # in the order in which they are met, which is backwards
    reads: slice  # of the output
    number: int  # of taps; 0: it meets none
    dilation: int
    padding: tuple[int, int]  # around what it reads


class Part(NamedTuple):
    """A forward problem, and where its arrays lie in those of the direction."""

    problem: ConvProblem | None  # None: nothing is summed here
    whole: ConvProblem
    phases: tuple[Phase, ...] = ()  # of a gradient of the input, by axis

    def first(self, array: np.ndarray) -> np.ndarray:
        """The forward problem's input."""
        if self.phases:
            return array[_space(self.whole, tuple(phase.reads for phase in self.phases))]
        p = self.whole
        if _written_out(p):
            array = pad(np.moveaxis(array, -1, 1) if p.channels_last else array, p)
            return _swapped(array, dataclasses.replace(p, layout="channels_first"), p.in_channels // p.groups)
        reads = tuple(slice(size + min(0, high)) for size, (_, high) in zip(p.input_size, p.padding))
        return _swapped(array[_space(p, reads)], p, p.in_channels // p.groups)

    def second(self, array: np.ndarray) -> np.ndarray:
        """Its weight."""
        p = self.whole
        if not self.phases:
            outputs = p.out_channels // p.groups
            grouped = _swapped(array, p, outputs)  # (outputs of a group, groups · batch, *space)
            shape = (outputs, p.groups, p.batch, *grouped.shape[2:])
            return np.swapaxes(grouped.reshape(shape), 0, 1).reshape(p.out_channels, p.batch, *shape[3:])
        taps = array[(slice(None), slice(None), *(phase.taps for phase in self.phases))]
        if p.groups == 1:
            return np.swapaxes(taps, 0, 1)
        outputs, inputs = p.out_channels // p.groups, p.in_channels // p.groups
        grouped = taps.reshape(p.groups, outputs, inputs, *taps.shape[2:])
        return np.swapaxes(grouped, 1, 2).reshape(p.in_channels, outputs, *taps.shape[2:])

    def result(self, array: np.ndarray) -> np.ndarray:
        """Its output; a view."""
        if not self.phases:
            return np.swapaxes(array, 0, 1)
        steps = zip(self.phases, self.whole.stride, strict=True)
        return array[_space(self.whole, tuple(slice(phase.begin, None, step) for phase, step in steps))]


def _space(p: ConvProblem, index: Index) -> tuple[slice, ...]:
    """An index of an array of images that is `index` along the spatial axes."""
    return (slice(None), *index) if p.channels_last else (slice(None), slice(None), *index)


def _swapped(array: np.ndarray, p: ConvProblem, channels: int) -> np.ndarray:
    """An array of images as (channels of a group, groups · batch, *space); a view where there is one group or one image."""
    array = np.moveaxis(array, -1, 1) if p.channels_last else array
    grouped = array.reshape(p.batch, p.groups, channels, *array.shape[2:])
    return np.moveaxis(grouped, 2, 0).swapaxes(1, 2).reshape(channels, p.groups * p.batch, *array.shape[2:])


@functools.lru_cache(maxsize=512)
def parts(p: ConvProblem) -> tuple[Part, ...]:
    """The forward problems of a problem of another direction. Where padding repeats the input, they give the gradient of the
    padded one (see `fold`)."""
    if p.direction == "backward_weight":
        return (Part(_of_weight(p), p),)
    p = unfolded(p)
    axes = [along(p, axis) for axis in range(p.ndim)]
    return tuple(_of_input(p, tuple(phases)) for phases in itertools.product(*axes))


def _written_out(p: ConvProblem) -> bool:
    """Whether the padding is: what it repeats may be input that no window reads, which is left out where it is zeros."""
    return p.padding_mode != "zeros" and any(high < 0 for _, high in p.padding)


def _of_weight(p: ConvProblem) -> ConvProblem | None:
    size, padding = tuple(n + min(0, high) for n, (_, high) in zip(p.input_size, p.padding)), p.padding
    if _written_out(p):
        size, padding = p.padded_size, ((0, 0),) * p.ndim
    if p.batch == 0 or min(size) < 1:  # no window reads any input
        return None
    return ConvProblem(
        input_size=size, kernel_size=p.output_size, in_channels=p.groups * p.batch, out_channels=p.out_channels,
        batch=p.in_channels // p.groups, groups=p.groups, stride=p.dilation, dilation=p.stride,
        padding=tuple((low, max(0, high)) for low, high in padding), padding_mode=p.padding_mode, dtype=p.dtype,
        accuracy=p.accuracy)


def _of_input(p: ConvProblem, phases: tuple[Phase, ...]) -> Part:
    if not all(phase.number for phase in phases):
        return Part(None, p, phases)
    problem = ConvProblem(
        input_size=tuple(phase.reads.stop - phase.reads.start for phase in phases),
        kernel_size=tuple(phase.number for phase in phases), in_channels=p.out_channels, out_channels=p.in_channels,
        batch=p.batch, groups=p.groups, dilation=tuple(phase.dilation for phase in phases),
        padding=tuple(phase.padding for phase in phases), dtype=p.dtype, layout=p.layout, bias=p.bias, residual=p.residual,
        activation=p.activation, accuracy=p.accuracy)
    return Part(problem, p, phases)


def along(p: ConvProblem, axis: int) -> list[Phase]:
    """The phases along one axis, those that have inputs."""
    size, kernel, stride, dilation = p.input_size[axis], p.kernel_size[axis], p.stride[axis], p.dilation[axis]
    low, outputs = p.padding[axis][0], p.output_size[axis]
    common = math.gcd(stride, dilation)
    every, apart = stride // common, dilation // common  # taps of a phase; what they read
    found = []
    for first in range(min(stride, size)):
        count = -(-(size - first) // stride)
        start, phase = divmod(first + low, stride)  # the first input is start · stride + phase - low
        tap = next((t for t in range(min(every, kernel)) if t * dilation % stride == phase), None)
        if tap is None:
            found.append(Phase(first, slice(0), slice(0), 0, 1, (0, 0)))
            continue
        number = -(-(kernel - tap) // every)
        latest = start - (tap * dilation - phase) // stride  # what the first input reads by the first of its taps
        begin, end = latest - (number - 1) * apart, latest + count  # all that the phase reads
        read = slice(min(max(begin, 0), outputs), min(max(end, 0), outputs))
        if read.start >= read.stop:  # nothing but padding
            found.append(Phase(first, slice(0), slice(0), 0, 1, (0, 0)))
            continue
        last = tap + (number - 1) * every
        taps = slice(last, tap - 1 if tap else None, -every)
        found.append(Phase(first, taps, read, number, apart, (read.start - begin, end - read.stop)))
    return found


# ---- padding that repeats the input


def unfolded(p: ConvProblem) -> ConvProblem:
    """The problem of the padded input, where that is the result and the padding repeats it; else the problem itself."""
    if p.direction != "backward_input" or p.padding_mode == "zeros" or not any(map(any, p.padding)):
        return p
    return dataclasses.replace(p, input_size=p.padded_size, padding=((0, 0),) * p.ndim, padding_mode="zeros")


@np.errstate(all="ignore")
def fold(p: ConvProblem, padded: np.ndarray, out: np.ndarray) -> None:
    """The gradient of the input from that of the padded one: axis by axis, each border element is added to the one that it
    repeats, in the order of their coordinates."""
    for axis in range(p.ndim):
        padded = np.moveaxis(padded, axis + (1 if p.channels_last else 2), 0)
        low, source = p.padding[axis][0], index_map(p, axis)
        size = p.input_size[axis]
        reached = max(0, min(size, len(source) - low))  # trailing input may not be read
        folded = np.zeros((size, *padded.shape[1:]), padded.dtype)
        folded[:reached] = padded[low:low + reached]
        for at in itertools.chain(range(min(low, len(source))), range(low + reached, len(source))):
            folded[source[at]] += padded[at]
        padded = np.moveaxis(folded, 0, axis + (1 if p.channels_last else 2))
    out[...] = padded


@functools.lru_cache(maxsize=512)
def overlaps(p: ConvProblem) -> tuple[int, ...]:
    """How many elements of the padded input one of the input stands for, at most, along each axis."""
    if unfolded(p) is p:
        return (1,) * p.ndim
    return tuple(int(np.bincount(index_map(p, axis)).max()) for axis in range(p.ndim))


def terms(p: ConvProblem) -> int:
    """At most so many products are summed per element of the result: K in the forward direction."""
    if unfolded(p) is p:
        return p.products
    along = (kernel * min(overlap, outputs) for kernel, overlap, outputs in zip(p.kernel_size, overlaps(p), p.output_size))
    return p.out_channels // p.groups * math.prod(along)


# ---- kernels


def pack_once(kernel: Any, second: Any, bias: Any) -> Any:
    """What a kernel's next run wants, and no other: without a copy where it offers that (`OnceKernel` in `backends`)."""
    return getattr(kernel, "once", kernel.pack)(second, bias)


class LoweredKernel:
    """The kernels of the parts, as one of the direction."""

    def __init__(self, problem: ConvProblem, parts: tuple[Part, ...], kernels: list[Any | None]) -> None:
        self.problem, self.parts, self.kernels = problem, parts, kernels
        bound = [kernel for kernel in kernels if kernel is not None]
        self.packed_bytes = sum(kernel.packed_bytes for kernel in bound)
        taps = tuple(str([phase.taps for phase in part.phases]) for part in parts)
        # zeros around what a phase reads, which must meet no infinite weight: they are no gradients
        self.meets_zeros = problem.direction == "backward_input" and any(
            any(map(any, part.problem.padding)) for part in parts if part.problem is not None)
        self.pack_key: Hashable = (problem.direction, taps, tuple(kernel.pack_key for kernel in bound))

    @property
    def workspace_bytes(self) -> int:
        p = self.problem
        folded = 0 if unfolded(p) is p else math.prod(unfolded(p).input_shape) * np.dtype(p.dtype).itemsize
        return folded + max((kernel.workspace_bytes for kernel in self.kernels if kernel is not None), default=0)

    def pack(self, second: np.ndarray, bias: np.ndarray | None) -> Any:
        return self._pack(second, bias, lambda kernel, weight: kernel.pack(weight, bias))

    def once(self, second: np.ndarray, bias: np.ndarray | None) -> Any:
        return self._pack(second, bias, lambda kernel, weight: pack_once(kernel, weight, bias))

    def _pack(self, second: np.ndarray, bias: np.ndarray | None, of_part: Callable[[Any, np.ndarray], Any]) -> Any:
        if self.meets_zeros and not np.isfinite(second).all():
            return bias, second
        return bias, [_met_by_padding(self.problem, second) if kernel is None else of_part(kernel, part.second(second))
                      for part, kernel in zip(self.parts, self.kernels, strict=True)]

    def run(self, first: np.ndarray, packed: Any, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        p = self.problem
        if unfolded(p) is p:
            return self._run(first, packed, out, residual)
        padded = np.empty(unfolded(p).input_shape, p.dtype)
        self._run(first, packed, padded, None)
        fold(p, padded, out)

    def _run(self, first: np.ndarray, packed: Any, out: np.ndarray, residual: np.ndarray | None) -> None:
        bias, weights = packed
        if isinstance(weights, np.ndarray):
            return _by_taps(unfolded(self.problem), first, weights, bias, out, residual)
        empty = self.problem.direction == "backward_input" and None in self.kernels and residual is None
        if empty:  # all of it at once: a pass over lines that each part without a kernel would go over alone
            _finish(self.problem, 0.0, bias, out, None)
        for part, kernel, weight in zip(self.parts, self.kernels, weights, strict=True):
            if kernel is None and empty:
                continue
            result = part.result(out)
            added = None if residual is None else part.result(residual)
            if kernel is None:
                _finish(self.problem, weight, bias, result, added)
            else:
                kernel.run(part.first(first), weight, result, added)


@np.errstate(all="ignore")
def _met_by_padding(p: ConvProblem, second: np.ndarray) -> np.ndarray | float:
    """The sums of a part in which no input is read: of nothing, or, of a gradient of the weight, of the padding's zeros times
    gradients of the output, which need not be finite."""
    if p.direction == "backward_input" or p.batch == 0:
        return 0.0
    space = tuple(range(1, 1 + p.ndim)) if p.channels_last else tuple(range(2, 2 + p.ndim))
    sums = (second * second.dtype.type(0)).sum(axis=(0, *space)) + second.dtype.type(0)  # no -0
    return sums.reshape(1, -1, *[1] * p.ndim)


@np.errstate(all="ignore")
def _by_taps(p: ConvProblem, gradient: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, out: np.ndarray,
             residual: np.ndarray | None) -> None:
    """The gradient of the input, tap by tap: nothing but what outputs have read is multiplied."""
    outputs, inputs = p.out_channels // p.groups, p.in_channels // p.groups
    gradient = np.moveaxis(gradient, -1, 1) if p.channels_last else gradient
    gradient = gradient.reshape(p.batch, p.groups, outputs, *p.output_size)
    weight = weight.reshape(p.groups, outputs, inputs, *p.kernel_size)
    sums = np.zeros((p.batch, p.groups, inputs, *p.input_size), p.dtype)
    for tap in itertools.product(*map(range, p.kernel_size)):
        reads, writes = zip(*(_met(p, axis, t) for axis, t in enumerate(tap)), strict=True)
        images = (slice(None),) * 3
        some = gradient[images + reads]
        if some.size:
            sums[images + writes] += np.einsum("ngo...,goc->ngc...", some, weight[images + tap])
    made = sums.reshape(p.batch, p.in_channels, *p.input_size)
    _finish(p, np.moveaxis(made, 1, -1) if p.channels_last else made, bias, out, residual)


def _met(p: ConvProblem, axis: int, tap: int) -> tuple[slice, slice]:
    """The outputs that read an input by a tap, and these inputs, along an axis."""
    stride, place = p.stride[axis], tap * p.dilation[axis] - p.padding[axis][0]  # of the first output's
    begin = max(0, -(place // stride))
    end = max(begin, min(p.output_size[axis], (p.input_size[axis] - 1 - place) // stride + 1))
    return slice(begin, end), slice(place + begin * stride, place + end * stride, stride)


def _finish(p: ConvProblem, sums: np.ndarray | float, bias: np.ndarray | None, out: np.ndarray,
            residual: np.ndarray | None) -> None:
    """act(sums + bias + residual)."""
    if bias is not None:
        sums = sums + (bias if p.channels_last else bias.reshape(-1, *[1] * p.ndim))
    out[...] = sums if residual is None else sums + residual
    activations.apply(p.activation, out)
