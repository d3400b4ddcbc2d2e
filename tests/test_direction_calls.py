"""Calls for gradients and transposed convolutions: PyTorch's arguments, all kinds of arrays, `out`, threads, prepare."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import numpy as np
import pytest
from direction_cases import (
    GRID,
    INDEX,
    LAYOUTS,
    TRANSPOSED,
    VIEWS,
    Case,
    Transposed,
    bias_of,
    compute,
    conv_backward,
    conv_input,
    conv_transpose,
    conv_weight,
    data,
    expected,
    gradients,
    near,
    poisoned,
    sums,
    transposed,
    typed,
)
from helpers import at_once

import fastconv

# ---- PyTorch's arguments

TAIL = ["stride", "padding", "dilation", "groups"]
KEYWORDS = {"layout", "backend", "algorithm", "accuracy"}


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("name, positional, keywords", [
    ("conv{}d_input", ["input_size", "weight", "grad_output", *TAIL], {"padding_mode", "out"}),
    ("conv{}d_weight", ["input", "weight_size", "grad_output", *TAIL], {"padding_mode", "out"}),
    ("conv{}d_backward", ["grad_output", "input", "weight", *TAIL], {"padding_mode", "needs"}),
    ("conv_transpose{}d", ["input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"],
     {"activation", "residual", "out"}),
])
def test_names_of_arguments(name, positional, keywords, ndim):
    parameters = inspect.signature(getattr(fastconv, name.format(ndim))).parameters.values()
    assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == positional
    assert {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} >= keywords | KEYWORDS
    assert name.format(ndim) in fastconv.__all__


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_arguments_by_position(ndim):
    """In torch's order; its own functions for gradients take the same ones."""
    torch = pytest.importorskip("torch")
    case = Case((9, 8, 7)[:ndim], (2, 3, 2)[:ndim], (4, 6), groups=2, stride=2, padding=1, dilation=3)
    x, w, g = typed(data(case), "float64")
    of = fastconv, torch.nn.grad
    for name, first in ((f"conv{ndim}d_input", (x.shape, w, g)), (f"conv{ndim}d_weight", (x, w.shape, g))):
        ours, theirs = (getattr(module, name) for module in of)
        expected = theirs(*(torch.tensor(a) if isinstance(a, np.ndarray) else a for a in first), 2, 1, 3, 2).numpy()
        np.testing.assert_allclose(ours(*first, 2, 1, 3, 2), expected, rtol=1e-12, atol=1e-12)
        assert list(inspect.signature(ours).parameters)[:7] == list(inspect.signature(theirs).parameters)[:7]
    given = (g, w, np.arange(4.0), 2, 1, 1, 2, 3)
    theirs = getattr(torch.nn.functional, f"conv_transpose{ndim}d")
    expected = theirs(*(torch.tensor(a) if isinstance(a, np.ndarray) else a for a in given)).numpy()
    np.testing.assert_allclose(getattr(fastconv, f"conv_transpose{ndim}d")(*given), expected, rtol=1e-12, atol=1e-12)


def test_forms_of_sizes():
    """Whatever is a shape: torch.Size is a tuple; NumPy's integers; an array."""
    case = GRID["2d"]
    x, w, g = data(case)
    of_input, of_weight, _ = conv_backward(case, g, x, w)
    for form in (list, np.array, lambda shape: tuple(map(np.int64, shape))):
        assert np.array_equal(fastconv.conv2d_input(form(x.shape), w, g, padding=1), of_input)
        assert np.array_equal(fastconv.conv2d_weight(x, form(w.shape), g, padding=[(1, 1), np.int64(1)]), of_weight)


@pytest.mark.parametrize("ndim, layout", [(1, "NWC"), (2, "NHWC"), (3, "NDHWC")])
def test_names_of_layouts(ndim, layout):
    case = Case((4, 5, 3)[:ndim], (2,) * ndim, layout="channels_last")
    x, w, g = data(case)
    for other, one in zip(conv_backward(case._replace(layout=layout), g, x, w), conv_backward(case, g, x, w)):
        assert np.array_equal(other, one)
    of = Transposed((4, 5, 3)[:ndim], (2,) * ndim, layout="channels_last")
    x, w, _ = data(of)
    assert np.array_equal(conv_transpose(of._replace(layout=layout), x, w), conv_transpose(of, x, w))


