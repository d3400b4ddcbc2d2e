"""Repeated small calls: the shortcut around the general path is taken where nothing but the arrays is new, and only there."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import toy_backend
from helpers import CONV, at_once, check_call

import fastconv
from fastconv import arrays, ops, settings
from fastconv.backends import register
from fastconv.backends.cython_native import runtime

native = pytest.mark.skipif(fastconv.backends()["cython"] is not None, reason="the native kernels offer the shortcut")
RNG = np.random.default_rng(4)


def made(*shapes: tuple[int, ...], dtype: str = "float32") -> list[np.ndarray]:
    return [RNG.standard_normal(shape).astype(dtype) for shape in shapes]


class LongWay:
    """How often the general path was entered."""

    def __init__(self) -> None:
        self.count = 0

    def of(self, call: Callable[..., object], *arguments: object, **keywords: object) -> int:
        """By this call."""
        before = self.count
        self.result = call(*arguments, **keywords)
        return self.count - before


@pytest.fixture
def long_way(monkeypatch: pytest.MonkeyPatch) -> Iterator[LongWay]:
    """Starts with nothing remembered; every call that takes no shortcut asks for views."""
    counted, views = LongWay(), arrays.views

    def counting(*required: object, **optional: object) -> object:
        counted.count += 1
        return views(*required, **optional)

    monkeypatch.setattr(arrays, "views", counting)
    ops._memo.clear()
    ops._shortcuts.clear()
    OPERATORS.clear()
    yield counted


def conv(x, w, b=None, **keywords):
    return CONV[w.ndim - 2](x, w, b, backend="cython", **keywords)


OPERATORS: dict[object, tuple[object, ...]] = {}


def through_prepare(x, w, b=None, *, residual=None, out=None, **keywords):
    """The operator of these weights, made once."""
    key = (id(w), id(b), str(keywords))
    if key not in OPERATORS:
        OPERATORS[key] = fastconv.prepare(w, b, backend="cython", **keywords), w, b  # the ids are taken while these live
    return OPERATORS[key][0](x, residual=residual, out=out)


both_ways = pytest.mark.parametrize("call", [conv, through_prepare], ids=["conv2d", "prepare"])
PROBLEMS = {
    "tiny": ((1, 1, 4, 4), (1, 1, 3, 3), {}),
    "one axis": ((2, 3, 11), (4, 3, 3), dict(stride=2, padding=1)),
    "three axes": ((1, 2, 4, 5, 6), (3, 2, 2, 2, 2), dict(padding=((1, 0), 1, (0, 1)))),
    "strided, padded": ((2, 4, 9, 8), (6, 2, 3, 3), dict(stride=(2, 1), padding=(1, 2), groups=2, dilation=(1, 2))),
    "words": ((1, 4, 9, 8), (5, 4, 3, 3), dict(padding="same", padding_mode="reflect", activation=("leaky_relu", 0.25))),
    "depthwise": ((1, 8, 9, 8), (8, 1, 3, 3), dict(groups=8, padding=1, activation="relu6")),
    "winograd": ((2, 16, 14, 14), (16, 16, 3, 3), dict(padding=1, algorithm="winograd")),
}


def laid_out(x: np.ndarray, w: np.ndarray, layout: str, batched: bool) -> np.ndarray:
    x = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if layout == "channels_last" else x
    return x if batched else x[0]


# ---- it is taken


@native
@both_ways
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_plain_repetition_takes_the_shortcut(problem, layout, batched, dtype, call, long_way):
    x_shape, w_shape, keywords = PROBLEMS[problem]
    if dtype == "float64" and "algorithm" in keywords:
        pytest.skip("one dtype is enough")
    x, w, b = made(x_shape, w_shape, w_shape[:1], dtype=dtype)
    x, keywords = laid_out(x, w, layout, batched), {**keywords, "layout": layout}
    for bias in (b, None):
        y = call(x, w, bias, **keywords)
        r = RNG.standard_normal(y.shape).astype(dtype)
        given = [dict(residual=residual, out=out) for residual in (None, r) for out in (None, np.full_like(y, np.nan))]
        expected = [call(x, w, bias, **keywords, **arguments).copy() for arguments in given]
        for arguments, right in zip(given, expected):
            if arguments["out"] is not None:
                arguments["out"][...] = np.nan
            before = long_way.count
            again = call(x, w, bias, **keywords, **arguments)
            assert long_way.count == before, "the general path was taken"
            assert np.array_equal(again, right) and again.dtype == dtype and again.flags.c_contiguous and again.flags.owndata
            assert arguments["out"] is None or again is arguments["out"]
        if batched:
            check_call(x, w, bias, backend="cython", **{k: v for k, v in keywords.items() if k != "algorithm"})


@native
@both_ways
def test_other_numbers_other_results(call, long_way):
    """Only the arguments are remembered, neither arrays nor results."""
    x, w, b = made((1, 3, 8, 8), (4, 3, 3, 3), (4,))
    first = call(x, w, b)
    kept = first.copy()
    x2, = made(x.shape)
    second = call(x2, w, b)
    assert np.array_equal(first, kept) and not np.shares_memory(first, second)
    check_call(x2, w, b, backend="cython")
    if call is conv:  # the weights are whatever they are now
        w *= 2
        b *= 2
        assert long_way.of(conv, x2, w, b) == 0
        np.testing.assert_allclose(long_way.result, 2 * second, rtol=1e-5)


@native
@both_ways
@pytest.mark.parametrize("change", [
    lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1], np.asfortranarray, lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    lambda a: np.broadcast_to(a[:, :1], a.shape), lambda a: np.lib.stride_tricks.as_strided(a, writeable=False)],
    ids=["reversed", "Fortran", "sliced", "broadcast", "read-only"])
def test_inputs_of_any_strides_take_it(call, change, long_way):
    x, w, b = made((2, 3, 7, 8), (4, 3, 3, 3), (4,))
    call(x, w, b)
    changed = change(x)
    assert long_way.of(call, changed, w, b) == 0
    y = long_way.result
    assert np.array_equal(y, call(np.array(changed, order="C"), w, b))
    out = change(np.full_like(y, np.nan))
    if out.flags.writeable:
        assert long_way.of(call, changed, w, b, out=out) == 0 and long_way.result is out and np.array_equal(out, y)


@native
@both_ways
@pytest.mark.parametrize("algorithm", ["gemm", "direct", "winograd", "depthwise", "fft"])
def test_batch_zero(algorithm, call, long_way):
    groups = 4 if algorithm == "depthwise" else 1
    k = 5 if algorithm == "fft" else 3
    x, w = np.empty((0, 4, 40, 8), np.float32), made((4, 4 // groups, k, k))[0]
    keywords = dict(algorithm=algorithm, groups=groups)
    for again in range(3):
        assert long_way.of(call, x, w, **keywords) == 0 or not again
        y = long_way.result
        assert y.shape == (0, 4, *(n - k + 1 for n in x.shape[2:])) and call(x, w, out=y, **keywords) is y
    y.flags.writeable = False
    assert call(x, w, out=y, **keywords) is y  # nothing is written
    assert "workspace 0 bytes" in str(fastconv.explain(x, w, backend="cython", **keywords))


@native
def test_equal_arguments_of_another_call_site(long_way):
    """The objects may differ, the meaning may not."""
    x, w = made((1, 3, 300, 8), (4, 3, 3, 3))
    for _ in range(2):
        numbers = [int(text) for text in ("1", "290", "2")]  # 290 is an object of its own each time
        conv(x, w, stride=(numbers[0], numbers[2]), padding=((numbers[1], numbers[1]), numbers[2]), dilation=(numbers[2],) * 2,
             layout="".join(["NC", "HW"]), activation=("leaky_relu", float("0.3")))
    assert long_way.count == 1


# ---- it is not taken


@native
@pytest.mark.parametrize("name", ["stride", "padding", "dilation", "groups"])
@pytest.mark.parametrize("value", [True, 1.0, np.float64(1), np.bool_(True), (1, True), (1.0, 1), "1"])
def test_what_hashes_alike_is_refused_after_the_shortcut(name, value, long_way):
    x, w = made((1, 3, 7, 8), (4, 3, 3, 3))
    good = (1, 1) if isinstance(value, tuple) and name != "groups" else 1
    for _ in range(2):
        conv(x, w, **{name: good})
    assert long_way.count == 1
    for _ in range(2):
        with pytest.raises(ValueError if value == "1" and name == "padding" else TypeError, match=name):
            conv(x, w, **{name: value})
    assert long_way.of(conv, x, w, **{name: good}) == 0


@native
def test_integers_of_numpy_go_the_long_way(long_way):
    x, w = made((1, 3, 7, 8), (4, 3, 3, 3))
    expected = conv(x, w, stride=2)
    for value in (np.int64(2), np.array(2), [2, 2]):
        for _ in range(2):
            assert long_way.of(conv, x, w, stride=value) == 1 and np.array_equal(long_way.result, expected)


@native
def test_arguments_that_change_in_place(long_way):
    x, w = made((1, 3, 7, 8), (4, 3, 3, 3))
    padding = [1, 1]
    nested = (padding, 1)
    for low in (1, 0, 2):
        padding[0] = low
        for _ in range(2):
            assert conv(x, w, padding=padding).shape == (1, 4, 5 + 2 * low, 8)
            assert conv(x, w, padding=nested).shape == (1, 4, 5 + low + 1, 8)


@native
def test_each_argument_counts(long_way):
    """Calls that differ in one argument, in turns, each remembered beside the others."""
    x, w, b = made((1, 4, 8, 4), (4, 4, 3, 3), (4,))
    calls = [dict(), dict(stride=2), dict(padding=1), dict(padding="same"), dict(padding=((1, 0), (0, 1))),
             dict(dilation=(2, 1)), dict(padding=1, padding_mode="reflect"), dict(layout="NHWC"), dict(activation="relu"),
             dict(activation=("leaky_relu", 0.1)), dict(activation=("leaky_relu", 0.2)), dict(algorithm="gemm"),
             dict(algorithm="direct"), dict(accuracy="strict")]
    expected = [conv(x, w, b, **keywords) for keywords in calls]
    for keywords, y in zip(calls, expected):
        fresh = fastconv.prepare(w, b, backend="cython", **{"algorithm": fastconv.explain(
            x, w, b, backend="cython", **keywords).algorithm, **keywords})(x)
        assert np.array_equal(fresh, y), keywords
    before = long_way.count
    for _ in range(2):
        for keywords, y in zip(calls, expected):
            assert np.array_equal(conv(x, w, b, **keywords), y), keywords
    assert long_way.count == before
    grouped = made((4, 2, 3, 3))[0]
    for _ in range(2):
        with pytest.raises(ValueError, match="weight"):
            conv(x, grouped)
        conv(x, grouped, groups=2)


@native
@both_ways
@pytest.mark.parametrize("first", [True, False])
def test_bias_and_residual_are_there_or_not(call, first, long_way):
    """A call with one must not take the shortcut of a call without it, nor the other way round."""
    x, w, b, r = made((1, 3, 7, 8), (4, 3, 3, 3), (4,), (1, 4, 5, 6))
    plain = fastconv.conv2d(x, w, backend="naive")
    for bias in (b, None) if first else (None, b):
        for residual in (r, None) if first else (None, r):
            expected = plain + (0 if bias is None else bias[:, None, None]) + (0 if residual is None else residual)
            for again in range(2):
                assert (long_way.of(call, x, w, bias, residual=residual) == 0) == again
                np.testing.assert_allclose(long_way.result, expected, rtol=1e-4, atol=1e-4)


@native
def test_the_rank_is_that_of_the_function(long_way):
    x, w = made((3, 3, 8), (3, 3, 3))
    fastconv.conv1d(x, w, backend="cython")
    assert long_way.of(fastconv.conv1d, x, w, backend="cython") == 0
    with pytest.raises(ValueError, match="conv2d"):
        fastconv.conv2d(x, w, backend="cython")


@native
@both_ways
def test_other_dtypes(call, long_way):
    x, w, b = made((1, 3, 7, 8), (4, 3, 3, 3), (4,))
    y = call(x, w, b)
    call(x, w, b)
    if call is conv:
        for dtypes in (("f8", "f8", "f8"), ("f4", "f8", "f4"), ("f8", "f4", "f8"), ("f4", "f4", "f8"), ("f2", "f4", "f4")):
            for _ in range(2):
                again = conv(*(a.astype(dtype) for a, dtype in zip((x, w, b), dtypes)))
                assert again.dtype == np.result_type(*dtypes[:2])
                np.testing.assert_allclose(again, y, rtol=0.1 if "f2" in dtypes else 1e-4, atol=1e-2)
        with pytest.raises(TypeError, match="bias"):
            conv(x, w, b.astype(complex))
    else:
        with pytest.raises(TypeError, match="weight's dtype float32, got float64"):
            call(x.astype("f8"), w, b)
    assert long_way.of(call, x, w, b) == 0


def _unaligned(array: np.ndarray) -> np.ndarray:
    moved = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


class Subclass(np.ndarray):
    def __array_finalize__(self, parent: object) -> None:
        self.touched = True


@native
@both_ways
@pytest.mark.parametrize("change", [lambda a: a.astype(">f4"), _unaligned, lambda a: a.view(Subclass), np.ndarray.tolist],
                         ids=["byte-swapped", "unaligned", "subclass", "list"])
def test_arrays_that_are_not_plain_go_the_long_way(change, call, long_way):
    x, w, b = made((1, 3, 7, 8), (4, 3, 3, 3), (4,))
    y = call(x, w, b)
    r, = made(y.shape)
    with_residual = call(x, w, b, residual=r)
    if change is np.ndarray.tolist:  # of float64, for NumPy
        return None if call is through_prepare else np.testing.assert_allclose(conv(change(x), w, b), y, rtol=1e-4, atol=1e-4)
    for _ in range(2):
        assert long_way.of(call, change(x), w, b) == 1 and np.array_equal(long_way.result, y)
        assert long_way.of(call, x, w, b, residual=change(r)) == 1 and np.array_equal(long_way.result, with_residual)
        out = change(np.full_like(y, np.nan))
        assert long_way.of(call, x, w, b, out=out) == 1 and np.array_equal(out, y)
        if call is conv:
            assert long_way.of(conv, x, change(w), b) == 1 and np.array_equal(long_way.result, y)
            assert long_way.of(conv, x, w, change(b)) == 1 and np.array_equal(long_way.result, y)
    assert type(call(change(x), w, b)) is np.ndarray
    return None


@native
def test_weights_and_bias_of_any_strides(long_way):
    x, w, b = made((1, 3, 7, 8), (4, 3, 3, 3), (4,))
    y = conv(x, w, b)
    turned = np.asfortranarray(w), np.ascontiguousarray(w[..., ::-1])[..., ::-1]
    for weight, bias in [(weight, b) for weight in turned] + [(w, np.repeat(b, 2)[::2]), (w, np.broadcast_to(b[:1], b.shape))]:
        expected = y if bias[1] == b[1] else conv(x, w, bias.copy())
        assert np.array_equal(conv(x, weight, bias), expected)


@native
@both_ways
def test_torch_stays_torch(call, long_way):
    torch = pytest.importorskip("torch")
    x, w, b = made((1, 3, 7, 8), (4, 3, 3, 3), (4,))
    y = call(x, w, b)
    tensors = map(torch.tensor, (x, w, b))
    again = conv(*tensors) if call is conv else call(torch.tensor(x), w, b)
    assert isinstance(again, torch.Tensor) and np.array_equal(again.numpy(), y)
    if call is conv:
        with pytest.raises(TypeError, match="input is torch on cpu, weight is numpy"):
            conv(torch.tensor(x), w, b)
        with pytest.raises(TypeError, match="bias is torch"):
            conv(x, w, torch.tensor(b))
    with pytest.raises(TypeError, match="out is torch"):
        call(x, w, b, out=again)


# ---- errors are those of a first call


def wrong_calls() -> dict[str, dict[str, object]]:
    right = np.zeros((1, 4, 5, 6), np.float32)
    read_only = right.copy()
    read_only.flags.writeable = False
    squeezed = np.lib.stride_tricks.as_strided(right.copy(), right.shape, (480, 120, 0, 4))
    return {
        "shape": dict(out=right[..., 1:]), "rank": dict(out=right[0]), "more axes": dict(out=right[None]),
        "dtype": dict(out=right.astype("f8")), "read-only": dict(out=read_only),
        "list": dict(out=right.tolist()), "masked": dict(out=np.ma.masked_array(right)), "stride of 0": dict(out=squeezed),
        "residual shape": dict(residual=right[:, :1]), "residual dtype": dict(residual=right.astype("f8")),
        "residual masked": dict(residual=np.ma.masked_array(right)), "residual of more axes": dict(residual=right[None]),
        "both": dict(residual=right[0], out=right), "out of more axes": dict(residual=right, out=right[None]),
    }


@native
@both_ways
@pytest.mark.parametrize("case", wrong_calls())
def test_errors_are_those_of_a_first_call(case, call, long_way):
    x, w, b = made((1, 3, 7, 8), (4, 3, 3, 3), (4,))
    wrong = wrong_calls()[case]
    with pytest.raises((TypeError, ValueError)) as first:
        call(x, w, b, **wrong)
    right = {name: np.zeros((1, 4, 5, 6), np.float32) for name in wrong}
    call(x, w, b, **right)
    assert long_way.of(call, x, w, b, **right) == 0
    with pytest.raises(type(first.value)) as again:
        call(x, w, b, **wrong)
    assert str(again.value) == str(first.value)


@native
def test_errors_of_the_inputs_are_those_of_a_first_call(long_way):
    x, w, b = made((1, 3, 7, 8), (4, 3, 3, 3), (4,))
    for arguments in ((np.ma.masked_array(x), w, b), (x, w, b[:3]), (x, w, b[:, None]), (x, w, b.astype("U3")), (None, w, b),
                      (x, None, b), (x[:, :2], w, b), (x[0, 0], w, b)):
        messages = []
        for _ in range(2):
            with pytest.raises((TypeError, ValueError)) as caught:
                fastconv.conv2d(*arguments, backend="cython")
            messages.append(f"{type(caught.value)} {caught.value}")
            conv(x, w, b)
            assert long_way.of(conv, x, w, b) == 0
        assert messages[0] == messages[1]


_NO_MEMORY = """
import re, resource
import numpy as np
import fastconv

