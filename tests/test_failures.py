"""Failures that convolutions have had elsewhere, one number per kind, and what fastconv answers.

The numbers are those of the project's table of failures: an input that crashed another library, or gave silent nonsense.
"""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from helpers import CONV, check_call

import fastconv

X = np.ones((2, 4, 6, 6), np.float32)
W = np.ones((4, 4, 3, 3), np.float32)


def raises(error, *parts, x=X, w=W, call=fastconv.conv2d, **keywords):
    """The call raises that error, and the message contains every part."""
    with pytest.raises(error) as caught:
        call(x, w, **keywords)
    for part in parts:
        assert part in str(caught.value), f"{part!r} is not in {caught.value!s}"


def through_prepare(x, w, **keywords):
    bias = keywords.pop("bias", None)
    return fastconv.prepare(w, bias, **keywords)(x)


both_ways = pytest.mark.parametrize("call", [fastconv.conv2d, through_prepare], ids=["conv2d", "prepare"])


@both_ways
@pytest.mark.parametrize("stride", [0, (1, 0), np.int64(0)])
def test_row_01_stride_zero(call, stride):
    raises(ValueError, "stride must be positive", "0", call=call, stride=stride)


@both_ways
@pytest.mark.parametrize("keywords", [{"stride": -1}, {"dilation": -2}, {"dilation": 0}, {"padding": -1}, {"padding": (1, -3)},
                                      {"padding": ((0, 0), (-1, 2))}])
def test_row_02_negative(call, keywords):
    (name, value), = keywords.items()
    raises(ValueError, name, repr(value), call=call, **keywords)


@both_ways
@pytest.mark.parametrize("groups", [0, -1, -2**40, 2**40, 2**62])
def test_row_03_groups_out_of_range(call, groups):
    raises(ValueError, "groups", str(groups), call=call, groups=groups)


def test_row_04_groups_do_not_divide():
    raises(ValueError, "groups=3", "4 input channels", groups=3)
    raises(ValueError, "groups=2", "5 output channels", w=np.ones((5, 2, 3, 3), np.float32), groups=2)
    raises(ValueError, "expects 4 input channels", "got 6", x=np.ones((1, 6, 5, 5), np.float32), groups=2, w=W[:, :2])


def test_row_05_empty():
    raises(ValueError, "weight must not be empty", "(4, 4, 0, 3)", w=W[:, :, :0])
    raises(ValueError, "weight must not be empty", "(0, 4, 3, 3)", w=W[:0])
    raises(ValueError, "at least one channel", x=X[:, :0])
    raises(ValueError, "input size", "0", x=X[:, :, :0])
    raises(ValueError, "input size", "0", x=X[:, :, :0], padding=2)


@pytest.mark.parametrize("name", ["out", "residual"])
def test_row_06_sizes_that_do_not_match(name):
    for shape in ((2, 4, 4, 5), (1, 4, 4, 4), (4, 4, 4), (2, 4, 4, 4, 1), (4,)):
        wrong = {name: np.zeros(shape, np.float32)}
        raises(ValueError, f"{name} must have the output's shape (2, 4, 4, 4)", str(shape), **wrong)
    raises(TypeError, f"{name} must have the output's dtype float32", "float64", **{name: np.zeros((2, 4, 4, 4))})


def test_row_07_batch_zero(backend):
    for layout, x, shape in (("NCHW", X[:0], (0, 4, 4, 4)), ("NHWC", np.zeros((0, 6, 6, 4), np.float32), (0, 4, 4, 4))):
        y = fastconv.conv2d(x, W, layout=layout, backend=backend)
        assert y.shape == shape and y.dtype == np.float32
    out = np.zeros((0, 4, 4, 4), np.float32)
    assert fastconv.conv2d(X[:0], W, out=out, backend=backend) is out
    assert fastconv.prepare(W, backend=backend)(X[:0]).shape == (0, 4, 4, 4)


def test_row_08_kernel_larger_than_the_padded_input():
    raises(ValueError, "kernel", "spans 9", "8 (6 + 1 + 1)", w=np.ones((4, 4, 9, 9), np.float32), padding=1)
    raises(ValueError, "spans 7", "dilation 3", "has 6", dilation=3)


