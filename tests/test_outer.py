"""The outer algorithm: gradients of the weight, in every layout of its operands and of the sums; its order of sums; when it is
chosen, and that it gives way."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from native_cases import any_strides, integers_exactly_and_random_data_within_bounds, runner
from problems import problem
from test_interrupt import Alarms, Enough

import fastconv
from fastconv import plan
from fastconv.backends import cython_native
from fastconv.problem import PADDING_MODES, ConvProblem
from fastconv.verify.data import Arrays, integer_arrays, random_arrays

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)

run = runner("outer")

def weight(*arguments, **keywords) -> ConvProblem:
    return problem(*arguments, bias=False, direction="backward_weight", **keywords)


CASES = [
    weight((1, 1), (1,), (1,)),
    weight((5, 7), (9, 10), (3, 3), batch=3),  # fewer channels than a vector has lanes
    weight((64, 48), (12, 11), (3, 3), batch=2),  # channels of the input by vectors; an odd vector of output channels
    weight((70, 33), (14, 13), (3, 3)),  # two chunks of input channels, the last one shorter
    weight((300, 40), (5, 6), (1, 1), batch=2),
    weight((3, 600), (6, 5), (2, 3)),  # several chunks of output channels
    weight((17, 9), (40, 41), (3, 3), stride=2, batch=2),
    weight((32, 40), (37, 41), (1, 1), stride=2, padding=0),  # every other element of a row
    weight((16, 8), (31, 37), (1, 1), stride=3, padding=0),
    weight((4, 6), (30, 31), (3, 2), dilation=(2, 3)),
    weight((3, 8), (70, 75), (11, 11), stride=4, padding=2),
    weight((2, 3), (6, 7, 8), (3, 2, 3), stride=(1, 2, 1), padding=1, batch=2),
    weight((6, 4), (700,), (5,), batch=2),
    weight((16, 16), (12, 40), (3, 3), groups=16, batch=9),  # lane by lane
    weight((20, 20), (19, 20), (5, 5), groups=20, stride=2),
    weight((24, 24), (30, 31), (7, 7), groups=24),
    weight((18, 36), (13, 14), (3, 3), groups=18),  # two outputs of each input
    weight((64, 64), (9, 10), (3, 3), groups=16, batch=2),  # four of each, as ResNeXt
    weight((36, 12), (9, 10), (3, 1), groups=12, dilation=2),
    weight((33, 11), (8, 9, 7), (2, 3, 2), groups=11, padding=1),
    weight((40, 80), (9, 9), (3, 3), groups=2),  # groups of more channels than a vector has lanes
    *(weight((4, 18), (8, 9), (3, 2), dilation=2, padding=2, padding_mode=mode) for mode in PADDING_MODES),
    *(weight((6, 6), (8, 9), (3, 2), dilation=2, padding=2, padding_mode=mode, groups=6) for mode in PADDING_MODES),
]


@pytest.mark.parametrize(("dtype", "layout"), [("float32", "channels_first"), ("float64", "channels_last")])
@pytest.mark.parametrize("p", CASES, ids=str)
def test_integers_exactly_and_random_data_within_bounds(p, dtype, layout):
    p = dataclasses.replace(p, dtype=dtype, layout=layout)
    integers_exactly_and_random_data_within_bounds(p, "outer", run)


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("p", CASES[::3], ids=str)
def test_any_strides(p, isa):
    any_strides(p, isa, integer_arrays(p, np.random.default_rng(3)), run)


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("p", CASES[1::4], ids=str)
def test_same_bits_for_any_number_of_threads(p, isa):
    arrays = random_arrays(p, np.random.default_rng(4))
    alone = run(p, isa, arrays, 1)
    assert all(np.array_equal(run(p, isa, arrays, threads), alone) for threads in (2, 3, 7))


def test_sums_do_not_lose_what_slices_hold():
    """Ones over so many pixels that a slice, were it lost or counted twice, is seen."""
    p = weight((2, 2), (64, 64), (1, 1), batch=16)
    ones = Arrays(np.ones(p.input_shape, np.float32), np.ones(p.output_shape, np.float32), None, None)
    for isa in cython_native.runnable_isas():
        np.testing.assert_array_equal(run(p, isa, ones), np.full(p.weight_shape, 64 * 64 * 16, np.float32))


def test_other_directions_are_refused():
    for direction in ("forward", "backward_input"):
        p = problem((2, 2), (8, 8), (3, 3), bias=False, direction=direction)
        with pytest.raises(fastconv.Unsupported, match="computes the gradient of the weight only"):
            plan.plan(p, "cython", "outer")


def test_it_is_chosen_where_nothing_else_is_made_for_it():
    for p in (weight((144, 144), (56, 56), (3, 3), groups=144, batch=8), weight((3, 64), (224, 224), (7, 7), stride=2, batch=8),
              weight((256, 64), (56, 56), (1, 1), batch=8), weight((128, 128), (56, 56), (3, 3), groups=32, batch=8)):
        assert plan.plan(p, "cython").algorithm == "outer", p.text
    for p in (weight((1, 1), (512, 512), (31, 31)), weight((1, 1), (2048,), (1025,))):  # of one plane, a correlation with it
        assert plan.plan(p, "cython").algorithm != "outer", p.text


@pytest.mark.parametrize("algorithm", ["outer", "winograd_weight"])
def test_a_handler_that_raises_ends_the_call(algorithm):
    def handler() -> None:
        raise Enough

    def ends_early(batch: int) -> bool:
        p = weight((32, 32), (96, 96), (3, 3), batch=batch)
        x, gradient = (np.broadcast_to(np.float32(1), shape) for shape in (p.input_shape, p.output_shape))
        arrays = Arrays(x, gradient, None, None)
        try:
            with Alarms(handler):
                runner(algorithm)(p, cython_native.runnable_isas()[0], arrays)
        except Enough:
            pass
        else:
            return False
        return bool(np.isfinite(runner(algorithm)(dataclasses.replace(p, batch=1), cython_native.runnable_isas()[0],
                                                  Arrays(x[:1], gradient[:1], None, None))).all())

    assert any(ends_early(2**n) for n in range(3, 11))
