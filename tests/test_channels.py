"""Sums over channels: values, any memory order, the same bits for any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv
from fastconv import channels, native

SHAPES = [(7, 5), (3, 33, 17), (8, 70, 3, 3), (2, 3, 60, 90), (2, 5, 4, 3, 5), (1, 1, 1), (300, 2, 1), (1, 2, 9001)]


def _isas():
    return [dict(isa=isa) for isa in native.runnable_isas()] + [dict(no_native=True)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums(rng, shape, dtype):
    given = (rng.normal(size=shape) * 2 + 3).astype(dtype)
    expected = given.astype(np.longdouble).sum((0, *range(2, len(shape))))
    count = given.size // shape[1]
    roundoff = 20 * 2.0**-24 if dtype == np.float32 else (count + 20) * 2.0**-53
    tolerance = roundoff * np.abs(given).sum((0, *range(2, len(shape))), dtype=np.float64)
    orders = [given, np.asfortranarray(given), given[::-1, ::-1][::-1, ::-1], np.repeat(given, 2, -1)[..., ::2]]
    moved = [np.ascontiguousarray(np.moveaxis(given, 1, -1))]
    for setting in _isas():
        with fastconv.config(**setting):
            for axis, arrays in ((1, orders), (-1, moved)):
                for array in arrays:
                    found = channels.sums(array, axis % array.ndim)
                    assert found.dtype == np.float64 and np.all(np.abs(found - expected) <= tolerance)


def test_any_number_of_threads_makes_the_same_bits(rng):
    for shape in ((8, 300, 7, 7), (4, 6, 90, 90)):
        given = rng.normal(size=shape).astype(np.float32)
        for axis in (1, 3):
            found = []
            for threads in (1, 2, 5):
                with fastconv.config(num_threads=threads):
                    found.append(channels.sums(given, axis))
            assert all(np.array_equal(found[0], each) for each in found[1:])


def test_nothing_to_sum():
    assert np.array_equal(channels.sums(np.zeros((0, 3, 2), np.float32), 1), np.zeros(3))
