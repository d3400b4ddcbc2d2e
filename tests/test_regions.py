"""Taps that lie in the zero padding: gemm and direct leave them out, where no weight could tell."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from native_cases import same_bits, stays_inside, verify
from problems import problem

from fastconv import native_problem
from fastconv.backends import Candidate, cython_native
from fastconv.problem import ConvProblem
from fastconv.verify import bounds, check, reference
from fastconv.verify.data import Arrays, random_arrays

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)

ISAS = cython_native.runnable_isas()
ALGORITHMS = ("gemm", "direct")

CASES = [
    problem((20, 7), (9, 13), (3, 3), dilation=9, padding=9, batch=3),  # rows: the middle tap alone
    problem((150, 35), (13, 9), (3, 3), dilation=(8, 5), padding=(8, 5)),  # several blocks of k
    problem((18, 33), (15, 17), (3, 3), dilation=10, padding=10, layout="channels_last", batch=2),
    problem((5, 6), (21, 17), (3, 5), dilation=(12, 5), padding=(13, 9), stride=(1, 2)),
    problem((6, 8), (11, 17, 9), (3, 5, 3), dilation=(8, 4, 6), padding=(8, 7, 5), groups=2, batch=2),
    dataclasses.replace(problem((20, 9), (11, 19), (3, 3), dilation=9, padding=9), dtype="float64"),
    problem((4, 5), (30,), (31,), dilation=1, padding=15),  # many taps
    problem((4, 5), (6, 7), (2, 3), dilation=(30, 9), padding=((0, 30), (20, 3))),  # outputs that no tap reaches
    problem((7, 40), (1, 1), (3, 3), padding=1, batch=2),  # one input
    problem((3, 5), (11, 12), (3, 3), dilation=8, padding=8, padding_mode="circular"),
    problem((1, 5), (19, 20), (3, 3), dilation=12, padding=12, accuracy="strict"),
    problem((3, 40), (19, 20), (3, 3), dilation=12, padding=12, accuracy="strict", activation="relu", residual=True),
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("p", CASES, ids=lambda p: p.text)
def test_cases(p: ConvProblem, algorithm: str, isa: str) -> None:
    verify(p, algorithm, isa)
    if not p.residual:
        same_bits(p, algorithm, isa)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_all_dilations(layout: str, algorithm: str) -> None:
    for dilation in range(1, 41):
        p = problem((17, 3), (5, 26), (2, 3), dilation=dilation, padding=dilation, layout=layout)
        x, w, b, _ = random_arrays(p, np.random.default_rng(dilation))
        expected, magnitude = reference.oracle(p, x, w, b)
        for isa in ISAS:
            out = check.run(cython_native.NativeKernel(p, Candidate(algorithm, isa)), p, Arrays(x, w, b, None))
            allowed = bounds.bound(p, algorithm, expected, magnitude, x, w)
            assert bounds.compare(out, expected, allowed) <= 1, (dilation, isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_weights_that_are_not_finite_meet_the_padding(value: float, algorithm: str, isa: str) -> None:
    p = problem((5, 39), (10, 12), (3, 3), dilation=16, padding=16)
    x, w, b, _ = random_arrays(p, np.random.default_rng(0))
    for channel, tap in ((0, (0, 0)), (38, (0, 1))):
        spoiled = w.copy()
        spoiled[(channel, 4, *tap)] = value
        out = check.run(cython_native.NativeKernel(p, Candidate(algorithm, isa)), p, Arrays(x, spoiled, b, None))
        assert np.isnan(out[:, channel]).all() and np.isfinite(np.delete(out, channel, axis=1)).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_is_not_finite_stays_inside(value: float, algorithm: str, isa: str) -> None:
    stays_inside(problem((5, 9), (14, 15), (3, 3), dilation=(9, 7), padding=(9, 7)), algorithm, isa, value)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_finite_weights_or_not_give_the_same_bits(algorithm: str, isa: str) -> None:
    """Zeros that are left out change no sum: channels beside one with a NaN, which leaves nothing out, are the same."""
    p = problem((150, 20), (13, 11), (3, 3), dilation=7, padding=7)
    x, w, b, _ = random_arrays(p, np.random.default_rng(1))
    spoiled = w.copy()
    spoiled[7] = np.nan
    kernel = cython_native.NativeKernel(p, Candidate(algorithm, isa))
    out, other = (check.run(kernel, p, Arrays(x, these, b, None)) for these in (w, spoiled))
    assert np.array_equal(np.delete(out, 7, axis=1), np.delete(other, 7, axis=1)) and np.isnan(other[:, 7]).all()


@pytest.mark.parametrize("keywords, share", [
    (dict(size=(24, 24), dilation=24, padding=24), 1 / 9),  # the middle tap
    (dict(size=(33, 33), dilation=18, padding=18), (63 / 99) ** 2),  # 33 + 2 * 15 of 3 * 33 along each axis
    (dict(size=(33, 33), dilation=18, padding=18, padding_mode="reflect"), 1),
    (dict(size=(56, 56), padding=1), 1),  # too little to be worth it
    (dict(size=(7, 7), padding=1), 1),
    (dict(size=(1, 1), padding=1), 1 / 9),
    (dict(size=(56, 56), padding=0, dilation=24), 1),
], ids=str)
def test_share_that_is_computed(keywords: dict, share: float) -> None:
    p = problem((16, 16), kernel=(3, 3), **keywords)
    assert native_problem.products(p) == pytest.approx(share * p.k)
