"""Gradients of pooling against finite differences in float64, and what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from pooling_cases import LAYOUTS, call

import fastconv

SIZES = (7, 6, 5)
STEP = 1e-6
# function without the number of axes, arguments after the input, keywords
CALLS = [
    ("max_pool", (3, 2), {"padding": 1}), ("max_pool", (2,), {"dilation": 2, "ceil_mode": True}), ("min_pool", (2, 1), {}),
    ("avg_pool", (3, 2, 1), {}), ("avg_pool", (3, 2, 1, True, False), {}), ("avg_pool", (2,), {"dilation": 3}),
    ("lp_pool", (2, 3, 2), {}), ("lp_pool", (3, 2, 2, True), {}), ("lp_pool", (1.5, 3), {"padding": 1}),
    ("lp_pool", (np.inf, 3, 2), {}), ("lp_pool", (-np.inf, 2), {}), ("lp_pool", (-1, 2), {}),
    ("adaptive_avg_pool", (3,), {}), ("adaptive_max_pool", (4,), {}), ("global_avg_pool", (), {}), ("global_max_pool", (), {}),
]


def distinct(rng, shape):
    """Values with no ties, none near 0, positive: a difference of STEP changes no choice."""
    return rng.permutation(np.linspace(0.5, 2, int(np.prod(shape)))).reshape(shape)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ndim", (1, 2, 3))
@pytest.mark.parametrize("name, arguments, more", CALLS, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(CALLS)])
def test_against_finite_differences(name, arguments, more, ndim, layout, backend, rng):
    function = name if name.startswith("global") else f"{name}{ndim}d"
    x = distinct(rng, (2, 3, *SIZES[:ndim]))
    x = x if layout == "channels_first" else np.ascontiguousarray(np.moveaxis(x, 1, -1))
    if np.inf in arguments or -np.inf in arguments:
        x = x * rng.choice([-1, 1], x.shape)

    def output(at):
        return call("naive", function, at, *arguments, layout=layout, **more)

    g = rng.standard_normal(output(x).shape)
    out = np.full(x.shape, np.nan)
    gradient = call(backend, f"{function}_input", g, x, *arguments, layout=layout, out=out, **more)
    assert gradient is out
    direction = rng.standard_normal(x.shape)
    numeric = ((output(x + STEP * direction) - output(x - STEP * direction)) * g).sum() / (2 * STEP)
    assert (gradient * direction).sum() == pytest.approx(numeric, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", ["max_pool2d", "min_pool2d", "adaptive_max_pool2d"])
def test_indices_that_are_given_are_used(name, backend, rng):
    x = rng.integers(0, 5, (2, 3, 8, 9)).astype(np.float32)
    y, i = call(backend, name, x, 3, return_indices=True)
    found = call(backend, f"{name}_input", y, x, 3)
    np.testing.assert_array_equal(call(backend, f"{name}_input", y, x, 3, indices=i.astype(np.int32)), found)
    other = call(backend, f"{name}_input", y, x, 3, indices=np.zeros_like(i))
    np.testing.assert_allclose(other[:, :, 0, 0], y.sum((2, 3)))
    assert not other[:, :, 1:].any()


def test_overlapping_windows_add_up(backend):
    x = np.array([[0., 9, 1, 8, 2]])
    assert call(backend, "max_pool1d_input", np.ones((1, 3)), x, 3, 1).tolist() == [[0, 2, 0, 1, 0]]
    assert call(backend, "avg_pool1d_input", np.full((1, 3), 3.), x, 3, 1).tolist() == [[1, 2, 3, 2, 1]]


def test_what_no_window_reads_has_no_gradient(backend):
    """Not even where it is NaN or Inf, of which a power times 0 would be NaN."""
    x = np.array([[1., 2, np.nan, np.inf, 0]])
    assert call(backend, "lp_pool1d_input", np.ones((1, 1)), x, 2, 2, 9).tolist()[0][2:] == [0, 0, 0]
    assert call(backend, "lp_pool1d_input", np.ones((1, 1)), np.array([[1., 0]]), 0.5, 1, 2).tolist() == [[1, 0]]
    assert call(backend, "avg_pool1d_input", np.ones((1, 1)), x, 2, 9).tolist() == [[.5, .5, 0, 0, 0]]


def test_a_window_of_zeros_has_no_gradient(backend):
    for norm in (1, 2, 3, 1.5):
        assert call(backend, "lp_pool1d_input", np.ones((1, 2)), np.array([[0., 0, 3, 4]]), norm, 2)[0, :2].tolist() == [0, 0]


def test_dtypes_promote_as_gradients_of_convolution_do(backend):
    x = np.arange(8, dtype=np.int8).reshape(1, 8)
    gradient = call(backend, "max_pool1d_input", np.ones((1, 4), np.float32), x, 2)
    assert gradient.dtype == np.float32 and gradient.tolist() == [[0, 1] * 4]
    mixed = call(backend, "avg_pool1d_input", np.ones((1, 4), np.float32), x.astype(float), 2)
    assert mixed.dtype == np.float64
    with pytest.raises(TypeError, match="grad_output and input must promote to float32 or float64, got int8 and int8"):
        fastconv.max_pool1d_input(np.ones((1, 4), np.int8), x, 2)
