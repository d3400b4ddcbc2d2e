"""The arrays of a problem, filled with data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..lowering import terms
from ..problem import ConvProblem

EXACT_LIMIT = 2**24  # integers up to here are exact in float32, and so is every order of summing them


class Arrays(NamedTuple):
    """The arrays of one problem, in its layout and dtype."""

    x: np.ndarray  # the first that its direction reads
    w: np.ndarray  # the second
    b: np.ndarray | None
    residual: np.ndarray | None


def random_arrays(problem: ConvProblem, rng: np.random.Generator) -> Arrays:
    """Zero-mean normal data."""
    return _arrays(problem, lambda shape: rng.standard_normal(shape))


def same_arrays(problem: ConvProblem) -> Arrays:
    """The same random data in every run."""
    return random_arrays(problem, np.random.default_rng(0))


def integer_arrays(problem: ConvProblem, rng: np.random.Generator) -> Arrays:
    """Integers with K·max|x|·max|w| + |bias| + |residual| <= 2**24: every summation order gives the same bits.

    Raises:
        ValueError: K is so large that not even -1, 0, 1 would do.
    """
    share = 1 << 10
    largest = min(8, math.isqrt((EXACT_LIMIT - 2 * share) // max(1, terms(problem))))
    if largest < 1:
        raise ValueError(f"{terms(problem)} products per output are too many for exact integers")
    arrays = _arrays(problem, lambda shape: rng.integers(-largest, largest + 1, shape))
    for extra in (arrays.b, arrays.residual):
        if extra is not None:
            extra[...] = rng.integers(-share, share + 1, extra.shape)
    return arrays


def _arrays(problem: ConvProblem, draw: Callable[[tuple[int, ...]], np.ndarray]) -> Arrays:
    def made(shape: tuple[int, ...]) -> np.ndarray:
        return draw(shape).astype(problem.dtype)

    return Arrays(made(problem.first_shape), made(problem.second_shape),
                  made((problem.result_channels,)) if problem.bias else None,
                  made(problem.result_shape) if problem.residual else None)
