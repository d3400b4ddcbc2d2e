"""softmax, log_softmax, cross entropy and their gradients: values, axes, threads, torch, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import native


def _settings() -> list[dict[str, Any]]:
    return [dict(isa=isa) for isa in native.runnable_isas()] + [dict(no_native=True)]


def _reference(x: np.ndarray, axis: int, log: bool) -> np.ndarray:
    x = x.astype(np.longdouble)
    x = x - x.max(axis, keepdims=True)
    total = np.exp(x).sum(axis, keepdims=True)
    return x - np.log(total) if log else np.exp(x) / total


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape, axis", [((128, 1000), -1), ((5, 3), 1), ((3, 21, 9, 11), 1), ((7,), 0), ((40, 6), 0),
                                         ((4, 1, 5), 1), ((2, 3, 5), -3), ((3, 5, 1), 1)], ids=str)
def test_softmax_and_log_softmax(shape, axis, dtype):
    x = (np.random.default_rng(1).normal(size=shape) * 10).astype(dtype)
    unit = np.finfo(dtype).eps
    for setting in _settings():
        with fastconv.config(**setting):
            out = np.full_like(x, np.nan)
            assert fastconv.softmax(x, axis, out=out) is out
            expected = _reference(x, axis, False)
            summed = x.shape[axis] / 32 if dtype == np.float64 else 0
            apart = np.abs(x - x.max(axis, keepdims=True))  # rounded, and exp makes that a relative error
            assert (np.abs(out - expected) <= (6 + apart + summed) * unit * expected + np.finfo(dtype).tiny).all(), setting
            logs = fastconv.log_softmax(x, axis)
            expected = _reference(x, axis, True)
            assert (np.abs(logs - expected) <= (3 + summed / 4) * unit * np.maximum(np.abs(expected), 4)).all(), setting
            same = x.copy()
            assert np.array_equal(fastconv.softmax(same, axis, out=same), out)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype, least", [(np.float32, -105), (np.float64, -750)], ids=["float32", "float64"])
def test_probabilities_down_to_the_smallest_number(dtype, least, axis):
    """Within 4 ulp where no difference from the largest is rounded, denormal results included."""
    x = np.linspace(least, -30, 24_000).reshape(24, -1).astype(dtype)
    x[:, ::100] = 0
    given = x if axis else np.ascontiguousarray(x.T)
    expected = _reference(given, axis, False)
    for isa in native.runnable_isas():
        with fastconv.config(isa=isa):
            off = np.abs(fastconv.softmax(given, axis) - expected) / np.spacing(expected.astype(dtype))
            assert (off <= 4).all(), (isa, off.max())


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("shape, axis", [((30, 1000), 1), ((3, 21, 9, 5), 1), ((6, 7), 0)], ids=str)
def test_gradients_against_differences(shape, axis, log):
    rng = np.random.default_rng(2)
    x, g, direction = (rng.normal(size=shape) for _ in range(3))
    function, gradient = ((fastconv.log_softmax, fastconv.log_softmax_input) if log else
                          (fastconv.softmax, fastconv.softmax_input))
    step = 1e-5
    slope = (g * (_reference(x + step * direction, axis, log) - _reference(x - step * direction, axis, log))).sum() / (2 * step)
    for setting in _settings():
        with fastconv.config(**setting):
            found = gradient(g, function(x, axis), axis)
            assert abs((found * direction).sum() - slope) <= 1e-7 * np.abs(found * direction).sum()
            out = np.full(shape, np.nan, np.float32)
            single = gradient(g.astype(np.float32), function(x.astype(np.float32), axis), axis, out=out)
            assert single is out
            np.testing.assert_allclose(single, found, atol=3e-6 if log else 2e-7, rtol=1e-5)


def test_rows_that_are_not_finite():
    inf, nan = np.inf, np.nan
    x = np.tile(np.array([[0, 1, 2], [-inf, 0, 0], [inf, 0, 0], [nan, 0, 0], [-inf, -inf, -inf], [1e30, 0, -1e30]]), (1, 12))
    for dtype in (np.float32, np.float64):
        for setting in _settings():
            with fastconv.config(**setting):
                for given, axis in ((x.astype(dtype), 1), (np.ascontiguousarray(x.T.astype(dtype)), 0)):
                    y = np.moveaxis(fastconv.softmax(given, axis), axis, 1)
                    assert np.isnan(y[[2, 3, 4]]).all(), setting
                    assert np.array_equal(np.isnan(y[[0, 1, 5]]), np.zeros((3, 36), bool))
                    assert (y[1, ::3] == 0).all() and np.allclose(y[5, ::3], 1 / 12) and (y[5, 1::3] == 0).all()


@pytest.mark.parametrize("shape, axis", [((300, 501), 1), ((2, 19, 31, 33), 1)], ids=str)
def test_threads_and_strides_change_no_bit(shape, axis):
    rng = np.random.default_rng(3)
    x, g = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    with fastconv.config(num_threads=1):
        whole = fastconv.softmax(x, axis), fastconv.log_softmax_input(g, x, axis)
    for threads in (2, 5):
        with fastconv.config(num_threads=threads):
            assert np.array_equal(fastconv.softmax(x, axis), whole[0])
            assert np.array_equal(fastconv.log_softmax_input(g, x, axis), whole[1])
    room = np.repeat(x, 2, -1)[..., ::2]
    for odd in (room, x[::-1].copy()[::-1], np.asfortranarray(x), x.astype(">f4")):
        np.testing.assert_allclose(fastconv.softmax(odd, axis), whole[0], rtol=1e-6)
        out = np.full_like(np.repeat(x, 2, -1), np.nan)[..., ::2]
        fastconv.softmax(odd, axis, out=out)
        np.testing.assert_allclose(out, whole[0], rtol=1e-6)


CASES = [dict(), dict(label_smoothing=0.1), dict(weighted=True), dict(weighted=True, label_smoothing=0.3), dict(ignored=True),
         dict(ignored=True, weighted=True, label_smoothing=1.0)]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("shape", [(40, 11), (3, 7, 5, 9), (5,), (6, 4, 1)], ids=str)
def test_cross_entropy_as_torch(shape, case, reduction):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    classes = shape[min(1, len(shape) - 1)]
    x = rng.normal(size=shape) * 3
    target = rng.integers(0, classes, () if len(shape) == 1 else (shape[0], *shape[2:]))
    if case.get("ignored") and len(shape) > 1:
        target[rng.random(target.shape) < 0.4] = -100
        target.flat[0] = 1
    weight = rng.uniform(0.1, 2, classes) if case.get("weighted") else None
    smoothing = case.get("label_smoothing", 0.0)
    g = rng.normal(size=target.shape) if reduction == "none" else 1.7
    theirs = torch.tensor(x, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(theirs, torch.tensor(target), None if weight is None else torch.tensor(weight),
                                             reduction=reduction, label_smoothing=smoothing)
    loss.backward(torch.tensor(g, dtype=torch.float64))
    given: dict[str, Any] = dict(weight=weight, reduction=reduction, label_smoothing=smoothing)
    for setting in _settings():
        with fastconv.config(**setting):
            found = fastconv.cross_entropy(x, target, **given)
            np.testing.assert_allclose(found, loss.detach().numpy(), rtol=1e-12, atol=1e-13)
            assert found.dtype == np.float64
            out = np.full_like(x, np.nan)
            assert fastconv.cross_entropy_input(g, x, target, **given, out=out) is out
            np.testing.assert_allclose(out, theirs.grad.numpy(), rtol=1e-10, atol=1e-14)
            last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, min(1, x.ndim - 1), -1)), -1, min(1, x.ndim - 1))
            np.testing.assert_allclose(fastconv.cross_entropy(last, target, **given), found, rtol=1e-13, atol=1e-14)
            single = fastconv.cross_entropy_input(g, x.astype(np.float32), target, **given)
            np.testing.assert_allclose(single, out, rtol=2e-5, atol=2e-6)


def test_cross_entropy_of_tensors_and_of_nothing():
    torch = pytest.importorskip("torch")
    x, target = torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 4, -100])
    loss = fastconv.cross_entropy(x, target)
    assert isinstance(loss, torch.Tensor) and loss.shape == () and loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(x, target))
    assert isinstance(fastconv.cross_entropy_input(1.0, x, target), torch.Tensor)
    nothing = np.full(3, -100)
    assert np.isnan(fastconv.cross_entropy(np.ones((3, 4)), nothing)) and fastconv.cross_entropy(
        np.ones((3, 4)), nothing, reduction="sum") == 0
    assert np.isnan(fastconv.cross_entropy(np.ones((0, 4)), np.zeros(0, int)))
    assert fastconv.softmax(np.ones((0, 4))).shape == (0, 4)


X = np.ones((4, 3), np.float32)
T = np.zeros(4, int)


@pytest.mark.parametrize("call, error, words", [
    (lambda: fastconv.softmax(X.astype(np.float16)), TypeError, "input must be float32 or float64, got float16"),
    (lambda: fastconv.softmax(X, 2), ValueError, "axis must be one of the 2 axes of input, got 2"),
    (lambda: fastconv.softmax(np.float32(1)), ValueError, "axis must be one of the 0 axes of input, got -1"),
    (lambda: fastconv.softmax(X, 1.0), TypeError, r"axis must be .*got 1\.0"),
    (lambda: fastconv.log_softmax(X, out=X.T), ValueError, r"out must have the shape of input, \(4, 3\), got \(3, 4\)"),
    (lambda: fastconv.softmax_input(X.T, X), ValueError, r"grad_output must have the shape of output, \(4, 3\), got \(3, 4\)"),
    (lambda: fastconv.cross_entropy(X, T[:3]), ValueError, r"target must have shape \(4,\) for input .*\(4, 3\), got \(3,\)"),
    (lambda: fastconv.cross_entropy(X, T + 3), ValueError, r"target must be at least 0 and below 3, or ignore_index.*got 3"),
    (lambda: fastconv.cross_entropy(X, T - 1), ValueError, "target must be at least 0 and below 3.*got -1"),
    (lambda: fastconv.cross_entropy(X, T.astype(float)), TypeError, "target must be integers.*got float64"),
    (lambda: fastconv.cross_entropy(X, T, X[0, :2]), ValueError, r"weight must have shape \(3,\), one value.*got \(2,\)"),
    (lambda: fastconv.cross_entropy(X, T, reduction="max"), ValueError, "reduction must be 'none', .*got 'max'"),
    (lambda: fastconv.cross_entropy(X, T, label_smoothing=1.5), ValueError, "label_smoothing must be between 0 and 1"),
    (lambda: fastconv.cross_entropy(X, T, ignore_index=0.5), TypeError, r"ignore_index .*0\.5"),
    (lambda: fastconv.cross_entropy(X[:, :0], T), ValueError, r"input must have shape \(C,\).*got \(4, 0\)"),
    (lambda: fastconv.cross_entropy_input(X, X, T), ValueError, r"grad_output must have the loss's shape \(\), got \(4, 3\)"),
    (lambda: fastconv.cross_entropy_input(1.0, X, T, reduction="none"), ValueError, r"loss's shape \(4,\), got \(\)"),
    (lambda: fastconv.cross_entropy_input(None, X, T), TypeError, "grad_output must be an array or a number, got None"),
])
def test_what_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