@pytest.mark.parametrize("keywords", [{"padding": 2**62}, {"padding": 2**61}, {"padding": ((2**62, 2**62), 0)},
                                      {"padding": 2**63 - 1}, {"padding": 2**40, "stride": 2}])
def test_row_09_huge_padding(keywords):
    raises(ValueError, "" if "stride" in keywords else "elements", **keywords)


def test_row_09_huge_kernel():
    w = np.broadcast_to(np.float32(1), (1, 1, 2**32))
    with pytest.raises(ValueError, match=f"spans {2**32}"):
        fastconv.conv1d(np.ones((1, 1, 8), np.float32), w)


@pytest.mark.parametrize("name", ["stride", "padding", "dilation"])
@pytest.mark.parametrize("value", [2**63, 2**64 + 1, 10**30])
def test_row_10_integers_beyond_64_bits(name, value):
    raises(ValueError, name, str(value), **{name: value})


@pytest.mark.parametrize("dilation", [2**62, 2**61, 2**32])
def test_row_10_the_extent_never_wraps(dilation):
    raises(ValueError, f"spans {2 * dilation + 1}", dilation=dilation)


@both_ways
@pytest.mark.parametrize("padding", [[], (), [(1, 2)], [1, 2, 3], ((1, 1), (1, 1), (1, 1))])
def test_row_11_padding_of_the_wrong_length(call, padding):
    raises(ValueError, "padding", repr(padding), call=call, padding=padding)


def test_row_11_a_flat_pair_is_not_low_and_high():
    with pytest.raises(ValueError, match=r"\(1, 2\)"):
        fastconv.conv1d(np.ones((1, 1, 8), np.float32), np.ones((1, 1, 3), np.float32), padding=(1, 2))


@pytest.mark.parametrize("name", ["stride", "padding", "dilation", "groups"])
@pytest.mark.parametrize("value", [1.5, 1.0, None, True, np.float64(1), (1.0, 1), (True, 1), b"22", {1: 2, 2: 1}, {1, 2},
                                   np.array(1.5)])
def test_row_12_not_an_integer(name, value):
    raises(TypeError, name, **{name: value})


@pytest.mark.parametrize("name", ["stride", "dilation", "groups"])
def test_row_12_text_is_not_a_number(name):
    raises(TypeError, name, "'2'", **{name: "2"})


def test_row_12_unknown_padding_word():
    raises(ValueError, "padding must be one of valid, same", "'foo'", padding="foo")


@both_ways
@pytest.mark.parametrize("shape", [(1,), (3,), (5,), (0,), (4, 1), (1, 4, 1, 1), ()])
def test_row_13_bias_of_the_wrong_length(call, shape):
    raises(ValueError, "bias must have shape (4,)", str(shape), call=call, bias=np.zeros(shape, np.float32))


@pytest.mark.parametrize("dtype", [object, np.complex64, np.complex128, np.longdouble, "U1", "M8[s]", "V4"])
def test_row_14_dtypes_that_are_not_computed(dtype):
    raises(TypeError, "", x=np.zeros(X.shape, dtype))
    raises(TypeError, "", x=np.zeros(X.shape, dtype), w=np.zeros(W.shape, dtype))
    raises(TypeError, "bias", bias=np.zeros(4, dtype))


def test_row_14_integers_are_not_floats():
    raises(TypeError, "float32 or float64", "int64", x=X.astype(int), w=W.astype(int))
    raises(TypeError, "float16", x=X.astype(np.float16), w=W.astype(np.float16))
    raises(TypeError, "bool", x=X.astype(bool), w=W.astype(bool))


@pytest.mark.parametrize("x, w, result", [("f4", "f8", "f8"), ("f8", "f4", "f8"), ("u1", "f4", "f4"), ("i2", "f4", "f4"),
                                          ("i4", "f4", "f8"), ("?", "f4", "f4"), ("f2", "f4", "f4"), ("f4", "i1", "f4")])
def test_row_14_promotion_is_numpys(x, w, result, backend, rng):
    x, w = rng.integers(0, 2, (1, 2, 5, 5)).astype(x), rng.integers(0, 2, (3, 2, 3, 3)).astype(w)
    assert check_call(x, w, backend=backend).dtype == result


