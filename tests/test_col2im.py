"""The col2im algorithm: gradients of the input, in every layout of its operands; chunks, panels, images that share a task; the
same bits for all; when it is chosen, and that it gives way."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from native_cases import any_strides, integers_exactly_and_random_data_within_bounds, runner
from problems import problem
from test_interrupt import Alarms, Enough

import fastconv
from fastconv import plan
from fastconv.backends import Candidate, cython_native
from fastconv.problem import ConvProblem
from fastconv.verify import reference
from fastconv.verify.data import Arrays, integer_arrays, random_arrays

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)

run = runner("col2im")

def gradient(*arguments, bias: bool = True, **keywords) -> ConvProblem:
    return problem(*arguments, bias=bias, direction="backward_input", **keywords)


CASES = [
    gradient((1, 1), (1,), (1,)),
    gradient((5, 7), (9, 10), (3, 3), batch=3),
    gradient((130, 40), (4, 4), (4, 4), padding=0),  # one pixel: wide panels, the last of them narrower
    gradient((37, 9), (4, 4), (4, 4), padding=0, batch=70),  # pixels of several images, and of several tasks
    gradient((19, 33), (7, 7), (3, 3), stride=2, batch=11),
    gradient((70, 17), (14, 13), (3, 3)),  # several blocks of channels, the last one shorter
    gradient((3, 300), (24, 41), (2, 3)),  # several chunks of pixels
    gradient((2, 40), (500,), (5,), stride=3, batch=2),
    gradient((300, 40), (5, 6), (1, 1), batch=2, padding=0),
    gradient((32, 40), (37, 41), (1, 1), stride=2, padding=0),
    gradient((4, 6), (30, 31), (3, 2), dilation=(2, 3)),
    gradient((3, 8), (70, 75), (11, 11), stride=4, padding=2),
    gradient((8, 8), (13,), (2,), stride=5, padding=0),  # input that no window reads
    gradient((2, 3), (6, 7, 8), (3, 2, 3), stride=(1, 2, 1), padding=1, batch=2),
    gradient((16, 16), (12, 20), (3, 3), groups=16, batch=2),
    gradient((18, 36), (13, 14), (3, 3), groups=3, activation="relu"),
    gradient((33, 11), (8, 9, 7), (2, 3, 2), groups=11, padding=1, activation="silu"),
    gradient((40, 80), (9, 9), (3, 3), groups=2, activation=("leaky_relu", 0.1)),
    # several images of few pixels, whose pairs with taps in the padding are left out
    gradient((500, 20), (2, 2), (3, 3), batch=8), gradient((256, 150), (2, 2), (3, 3), batch=17, activation="relu"),
    gradient((256, 9), (4, 4), (3, 3), stride=2, batch=15, bias=False), gradient((512, 130), (3,), (5,), padding=2, batch=6),
    gradient((256, 20), (2, 1, 2), (3, 2, 3), padding=1, batch=4),
    gradient((512, 8), (4, 3), (3, 3), dilation=2, padding=2, groups=2, batch=9),
]


@pytest.mark.parametrize(("dtype", "layout", "residual"), [
    ("float32", "channels_first", False), ("float64", "channels_last", True), ("float32", "channels_last", False)])
@pytest.mark.parametrize("p", CASES, ids=str)
def test_integers_exactly_and_random_data_within_bounds(p, dtype, layout, residual):
    p = dataclasses.replace(p, dtype=dtype, layout=layout, residual=residual)
    integers_exactly_and_random_data_within_bounds(p, "col2im", run)


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("p", [p for p in CASES if p.activation is None][::2], ids=str)
def test_any_strides(p, isa):
    p = dataclasses.replace(p, residual=True)
    any_strides(p, isa, integer_arrays(p, np.random.default_rng(3)), run)


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("p", CASES, ids=str)
def test_same_bits_for_any_number_of_threads_and_images(p, isa):
    arrays = random_arrays(p, np.random.default_rng(4))
    alone = run(p, isa, arrays, 1)
    assert all(np.array_equal(run(p, isa, arrays, threads), alone) for threads in (2, 3, 7))
    image = run(dataclasses.replace(p, batch=1), isa, arrays._replace(x=arrays.x[-1:]))
    np.testing.assert_array_equal(image, alone[-1:])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("p", [gradient((5, 4), (9, 11), (3, 3), stride=2, bias=False, batch=2),
                               gradient((256, 4), (4, 3), (3, 3), padding=2, dilation=2, bias=False, batch=5)], ids=str)
def test_what_is_not_finite_reaches_what_has_read_it(p, isa, value):
    arrays = integer_arrays(p, np.random.default_rng(5))
    for of in ("x", "w"):
        spoiled = getattr(arrays, of).copy()
        spoiled[1, 2, 1, 2] = value
        given = arrays._replace(**{of: spoiled})
        with np.errstate(invalid="ignore"):
            expected, _ = reference.oracle(p, given.x, given.w)
        assert not np.isfinite(expected).all()
        np.testing.assert_array_equal(run(p, isa, given), expected)


def test_what_it_does_not_compute_is_refused():
    for p, reason in ((problem((2, 2), (8, 8), (3, 3)), "computes the gradient of the input only"),
                      (gradient((2, 2), (8, 8), (3, 3), padding_mode="reflect"), "padded with zeros only"),
                      (gradient((2, 2), (8, 8), (3, 3), accuracy="strict"), "the same bits with weights packed beforehand")):
        with pytest.raises(fastconv.Unsupported, match=reason):
            plan.plan(p, "cython", "col2im")


def test_arrays_that_do_not_fit_are_refused():
    p = gradient((3, 2), (6, 6), (3, 3), residual=True)
    kernel = cython_native.backend.bind(p, Candidate("col2im", cython_native.runnable_isas()[0])).native
    g, w, b, y = (np.zeros(shape, np.float32) for shape in (p.first_shape, p.second_shape, (3,), p.result_shape))
    kernel.run_input(g, w, b, y, y.copy())
    for arguments, name in (((g[:, :1], w, b, y, y), "gradient"), ((g, w[..., ::-1], b, y, y), "weight"),
                            ((g, w[:1], b, y, y), "weight"), ((g, w, b[:2], y, y), "bias"), ((g, w, None, y, y), "bias"),
                            ((g, w, b, y[..., 1:], y), "out"), ((g, w, b, y, y[:, 1:]), "residual"),
                            ((g, w, b, y, None), "residual"), ((g, w.astype(np.float64), b, y, y), "weight")):
        with pytest.raises(ValueError, match=name):
            kernel.run_input(*arguments)


def test_it_is_chosen_where_weights_are_many_and_pixels_few():
    for p in (gradient((1024, 100), (4, 4), (4, 4), padding=0), gradient((512, 1024), (8, 8), (4, 4), stride=2),
              gradient((512, 1024), (16, 16), (4, 4), stride=2), gradient((4096, 64), (6, 6), (6, 6), padding=0)):
        chosen = plan.plan(p, "cython")
        assert chosen.algorithm == "col2im" and chosen.packed_bytes == 0, p.text
    for p in (gradient((64, 64), (112, 112), (3, 3)), gradient((256, 256), (28, 28), (3, 3)),
              gradient((96, 96), (56, 56), (7, 7), groups=96)):
        assert plan.plan(p, "cython").algorithm != "col2im", p.text


def test_a_handler_that_raises_ends_the_call():
    def handler() -> None:
        raise Enough

    isa = cython_native.runnable_isas()[0]

    def ends_early(batch: int) -> bool:
        p = gradient((64, 256), (64, 64), (3, 3), batch=batch, bias=False)
        arrays = Arrays(np.broadcast_to(np.float32(1), p.first_shape), np.ones(p.second_shape, np.float32), None, None)
        try:
            with Alarms(handler):
                run(p, isa, arrays)
        except Enough:
            one = dataclasses.replace(p, batch=1)
            return bool(np.isfinite(run(one, isa, arrays._replace(x=arrays.x[:1]))).all())
        return False

    assert any(ends_early(2**n) for n in range(2, 9))
