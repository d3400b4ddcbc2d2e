"""What the outputs of a problem must be: float64, or better, computed by the specification."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np

from .. import activations
from ..backends import Candidate, naive
from ..padding import index_map
from ..problem import ConvProblem
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
    expected = np.full(problem.output_shape, np.nan)
    kernel.run(x, kernel.pack(w, b), expected, None if residual is None else residual.astype(np.float64))
    return expected, magnitude


def evaluate(problem: ConvProblem, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, residual: np.ndarray | None,
             points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(expected, S) at `points`, rows of (image, output channel, *position): for problems of any size.

    Only the windows of the points are read; nothing is padded or copied as a whole.
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
    view = np.moveaxis(output, -1, 1) if problem.channels_last else output
    return view[tuple(np.asarray(points).T)]


def spread(problem: ConvProblem) -> tuple[int, ...]:
    return (problem.batch, problem.out_channels, *problem.output_size)


def as_output(problem: ConvProblem, flat: np.ndarray) -> np.ndarray:
    shaped = flat.reshape(spread(problem))
    return np.ascontiguousarray(np.moveaxis(shaped, 1, -1)) if problem.channels_last else shaped


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
    """(which points, their windows (points, K), their weights (points, K)) in float64, a chunk at a time."""
    x = np.moveaxis(arrays.x, -1, 1) if problem.channels_last else arrays.x
    inputs, outputs = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    step = max(1, _CHUNK // problem.taps)
    for start in range(0, len(points), step):
        part = slice(start, min(start + step, len(points)))
        n, o, *position = points[part].T
        channels = (o // outputs * inputs)[:, None] + np.arange(inputs)
        index = [_along(n[:, None], 0, problem.ndim), _along(channels, 0, problem.ndim)]
        outside = np.zeros((), bool)
        for axis, at_axis in enumerate(position):
            taps = np.arange(problem.kernel_size[axis]) * problem.dilation[axis]
            source = _along(_source(problem, axis, (at_axis * problem.stride[axis])[:, None] + taps), axis + 1, problem.ndim)
            outside = outside | (source < 0)
            index.append(source)
        gathered = np.where(outside, 0.0, x[tuple(np.maximum(i, 0) for i in index)].astype(np.float64))
        yield part, gathered.reshape(len(n), -1), arrays.w[o].astype(np.float64).reshape(len(n), -1)


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
