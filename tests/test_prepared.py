"""`prepare` with a scale for each output channel, and without copies."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import fastconv
from fastconv import native

needs_native = pytest.mark.skipif(native.runtime() is None, reason="no native kernels")


@pytest.mark.parametrize("arguments, shape", [
    (dict(padding=1), (6, 4, 3, 3)), (dict(groups=2, stride=2), (6, 2, 3, 3)), (dict(groups=4), (8, 1, 3, 3)),
    (dict(transposed=True, stride=2), (4, 6, 3, 3)), (dict(transposed=True, groups=2), (4, 3, 3, 3))], ids=str)
def test_a_scale_multiplies_each_output(rng, arguments, shape):
    w, b, x = (rng.standard_normal(size).astype(np.float32) for size in (shape, 6 if shape[0] != 8 else 8, (2, 4, 9, 9)))
    scale = rng.uniform(0.5, 2, len(b))
    plain = dict(arguments)
    call = fastconv.conv_transpose2d if plain.pop("transposed", False) else fastconv.conv2d
    without = call(x, w, **plain)
    expected = without * scale.reshape(-1, 1, 1) + b.reshape(-1, 1, 1)
    operator = fastconv.prepare(w, b, scale=scale, **arguments)
    for each in (operator, pickle.loads(pickle.dumps(operator))):
        np.testing.assert_allclose(each(x), expected, rtol=1e-5, atol=1e-5)
    w[:] = np.nan
    np.testing.assert_allclose(operator(x[:1]), expected[:1], rtol=1e-5, atol=1e-5)


def test_a_scale_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"scale must have shape \(3,\)"):
        fastconv.prepare(np.ones((3, 2, 1, 1), np.float32), scale=np.ones(2))


@needs_native
def test_without_a_copy_there_is_one_array_of_weights(rng):
    """Where the algorithm packs nothing: it reads what the caller has, as a change that must not be made shows."""
    given = rng.standard_normal((40, 300, 1, 1)).astype(np.float32)
    w = given.view()
    w.flags.writeable = False
    x = np.ones((1, 300, 1, 1), np.float32)
    shared = fastconv.prepare(w, algorithm="dot", copy=False)
    copied = fastconv.prepare(w, algorithm="dot")
    before = shared(x)
    np.testing.assert_array_equal(before, copied(x))
    given[0] = 7
    assert shared(x)[0, 0, 0, 0] == 2100 and np.array_equal(copied(x), before)


@needs_native
def test_weights_that_may_change_are_copied_by_who_packs_them(rng):
    w, x = rng.standard_normal((40, 300, 1, 1)).astype(np.float32), np.ones((1, 300, 1, 1), np.float32)
    operator = fastconv.prepare(w, algorithm="dot", copy=False)
    before = operator(x)
    w[:] = 7
    np.testing.assert_array_equal(operator(x), before)
