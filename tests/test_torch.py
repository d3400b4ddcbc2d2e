"""torch's tensors: which are taken, what comes out, and that nothing torch would record or transform passes unnoticed.

Tests that take `torch` run with a stand-in (see `fake_torch`) as well, so that most of them run where torch is missing.
"""

from __future__ import annotations

import sys
import warnings

import fake_torch
import numpy as np
import pytest
from helpers import CONV

import fastconv
from fastconv import arrays, cuda_arrays, torch_arrays


@pytest.fixture(params=["torch", "stand-in"])
def torch(request, monkeypatch):
    if request.param == "torch":
        return pytest.importorskip("torch")
    made = fake_torch.module()
    monkeypatch.setitem(sys.modules, "torch", made)
    return made


@pytest.fixture
def real():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        yield pytest.importorskip("torch")


def data(*shapes, dtype=np.float32, last=False):
    """Random arrays; `last`: those with a batch in torch's channels_last memory format."""
    rng = np.random.default_rng(3)
    made = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    return [np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) if last and a.ndim > 3 else a for a in made]


X, W, B = data((2, 3, 6, 7), (4, 3, 3, 3), (4,))
Y = fastconv.conv2d(X, W, B)


# ---- what comes out


def test_subclasses_come_back_as_from_torch(torch):
    """Parameters give plain tensors, a user's class gives itself, unrelated classes the plain tensor."""

    class Mine(torch.Tensor):
        pass

    class Ours(Mine):
        pass

    class Other(torch.Tensor):
        pass

    class Weight(torch.nn.Parameter):
        pass

    x, w, b = map(torch.tensor, (X, W, B))
    assert Mine.__module__ == __name__  # not torch's
    for cls, made in ((Mine, (x.as_subclass(Mine), w, b)), (Mine, (x, w.as_subclass(Mine), b)), (torch.Tensor, (x, w, b)),
                      (Ours, (x.as_subclass(Mine), w.as_subclass(Ours), b)),
                      (torch.Tensor, (x.as_subclass(Mine), w.as_subclass(Other), b)),
                      (torch.Tensor, (x, w.as_subclass(Weight), b))):
        y = fastconv.conv2d(*made)
        assert type(y) is cls
        assert np.array_equal(y.detach().numpy(), Y)
    out = torch.tensor(np.zeros_like(Y)).as_subclass(Mine)
    assert fastconv.conv2d(x, w, b, out=out) is out and np.array_equal(out.detach().numpy(), Y)
    with torch.no_grad():
        assert type(fastconv.conv2d(x, torch.nn.Parameter(w), b)) is torch.Tensor


