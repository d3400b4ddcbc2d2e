"""What the cuda backend is checked on, in the simulator and on a GPU: tiny problems, each there for a reason.

As a program (`python cuda_cases.py`), runs every case and prints one line of JSON for each.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np
from problems import problem

import fastconv
from fastconv import cuda_arrays
from fastconv.backends import Candidate
from fastconv.candidates import bind
from fastconv.problem import ACTIVATIONS, ConvProblem
from fastconv.verify import bounds, reference
from fastconv.verify.data import integer_arrays, random_arrays

LAST, WIDE = {"layout": "channels_last"}, {"dtype": "float64"}
PROBLEMS = {problem.name: problem for problem in [
    problem((3, 9), (3, 3), 3, padding=1, activation="relu", name="3x3, tails of every tile"),
    problem((3, 9), (3, 4), 3, padding=1, activation="relu6", residual=True, **LAST, name="3x3, channels last"),
    problem((4, 5), (4, 3), 3, padding=1, **LAST, name="3x3, vectors of channels"),
    problem((6, 5), (2, 6), 1, padding=0, batch=2, name="1x1, vectors of pixels"),
    problem((5, 3), (1, 7), 1, padding=0, **WIDE, name="1x1, odd pixels"),
    problem((4, 3), (6, 4), 1, padding=0, stride=2, name="1x1, stride, last row and column unread"),
    problem((4, 6), (5, 6), 3, groups=2, stride=(2, 1), padding=((1, 0), (2, 1)), name="groups, strides, one-sided padding"),
    problem((2, 3), (7, 6), (2, 3), dilation=(3, 2), padding=(2, 1), **WIDE, name="dilation"),
    problem((2, 3), (2, 3), 3, padding=1, batch=3, residual=True, activation="gelu", **WIDE, **LAST,
            name="batch, residual, gelu"),
    problem((3, 4), (19,), 4, stride=2, dilation=2, padding=((3, 2),), name="1-D, stride, dilation"),
    problem((3, 3), (9,), 3, groups=3, padding=1, bias=False, **LAST, name="1-D depthwise, no bias"),
    problem((2, 3), (3, 2, 4), (2, 1, 3), padding=(1, 0, 1), activation=("leaky_relu", 0.2), name="3-D"),
    problem((2, 3), (2, 3, 3), 2, padding=0, stride=(1, 2, 1), **WIDE, **LAST, name="3-D, channels last"),
    problem((2, 2), (10, 3), 3, groups=2, padding=1, activation="hardswish", name="depthwise, two rows of blocks"),
    problem((2, 4), (9, 5), 3, groups=2, padding=1, stride=2, **LAST, name="depthwise, stride, multiplier 2"),
    problem((2, 3), (4, 3), 3, padding=((2, 1), (0, 2)), padding_mode="reflect", name="reflect"),
    problem((2, 2), (2, 3), 3, padding=((3, 1), (4, 2)), padding_mode="symmetric", stride=(1, 3),
            name="symmetric, over the input"),
    problem((3, 2), (3, 3), 2, padding=1, padding_mode="replicate", **LAST, name="replicate, channels last"),
    problem((1, 2), (2, 2, 3), 2, padding=1, padding_mode="circular", **WIDE, stride=2, name="circular, 3-D"),
    problem((37, 3), (2, 2), 1, padding=0, residual=True, activation="silu", name="deep: the sum is split"),
    problem((10, 3), (2, 2), (2, 3), padding=1, accuracy="strict", **LAST, name="deep: split, channels last, strict"),
]}
ALGORITHMS = ("gemm", "direct")


def check_problem(name: str, algorithm: str) -> None:
    """Random data within the hard bound, integers to the bit; outputs full of NaN before; split sums twice the same."""
    problem = PROBLEMS[name]
    kernel = bind(problem, "cuda", Candidate(algorithm))
    rng = np.random.default_rng(5)
    for exact, data in ((False, random_arrays(problem, rng)), (True, integer_arrays(problem, rng))):
        expected, magnitude = reference.oracle(problem, *data)
        allowed = bounds.bound(problem, algorithm, expected, magnitude, data.x, data.w, exact)
        packed = kernel.pack(data.w, data.b)
        out = np.full(problem.output_shape, np.nan, problem.dtype)
        kernel.run(data.x, packed, out, data.residual)
        worst = bounds.compare(out, expected, allowed)
        assert worst <= 1, f"error {worst:.3g} times its bound, integers: {exact}"
    if "split" not in name:
        return
    again = np.full(problem.output_shape, np.nan, problem.dtype)
    kernel.run(data.x, packed, again, data.residual)
    assert again.tobytes() == out.tobytes(), "two runs differ"


# ---- the API, with NumPy arrays


def _expected(x: Any, w: Any, *arguments: Any, **keywords: Any) -> Any:
    return fastconv.conv2d(x, w, *arguments, backend="naive", **keywords)


def _integers(shape: tuple[int, ...], dtype: str = "float32", seed: int = 1) -> Any:
    return np.random.default_rng(seed).integers(-5, 6, shape).astype(dtype)


def api_unbatched() -> None:
    x, w = _integers((3, 4, 5)), _integers((2, 3, 3, 3), seed=2)
    out = fastconv.conv2d(x, w, padding=1, backend="cuda")
    assert type(out) is np.ndarray and np.array_equal(out, _expected(x, w, padding=1))


def api_strides() -> None:
    """Reversed, broadcast and Fortran-ordered inputs, and an output between other data."""
    whole = np.full((1, 2, 4, 9), np.nan, np.float32)
    x = np.broadcast_to(_integers((5, 6)), (1, 3, 5, 6))[..., ::-1, ::-1]
    w = np.asfortranarray(_integers((2, 3, 2, 3), seed=2))
    out = whole[..., 1::2]
    fastconv.conv2d(x, w, out=out, backend="cuda")
    assert np.array_equal(out, _expected(x, w)) and np.isnan(whole[..., ::2]).all()


def api_residual_is_out() -> None:
    x, w, r = _integers((1, 3, 4, 4)), _integers((3, 3, 3, 3), seed=2), _integers((1, 3, 4, 4), seed=3)
    expected = _expected(x, w, padding=1, residual=r, activation="relu")
    assert fastconv.conv2d(x, w, padding=1, residual=r, out=r, activation="relu", backend="cuda") is r
    assert np.array_equal(r, expected)


def api_out_is_input() -> None:
    x, w = _integers((1, 3, 4, 4)), _integers((3, 3, 3, 3), seed=2)
    expected = _expected(x, w, padding=1)
    fastconv.conv2d(x, w, padding=1, out=x, backend="cuda")
    assert np.array_equal(x, expected)


def api_mixed_dtypes() -> None:
    x, w, b = _integers((1, 2, 3, 3), "int8"), _integers((2, 2, 2, 2), "float64", 2), _integers((2,), "int32", 3)
    out = fastconv.conv2d(x, w, b, backend="cuda")
    assert out.dtype == np.float64 and np.array_equal(out, _expected(x, w, b))


def api_infinite_weight_over_padding() -> None:
    x, w = _integers((1, 1, 3, 3)), _integers((1, 1, 3, 3), seed=2)
    w[0, 0, 0, 0] = np.inf
    for algorithm in ALGORITHMS:
        out = fastconv.conv2d(x, w, padding=1, backend="cuda", algorithm=algorithm)
        assert np.array_equal(np.isnan(out), np.isnan(_expected(x, w, padding=1)))


def api_nan_stays_in_its_window() -> None:
    x, w = _integers((1, 5, 5, 6)), _integers((2, 5, 3, 3), seed=2)
    x[0, 1, 4, 5] = np.nan
    for algorithm in ALGORITHMS:
        out = fastconv.conv2d(x, w, padding=1, backend="cuda", algorithm=algorithm)
        assert np.array_equal(out, _expected(x, w, padding=1), equal_nan=True)


def api_special_values() -> None:
    """Every activation of what formulas stumble over, and slopes that float32 cannot hold."""
    r = np.float32([-np.inf, np.inf, np.nan, -3e38, 3e38, -1e30, 1e30, -0.0, 1e-40, -1e-40, -14, -1000]).reshape(1, 1, 2, 6)
    x, w = np.zeros_like(r), _integers((1, 1, 1, 1))
    for activation in (*ACTIVATIONS, ("leaky_relu", 1e-50), ("leaky_relu", -1e39), ("leaky_relu", 0.0)):
        out = fastconv.conv2d(x, w, residual=r, activation=activation, backend="cuda", algorithm="direct")
        expected = _expected(x, w, residual=r, activation=activation)
        np.testing.assert_allclose(out, expected, rtol=5e-7, atol=6e-45, err_msg=str(activation))


def api_prepared() -> None:
    w, b = _integers((2, 3, 3, 3), seed=2), _integers((2,), seed=3)
    conv = fastconv.prepare(w, b, padding=1, backend="cuda")
    expected = [_expected(_integers((n, 3, 3, 4)), w, b, padding=1) for n in (1, 2)]
    w[...] = 0
    for n in (1, 2):
        assert np.array_equal(conv(_integers((n, 3, 3, 4))), expected[n - 1])


def device_arrays() -> None:
    """Device memory in, device memory out: reversed strides, other dtypes, an output that overlaps the input."""
    from numba import cuda

    problem = ConvProblem.from_text("mb1_ic2ih4iw4_oc2oh4ow4_kh3kw3ph1pw1")
    kernel = bind(problem, "cuda", Candidate("direct"))
    x, w = _integers((1, 2, 4, 4), "int32"), _integers((2, 2, 3, 3), seed=2)
    expected = _expected(x.astype(np.float32)[:, ::-1], w, padding=1)
    packed = kernel.pack(cuda_arrays.device_view(cuda.to_device(w)), None)
    view, y = cuda_arrays.device_view(cuda.to_device(x)), cuda.to_device(np.full(x.shape, np.nan, np.float32))
    _, channel, row, column = view.strides
    flipped = dataclasses.replace(view, address=view.address + 4 * channel, strides=(0, -channel, row, column))
    kernel.run(flipped, packed, cuda_arrays.device_view(y))
    assert np.array_equal(y.copy_to_host(), expected)
    inout = cuda.to_device(x[:, ::-1].astype(np.float32))
    kernel.run(cuda_arrays.device_view(inout), packed, cuda_arrays.device_view(inout))
    assert np.array_equal(inout.copy_to_host(), expected)


SITUATIONS = {function.__name__: function for function in (
    api_unbatched, api_strides, api_residual_is_out, api_out_is_input, api_mixed_dtypes, api_infinite_weight_over_padding,
    api_nan_stays_in_its_window, api_special_values, api_prepared, device_arrays)}


def names() -> list[str]:
    return [f"{name} [{algorithm}]" for name in PROBLEMS for algorithm in ALGORITHMS] + list(SITUATIONS)


def run(name: str) -> None:
    """Run one case.

    Raises:
        AssertionError: the result is wrong.
    """
    if name in SITUATIONS:
        SITUATIONS[name]()
    else:
        problem, _, algorithm = name.rstrip("]").rpartition(" [")
        check_problem(problem, algorithm)


def results() -> Iterator[dict[str, Any]]:
    """Every case's name, what is wrong with it (None: nothing) and its seconds."""
    for name in names():
        start, wrong = time.perf_counter(), None
        try:
            run(name)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-4)}"
        yield {"name": name, "wrong": wrong, "seconds": round(time.perf_counter() - start, 2)}


if __name__ == "__main__":
    for result in results():
        print(json.dumps(result), flush=True)
    sys.exit(0)
