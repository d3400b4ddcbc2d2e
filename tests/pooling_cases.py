"""Pooling under test: random problems, arrays for them, what is right."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv.backends import Pooling, registry
from fastconv.dtypes import INTEGERS, TABLE
from fastconv.pool_problem import PoolProblem

OPS = ("max", "min", "average", "lp")
LAYOUTS = ("channels_first", "channels_last")


def pooling(backend: str) -> Any:
    """The backend; one that does not pool has nothing to be tested."""
    found = registry()[backend]
    if not isinstance(found, Pooling):
        pytest.skip(f"{backend} does not pool")
    return found


def call(backend: str, name: str, *arguments: Any, **keywords: Any) -> Any:
    """The public function; where the backend refuses, there is nothing to be tested."""
    pooling(backend)
    try:
        return getattr(fastconv, name)(*arguments, backend=backend, **keywords)
    except fastconv.Unsupported as reason:
        pytest.skip(str(reason))


def random_problem(rng: np.random.Generator, op: str, ndim: int, layout: str, direction: str,
                   most: int | None = None) -> PoolProblem:
    """One with windows of any kind that is valid; most: elements along an axis, less one."""
    selects = op in ("max", "min")
    floats = list(TABLE)
    dtype = str(rng.choice([*floats, "int8", "uint64", "bool"] if selects and direction == "forward" else floats))
    many, most = most is None and ndim == 1, most or {1: 40, 2: 12, 3: 7}[ndim]
    common: dict[str, Any] = dict(channels=int(rng.choice([1, 2, 3, 67])) if many else int(rng.integers(1, 4)),
                                  batch=int(rng.integers(1, 4)), dtype=dtype, layout=layout, direction=direction,
                                  return_indices=bool(selects and direction == "forward" and rng.random() < 0.6))
    if op != "lp" and rng.random() < 0.25:
        sizes = rng.integers(1, most, (2, ndim))
        return PoolProblem(op, tuple(map(int, sizes[0])), adaptive_size=tuple(map(int, sizes[1])), **common)
    while True:
        kernel, stride, dilation = (tuple(map(int, rng.integers(1, high, ndim))) for high in (5, 4, 3))
        if rng.random() < 0.5:
            dilation = (1,) * ndim
        low, high = ([int(rng.integers(0, (d * (k - 1) + 1) // 2 + 1)) for k, d in zip(kernel, dilation)] for _ in range(2))
        try:
            return PoolProblem(
                op, tuple(map(int, rng.integers(1, most, ndim))), kernel_size=kernel, stride=stride, dilation=dilation,
                padding=tuple(zip(low, high)), ceil_mode=bool(rng.random() < 0.4), count_include_pad=bool(rng.random() < 0.5),
                divisor_override=int(rng.choice([-2, 3, 7])) if op == "average" and rng.random() < 0.2 else None,
                norm_type=float(rng.choice([1, 2, 3, 1.5, 0.5, -1])) if op == "lp" else None, **common)
        except ValueError:  # too small for its kernel
            continue


def random_arrays(rng: np.random.Generator, p: PoolProblem, special: bool = False) -> tuple[Any, Any, Any]:
    """(first, indices, input) for `p`'s kernel, of values that repeat, so that there are ties."""
    first = p.input_shape if p.direction == "forward" else p.output_shape
    if p.dtype in INTEGERS:
        info = np.iinfo(p.dtype) if p.dtype != "bool" else None
        return rng.integers(0, 2, first).astype(bool) if info is None else rng.integers(
            info.min, info.max, first, p.dtype, endpoint=True), None, None
    x = (rng.integers(-40, 40, first) / 8).astype(p.dtype)
    positive = (rng.integers(4, 40, p.input_shape) / 8).astype(p.dtype)  # a sum of powers that cancel has no digits
    if special:
        for a in (x, positive):
            a[rng.random(a.shape) < 0.03] = np.nan
            a[rng.random(a.shape) < 0.03] = np.inf
            a[rng.random(a.shape) < 0.03] = -np.inf
            a[rng.random(a.shape) < 0.05] = 0
    if p.op == "lp":
        return (positive, None, None) if p.direction == "forward" else (x, None, positive)
    scattered = p.op != "average" and p.direction != "forward"
    return x, rng.integers(0, int(np.prod(p.input_size)), p.output_shape) if scattered else None, None


def oracle(p: PoolProblem, first: Any, indices: Any, source: Any, by: str = "naive") -> tuple[np.ndarray, np.ndarray | None]:
    """(result, indices) in float64, where that is possible; by another backend where plain loops would take too long."""
    exact = p if p.dtype in INTEGERS else dataclasses.replace(p, dtype="float64")
    result = np.empty(p.result_shape, exact.dtype)
    found = np.empty(p.output_shape, np.int64) if p.return_indices else None
    floats = [None if a is None else a.astype(exact.dtype) for a in (first, source)]
    registry()[by].bind_pool(exact).run(floats[0], result, found if p.return_indices else indices, floats[1])
    return result, found


def check(p: PoolProblem, actual: np.ndarray, first: Any, indices: Any, source: Any, by: str = "naive") -> np.ndarray | None:
    """Compare with the oracle; its indices. What selects is equal; what sums is within its roundings, which the same sum of
    absolute values bounds."""
    expected, found = oracle(p, first, indices, source, by)
    if p.op in ("max", "min") and p.direction == "forward":
        np.testing.assert_array_equal(actual, expected)
        return found
    with np.errstate(all="ignore"):
        size, _ = oracle(p, np.abs(first), indices, source, by)
        terms = [int(count.max()) for count in p.count] if p.direction == "forward" else p.output_size
        roundings = 40 + np.prod(terms)
        allowed = np.abs(size) * roundings * TABLE[p.dtype].roundoff * (8 if p.op == "lp" else 1) + TABLE[p.dtype].normal
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(actual[~finite].astype(float), expected[~finite])
        assert np.isfinite(actual[finite]).all()
        wrong = np.abs(actual - expected)[finite] > allowed[finite]
    assert not wrong.any(), f"{p}: {actual[finite][wrong][:3]} instead of {expected[finite][wrong][:3]}"
    return None


def strided(rng: np.random.Generator, array: Any) -> Any:
    """The same values with other strides: apart, backwards, transposed."""
    if array is None:
        return None
    axes = rng.permutation(array.ndim)
    apart = np.empty([2 * array.shape[axis] + 1 for axis in axes], array.dtype).transpose(np.argsort(axes))
    apart.fill(np.nan if array.dtype.kind == "f" else 1)
    view = apart[tuple(slice(1, None, 2) for _ in axes)]
    view = view[tuple(slice(None, None, int(rng.choice([-1, 1]))) for _ in axes)]
    view[...] = array
    return view