x, w = np.ones((1, 4100, 1, 1), np.float32), np.ones((8300, 4100, 1, 1), np.float32)
out = np.empty((1, 8300, 1, 1), np.float32)
for _ in range(2):
    fastconv.conv2d(x, w, out=out, backend="cython", algorithm="gemm")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20), resource.RLIM_INFINITY))
out[...] = 7
try:
    fastconv.conv2d(x, w, out=out, backend="cython", algorithm="gemm")
except MemoryError as error:
    print(re.search(r"[0-9,]{9,} bytes", str(error))[0], (out == 7).all())
"""


@native
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory")
def test_no_memory_names_the_bytes():
    done = subprocess.run([sys.executable, "-c", _NO_MEMORY], capture_output=True, text=True)
    assert done.stdout.endswith("bytes True\n"), done.stdout + done.stderr


# ---- out


@native
@both_ways
def test_out_that_overlaps_goes_the_long_way(call, long_way):
    memory = np.zeros(4 * 4 * 8 * 8, np.float32)
    x, w, b = made((1, 4, 8, 8), (4, 4, 3, 3), (4,))
    size = x.size

    def view(start: int, shape: tuple[int, ...] = x.shape) -> np.ndarray:
        return memory[start:start + int(np.prod(shape))].reshape(shape)

    expected = call(x, w, b, padding=1)
    call(x, w, b, padding=1, out=np.empty_like(x))
    for start, ways in ((0, 1), (1, 1), (size - 1, 1), (size, 0), (size + 1, 0)):
        for first, second in ((0, start), (start, 0)):
            view(first)[...] = x
            assert long_way.of(call, view(first), w, b, padding=1, out=view(second)) == ways
            assert np.array_equal(view(second), expected)
    pairs = memory[:2 * size].reshape(1, 4, 8, 8, 2)
    pairs[..., 0] = x
    assert long_way.of(call, pairs[..., 0], w, b, padding=1, out=pairs[..., 1]) == 1  # by the bounds
    assert np.array_equal(pairs[..., 1], expected)
    backwards = view(size - 1)[..., ::-1, ::-1]
    view(0)[...] = x
    assert long_way.of(call, view(0), w, b, padding=1, out=backwards) == 1
    assert np.array_equal(backwards, expected)
    backwards = view(size)[..., ::-1, ::-1]
    view(0)[...] = x
    assert long_way.of(call, view(0), w, b, padding=1, out=backwards) == 0
    assert np.array_equal(backwards, expected)
    if call is conv:
        for weight, bias in ((view(7, w.shape), b), (w, view(9, b.shape)), (view(size - 1, w.shape), b)):
            weight[...], bias[...] = w, b
            assert long_way.of(conv, x, weight, bias, padding=1, out=view(0)) == 1
            assert np.array_equal(view(0), expected)


@native
@both_ways
def test_the_residual_may_be_out(call, long_way):
    x, w, r = made((1, 4, 8, 8), (4, 4, 3, 3), (1, 4, 8, 8))
    keywords = dict(padding=1, activation="silu")
    expected = call(x, w, residual=r, **keywords)
    for residual_of in (lambda out: out, lambda out: out[:], lambda out: out.view()):
        out = r.copy()
        assert long_way.of(call, x, w, residual=residual_of(out), out=out, **keywords) == 0
        assert np.array_equal(out, expected)
    memory = np.zeros(r.size + 8, np.float32)
    out, shifted = memory[:-8].reshape(r.shape), memory[8:].reshape(r.shape)
    shifted[...] = r
    assert long_way.of(call, x, w, residual=shifted, out=out, **keywords) == 1
    assert np.array_equal(out, expected)
    out = np.ascontiguousarray(r[:, :, ::-1])
    assert long_way.of(call, x, w, residual=out[:, :, ::-1], out=out, **keywords) == 1
    assert np.array_equal(out, expected)
    transposed = np.ascontiguousarray(r.swapaxes(2, 3))
    assert long_way.of(call, x, w, residual=transposed.swapaxes(2, 3), out=transposed, **keywords) == 1
    assert np.array_equal(transposed, expected)  # the same bytes in another order
    out = x.copy()
    assert long_way.of(call, out, w, residual=out, out=out, **keywords) == 1


# ---- settings


@native
@both_ways
def test_changed_settings_are_heard(call, long_way):
    x, w = made((1, 16, 20, 20), (16, 16, 3, 3))
    before = fastconv.get_num_threads()

    def again() -> int:
        return long_way.of(call, x, w, padding=1)

    again()
    assert again() == 0
    try:
        fastconv.set_num_threads(before + 1)  # no plan depends on threads
        with fastconv.config(num_threads=before + 2, cache_dir="elsewhere"):
            assert again() == 0
        assert again() == 0
        with fastconv.config(accuracy="strict"):
            assert again() == 1 and again() == 0
            with fastconv.config(num_threads=1):
                assert again() == 0
        with fastconv.config(accuracy="strict"):
            assert again() == 0  # as in the block before
        with fastconv.config(isa=runtime().supported_isas()[0]):
            assert again() == 1
        assert again() == 0
    finally:
        fastconv.set_num_threads(before)
    with fastconv.config(backend="nonesuch"), pytest.raises(ValueError, match="nonesuch"):
        fastconv.conv2d(x, w, padding=1)


@native
@both_ways
def test_what_a_name_stands_for_is_looked_at_again(call, long_way, tmp_path):
    """A file of wisdom may have been written meanwhile, and a backend have taken another's name."""
    x, w = made((1, 3, 9, 9), (4, 3, 3, 3))
    call(x, w)
    path = str(tmp_path / "wisdom.json")
    with fastconv.config(autotune=True, wisdom=path):
        settings.update()
        assert long_way.of(call, x, w) == 1 and long_way.of(call, x, w) == 0
    with fastconv.config(wisdom=path):
        assert long_way.of(call, x, w) == 1 and long_way.of(call, x, w) == 0
        with fastconv.config(num_threads=1):
            assert long_way.of(call, x, w) == 0
        with fastconv.config(wisdom=path):
            assert long_way.of(call, x, w) == 1


