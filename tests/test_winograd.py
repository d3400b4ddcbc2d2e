"""Winograd: its matrices, every tile on every ISA, its error, NaN and infinity, and the same bits for any batch and threads."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from native_cases import problem, same_bits, stays_inside, verify

import fastconv
from fastconv import accuracy, checks, winograd
from fastconv.backends import Candidate, cython_native
from fastconv.problem import ConvProblem

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)

ISAS = cython_native.runnable_isas()
TILES = [tile for tile in itertools.product((1, *winograd.POINTS), repeat=2) if tile != (1, 1)]


@pytest.fixture
def tile(monkeypatch: pytest.MonkeyPatch):
    """Chooses the tile."""
    def choose(made: tuple[int, ...]) -> None:
        monkeypatch.setattr(winograd, "tile", lambda problem: (1,) * (problem.ndim - len(made)) + made)

    return choose


@pytest.mark.parametrize("m", winograd.POINTS)
def test_the_matrices_filter(m: int) -> None:
    rng = np.random.default_rng(m)
    d, g = rng.standard_normal(m + 2), rng.standard_normal(3)
    outputs, weights, inputs = winograd.matrices(m)
    assert outputs @ ((weights @ g) * (inputs @ d)) == pytest.approx(np.correlate(d, g), rel=1e-12, abs=1e-12)
    assert 2 < winograd.amplification(m) < 200


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("made", TILES, ids=str)
def test_every_tile(made: tuple[int, int], isa: str, dtype: str, tile) -> None:
    tile(made)
    taps = tuple(1 if m == 1 else 3 for m in made)
    for channels, size, more in (((3, 5), (13, 15), {}), ((9, 17), (7, 6), {"activation": "relu"}), ((2, 3), (1, 1), {})):
        verify(problem(channels, size, taps, dtype=dtype, **more), "winograd", isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [
    problem((5, 9), (9, 10), (3, 3), batch=3, layout="channels_last", residual=True),
    problem((6, 8), (5, 9), (3, 3), groups=2, padding_mode="reflect"),
    problem((8, 10), (6, 7), (3, 3), padding=((0, 3), (4, 1)), padding_mode="circular", bias_shape=None),
    problem((3, 4), (5, 6), (3, 3), padding=((4, 5), (7, 3)), padding_mode="symmetric"),
    problem((70, 3), (4, 4), (3, 3)), problem((2, 135), (5, 5), (3, 3)), problem((300, 2), (3, 4), (3, 3), padding=0),
    problem((4, 6), (61,), (3,), batch=2), problem((3, 5), (4, 5, 6), (1, 3, 3), stride=(2, 1, 1), padding=(1, 1, 1)),
    problem((5, 9), (13, 15), (3, 3), dilation=2, padding=2, batch=2, residual=True, activation="relu"),
    problem((9, 8), (11, 23), (3, 3), dilation=(3, 5), padding=(0, 5), padding_mode="circular"),
    problem((4, 7), (8, 9), (3, 3), dilation=(4, 1), padding=(3, 1), layout="channels_last"),
    problem((3, 4), (11, 15), (3, 3), dilation=(5, 7), padding=0), problem((17, 4), (40,), (3,), dilation=4, padding=4),
    problem((3, 5), (4, 9), (1, 3), padding_mode="replicate", activation="gelu"), problem((1, 1), (40, 3), (3, 1)),
], ids=lambda p: p.text)
def test_every_kind_of_problem(p: ConvProblem, isa: str) -> None:
    assert winograd.refuses(p) is None
    verify(p, "winograd", isa)


def relative_error(p: ConvProblem, candidate: Candidate, trial: tuple) -> float:
    made = cython_native.NativeKernel(p, candidate)
    arrays, expected, points = trial
    error = accuracy.at(p, checks.run(made, p, arrays), points) - expected
    return float(np.sqrt((error**2).mean() / (expected**2).mean()))


@pytest.mark.parametrize("channels", [16, 64, 256])
def test_the_error_of_the_tiles_that_fast_admits(channels: int, tile) -> None:
    """RMS on zero-mean data, relative to direct's: at most 4 for "fast"."""
    p = problem((channels, 16), (26, 27), (3, 3))
    arrays = accuracy.random_arrays(p, np.random.default_rng(0))
    points = accuracy.sample_points(p, 3000, np.random.default_rng(1))
    trial = arrays, accuracy.sample(p, *arrays, points)[0], points
    direct = relative_error(p, Candidate("direct", ISAS[-1]), trial)
    for made in itertools.product(winograd.POINTS, repeat=2):
        tile(made)
        ratio = relative_error(p, Candidate("winograd", ISAS[-1]), trial) / direct
        assert ratio < (winograd.ADMITTED if winograd.admitted(made) else 12), f"F({made}): {ratio:.2f}"


