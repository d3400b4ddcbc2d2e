"""How wrong a result may be: hard error bounds, and the references they are measured from.

u is the unit roundoff (2**-24, 2**-53), γ_n = n·u / (1 - n·u), K the products per output, and
S = conv(|x|, |w|) + |bias| + |residual|. An algorithm that sums the products themselves, in any order, with or without fused
multiply-adds, rounds each product at most K + 2 times on its way into the result (once for itself, K - 1 additions, bias,
residual); one more covers the rounding of the reference:

    |error| <= γ_{K+3}·S + (K + 2)·(smallest denormal)

S belongs to one output, so a bound is an array of the output's shape. The activation multiplies it by its Lipschitz constant
and adds its own 4 ulp. Used by `fastconv check`, the benchmark (which times nothing unverified) and the tests alike.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from . import activations, algorithms
from .algorithms._bounds import flushed, summed
from .backends import Candidate, naive
from .dtypes import TABLE
from .padding import index_map
from .problem import ConvProblem

EXACT_LIMIT = 2**24  # integers up to here are exact in float32, and so is every order of summing them
LIPSCHITZ = {"relu": 1.0, "relu6": 1.0, "sigmoid": 0.25, "tanh": 1.0, "gelu": 1.13, "gelu_tanh": 1.13, "silu": 1.1,
             "hardswish": 1.5}  # the largest slopes; of gelu 1.1290 at √2, of silu 1.0998
ULPS = 4  # of an activation
_CHUNK = 1 << 20  # gathered elements at a time


class Arrays(NamedTuple):
    """The arrays of one problem, in its layout and dtype."""

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray | None
    residual: np.ndarray | None


# ---- data


def random_arrays(problem: ConvProblem, rng: np.random.Generator) -> Arrays:
    """Zero-mean normal data."""
    return _arrays(problem, lambda shape: rng.standard_normal(shape))


def integer_arrays(problem: ConvProblem, rng: np.random.Generator) -> Arrays:
    """Integers with K·max|x|·max|w| + |bias| + |residual| <= 2**24: every summation order gives the same bits.

    Raises:
        ValueError: K is so large that not even -1, 0, 1 would do.
    """
    share = 1 << 10
    largest = min(8, math.isqrt((EXACT_LIMIT - 2 * share) // problem.taps))
    if largest < 1:
        raise ValueError(f"{problem.taps} products per output are too many for exact integers")
    arrays = _arrays(problem, lambda shape: rng.integers(-largest, largest + 1, shape))
    for extra in (arrays.b, arrays.residual):
        if extra is not None:
            extra[...] = rng.integers(-share, share + 1, extra.shape)
    return arrays


def _arrays(problem: ConvProblem, draw: Callable[[tuple[int, ...]], np.ndarray]) -> Arrays:
    def made(shape: tuple[int, ...]) -> np.ndarray:
        return draw(shape).astype(problem.dtype)

    return Arrays(made(problem.input_shape), made(problem.weight_shape),
                  made((problem.out_channels,)) if problem.bias else None,
                  made(problem.output_shape) if problem.residual else None)


# ---- references


def oracle(problem: ConvProblem, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None,
           residual: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(expected, S), float64, of the output's shape: for small problems; time is proportional to the multiply-adds.

    float32 problems are computed by the `naive` backend in float64. float64 problems need more than float64: each output is
    an exactly rounded sum (see `_exact_sum`).
    """
    points = np.array(list(np.ndindex(_channels_first(problem))), np.int64)
    value, magnitude = (_as_output(problem, flat) for flat in _evaluate(problem, Arrays(x, w, b, residual), points))
    if problem.dtype == "float64":
        return _activated(problem, value), magnitude
    wide = dataclasses.replace(problem, dtype="float64")
    x, w = x.astype(np.float64), w.astype(np.float64)
    b = None if b is None else b.astype(np.float64)
    kernel = naive.backend.bind(wide, Candidate("direct"))
    expected = np.full(problem.output_shape, np.nan)
    kernel.run(x, kernel.pack(w, b), expected, None if residual is None else residual.astype(np.float64))
    return expected, magnitude


def sample(problem: ConvProblem, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, residual: np.ndarray | None,
           points: np.ndarray, algorithm: str = "direct", exact: bool = False, tile: tuple[int, ...] | None = None,
           ) -> tuple[np.ndarray, np.ndarray]:
    """(expected, bound) at `points`, as `evaluate` has them; `algorithm`, `exact` and `tile` as for `bound`."""
    expected, magnitude = evaluate(problem, x, w, b, residual, points)
    return expected, bound(problem, algorithm, expected, magnitude, x, w, exact, tile)


