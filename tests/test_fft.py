"""The fft algorithm: every radix, wrap-around, NaN and infinity, its error, and the same bits for any batch and threads."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from native_cases import isas_and_numba, kernel_of, same_bits, stays_inside, verify
from problems import problem

import fastconv
from fastconv.algorithms import fft, sums_products
from fastconv.backends import Candidate, cython_native
from fastconv.problem import ConvProblem
from fastconv.verify import bounds, check, reference
from fastconv.verify.data import Arrays, random_arrays
from fastconv.verify.judge import Judge

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)

ISAS = isas_and_numba()
NATIVE = cython_native.runnable_isas()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("sizes", [(16, 18), (20, 16), (24, 30), (32, 36), (40, 16), (48, 20), (60, 16), (16, 64),
                                   (80, 18), (18, 90)], ids=str)
def test_every_radix(sizes: tuple[int, int], isa: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fft, "tile", lambda problem: sizes)
    for p in (problem((1, 1), (11, 13), (3, 4), dtype=dtype), problem((2, 3), (19, 7), (5, 3), dtype=dtype, padding=(0, 1)),
              problem((1, 2), (9, 20), (9, 2), dtype=dtype, padding_mode="reflect", activation="relu")):
        verify(p, "fft", isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("tile", [576, 640, 768, 960, 1024, 2304, 2560, 3840, 4096], ids=str)
def test_every_fold(tile: int, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tile in fft.FOLDED
    monkeypatch.setattr(fft, "tile", lambda problem: (tile,))
    for p in (problem((1, 1), (tile,), (47,)), problem((2, 1), (700,), (33,), dtype="float64", padding=(0,), dilation=3),
              problem((1, 2), (571,), (5,), batch=2, padding_mode="circular", layout="channels_last", activation="relu")):
        verify(p, "fft", isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [
    problem((1, 1), (5, 21, 19), (3, 7, 5)), problem((2, 3), (9, 8, 7), (4, 3, 3), padding="full", dtype="float64"),
    problem((2, 2), (14, 6, 9), (9, 3, 5), padding_mode="reflect", layout="channels_last", residual=True),
    problem((2, 4), (11, 9, 10), (3, 3, 3), dilation=(4, 2, 3), groups=2, batch=2, padding=0),
    problem((1, 1), (23, 2, 2), (11, 1, 1)), problem((1, 1), (4, 5, 6), (4, 5, 6), padding=0),
], ids=lambda p: p.text)
def test_volumes(p: ConvProblem, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verify(p, "fft", isa)
    least = [next(n for n in sizes if n > fft._reach(p, axis))
             for axis, sizes in ((-3, fft.DEPTHS), (-2, fft.SIZES), (-1, fft.SIZES))]
    monkeypatch.setattr(fft, "tile", lambda problem: tuple(least))  # several tiles, where there can be
    verify(p, "fft", isa)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("size", "kernel", "padding"), [
    ((50_000,), (20_011,), "full"), ((70_001,), (1009,), "same"), ((30_000,), (30_000,), 0), ((1, 9000), (1, 2000), "same"),
    ((211, 199), (211, 199), "same"), ((640, 530), (330, 290), "valid"), ((40, 41, 42), (20, 23, 19), "full")], ids=str)
def test_kernels_up_to_the_size_of_the_input(size: tuple[int, ...], kernel: tuple[int, ...], padding: Any, isa: str,
                                             dtype: str) -> None:
    p = problem((1, 1), size, kernel, padding=padding, dtype=dtype)
    arrays = random_arrays(p, np.random.default_rng(0))
    made = kernel_of(p, "fft", isa)
    points = reference.sample_points(p, 40, np.random.default_rng(1))
    assert Judge(p, arrays, points).wrong(check.run(made, p, arrays), "fft") is None


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [
    problem((1, 1), (1, 1), (3, 3)), problem((2, 2), (6, 5), (3, 3), padding=((9, 1), (0, 12))),
    problem((3, 3), (14, 14), (7, 7), groups=3, batch=2, layout="channels_last", residual=True),
    problem((2, 4), (12, 9), (3, 5), dilation=(3, 2), padding=(3, 4)),
    problem((1, 1), (40, 33), (5, 7), padding=((0, 3), (4, 1)), padding_mode="circular", bias=False),
    problem((1, 1), (20, 21), (20, 21), padding=0), problem((1, 1), (9, 9), (11, 11), padding="full"),
    problem((1, 1), (41, 39), (9, 7), stride=(2, 3), padding=(4, 1)), problem((2, 2), (1300,), (31,), stride=4, residual=True),
    problem((2, 3), (15, 17, 19), (5, 4, 7), stride=(2, 3, 2), padding=(2, 0, 3), layout="channels_last", activation="relu"),
    problem((1, 2), (35, 20), (8, 5), stride=(3, 2), dilation=(2, 3), padding=(5, 6), padding_mode="reflect", batch=2),
    problem((1, 2), (2, 9, 8), (1, 5, 4), padding=(1, 2, 1), stride=(2, 1, 1)), problem((1, 1), (5, 70), (1, 25)),
], ids=lambda p: p.text)
def test_every_kind_of_problem(p: ConvProblem, isa: str) -> None:
    assert fft.refuses(p) is None
    verify(p, "fft", isa)


@pytest.mark.parametrize("p", [
    problem((1, 1), (130, 140), (31, 29)), problem((1, 1), (40_000,), (2000,)), problem((4, 4), (3000,), (400,)),
    problem((1, 1), (24, 30, 31), (9, 11, 12))], ids=lambda p: p.text)
def test_its_error_is_no_worse_than_that_of_direct(p: ConvProblem) -> None:
    arrays = random_arrays(p, np.random.default_rng(0))
    points = reference.sample_points(p, 2000, np.random.default_rng(1))
    expected = reference.evaluate(p, *arrays, points)[0]
    errors = {}
    for algorithm, isa in (("fft", NATIVE[-1]), ("direct", NATIVE[-1]), ("fft", ISAS[-1])):  # the last by Numba, if it is there
        made = kernel_of(p, algorithm, isa)
        errors[algorithm, isa] = np.sqrt(((reference.at(p, check.run(made, p, arrays), points) - expected)**2).mean())
    direct = errors.pop(("direct", NATIVE[-1]))
    assert max(errors.values()) < 1.5 * direct


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("p", "tile"), [
    (problem((2, 2), (30, 29), (5, 4)), (16, 20)), (problem((2, 2), (700,), (9,), padding=3, dilation=5), (576,)),
    (problem((2, 2), (11, 9, 10), (3, 4, 3), padding=((1, 2), (0, 3), 2)), (6, 16, 18))], ids=str)
def test_what_is_not_finite_stays_in_its_windows(p: ConvProblem, tile: tuple[int, ...], value: float, isa: str,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fft, "tile", lambda problem: tile)
    stays_inside(p, "fft", isa, value)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [
    problem((2, 3), (25, 31), (5, 6)), problem((1, 2), (40, 33), (4, 3), dilation=(3, 2), padding_mode="reflect"),
    problem((4, 2), (26, 24), (6, 7), groups=2, batch=2, layout="channels_last", padding=((9, 1), (0, 3)), dtype="float64"),
    problem((2, 1), (9, 8, 11), (3, 3, 2), padding_mode="circular", residual=True),
    problem((1, 1), (900,), (40,), padding="full"), problem((2, 2), (35, 31), (5, 6), padding=2, stride=(2, 3)),
], ids=lambda p: p.text)
def test_many_values_that_are_not_finite(p: ConvProblem, isa: str) -> None:
    """NaN, infinities and huge values of both signs, meeting weights of both signs and zeros; what sees none of them keeps its
    bits."""
    rng = np.random.default_rng(7)
    x, w, b, residual = random_arrays(p, rng)
    w[rng.random(w.shape) < 0.3] = 0
    kernel = kernel_of(p, "fft", isa)
    huge = np.finfo(p.dtype).max
    every, large = (np.nan, np.inf, -np.inf), (huge / 8, -huge / 8, np.nan)
    for values, share in (((np.nan,), 0.003), ((np.inf,), 0.003), (every, 0.01), (every, 0.5), (large, 0.01)):
        spoilt, clean = x.copy(), x.copy()
        at = rng.random(x.shape) < share
        spoilt[at], clean[at] = rng.choice(values, at.sum()), 0
        arrays = Arrays(spoilt, w, b, residual)
        expected, magnitude = reference.oracle(p, *arrays)
        out = check.run(kernel, p, arrays)
        assert bounds.compare(out, expected, bounds.bound(p, "fft", expected, magnitude, spoilt, w)) <= 1
        sees_none = np.isfinite(out) & (np.abs(out) < huge / 1e8)
        assert np.array_equal(out[sees_none], check.run(kernel, p, Arrays(clean, w, b, residual))[sees_none])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [
    problem((2, 3), (25, 31), (5, 6), padding=0),
    problem((2, 4), (40, 33), (4, 3), dilation=(3, 2), padding_mode="circular", groups=2),
    problem((1, 2), (9, 8, 11), (3, 3, 2), layout="channels_last"), problem((1, 2), (900,), (40,), padding="full"),
    problem((2, 3), (25, 31), (5, 6), padding=2, stride=(2, 3)),
], ids=lambda p: p.text)
def test_weights_that_are_not_finite(p: ConvProblem, isa: str) -> None:
    """They touch their own output channel alone; so do a bias that is not finite, and weights that overflow in a transform."""
    rng = np.random.default_rng(8)
    x, w, b, _ = random_arrays(p, rng)
    x[rng.random(x.shape) < 0.1] = 0
    clean = check.run(kernel_of(p, "fft", isa), p, Arrays(x, w, b, None))
    for value in (np.nan, np.inf, -np.inf, np.finfo(p.dtype).max / 100):
        spoilt, bias = w.copy(), b.copy()
        spoilt[0].flat[[1, 5]] = value
        if p.out_channels > 1:
            bias[1] = value
        arrays = Arrays(x, spoilt, bias, None)
        expected, magnitude = reference.oracle(p, *arrays)
        out = check.run(kernel_of(p, "fft", isa), p, arrays)
        assert bounds.compare(out, expected, bounds.bound(p, "fft", expected, magnitude, x, spoilt)) <= 1
        others = (slice(None), slice(2, None)) if p.layout == "channels_first" else (..., slice(2, None))
        assert np.array_equal(out[others], clean[others])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [problem((1, 1), (90, 70), (11, 11), batch=3),
                               problem((6, 6), (30, 30), (15, 15), batch=3, groups=6), problem((1, 1), (300, 290), (150, 130)),
                               problem((1, 1), (40_000,), (9000,)), problem((9, 20), (2000,), (600,)),
                               problem((1, 1), (40, 41, 39), (21, 19, 20)), problem((2, 3), (300, 70), (41, 29), batch=2),
                               problem((3, 5), (20, 20), (7, 7), batch=1)], ids=lambda p: p.text)
def test_batch_and_threads_change_no_bit(p: ConvProblem, isa: str) -> None:
    same_bits(p, "fft", isa)


def test_it_is_chosen_for_large_kernels_only() -> None:
    large, small = problem((1, 1), (1024, 1024), (63, 63)), problem((64, 64), (56, 56), (3, 3))
    assert fastconv.explain(large, backend="cython").algorithm == "fft"
    assert fastconv.explain(small, backend="cython").algorithm != "fft"
    assert sums_products(fastconv.explain(dataclasses.replace(large, accuracy="strict"), backend="cython").algorithm)


@pytest.mark.parametrize(("p", "reason"), [
    (problem((1, 1), (3, 3), (3, 3), dilation=(1, 40_000), padding=40_000), "at most 32768"),
    (problem((64, 64), (900_000,), (3,), dilation=400_000), "1024 MB")])
def test_refusals(p: ConvProblem, reason: str) -> None:
    assert reason in (cython_native.backend.refuses(p, Candidate("fft", cython_native.chosen_isas()[0])) or "")
