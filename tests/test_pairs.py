"""The pairs algorithm: gradients of the weight of few pixels, in every layout of operands and result; what lies in the padding;
which inputs it keeps; when it is chosen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from native_cases import any_strides, integers_exactly_and_random_data_within_bounds, runner
from problems import problem
from test_outer import weight

import fastconv
from fastconv import plan
from fastconv.algorithms import pairs
from fastconv.backends import cython_native
from fastconv.problem import PADDING_MODES
from fastconv.verify.data import integer_arrays, random_arrays

ISAS = cython_native.runnable_isas()
run, run_outer = runner("pairs"), runner("outer")
CASES = [
    weight((1, 1), (1,), (1,)),
    weight((3, 5), (1, 1), (3, 3)),  # of one pixel, and eight taps in the padding
    weight((64, 48), (2, 2), (3, 3), batch=8),
    weight((70, 33), (4, 3), (3, 3), batch=3),  # several ranges of input channels, the last one shorter
    weight((48, 64), (4, 4), (3, 3), stride=2, batch=5),
    weight((160, 96), (3, 3), (1, 1), padding=0, batch=8),  # input channels on the vectors
    weight((37, 130), (3, 3), (1, 1), padding=0, batch=2),  # the last vector not full; several ranges of output channels
    weight((3, 130), (6, 5), (1, 1), padding=0, batch=2),  # few input channels: output channels on the vectors
    weight((32, 24), (13, 9), (1, 1), stride=2, padding=0, batch=2),  # every other input is left out
    weight((20, 9), (17, 16), (2, 2), stride=5, padding=1),  # kept: two of five
    weight((20, 9), (4, 19), (1, 2), stride=(2, 7), padding=(0, 3), dilation=(1, 3)),
    weight((40, 40), (12, 12), (1, 1), padding=0, batch=7),  # sums wait for further pairs
    weight((12, 17), (11, 13), (5, 4), padding=((3, 0), (1, 4)), batch=4),
    weight((4, 6), (9, 10), (3, 2), dilation=(2, 3), padding=(5, 2)),
    weight((17, 7), (3, 4, 5), (3, 2, 3), stride=(1, 2, 1), padding=1, batch=3),
    weight((33, 18), (23,), (5,), padding=7, batch=3),
    weight((24, 36), (5, 6), (3, 3), groups=3, batch=2),
    weight((80, 60), (3, 3), (1, 1), padding=0, groups=4, batch=2),
    weight((8, 8), (9, 5), (3, 3), groups=2, stride=3),
    *(weight((5, 18), (4, 5), (3, 2), dilation=2, padding=2, padding_mode=mode, batch=2) for mode in PADDING_MODES),
    *(weight((19, 6), (5, 6), (1, 1), stride=3, padding=2, padding_mode=mode) for mode in PADDING_MODES),
]


@pytest.mark.parametrize(("dtype", "layout"), [("float32", "channels_first"), ("float64", "channels_last")])
@pytest.mark.parametrize("p", CASES, ids=str)
def test_integers_exactly_and_random_data_within_bounds(p, dtype, layout):
    p = dataclasses.replace(p, dtype=dtype, layout=layout)
    integers_exactly_and_random_data_within_bounds(p, "pairs", run)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", CASES[::2], ids=str)
def test_any_strides(p, isa):
    any_strides(p, isa, integer_arrays(p, np.random.default_rng(3)), run)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", CASES[2::3], ids=str)
def test_same_bits_wherever_the_result_lies_and_for_any_number_of_threads(p, isa):
    """Lines begin elsewhere in it, and its vectors may be the other operand's."""
    arrays = random_arrays(p, np.random.default_rng(4))
    alone = run(p, isa, arrays, 1)
    assert all(np.array_equal(run(p, isa, arrays, threads), alone) for threads in (2, 3, 7))
    for apart in range(0, 64 // alone.itemsize, 3):
        memory = np.full(alone.size + 64, np.nan, p.dtype)
        run(p, isa, arrays, out=memory[apart:apart + alone.size].reshape(alone.shape))
        np.testing.assert_array_equal(memory[apart:apart + alone.size], alone.ravel())
        assert np.isnan(memory[:apart]).all() and np.isnan(memory[apart + alone.size:]).all()
    turned = run(p, isa, arrays, out=np.full(alone.T.shape, np.nan, p.dtype).T)
    np.testing.assert_array_equal(turned, alone)


@pytest.mark.parametrize("isa", ISAS)
def test_a_result_past_the_caches(isa):
    """Larger than what is kept in them, its lines at the beginning of vectors and not."""
    p = weight((310, 300), (2, 3), (3, 3), batch=2)
    arrays = integer_arrays(p, np.random.default_rng(5))
    expected = run_outer(p, isa, arrays)
    assert expected.nbytes > 3 << 20
    for apart in (0, 3, 16):
        memory = np.full(expected.size + 16, np.nan, p.dtype)
        made = memory[apart:apart + expected.size].reshape(expected.shape)
        np.testing.assert_array_equal(run(p, isa, arrays, out=made), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [CASES[2], CASES[4], CASES[10], CASES[12], CASES[15], CASES[16]], ids=str)
def test_what_is_not_finite_is_as_outer_has_it(p, isa):
    """In the padding too: an infinite gradient times a zero that no list has while all is finite."""
    for of, value in ((0, np.nan), (0, -np.inf), (1, np.inf), (1, np.nan)):
        for place in (0, -1):
            arrays = integer_arrays(p, np.random.default_rng(6))
            arrays[of][(place,) * arrays[of].ndim] = value
            expected = run_outer(p, isa, arrays)
            assert np.isfinite(expected).any() and (of == 0 or not np.isfinite(expected).all())
            np.testing.assert_array_equal(run(p, isa, arrays), expected)


def test_no_images_no_gradient():
    x, gradient = np.zeros((0, 4, 3, 3), np.float32), np.zeros((0, 6, 3, 3), np.float32)
    made = fastconv.conv2d_weight(x, (6, 4, 3, 3), gradient, padding=1, backend="cython", algorithm="pairs")
    np.testing.assert_array_equal(made, np.zeros((6, 4, 3, 3)))


@pytest.mark.parametrize(("p", "reason"), [
    (problem((4, 4), (3, 3), (3, 3), bias=False), "computes the gradient of the weight only"),
    (problem((4, 4), (3, 3), (3, 3), bias=False, direction="backward_input"), "computes the gradient of the weight only"),
    (weight((4, 4), (256, 256), (1, 1), padding=0, batch=2), "of few pixels and taps only"),
    (weight((4, 4), (100, 100), (3, 3)), "of few pixels and taps only"),
    (weight((36, 36), (3, 3), (3, 3), groups=12), "not of groups of so few"),
], ids=str)
def test_reasons_of_refusal(p, reason):
    with pytest.raises(fastconv.Unsupported, match=reason):
        plan.plan(p, "cython", "pairs")


def test_it_is_chosen_where_pixels_are_few_and_channels_many():
    for p in (weight((512, 512), (2, 2), (3, 3), batch=8), weight((256, 512), (4, 4), (3, 3), stride=2, batch=8),
              weight((256, 512), (4, 4), (1, 1), stride=2, padding=0, batch=8),
              weight((960, 320), (3, 3), (1, 1), padding=0, batch=8)):
        assert plan.plan(p, "cython").algorithm == "pairs", p.text
    for p in (weight((256, 256), (14, 14), (3, 3), batch=8), weight((3, 32), (96, 96), (3, 3), stride=2, batch=8),
              weight((64, 256), (56, 56), (1, 1), padding=0, batch=8)):
        assert plan.plan(p, "cython").algorithm != "pairs", p.text


@pytest.mark.parametrize("p", CASES, ids=str)
def test_its_cost_counts_the_pairs_outside_the_padding(p):
    """One by one."""
    for axis in range(p.ndim):
        reads = [output * p.stride[axis] + tap * p.dilation[axis] - p.padding[axis][0]
                 for output in range(p.output_size[axis]) for tap in range(p.kernel_size[axis])]
        inside = [0 <= i < p.input_size[axis] or p.padding_mode != "zeros" for i in reads]
        assert pairs._inside(p, axis) == sum(inside)
