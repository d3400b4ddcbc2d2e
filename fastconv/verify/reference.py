"""What the outputs of a problem must be: float64, or better, computed by the specification."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np

from .. import activations
from ..backends import Candidate, naive
from ..lowering import terms
from ..problem import ConvProblem
from ..window import index_map
from .data import Arrays

_CHUNK = 1 << 20  # gathered elements at a time


def oracle(problem: ConvProblem, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None,
           residual: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(expected, S), float64, of the output's shape: for small problems; time is proportional to the multiply-adds.

    float32 problems are computed by the `naive` backend in float64. float64 problems need more than float64: each output is
    an exactly rounded sum (see `_exact_sum`).
    """
    points = np.array(list(np.ndindex(spread(problem))), np.int64)
    value, magnitude = (as_output(problem, flat) for flat in _summed_at(problem, Arrays(x, w, b, residual), points))
    if problem.dtype == "float64":
        return activated(problem, value), magnitude
    wide = dataclasses.replace(problem, dtype="float64")
    x, w = x.astype(np.float64), w.astype(np.float64)
    b = None if b is None else b.astype(np.float64)
    kernel = naive.backend.bind(wide, Candidate("direct"))
    expected = np.full(problem.result_shape, np.nan)
    kernel.run(x, kernel.pack(w, b), expected, None if residual is None else residual.astype(np.float64))
    return expected, magnitude


