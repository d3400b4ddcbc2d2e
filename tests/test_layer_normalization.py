"""Layer normalisation: values, gradients, the same bits for any threads and for a row alone, what is not finite, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import native

SHAPES = [((5, 7, 96), 1), ((3, 50), 1), ((2, 3, 4, 6), 2), ((1, 5003), 1), ((70, 16), 1), ((2, 3, 33), 3), ((129, 5), 1)]


def _settings() -> list[dict[str, Any]]:
    return [dict(isa=isa) for isa in native.runnable_isas()] + [dict(no_native=True)]


def _given(shape: tuple[int, ...], axes: int, dtype: Any, mean: float = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    along = shape[len(shape) - axes:]
    return dict(x=(rng.normal(size=shape) * 2 + mean).astype(dtype), g=rng.normal(size=shape).astype(dtype),
                weight=rng.normal(size=along).astype(dtype), bias=rng.normal(size=along).astype(dtype))


def _reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, axes: int) -> np.ndarray:
    wide, last = x.astype(np.longdouble), tuple(range(x.ndim - axes, x.ndim))
    deviation = np.sqrt(wide.var(last, keepdims=True) + np.longdouble(1e-5))
    return (wide - wide.mean(last, keepdims=True)) / deviation * weight + bias


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape, axes", SHAPES, ids=str)
def test_values_and_statistics(shape, axes, dtype):
    a = _given(shape, axes, dtype)
    along, last = shape[len(shape) - axes:], tuple(range(len(shape) - axes, len(shape)))
    expected = _reference(a["x"], a["weight"], a["bias"], axes)
    plain = _reference(a["x"], np.ones(along), np.zeros(along), axes)
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    for setting in _settings():
        out = np.full_like(a["x"], np.nan)
        with fastconv.config(**setting):
            y, mean, inverse = fastconv.layer_norm(a["x"], along, a["weight"], a["bias"], return_stats=True, out=out)
            bare = fastconv.layer_norm(a["x"], along[0] if axes == 1 else along)
        assert y is out and y.dtype == bare.dtype == mean.dtype == inverse.dtype == dtype
        assert np.abs(y - expected).max() <= tolerance and np.abs(bare - plain).max() <= tolerance
        wide = a["x"].astype(np.float64)
        np.testing.assert_allclose(mean, wide.mean(last, keepdims=True), rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(inverse, 1 / np.sqrt(wide.var(last, keepdims=True) + 1e-5), rtol=tolerance)


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape, axes", SHAPES, ids=str)
def test_gradients_against_differences(shape, axes, dtype, saved):
    """Of the reference along random directions."""
    a = _given(shape, axes, dtype)
    along, names, step = shape[len(shape) - axes:], ("x", "weight", "bias"), 1e-6
    rng = np.random.default_rng(3)
    directions = [rng.normal(size=a[name].shape) for name in names]
    slopes = []
    for i, direction in enumerate(directions):
        up, down = (_reference(*(a[name].astype(np.longdouble) + (size * direction if i == j else 0)
                                 for j, name in enumerate(names)), axes) for size in (step, -step))
        slopes.append(float(((up - down) * a["g"]).sum() / (2 * step)))
    for setting in _settings():
        with fastconv.config(**setting):
            statistics = fastconv.layer_norm(a["x"], along, return_stats=True)[1:] if saved else (None, None)
            out = np.full_like(a["x"], np.nan)
            found = fastconv.layer_norm_backward(a["g"], a["x"], along, a["weight"], save_mean=statistics[0],
                                                 save_invstd=statistics[1], out=out)
            over = a["g"].copy()
            again = fastconv.layer_norm_backward(over, a["x"], along, a["weight"], save_mean=statistics[0],
                                                 save_invstd=statistics[1], out=over)
        assert found[0] is out and all(map(np.array_equal, found, again))
        for made, direction, slope in zip(found, directions, slopes):
            bound = (2e-6 if dtype == np.float32 else 1e-9) * np.abs(made * direction).sum()
            assert made.dtype == dtype and abs((made * direction).sum() - slope) <= bound


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_bits_for_any_threads_and_for_a_row_alone(dtype):
    a = _given((3001, 100), 1, dtype)
    for isa in native.runnable_isas():
        made = []
        for threads in (1, 2, 3, 8):
            with fastconv.config(isa=isa, num_threads=threads):
                made.append([fastconv.layer_norm(a["x"], 100, a["weight"], a["bias"]),
                             *fastconv.layer_norm_backward(a["g"], a["x"], 100, a["weight"])])
        for other in made[1:]:
            assert all(map(np.array_equal, made[0], other))
        with fastconv.config(isa=isa):
            for row in (0, 7, 3000):
                part = slice(row, row + 1)
                assert np.array_equal(fastconv.layer_norm(a["x"][part], 100, a["weight"], a["bias"]), made[0][0][part])
                gradient = fastconv.layer_norm_backward(a["g"][part], a["x"][part], 100, a["weight"])[0]
                assert np.array_equal(gradient, made[0][1][part])


def test_what_is_not_finite_stays_in_its_row():
    a = _given((40, 33), 1, np.float32)
    for setting in _settings():
        with fastconv.config(**setting):
            clean = fastconv.layer_norm(a["x"], 33), fastconv.layer_norm_backward(a["g"], a["x"], 33)[0]
            x = a["x"].copy()
            x[5, 32], x[17, 0] = np.nan, np.inf
            spoiled = fastconv.layer_norm(x, 33), fastconv.layer_norm_backward(a["g"], x, 33)[0]
        others = np.delete(np.arange(40), [5, 17])
        for was, now in zip(clean, spoiled):
            assert np.array_equal(was[others], now[others]) and np.isnan(now[[5, 17]]).all()


def test_a_large_mean_costs_no_digits_of_the_deviation():
    x = (np.random.default_rng(1).integers(-8, 9, (20, 500)) + 2.0**20).astype(np.float32)
    for setting in _settings():
        with fastconv.config(**setting):
            _, _, inverse = fastconv.layer_norm(x, 500, return_stats=True)
        np.testing.assert_allclose(inverse[:, 0], 1 / np.sqrt(x.astype(np.float64).var(1) + 1e-5), rtol=1e-6)


def test_any_strides_and_none_at_all():
    a = _given((6, 8, 10), 1, np.float32)
    expected = fastconv.layer_norm(a["x"], 10, a["weight"], a["bias"])
    wide = np.full((6, 16, 20), np.nan, np.float32)
    wide[:, ::2, ::2] = a["x"]
    out = np.full((10, 8, 6), np.nan, np.float32).T
    assert fastconv.layer_norm(wide[:, ::2, ::2], 10, a["weight"][::-1][::-1], a["bias"], out=out) is out
    assert np.array_equal(out, expected)
    same = a["x"].copy()
    assert np.array_equal(fastconv.layer_norm(same, 10, a["weight"], a["bias"], out=same), expected)
    assert fastconv.layer_norm(np.empty((0, 4), np.float32), 4).shape == (0, 4)
    empty = fastconv.layer_norm_backward(*np.empty((2, 0, 4), np.float32), 4)
    assert empty[0].shape == (0, 4) and not empty[1].any() and not empty[2].any()


@pytest.mark.parametrize("arguments, error, words", [
    (((3, 4), 5), ValueError, "input must end in the axes of normalized_shape"),
    (((4,), (3, 4)), ValueError, "input must end in the axes of normalized_shape"),
    (((3, 4), ()), ValueError, "normalized_shape must have at least one axis"),
    (((3, 4), 4, np.ones(3)), ValueError, "weight must have the shape of normalized_shape"),
    (((3, 4), 4, np.ones(4), np.ones((4, 1))), ValueError, "bias must have the shape of normalized_shape"),
    (((3, 4), 4, np.ones(4, complex)), TypeError, "weight must be of real numbers"),
    (((3, 4), 4, None, None, -1), ValueError, "eps must not be negative"),
])
def test_errors(arguments, error, words):
    with pytest.raises(error, match=words):
        fastconv.layer_norm(np.ones(arguments[0], np.float32), *arguments[1:])


def test_errors_of_gradients():
    x = np.ones((3, 4), np.float32)
    with pytest.raises(ValueError, match="save_mean and save_invstd must both"):
        fastconv.layer_norm_backward(x, x, 4, save_mean=np.ones((3, 1), np.float32))
    with pytest.raises(ValueError, match="save_mean must have the shape of the statistics"):
        fastconv.layer_norm_backward(x, x, 4, save_mean=x[0], save_invstd=x[0])
    with pytest.raises(ValueError, match="grad_output must have the shape of input"):
        fastconv.layer_norm_backward(x[:2], x, 4)
    with pytest.raises(TypeError, match="grad_output"):
        fastconv.layer_norm_backward(x.astype(np.float64), x, 4)
    with pytest.raises(TypeError, match="input must be float32 or float64"):
        fastconv.layer_norm(np.ones((3, 4), int), 4)


def test_as_torch():
    torch = pytest.importorskip("torch")
    a = _given((4, 3, 6), 2, np.float64)
    theirs = {key: torch.tensor(value, requires_grad=key != "g") for key, value in a.items()}
    y = torch.nn.functional.layer_norm(theirs["x"], (3, 6), theirs["weight"], theirs["bias"])
    y.backward(theirs["g"])
    mine = {key: torch.tensor(value) for key, value in a.items()}
    found, *saved = fastconv.layer_norm(mine["x"], (3, 6), mine["weight"], mine["bias"], return_stats=True)
    expected = torch.native_layer_norm(mine["x"], (3, 6), mine["weight"], mine["bias"], 1e-5)
    for made, value in zip((found, *saved), expected):
        torch.testing.assert_close(made, value)
    gradients = fastconv.layer_norm_backward(mine["g"], mine["x"], (3, 6), mine["weight"], save_mean=saved[0],
                                             save_invstd=saved[1])
    for made, name in zip(gradients, ("x", "weight", "bias")):
        torch.testing.assert_close(made, theirs[name].grad, rtol=1e-10, atol=1e-10)
