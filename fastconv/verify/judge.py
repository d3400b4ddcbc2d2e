"""The judge of one problem: whether what somebody computed is right."""

from __future__ import annotations

import numpy as np

from ..algorithms import sums_products
from ..backends import Candidate
from ..problem import ConvProblem
from . import bounds, reference
from .data import Arrays

_POINTS = 200
_GATHERED = 1 << 23  # products to sum for the reference: fewer points where each takes many


def some_points(problem: ConvProblem) -> np.ndarray:
    """Outputs to look at where there are too many to look at all; the same in every run."""
    count = min(_POINTS, max(16, _GATHERED // max(1, problem.products)))
    return reference.sample_points(problem, count, np.random.default_rng(1))


class Judge:
    """What the outputs of a problem must be for its arrays, and how far off they may be.

    Args:
        points: rows of (image, output channel, *position): the outputs to look at. None: all, of a small problem.
        integers: the arrays are `data.integer_arrays`, which algorithms that sum the products themselves get exactly right.
    """

    def __init__(self, problem: ConvProblem, arrays: Arrays, points: np.ndarray | None = None, integers: bool = False) -> None:
        self.problem, self.arrays, self.points, self.integers = problem, arrays, points, integers
        self.expected, self.magnitude = (
            reference.oracle(problem, *arrays) if points is None else reference.evaluate(problem, *arrays, points))

    @property
    def count(self) -> int:
        """Outputs that are looked at."""
        return self.expected.size

    def allowed(self, algorithm: str, tile: tuple[int, ...] | None = None) -> np.ndarray:
        """How far each of them may be off."""
        exact = self.integers and sums_products(algorithm)
        return bounds.bound(self.problem, algorithm, self.expected, self.magnitude, self.arrays.x, self.arrays.w, exact, tile)

    def worst(self, result: np.ndarray, algorithm: str, tile: tuple[int, ...] | None = None) -> float:
        """The worst error as a multiple of its bound: right is at most 1."""
        return bounds.compare(self._seen(result), self.expected, self.allowed(algorithm, tile))

    def wrong(self, result: np.ndarray, algorithm: str, tile: tuple[int, ...] | None = None) -> str | None:
        """What is wrong with a result, in one line; None if it is right."""
        p = self.problem
        if result.shape != p.result_shape or result.dtype != p.dtype:
            return f"{result.dtype} {result.shape} instead of {p.dtype} {p.result_shape}"
        if np.isfinite(self.expected).all() and not np.isfinite(result).all():
            return f"{np.count_nonzero(~np.isfinite(result))} of {result.size} values are NaN, Inf or not written"
        worst = self.worst(result, algorithm, tile)
        if worst <= 1:
            return None
        seen = self._seen(result)
        off = np.argwhere(~(np.abs(seen - self.expected) <= self.allowed(algorithm, tile)))
        first = tuple(map(int, off[0])) if len(off) else ()
        where = first if self.points is None or not first else tuple(map(int, self.points[first[0]]))
        return (f"the error reaches {worst:.3g} times its bound, in {len(off)} of {self.count} outputs; at {where} "
                f"{float(seen[first])!r} instead of {float(self.expected[first])!r}")

    def _seen(self, result: np.ndarray) -> np.ndarray:
        return result if self.points is None else reference.at(self.problem, result, self.points)


class Comparison:
    """The results of several candidates for one problem: right at some outputs, and like the first right one at all."""

    def __init__(self, problem: ConvProblem, arrays: Arrays) -> None:
        self.judge = Judge(problem, arrays, some_points(problem))
        self._first: tuple[Candidate, np.ndarray] | None = None

    def wrong(self, result: np.ndarray, candidate: Candidate) -> str | None:
        """What is wrong with a candidate's result, in one line; None if it is right."""
        reason = self.judge.wrong(result, bounds.known(candidate.algorithm), candidate.tile)
        if reason is not None:
            return reason
        if self._first is None:
            self._first = candidate, result.copy()
            return None
        worst = self._apart(candidate, result, *self._first)
        return None if worst <= 1 else f"differs from {self._first[0]} by {worst:.3g} times what their bounds allow"

    def _apart(self, candidate: Candidate, result: np.ndarray, first: Candidate, theirs: np.ndarray) -> float:
        """How far the two are apart at most, as a multiple of both bounds together; image by image, to save memory.

        S is taken for its largest possible value, max|x|·max Σ|w| + max|bias| + max|residual|: coarse, but of every output.
        """
        _, w, b, residual = self.judge.arrays
        weights = float(np.abs(w).reshape(len(w), -1).sum(axis=1, dtype=np.float64).max())
        extra = sum(float(np.abs(array).max()) for array in (b, residual) if array is not None)
        worst = 0.0
        for image in range(len(result)):
            x, expected = self.judge.arrays.x[image:image + 1], theirs[image:image + 1].astype(np.float64)
            magnitude = np.array(float(np.abs(x).max()) * weights + extra)
            allowed = sum(bounds.bound(self.judge.problem, bounds.known(each.algorithm), expected, magnitude, x, w,
                                       tile=each.tile) for each in (candidate, first))
            worst = max(worst, bounds.compare(result[image:image + 1], expected, np.asarray(allowed)))
        return worst
