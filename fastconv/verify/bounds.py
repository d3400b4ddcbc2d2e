"""How wrong a result may be: hard error bounds.

u is the unit roundoff (2**-24, 2**-53), γ_n = n·u / (1 - n·u), K the products per output, and
S = conv(|x|, |w|) + |bias| + |residual|. An algorithm that sums the products themselves, in any order, with or without fused
multiply-adds, rounds each product at most K + 2 times on its way into the result (once for itself, K - 1 additions, bias,
residual); one more covers the rounding of the reference:

    |error| <= γ_{K+3}·S + (K + 2)·(smallest denormal)

S belongs to one output, so a bound is an array of the output's shape. The activation multiplies it by its Lipschitz constant
and adds its own 4 ulp. What other algorithms add is in their files (see `algorithms`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .. import algorithms, lowering, phases_at_once
from ..algorithms._bounds import flushed, summed
from ..dtypes import TABLE
from ..problem import ConvProblem

LIPSCHITZ = {"relu": 1.0, "relu6": 1.0, "sigmoid": 0.25, "tanh": 1.0, "gelu": 1.13, "gelu_tanh": 1.13, "silu": 1.1,
             "hardswish": 1.5}  # the largest slopes; of gelu 1.1290 at √2, of silu 1.0998
ULPS = 4  # of an activation


def known(algorithm: str) -> str:
    """The algorithm, or "unknown" if it is none of fastconv's."""
    return algorithm if algorithm in algorithms.named() else "unknown"


def bound(problem: ConvProblem, algorithm: str, expected: np.ndarray, magnitude: np.ndarray, x: np.ndarray, w: np.ndarray,
          exact: bool = False, tile: tuple[int, ...] | None = None) -> np.ndarray:
    """How far a result of `algorithm` may be from `expected`, per output; `magnitude` is S.

    Args:
        exact: the sums have no rounding error (`integer_arrays`): only the activation's remains, and it is 0 without one.
        tile: of an algorithm that has tiles; None: the one it chooses itself.

    Raises:
        ValueError: no bound is known for this algorithm.
    """
    of = PEERS[algorithm] if algorithm in PEERS else getattr(algorithms.named().get(algorithm), "bound", None)
    if of is None:
        listed = ", ".join([*algorithms.named(), *PEERS])
        raise ValueError(f"no error bound is known for algorithm {algorithm!r}; known: {listed}")
    before = np.zeros(np.shape(expected))
    if not exact and problem.direction != "forward":
        before = _lowered(problem, of, magnitude, x, w)
    elif not exact:
        before = of(problem, magnitude, x, w, *(() if tile is None else (tile,))) + flushed(problem, x, w)
    # where S is infinite, so is the value before the activation, without error
    return _through_activation(problem, np.abs(expected), np.where(np.isfinite(magnitude), before, 0.0))


def _lowered(problem: ConvProblem, of: Callable[..., np.ndarray], magnitude: np.ndarray, x: np.ndarray,
             w: np.ndarray) -> np.ndarray:
    """That of another direction: the sum's own, and what the algorithm's forward problems add to it at most. Where padding
    repeats the input, several of their outputs make one."""
    dtype, count = TABLE[problem.dtype], lowering.terms(problem)
    own = dtype.gamma(count + 3) * magnitude + (count + 2) * dtype.denormal
    nothing = np.zeros(())
    added = [of(part.problem, nothing, first, second) + flushed(part.problem, first, second)
             for part in lowering.parts(problem) if part.problem is not None
             for first, second in [(part.first(x), part.second(w))]]
    joined = phases_at_once.joined(problem)
    if joined is not None:
        first, second = joined.first(x), joined.second(w)
        added.append(of(joined.problem, nothing, first, second) + flushed(joined.problem, first, second))
    return own + math.prod(lowering.overlaps(problem)) * max(map(float, added), default=0.0)


def _unknown(problem: ConvProblem, magnitude: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Other libraries, which may use Winograd or an FFT: 32·√max(K, 64)·u·S on top of the bound of direct.

    No hard bound, but a figure for zero-mean random data, where F(6,3) was measured at up to 159·u·S for any K. Such an
    algorithm spreads its error over neighbours, so S is at least its mean over the outputs at hand.
    """
    around = np.maximum(magnitude, np.mean(magnitude))
    return 32 * math.sqrt(max(problem.products, 64)) * TABLE[problem.dtype].roundoff * around + summed(problem, magnitude, x, w)


def _tf32(problem: ConvProblem, magnitude: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Other libraries on tensor cores: 16·2**-11·S/√K for factors with 10 bits of fraction, on top of the sum in float32.

    For zero-mean random data as well, where the factors' errors are independent, so that K of them add up to √K, not K. In a
    simulation the factor was 3.5 for rounded factors, 10 for cut ones and for F(2,3), and more than 20 for bfloat16.
    """
    around = np.maximum(magnitude, np.mean(magnitude))
    return 16 * 2.0**-11 / math.sqrt(problem.products) * around + _unknown(problem, magnitude, x, w)


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