def test_loose_admits_larger_tiles() -> None:
    p = problem((64, 64), (56, 56), (3, 3))
    loose = winograd.tile(dataclasses.replace(p, accuracy="loose"))
    assert winograd.admitted(winograd.tile(p)) and not winograd.admitted(loose) and not winograd.admitted((5, 5))
    assert winograd.tile(dataclasses.replace(p, batch=9)) == winograd.tile(p)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_windows(value: float, isa: str) -> None:
    stays_inside(problem((5, 9), (14, 15), (3, 3)), "winograd", isa, value)
    stays_inside(problem((5, 9), (14, 15), (3, 3), dilation=(2, 3), padding=2), "winograd", isa, value)


@pytest.mark.parametrize("isa", ISAS)
def test_an_overflow_of_the_transform_alone_is_repaired(isa: str) -> None:
    p = problem((4, 8), (9, 9), (3, 3))
    x, w, b, _ = accuracy.random_arrays(p, np.random.default_rng(4))
    x, w = (np.clip(x, -2, 2) * np.float32(1.6e38)).astype(np.float32), w * np.float32(1e-3)
    out = checks.run(cython_native.NativeKernel(p, Candidate("winograd", isa)), p, accuracy.Arrays(x, w, b, None))
    expected, magnitude = accuracy.oracle(p, x, w, b)
    assert np.isfinite(out).all()
    assert accuracy.compare(out, expected, accuracy.bound(p, "winograd", expected, magnitude, x, w)) <= 1


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", [problem((19, 130), (17, 21), (3, 3), batch=4), problem((33, 20), (5, 5), (3, 3), batch=4),
                               problem((19, 70), (17, 21), (3, 3), batch=4, dilation=2),
                               problem((24, 24), (40, 40), (3, 3), batch=4, groups=2)], ids=lambda p: p.text)
def test_batch_and_threads_change_no_bit(p: ConvProblem, isa: str) -> None:
    same_bits(p, "winograd", isa)


@pytest.mark.parametrize(("p", "reason"), [
    (problem((4, 4), (9, 9), (5, 5)), "kernels of 3 taps"), (problem((4, 4), (9, 9), (1, 1)), "kernels of 3 taps"),
    (problem((4, 4), (9, 9), (3, 3), stride=2, padding=1), "stride 1"),
    (problem((4, 4), (5, 9, 9), (3, 3, 3)), "last two axes")])
def test_refusals(p: ConvProblem, reason: str) -> None:
    assert reason in (cython_native.backend.refuses(p, Candidate("winograd", ISAS[-1])) or "")


def test_strict_never_takes_it() -> None:
    p = problem((64, 64), (56, 56), (3, 3))
    assert fastconv.explain(p, backend="cython").algorithm == "winograd"
    assert fastconv.explain(dataclasses.replace(p, accuracy="strict"), backend="cython").algorithm != "winograd"


def test_packing_counts_where_it_is_part_of_the_call() -> None:
    p = problem((512, 512), (7, 7), (3, 3))
    w = np.zeros((512, 512, 3, 3), np.float32)
    prepared = fastconv.prepare(w, padding=1, backend="cython", input_shape=p.input_shape)
    assert fastconv.explain(p, backend="cython").algorithm == "gemm"
    assert prepared.plan(p.input_shape).seconds < fastconv.explain(p, backend="cython").seconds
