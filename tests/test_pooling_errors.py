"""What pooling does not take: one line that names the argument, the value and the rule; never a crash."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv
from fastconv.pool_problem import PoolProblem

X = np.arange(2 * 3 * 5 * 6, dtype=np.float32).reshape(2, 3, 5, 6)
G = np.ones((2, 3, 2, 3), np.float32)
I = np.zeros((2, 3, 2, 3), np.int64)  # noqa: E741

# function, arguments, keywords, error, what it says
WRONG = [
    ("max_pool2d", (X, 0), {}, ValueError, "kernel_size must be positive, got 0"),
    ("max_pool2d", (X, (2, 2, 2)), {}, ValueError,
     "kernel_size must be an integer or 2 of them, one per spatial axis, got (2, 2, 2)"),
    ("max_pool2d", (X, 2.0), {}, TypeError, "kernel_size must be an integer, got 2.0"),
    ("max_pool2d", (X, None), {}, TypeError, "kernel_size must be an integer, got None"),
    ("max_pool2d", (X, 2, 0), {}, ValueError, "stride must be positive, got 0"),
    ("max_pool2d", (X, 2, 1, -1), {}, ValueError, "padding must be at least 0, got -1"),
    ("max_pool2d", (X, 2, 1, 2), {}, ValueError,
     "padding must be at least 0 and at most half of what the kernel spans, 1 (2 taps, dilation 1), got (2, 2)"),
    ("max_pool2d", (X, 3, 1, ((0, 2), 1)), {}, ValueError, "padding must be at least 0 and at most half"),
    ("max_pool2d", (X, 3, 1, "full"), {}, ValueError, "padding must be at least 0 and at most half"),
    ("max_pool2d", (X, 3, 1, "sam"), {}, ValueError, "padding must be one of valid, same, same_lower, full, got 'sam'"),
    ("max_pool2d", (X, 2, 1, 0, 0), {}, ValueError, "dilation must be positive, got 0"),
    ("max_pool2d", (X, 2, 1, 0, 1, 1), {}, TypeError, "ceil_mode must be True or False, got 1"),
    ("max_pool2d", (X, 2), {"return_indices": "yes"}, TypeError, "return_indices must be True or False, got 'yes'"),
    ("max_pool2d", (X, 6), {}, ValueError,
     "kernel does not fit: it spans 6 (6 taps, dilation 1), but the padded input has 5 (5 + 0 + 0)"),
    ("max_pool2d", (X, 3, 1, 0, 3), {}, ValueError, "kernel does not fit: it spans 7 (3 taps, dilation 3)"),
    ("max_pool2d", (X[:, :, :1, :1], 2, 1, 1, 2), {}, ValueError,
     "every window must hold a part of the input, but with kernel_size 2, dilation 2"),
    ("max_pool2d", (X[0, 0], 2), {}, ValueError,
     "input of max_pool2d must have shape (N, C, H, W), or the same without N, got (5, 6)"),
    ("min_pool1d", (X, 2), {}, ValueError,
     "input of min_pool1d must have shape (N, C, W), or the same without N, got (2, 3, 5, 6)"),
    ("max_pool2d", (X, 2), {"layout": "NCW"}, ValueError, "layout for 2 spatial axes must be one of"),
    ("max_pool2d", (X[:, :0], 2), {}, ValueError,
     "input must have at least one channel and no empty spatial axis, got shape (2, 0, 5, 6)"),
    ("max_pool2d", (X[:, :, :, :0], 2), {}, ValueError, "no empty spatial axis, got shape (2, 3, 5, 0)"),
    ("max_pool2d", (X.astype(complex), 2), {}, TypeError,
     "input of max pooling must be float32, float64, an integer dtype or bool, got complex128; convert it"),
    ("max_pool2d", (X.astype(np.float16), 2), {}, TypeError, "got float16; convert it"),
    ("avg_pool2d", (X.astype(int), 2), {}, TypeError,
     "input of average pooling must be float32 or float64, got int64; convert it"),
    ("lp_pool2d", (X.astype(bool), 2, 2), {}, TypeError, "input of lp pooling must be float32 or float64, got bool"),
    ("avg_pool2d", (X, 2), {"divisor_override": 0}, ValueError, "divisor_override must not be 0, got 0"),
    ("avg_pool2d", (X, 2), {"divisor_override": 2.5}, TypeError, "divisor_override must be an integer, got 2.5"),
    ("avg_pool2d", (X, 2), {"count_include_pad": None}, TypeError, "count_include_pad must be True or False, got None"),
    ("lp_pool2d", (X, 0, 2), {}, ValueError, "norm_type must be finite and not 0, got 0"),
    ("lp_pool2d", (X, float("nan"), 2), {}, ValueError, "norm_type must be finite and not 0, got nan"),
    ("lp_pool2d", (X, "2", 2), {}, TypeError, "norm_type must be a number, got '2'"),
    ("lp_pool2d", (X, 10**400, 2), {}, ValueError, "norm_type must be finite and not 0, got an integer of 1329 bits"),
    ("adaptive_avg_pool2d", (X, 0), {}, ValueError, "output_size must be positive, got 0"),
    ("adaptive_avg_pool2d", (X, (1, 2, 3)), {}, ValueError,
     "output_size must be an integer, None or 2 of them, one per spatial axis, got (1, 2, 3)"),
    ("adaptive_max_pool2d", (X, (1.5, None)), {}, TypeError, "output_size must be an integer, got (1.5, None)"),
    ("adaptive_avg_pool2d", (X, 2**62), {}, ValueError, "the output would have"),
    ("global_avg_pool", (X[0, 0],), {}, ValueError,
     "input of global_avg_pool must have shape (N, C, *space) with 1, 2 or 3 spatial axes"),
    ("max_pool2d", (X, 2), {"out": np.empty((2, 3, 2, 2), np.float32)}, ValueError,
     "out must have the output's shape (2, 3, 2, 3), got (2, 3, 2, 2)"),
    ("max_pool2d", (X, 2), {"out": np.empty((2, 3, 2, 3))}, TypeError, "out must have the output's dtype float32, got float64"),
    ("max_pool2d", (X, 2), {"backend": "nonesuch"}, ValueError, "backend must be 'auto' or one of"),
    ("max_pool2d", (np.ma.masked_array(X), 2), {}, TypeError, "input is a masked array"),
    ("max_pool2d_input", (G[:, :, :1], X, 2), {}, ValueError,
     "grad_output must have the output's shape (2, 3, 2, 3), which input (2, 3, 5, 6) gives with these arguments"),
    ("max_pool2d_input", (G, X, 2), {"indices": I[:1]}, ValueError,
     "indices must have the shape (2, 3, 2, 3), one per pooled value, got (1, 3, 2, 3)"),
    ("max_pool2d_input", (G, X, 2), {"indices": I + 30}, ValueError,
     "indices must lie in a plane of 5 x 6, from 0 to 29, got 30"),
    ("max_pool2d_input", (G, X, 2), {"indices": I - 1}, ValueError,
     "indices must lie in a plane of 5 x 6, from 0 to 29, got -1"),
    ("max_pool2d_input", (G, X, 2), {"indices": I + 0.5}, TypeError, "indices must be integers, got float64"),
    ("avg_pool2d_input", (G, X, 2), {"out": G}, ValueError, "out must have the input's shape (2, 3, 5, 6), got (2, 3, 2, 3)"),
    ("max_unpool2d", (G, I + 24, 2), {}, ValueError, "indices must lie in a plane of 4 x 6, from 0 to 23, got 24"),
    ("max_unpool2d", (G, I[:, :2], 2), {}, ValueError, "indices must have the shape (2, 3, 2, 3), one per pooled value"),
    ("max_unpool2d", (G, I, 2), {"output_size": (6, 6)}, ValueError,
     "output_size must be less than the stride 2 away from 4 along that axis, got (6, 6)"),
    ("max_unpool2d", (G, I, 2), {"output_size": (5,)}, ValueError,
     "output_size must have 2 entries, one per spatial axis, or 4, got (5,)"),
    ("max_unpool2d", (G, I, 2, 1, 2), {}, ValueError, "the output would be empty: input (2, 3) gives (-1, 0)"),
    ("max_unpool2d", (G, I, 2, 1, -1), {}, ValueError, "padding must be at least 0, got -1"),
    ("max_unpool2d_input", (G, G, I, 2), {}, ValueError,
     "grad_output must have the output's shape (2, 3, 4, 6), got (2, 3, 2, 3)"),
]


@pytest.mark.parametrize("name, arguments, more, error, told", WRONG, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(WRONG)])
def test_what_is_wrong_is_told(name, arguments, more, error, told):
    with pytest.raises(error) as caught:
        getattr(fastconv, name)(*arguments, **more)
    message = str(caught.value)
    assert told in message
    assert "\n" not in message and len(message) < 500


PROBLEMS = [
    (dict(op="median"), "op must be one of max, min, average, lp, got 'median'"),
    (dict(direction="backward_weight"), "direction must be one of forward, backward_input"),
    (dict(dtype="float16"), "dtype must be one of"),
    (dict(dtype="int8", op="average"), "dtype must be one of float32, float64, got 'int8'"),
    (dict(op="average", return_indices=True), "return_indices is for max and min pooling, forward, got average, forward"),
    (dict(direction="backward_input", return_indices=True), "return_indices is for max and min"),
    (dict(divisor_override=3), "divisor_override is for averages, got 3 for max"),
    (dict(norm_type=2.0), "norm_type is for lp pooling, got 2.0 for max"),
    (dict(adaptive_size=(2, 2)), "kernel_size has no place in adaptive pooling, got (2, 2)"),
    (dict(op="lp", norm_type=2.0, adaptive_size=(2, 2), kernel_size=()), "adaptive pooling is for max, min and average"),
    (dict(input_size=(5,) * 4), "input size must be a tuple of 1, 2 or 3 spatial sizes"),
    (dict(batch=-1), "batch must be at least 0, got -1"),
    (dict(channels=0), "channels must be positive, got 0"),
    (dict(kernel_size=()), "output size must be an integer or 2 of them, one per spatial axis, got ()"),
]


@pytest.mark.parametrize("fields, told", PROBLEMS, ids=range(len(PROBLEMS)))
def test_a_problem_is_valid_or_is_none(fields, told):
    with pytest.raises(ValueError) as caught:
        PoolProblem(**{**dict(op="max", input_size=(5, 6), channels=2, kernel_size=(2, 2)), **fields})
    assert told in str(caught.value)


def test_gigantic_arguments_are_refused_or_right():
    big = 2**62
    with pytest.raises(ValueError, match="kernel does not fit"):
        fastconv.max_pool2d(X, big)
    with pytest.raises(ValueError, match="kernel does not fit"):
        fastconv.max_pool2d(X, 2, 1, 0, big)
    assert np.array_equal(fastconv.max_pool2d(X, 1, big), X[:, :, :1, :1])
    assert np.array_equal(fastconv.max_pool2d(X, 1, big, ceil_mode=True), X[:, :, :1, :1])
    assert np.array_equal(fastconv.max_pool2d(X, 1, 1, 0, big), X)
    with pytest.raises(ValueError, match="below 2\\*\\*63"):
        fastconv.max_pool2d(X, 2**63)


def test_a_wrong_call_leaves_out_as_it_was():
    out = np.full((2, 3, 5, 6), np.nan, np.float32)
    with pytest.raises(ValueError):
        fastconv.max_pool2d_input(G, X, 2, indices=I + 30, out=out)
    assert np.isnan(out).all()