@native
def test_the_threads_are_those_of_the_settings():
    """Not those of the call that a shortcut was made of."""
    code = """
import numpy as np, fastconv
from fastconv.backends.cython_native import runtime
x, w = np.ones((1, 32, 64, 64), np.float32), np.ones((32, 32, 3, 3), np.float32)
fastconv.set_num_threads(1)
operator = fastconv.prepare(w, backend="cython", input_shape=x.shape)
for call in (lambda: fastconv.conv2d(x, w, backend="cython"), lambda: operator(x)):
    fastconv.set_num_threads(1)
    call(), call()
    before = runtime().worker_count()
    with fastconv.config(num_threads=before + 3):
        call()
    print(runtime().worker_count() - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.split() == ["2", "2"], run.stdout + run.stderr


@native
@both_ways
def test_changed_accuracy_is_planned_anew(call, long_way):
    x, w = made((1, 64, 28, 28), (64, 64, 3, 3))
    plan = fastconv.explain(x, w, padding=1, backend="cython")
    strict = fastconv.explain(x, w, padding=1, backend="cython", accuracy="strict")
    assert plan.algorithm == "winograd" != strict.algorithm
    fast = [call(x, w, padding=1) for _ in range(2)]
    with fastconv.config(accuracy="strict"):
        exact = [call(x, w, padding=1) for _ in range(2)]
    assert long_way.count >= 2 + 2 and long_way.of(call, x, w, padding=1) == 0
    assert np.array_equal(*fast) and np.array_equal(*exact) and not np.array_equal(fast[0], exact[0])
    assert np.array_equal(exact[0], conv(x, w, padding=1, algorithm=strict.algorithm))


@native
@both_ways
def test_another_backend_in_the_settings(call, long_way):
    x, w = made((1, 3, 9, 9), (4, 3, 3, 3))
    for _ in range(2):
        assert fastconv.conv2d(x, w).dtype == np.float32
    with fastconv.config(backend="im2col"):
        assert long_way.of(fastconv.conv2d, x, w) == long_way.of(fastconv.conv2d, x, w) == 1
    assert long_way.of(conv, x, w) == 1 and long_way.of(conv, x, w) == 0


# ---- the protocol


def test_backends_without_a_shortcut_go_the_long_way(backend, long_way):
    x, w, b = made((1, 3, 9, 9), (4, 3, 3, 3), (4,))
    op = fastconv.prepare(w, b, backend=backend)
    y = fastconv.conv2d(x, w, b, backend=backend)
    for _ in range(2):
        assert np.array_equal(fastconv.conv2d(x, w, b, backend=backend), y) and op(x).shape == y.shape
    offers = hasattr(fastconv.explain(x, w, b, backend=backend).kernel, "shortcut")
    assert offers == (backend in ("cython", "numba"))
    assert long_way.of(fastconv.conv2d, x, w, b, backend=backend) == (backend != "cython")  # numba's needs packed weights
    assert long_way.of(op, x) == (not offers)


def test_any_kernel_may_offer_one(toy_registry):
    asked: list[tuple[object, ...]] = []

    class Shortcut:
        def __init__(self, *made: object) -> None:
            self.made = made

        def take(self, made_for, arguments, input, weight, bias, residual, out):
            asked.append((made_for is self.made[0], arguments == self.made[1], weight is None, bias is None))
            return "taken" if residual is None and (arguments, input.shape) == self.made[1:] else None

    class Kernel(toy_backend.ToyKernel):
        def shortcut(self, made_for, arguments, batched, packed=None):
            assert batched == (len(self.seen) == 4) and (packed is None) == (not self.prepared)
            return Shortcut(made_for, arguments, self.seen)

    backend = toy_backend.ToyBackend()
    backend.kernel = Kernel
    register(backend)
    x, w, b = made((1, 2, 6, 6), (3, 2, 3, 3), (3,))
    op = fastconv.prepare(w, b, backend="toy")
    for Kernel.seen in ((1, 2, 6, 6), (2, 6, 6)):
        Kernel.prepared = False
        given = x.reshape(Kernel.seen)
        y = fastconv.conv2d(given, w, b, backend="toy")
        assert fastconv.conv2d(given, w, b, backend="toy") == "taken" and asked[-1] == (True, True, False, False)
        assert np.array_equal(fastconv.conv2d(given, w, b, residual=np.zeros_like(y), backend="toy"), y)
        Kernel.prepared = True
        assert np.array_equal(op(given), y)
        assert op(given) == "taken" and asked[-1] == (True, True, True, True)
        assert np.array_equal(op(given, residual=np.zeros_like(y)), y)


# ---- threads, pickling, memory


@native
def test_many_threads_at_once(long_way):
    """One operator and one memo, several shapes, from the first call on; settings of their own in every second thread."""
    w, b = made((9, 8, 3, 3), (9,))
    inputs = made(*((1, 8, n, n) for n in (5, 6, 7, 8, 9)))
    expected = [fastconv.prepare(w, b, padding=1, backend="cython", algorithm="gemm")(x) for x in inputs]
    op = fastconv.prepare(w, b, padding=1, backend="cython", algorithm="gemm")
    wrong: list[int] = []

    def work(offset: int) -> None:
        out = [np.empty_like(y) for y in expected]
        with fastconv.config(**dict(num_threads=2) if offset % 2 else {}):
            for i in range(400):
                j = (i + offset) % len(inputs)
                for y in (op(inputs[j]), op(inputs[j], out=out[j]), conv(inputs[j], w, b, padding=1, algorithm="gemm"),
                          conv(inputs[j], w, b, padding=1, algorithm="gemm", out=out[j])):
                    if not np.array_equal(y, expected[j]):
                        wrong.append(j)

    assert not at_once(work) and not wrong
    assert long_way.count < 8 * 400  # of 12,800 calls


@native
def test_an_operator_in_use_is_picklable_and_copyable(long_way):
    x, w, b = made((1, 3, 9, 9), (4, 3, 3, 3), (4,))
    op = fastconv.prepare(w, b, backend="cython")
    y = op(x)
    op(x)
    for other in (pickle.loads(pickle.dumps(op)), copy.deepcopy(op), copy.copy(op)):
        assert np.array_equal(other(x), y)
        assert long_way.of(other, x) == 0 and np.array_equal(long_way.result, y)


@native
def test_an_operator_knows_the_shape_used_last(long_way):
    w, = made((32, 32, 3, 3))
    op = fastconv.prepare(w, padding=1, backend="cython")
    sizes = {}
    small, large = made((1, 32, 6, 6), (1, 32, 64, 64))
    for x in (small, large):
        op(x)
        sizes[x.shape] = op.packed_bytes, op.workspace_bytes
    assert len(set(sizes.values())) == 2
    before = long_way.count
    for x in (small, large, large, small):
        op(x)
        assert (op.packed_bytes, op.workspace_bytes) == sizes[x.shape]
    assert long_way.count == before


@native
def test_only_so_many_shapes_are_kept(long_way):
    w, b = made((4, 3, 3, 3), (4,))
    op = fastconv.prepare(w, b, backend="cython")
    inputs = made(*((1, 3, 5, n) for n in range(5, 25)))
    for _ in range(2):
        for x in inputs:
            assert np.array_equal(op(x), conv(x, w, b, algorithm=op.plan(x.shape).algorithm))
    assert 1 <= len(op._shortcuts) <= 8
    before = long_way.count
    for x in inputs[-8:]:
        op(x)
    assert long_way.count == before


@native
def test_the_memo_is_bounded(long_way, monkeypatch):
    monkeypatch.setattr(ops, "_MEMO_SIZE", 50)
    w, = made((4, 3, 1, 1))
    for n in range(1, 130):
        conv(np.ones((1, 3, 1, n), np.float32), w)
    assert len(ops._memo) <= 50 and len(ops._shortcuts) <= 50
    x = np.ones((1, 3, 1, 3), np.float32)
    for padding in range(60):
        conv(x, w, padding=padding)
    assert max(map(len, ops._shortcuts.values())) <= ops._SHORTCUTS_PER_SHAPE
    assert long_way.of(conv, x, w, padding=59) == 0


@native
@both_ways
def test_nothing_leaks(call, long_way):
    x, w, b = made((1, 1, 4, 4), (1, 1, 3, 3), (1,))
    y = call(x, w, b)
    out, r = np.empty_like(y), np.zeros_like(y)
    wrong, current = np.empty((1, 1, 2, 2), "f8"), settings.current()
    watched = x, w, b, out, r, wrong, current, y.dtype

    def use(times: int) -> None:
        for _ in range(times):
            call(x, w, b)
            call(x, w, b, out=out)
            call(x, w, b, out=out, residual=r)
            call(x, w, b, padding=(1, 1), activation=("leaky_relu", 0.5))
        for _ in range(times // 50):
            call(x, w, b, out=out, residual=out)
            call(x.view(Subclass), w, b)
            with pytest.raises(TypeError):
                call(x, w, b, out=wrong)

    use(100)
    before = [sys.getrefcount(thing) for thing in watched]
    tracemalloc.start()
    try:
        use(100)
        held, _ = tracemalloc.get_traced_memory()
        use(10_000)
        grown = tracemalloc.get_traced_memory()[0] - held
    finally:
        tracemalloc.stop()
    assert grown < 20_000  # a byte or two per call would be more
    for thing, count in zip(watched, before):
        assert abs(sys.getrefcount(thing) - count) < 50, type(thing)


@native
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory in use from /proc")
@pytest.mark.parametrize("channels", [128, 256], ids=["small", "kept between calls"])
def test_packed_weights_are_given_back(channels, long_way):
    """Of 64 and of 256 KiB, packed and forgotten in each call."""
    x, w = np.ones((1, channels, 1, 1), np.float32), np.ones((channels, channels, 1, 1), np.float32)

    import resource

    def used() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    conv(x, w, algorithm="gemm")
    before = used()
    for _ in range(1000):
        conv(x, w, algorithm="gemm")
    assert long_way.count == 1 and used() - before < 16 << 20