def test_row_14_bias_and_residual_never_widen(backend, rng):
    y = fastconv.conv2d(X, W, np.arange(4), backend=backend)  # an integer bias is taken as float32
    assert y.dtype == np.float32 and y[0, 3, 0, 0] == 39
    assert fastconv.conv2d(X, W, np.arange(4.0), backend=backend).dtype == np.float32


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_row_15_wrong_rank(ndim):
    for rank in {ndim, ndim + 3, ndim + 4, 0}:
        shape = (3,) * rank
        with pytest.raises(ValueError) as caught:
            CONV[ndim](np.ones(shape, np.float32), np.ones((3, 3, *(1,) * ndim), np.float32))
        assert str(shape) in str(caught.value) and f"conv{ndim}d" in str(caught.value)
    with pytest.raises(ValueError, match=r"weight.*\(3, 3\)"):
        CONV[ndim](np.ones((1, 3, *(4,) * ndim), np.float32), np.ones((3, 3), np.float32))


def _awkward(array):
    """The same values in every memory order that indexing makes."""
    yield "sliced", np.repeat(array, 2, axis=-1)[..., ::2]
    yield "sliced in the middle", np.repeat(array, 3, axis=1)[:, 1::3]
    yield "reversed", np.ascontiguousarray(array[..., ::-1])[..., ::-1]
    yield "reversed first", np.ascontiguousarray(array[::-1])[::-1]
    yield "Fortran", np.asfortranarray(array)
    yield "transposed", np.ascontiguousarray(array.swapaxes(1, -1)).swapaxes(1, -1)


@pytest.mark.parametrize("keywords", [{"padding": 1}, {"stride": 2, "padding": (1, 0)}, {"groups": 2, "layout": "NHWC"}],
                         ids=["padded", "strided", "grouped"])
def test_row_16_any_memory_order(keywords, backend, rng):
    x = rng.standard_normal((2, 6, 7, 6)).astype(np.float32)
    w = rng.standard_normal((8, 6 // keywords.get("groups", 1), 3, 3)).astype(np.float32)
    for _, ax in _awkward(x):
        check_call(ax, w, backend=backend, **keywords)
    for _, aw in _awkward(w):
        check_call(x, aw, backend=backend, **keywords)
    kernel1 = w[:, :, :1, :1]
    for _, ax in _awkward(x):
        check_call(ax, kernel1, backend=backend, **{k: v for k, v in keywords.items() if k != "padding"})


def test_row_16_broadcast(backend, rng):
    x = np.broadcast_to(rng.standard_normal((1, 4, 1, 9)).astype(np.float32), (3, 4, 8, 9))
    w = np.broadcast_to(rng.standard_normal((5, 1, 3, 1)).astype(np.float32), (5, 4, 3, 3))
    b = np.broadcast_to(np.float32(0.5), (5,))
    residual = np.broadcast_to(np.float32(0.25), (3, 5, 8, 9))
    check_call(x, w, b, residual=residual, padding=1, backend=backend)


def test_row_17_odd_strides_on_axes_of_length_one(backend, rng):
    def odd(array, axes):
        strides = [12345678901 if i in axes else step for i, step in enumerate(array.strides)]
        return np.lib.stride_tricks.as_strided(array, array.shape, strides)

    x = rng.standard_normal((1, 1, 1, 9)).astype(np.float32)
    w = rng.standard_normal((1, 1, 1, 3)).astype(np.float32)
    check_call(odd(x, (0, 1, 2)), odd(w, (0, 1, 2)), odd(np.ones(1, np.float32), (0,)), backend=backend, padding=(0, 1))
    out = odd(np.empty((1, 1, 3, 9), np.float32), (0, 1))
    check_call(odd(x, (0, 1, 2)), odd(w, (0, 1, 2)), backend=backend, padding=1, out=out)
    x = rng.standard_normal((1, 7, 1, 1)).astype(np.float32)
    w = rng.standard_normal((5, 7, 1, 1)).astype(np.float32)
    check_call(odd(x, (0, 2, 3)), odd(w, (2, 3)), backend=backend)
    check_call(odd(x, (0, 2, 3)), odd(w, (2, 3)), backend=backend, out=odd(np.empty((1, 5, 1, 1), np.float32), (0, 2, 3)))


def _unaligned(array):
    buffer = np.zeros(array.nbytes + 1, np.uint8)
    made = buffer[1:].view(array.dtype).reshape(array.shape)
    made[...] = array
    assert not made.flags.aligned
    return made


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [_unaligned, lambda a: a.astype(a.dtype.newbyteorder())], ids=["unaligned", "byte-swapped"])
def test_row_18_unaligned_and_byte_swapped(make, dtype, backend, rng):
    x, w, b, r = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 3, 5, 6), (4, 3, 3, 3), (4,), (2, 4, 5, 6)))
    expected = check_call(x, w, b, residual=r, padding=1, backend=backend)
    out = make(np.full_like(expected, np.nan))
    got = fastconv.conv2d(make(x), make(w), make(b), residual=make(r), padding=1, out=out, backend=backend)
    assert got is out and np.array_equal(out.astype(dtype), expected)
    assert np.array_equal(fastconv.prepare(make(w), make(b), padding=1, backend=backend)(make(x), residual=make(r)), expected)


