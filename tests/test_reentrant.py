"""A convolution inside a convolution: a signal handler's, or a finalizer's, in the middle of another of its thread."""

from __future__ import annotations

import sys
from types import FrameType

import numpy as np
import pytest

import fastconv
from fastconv.backends import get, im2col

AVAILABLE = [name for name, reason in fastconv.backends().items() if reason is None and get(name).device == "cpu"]
IN_PYTHON = [name for name in AVAILABLE if name != "cython"]  # which enters no Python function while it runs
RNG = np.random.default_rng(8)


class Inside:
    """Calls `work` once within each of the first `times` Python functions of a module that are entered."""

    def __init__(self, module: str, work, times: int = 150) -> None:
        self.module, self.work, self.left = module, work, times
        self.count = 0

    def __enter__(self) -> Inside:
        sys.setprofile(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _enter(self, frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "c_call") and frame.f_globals["__name__"] == self.module and self.left:
            self.left -= 1
            sys.setprofile(None)
            self.work()
            self.count += 1
            sys.setprofile(self._enter)


@pytest.mark.parametrize("same", [True, False], ids=["same shape", "larger"])
@pytest.mark.parametrize("name", IN_PYTHON)
def test_a_call_inside_a_call_spoils_neither(name, same):
    x, w = RNG.standard_normal((1, 2, 6, 6)), RNG.standard_normal((3, 2, 3, 3))
    inner = RNG.standard_normal((2, 2, 6, 6) if same else (2, 2, 9, 11))
    right, inner_right = (fastconv.conv2d(a, w, padding=1, backend=name) for a in (x, inner))
    found = []
    with Inside(type(get(name)).__module__, lambda: found.append(fastconv.conv2d(inner, w, padding=1, backend=name))) as calls:
        y = fastconv.conv2d(x, w, padding=1, backend=name)
    assert calls.count > 0 and np.array_equal(y, right)
    assert all(np.array_equal(each, inner_right) for each in found)


@pytest.mark.parametrize("name", AVAILABLE)
def test_a_prepared_operator_inside_itself(name):
    """Binding holds a lock."""
    x, w = RNG.standard_normal((1, 3, 12, 12)), RNG.standard_normal((4, 3, 3, 3))
    right = fastconv.conv2d(x, w, backend=name)
    operator = fastconv.prepare(w, backend=name)
    with Inside(type(get(name)).__module__, lambda: operator(x[..., 1:]), times=3):
        np.testing.assert_allclose(operator(x), right, rtol=1e-12, atol=1e-12)


def test_im2col_keeps_its_scratch():
    """Or each call would have fresh pages mapped."""
    x, w = RNG.standard_normal((1, 3, 40, 40)), RNG.standard_normal((4, 3, 3, 3))
    fastconv.conv2d(x, w, backend="im2col")
    kept = im2col._kept.scratch
    fastconv.conv2d(x, w, backend="im2col")
    assert im2col._kept.scratch is kept
