"""Each activation within 4 ulp of its exact value, over its whole range, by each of its forms; the limits at infinity; NaN
stays NaN."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from problems import problem

import fastconv
from fastconv import activations
from fastconv.backends import Candidate, registry
from fastconv.candidates import bind
from fastconv.problem import ACTIVATIONS, ConvProblem
from fastconv.verify import bounds, check, reference
from fastconv.verify.data import Arrays, random_arrays

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
    if not abs(x) < 60:
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
    info = np.finfo(dtype)
    every = np.ldexp(1.0, np.arange(-149, 128) if dtype == np.float32 else np.arange(-1074, 1024, 5))
    edges = np.array([info.max, info.tiny, info.smallest_subnormal, info.eps])
    with np.errstate(over="ignore", under="ignore"):
        points = np.concatenate([*spread, *tails, odd, every, -1.37 * every, edges, -edges]).astype(dtype)
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


LOW = {"leaky_relu": -math.inf, "tanh": -1.0}  # at -inf: 0, but for
HIGH = {"relu6": 6.0, "sigmoid": 1.0, "tanh": 1.0}  # at +inf: inf, but for


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_and_infinity(name):
    scalar = activations.scalar((name, 0.01 if name == "leaky_relu" else 0.0))
    assert math.isnan(scalar(math.nan))
    limits = [LOW.get(name, 0.0), HIGH.get(name, math.inf)]
    assert [scalar(-math.inf), scalar(math.inf)] == limits
    for dtype in (np.float32, np.float64):
        array = np.array([np.nan, -np.inf, np.inf], dtype)
        with np.errstate(invalid="ignore"):
            activations.apply((name, 0.01 if name == "leaky_relu" else 0.0), array)
        assert np.isnan(array[0]) and array[1:].tolist() == limits


# ---- as the epilogue of every backend, algorithm and ISA

SHAPES = {  # (channels, groups, input size, kernel size), padded such that 480 or 960 outputs come out; what each is there for
    "pointwise": (4, 1, (10, 24), (1, 1)), "winograd": (4, 1, (10, 24), (3, 3)), "depthwise": (4, 4, (10, 24), (3, 3)),
    "fft": (4, 4, (10, 24), (9, 11)), "1-D": (4, 1, (240,), (3,)), "3-D": (2, 2, (3, 10, 16), (1, 3, 3)),
}


def _problem(shape: str, activation: object, dtype: type, **more: object) -> ConvProblem:
    channels, groups, size, kernel = SHAPES[shape]
    return problem((channels, channels), size, kernel, groups=groups, activation=activation, dtype=np.dtype(dtype).name,
                   **{"bias": False, **more})


def _candidates(problem: ConvProblem, backend: str) -> Iterator[Candidate]:
    who = registry()[backend]
    return (candidate for candidate in who.candidates(problem) if who.refuses(problem, candidate) is None)


@functools.cache
def _specials(activation, dtype):
    """(values, their images to within half an ulp, how far off a result may be)"""
    rng = np.random.default_rng(6)
    points = np.concatenate([rng.permutation(_points(dtype))[:420].astype(np.float64), [-14, -9, 9, -1e30, 1e30, -1000, 1000]])
    info = np.finfo(dtype)
    edges = [info.max, info.tiny, info.smallest_subnormal, math.inf, 0.0]
    values = np.concatenate([points, edges, np.negative(edges), [math.nan] * 3]).astype(dtype)
    name, parameter = activation
    exact = []
    for x in values.tolist():
        if math.isnan(x) or math.isinf(x):
            limit = x if math.isnan(x) else (HIGH if x > 0 else LOW).get(name, max(x, 0.0))
            exact.append(limit if name != "leaky_relu" or x > 0 else x * parameter if parameter else 0.0)
        elif name == "leaky_relu" and x < 0:
            exact.append(float(_CONTEXT.mpf(x) * _CONTEXT.mpf(parameter)))
        else:
            exact.append(float(_exact(name, _CONTEXT.mpf(x))))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        images = np.array(exact).astype(dtype)
        return values, images, np.where(np.isfinite(images), 3.5 * np.spacing(np.abs(images)), 0)


def _check_specials(problem: ConvProblem, backend: str, candidate: Candidate) -> None:
    """0 + residual, whatever the weights: so that algorithms that transform give exact arguments, too."""
    dtype = np.dtype(problem.dtype).type
    values, images, allowed = _specials(problem.activation, dtype)
    rng = np.random.default_rng(7)
    w = rng.standard_normal(problem.weight_shape).astype(dtype)
    bias = np.zeros(problem.out_channels, dtype) if problem.bias else None
    x, residual = np.zeros(problem.input_shape, dtype), np.resize(values, problem.output_shape)
    expected, allowed = np.resize(images, residual.shape), np.resize(allowed, residual.shape)
    out = check.run(bind(problem, backend, candidate), problem, Arrays(x, w, bias, residual))
    if problem.accuracy != "strict":  # denormals may be taken for 0, and given as 0
        allowed = allowed + np.finfo(dtype).tiny
        small = np.abs(residual) < np.finfo(dtype).tiny
        out, expected = np.where(small, 0, out), np.where(small, 0, expected)
    with np.errstate(invalid="ignore"):
        right = (out == expected) | (np.isnan(out) & np.isnan(expected)) | (np.abs(out - expected) <= allowed)
    wrong = list(zip(residual[~right].tolist(), out[~right].tolist(), expected[~right].tolist()))[:3]
    assert not wrong, f"{backend} {candidate}, {problem.text}: (x, got, expected) {wrong}"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_special_values_through_every_candidate(name, dtype, backend):
    ran = 0
    for shape in SHAPES:
        for changes in ({}, {"accuracy": "strict", "bias": True}, {"layout": "channels_last"}):
            problem = _problem(shape, name, dtype, residual=True, **changes)
            for candidate in _candidates(problem, backend):
                _check_specials(problem, backend, candidate)
                ran += 1
    assert ran >= 3 * len(SHAPES)


@pytest.mark.parametrize("dtype, slope", [(np.float32, 0.0), (np.float32, 1e-50), (np.float32, 1e-42), (np.float32, 1e39),
                                          (np.float32, -1e-40), (np.float64, 0.0), (np.float64, 5e-324), (np.float64, -1e-320)])
def test_a_slope_that_the_dtype_cannot_hold(dtype, slope, backend):
    for shape in ("pointwise", "winograd", "depthwise"):
        problem = _problem(shape, ("leaky_relu", slope), dtype, residual=True)
        for candidate in _candidates(problem, backend):
            _check_specials(problem, backend, candidate)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_infinities_in_the_sum(name, backend):
    """Infinite data, biases and residuals, which may cancel to NaN, in tiles where all else is finite."""
    for shape in SHAPES:
        problem = _problem(shape, name, np.float32, residual=True, bias=True)
        x, w, b, residual = random_arrays(problem, np.random.default_rng(8))
        x.flat[[11, 300, 301]] = np.inf, -np.inf, np.nan
        residual.flat[7::60], residual.flat[37::60] = np.inf, -np.inf
        b[0] = -np.inf
        expected, magnitude = reference.oracle(problem, x, w, b, residual)
        assert np.isnan(expected).any() and np.isfinite(expected).any()
        for candidate in _candidates(problem, backend):
            out = check.run(bind(problem, backend, candidate), problem, Arrays(x, w, b, residual))
            allowed = bounds.bound(problem, candidate.algorithm, expected, magnitude, x, w, tile=candidate.tile)
            assert bounds.compare(out, expected, allowed) <= 1, f"{backend} {candidate}, {problem.text}"


def test_lipschitz_constants_hold():
    """What a sum's error becomes behind the activation: at most its slope."""
    from fastconv.verify.bounds import LIPSCHITZ

    x = np.linspace(-12, 12, 200_001)
    assert set(LIPSCHITZ) == set(ACTIVATIONS) - {"leaky_relu"}
    for name, steepest in LIPSCHITZ.items():
        y = x.copy()
        activations.apply((name, 0.0), y)
        measured = np.abs(np.diff(y) / np.diff(x)).max()
        assert measured <= steepest * (1 + 1e-9) and measured > 0.97 * steepest, (name, measured)