def test_a_class_may_override_everything(real):
    """Its methods are not asked: only its memory counts."""

    class Loud(real.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            raise RuntimeError("called")

    x, w = real.tensor(X).as_subclass(Loud), real.tensor(W)
    y = fastconv.conv2d(x, w, real.tensor(B))
    with real._C.DisableTorchFunctionSubclass():
        assert type(y) is Loud and np.array_equal(y.numpy(), Y)


@pytest.mark.parametrize("shape, w_shape", [
    ((2, 3, 6, 7), (4, 3, 3, 3)), ((1, 5, 4, 4), (1, 5, 1, 1)), ((2, 4, 5, 6), (8, 1, 3, 3)), ((1, 1, 6, 7), (3, 1, 3, 3)),
    ((2, 3, 4, 5, 6), (4, 3, 2, 3, 3))])
def test_channels_last_comes_back_so(torch, shape, w_shape, backend):
    """The strides of torch's memory format, from input or weight, with and without epilogue, prepared and per call."""
    x, w, b = data(shape, w_shape, (w_shape[0],))
    x_last, w_last = data(shape, w_shape, last=True)
    conv, groups = CONV[len(shape) - 2], shape[1] // w_shape[1]
    expected = conv(x, w, b, padding=1, groups=groups, backend=backend)
    r, = data(expected.shape)
    prepared = fastconv.prepare(w, b, padding=1, groups=groups, backend=backend)
    for which in ((x, w), (x_last, w), (x, w_last), (x_last, w_last)):
        tensors = [torch_like(torch, a) for a in (*which, b)]
        is_last = any(torch_arrays.is_channels_last(a.shape, a.strides) for a in which)
        y = conv(*tensors, padding=1, groups=groups, backend=backend)
        n, c, *size = expected.shape
        last = tuple(np.moveaxis(np.empty((n, *size, c), np.int8), -1, 1).strides)
        assert tuple(y.stride()) == (last if is_last else np.empty(expected.shape, np.int8).strides)
        np.testing.assert_allclose(y.numpy(), expected, atol=1e-4)
        y = conv(*tensors, padding=1, groups=groups, backend=backend, residual=torch_like(torch, r), activation="relu")
        np.testing.assert_allclose(y.numpy(), np.maximum(expected + r, 0), atol=1e-4)
        out = torch_like(torch, np.full_like(expected, np.nan))
        assert conv(*tensors, padding=1, groups=groups, backend=backend, out=out) is out
        np.testing.assert_allclose(out.numpy(), expected, atol=1e-4)
        y = prepared(tensors[0], residual=torch_like(torch, r))
        np.testing.assert_allclose(y.numpy(), expected + r, atol=1e-4)


def test_explain_knows_the_memory_format(torch):
    for x, layout in ((X, "channels_first"), (data(X.shape, last=True)[0], "channels_last")):
        assert fastconv.explain(torch_like(torch, x), torch.tensor(W), torch.tensor(B)).problem.layout == layout


def torch_like(torch, array):
    """A tensor with the array's memory."""
    return torch.from_numpy(array) if hasattr(torch, "from_numpy") else torch.Tensor(array)


def test_a_prepared_operator_does_not_mix_memory_formats_up(torch):
    """A shape that means (N, C, H, W) of one tensor and (N, H, W, C) of another, by turns."""
    w, = data((5, 5, 3, 3))
    conv = fastconv.prepare(w, padding=1)
    x, last = data((2, 5, 5, 5))[0], data((2, 5, 5, 5), last=True)[0]
    expected = fastconv.conv2d(x, w, padding=1)
    for _ in range(3):
        for array in (x, last):
            np.testing.assert_allclose(conv(torch_like(torch, array)).numpy(), expected, atol=1e-4)
            np.testing.assert_allclose(conv(array), expected, atol=1e-4)


def test_as_torch_lays_out(real):
    """Strides and values of torch's own results, for tensors of all kinds of strides."""
    F, last, last3 = real.nn.functional, real.channels_last, real.channels_last_3d
    x, w, x3, w3 = map(real.tensor, data((2, 3, 6, 7), (4, 3, 3, 3), (2, 3, 5, 6, 4), (4, 3, 2, 2, 2)))
    xl, x3l = x.to(memory_format=last), x3.to(memory_format=last3)
    one, narrow, signal = map(real.tensor, data((2, 5, 1, 1), (2, 1, 6, 7), (2, 3, 9)))
    cases = [(x, w), (xl, w), (x, w.to(memory_format=last)), (xl[:, :, ::2], w), (xl[..., 1:], w), (xl[0], w), (xl[:1], w),
             (x.transpose(2, 3), w), (x[:, :1].expand(2, 3, 6, 7), w), (one.to(memory_format=last), real.ones(4, 5, 1, 1)),
             (one, real.ones(4, 5, 1, 1)), (narrow.to(memory_format=last), real.ones(4, 1, 3, 3)), (xl, real.ones(1, 3, 3, 3)),
             (xl[:0], w), (x[:0], w.to(memory_format=last)), (xl.double(), w.double()), (x3, w3), (x3l, w3), (x3l[0], w3),
             (x3, w3.to(memory_format=last3)), (signal.transpose(1, 2).contiguous().transpose(1, 2), real.ones(4, 3, 3))]
    for a, b in cases:
        name = f"conv{b.dim() - 2}d"
        expected, y = getattr(F, name)(a, b), getattr(fastconv, name)(a, b)
        assert y.stride() == expected.stride() and y.shape == expected.shape, (a.shape, a.stride(), b.stride())
        assert real.allclose(y, expected, atol=1e-4)


# ---- what is refused


def test_only_what_autograd_would_record(torch):
    x, w = torch.tensor(X), torch.tensor(W, requires_grad=True)
    with pytest.raises(TypeError, match=r"weight requires grad.*weight\.detach\(\).*no_grad"):
        fastconv.conv2d(x, w)
    with pytest.raises(TypeError, match="image requires grad"):
        fastconv.correlate(torch.tensor(X[0, 0], requires_grad=True), torch.tensor(W[0, 0]))
    out = torch.tensor(np.zeros_like(Y), requires_grad=True)
    with pytest.raises(TypeError, match="out requires grad"):
        fastconv.conv2d(x, torch.tensor(W), torch.tensor(B), out=out)
    with torch.no_grad():
        y = fastconv.conv2d(x, w, torch.tensor(B))
        assert np.array_equal(y.numpy(), Y) and not y.requires_grad
        conv = fastconv.prepare(w, torch.tensor(B))
        assert fastconv.conv2d(x, w, torch.tensor(B), out=out) is out
    np.testing.assert_allclose(conv(x).numpy(), Y, atol=1e-5)
    np.testing.assert_allclose(out.detach().numpy(), Y, atol=1e-5)


REFUSED = {  # flags of a stand-in's tensor, what the message says
    "meta": ({"device": "meta"}, "device meta"), "sparse": ({"layout": "torch.sparse_coo"}, "dense.*torch.sparse_coo"),
    "mkldnn": ({"layout": "torch._mkldnn"}, "dense.*torch._mkldnn"), "nested": ({"is_nested": True}, "dense.*nested"),
    "bfloat16": ({"dtype": "bfloat16"}, r"bfloat16; convert it: \w+\.float"), "quantized": ({"dtype": "quint8"}, "quint8"),
    "complex": ({"dtype": "complex64"}, "complex64"), "float16": ({}, "float16"), "vmap": ({"wrapped": True}, "torch.func"),
    "dual": ({"tangent": 1}, "tangent"), "named": ({"names": ("N", "C")}, "named dimensions"),
    "lazy": ({"lazy": True}, "memory of its own"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_one_sentence(what, monkeypatch):
    torch = fake_torch.module()
    monkeypatch.setitem(sys.modules, "torch", torch)
    flags, message = REFUSED[what]
    made = torch.tensor(X.astype(np.float16) if what == "float16" else X, **flags)
    made = made.as_subclass(torch.nn.Parameter) if what == "lazy" else made
    with pytest.raises(TypeError, match=message) as caught:
        fastconv.conv2d(made, torch.tensor(W.astype(np.float16) if what == "float16" else W, device=made.device))
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def test_classes_without_memory_are_refused(torch):
    class Wrapper(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, *arguments):
            raise RuntimeError("called")

    with pytest.raises(TypeError, match=r"input must be a tensor with memory of its own, got test_torch.*Wrapper"):
        fastconv.conv2d(torch.tensor(X).as_subclass(Wrapper), torch.tensor(W))


def test_what_only_stands_for_a_tensor(torch):
    class Proxy:
        def __getattr__(self, name):
            return self

        @classmethod
        def __torch_function__(cls, *arguments): ...

    for call in (lambda: fastconv.conv2d(Proxy(), torch.tensor(W)), lambda: fastconv.conv2d(X, W, Proxy())):
        with pytest.raises(TypeError, match="got Proxy, which only stands for a tensor"):
            call()


@pytest.mark.parametrize("state", ["tracing", "mode"])
def test_tracing_is_refused(state, monkeypatch):
    torch = fake_torch.module()
    monkeypatch.setitem(sys.modules, "torch", torch)
    setattr(torch, state, object())
    with pytest.raises(TypeError, match="cannot be traced by torch"):
        fastconv.conv2d(torch.tensor(X), torch.tensor(W))
    conv = fastconv.prepare(W)
    with pytest.raises(TypeError, match="cannot be traced by torch"):
        conv(torch.tensor(X))
    with pytest.raises(TypeError, match="cannot be traced by torch"):
        fastconv.correlate(torch.tensor(X[0, 0]), torch.tensor(W[0, 0]))


def test_negative_bits(torch):
    """Resolved where read; `out` would be written beside the tensor."""
    x, w, b = negative(torch, X), torch.tensor(W), torch.tensor(B)
    assert x.is_neg()
    np.testing.assert_allclose(fastconv.conv2d(x, w, b).numpy(), fastconv.conv2d(-X, W, B), atol=1e-5)
    with pytest.raises(TypeError, match="out must not have its negative bit"):
        fastconv.conv2d(torch.tensor(X), w, b, out=negative(torch, Y))


def negative(torch, array):
    """A tensor of -array with its negative bit set."""
    if not hasattr(torch, "complex"):
        return torch.tensor(array, negative=True)
    return torch.complex(torch.zeros(array.shape), torch.tensor(array)).conj().imag


def test_out_needs_memory_of_its_own(torch):
    out = torch_like(torch, np.lib.stride_tricks.as_strided(np.zeros((2, 4, 1, 5), np.float32), Y.shape, (80, 20, 0, 4)))
    with pytest.raises(ValueError, match="out must have memory for each"):
        fastconv.conv2d(torch.tensor(X), torch.tensor(W), torch.tensor(B), out=out)


def test_autograd_notices_what_was_overwritten(real):
    """A saved tensor that became `out` of a convolution: an error, as with torch's own functions, not a wrong gradient."""
    a = real.ones(1, 4, 4, 5, requires_grad=True)
    saved = real.ones(1, 4, 4, 5)
    product = (a * saved).sum()
    fastconv.conv2d(real.tensor(X[:1]), real.tensor(W), out=saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


TRANSFORMS = {
    "vmap": lambda t, f, x: t.func.vmap(f)(x[None]), "grad": lambda t, f, x: t.func.grad(lambda v: f(v).sum())(x),
    "jvp": lambda t, f, x: t.func.jvp(f, (x,), (x,)), "functionalize": lambda t, f, x: t.func.functionalize(f)(x),
    "trace": lambda t, f, x: t.jit.trace(f, x), "dual": lambda t, f, x: _dual(t, f, x), "fake": lambda t, f, x: _fake(t, f, x),
    "make_fx": lambda t, f, x: __import__("torch.fx.experimental.proxy_tensor", fromlist=["x"]).make_fx(f)(x),
    "fx": lambda t, f, x: t.fx.Tracer().trace(f), "meta": lambda t, f, x: f(x.to("meta")),
    "sparse": lambda t, f, x: f(x.to_sparse()), "mkldnn": lambda t, f, x: f(x.to_mkldnn()),
    "nested": lambda t, f, x: f(t.nested.nested_tensor([x[0], x[1]])),
    "jagged": lambda t, f, x: f(t.nested.nested_tensor([x[0, 0], x[1, 0]], layout=t.jagged)),
    "quantized": lambda t, f, x: f(t.quantize_per_tensor(x, 0.1, 0, t.quint8)), "bfloat16": lambda t, f, x: f(x.bfloat16()),
    "complex": lambda t, f, x: f(x.to(t.complex64).conj()),
    "lazy": lambda t, f, x: f(t.nn.UninitializedBuffer()),
}


def _dual(torch, function, x):
    with torch.autograd.forward_ad.dual_level():
        return function(torch.autograd.forward_ad.make_dual(x, x))


def _fake(torch, function, x):
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        return function(x)


@pytest.mark.parametrize("what", TRANSFORMS)
def test_transforms_are_refused(what, real):
    w = real.tensor(W)
    with pytest.raises(TypeError) as caught:
        TRANSFORMS[what](real, lambda x: fastconv.conv2d(x, w), real.tensor(X))
    assert len(str(caught.value)) < 500 and caught.traceback[-1].path.parent.name == "fastconv"  # a sentence of ours


def test_export_is_refused(real):
    class Model(real.nn.Module):
        def forward(self, x):
            return fastconv.conv2d(x, x)

    with pytest.raises(TypeError, match="cannot be traced by torch.export"):
        real.export.export(Model(), (real.tensor(W),), strict=False)


# ---- what torch's surroundings leave as it is


def test_surroundings_change_nothing(real):
    x, w, b = map(real.tensor, (X, W, B))
    with real.autocast("cpu"):
        assert np.array_equal(fastconv.conv2d(x, w, b).numpy(), Y)  # float32 was asked for, and is what comes out
    with real.device("meta"):
        assert np.array_equal(fastconv.conv2d(x, w, b).numpy(), Y)
    with real.inference_mode():
        inside = fastconv.conv2d(real.tensor(X), real.nn.Parameter(w), b)
        assert inside.is_inference() and fastconv.conv2d(x, w, b, out=inside) is inside
    assert np.array_equal(inside.numpy(), Y)
    assert np.array_equal(real.func.vmap(lambda v: v + fastconv.conv2d(x, w, b))(real.zeros(2, 1))[0].numpy(), Y)


def test_compiled_programs_call_it(real):
    """torch.compile breaks its graph there; the results are right."""
    w, b = real.tensor(W), real.tensor(B)

    def program(x, r):
        out = real.empty_like(r)
        y = fastconv.conv2d(x * 2, w, b, residual=r, activation="relu", out=out)
        return y + 1 + out

    compiled = real.compile(program, backend="eager")
    for seed in range(2):
        x, r = map(real.tensor, data((1, 3, 6, 7), (1, 4, 4, 5)))
        x += seed
        program(x, r)  # what is planned already need not be followed by the compiler
        expected = 2 * real.relu(real.nn.functional.conv2d(x * 2, w, b) + r) + 1
        assert real.allclose(compiled(x, r), expected, atol=1e-4)
    real._dynamo.reset()
    with pytest.raises(Exception, match="fastconv computes outside of torch"):
        real.compile(program, backend="eager", fullgraph=True)(x, r)


# ---- whole models


def _model(nn, ndim):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[ndim - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[ndim - 1]
    return nn.Sequential(
        conv(3, 8, 3, padding=1), norm(8), nn.ReLU(), conv(8, 8, 3, padding="same", groups=8, bias=False),
        conv(8, 12, 1), nn.GELU(), conv(12, 12, 3, padding=2, dilation=2, groups=3, padding_mode="circular"),
        conv(12, 12, 3, padding=1, padding_mode="reflect"), conv(12, 6, 3, stride=2, padding="valid"),
        conv(6, 6, 2, padding="same", padding_mode="replicate"))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_whole_models(real, ndim, monkeypatch):
    """fastconv's functions in the place of torch's, under every mode in which nothing is recorded."""
    real.manual_seed(3)
    F, model = real.nn.functional, _model(real.nn, ndim).eval()
    x = real.randn(2, 3, *(13,) * ndim)
    calls = []
    with real.no_grad():
        expected = model(x)
        for name in ("conv1d", "conv2d", "conv3d"):
            ours = getattr(fastconv, name)
            monkeypatch.setattr(F, name, lambda *arguments, ours=ours: calls.append(1) or ours(*arguments))
        assert real.allclose(model(x), expected, atol=1e-4)
        assert len(calls) == 7
        assert real.allclose(model[0](x[0]), model[0](x)[0], atol=1e-5)  # unbatched
    with real.inference_mode():
        assert real.allclose(model(x), expected, atol=1e-4)
    if ndim > 1:
        last = real.channels_last if ndim == 2 else real.channels_last_3d
        with real.no_grad():
            y = model.to(memory_format=last)(x.to(memory_format=last))
        assert real.allclose(y, expected, atol=1e-4) and y.is_contiguous(memory_format=last)
    with pytest.raises(TypeError, match="weight requires grad"):
        model(x)


# ---- the other kinds


def test_subclasses_are_of_their_bases_kind():
    class Mine(np.ndarray):
        pass

    y = fastconv.conv2d(X.view(Mine), W, B)
    assert type(y) is np.ndarray and np.array_equal(y, Y)
    out = np.zeros_like(Y).view(Mine)
    assert fastconv.conv2d(X, W, B, out=out) is out and np.array_equal(out, Y)
    assert arrays.kind_of(X.view(Mine)).name == "numpy"
    with pytest.raises(TypeError, match="masked"):
        fastconv.conv2d(np.ma.masked_array(X).view(type("Mine", (np.ma.MaskedArray,), {})), W)


def test_the_library_of_a_device_array():
    base = type("ndarray", (), {"__module__": "cupy", "__cuda_array_interface__": {}})
    mine = type("Mine", (base,), {"__module__": "mine"})
    assert cuda_arrays.library_of(mine()) == "cupy" and arrays.kind_of(mine()).name == "cupy"
    assert cuda_arrays.library_of(type("Theirs", (), {"__module__": "theirs.arrays"})()) == "theirs"