@pytest.mark.parametrize("needs", [(bool(n & 4), bool(n & 2), bool(n & 1)) for n in range(8)])
def test_needs(needs, backend):
    """None stands where no gradient was asked for; the others are what they are without."""
    case = GRID["2d groups"]
    x, w, g = data(case)
    every = conv_backward(case, g, x, w, backend=backend)
    for needed, one, found in zip(needs, every, conv_backward(case, g, x, w, needs=needs, backend=backend), strict=True):
        assert (found is not None and np.array_equal(found, one)) if needed else found is None


def test_calls_that_look_alike(backend):
    """Four functions, one set of shapes and arguments: none takes what was remembered of another."""
    case = Case((5,), (3,), (3, 3), 2, padding=1)
    x, w, g = typed(data(case, integers=True), "float64")
    keywords = dict(backend=backend, accuracy="strict")
    of_input, of_weight, _ = gradients(case, x, w, g)
    for mode in ("zeros", "circular", "zeros"):
        of_mode = gradients(case._replace(mode=mode), x, w, g)
        for _ in range(2):
            assert np.array_equal(fastconv.conv1d(g, np.swapaxes(w, 0, 1)[..., ::-1], padding=1, **keywords), of_input)
            assert np.array_equal(fastconv.conv_transpose1d(g, w, padding=1, **keywords), of_input)
            assert np.array_equal(conv_input(case._replace(mode=mode), w, g, **keywords), of_mode[0])
            assert np.array_equal(conv_weight(case._replace(mode=mode), x, g, **keywords), of_mode[1])
            assert np.array_equal(fastconv.conv1d_weight(x, w.shape, g, padding=1, **keywords), of_weight)


# ---- arrays


@pytest.mark.parametrize("view", VIEWS)
def test_strides(view, backend):
    """Of each array by itself, and of all."""
    for case in (Case((5, 6), (3, 3), (4, 6), groups=2, padding=1, stride=(1, 2)),
                 Case((1, 7), (1, 3), (1, 8), layout="channels_last"),
                 Case((4, 3), (3, 1), (5, 5), groups=5, padding=2, mode="symmetric")):
        plain = data(case)
        for changed in ((0,), (1,), (2,), (0, 1, 2)):
            seen = [VIEWS[view](a) if i in changed else a for i, a in enumerate(plain)]
            copies = [np.array(a, np.float32, order="C") for a in seen]
            wanted = sums(gradients, case, *copies)
            x, w, g = seen
            found = (*conv_backward(case, g, x, w, backend=backend), conv_input(case, w, g, backend=backend),
                     conv_weight(case, x, g, backend=backend))
            for result, sum_ in zip(found, (*wanted, *wanted[:2]), strict=True):
                near(result, sum_, what=(view, changed, case))
            assert all(map(np.array_equal, seen, copies))


@pytest.mark.parametrize("view", VIEWS)
def test_strides_of_transposed(view, backend):
    for name in ("2d groups", "2d strides"):
        case = TRANSPOSED[name]
        x, w, r = (VIEWS[view](a) for a in data(case))
        b = VIEWS[view](bias_of(case)) if view != "broadcast" else bias_of(case)
        copies = [np.array(a, np.float32, order="C") for a in (x, w, b, r)]
        near(conv_transpose(case, x, w, b, residual=r, backend=backend), sums(transposed, case, *copies)[0], what=(view, case))
        assert all(map(np.array_equal, (x, w, b, r), copies))


