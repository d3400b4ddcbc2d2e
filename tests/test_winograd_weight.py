"""The winograd_weight algorithm: gradients of the weight in every tile and layout, their errors, their order of sums, what is
not finite, when it is chosen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from native_cases import any_strides, runner
from problems import problem
from test_outer import weight

import fastconv
from fastconv import plan
from fastconv.algorithms import winograd_weight
from fastconv.backends import cython_native
from fastconv.problem import PADDING_MODES
from fastconv.verify import bounds, reference
from fastconv.verify.data import Arrays, integer_arrays, random_arrays

ISAS = cython_native.runnable_isas()
run, run_outer = runner("winograd_weight"), runner("outer")
CASES = [
    weight((1, 1), (10, 10), (3, 3)),
    weight((1, 1), (1, 1), (3, 3)),  # one pixel
    weight((5, 7), (9, 10), (3, 3), batch=3),  # fewer channels than a vector has lanes
    weight((32, 48), (12, 11), (3, 3), batch=2),  # channels by vectors; an odd vector of output channels
    weight((17, 19), (13, 11), (3, 3), padding=0),
    weight((33, 65), (7, 7), (3, 3), batch=2),  # two ranges of input channels
    weight((270, 20), (6, 7), (3, 3)),  # two tasks of input channels
    weight((3, 523), (5, 6), (3, 3), batch=2),  # three of output channels, the last one shorter
    weight((4, 6), (12, 9), (3, 3), padding=((3, 0), (1, 4)), batch=2),
    weight((6, 4), (17, 16), (5, 5), padding=2),
    weight((6, 4), (11, 12), (2, 4), padding=1),
    weight((9, 5), (9, 40), (1, 3), padding=(0, 1)),
    weight((9, 5), (40, 9), (4, 1), padding=(2, 0), batch=2),
    weight((7, 6), (200,), (5,), batch=2),
    weight((3, 5), (4, 9, 8), (1, 3, 3), stride=(2, 1, 1), padding=(1, 1, 0)),  # images at every other depth
    weight((24, 36), (9, 10), (3, 3), groups=3),
    *(weight((4, 18), (8, 9), (3, 2), padding=2, padding_mode=mode) for mode in PADDING_MODES),
]

CHUNKS = weight((5, 7), (301, 350), (3, 3))


@pytest.mark.parametrize(("dtype", "layout"), [("float32", "channels_first"), ("float64", "channels_last")])
@pytest.mark.parametrize("p", CASES, ids=str)
def test_within_bounds_and_integers_to_the_nearest(p, dtype, layout):
    p = dataclasses.replace(p, dtype=dtype, layout=layout)
    rng = np.random.default_rng(1)
    for integers, arrays in ((True, integer_arrays(p, rng)), (False, random_arrays(p, rng))):
        expected, magnitude = reference.oracle(p, arrays.x, arrays.w)
        allowed = bounds.bound(p, "winograd_weight", expected, magnitude, arrays.x, arrays.w)
        for isa in ISAS:
            made = run(p, isa, arrays)
            assert bounds.compare(made, expected, allowed) <= 1, isa
            if integers:
                np.testing.assert_array_equal(np.rint(made), expected, isa)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_several_chunks(dtype):
    """Of rows that are several strips, against outer in float64."""
    exact = dataclasses.replace(CHUNKS, dtype="float64")
    p, wide = dataclasses.replace(CHUNKS, dtype=dtype), random_arrays(exact, np.random.default_rng(6))
    arrays = Arrays(wide.x.astype(dtype), wide.w.astype(dtype), None, None)
    for isa in ISAS:
        seen = Arrays(arrays.x.astype(float), arrays.w.astype(float), None, None)
        expected = run_outer(exact, isa, seen)
        magnitude = run_outer(exact, isa, Arrays(abs(seen.x), abs(seen.w), None, None))
        allowed = bounds.bound(p, "winograd_weight", expected, magnitude, arrays.x, arrays.w)
        made = run(p, isa, arrays)
        assert bounds.compare(made, expected, allowed) <= 1, isa
        np.testing.assert_allclose(made, expected, rtol=0, atol=np.finfo(dtype).eps * 2e5)  # the bound is far away
        for threads in (1, 3):
            np.testing.assert_array_equal(run(p, isa, arrays, threads), made)


@pytest.mark.parametrize("taps", [1, 2, 3, 4, 5])
def test_every_tile(taps):
    """Along both axes: those of `taps` along the first, and of 3 along the second."""
    p = weight((6, 19), (14, 23), (taps, 3), padding=1, accuracy="loose", batch=2)
    arrays = random_arrays(p, np.random.default_rng(2))
    expected, magnitude = reference.oracle(p, arrays.x, arrays.w)
    allowed = bounds.bound(p, "winograd_weight", expected, magnitude, arrays.x, arrays.w)
    choices = winograd_weight.choices(p)
    assert len(choices) == 4 * sum(taps == own for own, _ in winograd_weight.ERROR)
    made = [run(p, isa, arrays, tile=tile) for tile in choices for isa in ISAS]
    assert all(bounds.compare(each, expected, allowed) <= 1 for each in made)
    assert len({each.tobytes() for each in made}) >= len(choices)  # they are not all the same tile


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [(7, 7), (10, 10), (14, 14), (31, 31)])
def test_error_is_at_most_four_times_that_of_outer(size, isa):
    """Of all tiles that are admitted."""
    p = weight((16, 32), size, (3, 3), batch=8)
    exact = dataclasses.replace(p, dtype="float64")
    choices, squares = winograd_weight.choices(p), []
    assert choices != winograd_weight.choices(dataclasses.replace(p, accuracy="loose")) or min(size) > 28
    for seed in range(3):
        arrays = random_arrays(p, np.random.default_rng(seed))
        expected = run_outer(exact, isa, Arrays(arrays.x.astype(float), arrays.w.astype(float), None, None))
        made = [run_outer(p, isa, arrays), *(run(p, isa, arrays, tile=tile) for tile in choices)]
        squares.append([np.mean((each - expected) ** 2) for each in made])
    outer, *rest = np.sqrt(np.mean(squares, axis=0))
    assert max(rest) <= 4 * outer, dict(zip(choices, rest / outer))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", CASES[::3], ids=str)
def test_any_strides(p, isa):
    any_strides(p, isa, random_arrays(p, np.random.default_rng(3)), run)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [CASES[4], CASES[5], CASES[7]], ids=str)
def test_same_bits_for_any_number_of_threads(p, isa):
    arrays = random_arrays(p, np.random.default_rng(4))
    alone = run(p, isa, arrays, 1)
    assert all(np.array_equal(run(p, isa, arrays, threads), alone) for threads in (2, 3, 7))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [CASES[3], CASES[8]], ids=str)
def test_what_is_not_finite_is_as_outer_has_it(p, isa):
    """Beyond the largest number: a transform is, the sum is not."""
    for of, value in ((0, np.nan), (0, np.inf), (1, -np.inf), (1, np.nan), (0, 2e38), (1, 2e38)):
        arrays = random_arrays(p, np.random.default_rng(5))
        spoiled = arrays[of]
        spoiled[-1, 1, 0, -1] = value
        if value == 2e38:
            arrays[1 - of][...] *= 0.01
        made, expected = run(p, isa, arrays), run_outer(p, isa, arrays)
        some = np.isfinite(expected)
        assert some.any() and (some.all() if value == 2e38 else not some.all())
        np.testing.assert_array_equal(made[~some], expected[~some])
        if value != 2e38:
            np.testing.assert_array_equal(made, expected)
        assert np.isfinite(made[some]).all()


def test_no_images_no_gradient():
    x, gradient = np.zeros((0, 4, 9, 9), np.float32), np.zeros((0, 6, 9, 9), np.float32)
    made = fastconv.conv2d_weight(x, (6, 4, 3, 3), gradient, padding=1, backend="cython", algorithm="winograd_weight")
    np.testing.assert_array_equal(made, np.zeros((6, 4, 3, 3)))


@pytest.mark.parametrize(("p", "reason"), [
    (problem((4, 4), (9, 9), (3, 3), bias=False), "computes the gradient of the weight only"),
    (problem((4, 4), (9, 9), (3, 3), bias=False, direction="backward_input"), "computes the gradient of the weight only"),
    (weight((4, 4), (9, 9), (3, 3), accuracy="strict"), "accuracy='strict' admits only"),
    (weight((4, 4), (9, 9), (1, 1), padding=0), "several taps along the last two axes only"),
    (weight((4, 4), (9, 9, 9), (3, 3, 3)), "several taps along the last two axes only"),
    (weight((4, 4), (9, 9), (3, 3), stride=2), "no stride and no dilation"),
    (weight((4, 4), (9, 9), (3, 3), dilation=2), "no stride and no dilation"),
    (weight((4, 4), (9, 9), (3, 6)), "at most 5 taps"),
    (weight((4, 4), (5, 5), (4, 4), padding=0), "no tile whose error this accuracy admits"),
], ids=str)
def test_reasons_of_refusal(p, reason):
    with pytest.raises(fastconv.Unsupported, match=reason):
        plan.plan(p, "cython", "winograd_weight")


def test_it_is_chosen_where_channels_are_many():
    for channels, size in (((64, 64), (56, 56)), ((256, 256), (14, 14)), ((32, 32), (28, 28))):
        assert plan.plan(weight(channels, size, (3, 3), batch=8), "cython").algorithm == "winograd_weight"
    for p in (weight((1, 64), (112, 112), (3, 3), batch=8), weight((64, 64), (56, 56), (3, 3), groups=64, batch=8),
              weight((64, 64), (56, 56), (3, 3), accuracy="strict")):
        assert plan.plan(p, "cython").algorithm != "winograd_weight", p.text


def test_its_tile_depends_on_neither_batch_nor_threads():
    p = weight((64, 64), (28, 28), (3, 3))
    assert len({winograd_weight.choices(dataclasses.replace(p, batch=batch)) for batch in (1, 2, 8, 64)}) == 1
