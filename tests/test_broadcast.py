"""The broadcast algorithm: every shape of its tile, panels, slabs and what is read where it lies; the same bits whatever batch
and threads; when it is chosen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from native_cases import (
    any_strides,
    integers_exactly_and_random_data_within_bounds,
    isas_and_numba,
    runner,
    stays_inside,
    verify,
)
from problems import problem

from fastconv import plan
from fastconv.backends import cython_native
from fastconv.problem import ConvProblem
from fastconv.verify.data import Arrays, integer_arrays, random_arrays

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)

ISAS = isas_and_numba()
run = runner("broadcast")
CASES = [
    problem((1, 1), (1,), (1,)),
    problem((3, 5), (1, 1), (3, 3), batch=3),  # one pixel
    problem((3, 64), (29, 31), (3, 3)),  # a stem: one panel, the slab is a copy of whole rows
    problem((3, 20), (31, 29), (7, 7), stride=2, padding=3, activation="relu6"),
    problem((5, 147), (11, 13), (1, 1), padding=0),  # several panels, the last vector not whole
    problem((48, 30), (16, 16), (4, 4), stride=4, padding=0),  # patches, where they lie
    problem((256, 9), (9, 5), (3, 3), activation="silu"),  # channels of a slab apart: no 1024 bytes from pixel to pixel
    problem((6, 33), (9, 8), (3, 2), dilation=(2, 3)),
    problem((4, 17), (14, 14), (3, 3), padding=12, dilation=11),  # regions of fewer taps
    problem((12, 36), (10, 11), (3, 3), groups=3),
    problem((9, 23), (7, 6), (3, 3), padding_mode="reflect", padding=2),
    problem((7, 40), (300,), (9,), stride=2, batch=2),
    problem((5, 6), (6, 7, 8), (3, 2, 3), stride=(1, 2, 1), padding=1, batch=2, activation=("leaky_relu", 0.1)),
    problem((33, 65), (7, 7), (1, 1), batch=9),  # images that share a box
    problem((2, 3), (17, 700), (1, 3)),  # several boxes along a row
]


@pytest.mark.parametrize(("dtype", "layout", "residual"), [
    ("float32", "channels_first", True), ("float64", "channels_last", True), ("float32", "channels_last", False)])
@pytest.mark.parametrize("p", CASES, ids=str)
def test_integers_exactly_and_random_data_within_bounds(p, dtype, layout, residual):
    p = dataclasses.replace(p, dtype=dtype, layout=layout, residual=residual)
    integers_exactly_and_random_data_within_bounds(p, "broadcast", run)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", range(1, 150, 7))
def test_every_number_of_vectors_and_pixels(channels, isa):
    for pixels in (1, 2, 3, 5, 6, 7, 9, 11, 12, 13, 25):
        verify(problem((3, channels), (pixels,), (3,), layout="channels_last"), "broadcast", isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [p for p in CASES if p.activation is None][::2], ids=str)
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
    for p in (problem((3, 20), (14, 15), (3, 3), layout="channels_last"),
              problem((4, 17), (14, 14), (3, 3), padding=12, dilation=11, layout="channels_last")):
        stays_inside(p, "broadcast", isa, value)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [3, 37])
def test_nothing_beyond_an_array_is_read(channels, isa, guarded):
    for kernel in (1, 3):
        p = problem((3, channels), (9, 11), (kernel, kernel), layout="channels_last", padding=0)
        arrays = integer_arrays(p, np.random.default_rng(5))
        expected = run(p, isa, arrays)
        x, w, b = map(guarded.copy, arrays[:3])
        np.testing.assert_array_equal(run(p, isa, Arrays(x, w, b, None)), expected)


def test_it_is_chosen_for_few_products_and_channels_side_by_side():
    def chosen(p: ConvProblem) -> str:
        return plan.plan(dataclasses.replace(p, layout="channels_last"), "cython", prepared=True).algorithm

    for p in (problem((3, 16), (160, 160), (3, 3)), problem((3, 96), (224, 224), (4, 4), stride=4, padding=0),
              problem((32, 36), (41, 41), (1, 1)), problem((64, 256), (56, 56), (1, 1))):
        assert chosen(p) == "broadcast", p.text
    for p in (problem((64, 64), (56, 56), (3, 3)), problem((256, 256), (14, 14), (3, 3))):
        assert chosen(p) != "broadcast", p.text