@pytest.mark.parametrize("view", [view for view in VIEWS if view not in ("read_only", "broadcast", "constant")])
def test_out(view, backend):
    """Any strides and byte order; all of it is overwritten, nothing around it."""
    for name in ("2d strides", "1d unread end and padding", "2d depthwise, stride", "2d circular", "1d stride over kernel"):
        case = GRID[name]
        for direction, index in INDEX.items():
            arrays, sum_ = data(case), expected(case)[index]
            out = poisoned(sum_.value.shape, "float32", view)
            assert compute(direction, case, *arrays, out=out, backend=backend) is out
            near(np.array(out, np.float32), sum_, what=(view, direction, case))
            assert view != "sliced" or np.isnan(out.base[..., ::3]).all() and np.isnan(out.base[..., 2::3]).all()
    for name in ("1d holes", "2d strides"):
        case = TRANSPOSED[name]
        x, w, _ = data(case)
        out = poisoned(case.output_shape, "float32", view)
        assert conv_transpose(case, x, w, out=out, backend=backend) is out
        near(np.array(out, np.float32), sums(transposed, case, x, w)[0], what=(view, case))


def overlapping(first: np.ndarray, shape: tuple[int, ...], shift: int) -> tuple[np.ndarray, np.ndarray]:
    """A copy of `first`, and an `out` of that shape in the same memory."""
    size = int(np.prod(shape))
    memory = np.full(shift + max(first.size, size), np.nan, first.dtype)
    memory[: first.size] = first.ravel()
    return memory[: first.size].reshape(first.shape), memory[shift:shift + size].reshape(shape)


@pytest.mark.parametrize("shift", [0, 7])
def test_out_overlaps_what_is_read(shift, backend):
    for case in (Case((6, 5), (3, 3), (4, 4), padding=1), Case((6, 5), (3, 3), (4, 4), padding=1, mode="reflect"),
                 Case((9, 8), (3, 3), (4, 4), stride=2, groups=4)):
        x, w, g = data(case)
        of_input, of_weight, _ = expected(case)
        seen, out = overlapping(g, case.input_shape, shift)
        near(conv_input(case, w, seen, out=out, backend=backend), of_input, what=case)
        seen, out = overlapping(w, case.input_shape, shift)
        near(conv_input(case, seen, g, out=out, backend=backend), of_input, what=case)
        seen, out = overlapping(x, case.weight_shape, shift)
        near(conv_weight(case, seen, g, out=out, backend=backend), of_weight, what=case)
        seen, out = overlapping(g, case.weight_shape, shift)
        near(conv_weight(case, x, seen, out=out, backend=backend), of_weight, what=case)
    case = Transposed((5, 6), (3, 3), (4, 4), padding=1)
    x, w, r = data(case)
    plain, added = (sums(transposed, case, x, w, None, residual)[0] for residual in (None, r))
    for array, position in ((x, 0), (w, 1)):
        seen, out = overlapping(array, case.output_shape, shift)
        near(conv_transpose(case, *((seen, w), (x, seen))[position], out=out, backend=backend), plain)
    seen, out = overlapping(r, case.output_shape, shift)
    near(conv_transpose(case, x, w, residual=seen, out=out, backend=backend), added)
    seen = x.copy()
    near(conv_transpose(case, seen, w, out=seen[::-1, :, ::-1], backend=backend), plain)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_unbatched_drops_n(layout, ndim, backend):
    case = Case((6, 5, 4)[:ndim], (3, 2, 2)[:ndim], batch=1, stride=2, padding=1, layout=layout)
    x, w, g = data(case)
    batched = conv_backward(case, g, x, w, backend=backend)
    of_input, of_weight, of_bias = conv_backward(case, g[0], x[0], w, backend=backend)
    assert np.array_equal(of_input, batched[0][0]) and of_input.shape == case.input_shape[1:]
    assert np.array_equal(of_weight, batched[1]) and np.array_equal(of_bias, batched[2])
    single = getattr(fastconv, f"conv{ndim}d_input")(case.input_shape[1:], w, g[0], **case.keywords, backend=backend)
    assert np.array_equal(single, of_input)
    assert np.array_equal(conv_weight(case, x[0], g[0], backend=backend), of_weight)
    of = Transposed((4, 3, 2)[:ndim], (3, 2, 2)[:ndim], batch=1, stride=2, output_padding=1, layout=layout)
    x, w, r = data(of)
    y = conv_transpose(of, x[0], w, residual=r[0], backend=backend)
    assert np.array_equal(y, conv_transpose(of, x, w, residual=r, backend=backend)[0])
    out = np.full_like(y, np.nan)
    assert conv_transpose(of, x[0], w, residual=r[0], out=out, backend=backend) is out and np.array_equal(out, y)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_images(layout, backend):
    """An empty gradient of the input; of weight and bias, sums of nothing."""
    for name in ("1d stride", "2d circular", "2d depthwise", "3d groups"):
        case = GRID[name]._replace(batch=0, layout=layout)
        x, w, g = data(case)
        of_input, of_weight, of_bias = conv_backward(case, g, x, w, backend=backend)
        assert of_input.shape == case.input_shape and of_input.dtype == np.float32
        assert of_weight.shape == case.weight_shape and not of_weight.any() and of_weight.dtype == np.float32
        assert of_bias.shape == case.channels[1:] and not of_bias.any() and of_bias.dtype == np.float32
        assert conv_input(case, w, g, backend=backend).shape == case.input_shape
        out = poisoned(case.weight_shape, "float32")
        assert conv_weight(case, x, g, out=out, backend=backend) is out and not out.any()
    case = TRANSPOSED["2d strides"]._replace(batch=0, layout=layout)
    x, w, _ = data(case)
    assert conv_transpose(case, x, w, bias_of(case), backend=backend).shape == case.output_shape


