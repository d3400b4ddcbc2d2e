"""Verify, then time: compares a result with a float64 reference on sampled outputs, within the algorithm's bound."""

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


def points(problem: ConvProblem) -> np.ndarray:
    """The outputs to look at, the same in every run."""
    return accuracy.sample_points(problem, min(POINTS, max(16, _GATHERED // problem.taps)), np.random.default_rng(1))


class Reference:
    """What a problem's result must be at some points, and how far it may be off there."""

    def __init__(self, problem: ConvProblem, algorithm: str, arrays: Arrays, tile: tuple[int, ...] | None = None) -> None:
        self.problem = problem
        self.points = points(problem)
        self.expected, self.bound = accuracy.sample(problem, *arrays, self.points, algorithm, tile=tile)

    def wrong(self, result: np.ndarray) -> str | None:
        """What is wrong with it, or None."""
        if result.shape != self.problem.output_shape or result.dtype != self.problem.dtype:
            return (f"wrong result: {result.dtype} {result.shape} instead of {self.problem.dtype} "
                    f"{self.problem.output_shape}")
        if not np.isfinite(result).all():
            return (f"wrong result: {np.count_nonzero(~np.isfinite(result))} of {result.size} values are NaN, Inf or not "
                    "written")
        worst = accuracy.compare(accuracy.at(self.problem, result, self.points), self.expected, self.bound)
        return None if worst <= 1 else f"wrong result: the error reaches {worst:.3g} times its bound"


def wrong(problem: ConvProblem, algorithm: str, arrays: Arrays, result: np.ndarray,
          tile: tuple[int, ...] | None = None) -> tuple[int, str | None]:
    """(values compared, None or what is wrong)."""
    reference = Reference(problem, algorithm, arrays, tile)
    return len(reference.points), reference.wrong(result)
