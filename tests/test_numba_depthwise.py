"""Depthwise by Numba: every tile, edges, strides, epilogues, and the same bits for any batch and threads."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from native_cases import same_bits, stays_inside, verify
from problems import problem

import fastconv
from fastconv.backends import Candidate, get
from fastconv.backends.numba_jit import DEPTHWISE_KERNELS, DEPTHWISE_STRIDES
from fastconv.problem import ConvProblem

pytest.importorskip("numba")


def depthwise(channels: int, size: tuple[int, int], kernel: int, outputs: int = 1, **more: object) -> ConvProblem:
    return problem((channels, channels * outputs), size, (kernel, kernel), groups=channels, **more)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stride", DEPTHWISE_STRIDES)
@pytest.mark.parametrize("kernel", DEPTHWISE_KERNELS)
def test_every_kernel(kernel: int, stride: int, dtype: str) -> None:
    """Rows within a vector and beyond two, with edges on both sides of a vector and on one; bands that overlap."""
    if dtype == "float64" and kernel > 3:
        pytest.skip("compiled from the same lines")
    for columns in (kernel * stride, 40 * stride + 3):
        verify(depthwise(3, (8 * stride + kernel, columns), kernel, stride=stride, padding=kernel // 2, dtype=dtype),
               "depthwise", "numba")


@pytest.mark.parametrize("p", [
    depthwise(5, (7, 7), 3, padding=1, batch=2, activation="relu"), depthwise(2, (14, 15), 3, outputs=3, padding=1, bias=False),
    depthwise(2, (16, 50), 3, padding=((0, 3), (4, 1)), activation="silu"), depthwise(3, (1, 70), 3, padding=(1, 0)),
    depthwise(1, (3, 2), 3, padding=4), depthwise(3, (9, 33), 3, stride=2, residual=True, activation="relu"),
    depthwise(50, (8, 7), 3, padding=1), depthwise(2, (1, 25), 3, stride=2, padding=1),
    depthwise(2, (25, 1), 3, stride=2, padding=1), depthwise(2, (13, 1024), 3, padding=1),
], ids=lambda p: p.text)
def test_every_kind_of_problem(p: ConvProblem) -> None:
    """Of many channels some go through a tile together, of rows 4 KB apart four are computed at a time; along an axis of one
    output a stride of 2 is as good as one of 1."""
    verify(p, "depthwise", "numba")
    same_bits(dataclasses.replace(p, residual=False, batch=3), "depthwise", "numba")


def side_by_side(channels: int, size: tuple[int, ...], kernel: tuple[int, ...], **more: object) -> ConvProblem:
    return problem((channels, channels), size, kernel, groups=channels, layout="channels_last", **more)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [
    side_by_side(32, (9, 11), (3, 3), padding=1, batch=2, activation="relu"), side_by_side(48, (17, 40), (5, 3), stride=2),
    side_by_side(16, (23,), (4,), padding=3, dilation=2, bias=False), side_by_side(16, (1, 1), (3, 3), padding=1),
    side_by_side(16, (5, 6, 7), (3, 3, 3), padding=1, stride=(1, 2, 3), activation="silu"), side_by_side(16, (9, 8), (1, 1)),
    side_by_side(32, (12, 13), (3, 3), padding=1, residual=True, activation="relu"),
    side_by_side(16, (70, 70), (9, 9), padding=4),
    side_by_side(16, (9, 9), (3, 3), padding=2, padding_mode="reflect"), side_by_side(16, (9, 9), (3, 3), dilation=(2, 3)),
], ids=lambda p: p.text)
def test_channels_side_by_side(p: ConvProblem, dtype: str) -> None:
    p = dataclasses.replace(p, dtype=dtype)
    verify(p, "depthwise", "numba")
    same_bits(dataclasses.replace(p, residual=False, batch=3), "depthwise", "numba")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_windows(value: float) -> None:
    for p in (depthwise(3, (19, 40), 3, padding=1), side_by_side(16, (19, 20), (3, 3), padding=1)):
        stays_inside(p, "depthwise", "numba", value)


@pytest.mark.parametrize("axis", range(4))
def test_an_input_may_repeat_along_an_axis(axis: int) -> None:
    """A stride of 0 is that of an axis of one element as well, whose rows are read where they lie."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 5, 9, 21), np.float32), rng.standard_normal((5, 1, 3, 3), np.float32)
    x = np.broadcast_to(x.take([0], axis), x.shape)
    y = fastconv.conv2d(x, w, padding=1, groups=5, backend="numba", algorithm="depthwise")
    np.testing.assert_allclose(y, fastconv.conv2d(x, w, padding=1, groups=5, backend="naive"), rtol=1e-5, atol=1e-5)


def test_a_residual_may_be_the_output() -> None:
    """Bands must not overlap then, or the residual would be added twice."""
    rng = np.random.default_rng(0)
    x, w, y = (rng.standard_normal(shape, np.float32) for shape in ((1, 3, 11, 20), (3, 1, 3, 3), (1, 3, 11, 20)))
    keywords = dict(padding=1, groups=3)
    expected = fastconv.conv2d(x, w, residual=y, backend="naive", **keywords)
    fastconv.conv2d(x, w, residual=y, out=y, backend="numba", algorithm="depthwise", **keywords)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("p", "reason"), [
    (problem((4, 4), (9, 9), (3, 3)), "one input channel"), (depthwise(4, (9, 9), 4), "square"),
    (depthwise(4, (9, 9), 3, dilation=2), "dilation"), (depthwise(4, (9, 9), 3, layout="channels_last"), "whole vectors"),
    (depthwise(4, (9, 9), 3, padding=1, padding_mode="reflect"), "padding"),
    (depthwise(4, (9, 9), 3, accuracy="strict"), "sums")])
def test_refusals(p: ConvProblem, reason: str) -> None:
    assert reason in (get("numba").refuses(p, Candidate("depthwise")) or "")