@pytest.mark.parametrize("one, other, common", [
    ("float32", "float64", "float64"), ("int8", "float32", "float32"), ("bool", "float32", "float32"),
    ("float16", "float32", "float32"), ("int32", "float32", "float64"), ("uint16", "float64", "float64")])
def test_dtypes_are_promoted(one, other, common, backend):
    """As NumPy promotes them, whichever comes first."""
    case = Case((5, 4), (2, 3), padding=1)
    x, w, g = (np.abs(a) % 2 for a in data(case, integers=True))
    of_input, of_weight, _ = gradients(case, x, w, g)
    of = Transposed((4, 5), (3, 2), stride=2)
    a, v, _ = (np.abs(array) % 2 for array in data(of, integers=True))
    for first, second in ((one, other), (other, one)):
        keywords = dict(backend=backend, accuracy="strict")
        results = ((conv_input(case, w.astype(first), g.astype(second), **keywords), of_input),
                   (conv_weight(case, x.astype(first), g.astype(second), **keywords), of_weight),
                   (conv_transpose(of, a.astype(first), v.astype(second), **keywords), transposed(of, a, v)))
        for found, value in results:
            assert found.dtype == common and np.array_equal(found, value)


def test_bias_and_residual_never_widen():
    case = Transposed((4,), (3,))
    x, w, r = data(case)
    assert conv_transpose(case, x, w, np.arange(2.0)).dtype == np.float32
    with pytest.raises(TypeError, match="residual.*float32.*float64"):
        conv_transpose(case, x, w, residual=r.astype(np.float64))


def test_torch_tensors_stay_torch(backend):
    torch = pytest.importorskip("torch")
    case, of = GRID["2d groups, stride"], TRANSPOSED["2d strides"]
    x, w, g = map(torch.tensor, data(case))
    for found, sum_ in zip(conv_backward(case, g, x, w, backend=backend), expected(case), strict=True):
        assert isinstance(found, torch.Tensor) and found.dtype == torch.float32
        near(found.numpy(), sum_)
    shape = x.shape  # a torch.Size
    out = torch.full(shape, float("nan"))
    assert fastconv.conv2d_input(shape, w, g, **case.keywords, out=out, backend=backend) is out
    near(out.numpy(), expected(case)[0])
    near(fastconv.conv2d_weight(x, w.shape, g, **case.keywords, backend=backend).numpy(), expected(case)[1])
    x, w, r = map(torch.tensor, data(of))
    y = conv_transpose(of, x, w, residual=r, backend=backend)
    assert isinstance(y, torch.Tensor)
    near(y.numpy(), sums(transposed, of, x.numpy(), w.numpy(), None, r.numpy())[0])
    with pytest.raises(TypeError, match="grad_output"):
        conv_backward(case, g.numpy(), torch.tensor(data(case)[0]), torch.tensor(data(case)[1]), backend=backend)