def test_row_19_read_only(backend, rng):
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((1, 2, 5, 5), (3, 2, 3, 3), (3,), (1, 3, 3, 3))]
    for array in arrays:
        array.flags.writeable = False
    x, w, b, r = arrays
    check_call(x, w, b, residual=r, backend=backend)
    raises(ValueError, "out", "read-only", x=x, w=w, out=r, backend=backend)
    raises(ValueError, "out", "read-only", x=x, w=w, out=np.broadcast_to(np.float32(0), r.shape), backend=backend)


def test_row_20_out_overlaps(backend, rng):
    memory = rng.standard_normal(4 * 4 * 8 * 8 + 64).astype(np.float32)
    w = rng.standard_normal((4, 4, 3, 3)).astype(np.float32)

    def view(start, shape=(2, 4, 8, 8)):
        return memory[start:start + int(np.prod(shape))].reshape(shape)

    def right(x, w, residual=None, out=None):
        before = memory.copy()
        expected = fastconv.conv2d(x.copy(), w.copy(), padding=1, residual=None if residual is None else residual.copy(),
                                   backend=backend)
        got = fastconv.conv2d(x, w, padding=1, residual=residual, out=out, backend=backend)
        assert got is out and np.array_equal(out, expected)
        memory[:] = before

    for start in (0, 1, 37, 64):
        right(view(0), w, out=view(start))  # itself, and shifted
        right(view(64), w, out=view(64 - start))
    right(view(0), view(100, w.shape), out=view(0))  # the weight as well
    x = rng.standard_normal((2, 4, 8, 8)).astype(np.float32)
    right(x, view(3, w.shape), out=view(0))
    right(x, w, residual=view(0), out=view(0))  # allowed, no temporary
    for start in (1, 8, 64):
        right(x, w, residual=view(0), out=view(start))
        right(x, w, residual=view(64), out=view(64 - start))
    right(x, w, residual=view(0)[:, :, ::-1], out=view(0))
    right(x, w, residual=view(0)[::-1], out=view(0))
    b = memory[5:9]
    expected = fastconv.conv2d(x, w, b.copy(), padding=1, backend=backend)
    assert np.array_equal(fastconv.conv2d(x, w, b, padding=1, out=view(0), backend=backend), expected)


def test_row_20_a_prepared_operator_writes_into_its_input(backend, rng):
    x = rng.standard_normal((1, 3, 6, 6)).astype(np.float32)
    w = rng.standard_normal((3, 3, 3, 3)).astype(np.float32)
    conv = fastconv.prepare(w, padding=1, backend=backend)
    expected = conv(x.copy())
    assert np.array_equal(conv(x, out=x), expected)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_row_21_out_is_fully_overwritten(layout, backend, rng):
    x = rng.standard_normal((2, 5, 6, 7)).astype(np.float32)
    w = rng.standard_normal((5, x.shape[1 if layout == "channels_first" else 3], 3, 3)).astype(np.float32)
    shape = fastconv.conv2d(x, w, layout=layout, padding=1, backend=backend).shape
    for out in (np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32, order="F"),
                np.full((*shape[:-1], 2 * shape[-1]), np.nan, np.float32)[..., ::-2]):
        y = check_call(x, w, layout=layout, padding=1, out=out, backend=backend)
        assert not np.isnan(y).any()


