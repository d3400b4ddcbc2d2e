"""Pooling by NumPy (of the im2col backend): strided slices, one tap of many outputs at a time.

A box is separable: its maximum is that of the rows' maxima, its sum the sum of the rows' sums. So a kernel of kD x kH x kW
costs kD + kH + kW passes over arrays that shrink with each axis, from the last to the first. Where an axis has more taps than
outputs (global, adaptive), a step is one output and all of its inputs instead, and NumPy reduces.

Bottleneck: each pass is one thread's memory traffic; images are taken in blocks that stay in cache.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..pool_problem import PoolProblem

BLOCK_BYTES = 1 << 19  # of input per block: it, its powers and the passes between stay in L2


class Axis(NamedTuple):
    """The steps of one spatial axis: (outputs, inputs), slices along it."""

    at: int  # which axis of the arrays
    size: int  # of the output
    steps: list[tuple[slice, slice]]
    whole: bool  # whether a step is one output and all of its inputs; else one tap of several outputs


def _axis(p: PoolProblem, axis: int) -> Axis:
    at, out = axis + (1 if p.channels_last else 2), p.output_size[axis]
    first, count, step = p.first[axis], p.count[axis], p.dilation[axis]
    if not p.kernel_size or p.kernel_size[axis] > out:
        return Axis(at, out, [(slice(o, o + 1), slice(begin, begin + (taps - 1) * step + 1, step))
                              for o, (begin, taps) in enumerate(zip(first.tolist(), count.tolist()))], True)
    stride, low, steps = p.stride[axis], p.padding[axis][0], []
    for tap in range(p.kernel_size[axis]):
        shift = tap * step - low  # output o reads the input o·stride + shift
        begin, end = max(0, -(shift // stride)), min(out - 1, (p.input_size[axis] - 1 - shift) // stride)
        if begin <= end:
            steps.append((slice(begin, end + 1), slice(begin * stride + shift, end * stride + shift + 1, stride)))
    return Axis(at, out, steps, False)


class SlicedPool:
    def __init__(self, problem: PoolProblem) -> None:
        p = self.problem = problem
        self.axes = [_axis(p, axis) for axis in range(p.ndim)]
        self.images = max(1, BLOCK_BYTES // (math.prod(p.input_shape[1:]) * np.dtype(p.dtype).itemsize))
        self.divisor = self._along_axes(p.divisor).astype(p.dtype) if p.divisor_override is None else float(p.divisor_override)

    @np.errstate(all="ignore")  # NaN, Inf and denormals in the data are results, no reason to warn
    def run(self, first: np.ndarray, result: np.ndarray, indices: np.ndarray | None = None, input: np.ndarray | None = None,
            /) -> None:
        p = self.problem
        for n in range(0, p.batch, self.images):
            block = slice(n, n + self.images)
            x, y = first[block], result[block]
            i, source = (None if a is None else a[block] for a in (indices, input))
            if p.direction == "backward_input":
                self._gradient(x, y, i, source)
            elif p.op in ("max", "min"):
                self._select(x, y, i)
            else:
                mean = self._mean(x if p.norm_type is None else x**p.norm_type)
                y[...] = mean if p.norm_type is None else (mean + 0)**(1 / p.norm_type)  # sums begin at 0: none is -0

    def _along_axes(self, tables: Any) -> np.ndarray:
        """The product of a table per axis, of the rank of the arrays."""
        product = np.ones((1,) * (self.problem.ndim + 2))
        for axis, table in zip(self.axes, tables):
            product = product * np.reshape(table, [-1 if at == axis.at else 1 for at in range(product.ndim)])
        return product

    # ---- forward

    def _mean(self, x: np.ndarray) -> np.ndarray:
        """Sums over the divisor; of lp times its scale."""
        for axis in reversed(self.axes):
            x = _reduced(np.add, x, axis, 0)
        return x / self.divisor if self.problem.norm_type is None else x / self.divisor * self.problem.scale

    def _select(self, x: np.ndarray, y: np.ndarray, indices: np.ndarray | None) -> None:
        largest = self.problem.op == "max"
        if indices is not None:
            y[...], indices[...] = self._select_and_find(x, largest)
            return
        for axis in reversed(self.axes):
            x = _reduced(np.maximum if largest else np.minimum, x, axis, _worst(x.dtype, largest))
        y[...] = x

    def _select_and_find(self, x: np.ndarray, largest: bool) -> tuple[np.ndarray, np.ndarray]:
        p, better = self.problem, np.greater if largest else np.less
        flat = np.zeros((1,) * x.ndim, np.int64)  # the index within the axes done so far
        for number in reversed(range(p.ndim)):
            axis, steps = self.axes[number], math.prod(p.input_size[number + 1:])
            flat = np.broadcast_to(flat, x.shape)
            best = np.full(_with(x.shape, axis), _worst(x.dtype, largest), x.dtype)
            places = np.arange(p.input_size[number], dtype=np.int64).reshape(
                [-1 if at == axis.at else 1 for at in range(x.ndim)]) * steps
            found = np.take(flat, p.first[number], axis.at) + np.take(places, p.first[number], axis.at)
            for outputs, inputs in _taps(axis):
                o, i = _at(axis, outputs), _at(axis, inputs)
                value, chosen = x[i], best[o]
                wins = better(value, chosen)
                if value.dtype.kind == "f":
                    wins |= np.isnan(value)
                np.copyto(chosen, value, where=wins)
                np.copyto(found[o], flat[i] + places[i], where=wins)
            x, flat = best, found
        return x, flat

    # ---- gradient

    def _gradient(self, g: np.ndarray, y: np.ndarray, indices: np.ndarray | None, source: np.ndarray | None) -> None:
        p = self.problem
        if indices is not None:
            self._scatter(g, y, indices)
            return
        share = g / self.divisor
        if source is not None:
            assert p.norm_type is not None
            sums = self._mean(source**p.norm_type)
            share *= np.where(sums == 0, 0, sums**(1 / p.norm_type - 1)) * p.scale
        for axis in self.axes:
            spread = np.zeros(_with(share.shape, axis, y.shape[axis.at]), share.dtype)
            for outputs, inputs in axis.steps:
                spread[_at(axis, inputs)] += share[_at(axis, outputs)]
            share = spread
        if source is None or p.norm_type is None:
            y[...] = share
            return
        read = [np.zeros(size, bool) for size in p.input_size]
        for axis, marks in zip(self.axes, read):
            for _, inputs in axis.steps:
                marks[inputs] = True
        y[...] = np.where(self._along_axes(read) > 0, share * source**(p.norm_type - 1), 0)

    def _scatter(self, g: np.ndarray, y: np.ndarray, indices: np.ndarray) -> None:
        """`bincount` adds one after the other, in the order of the outputs."""
        if self.problem.channels_last:
            g, y, indices = (np.moveaxis(a, -1, 1) for a in (g, y, indices))
        size, planes = math.prod(self.problem.input_size), g.shape[0] * g.shape[1]
        places = indices.reshape(planes, -1) + np.arange(planes)[:, None] * size
        y[...] = np.bincount(places.ravel(), g.ravel(), planes * size).reshape(y.shape)


def _reduced(ufunc: np.ufunc, x: np.ndarray, axis: Axis, start: Any) -> np.ndarray:
    """`x` with the windows of an axis reduced."""
    if axis.size == x.shape[axis.at] and axis.steps == [(slice(0, axis.size), slice(0, axis.size, 1))]:
        return x  # one tap each
    y = np.empty_like(x, shape=_with(x.shape, axis))
    if not axis.whole:
        y[...] = start
    for outputs, inputs in axis.steps:
        target, source = y[_at(axis, outputs)], x[_at(axis, inputs)]
        if axis.whole:
            ufunc.reduce(source, axis.at, out=target, keepdims=True)
        else:
            ufunc(target, source, out=target)
    return y


def _taps(axis: Axis) -> list[tuple[slice, slice]]:
    """The steps, each of one tap."""
    if not axis.whole:
        return axis.steps
    return [(outputs, slice(place, place + 1)) for outputs, inputs in axis.steps
            for place in range(inputs.start, inputs.stop, inputs.step)]


def _at(axis: Axis, along: slice) -> tuple[slice, ...]:
    return (slice(None),) * axis.at + (along,)


def _with(shape: tuple[int, ...], axis: Axis, size: int | None = None) -> tuple[int, ...]:
    """`shape` with another size along the axis: the output's, if none is given."""
    return (*shape[:axis.at], axis.size if size is None else size, *shape[axis.at + 1:])


def _worst(dtype: np.dtype[Any], largest: bool) -> Any:
    """What every value is at least as good as."""
    if dtype.kind == "f":
        return -math.inf if largest else math.inf
    if dtype.kind == "b":
        return not largest
    return np.iinfo(dtype).min if largest else np.iinfo(dtype).max