@pytest.mark.parametrize("ndim", [2, 3])
def test_memory_formats_of_torch(ndim, backend):
    """Which of the arrays has which format makes no difference to the numbers and the shapes."""
    torch = pytest.importorskip("torch")
    formats = torch.contiguous_format, torch.channels_last if ndim == 2 else torch.channels_last_3d
    case = Case((5, 6, 4)[:ndim], (3, 2, 2)[:ndim], (4, 6), groups=2, stride=2, padding=1)
    of = Transposed((3, 4, 2)[:ndim], (3, 2, 2)[:ndim], (4, 6), groups=2, stride=2, output_padding=1)
    wanted = *expected(case), *sums(transposed, of, *data(of)[:2])
    arrays = [torch.tensor(a) for a in (*data(case), *data(of)[:2])]
    for n in range(16):
        x, w, g, y, v = (a.contiguous(memory_format=formats[n >> i & 1]) for i, a in enumerate((*arrays[:4], arrays[4])))
        found = *conv_backward(case, g, x, w, backend=backend), conv_transpose(of, y, v, backend=backend)
        for result, sum_ in zip(found, wanted, strict=True):
            near(result.numpy(), sum_, what=n)
        for function, first, sum_ in ((conv_input, w, wanted[0]), (conv_weight, x, wanted[1])):
            out = torch.full(sum_.value.shape, float("nan")).contiguous(memory_format=formats[n & 1])
            assert function(case, first, g, out=out, backend=backend) is out
            near(out.numpy(), sum_, what=n)


def test_torch_would_record():
    """A gradient of ours is a dead end for torch's autograd, which must not be one in silence."""
    torch = pytest.importorskip("torch")
    case = GRID["2d"]
    x, w, g = map(torch.tensor, data(case))
    w.requires_grad_()
    for call in (lambda: conv_input(case, w, g), lambda: conv_backward(case, g, x, w),
                 lambda: fastconv.conv_transpose2d(g, w, padding=1)):
        with pytest.raises(TypeError, match="weight requires grad.*detach"):
            call()
        with torch.no_grad():
            call()


def test_lists_are_arrays():
    assert fastconv.conv1d_input((1, 3), [[[1.0, 2.0]]], [[1.0, 1.0]]).tolist() == [[1, 3, 2]]
    assert fastconv.conv1d_weight([[1.0, 2.0, 4.0]], (1, 1, 2), [[1.0, 1.0]]).tolist() == [[[3, 6]]]
    assert fastconv.conv_transpose1d([[1.0, 1.0]], [[[1.0, 2.0]]]).tolist() == [[1, 3, 2]]


# ---- threads

LARGE = {
    "3x3": Case((28, 28), (3, 3), (24, 32), 4, padding=1), "stride": Case((29, 28), (3, 3), (16, 24), 5, stride=2, padding=1),
    "pointwise": Case((24, 24), (1, 1), (40, 48), 3, layout="channels_last"), "1d": Case((4000,), (9,), (8, 8), 2, padding=4),
    "depthwise": Case((28, 28), (3, 3), (32, 32), 4, groups=32, padding=1),
    "reflect": Case((26, 28), (3, 3), (16, 16), 4, padding=2, mode="reflect"),
    "patches": Case((48, 40), (8, 8), (3, 40), 3, stride=8), "large kernel": Case((36, 40), (11, 13), (4, 5), padding=(5, 6)),
    "deep": Case((14, 13), (3, 3), (64, 96), 1, padding=1), "3d": Case((9, 10, 11), (3, 3, 3), (8, 12), 2, padding=1),
}


