"""Pooling against torch: its own sample inputs and error inputs, autograd, its tensors in and out."""

from __future__ import annotations

import importlib
import itertools
import os

import numpy as np
import pytest
from pooling_cases import call, pooling

import fastconv

torch = pytest.importorskip("torch")
functional = torch.nn.functional
KINDS = ("max_pool", "avg_pool", "lp_pool", "adaptive_avg_pool", "adaptive_max_pool", "max_unpool")
NAMES = [f"{name}{ndim}d" for name in KINDS for ndim in (1, 2, 3)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Torch's threads would wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def operations():
    """torch's database of operations, of which its own tests take their inputs."""
    os.environ.setdefault("PYTORCH_TESTING_DEVICE_ONLY_FOR", "cpu")
    try:
        found = importlib.import_module("torch.testing._internal.common_methods_invocations").op_db
    except ImportError as error:  # what torch's own tests need is not installed
        pytest.skip(f"torch's samples: {error}")
    by_name: dict[str, list] = {}
    for each in found:
        by_name.setdefault(each.name.removeprefix("nn.functional."), []).append(each)
    return by_name


def plain(value):
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    return tuple(map(plain, value)) if isinstance(value, (tuple, list)) else value


_expected: dict[str, list] = {}  # (sample, torch's answer) by name, the same for all backends
MOST = 60  # samples of a function; FASTCONV_ALL_SAMPLES=1 takes all, some 3,500


def samples(name, operations):
    if name not in _expected:
        every = os.environ.get("FASTCONV_ALL_SAMPLES")
        first = MOST if "unpool" in name and not every else None  # of unpooling each costs torch 20 ms
        drawn = [(operation, sample) for operation in operations.get(name, ())
                 for sample in itertools.islice(operation.sample_inputs("cpu", torch.float32), first)]
        step = 1 if every else -(-len(drawn) // MOST) or 1
        _expected[name] = [(sample, plain(operation.op(sample.input, *sample.args, **sample.kwargs)))
                           for operation, sample in drawn[::step]]
    return _expected[name]


@pytest.mark.parametrize("name", NAMES)
def test_torchs_own_samples(name, operations, backend):
    """Torch's sample inputs, spread over all of them."""
    pooling(backend)
    if "unpool" in name and backend != "im2col":
        pytest.skip("unpooling knows no backends")
    ours, where, passed = getattr(fastconv, name), {} if "unpool" in name else {"backend": backend}, 0
    drawn = samples(name, operations)
    if not drawn:
        pytest.skip("torch has no samples")
    for sample, expected in drawn:
        try:
            actual = ours(plain(sample.input), *plain(sample.args), **sample.kwargs, **where)
        except fastconv.Unsupported:
            continue
        both = zip(actual, expected, strict=True) if isinstance(expected, tuple) else [(actual, expected)]
        for a, e in both:
            assert a.shape == e.shape and a.dtype == e.dtype
            if not np.array_equal(a, e):
                np.testing.assert_allclose(a, e, 2e-5, 1e-6, err_msg=f"{sample.input.shape} {sample.args} {sample.kwargs}")
        passed += 1
    print(f"{name} {backend}: {passed} of {len(drawn)}")
    assert passed


@pytest.mark.parametrize("name", NAMES)
def test_torchs_own_error_inputs(name, operations):
    total = 0
    for operation in operations.get(name, ()):
        for error in operation.error_inputs("cpu") if operation.error_inputs_func else ():
            sample = error.sample_input
            total += 1
            with pytest.raises((ValueError, TypeError)):
                getattr(fastconv, name)(plain(sample.input), *plain(sample.args), **sample.kwargs)
    print(f"{name}: {total} errors")


CALLS = [
    ("max_pool", (3, 2, 1), {}), ("max_pool", (2, 3, 1, 2, True), {}), ("max_pool", (2, None, 0, 1, True), {}),
    ("avg_pool", (3, 2, 1), {}), ("avg_pool", (3, 2, 1, True, False), {}), ("avg_pool", (3, 2, 1, True, True), {}),
    ("lp_pool", (2, 3), {}), ("lp_pool", (3, 3, 2, True), {}), ("lp_pool", (1, 2, 1), {}), ("lp_pool", (1.5, 2), {}),
    ("lp_pool", (float("inf"), 2), {}), ("lp_pool", (-float("inf"), 2), {}),
    ("adaptive_avg_pool", (3,), {}), ("adaptive_max_pool", (3,), {}), ("adaptive_max_pool", (8,), {}),
]


@pytest.mark.parametrize("ndim", (1, 2, 3))
@pytest.mark.parametrize("name, arguments, more", CALLS, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(CALLS)])
def test_forward_and_gradient_are_torchs(name, arguments, more, ndim, backend, rng):
    """Also negative values, zeros and NaN, whose powers are NaN or give no gradient. What no window reads has the gradient 0
    here, and so has a NaN that none chose; torch multiplies that by a power or sign."""
    function = f"{name}{ndim}d"
    x = rng.integers(-20, 20, (2, 3, *(9, 8, 7)[:ndim])) / 8  # whose sums are exact: that one is 0 does not depend on the order
    x[..., -3:] = 0
    known = np.ones(x.shape, bool)
    if name == "lp_pool":
        ones = torch.ones(x.shape, requires_grad=True)
        _, kernel, stride, ceil_mode = arguments + (None, False)[len(arguments) - 2:]
        getattr(functional, f"avg_pool{ndim}d")(ones, kernel, stride, 0, ceil_mode).sum().backward()
        known = plain(ones.grad) != 0
    if arguments[0] != 1:  # of p = 1 torch's gradient beside a NaN is 0, as that of sign(NaN)
        x[1, 1, 2] = np.nan
        known &= ~np.isnan(x)
    tensor = torch.tensor(x, requires_grad=True)
    expected = getattr(functional, function)(tensor, *arguments, **more)
    g = rng.standard_normal(expected.shape)
    expected.backward(torch.tensor(g))
    np.testing.assert_allclose(call(backend, function, x, *arguments, **more), plain(expected), 1e-12, 1e-14)
    actual, wanted = call(backend, f"{function}_input", g, x, *arguments, **more), plain(tensor.grad)
    np.testing.assert_allclose(actual[known], wanted[known], 1e-10, 1e-12)


def test_unpooling_and_its_gradient_are_torchs(rng):
    for ndim in (1, 2, 3):
        x = torch.tensor(rng.standard_normal((2, 3, *(9, 8, 7)[:ndim])))
        pool, unpool = getattr(functional, f"max_pool{ndim}d"), getattr(functional, f"max_unpool{ndim}d")
        y, i = pool(x, 2, return_indices=True)
        y.requires_grad_()
        expected = unpool(y, i, 2, output_size=x.shape[2:])
        g = rng.standard_normal(expected.shape)
        expected.backward(torch.tensor(g))
        arguments = (plain(y), plain(i), 2)
        size = tuple(x.shape)
        np.testing.assert_array_equal(getattr(fastconv, f"max_unpool{ndim}d")(*arguments, output_size=size), plain(expected))
        gradient = getattr(fastconv, f"max_unpool{ndim}d_input")(g, *arguments, output_size=size)
        np.testing.assert_array_equal(gradient, plain(y.grad))


def test_tensors_in_tensors_out(backend, rng):
    x = torch.tensor(rng.standard_normal((2, 3, 8, 9)), dtype=torch.float32)
    for given in (x, x.to(memory_format=torch.channels_last)):
        y, i = call(backend, "max_pool2d", given, 3, 2, 1, return_indices=True)
        expected, places = functional.max_pool2d(x, 3, 2, 1, return_indices=True)
        assert torch.equal(y, expected) and torch.equal(i, places) and i.dtype == torch.int64
        gradient = call(backend, "max_pool2d_input", y, given, 3, 2, 1, indices=i)
        assert torch.allclose(gradient, torch.ops.aten.max_pool2d_with_indices_backward(y, x, [3, 3], [2, 2], [1, 1], [1, 1],
                                                                                       False, places))
        back = fastconv.max_unpool2d(y, i, 3, 2, 1, output_size=(8, 9))
        assert torch.equal(back, functional.max_unpool2d(expected, places, 3, 2, 1, output_size=(8, 9)))
        formats = {a.is_contiguous(memory_format=torch.channels_last) for a in (y, i, gradient, back)}
        assert formats == {given is not x}
    assert call(backend, "global_avg_pool", x).shape == (2, 3, 1, 1)
    whole = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 16)
    assert call(backend, "max_pool1d", whole, 4).dtype == torch.uint8
    with pytest.raises(TypeError, match="requires grad"):
        fastconv.avg_pool2d(x.requires_grad_(), 2)


def test_a_network_runs_on_it():
    """torch.nn.functional's functions replaced, under no_grad."""
    nn = torch.nn
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1))
    x = torch.rand(2, 1, 16, 16)
    names = ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d")
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        expected = model(x)
        for name in names:
            patch.setattr(functional, name, getattr(fastconv, name))
        assert torch.allclose(model(x), expected, atol=1e-6)
