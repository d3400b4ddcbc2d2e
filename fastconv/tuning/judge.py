"""Verify before timing: a result must agree with float64 at sampled outputs, and with the first right result everywhere."""

from __future__ import annotations

import numpy as np

from .. import accuracy
from ..accuracy import Arrays
from ..backends import Candidate
from ..bench import verify
from ..problem import ConvProblem


class Judge:
    """Of one problem and its arrays."""

    def __init__(self, problem: ConvProblem, arrays: Arrays) -> None:
        self._problem, self._arrays = problem, arrays
        self._points = verify.points(problem)
        self._expected, self._magnitude = accuracy.evaluate(problem, *arrays, self._points)
        self._first: tuple[Candidate, np.ndarray] | None = None

    def wrong(self, candidate: Candidate, result: np.ndarray) -> str | None:
        """What is wrong with a candidate's result (output's shape and dtype), or None."""
        if not np.isfinite(result).all():
            return f"{np.count_nonzero(~np.isfinite(result))} of {result.size} values are NaN, Inf or not written"
        allowed = self._bound(candidate, self._expected, self._magnitude, self._arrays.x)
        worst = accuracy.compare(accuracy.at(self._problem, result, self._points), self._expected, allowed)
        if worst > 1:
            return f"the error reaches {worst:.3g} times its bound"
        if self._first is None:
            self._first = candidate, result.copy()
        else:
            worst = self._apart(candidate, result, *self._first)
        return None if worst <= 1 else f"differs from {self._first[0]} by {worst:.3g} times what their bounds allow"

    def _apart(self, candidate: Candidate, result: np.ndarray, first: Candidate, theirs: np.ndarray) -> float:
        """How far the two are apart at most, as a multiple of both bounds together; image by image, to save memory.

        S is taken for its largest possible value, max|x|·max Σ|w| + max|bias| + max|residual|: coarse, but of every output.
        """
        _, w, b, residual = self._arrays
        weights = float(np.abs(w).reshape(len(w), -1).sum(axis=1, dtype=np.float64).max())
        extra = sum(float(np.abs(array).max()) for array in (b, residual) if array is not None)
        worst = 0.0
        for image in range(len(result)):
            x, expected = self._arrays.x[image:image + 1], theirs[image:image + 1].astype(np.float64)
            magnitude = np.array(float(np.abs(x).max()) * weights + extra)
            allowed = sum(self._bound(each, expected, magnitude, x) for each in (candidate, first))
            worst = max(worst, accuracy.compare(result[image:image + 1], expected, np.asarray(allowed)))
        return worst

    def _bound(self, candidate: Candidate, expected: np.ndarray, magnitude: np.ndarray, x: np.ndarray) -> np.ndarray:
        algorithm = candidate.algorithm if accuracy.has_bound(candidate.algorithm) else "unknown"
        return accuracy.bound(self._problem, algorithm, expected, magnitude, x, self._arrays.w, tile=candidate.tile)