@pytest.mark.parametrize("name", LARGE)
def test_the_same_bits_for_any_number_of_threads(name, backend):
    if backend == "naive":
        pytest.skip("has no threads")
    case = LARGE[name]
    x, w, g = data(case, integers=backend == "im2col")  # BLAS promises nothing else
    of = Transposed(case.problem().output_size, case.kernel, case.channels[::-1], case.batch, case.groups, case.stride,
                    layout=case.layout)
    wanted = *sums(gradients, case, x, w, g), *sums(transposed, of, g, w)

    def run() -> tuple[np.ndarray, ...]:
        return *conv_backward(case, g, x, w, backend=backend), conv_transpose(of, g, w, backend=backend)

    with fastconv.config(num_threads=1):
        one = run()
    for result, sum_ in zip(one, wanted, strict=True):
        near(result, sum_, what=case)
    for threads in (2, 8, 3):
        with fastconv.config(num_threads=threads):
            for _ in range(3):
                assert all(map(np.array_equal, run(), one)), threads


@pytest.mark.parametrize("name", LARGE)
def test_the_same_bits_in_any_batch(name, backend):
    """Of the gradient of the input, which has images."""
    if backend not in ("cython", "numba"):
        pytest.skip("promises no bits")
    case = LARGE[name]
    _, w, g = data(case)
    whole = conv_input(case, w, g, backend=backend)
    for n in (0, case.batch - 1):
        assert np.array_equal(conv_input(case._replace(batch=1), w, g[n:n + 1], backend=backend), whole[n:n + 1])


def test_calls_at_once(backend):
    """From eight threads, of all functions: what each gives alone."""
    case, of = GRID["2d sides of padding"], TRANSPOSED["2d strides"]
    x, w, g = data(case)
    y, v, _ = data(of)
    alone = *conv_backward(case, g, x, w, backend=backend), conv_transpose(of, y, v, backend=backend)
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(5):
            found = *conv_backward(case, g, x, w, backend=backend), conv_transpose(of, y, v, backend=backend)
            if not all(map(np.array_equal, found, alone)):
                wrong.append(index)

    assert not at_once(work) and not wrong


# ---- prepare(transposed=True)

PREPARED = ("1d holes", "1d output padding far over stride", "2d", "2d strides", "2d sides of padding", "2d depthwise",
            "2d multiplier", "3d groups")


def prepared(case: Transposed, w: np.ndarray, b: np.ndarray | None = None, **more: Any) -> Any:
    return fastconv.prepare(w, b, transposed=True, **case.keywords, **more)


@pytest.mark.parametrize("name", PREPARED)
def test_prepare(name, backend):
    """What conv_transpose gives; integers, so that other algorithms make no difference."""
    for layout, activation in zip(LAYOUTS, (None, "relu")):
        case = TRANSPOSED[name]._replace(layout=layout)
        x, w, r = data(case, integers=True)
        b = np.arange(case.channels[1], dtype=np.float32) - 1
        keywords = dict(activation=activation, backend=backend, accuracy="strict")
        op = prepared(case, w, b, **keywords)
        for residual in (None, r):
            y = op(x, residual=residual)
            assert y.flags.c_contiguous and y.dtype == np.float32
            assert np.array_equal(y, conv_transpose(case, x, w, b, residual=residual, **keywords))
            out = poisoned(case.output_shape, "float32")
            assert op(x, residual=residual, out=out) is out and np.array_equal(out, y)
            single = op(x[0], residual=None if residual is None else residual[0])
            assert np.array_equal(single, y[0])
        at_once_planned = prepared(case, w, b, input_shape=case.input_shape, **keywords)
        assert np.array_equal(at_once_planned(x, residual=r), y) and op(x[:0]).shape == (0, *y.shape[1:])


