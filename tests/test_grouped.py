"""The grouped algorithm: groups of few channels that share a vector, or do not fill one, or do not fit into one; the same bits
whatever batch and threads; when it is chosen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from native_cases import any_strides, integers_exactly_and_random_data_within_bounds, runner, stays_inside, verify
from problems import problem

from fastconv import plan, settings
from fastconv.backends import cython_native
from fastconv.problem import ConvProblem
from fastconv.verify.data import Arrays, integer_arrays, random_arrays

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)

ISAS = cython_native.runnable_isas()
run = runner("grouped")
CASES = [
    problem((4, 4), (1,), (1,), groups=2),
    problem((64, 64), (1, 1), (3, 3), groups=16, batch=3),  # one pixel
    problem((128, 128), (9, 11), (3, 3), groups=32),
    problem((32, 32), (12, 13), (3, 3), groups=16, stride=2, activation="relu6"),
    problem((56, 56), (7, 5), (3, 3), groups=7),  # a prime number of groups
    problem((15, 25), (7, 9), (3, 3), groups=5, activation="silu"),  # ragged
    problem((30, 12), (8, 9), (5, 3), groups=6, stride=(2, 1)),  # more inputs than outputs
    problem((16, 192), (8, 9), (3, 3), groups=16, padding=(2, 1), stride=(1, 2)),  # outputs of parts of two groups
    problem((12, 60), (8, 9), (1, 1), groups=4, padding=0),
    problem((64, 64), (6, 7), (3, 3), groups=8, dilation=2),
    problem((24, 48), (14, 14), (3, 3), groups=3, padding=12, dilation=11),  # regions of fewer taps
    problem((18, 18), (7, 6), (3, 3), groups=6, padding_mode="reflect", padding=2),
    problem((48, 48), (300,), (9,), groups=8, stride=2, batch=2),
    problem((8, 8), (6, 7, 8), (3, 2, 3), groups=2, stride=(1, 2, 1), padding=1, batch=2, activation=("leaky_relu", 0.1)),
    problem((8, 8), (17, 700), (1, 3), groups=4),  # several boxes along a row
]


@pytest.mark.parametrize(("dtype", "layout", "residual"), [
    ("float32", "channels_first", True), ("float64", "channels_last", True), ("float32", "channels_last", False)])
@pytest.mark.parametrize("p", CASES, ids=str)
def test_integers_exactly_and_random_data_within_bounds(p, dtype, layout, residual):
    p = dataclasses.replace(p, dtype=dtype, layout=layout, residual=residual)
    integers_exactly_and_random_data_within_bounds(p, "grouped", run)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("outputs", [1, 2, 3, 5, 8, 11, 16])
@pytest.mark.parametrize("inputs", range(1, 9))
def test_every_number_of_channels_and_pixels(inputs, outputs, isa):
    if inputs == outputs == 1:
        return
    for groups in (2, 3, 4, 16):
        for pixels in (1, 6, 7, 13):
            p = problem((groups * inputs, groups * outputs), (pixels,), (3,), groups=groups, layout="channels_last")
            verify(p, "grouped", isa)
        verify(dataclasses.replace(p, dtype="float64"), "grouped", isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [p for p in CASES if p.activation is None], ids=str)
def test_any_strides(p, isa):
    p = dataclasses.replace(p, residual=True)
    any_strides(p, isa, integer_arrays(p, np.random.default_rng(3)), run)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("p", CASES, ids=str)
def test_same_bits_for_any_number_of_threads_and_images(p, layout, isa):
    p = dataclasses.replace(p, layout=layout)
    arrays = random_arrays(p, np.random.default_rng(4))
    alone = run(p, isa, arrays, 1)
    assert all(np.array_equal(run(p, isa, arrays, threads), alone) for threads in (2, 3, 7))
    image = run(dataclasses.replace(p, batch=1), isa, arrays._replace(x=arrays.x[-1:]))
    np.testing.assert_array_equal(image, alone[-1:])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("isa", ISAS)
def test_what_is_not_finite_stays_where_it_is_seen(value, isa):
    """In its group, too."""
    for p in (problem((32, 32), (14, 15), (3, 3), groups=8, layout="channels_last"),
              problem((12, 20), (14, 14), (3, 3), groups=4, padding=12, dilation=11, layout="channels_last")):
        stays_inside(p, "grouped", isa, value)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [2, 3, 4, 8])
def test_nothing_beyond_an_array_is_read(channels, isa, guarded):
    for kernel in (1, 3):
        p = problem((3 * channels, 3 * channels), (9, 11), (kernel, kernel), groups=3, layout="channels_last", padding=0)
        arrays = integer_arrays(p, np.random.default_rng(5))
        expected = run(p, isa, arrays)
        x, w, b = map(guarded.copy, arrays[:3])
        np.testing.assert_array_equal(run(p, isa, Arrays(x, w, b, None)), expected)


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != "baseline"])
def test_it_is_chosen_for_groups_of_few_channels_side_by_side(isa):
    def chosen(p: ConvProblem) -> str:
        with settings.config(isa=isa):
            return plan.plan(p, "cython", prepared=True).algorithm

    for channels in (64, 128):
        p = problem((channels, channels), (28, 28), (3, 3), groups=32, layout="channels_last")
        assert chosen(p) == "grouped", p.text
    p = problem((64, 128), (56, 56), (3, 3), groups=64, layout="channels_last")
    assert chosen(p) == "grouped", p.text
    for p in (problem((128, 128), (56, 56), (3, 3), groups=32), problem((64, 64), (28, 28), (3, 3), layout="channels_last")):
        assert chosen(p) != "grouped", p.text
