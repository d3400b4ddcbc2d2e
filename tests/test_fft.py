"""The fft algorithm: every kind of tile, wrap-around, NaN and infinity, its error, and the same bits for any batch and threads."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import fastconv
from fastconv import accuracy, checks, fourier
from fastconv.backends import Candidate, cython_native
from fastconv.plan import SUMS_PRODUCTS
from fastconv.problem import ConvProblem

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)

ISAS = cython_native.runnable_isas()


def problem(channels: tuple[int, int], size: tuple[int, ...], kernel: tuple[int, ...], batch: int = 1, **keywords) -> ConvProblem:
    groups, layout = keywords.get("groups", 1), keywords.pop("layout", "channels_first")
    made = ConvProblem.from_shapes((batch, channels[0], *size), (channels[1], channels[0] // groups, *kernel), ndim=len(size),
                                   **{"bias_shape": (channels[1],), "padding": "same", **keywords})
    return dataclasses.replace(made, layout=layout)


def kernel(p: ConvProblem, isa: str) -> cython_native.NativeKernel:
    return cython_native.NativeKernel(p, Candidate("fft", isa))


def verify(p: ConvProblem, isa: str) -> None:
    for trial in checks.trials(p):
        worst, wrong = checks.verify(p, cython_native.backend, Candidate("fft", isa), trial)
        assert wrong is None, f"{trial.name}: {worst} {wrong}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("sizes", [(16, 18), (20, 16), (24, 30), (32, 36), (40, 16), (48, 20), (60, 16), (16, 64), (80, 18), (18, 90)],
                         ids=str)
def test_every_radix(sizes: tuple[int, int], isa: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fourier, "tile", lambda problem: sizes)
    for p in (problem((1, 1), (11, 13), (3, 4), dtype=dtype), problem((2, 3), (19, 7), (5, 3), dtype=dtype, padding=(0, 1)),
              problem((1, 2), (9, 20), (9, 2), dtype=dtype, padding_mode="reflect", activation="relu")):
        made = kernel(p, isa)
        for trial in checks.trials(p):
            out = checks.run(made, p, trial.arrays)
            allowed = accuracy.bound(p, "fft", trial.expected, trial.magnitude, trial.arrays.x, trial.arrays.w)
            assert accuracy.compare(out, trial.expected, allowed) <= 1


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [
    problem((1, 1), (1, 1), (3, 3)), problem((3, 3), (14, 14), (7, 7), groups=3, batch=2, layout="channels_last", residual=True),
    problem((2, 2), (6, 5), (3, 3), padding=((9, 1), (0, 12))), problem((2, 4), (12, 9), (3, 5), dilation=(3, 2), padding=(3, 4)),
    problem((1, 1), (40, 33), (5, 7), padding=((0, 3), (4, 1)), padding_mode="circular", bias_shape=None),
    problem((1, 1), (20, 21), (20, 21), padding=0), problem((1, 1), (9, 9), (11, 11), padding="full"),
    problem((1, 2), (2, 9, 8), (1, 5, 4), padding=(1, 2, 1), stride=(2, 1, 1)), problem((1, 1), (5, 70), (1, 25)),
], ids=lambda p: p.text)
def test_every_kind_of_problem(p: ConvProblem, isa: str) -> None:
    assert fourier.refuses(p) is None
    verify(p, isa)


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
    p = problem((2, 2), (30, 29), (5, 4))
    x, w, b, _ = accuracy.random_arrays(p, np.random.default_rng(3))
    for spoil, position in ((x, (0, 1, 15, 7)), (x, (0, 0, 0, 0)), (w, (1, 1, 2, 0))):
        kept = spoil[position]
        spoil[position] = value
        out = checks.run(kernel(p, isa), p, accuracy.Arrays(x, w, b, None))
        expected, magnitude = accuracy.oracle(p, x, w, b)
        assert not np.isfinite(expected).all()
        assert accuracy.compare(out, expected, accuracy.bound(p, "fft", expected, magnitude, x, w)) <= 1
        spoil[position] = kept


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [problem((1, 1), (90, 70), (11, 11), batch=3), problem((6, 6), (30, 30), (15, 15), batch=3, groups=6)],
                         ids=lambda p: p.text)
def test_batch_and_threads_change_no_bit(p: ConvProblem, isa: str) -> None:
    x, w, b, _ = accuracy.random_arrays(p, np.random.default_rng(5))
    with fastconv.config(num_threads=1):
        whole = checks.run(kernel(p, isa), p, accuracy.Arrays(x, w, b, None))
        one = dataclasses.replace(p, batch=1)
        for image in range(p.batch):
            alone = checks.run(kernel(one, isa), one, accuracy.Arrays(x[image:image + 1], w, b, None))
            assert np.array_equal(alone, whole[image:image + 1])
    for threads in (2, 3, 8):
        with fastconv.config(num_threads=threads):
            for _ in range(5):
                assert np.array_equal(checks.run(kernel(p, isa), p, accuracy.Arrays(x, w, b, None)), whole)


def test_it_is_chosen_for_large_kernels_only() -> None:
    large, small = problem((1, 1), (1024, 1024), (63, 63)), problem((64, 64), (56, 56), (3, 3))
    assert fastconv.explain(large, backend="cython").algorithm == "fft"
    assert fastconv.explain(small, backend="cython").algorithm != "fft"
    assert fastconv.explain(dataclasses.replace(large, accuracy="strict"), backend="cython").algorithm in SUMS_PRODUCTS


@pytest.mark.parametrize(("p", "reason"), [
    (problem((4, 4), (90,), (31,)), "last two axes"), (problem((1, 1), (9, 9), (3, 3), stride=2, padding=1), "stride 1"),
    (problem((1, 1), (1400, 9), (1301, 3), padding=1), "at most 1024"), (problem((1, 1), (4, 9, 9), (3, 3, 3)), "last two axes")])
def test_refusals(p: ConvProblem, reason: str) -> None:
    assert reason in (cython_native.backend.refuses(p, Candidate("fft", ISAS[-1])) or "")