def evaluate(problem: ConvProblem, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, residual: np.ndarray | None,
             points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(expected, S) at `points`, rows of positions in the result, channels first: for problems of any size.

    Only what the points are made of is read; nothing is padded or copied as a whole.
    """
    points = np.asarray(points, np.int64).reshape(-1, problem.ndim + 2)
    value, magnitude = _summed_at(problem, Arrays(x, w, b, residual), points)
    return activated(problem, value), magnitude


def sample_points(problem: ConvProblem, n: int, rng: np.random.Generator) -> np.ndarray:
    """About `n` output positions for `sample`: the corners, points on each face, and the rest anywhere."""
    sizes = spread(problem)
    corners = list(itertools.product(*({0, size - 1} for size in sizes)))
    points = rng.integers(0, sizes, (max(n, 1), len(sizes)))
    for row, (axis, end) in zip(points, itertools.product(range(len(sizes)), (0, 1))):
        row[axis] = end * (sizes[axis] - 1)
    keep = rng.permutation(len(corners))[: max(n // 2, 1)]
    return np.unique(np.concatenate([np.array(corners, np.int64)[keep], points[: max(n - len(keep), 0)]]), axis=0)


def at(problem: ConvProblem, output: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The values of an output array (in the problem's layout) at such points."""
    view = np.moveaxis(output, -1, 1) if _moved(problem) else output
    return view[tuple(np.asarray(points).T)]


def spread(problem: ConvProblem) -> tuple[int, ...]:
    """The shape of the result, channels first."""
    shape = problem.result_shape
    return (shape[0], shape[-1], *shape[1:-1]) if _moved(problem) else shape


def as_output(problem: ConvProblem, flat: np.ndarray) -> np.ndarray:
    shaped = flat.reshape(spread(problem))
    return np.ascontiguousarray(np.moveaxis(shaped, 1, -1)) if _moved(problem) else shaped


def _moved(problem: ConvProblem) -> bool:
    """Whether the result's channels come last; weights' never do."""
    return problem.channels_last and problem.direction != "backward_weight"


def activated(problem: ConvProblem, value: np.ndarray) -> np.ndarray:
    function = activations.scalar(problem.activation)
    return np.array([function(v) for v in value.ravel().tolist()]).reshape(value.shape)


def _summed_at(problem: ConvProblem, arrays: Arrays, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """conv + bias + residual, and S, at each point."""
    value, magnitude = np.empty(len(points)), np.empty(len(points))
    residual = arrays.residual
    extras = [] if arrays.b is None else [arrays.b[points[:, 1]].astype(np.float64)]
    extras += [] if residual is None else [at(problem, residual, points).astype(np.float64)]
    add = _exact_sum if problem.dtype == "float64" else _plain_sum
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        for part, windows, weights in windows_at(problem, arrays, points):
            extra = np.stack([e[part] for e in extras], axis=1) if extras else np.zeros((len(windows), 0))
            value[part] = add(windows, weights, extra)
            magnitude[part] = (np.abs(windows) * np.abs(weights)).sum(axis=1) + np.abs(extra).sum(axis=1)
    return value, magnitude


def windows_at(problem: ConvProblem, arrays: Arrays, points: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """(which points, their windows (points, K), their weights (points, K)) in float64, a chunk at a time. In other directions
    likewise the factors of each product."""
    gathered = {"forward": _windows, "backward_input": _read_by, "backward_weight": _met_by}[problem.direction]
    x, w = arrays.x, arrays.w
    if problem.channels_last:
        x, w = np.moveaxis(x, -1, 1), np.moveaxis(w, -1, 1) if problem.direction == "backward_weight" else w
    step = max(1, _CHUNK // max(1, terms(problem)))
    for start in range(0, len(points), step):
        part = slice(start, min(start + step, len(points)))
        yield part, *gathered(problem, x, w, points[part])


Factors = tuple[np.ndarray, np.ndarray]  # of each point's products


def _windows(problem: ConvProblem, x: np.ndarray, w: np.ndarray, points: np.ndarray) -> Factors:
    """x[n, c, j·s + t·d - p] and w[o, c, t] of an output (n, o, j), for all c, t."""
    inputs, outputs = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    n, o, *position = points.T
    channels = (o // outputs * inputs)[:, None] + np.arange(inputs)
    along = []
    for axis, at_axis in enumerate(position):
        taps = np.arange(problem.kernel_size[axis]) * problem.dilation[axis]
        along.append(_source(problem, axis, (at_axis * problem.stride[axis])[:, None] + taps))
    windows = _gathered(x, n, channels, along)
    return windows, w[o].astype(np.float64).reshape(len(n), -1)


def _met_by(problem: ConvProblem, x: np.ndarray, gradient: np.ndarray, points: np.ndarray) -> Factors:
    """x[n, c, j·s + t·d - p] and ∂y[n, o, j] of a weight (o, c, t), for all n, j."""
    inputs, outputs = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    o, c, *tap = points.T
    images = np.broadcast_to(np.arange(problem.batch), (len(o), problem.batch))
    along = []
    for axis, at_axis in enumerate(tap):
        starts = np.arange(problem.output_size[axis]) * problem.stride[axis]
        along.append(_source(problem, axis, (at_axis * problem.dilation[axis])[:, None] + starts))
    windows = _gathered(np.swapaxes(x, 0, 1), o // outputs * inputs + c, images, along)
    return windows, np.swapaxes(gradient, 0, 1)[o].astype(np.float64).reshape(len(o), -1)


def _read_by(problem: ConvProblem, gradient: np.ndarray, w: np.ndarray, points: np.ndarray) -> Factors:
    """∂y[n, o, j] and w[o, c, t] of an input (n, c, i), for all o, t and the j with j·s + t·d - p = i, or what repeats it."""
    inputs, outputs = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    n, c, *position = points.T
    channels = (c // inputs * outputs)[:, None] + np.arange(outputs)
    windows, taps = [], []
    for axis, at_axis in enumerate(position):
        reads, which = _readers(problem, axis, at_axis)
        windows.append(reads)
        taps.append(np.where(reads < 0, 0, which))
    factors = _gathered(gradient, n, channels, windows)
    local = c % inputs
    index = [_along(channels, 0, problem.ndim), _along(local[:, None], 0, problem.ndim)]
    index += [_along(of, axis + 1, problem.ndim) for axis, of in enumerate(taps)]
    weights = np.broadcast_to(w[tuple(index)], (len(n), outputs, *(of.shape[1] for of in taps))).astype(np.float64)
    outside = np.zeros((), bool)
    for axis, reads in enumerate(windows):
        outside = outside | (_along(reads, axis + 1, problem.ndim) < 0)
    return factors, np.where(outside, 0.0, weights).reshape(len(n), -1)


def _readers(problem: ConvProblem, axis: int, at: np.ndarray) -> Factors:
    """For inputs along one axis: by which outputs they are read (-1: by none), and by which of their taps; (inputs, m) each."""
    kernel, dilation, stride = problem.kernel_size[axis], problem.dilation[axis], problem.stride[axis]
    if problem.padding_mode == "zeros":
        stands = (at + problem.padding[axis][0])[:, None]
    else:  # where in the padded input they stand
        repeats = index_map(problem, axis)
        all_of = [np.flatnonzero(repeats == i) for i in at]
        stands = np.full((len(at), max(map(len, all_of), default=0)), -1)
        for row, found in zip(stands, all_of):
            row[:len(found)] = found
    taps = np.arange(kernel)
    starts = stands[:, :, None] - taps * dilation
    outputs = starts // stride
    read = (stands[:, :, None] >= 0) & (starts % stride == 0) & (outputs >= 0) & (outputs < problem.output_size[axis])
    read, outputs = read.reshape(len(at), -1), outputs.reshape(len(at), -1)
    which = np.broadcast_to(taps, stands.shape + taps.shape).reshape(len(at), -1)
    order = np.argsort(~read, axis=1, kind="stable")[:, :max(1, int(read.sum(axis=1).max(initial=0)))]  # those that read
    read, outputs, which = (np.take_along_axis(each, order, axis=1) for each in (read, outputs, which))
    return np.where(read, outputs, -1), which


def _gathered(array: np.ndarray, first: np.ndarray, second: np.ndarray, along: list[np.ndarray]) -> np.ndarray:
    """array[first, second, *along] for all combinations within each point, as (points, products); 0 where one is negative."""
    ndim = len(along)
    index, outside = [_along(first[:, None], 0, ndim), _along(second, 0, ndim)], np.zeros((), bool)
    for axis, of in enumerate(along):
        spread_out = _along(of, axis + 1, ndim)
        outside = outside | (spread_out < 0)
        index.append(spread_out)
    values = array[tuple(np.maximum(i, 0) for i in index)].astype(np.float64)
    return np.where(outside, 0.0, values).reshape(len(first), -1)


def _source(problem: ConvProblem, axis: int, padded: np.ndarray) -> np.ndarray:
    """The input coordinate behind each padded coordinate, or -1 where a zero stands."""
    if problem.padding_mode != "zeros":
        return index_map(problem, axis)[padded]
    source = padded - problem.padding[axis][0]  # by arithmetic: the axis may be too long for a map
    return np.where(source < problem.input_size[axis], source, -1)


def _along(values: np.ndarray, axis: int, ndim: int) -> np.ndarray:
    """(points, m) values as an index that varies with the point and along one of (channel, *kernel)."""
    shape = [len(values)] + [1] * (ndim + 1)
    shape[axis + 1] = -1
    return values.reshape(shape)


def _plain_sum(windows: np.ndarray, weights: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """float32 data in float64: the products are exact, the sum is wrong by 2**-53·K·S at most."""
    return (windows * weights).sum(axis=1) + extra.sum(axis=1)


def _exact_sum(windows: np.ndarray, weights: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """float64 data: each product as two floats, and all of them summed with a single rounding (`math.fsum`)."""
    high, low = activations.two_product(windows, weights)
    plain = high.sum(axis=1) + extra.sum(axis=1)  # right where something is not finite
    low = np.where(np.isfinite(low), low, 0.0)
    rows = zip(plain, np.isfinite(high).all(axis=1) & np.isfinite(plain), high, low, extra)
    return np.array([math.fsum(itertools.chain(h.tolist(), lo.tolist(), e.tolist())) if finite else value
                     for value, finite, h, lo, e in rows])