def evaluate(problem: ConvProblem, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, residual: np.ndarray | None,
             points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(expected, S) at `points`, rows of (image, output channel, *position): for problems of any size.

    Only the windows of the points are read; nothing is padded or copied as a whole.
    """
    points = np.asarray(points, np.int64).reshape(-1, problem.ndim + 2)
    value, magnitude = _evaluate(problem, Arrays(x, w, b, residual), points)
    return _activated(problem, value), magnitude


def sample_points(problem: ConvProblem, n: int, rng: np.random.Generator) -> np.ndarray:
    """About `n` output positions for `sample`: the corners, points on each face, and the rest anywhere."""
    sizes = _channels_first(problem)
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


def _channels_first(problem: ConvProblem) -> tuple[int, ...]:
    return (problem.batch, problem.out_channels, *problem.output_size)


def _as_output(problem: ConvProblem, flat: np.ndarray) -> np.ndarray:
    shaped = flat.reshape(_channels_first(problem))
    return np.ascontiguousarray(np.moveaxis(shaped, 1, -1)) if problem.channels_last else shaped


def _activated(problem: ConvProblem, value: np.ndarray) -> np.ndarray:
    function = activations.scalar(problem.activation)
    return np.array([function(v) for v in value.ravel().tolist()]).reshape(value.shape)


def _evaluate(problem: ConvProblem, arrays: Arrays, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """conv + bias + residual, and S, at each point."""
    value, magnitude = np.empty(len(points)), np.empty(len(points))
    residual = arrays.residual
    extras = [] if arrays.b is None else [arrays.b[points[:, 1]].astype(np.float64)]
    extras += [] if residual is None else [at(problem, residual, points).astype(np.float64)]
    add = _exact_sum if problem.dtype == "float64" else _plain_sum
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        for part, windows, weights in _windows(problem, arrays, points):
            extra = np.stack([e[part] for e in extras], axis=1) if extras else np.zeros((len(windows), 0))
            value[part] = add(windows, weights, extra)
            magnitude[part] = (np.abs(windows) * np.abs(weights)).sum(axis=1) + np.abs(extra).sum(axis=1)
    return value, magnitude


def _windows(problem: ConvProblem, arrays: Arrays, points: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
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


# ---- bounds


def has_bound(algorithm: str) -> bool:
    """Whether `bound` knows it."""
    return algorithm in PEERS or algorithm in algorithms.named()


def bound(problem: ConvProblem, algorithm: str, expected: np.ndarray, magnitude: np.ndarray, x: np.ndarray, w: np.ndarray,
          exact: bool = False, tile: tuple[int, ...] | None = None) -> np.ndarray:
    """How far a result of `algorithm` may be from `expected`, per output; `magnitude` is S.

    Args:
        exact: the sums have no rounding error (`integer_arrays`): only the activation's remains, and it is 0 without one.
        tile: of an algorithm that has tiles; None: the one it chooses itself.

    Raises:
        ValueError: no bound is known for this algorithm.
    """
    if not has_bound(algorithm):
        known = ", ".join([*algorithms.named(), *PEERS])
        raise ValueError(f"no error bound is known for algorithm {algorithm!r}; known: {known}")
    before = np.zeros(np.shape(expected))
    if not exact:
        before_flushing = PEERS[algorithm] if algorithm in PEERS else algorithms.named()[algorithm].bound
        before = before_flushing(problem, magnitude, x, w, *(() if tile is None else (tile,))) + flushed(problem, x, w)
    # where S is infinite, so is the value before the activation, without error
    return _through_activation(problem, np.abs(expected), np.where(np.isfinite(magnitude), before, 0.0))


def _unknown(problem: ConvProblem, magnitude: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Other libraries, which may use Winograd or an FFT: 32·√max(K, 64)·u·S on top of the bound of direct.

    No hard bound, but a figure for zero-mean random data, where F(6,3) was measured at up to 159·u·S for any K. Such an
    algorithm spreads its error over neighbours, so S is at least its mean over the outputs at hand.
    """
    around = np.maximum(magnitude, np.mean(magnitude))
    return 32 * math.sqrt(max(problem.taps, 64)) * TABLE[problem.dtype].roundoff * around + summed(problem, magnitude, x, w)


def _tf32(problem: ConvProblem, magnitude: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Other libraries on tensor cores: 16·2**-11·S/√K for factors with 10 bits of fraction, on top of the sum in float32.

    For zero-mean random data as well, where the factors' errors are independent, so that K of them add up to √K, not K. In a
    simulation the factor was 3.5 for rounded factors, 10 for cut ones and for F(2,3), and more than 20 for bfloat16.
    """
    around = np.maximum(magnitude, np.mean(magnitude))
    return 16 * 2.0**-11 / math.sqrt(problem.taps) * around + _unknown(problem, magnitude, x, w)


PEERS: dict[str, Callable[..., np.ndarray]] = {"unknown": _unknown, "tf32": _tf32}  # of the benchmark: what they may be


def _through_activation(problem: ConvProblem, expected: np.ndarray, before: np.ndarray) -> np.ndarray:
    if problem.activation is None:
        return before
    name, parameter = problem.activation
    steep = LIPSCHITZ[name] if name != "leaky_relu" else max(1.0, abs(parameter))
    after = steep * before
    if name in ("relu", "relu6"):  # no rounding of their own
        return after
    _, _, u, denormal, normal = TABLE[problem.dtype]
    ulps = 2 * ULPS if problem.dtype == "float64" else ULPS  # the reference's activation is float64 as well
    own = ulps * (2 * u * (np.where(np.isfinite(expected), expected, 0.0) + after) + denormal)
    return after + own + (0.0 if problem.accuracy == "strict" else normal)


def compare(actual: np.ndarray, expected: np.ndarray, allowed: np.ndarray) -> float:
    """The worst error as a multiple of its bound: at most 1 is right; infinity for a NaN or infinity out of place.

    NaN must stand where NaN is expected, an infinity where one of its sign is, a finite value everywhere else.
    """
    actual, expected, allowed = np.broadcast_arrays(np.asarray(actual, np.float64), expected, allowed)
    finite = np.isfinite(expected)
    same_kind = np.where(np.isnan(expected), np.isnan(actual), actual == expected)
    if not bool(np.all(finite | same_kind)):
        return math.inf
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        error = np.abs(actual - expected)[finite]
        ratio = error / allowed[finite]
    wrong = ~(error <= allowed[finite])  # not (error > allowed): that lets NaN pass
    ratio = np.where(wrong, np.where(ratio > 1, ratio, math.inf), np.where(error == 0, 0.0, ratio))
    return float(ratio.max(initial=0.0))