@pytest.mark.parametrize("name", PREPARED)
def test_prepare_takes_a_snapshot_and_is_picklable(name, backend):
    case = TRANSPOSED[name]
    x, w, _ = data(case)
    b = bias_of(case)
    weight, bias = w.copy(), b.copy()
    op = prepared(case, weight, bias, activation=("leaky_relu", 0.2), backend=backend)
    before = pickle.loads(pickle.dumps(op))  # not planned yet
    weight[:] = bias[:] = np.nan
    y = op(x)
    sum_, = sums(transposed, case, x, w, b)
    near(y, sum_._replace(value=np.where(sum_.value < 0, 0.2 * sum_.value, sum_.value)))
    for again in (before, pickle.loads(pickle.dumps(op))):
        assert np.array_equal(again(x), y) and str(again.plan(x.shape)) == str(op.plan(x.shape))


def test_prepare_goes_through_many_shapes(backend):
    of = Transposed((1, 1), (3, 2), (2, 3), stride=(2, 3), padding=((1, 0), (0, 0)), output_padding=(0, 1))
    w = data(of, integers=True)[1]
    op = prepared(of, w, backend=backend, accuracy="strict")
    for _ in range(2):
        for n in range(1, 12):
            case = of._replace(size=(n, 12 - n), batch=1 + n % 3)
            x = data(case, integers=True)[0]
            assert np.array_equal(op(x), transposed(case, x, w))


def test_prepare_tells_shapes_apart(backend):
    """One row meets some of the kernel's taps, one column others, and as many."""
    for of in (Transposed((1, 1), (2, 2), (2, 3), stride=2, padding=((0, 1), (0, 1))),
               Transposed((1, 1), (4, 4), (3, 3), groups=3, stride=2, padding=((1, 2), (1, 2)))):
        w = data(of, integers=True)[1]
        op = prepared(of, w, backend=backend, accuracy="strict")
        for size in ((1, 3), (3, 1), (1, 1), (3, 3), (1, 3), (3, 1)):
            case = of._replace(size=size)
            x = data(case, integers=True)[0]
            assert np.array_equal(op(x), transposed(case, x, w)), case


@pytest.mark.parametrize("name", TRANSPOSED)
def test_plan_of_prepared(name, backend):
    """Every transposed convolution is a problem, which its text states in full."""
    case = TRANSPOSED[name]
    x, w, _ = data(case)
    plan = prepared(case, w, bias_of(case), activation="relu", backend=backend).plan(x.shape)
    p = plan.problem
    assert p.direction == "backward_input" and plan.backend == backend and p.text in str(plan)
    assert fastconv.ConvProblem.from_text(p.text) == p == fastconv.explain(p.text, backend=backend).problem


def test_threads_share_a_prepared_operator(backend):
    case = TRANSPOSED["2d decoder"]
    x, w, _ = data(case)
    y = prepared(case, w, backend=backend)(x)
    op = prepared(case, w, backend=backend)
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(5):
            if not np.array_equal(op(x), y):
                wrong.append(index)

    assert not at_once(work) and not wrong


def test_prepare_rejects():
    case = TRANSPOSED["2d strides"]
    x, w, _ = data(case)
    with pytest.raises(TypeError, match="weight's dtype float32, got float64"):
        prepared(case, w)(x.astype(np.float64))
    with pytest.raises(ValueError, match="channels"):
        prepared(case, w)(np.ones((1, 5, 4, 3), np.float32))
    with pytest.raises(ValueError, match="output_padding.*2"):
        prepared(case._replace(output_padding=(2, 0)), w)(x)
    for wrong in (1, "yes", None):
        with pytest.raises(TypeError, match="transposed"):
            fastconv.prepare(w, transposed=wrong)
    with pytest.raises(ValueError, match="output_padding"):  # which a convolution does not have
        fastconv.prepare(w, stride=2, output_padding=1)(x)
    with pytest.raises(ValueError, match="padding_mode"):  # which a transposed one does not have
        fastconv.prepare(w, transposed=True, padding=1, padding_mode="reflect")(x)
