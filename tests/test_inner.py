"""The inner algorithm: gradients of the weight of few channels, in every layout of operands and result; boxes cut along both
axes; its order of sums; when it is chosen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from native_cases import any_strides, integers_exactly_and_random_data_within_bounds, runner
from problems import problem
from test_outer import weight

import fastconv
from fastconv import plan
from fastconv.backends import cython_native
from fastconv.problem import PADDING_MODES
from fastconv.verify.data import Arrays, integer_arrays, random_arrays

ISAS = cython_native.runnable_isas()
run, run_outer = runner("inner"), runner("outer")
CASES = [
    weight((1, 1), (1,), (1,)),
    weight((1, 6), (32, 32), (5, 5), padding=0, batch=5),  # dy where it lies; an output channel of each register
    weight((3, 16), (31, 37), (3, 3), stride=2, batch=2),  # three blocks of output channels; rows by phases
    weight((2, 7), (90, 41), (3, 5), padding=(0, 3)),  # several boxes, the last one as high or less
    weight((3, 2), (2500,), (3,), batch=2),  # rows longer than a box
    weight((2, 3), (1500,), (9,), stride=3, dilation=2, padding=4),
    weight((200, 1), (5, 1300), (1, 3), padding=(0, 1)),  # narrow boxes, as the channels are many
    weight((4, 6), (30, 31), (3, 2), dilation=(2, 3)),
    weight((3, 8), (50, 55), (11, 11), stride=4, padding=2),
    weight((2, 5), (20, 21), (2, 2), stride=5, padding=1),  # phases of rows that no tap reads
    weight((2, 3), (6, 7, 8), (3, 2, 3), stride=(1, 2, 1), padding=1, batch=2),
    weight((1, 4), (9, 10), (3, 3), padding=((5, 0), (4, 6))),  # rows of padding alone
    weight((12, 9), (9, 10), (3, 3), groups=3, batch=2),
    weight((8, 8), (11, 9), (3, 3), groups=8, batch=9),
    *(weight((2, 5), (8, 9), (3, 2), dilation=2, padding=2, padding_mode=mode) for mode in PADDING_MODES),
]


@pytest.mark.parametrize(("dtype", "layout"), [("float32", "channels_first"), ("float64", "channels_last")])
@pytest.mark.parametrize("p", CASES, ids=str)
def test_integers_exactly_and_random_data_within_bounds(p, dtype, layout):
    p = dataclasses.replace(p, dtype=dtype, layout=layout)
    integers_exactly_and_random_data_within_bounds(p, "inner", run)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", CASES[::2], ids=str)
def test_any_strides(p, isa):
    any_strides(p, isa, integer_arrays(p, np.random.default_rng(3)), run)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", CASES[1::3], ids=str)
def test_same_bits_for_any_number_of_threads(p, isa):
    arrays = random_arrays(p, np.random.default_rng(4))
    alone = run(p, isa, arrays, 1)
    assert all(np.array_equal(run(p, isa, arrays, threads), alone) for threads in (2, 3, 7))


@pytest.mark.parametrize("batch", [1, 2, 3, 16, 37])
def test_no_slice_is_lost(batch):
    p = weight((2, 3), (40, 41), (2, 2), padding=0, batch=batch)
    ones = Arrays(np.ones(p.input_shape, np.float32), np.ones(p.output_shape, np.float32), None, None)
    for isa in ISAS:
        np.testing.assert_array_equal(run(p, isa, ones), np.full(p.weight_shape, 39 * 40 * batch, np.float32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [CASES[1], CASES[2], CASES[9], CASES[12]], ids=str)
def test_what_is_not_finite_is_as_outer_has_it(p, isa):
    """At the ends of rows, beside which the slab has those of other rows."""
    for of, value in ((0, np.nan), (0, -np.inf), (1, np.inf), (1, np.nan)):
        for place in (0, -1):
            arrays = integer_arrays(p, np.random.default_rng(6))
            arrays[of][(place,) * arrays[of].ndim] = value
            expected = run_outer(p, isa, arrays)
            assert np.isfinite(expected).any()
            np.testing.assert_array_equal(run(p, isa, arrays), expected)


@pytest.mark.parametrize(("p", "reason"), [
    (problem((4, 4), (3, 3), (3, 3), bias=False), "computes the gradient of the weight only"),
    (problem((4, 4), (3, 3), (3, 3), bias=False, direction="backward_input"), "computes the gradient of the weight only"),
    (weight((64, 65), (9, 9), (1, 1)), "of few weights only"),
], ids=str)
def test_reasons_of_refusal(p, reason):
    with pytest.raises(fastconv.Unsupported, match=reason):
        plan.plan(p, "cython", "inner")


def test_it_is_chosen_where_channels_are_few_and_pixels_many():
    for p in (weight((1, 6), (32, 32), (5, 5), padding=0, batch=8), weight((3, 4), (224, 224), (3, 3), batch=8),
              weight((32, 1), (64, 64), (3, 3), batch=8)):
        assert plan.plan(p, "cython").algorithm == "inner", p.text
    for p in (weight((6, 16), (14, 14), (5, 5), padding=0, batch=8), weight((64, 64), (14, 14), (1, 1), padding=0, batch=8),
              weight((3, 32), (224, 224), (3, 3), stride=2, batch=8), weight((32, 32), (56, 56), (3, 3), groups=32, batch=8)):
        assert plan.plan(p, "cython").algorithm != "inner", p.text