_HUGE = """
import resource, sys
import numpy as np
import fastconv
from fastconv.verify.data import Arrays
from fastconv.verify.judge import Judge
from fastconv.problem import ConvProblem

backend, case = sys.argv[1:]
rng = np.random.default_rng(5)
if case == "axis":
    step = 2**24
    x = np.zeros((1, 1, 2**31 + 3 * step + 5), np.float32)  # untouched pages take no memory
    for start in range(0, x.shape[-1] - 3, step):
        x[0, 0, start:start + 3] = rng.standard_normal(3)
    w = rng.standard_normal((2, 1, 3)).astype(np.float32)
else:
    step = 2**13
    x = np.zeros((3, 1, 2**15, 2**15 + 1), np.float32)
    x[:, :, ::step, ::step] = rng.standard_normal((3, 1, 4, 5))
    w = rng.standard_normal((3, 1, 1, 1)).astype(np.float32)
conv = fastconv.conv1d if case == "axis" else fastconv.conv2d
conv(x[..., :8], w, stride=2, backend=backend) if case == "axis" else conv(x[:, :, :8, :8], w, stride=2, backend=backend)
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (3 << 30), resource.RLIM_INFINITY))
try:
    y = conv(x, w, stride=step, backend=backend)
except MemoryError as error:
    print("MemoryError", error)
    sys.exit()
except fastconv.Unsupported as error:
    print("Unsupported", error)
    sys.exit()
problem = ConvProblem.from_shapes(x.shape, w.shape, ndim=w.ndim - 2, stride=step, accuracy="strict")
assert y.shape == problem.output_shape
judge = Judge(problem, Arrays(x, w, None, None), np.array(list(np.ndindex(y.shape))))
assert np.count_nonzero(judge.expected) > judge.count // 2
assert judge.wrong(y, "direct") is None
print("right")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS, and pages that take memory only when touched")
@pytest.mark.parametrize("case", ["axis", "images"])
def test_row_22_more_than_two_to_the_31_elements(case, backend):
    """Right; numba refuses the long axis; im2col may not find the memory for its copies (3 GB are left)."""
    if backend == "naive":
        pytest.skip("would list every element as a Python float")
    done = subprocess.run([sys.executable, "-c", _HUGE, backend, case], capture_output=True, text=True)
    if "np.zeros" in done.stderr and "MemoryError" in done.stderr:
        pytest.skip("not enough address space")
    assert done.returncode == 0, done.stderr[-2000:]
    if backend == "numba" and case == "axis":
        assert re.match(r"Unsupported .*a table of each axis.* would take \d+ bytes", done.stdout), done.stdout
    elif backend == "im2col":
        assert done.stdout.strip() == "right" or re.match(_NAMES_BYTES, done.stdout), done.stdout
    else:
        assert done.stdout.strip() == "right", done.stdout


_NAMES_BYTES = r"MemoryError.* \d[\d.,]* ?([KMGT]iB|bytes)"
_MEMORY = """
import resource, sys
import numpy as np
import fastconv
backend = sys.argv[1]
w = np.ones((64, 1, 1, 1), np.float32)
small = np.ones((1, 1, 9, 9), np.float32)
first = fastconv.conv2d(small, w, padding=1, backend=backend)
x = np.ones((1, 1, 2048, 2048), np.float32)
out = np.empty((1, 1, 2050, 2050), np.float32)
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (8 << 20), resource.RLIM_INFINITY))
try:
    fastconv.conv2d(x, w, padding=1, backend=backend)
    print("no error")
except MemoryError as error:
    print(type(error).__name__, error)
try:  # a padded copy or workspace, if the backend makes one
    if backend != "naive":
        fastconv.conv2d(x, w[:1], padding=1, out=out, backend=backend)
        assert out[0, 0, 1:-1, 1:-1].all()
except MemoryError as error:
    assert str(error)
