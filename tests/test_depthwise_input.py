"""The depthwise_input algorithm: planes of few pixels by channels, rows as two strands; the same bits for all images, threads
and layouts; what is not finite; when it is chosen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from native_cases import any_strides, integers_exactly_and_random_data_within_bounds, runner
from problems import problem

import fastconv
from fastconv import plan
from fastconv.backends import cython_native
from fastconv.problem import ConvProblem
from fastconv.verify import reference
from fastconv.verify.data import integer_arrays, random_arrays

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)

run = runner("depthwise_input")

def gradient(channels: int, *arguments, bias: bool = True, **keywords) -> ConvProblem:
    return problem((channels, channels), *arguments, groups=channels, bias=bias, direction="backward_input", **keywords)


CASES = [
    gradient(1, (1, 1), (1, 1)),
    gradient(37, (6, 6), (3, 3), stride=2, batch=3),  # two blocks of channels, the last of one vector or less
    gradient(70, (3, 3), (3, 3), batch=2),
    gradient(33, (12, 11), (3, 3), stride=2, batch=2, activation="relu"),
    gradient(19, (7, 5), (4, 2), stride=(3, 1), dilation=(1, 2), padding=2),  # phases without taps
    gradient(5, (9, 8), (3, 3), stride=4, padding=1),
    gradient(20, (13,), (2,), stride=5, padding=0),  # input that no window reads
    gradient(18, (4, 5, 6), (2, 3, 2), stride=(1, 2, 1), padding=1, batch=2, activation="silu"),
    gradient(3, (48, 48), (3, 3), stride=2, batch=2),  # from here on rows
    gradient(2, (9, 52), (3, 3), stride=2),  # vectors that overlap
    gradient(2, (37, 61), (5, 4), stride=(1, 2), padding=(3, 0), batch=2),
    gradient(2, (70, 33), (3, 7), stride=(3, 2), dilation=(2, 3), padding=(0, 9)),
    gradient(1, (300, 131), (3, 3), stride=2, activation="relu"),  # bands of rows
    gradient(1, (6000, 2), (3, 1), stride=2, padding=(1, 0), bias=False),
    gradient(3, (3, 9, 64), (1, 3, 2), stride=(1, 2, 2), padding=(0, 1, 0), activation=("leaky_relu", 0.1)),
    gradient(2, (5, 201), (1, 2), stride=2, dilation=(1, 2), padding=0),  # no tap reaches odd columns
]
SMALL = CASES[:8]


@pytest.mark.parametrize(("dtype", "layout", "residual"), [
    ("float32", "channels_first", False), ("float64", "channels_last", True), ("float32", "channels_first", True),
    ("float32", "channels_last", False)])
@pytest.mark.parametrize("p", CASES, ids=str)
def test_integers_exactly_and_random_data_within_bounds(p, dtype, layout, residual):
    p = dataclasses.replace(p, dtype=dtype, layout=layout, residual=residual)
    integers_exactly_and_random_data_within_bounds(p, "depthwise_input", run)


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
def test_every_width(isa):
    """Whole vectors, some that overlap, some of which a part is stored, planes and rows, with an odd column at the end."""
    for dtype in ("float32", "float64"):
        for channels in (1, 40):
            for width in (*range(1, 42), 63, 64, 65):
                p = gradient(channels, (5, width), (3, 3), stride=2, dtype=dtype, bias=False)
                arrays = integer_arrays(p, np.random.default_rng(width))
                np.testing.assert_array_equal(run(p, isa, arrays), reference.oracle(p, arrays.x, arrays.w)[0])


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("p", [p for p in CASES if p.activation is None], ids=str)
def test_any_strides(p, isa):
    p = dataclasses.replace(p, residual=True)
    any_strides(p, isa, random_arrays(p, np.random.default_rng(3)), run)


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("p", CASES, ids=str)
def test_same_bits_for_any_number_of_threads_and_images(p, isa):
    arrays = random_arrays(p, np.random.default_rng(4))
    alone = run(p, isa, arrays, 1)
    assert all(np.array_equal(run(p, isa, arrays, threads), alone) for threads in (2, 3, 7))
    image = run(dataclasses.replace(p, batch=1), isa, arrays._replace(x=arrays.x[-1:]))
    np.testing.assert_array_equal(image, alone[-1:])


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("p", CASES, ids=str)
def test_the_result_is_its_own_residual(p, isa):
    """Vectors that overlap would add it twice."""
    p = dataclasses.replace(p, residual=True)
    arrays = random_arrays(p, np.random.default_rng(6))
    expected, out = run(p, isa, arrays), arrays.residual.copy()
    np.testing.assert_array_equal(run(p, isa, arrays._replace(residual=out), out=out), expected)


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("p", CASES, ids=str)
def test_nothing_beside_the_result_is_written(p, isa):
    p = dataclasses.replace(p, activation=None)
    arrays = integer_arrays(p, np.random.default_rng(7))
    expected, _ = reference.oracle(p, arrays.x, arrays.w, arrays.b)
    memory = np.full(expected.size + 128, -7, p.dtype)
    np.testing.assert_array_equal(run(p, isa, arrays, 1, memory[64:-64].reshape(p.result_shape)), expected)
    assert (memory[:64] == -7).all() and (memory[-64:] == -7).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("width", [6, 50])
def test_what_is_not_finite_reaches_what_has_read_it(width, isa, value):
    """Not the zeros around a gradient, nor other channels, which keep their bits."""
    p = gradient(21, (5, width), (3, 3), stride=2, bias=False, batch=2)
    arrays = integer_arrays(p, np.random.default_rng(5))
    sound = run(p, isa, arrays)
    for of, at in (("x", (1, 2, 1, 2)), ("x", (0, 20, 0, 0)), ("w", (3, 0, 0, 0)), ("w", (20, 0, 1, 2))):
        spoiled = getattr(arrays, of).copy()
        spoiled[at] = value
        given = arrays._replace(**{of: spoiled})
        with np.errstate(invalid="ignore"):
            expected, _ = reference.oracle(p, given.x, given.w)
        assert not np.isfinite(expected).all()
        found = run(p, isa, given)
        np.testing.assert_array_equal(found, expected)
        others = np.arange(21) != (at[1] if of == "x" else at[0])
        np.testing.assert_array_equal(found[:, others], sound[:, others])


def test_what_it_does_not_compute_is_refused():
    for p, reason in ((problem((2, 2), (8, 8), (3, 3), groups=2), "computes the gradient of the input only"),
                      (gradient(2, (8, 8), (3, 3), padding_mode="reflect"), "padded with zeros only"),
                      (gradient(2, (8, 8), (3, 3), accuracy="strict"), "accuracy='strict' rounds products first"),
                      (gradient(2, (80, 80), (3, 3)), "planes of few pixels, and others with a stride of 2"),
                      (problem((2, 4), (8, 8), (3, 3), groups=2, direction="backward_input"), "one output channel per group")):
        with pytest.raises(fastconv.Unsupported, match=reason):
            plan.plan(p, "cython", "depthwise_input")


def test_a_transposed_convolution_takes_it_too():
    rng = np.random.default_rng(8)
    for size in (5, 40):
        x, w, b = (rng.standard_normal(shape, np.float32) for shape in ((2, 24, size, size), (24, 1, 4, 4), (24,)))
        arguments = dict(stride=2, padding=1, groups=24, activation="relu")
        made = fastconv.conv_transpose2d(x, w, b, algorithm="depthwise_input", backend="cython", **arguments)
        expected = fastconv.conv_transpose2d(*(a.astype(np.float64) for a in (x, w, b)), backend="naive", **arguments)
        np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4)


def test_it_is_chosen_for_strides_of_two_and_small_planes():
    for p in (gradient(96, (48, 48), (3, 3), stride=2, bias=False), gradient(144, (24, 24), (3, 3), stride=2, bias=False),
              gradient(576, (6, 6), (3, 3), stride=2, bias=False), gradient(240, (28, 28), (5, 5), stride=2, bias=False),
              gradient(960, (3, 3), (3, 3), bias=False), gradient(1, (1024, 1024), (3, 3), stride=2, bias=False)):
        assert plan.plan(p, "cython").algorithm == "depthwise_input", p.text
    for p in (gradient(32, (48, 48), (3, 3), bias=False), gradient(144, (24, 24), (3, 3), bias=False)):
        assert plan.plan(p, "cython").algorithm != "depthwise_input", p.text
