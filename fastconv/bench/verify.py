"""Verify, then time: compares a result with a float64 reference on sampled outputs, within the algorithm's hard bound."""

from __future__ import annotations

import numpy as np

from .. import accuracy
from ..accuracy import Arrays
from ..problem import ConvProblem

POINTS = 200
_GATHERED = 1 << 23  # products to sum for the reference: fewer points where each takes many


def arrays_for(problem: ConvProblem) -> Arrays:
    """Zero-mean random data, the same in every run."""
    return accuracy.random_arrays(problem, np.random.default_rng(0))


def wrong(problem: ConvProblem, algorithm: str, arrays: Arrays, out: np.ndarray) -> tuple[int, str | None]:
    """(values compared, None or what is wrong). `out` was full of NaN before the call."""
    if not np.isfinite(out).all():
        return out.size, f"wrong result: {np.count_nonzero(~np.isfinite(out))} of {out.size} values are NaN, Inf or not written"
    count = min(POINTS, max(16, _GATHERED // problem.taps))
    points = accuracy.sample_points(problem, count, np.random.default_rng(1))
    expected, bound = accuracy.sample(problem, *arrays, points, algorithm)
    worst = accuracy.compare(accuracy.at(problem, out, points), expected, bound)
    if not worst <= 1:
        return len(points), f"wrong result: the error reaches {worst:.3g} times its bound"
    return len(points), None