print("next", np.array_equal(first, fastconv.conv2d(small, w, padding=1, backend=backend)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_row_23_not_enough_memory(backend):
    done = subprocess.run([sys.executable, "-c", _MEMORY, backend], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(_NAMES_BYTES, done.stdout), done.stdout
    assert "next True" in done.stdout


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("keywords", [
    {"padding": 1}, {"padding": 1, "layout": "NHWC"}, {"stride": 2}, {"dilation": 2}, {"activation": "relu"},
    {"activation": "sigmoid", "padding": 2, "padding_mode": "circular"}, {"padding": 1, "accuracy": "strict"},
    {"padding": 1, "accuracy": "loose"}], ids=lambda keywords: "-".join(map(str, keywords.values())))
def test_row_24_nan_and_inf_stay_in_their_receptive_field(value, keywords, backend, rng):
    x = (rng.standard_normal((2, 11, 12, 11)) * 0.01).astype(np.float32)
    w = rng.standard_normal((9, 11, 3, 3)).astype(np.float32)
    if value == 3e38:
        w *= np.float32(0.1)  # huge, but no sum overflows
    x[1, 5, 5, 6] = value
    check_call(x, w, np.ones(9, np.float32), backend=backend, **keywords)


def test_row_24_nan_passes_every_activation(backend):
    from fastconv.problem import ACTIVATIONS

    x = np.array([[[1, np.nan, -1, np.inf]]], np.float32)
    for name in ACTIVATIONS:
        y = fastconv.conv1d(x, np.ones((1, 1, 1), np.float32), activation=name, backend=backend)
        assert np.isnan(y).ravel().tolist() == [False, True, False, False], name


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_row_25_infinite_weight_over_zero_padding(value, layout, backend, rng):
    """Padded zeros are multiplied like any other: 0·Inf is NaN."""
    x = np.abs(rng.standard_normal((1, 4, 4, 4))).astype(np.float32) + 1
    w = np.abs(rng.standard_normal((5, 4, 3, 3))).astype(np.float32)
    w[2, 1, 0, 0] = value
    y = check_call(x, w, padding=1, layout=layout, backend=backend)
    view = y if layout == "channels_first" else np.moveaxis(y, -1, 1)
    assert np.isnan(view[0, 2, 0]).all() and np.isnan(view[0, 2, :, 0]).all()
    prepared = fastconv.prepare(w, padding=1, layout=layout, backend=backend)  # which may choose another algorithm
    same = fastconv.conv2d(x, w, padding=1, layout=layout, backend=backend, algorithm=prepared.plan(x.shape).algorithm)
    assert np.array_equal(prepared(x), same, equal_nan=True) and np.array_equal(np.isnan(same), np.isnan(y))
    depthwise = np.ones((4, 1, 3, 3), np.float32)
    depthwise[3, 0, 2, 2] = value
    check_call(x, depthwise, padding=1, groups=4, layout=layout, backend=backend)


@pytest.mark.parametrize("accuracy", ["strict", "fast", "loose"])
@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "gelu"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_row_26_every_product_is_zero(accuracy, activation, kernel, backend, rng):
    x, w = rng.standard_normal((2, 8, 9, 9)).astype(np.float32), rng.standard_normal((7, 8, kernel, kernel)).astype(np.float32)
    x[:, ::2], w[:, 1::2] = 0, 0
    b = rng.standard_normal(7).astype(np.float32)
    y = check_call(x, w, b, activation=activation, padding=kernel // 2, accuracy=accuracy, backend=backend)
    if accuracy == "strict" and activation in (None, "relu"):
        expected = b if activation is None else np.maximum(b, 0)
        assert np.array_equal(y, np.broadcast_to(expected[:, None, None], y.shape))


@pytest.mark.parametrize("name", ["stride", "dilation", "groups", "padding"])
@pytest.mark.parametrize("value", [1.0, True, np.float32(1), (1.0, 1), (True, True)])
def test_row_39_what_hashes_alike_is_not_alike(name, value):
    good = (1, 1) if isinstance(value, tuple) and name != "groups" else 1
    fastconv.conv2d(X, W, **{name: good})
    fastconv.conv2d(X, W, **{name: np.int64(1)})
    for _ in range(2):
        raises(TypeError, name, **{name: value})
    fastconv.conv2d(X, W, **{name: good})


def test_row_39_dtypes_and_layouts_do_not_meet_in_the_cache():
    x = np.random.default_rng(3).standard_normal((1, 4, 4, 4)).astype(np.float32)
    w = x[0].copy()[:, :, None, None][:, :, 0]  # (4, 4, 1, 4)
    one = fastconv.conv2d(x, w)
    other = fastconv.conv2d(x.astype(np.float64), w)
    last = fastconv.conv2d(x, w, layout="NHWC")
    assert (one.dtype, other.dtype) == (np.float32, np.float64)
    assert one.shape == (1, 4, 4, 1) and last.shape == (1, 4, 1, 4)
    swapped = fastconv.conv2d(x.astype(">f4"), w)
    assert np.array_equal(swapped, one)
