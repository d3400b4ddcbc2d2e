"""Each activation within 4 ulp of its exact value, over its whole range, by each of its forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastconv
from fastconv import activations
from fastconv.problem import ACTIVATIONS

mp = pytest.importorskip("mpmath")

_CONTEXT = mp.MPContext()
_CONTEXT.prec = 250


def _exact(name, x):
    m = _CONTEXT
    if name == "relu":
        return max(x, m.mpf(0))
    if name == "relu6":
        return min(max(x, m.mpf(0)), m.mpf(6))
    if name == "leaky_relu":
        return x if x > 0 else x * m.mpf(0.01)
    if name == "hardswish":
        return x * min(max(x + 3, 0), 6) / 6
    if name == "tanh":
        return m.tanh(x)
    if name == "sigmoid":
        return 1 / (1 + m.exp(-x))
    if name == "silu":
        return x / (1 + m.exp(-x))
    if abs(x) > 60:
        return max(x, m.mpf(0))  # within far less than the smallest number
    if name == "gelu":
        return x / 2 * m.erfc(-x / m.sqrt(2))
    return x / (1 + m.exp(-2 * m.sqrt(2 / m.pi) * (x + m.mpf("0.044715") * x**3)))


def _points(dtype):
    rng = np.random.default_rng(4)
    spread = [rng.normal(size=120) * scale for scale in (1e-3, 0.3, 1, 3, 8, 30)]
    tails = [np.linspace(-760, -690, 80), np.linspace(-110, -80, 40), np.linspace(-40, -5, 160), np.linspace(5, 40, 40)]
    odd = [0, 1, -1, 3, -3, 6, -2.999999, 1e-40, -1e-40, 1e-310, -1e-310, 5e-324, -5e-324, 1e-300, 3e38, -3e38, 1.7e308,
           -1.7e308]
    with np.errstate(over="ignore", under="ignore"):
        points = np.concatenate([*spread, *tails, odd]).astype(dtype)
    return points[np.isfinite(points)]


def _ulps(actual, exact, dtype):
    with np.errstate(over="ignore", under="ignore"):
        spacing = float(np.spacing(np.abs(dtype(float(exact)))))
    return float(abs(_CONTEXT.mpf(float(actual)) - exact) / _CONTEXT.mpf(spacing)) if math.isfinite(actual) else math.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_within_four_ulp(name, dtype):
    parameter = 0.01 if name == "leaky_relu" else 0.0
    scalar = activations.scalar((name, parameter))
    points = _points(dtype)
    whole = points.copy()
    activations.apply((name, parameter), whole)
    for x, from_array in zip(points.tolist(), whole.tolist()):
        exact = _exact(name, _CONTEXT.mpf(x))
        with np.errstate(under="ignore"):
            from_scalar = float(dtype(scalar(x)))
        assert _ulps(from_array, exact, dtype) <= 4, (x, from_array)
        assert _ulps(from_scalar, exact, dtype) <= 4, (x, from_scalar)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_backend_within_four_ulp(name, dtype, backend):
    """Through a convolution that changes nothing; denormal results may be flushed unless strict."""
    points = _points(dtype)
    x = points.reshape(1, 1, -1)
    y = fastconv.conv1d(x, np.ones((1, 1, 1), dtype), activation=name, accuracy="strict", backend=backend).ravel()
    worst = max(((_ulps(a, _exact(name, _CONTEXT.mpf(v)), dtype), v, a) for v, a in zip(points.tolist(), y.tolist())))
    assert worst[0] <= 4, f"{worst[0]:.3g} ulp at {worst[1]!r}: {worst[2]!r}"


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_and_infinity(name):
    scalar = activations.scalar((name, 0.01 if name == "leaky_relu" else 0.0))
    assert math.isnan(scalar(math.nan))
    top = {"relu6": 6.0, "sigmoid": 1.0, "tanh": 1.0}.get(name, math.inf)
    assert scalar(math.inf) == top
    for dtype in (np.float32, np.float64):
        array = np.array([np.nan, np.inf], dtype)
        with np.errstate(invalid="ignore"):
            activations.apply((name, 0.01 if name == "leaky_relu" else 0.0), array)
        assert np.isnan(array[0]) and array[1] == top


def test_lipschitz_constants_hold():
    """What a sum's error becomes behind the activation: at most its slope."""
    from fastconv.accuracy import LIPSCHITZ

    x = np.linspace(-12, 12, 200_001)
    assert set(LIPSCHITZ) == set(ACTIVATIONS) - {"leaky_relu"}
    for name, steepest in LIPSCHITZ.items():
        y = x.copy()
        activations.apply((name, 0.0), y)
        measured = np.abs(np.diff(y) / np.diff(x)).max()
        assert measured <= steepest * (1 + 1e-9) and measured > 0.97 * steepest, (name, measured)
