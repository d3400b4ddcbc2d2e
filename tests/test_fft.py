"""The fft algorithm: every radix, wrap-around, NaN and infinity, its error, and the same bits for any batch and threads."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from native_cases import problem, same_bits, stays_inside, verify

import fastconv
from fastconv import accuracy, checks, fourier
from fastconv.backends import Candidate, cython_native
from fastconv.plan import SUMS_PRODUCTS
from fastconv.problem import ConvProblem

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)

ISAS = cython_native.runnable_isas()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("sizes", [(16, 18), (20, 16), (24, 30), (32, 36), (40, 16), (48, 20), (60, 16), (16, 64),
                                   (80, 18), (18, 90)], ids=str)
def test_every_radix(sizes: tuple[int, int], isa: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fourier, "tile", lambda problem: sizes)
    for p in (problem((1, 1), (11, 13), (3, 4), dtype=dtype), problem((2, 3), (19, 7), (5, 3), dtype=dtype, padding=(0, 1)),
              problem((1, 2), (9, 20), (9, 2), dtype=dtype, padding_mode="reflect", activation="relu")):
        verify(p, "fft", isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [
    problem((1, 1), (1, 1), (3, 3)), problem((2, 2), (6, 5), (3, 3), padding=((9, 1), (0, 12))),
    problem((3, 3), (14, 14), (7, 7), groups=3, batch=2, layout="channels_last", residual=True),
    problem((2, 4), (12, 9), (3, 5), dilation=(3, 2), padding=(3, 4)),
    problem((1, 1), (40, 33), (5, 7), padding=((0, 3), (4, 1)), padding_mode="circular", bias_shape=None),
    problem((1, 1), (20, 21), (20, 21), padding=0), problem((1, 1), (9, 9), (11, 11), padding="full"),
    problem((1, 2), (2, 9, 8), (1, 5, 4), padding=(1, 2, 1), stride=(2, 1, 1)), problem((1, 1), (5, 70), (1, 25)),
], ids=lambda p: p.text)
def test_every_kind_of_problem(p: ConvProblem, isa: str) -> None:
    assert fourier.refuses(p) is None
    verify(p, "fft", isa)


def test_its_error_is_no_worse_than_that_of_direct() -> None:
    p = problem((1, 1), (130, 140), (31, 29))
    arrays = accuracy.random_arrays(p, np.random.default_rng(0))
    points = accuracy.sample_points(p, 2000, np.random.default_rng(1))
    expected = accuracy.sample(p, *arrays, points)[0]
    errors = {}
    for algorithm in ("fft", "direct"):
        made = cython_native.NativeKernel(p, Candidate(algorithm, ISAS[-1]))
        errors[algorithm] = np.sqrt(((accuracy.at(p, checks.run(made, p, arrays), points) - expected)**2).mean())
    assert errors["fft"] < 1.5 * errors["direct"]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_windows(value: float, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fourier, "tile", lambda problem: (16, 20))
    stays_inside(problem((2, 2), (30, 29), (5, 4)), "fft", isa, value)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [problem((1, 1), (90, 70), (11, 11), batch=3),
                               problem((6, 6), (30, 30), (15, 15), batch=3, groups=6),
                               problem((3, 5), (20, 20), (7, 7), batch=1)], ids=lambda p: p.text)
def test_batch_and_threads_change_no_bit(p: ConvProblem, isa: str) -> None:
    same_bits(p, "fft", isa)


def test_it_is_chosen_for_large_kernels_only() -> None:
    large, small = problem((1, 1), (1024, 1024), (63, 63)), problem((64, 64), (56, 56), (3, 3))
    assert fastconv.explain(large, backend="cython").algorithm == "fft"
    assert fastconv.explain(small, backend="cython").algorithm != "fft"
    assert fastconv.explain(dataclasses.replace(large, accuracy="strict"), backend="cython").algorithm in SUMS_PRODUCTS


@pytest.mark.parametrize(("p", "reason"), [
    (problem((4, 4), (90,), (31,)), "last two axes"), (problem((1, 1), (9, 9), (3, 3), stride=2, padding=1), "stride 1"),
    (problem((1, 1), (1400, 9), (1301, 3), padding=1), "at most 1024"),
    (problem((1, 1), (4, 9, 9), (3, 3, 3)), "last two axes")])
def test_refusals(p: ConvProblem, reason: str) -> None:
    assert reason in (cython_native.backend.refuses(p, Candidate("fft", cython_native.chosen_isas()[0])) or "")
