"""The public functions: PyTorch's arguments and results, layouts, out and residual, kinds of arrays, prepare, plans,
settings."""

from __future__ import annotations

import inspect
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import CONV, at_once, check_call

import fastconv
from fastconv import settings
from fastconv.problem import ConvProblem

STORED = np.load(Path(__file__).parent / "data" / "reference.npz")
REST = {"conv1d": (2, 1, 2, 1), "conv1d_groups": (1, 0, 1, 2), "conv2d": ((2, 1), (1, 0), 1, 1),
        "conv2d_dilation": (1, 2, (2, 1), 4), "conv2d_unbatched": (1, 1, 1, 1), "conv2d_same": (1, "same", 1, 1),
        "conv3d": ((1, 2, 1), (0, 1, 1), 1, 2)}


def arrays(*shapes, dtype=np.float32):
    rng = np.random.default_rng(8)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


# ---- PyTorch's arguments


@pytest.mark.parametrize("name", REST)
def test_as_torch_computes(name, backend):
    """Stored results of torch.nn.functional; every argument by position, in its order."""
    function = getattr(fastconv, name.partition("_")[0])
    x, w, y = (STORED[f"{name}/{key}"] for key in "xwy")
    b = STORED[f"{name}/b"] if f"{name}/b" in STORED else None
    np.testing.assert_allclose(function(x, w, b, *REST[name], backend=backend), y, rtol=1e-12, atol=1e-12)
    single = function(x.astype(np.float32), w.astype(np.float32), None if b is None else b.astype(np.float32), *REST[name],
                      backend=backend)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_as_torch_pads(mode, backend):
    y = fastconv.conv2d(STORED["modes/x"], STORED["modes/w"], padding=((0, 3), (2, 1)), padding_mode=mode, backend=backend)
    np.testing.assert_allclose(y, STORED[f"modes/{mode}"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_as_torch_names_its_arguments(ndim):
    names = list(inspect.signature(CONV[ndim]).parameters.values())
    positional = [p.name for p in names if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["input", "weight", "bias", "stride", "padding", "dilation", "groups"]
    assert all(p.kind is p.KEYWORD_ONLY for p in names[7:])
    torch = pytest.importorskip("torch")
    x, w, b = arrays((2, 4, *(7,) * ndim), (6, 2, *(3,) * ndim), (6,))
    keywords = dict(stride=2, padding=2, dilation=2, groups=2)
    expected = getattr(torch.nn.functional, f"conv{ndim}d")(*map(torch.tensor, (x, w, b)), **keywords)
    y = CONV[ndim](input=x, weight=w, bias=b, **keywords)
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_an_argument_that_changes_is_read_again():
    """Whatever has __index__ is an integer, such as a tensor of one element; the same object may be another one later."""
    class Number:
        value = 2

        def __index__(self):
            return self.value

    x, w = arrays((1, 2, 9, 9), (3, 2, 3, 3))
    number = Number()
    assert fastconv.conv2d(x, w, stride=number).shape == fastconv.conv2d(x, w, stride=(number, 2)).shape == (1, 3, 4, 4)
    number.value = 1
    assert fastconv.conv2d(x, w, stride=number).shape == (1, 3, 7, 7) != fastconv.conv2d(x, w, stride=(number, 2)).shape


# ---- padding words, layouts, unbatched


@pytest.mark.parametrize("word, stride, expected", [
    ("valid", 1, ((0, 0), (0, 0))), ("full", 1, ((2, 2), (3, 3))),
    ("same", 1, ((1, 1), (1, 2))), ("same_lower", 1, ((1, 1), (2, 1))),
    ("same", 2, ((0, 1), (1, 1))), ("same_lower", 2, ((1, 0), (1, 1))), ("same", 3, ((0, 1), (0, 1))),
])
def test_padding_words(word, stride, expected, backend):
    """"same" with any stride is SAME_UPPER of TensorFlow and ONNX: ceil(size / stride) outputs, the odd one at the end."""
    x, w = arrays((2, 3, 8, 9 if stride == 3 else 8), (4, 3, 3, 4))
    if word.startswith("same"):
        size = [-(-n // stride) for n in x.shape[2:]]
        assert fastconv.conv2d(x, w, stride=stride, padding=word).shape[2:] == tuple(size)
    y = check_call(x, w, stride=stride, padding=word, backend=backend)
    assert np.array_equal(y, fastconv.conv2d(x, w, stride=stride, padding=expected, backend=backend))


def test_padding_forms_are_one_thing():
    x, w = arrays((1, 2, 6, 7), (3, 2, 3, 3))
    one = fastconv.conv2d(x, w, padding=(2, 1))
    for padding in ([2, 1], ((2, 2), (1, 1)), (2, (1, 1)), [[2, 2], 1], (np.int64(2), 1)):
        assert np.array_equal(fastconv.conv2d(x, w, padding=padding), one)


@pytest.mark.parametrize("ndim, first, last", [(1, "NCW", "NWC"), (2, "NCHW", "NHWC"), (3, "NCDHW", "NDHWC")])
def test_layouts(ndim, first, last, backend):
    x, w, b = arrays((2, 3, *(5, 6, 4)[:ndim]), (4, 3, *(3, 2, 1)[:ndim]), (4,))
    y = CONV[ndim](x, w, b, padding=1, layout=first, backend=backend)
    assert y.flags.c_contiguous and np.array_equal(y, CONV[ndim](x, w, b, padding=1, backend=backend))
    moved = np.moveaxis(x, 1, -1)
    for layout in (last, "channels_last"):
        z = CONV[ndim](moved, w, b, padding=1, layout=layout, backend=backend)
        assert z.flags.c_contiguous and z.shape == (2, *y.shape[2:], 4)
        np.testing.assert_allclose(np.moveaxis(z, -1, 1), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_unbatched_drops_n(ndim, backend):
    x, w, r = arrays((3, *(6,) * ndim), (4, 3, *(3,) * ndim), (4, *(4,) * ndim))
    y = CONV[ndim](x, w, residual=r, backend=backend)
    assert y.shape == r.shape
    assert np.array_equal(y, CONV[ndim](x[None], w, residual=r[None], backend=backend)[0])
    out = np.full_like(y, np.nan)
    assert CONV[ndim](x, w, residual=r, out=out, backend=backend) is out and np.array_equal(out, y)


# ---- epilogue, out, residual


def test_epilogue_order(backend):
    """act(conv + bias + residual)"""
    x, w, b, r = np.ones((1, 1, 1), np.float32), np.full((1, 1, 1), -5, np.float32), np.array([1], np.float32), None
    assert fastconv.conv1d(x, w, b, activation="relu", backend=backend).item() == 0
    r = np.full((1, 1, 1), 6, np.float32)
    assert fastconv.conv1d(x, w, b, activation="relu", residual=r, backend=backend).item() == 2
    r[:] = 3
    assert fastconv.conv1d(x, w, b, activation=("leaky_relu", 0.5), residual=r, backend=backend).item() == -0.5
    assert abs(fastconv.conv1d(x, w, b, activation="leaky_relu", residual=r, backend=backend).item() + 0.01) < 1e-8


def test_residual_is_out(backend):
    x, w, r = arrays((2, 3, 6, 6), (5, 3, 3, 3), (2, 5, 4, 4))
    expected = fastconv.conv2d(x, w, residual=r, activation="silu", backend=backend)
    y = r.copy()
    assert fastconv.conv2d(x, w, residual=y, out=y, activation="silu", backend=backend) is y
    assert np.array_equal(y, expected)
    wide = np.zeros((2, 5, 4, 8), np.float32)
    y = wide[..., ::2]
    y[...] = r
    fastconv.conv2d(x, w, residual=y, out=y, activation="silu", backend=backend)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    assert not wide[..., 1::2].any()


def test_out_must_be_an_array():
    x, w = arrays((1, 1, 3), (1, 1, 3))
    with pytest.raises(TypeError, match="out must be an array.*list"):
        fastconv.conv1d(x, w, out=[[[0.0]]])


def test_out_must_have_a_place_for_each_element(backend):
    x, w = arrays((1, 2, 5), (3, 2, 2))
    prepared = fastconv.prepare(w, backend=backend)
    prepared(x)
    for repeated in ((0, 16, 4), (48, 0, 4), (48, 16, 0)):
        out = np.lib.stride_tricks.as_strided(np.zeros(12, np.float32), (1, 3, 4), repeated)
        if repeated[0] == 0:  # an axis of one element may have any stride
            np.testing.assert_array_equal(prepared(x, out=out), prepared(x))
            continue
        for call in (lambda out=out: fastconv.conv1d(x, w, out=out, backend=backend), lambda out=out: prepared(x, out=out)):
            with pytest.raises(ValueError, match="out must have a place for each element, got strides"):
                call()


def test_lists_are_arrays():
    y = fastconv.conv1d([[1.0, 2.0, 3.0]], [[[1.0, 1.0]]])
    assert isinstance(y, np.ndarray) and y.tolist() == [[3, 5]] and y.dtype == np.float64


def test_arguments_are_not_changed(backend):
    given = arrays((2, 3, 6, 6), (5, 3, 3, 3), (5,), (2, 5, 4, 4))
    before = [a.copy() for a in given]
    x, w, b, r = given
    fastconv.conv2d(x, w, b, residual=r, activation="gelu", backend=backend)
    assert all(map(np.array_equal, given, before))


# ---- kinds of arrays


def test_torch_tensors_stay_torch(backend):
    torch = pytest.importorskip("torch")
    x, w, b, r = map(torch.tensor, arrays((2, 3, 6, 6), (5, 3, 3, 3), (5,), (2, 5, 4, 4)))
    y = fastconv.conv2d(x, w, b, residual=r, backend=backend)
    assert isinstance(y, torch.Tensor) and y.dtype == torch.float32 and y.is_contiguous()
    assert torch.allclose(y, torch.nn.functional.conv2d(x, w, b) + r, atol=1e-5)
    out = torch.full_like(y, float("nan"))
    assert fastconv.conv2d(x, w, b, residual=r, out=out, backend=backend) is out and torch.equal(out, y)
    strided = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # torch's channels_last memory format
    assert torch.allclose(fastconv.conv2d(strided, w, b, residual=r, backend=backend), y, atol=1e-5)  # winograd rounds
    conv = fastconv.prepare(w, b, backend=backend)
    assert torch.equal(conv(x, residual=r), y) and isinstance(conv(x.numpy()), np.ndarray)


def test_kinds_that_are_refused():
    x, w = arrays((1, 1, 4), (1, 1, 3))
    with pytest.raises(TypeError, match="masked"):
        fastconv.conv1d(np.ma.masked_array(x, x > 0), w)
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="input is torch on cpu, weight is numpy"):
        fastconv.conv1d(torch.tensor(x), w)
    with pytest.raises(TypeError, match=r"weight requires grad.*detach"):
        fastconv.conv1d(torch.tensor(x), torch.tensor(w, requires_grad=True))
    with pytest.raises(TypeError, match="dense"):
        fastconv.conv1d(torch.tensor(x), torch.tensor(w).to_sparse())
    with pytest.raises(TypeError, match="device"):
        fastconv.conv1d(torch.tensor(x, device="meta"), torch.tensor(w, device="meta"))
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match="sparse"):
        fastconv.correlate(sparse.eye_array(4), w[0])


@pytest.mark.parametrize("value", [None, "text", {"a": 1}, object()])
def test_no_array_at_all(value):
    x, w = arrays((1, 1, 4), (1, 1, 3))
    for call in (lambda: fastconv.conv1d(value, w), lambda: fastconv.conv1d(x, value), lambda: fastconv.conv1d(value, value)):
        with pytest.raises((TypeError, ValueError)):
            call()


# ---- prepare


def test_prepare_takes_a_snapshot(backend):
    x, w, b = arrays((2, 3, 7, 7), (5, 3, 3, 3), (5,))
    keywords = dict(stride=2, activation="relu", backend=backend)
    expected = fastconv.prepare(w, b, **keywords)(x)
    for shape in (None, x.shape):
        weight, bias = w.copy(), b.copy()
        conv = fastconv.prepare(weight, bias, **keywords, input_shape=shape)
        weight[:] = np.nan
        bias[:] = np.nan
        assert np.array_equal(conv(x), expected) and np.array_equal(conv(x), expected)


def test_prepare_at_once_or_on_first_use():
    w, = arrays((5, 3, 3, 3))
    with pytest.raises(ValueError, match="spans 3"):
        fastconv.prepare(w, input_shape=(1, 3, 2, 2))
    conv = fastconv.prepare(w, input_shape=(1, 3, 9, 9), backend="im2col")
    assert conv.packed_bytes >= w.nbytes and conv.workspace_bytes > 0
    later = fastconv.prepare(w, backend="im2col")
    assert later.packed_bytes == later.workspace_bytes == 0
    later(np.ones((1, 3, 9, 9), np.float32))
    assert later.packed_bytes == conv.packed_bytes


def test_prepare_goes_through_many_shapes(backend):
    w, b = arrays((4, 2, 3, 3), (4,))
    conv = fastconv.prepare(w, b, padding=1, backend=backend)
    for _ in range(2):
        for n in range(1, 14):
            x, = arrays((1 + n % 3, 2, n, 14 - n))
            same = conv.plan(x.shape).algorithm  # where packing is part of the call, another may be faster
            assert np.array_equal(conv(x), fastconv.conv2d(x, w, b, padding=1, backend=backend, algorithm=same))
    unbatched, = arrays((2, 5, 5))
    assert np.array_equal(conv(unbatched), conv(unbatched[None])[0])


def test_prepare_is_picklable(backend):
    x, w, b = arrays((2, 6, 7, 7), (4, 3, 3, 3), (4,))
    conv = fastconv.prepare(w, b, groups=2, padding="same", activation=("leaky_relu", 0.2), backend=backend)
    expected = conv(x)
    again = pickle.loads(pickle.dumps(conv))
    assert np.array_equal(again(x), expected) and str(again.plan(x.shape)) == str(conv.plan(x.shape))


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_prepare_knows_its_axes(spatial):
    x, w = arrays((1, 2, *(5,) * spatial), (3, 2, *(3,) * spatial))
    assert np.allclose(fastconv.prepare(w)(x), CONV[spatial](x, w), atol=1e-5)  # algorithms may differ


def test_prepare_rejects():
    w, x64 = arrays((5, 3, 3, 3))[0], np.ones((1, 3, 5, 5))
    with pytest.raises(TypeError, match="weight's dtype float32, got float64"):
        fastconv.prepare(w)(x64)
    with pytest.raises(ValueError, match="weight must have shape"):
        fastconv.prepare(w[0, 0])
    with pytest.raises(ValueError, match=r"\(1, 4, 5, 5\)|4"):
        fastconv.prepare(w)(np.ones((1, 4, 5, 5), np.float32))


def test_threads_share_a_prepared_operator(backend):
    """First use, packing and running from many threads at once: the same bits everywhere."""
    w, b = arrays((9, 8, 3, 3), (9,))
    inputs = [arrays((1, 8, n, n))[0] for n in (5, 6, 7, 8, 9, 10, 11, 12, 13, 14)]
    plain = fastconv.prepare(w, b, padding=1, backend=backend)
    expected = [plain(x) for x in inputs]
    conv = fastconv.prepare(w, b, padding=1, backend=backend)
    wrong: list[int] = []

    def work(offset: int) -> None:
        for i in range(20 if backend != "naive" else 2):
            j = (i + offset) % len(inputs)
            if not np.array_equal(conv(inputs[j]), expected[j]):
                wrong.append(j)

    assert not at_once(work) and not wrong


# ---- plans


def test_explain_takes_all_forms(backend):
    x, w = arrays((1, 4, 8, 8), (6, 4, 3, 3))
    p = ConvProblem.from_shapes(x.shape, w.shape, ndim=2, padding=1)
    for made in (fastconv.explain(p, backend=backend), fastconv.explain(p.text, backend=backend),
                 fastconv.explain(x, w, padding=1, backend=backend), fastconv.explain(x, w, None, 1, 1, backend=backend)):
        assert made.problem == p and made.backend == backend
        text = str(made)
        assert p.text in text and f"plan       {backend} {made.candidate}" in text and "workspace" in text
    assert fastconv.explain(x[..., 0], w[..., 0], ndim=1).problem.ndim == 1
    assert fastconv.prepare(w, padding=1, backend=backend).plan(x.shape).problem == p


def test_explain_gives_every_reason():
    made = fastconv.explain("mb1_ic4ih8_oc6oh8_kh3ph1")
    named = {rejected.backend for rejected in made.rejected} | {made.backend}
    everyone = {name for name, who in fastconv.backends().items() if name != "cuda"}
    assert everyone <= named
    assert all(rejected.reason.why for rejected in made.rejected)
    for name, reason in fastconv.backends().items():
        if reason is not None and name != "cuda":
            assert f"unavailable: {reason}" in str(made)


def test_unsupported_says_why():
    x, w = arrays((1, 4, 8, 8), (6, 4, 3, 3))
    with pytest.raises(fastconv.Unsupported, match="backend 'im2col' with algorithm 'gemm' does not compute") as caught:
        fastconv.conv2d(x, w, algorithm="gemm", backend="im2col")
    assert isinstance(caught.value, NotImplementedError)
    with pytest.raises(fastconv.Unsupported, match="transforms kernels of several taps"):
        fastconv.explain("--dir=BWD_D mb1_ic4ih8_oc6oh8_kh1", backend="cython", algorithm="winograd")


def test_unavailable_says_what_to_do():
    x, w = arrays((1, 4, 8, 8), (6, 4, 3, 3))
    missing = {name: reason for name, reason in fastconv.backends().items() if reason is not None}
    for name, reason in missing.items():
        with pytest.raises(fastconv.Unavailable) as caught:
            fastconv.conv2d(x, w, backend=name)
        assert name in str(caught.value) and reason in str(caught.value) and isinstance(caught.value, RuntimeError)


def test_an_unknown_backend_lists_the_known():
    x, w = arrays((1, 4, 8, 8), (6, 4, 3, 3))
    for backend in ("fast", None, "", 3):
        with pytest.raises(ValueError, match="backend must be 'auto' or one of cython"):
            fastconv.conv2d(x, w, backend=backend)


# ---- settings


def test_config_holds_inside_only():
    x, w = arrays((1, 4, 8, 8), (6, 4, 3, 3))
    before = settings.current()
    with fastconv.config(backend="naive", num_threads=3, accuracy="strict") as inside:
        assert inside.num_threads == fastconv.get_num_threads() == 3
        assert fastconv.explain(x, w).backend == "naive" and fastconv.explain(x, w).problem.accuracy == "strict"
        with fastconv.config(backend="im2col"):
            assert fastconv.explain(x, w).backend == "im2col" and fastconv.get_num_threads() == 3
        assert fastconv.explain(x, w).backend == "naive"
        other: list[str] = []
        thread = threading.Thread(target=lambda: other.append(settings.current().backend))
        thread.start()
        thread.join()
        assert other == [before.backend]
    assert settings.current() == before


def test_a_call_after_config_is_planned_anew():
    x, w = arrays((1, 4, 8, 8), (6, 4, 3, 3))
    fastconv.conv2d(x, w)
    with fastconv.config(backend="nonesuch"), pytest.raises(ValueError, match="nonesuch"):
        fastconv.conv2d(x, w)
    fastconv.conv2d(x, w)


@pytest.mark.parametrize("changes, error, part", [
    ({"num_threads": 0}, ValueError, "num_threads must be positive"), ({"num_threads": 1.0}, TypeError, "num_threads"),
    ({"num_threads": True}, TypeError, "num_threads"), ({"accuracy": "perfect"}, ValueError, "'perfect'"),
    ({"isa": "sse9"}, ValueError, "'sse9'"), ({"speed": "max"}, TypeError, "speed"),
    ({"generation": 3}, TypeError, "generation"),
])
def test_config_validates(changes, error, part):
    with pytest.raises(error, match=part):
        with fastconv.config(**changes):
            pass


def test_set_num_threads():
    before = fastconv.get_num_threads()
    try:
        fastconv.set_num_threads(3)
        assert fastconv.get_num_threads() == 3
        for value, error in ((0, ValueError), (-1, ValueError), (2.0, TypeError), ("2", TypeError)):
            with pytest.raises(error, match="num_threads"):
                fastconv.set_num_threads(value)
        assert fastconv.get_num_threads() == 3
    finally:
        fastconv.set_num_threads(before)


def test_verbose_prints_one_line_per_new_problem(capfd):
    x, w = arrays((1, 3, 8, 17), (6, 3, 3, 3))
    with fastconv.config(verbose=True):
        for _ in range(3):
            fastconv.conv2d(x, w, backend="im2col")
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("fastconv:")]
    assert len(lines) == 1 and "ih8iw17" in lines[0] and lines[0].endswith("-> im2col im2col")
