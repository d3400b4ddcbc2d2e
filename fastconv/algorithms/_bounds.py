"""What the error bounds of several algorithms are made of."""

from __future__ import annotations

import math

import numpy as np

from ..dtypes import TABLE
from ..problem import ConvProblem


def summed(problem: ConvProblem, magnitude: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """γ_{K+3}·S + (K + 2)·(smallest denormal): of all algorithms that sum the products themselves (see `accuracy`)."""
    dtype = TABLE[problem.dtype]
    return dtype.gamma(problem.k + 3) * magnitude + (problem.k + 2) * dtype.denormal


def flushed(problem: ConvProblem, x: np.ndarray, w: np.ndarray) -> float:
    """What flushing denormals may add: every denormal input, product, partial sum and epilogue term taken for 0.

    (smallest normal number)·(Σ|x| + Σ|w| + 2K + 4), with K·max|x| and the largest Σ|w| in place of each output's own.
    """
    if problem.accuracy == "strict" or x.size == 0:
        return 0.0
    weights = np.where(np.isfinite(w), np.abs(w), 0).reshape(len(w), -1).sum(axis=1, dtype=np.float64).max(initial=0.0)
    return TABLE[problem.dtype].normal * (problem.k * largest(x) + float(weights) + 2 * problem.k + 4)


def largest(x: np.ndarray) -> float:
    """max |x| of the finite values, without a copy of `x` where all are; 0 if there are none."""
    if x.size == 0:
        return 0.0
    low, high = float(np.min(x)), float(np.max(x))
    if math.isfinite(low) and math.isfinite(high):
        return max(-low, high)
    return float(np.max(np.abs(x), where=np.isfinite(x), initial=0.0))
