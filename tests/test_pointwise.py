"""Functions of single elements and their gradients: within 4 ulp on every ISA, the same bits wherever an element lies, any
strides, in place, errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import activations, native

NAMES = ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "gelu", "gelu_tanh", "silu", "hardswish")
DTYPES = [np.float32, np.float64]
NATIVE = pytest.mark.skipif(fastconv.backends()["cython"] is not None, reason="no native kernels")


def _function(name: str, gradient: bool = False) -> Callable[..., Any]:
    tail = "_input" if gradient else ""
    if name == "gelu_tanh":
        return lambda *arrays, **more: getattr(fastconv, "gelu" + tail)(*arrays, approximate="tanh", **more)
    return getattr(fastconv, name + tail)


def _isas() -> list[str]:
    return list(native.runnable_isas())


def _run(isa: str, name: str, x: np.ndarray) -> np.ndarray:
    out = np.full_like(x, np.nan)
    native.runtime().apply_function(native.isa_module(isa), name, x, out, None, 0.01, 2)
    return out


# ---- ulps

def _every(dtype: Any, count: int) -> np.ndarray:
    """Bit patterns of all kinds, and where functions have something to show."""
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 1 << 32, count, np.uint64).astype(np.uint32).view(np.float32) if dtype == np.float32 else (
        rng.integers(0, 1 << 64, count, np.uint64).view(np.float64))
    spread = [rng.normal(size=count) * scale for scale in (1e-3, 0.5, 3, 20)]
    wide = rng.uniform(-105, 90, count) if dtype == np.float32 else rng.uniform(-750, 712, count)
    x = np.concatenate([bits, *(part.astype(dtype) for part in spread), wide.astype(dtype)])
    return np.ascontiguousarray(x[np.isfinite(x)])


def _longer(name: str, x: np.ndarray) -> np.ndarray:
    """exp, tanh, sigmoid, silu of float64 in long double, which is exact enough where it has 64 bits."""
    x = x.astype(np.longdouble)
    with np.errstate(all="ignore"):
        if name in ("exp", "tanh"):
            return np.exp(x) if name == "exp" else np.tanh(x)
        e = np.exp(-np.abs(x))
        logistic = np.where(x >= 0, 1, e) / (1 + e)
        return logistic if name == "sigmoid" else np.where(x < -2000, 0, x * logistic)


def _reference(name: str, x: np.ndarray) -> np.ndarray:
    """Of float32, in float64."""
    wide = x.astype(np.float64)
    if name in ("exp", "tanh", "sigmoid", "silu"):
        with np.errstate(all="ignore"):
            return _longer(name, wide).astype(np.float64)
    if name == "erf":
        return np.array([math.erf(v) for v in wide.tolist()])
    activations.apply((name, 0.01), wide)
    return wide


def _ulps(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        rounded = exact.astype(y.dtype)
        spacing = np.spacing(np.minimum(np.abs(rounded), np.finfo(y.dtype).max / 2)).astype(exact.dtype)
        off = np.abs(y.astype(exact.dtype) - exact) / spacing
    off[y == rounded] = np.minimum(off[y == rounded], 0.5)
    off[np.isinf(exact) & (y == rounded)] = 0
    return off


@NATIVE
@pytest.mark.parametrize("name", ["exp", "erf", *NAMES])
def test_float32_within_four_ulp(name):
    x = _every(np.float32, 4_000 if name in ("erf", "gelu", "gelu_tanh") else 100_000)
    exact = _reference(name, x)
    for isa in _isas():
        off = _ulps(_run(isa, name, x), exact)
        worst = int(np.argmax(np.where(np.isnan(off), np.inf, off)))
        assert off[worst] <= 4, f"{isa}: {off[worst]:.3g} ulp at {x[worst]!r}"


@NATIVE
@pytest.mark.parametrize("name", NAMES)
def test_float32_gradients_of_every_isa(name):
    """Within 5 units in the last place of 1: derivatives pass through 0, where they have no relative accuracy."""
    rng = np.random.default_rng(2)
    spread = [rng.normal(size=3_000) * scale for scale in (0.5, 3)]
    x = np.concatenate([rng.uniform(-20, 20, 1_000), *spread]).astype(np.float32)
    exact = activations.gradient((name, 0.01), np.ones(len(x)), x.astype(np.float64))
    for isa in _isas():
        out = np.full_like(x, np.nan)
        native.runtime().apply_function(native.isa_module(isa), name, x, out, np.ones_like(x), 0.01, 2)
        off = np.abs(out - exact)
        assert (off <= 5 * 2.0**-24).all(), f"{isa}: {off.max() * 2**24:.3g} units at {x[np.argmax(off)]!r}"


@NATIVE
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["leaky_relu", "silu"])
def test_runs_of_all_lengths_and_places(name, dtype):
    """Ends of rows, steps between elements, what is longer than is taken at a time; nothing beside the result is written."""
    rng = np.random.default_rng(4)
    x, g = rng.normal(size=(2, 4000)).astype(dtype)
    for isa in _isas():
        module = native.isa_module(isa)
        for of in (None, g):
            whole = np.full_like(x, np.nan)
            native.runtime().apply_function(module, name, x, whole, of, 0.01, 1)
            for length in (*range(1, 70), 511, 513, 1300):
                for first, step in ((0, 1), (length % 17, 1), (1, 2), (3, 3)):
                    room = np.full(length * step + 40, np.nan, dtype)
                    y, at = room[first:][: length * step : step], slice(5, 5 + length)
                    native.runtime().apply_function(module, name, x[at], y, None if of is None else of[at], 0.01, 1)
                    assert np.array_equal(y, whole[at]), (isa, length, first, step)
                    assert np.isnan(room).sum() == len(room) - length, (isa, length, first, step)


@NATIVE
@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no longer than double here")
@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "silu"])
def test_float64_within_four_ulp(name):
    x = _every(np.float64, 50_000)
    exact = _longer(name, x)
    for isa in _isas():
        off = _ulps(_run(isa, name, x), exact)
        worst = int(np.argmax(np.where(np.isnan(off), np.inf, off)))
        assert off[worst] <= 4, f"{isa}: {float(off[worst]):.3g} ulp at {x[worst]!r}"


@NATIVE
@pytest.mark.parametrize("name", ["erf", "gelu", "gelu_tanh"])
def test_float64_of_the_normal_distribution(name):
    mp = pytest.importorskip("mpmath")
    context = mp.MPContext()
    context.prec = 200
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.uniform(-6, 6, 400), rng.uniform(-38.6, -5, 300), rng.normal(size=200) * 0.1, [5e-324, -1e-310]])

    def exact(v: Any) -> Any:
        if name == "erf":
            return context.erf(v)
        if name == "gelu":
            return v / 2 * context.erfc(-v / context.sqrt(2))
        return v / (1 + context.exp(-2 * context.sqrt(2 / context.pi) * (v + context.mpf("0.044715") * v**3)))

    expected = [exact(context.mpf(v)) for v in x.tolist()]
    for isa in _isas():
        for v, y, e in zip(x.tolist(), _run(isa, name, x).tolist(), expected):
            off = abs(context.mpf(y) - e) / context.mpf(float(np.spacing(abs(float(e)))))
            assert off <= 4, f"{isa}: {float(off):.3g} ulp at {v!r}"


LIMITS = {  # at -inf, -0, 0, inf
    "exp": (0.0, 1.0, 1.0, math.inf), "erf": (-1.0, -0.0, 0.0, 1.0),
    "tanh": (-1.0, -0.0, 0.0, 1.0), "sigmoid": (0.0, 0.5, 0.5, 1.0),
    "gelu": (-0.0, -0.0, 0.0, math.inf), "gelu_tanh": (-0.0, -0.0, 0.0, math.inf), "silu": (-0.0, -0.0, 0.0, math.inf),
    "hardswish": (-0.0, -0.0, 0.0, math.inf),
}


@NATIVE
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LIMITS)
def test_limits_and_signs(name, dtype):
    x = np.array([-np.inf, -0.0, 0.0, np.inf, np.nan] * 7, dtype)
    for isa in _isas():
        y = _run(isa, name, x).reshape(7, 5)
        assert np.isnan(y[:, 4]).all()
        for row in y[:, :4].tolist():
            assert row == list(LIMITS[name]) and np.array_equal(np.signbit(row), np.signbit(LIMITS[name])), isa


# ---- the same bits

@NATIVE
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_an_epilogue_has_the_same_bits(name, dtype):
    rng = np.random.default_rng(2)
    x = (rng.normal(size=(1, 3, 5, 37)) * 5).astype(dtype)
    w = np.zeros((3, 3, 1, 1), dtype)
    w[range(3), range(3)] = 1
    for isa in _isas():
        with fastconv.config(isa=isa):
            expected = _function(name)(x)
            for layout in ("channels_first", "channels_last"):
                seen = x if layout == "channels_first" else np.ascontiguousarray(np.moveaxis(x, 1, -1))
                y = fastconv.conv2d(seen, w, activation=name, layout=layout, accuracy="strict", backend="cython")
                y = y if layout == "channels_first" else np.moveaxis(y, -1, 1)
                np.testing.assert_array_equal(y, expected)


@NATIVE
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_places_and_threads_change_no_bit(name, gradient):
    rng = np.random.default_rng(4)
    x, g = rng.normal(size=70_001).astype(np.float32) * 4, rng.normal(size=70_001).astype(np.float32)
    function, given = _function(name, gradient), (g, x) if gradient else (x,)
    with fastconv.config(num_threads=1):
        whole = function(*given)
        for start, end in ((1, 70_001), (3, 20), (69_990, 70_001), (5, 6)):
            np.testing.assert_array_equal(function(*(a[start:end] for a in given)), whole[start:end])
    for threads in (2, 3, 7):
        with fastconv.config(num_threads=threads):
            np.testing.assert_array_equal(function(*given), whole)


# ---- gradients

@pytest.mark.parametrize("no_native", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_against_differences(name, no_native):
    x = np.concatenate([np.linspace(-9, 9, 332), [-3.4, 0.3, 2.9]])
    g = np.random.default_rng(5).normal(size=x.shape)
    step = 1e-5
    with fastconv.config(no_native=no_native):
        slopes = (_function(name)(x + step) - _function(name)(x - step)) / (2 * step)
        found = _function(name, True)(g, x)
        np.testing.assert_allclose(found, g * slopes, atol=1e-8, rtol=1e-6)
        single = _function(name, True)(g.astype(np.float32), x.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, found, atol=3e-7, rtol=3e-6)


@pytest.mark.parametrize("no_native", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_against_torch(name, no_native):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    rng = np.random.default_rng(6)
    x = np.concatenate([rng.normal(size=500) * 4, [0.0, 40.0, -40.0, 120.0, -120.0]])
    g = rng.normal(size=x.shape)
    theirs = torch.tensor(x, requires_grad=True)
    function = {"gelu_tanh": lambda t: F.gelu(t, approximate="tanh"), "sigmoid": torch.sigmoid, "tanh": torch.tanh}.get(
        name) or getattr(F, name)
    function(theirs).backward(torch.tensor(g))
    with fastconv.config(no_native=no_native):
        np.testing.assert_allclose(_function(name)(x), function(torch.tensor(x)).numpy(), atol=1e-14, rtol=1e-12)
        np.testing.assert_allclose(_function(name, True)(g, x), theirs.grad.numpy(), atol=1e-14, rtol=1e-10)


@pytest.mark.parametrize("no_native", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_at_the_ends(name, dtype, no_native):
    """Limits of the slopes at infinity and beyond all thresholds; NaN passes; flat parts have no gradient at all."""
    x = np.array([-np.inf, np.inf, np.nan, -1e30, 1e30] * 5, dtype)
    with fastconv.config(no_native=no_native):
        y = _function(name, True)(np.ones_like(x), x).reshape(5, 5)
        low, high = (0.01 if name == "leaky_relu" else 0.0), (0.0 if name in ("relu6", "sigmoid", "tanh") else 1.0)
        np.testing.assert_allclose(y[:, [0, 1, 3, 4]], np.tile([low, high, low, high], (5, 1)), atol=0, rtol=1e-6)
        if name in ("relu", "relu6", "hardswish"):
            flat = _function(name, True)(np.full(20, np.inf, dtype), np.full(20, -7, dtype))
            assert (flat == 0).all()
        elif name != "leaky_relu":
            assert np.isnan(y[:, 2]).all()


# ---- arrays

def _odd_arrays() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """The same values (7, 6, 5, 34), otherwise laid out."""
    def apart(a: np.ndarray) -> np.ndarray:
        room = np.full((7, 6, 10, 68), np.nan, a.dtype)
        room[:, :, ::2, ::2] = a
        return room[:, :, ::2, ::2]

    def unaligned(a: np.ndarray) -> np.ndarray:
        made = np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype)
        return made.reshape(a.shape)

    return {
        "fortran": np.asfortranarray, "apart": apart,
        "channels last": lambda a: np.ascontiguousarray(np.moveaxis(a, 1, -1)).transpose(0, 3, 1, 2),
        "reversed": lambda a: np.ascontiguousarray(a[::-1, :, ::-1, ::-1])[::-1, :, ::-1, ::-1],
        "backwards": lambda a: a.ravel()[::-1].copy()[::-1].reshape(a.shape),
        "swapped": lambda a: a.astype(a.dtype.newbyteorder()),
        "unaligned": unaligned,
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("kind", _odd_arrays())
def test_any_strides(kind, gradient, dtype):
    rng = np.random.default_rng(7)
    x, g = (rng.normal(size=(7, 6, 5, 34)).astype(dtype) for _ in range(2))
    made = _odd_arrays()[kind]
    for name in ("silu", "relu"):
        function = _function(name, gradient)
        expected = function(g, x) if gradient else function(x)
        given = (made(g), made(x)) if gradient else (made(x),)
        found = function(*given)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)
        out = made(np.full_like(x, np.nan))
        if not out.flags.writeable:
            out = np.full_like(x, np.nan)
        plain = (g, x) if gradient else (x,)
        assert function(*plain, out=out) is out
        np.testing.assert_array_equal(out, expected)
        if gradient:
            np.testing.assert_array_equal(function(made(g), x), expected)


def test_broadcast_arrays_and_memory_order():
    row = np.linspace(-2, 2, 50, dtype=np.float32)
    wide = np.broadcast_to(row, (3, 4, 50))
    np.testing.assert_array_equal(fastconv.tanh(wide), np.broadcast_to(fastconv.tanh(row), (3, 4, 50)))
    column = np.broadcast_to(row[:, None], (50, 7))
    np.testing.assert_array_equal(fastconv.silu_input(column, column.copy()), fastconv.silu_input(column.copy(), column))
    x = np.zeros((2, 3, 4, 5), np.float32).transpose(0, 2, 3, 1)
    assert fastconv.relu(x).strides == x.strides
    for shape in ((), (0,), (3, 0, 2), (1, 1, 1), (1,)):
        made = fastconv.relu(np.full(shape, -1.0))
        assert made.shape == shape and (made == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_in_place_and_overlapping(name):
    rng = np.random.default_rng(8)
    x, g = (rng.normal(size=(5, 300)).astype(np.float32) for _ in range(2))
    expected, gradient = _function(name)(x), _function(name, True)(g, x)
    for which in (0, 1):
        given = [g.copy(), x.copy()]
        assert _function(name, True)(*given, out=given[which]) is given[which]
        np.testing.assert_array_equal(given[which], gradient)
    same = x.copy()
    np.testing.assert_array_equal(_function(name)(same, out=same), expected)
    room = np.concatenate([x.ravel(), np.zeros(1, np.float32)])
    np.testing.assert_array_equal(_function(name)(room[:-1], out=room[1:]), expected.ravel())
    turned = x.ravel().copy()
    np.testing.assert_array_equal(_function(name)(turned, out=turned[::-1]), expected.ravel())


def test_large_results_that_go_past_the_caches():
    x = np.random.default_rng(9).normal(size=3_000_001).astype(np.float32)
    out = np.full(3_000_050, np.nan, np.float32)
    fastconv.relu(x, out=out[7:3_000_008])
    np.testing.assert_array_equal(out[7:3_000_008], np.maximum(x, 0))
    assert np.isnan(out[:7]).all() and np.isnan(out[3_000_008:]).all()
    np.testing.assert_array_equal(fastconv.relu_input(x, x, out=out[7:3_000_008]), np.where(x > 0, x, 0))


@pytest.mark.parametrize("slope", [0.0, 1e-50, 1e-42, 1e39, -0.5])
def test_slopes_of_all_sizes(slope):
    x = np.array([-1e30, -1.0, 0.0, 2.0, -1e-30, 1e38] * 6, np.float32)
    with np.errstate(over="ignore", under="ignore"):
        expected = np.where(x < 0, (x.astype(np.float64) * slope), x).astype(np.float32)
        grads = np.where(x <= 0, slope * 3.0, 3.0).astype(np.float32)
    np.testing.assert_allclose(fastconv.leaky_relu(x, slope), expected, rtol=1e-6)
    np.testing.assert_allclose(fastconv.leaky_relu_input(np.full_like(x, 3), x, slope), grads, rtol=1e-6)


def test_torch_tensors_come_out_as_they_went_in():
    torch = pytest.importorskip("torch")
    x = torch.randn(2, 3, 5, 7)
    last = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        for tensor in (x, last):
            y = fastconv.silu(tensor)
            assert type(y) is torch.Tensor and y.stride() == tensor.stride()
            assert torch.allclose(y, torch.nn.functional.silu(tensor), atol=1e-6)
            out = torch.full_like(tensor, math.nan)
            assert fastconv.gelu(tensor, out=out) is out and not out.isnan().any()
    with pytest.raises(TypeError, match="one kind"):
        fastconv.relu_input(x, x.numpy())
    with pytest.raises(TypeError, match="requires grad"):
        fastconv.relu(x.requires_grad_())


@pytest.mark.parametrize("no_native", [False, True])
def test_what_is_refused(no_native):
    x = np.ones((2, 3), np.float32)
    with fastconv.config(no_native=no_native):
        for wrong in (x.astype(np.float16), x.astype(int), x.astype(complex), x.astype(bool)):
            with pytest.raises(TypeError, match=rf"input must be float32 or float64, got {wrong.dtype}"):
                fastconv.relu(wrong)
        with pytest.raises(TypeError, match="grad_output must have the dtype of input, float32, got float64"):
            fastconv.tanh_input(x.astype(np.float64), x)
        with pytest.raises(ValueError, match=r"grad_output must have the shape of input, \(2, 3\), got \(3, 2\)"):
            fastconv.silu_input(x.T, x)
        with pytest.raises(ValueError, match=r"out must have the shape of input, \(2, 3\), got \(6,\)"):
            fastconv.gelu(x, out=np.empty(6, np.float32))
        with pytest.raises(TypeError, match="out must have the dtype of input, float32, got float64"):
            fastconv.gelu(x, out=np.empty((2, 3)))
        read_only = np.broadcast_to(np.float32(1), (2, 3))
        with pytest.raises(ValueError, match="out must be writeable"):
            fastconv.relu(x, out=read_only)
        for wrong_slope in (math.nan, math.inf, "0.1", None):
            with pytest.raises(ValueError, match="negative_slope must be a finite number, got"):
                fastconv.leaky_relu(x, wrong_slope)
        with pytest.raises(ValueError, match="approximate must be 'none' or 'tanh', got 'erf'"):
            fastconv.gelu(x, approximate="erf")
        for function in (fastconv.relu, lambda a: fastconv.relu_input(a, x)):
            with pytest.raises(TypeError, match="must be an array, got None"):
                function(None)


@NATIVE
def test_the_runtime_checks_as_well():
    run, module = native.runtime().apply_function, native.isa_module(native.runnable_isas()[0])
    x = np.ones((2, 3), np.float32)
    for wrong in (dict(out=x.astype(np.float64)), dict(out=np.empty((3, 2), np.float32)),
                  dict(out=np.broadcast_to(x[:1], (2, 3))),
                  dict(function="nonesuch"), dict(function="exp", grad_output=x), dict(threads=0), dict(grad_output=x[0])):
        with pytest.raises(ValueError):
            run(module, **{"function": "relu", "input": x, "out": np.empty_like(x), **wrong})
