"""Gradients of the input whose phases are one forward problem: right wherever they apply, chosen where they pay."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from problems import plain

import fastconv
from fastconv import candidates, lowering_costs, phases_at_once, settings
from fastconv.backends import cython_native
from fastconv.native import runtime
from fastconv.problem import ConvProblem
from fastconv.verify import bounds, reference
from fastconv.verify.data import Arrays, integer_arrays, random_arrays

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)


def gradient(channels: tuple[int, int], size: tuple[int, ...], kernel: tuple[int, ...], **more) -> ConvProblem:
    return plain(channels, size, kernel, direction="backward_input", **more)


CASES = [
    gradient((3, 5), (12, 14), (4, 4), stride=2, padding=1, batch=3),  # no zeros
    gradient((3, 5), (13, 11), (3, 3), stride=2, padding=1),  # phases of one tap and of two
    gradient((4, 6), (17, 19), (9, 9), stride=4, padding=4, groups=2, batch=2),
    gradient((1, 8), (30, 30), (9, 9), stride=3, padding=3),
    gradient((6, 6), (16, 15), (5, 5), stride=2, padding=2, groups=6, batch=2),
    gradient((2, 3), (40,), (25,), stride=4, padding=11),
    gradient((2, 3), (9, 10, 7), (2, 3, 2), stride=(2, 2, 1), batch=2),
    gradient((2, 3), (23, 24), (3, 3), stride=(3, 2), dilation=(2, 3), padding=2),
    gradient((5, 2), (20, 21), (2, 2), stride=3),  # a phase without taps
    gradient((2, 2), (9, 35), (3, 5), stride=(1, 16)),
    gradient((3, 4), (14, 9), (4, 3), stride=(4, 1)),
    gradient((2, 3), (64, 64), (8, 8), stride=8),
]
BIASED = [dataclasses.replace(p, bias=True, activation=("relu", 0.0)) for p in CASES[:4]]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All that applies is taken."""
    monkeypatch.setattr(lowering_costs, "joining_pays", lambda *_: True)
    for cache in (candidates._bind, candidates._joined):
        cache.cache_clear()
    yield
    for cache in (candidates._bind, candidates._joined):
        cache.cache_clear()


def kernels(p: ConvProblem) -> Iterator[tuple[str, phases_at_once.JoinedKernel]]:
    """Of every algorithm of the best ISA."""
    found = 0
    for each in candidates.ranked(p, "cython")[0]:
        kernel = candidates.bind(p, "cython", each.candidate)
        if isinstance(kernel, phases_at_once.JoinedKernel):
            found += 1
            yield each.candidate.algorithm, kernel
    assert found >= 2


def run(kernel, p: ConvProblem, arrays: Arrays) -> np.ndarray:
    out = np.full(p.result_shape, np.nan, p.dtype)
    kernel.run(arrays.x, kernel.pack(arrays.w, arrays.b), out)
    return out


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("dtype", "layout"), [("float32", "channels_first"), ("float64", "channels_last")])
@pytest.mark.parametrize("p", CASES + BIASED, ids=str)
def test_every_algorithm(p, dtype, layout):
    p = dataclasses.replace(p, dtype=dtype, layout=layout)
    for arrays in (random_arrays(p, np.random.default_rng(1)), integer_arrays(p, np.random.default_rng(2))):
        expected, magnitude = reference.oracle(p, arrays.x, arrays.w, arrays.b)
        for algorithm, kernel in kernels(p):
            allowed = bounds.bound(p, algorithm, expected, magnitude, arrays.x, arrays.w)
            assert bounds.compare(run(kernel, p, arrays), expected, allowed) <= 1, algorithm


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_where_its_phase_reads_it(value):
    """And images that are finite keep their bits."""
    p = dataclasses.replace(CASES[1], batch=3)
    arrays = random_arrays(p, np.random.default_rng(3))
    for algorithm, kernel in kernels(p):
        before = run(kernel, p, arrays)
        spoiled = arrays.x.copy()
        spoiled[1, 2, 3, 3] = value
        out = run(kernel, p, arrays._replace(x=spoiled))
        expected, magnitude = reference.oracle(p, spoiled, arrays.w)
        assert 0 < np.isnan(expected).sum() + np.isinf(expected).sum() < expected[1].size
        allowed = bounds.bound(p, algorithm, expected, magnitude, spoiled, arrays.w)
        assert bounds.compare(out, expected, allowed) <= 1, algorithm
        np.testing.assert_array_equal(out[::2], before[::2])
        weight = arrays.w.copy()
        weight[2, 1, 0, 2] = value
        expected, magnitude = reference.oracle(p, arrays.x, weight)
        out = run(kernel, p, arrays._replace(w=weight))
        assert bounds.compare(out, expected, bounds.bound(p, algorithm, expected, magnitude, arrays.x, weight)) <= 1


@pytest.mark.usefixtures("at_once")
def test_same_bits_in_any_batch_for_any_threads_and_into_any_strides(monkeypatch):
    p = dataclasses.replace(CASES[0], batch=5)
    arrays = random_arrays(p, np.random.default_rng(4))
    candidate = candidates.ranked(p, "cython", "gemm")[0][0].candidate
    expected = run(candidates.bind(p, "cython", candidate), p, arrays)
    for threads in (1, 3):
        with settings.config(num_threads=threads):
            np.testing.assert_array_equal(run(candidates.bind(p, "cython", candidate), p, arrays), expected)
    alone = dataclasses.replace(p, batch=1)
    for i in range(p.batch):
        one = run(candidates.bind(alone, "cython", candidate), alone, Arrays(arrays.x[i:i + 1], arrays.w, None, None))
        np.testing.assert_array_equal(one[0], expected[i])
    image = expected[0].nbytes * 2  # positions of which some phases have no use
    for at_once in (1, 2 * image):  # images one by one, and two at a time with one left over
        monkeypatch.setattr(phases_at_once, "_AT_ONCE", at_once)
        candidates._bind.cache_clear()
        np.testing.assert_array_equal(run(candidates.bind(p, "cython", candidate), p, arrays), expected)
    kernel = candidates.bind(p, "cython", candidate)
    for out in (np.full(p.result_shape[::-1], np.nan, p.dtype).T, np.full(p.result_shape, np.nan, p.dtype)[..., ::-1]):
        kernel.run(arrays.x, kernel.pack(arrays.w, None), out)
        np.testing.assert_array_equal(out, expected)


def test_where_it_does_not_apply():
    for p in (plain((3, 5), (12, 14), (4, 4), stride=2), gradient((3, 5), (12, 14), (4, 4)),
              gradient((3, 5), (12, 14), (4, 4), stride=2, padding=1, padding_mode="reflect"),
              dataclasses.replace(CASES[0], residual=True), dataclasses.replace(CASES[0], accuracy="strict"),
              dataclasses.replace(CASES[0], batch=0)):
        assert phases_at_once.joined(p) is None, p.text


def test_it_is_chosen_where_phases_are_thin():
    p = gradient((1, 56), (512, 512), (9, 9), stride=4, padding=4)
    assert isinstance(candidates.bind(p, "cython", candidates.ranked(p, "cython")[0][0].candidate), phases_at_once.JoinedKernel)


@pytest.mark.usefixtures("at_once")
def test_packed_weights_say_which_taps_they_are():
    """Kernels of 3 and of 4 taps have phases of 2, a dilation changes which they are, an image's size does not."""
    def key(kernel: int, width: int, **more) -> object:
        p = gradient((2, 3), (width, 12), (kernel, kernel), stride=2, **more)
        return candidates.bind(p, "cython", candidates.ranked(p, "cython", "gemm")[0][0].candidate).pack_key

    assert len({key(3, 13), key(4, 13), key(3, 13, padding=1), key(3, 13, dilation=3)}) == 4
    assert key(3, 13) == key(3, 15)


def test_as_many_phases_as_the_runtime_takes():
    most = phases_at_once.MOST
    for stride, applies in ((most, True), (most + 1, False)):
        assert (phases_at_once.joined(gradient((1, 1), (2 * stride,), (stride,), stride=stride)) is not None) == applies
        source, target = np.zeros((1, 1, stride, 1, 2), np.float32), np.zeros((1, 1, 2 * stride), np.float32)
        if applies:
            runtime().join_phases(source, target, (stride,), ((0,) * stride,), False)
        else:
            with pytest.raises(ValueError, match="offsets"):
                runtime().join_phases(source, target, (stride,), ((0,) * stride,), False)


def test_a_residual_changes_no_choice():
    """What `PreparedConv.plan` tells holds for calls with one, which are computed phase by phase."""
    for p in CASES:
        with_residual = dataclasses.replace(p, residual=True)
        chosen = [[each.candidate for each in candidates.ranked(q, "cython")[0]] for q in (p, with_residual)]
        assert chosen[0] == chosen[1]
        assert not isinstance(candidates.bind(with_residual, "cython", chosen[0][0]), phases_at_once.JoinedKernel)


def test_arrays_that_do_not_fit_are_refused():
    source, target = np.zeros((1, 1, 4, 2, 3, 3), np.float32), np.zeros((1, 2, 6, 6), np.float32)
    offsets = ((0, 0), (0, 0))
    assert not runtime().join_phases(source, target, (2, 2), offsets, False).any()
    for arguments in ((source, target, (2, 2), ((0, 1), (0, 0)), False), (source[:, :, :3], target, (2, 2), offsets, False),
                      (source, target[:, :1], (2, 2), offsets, False),
                      (source, np.zeros_like(target, np.float64), (2, 2), offsets, False),
                      (source, target, (2, 3), offsets, False), (source[0], target, (2, 2), offsets, False)):
        with pytest.raises(ValueError, match=r"source|target|offsets"):
            runtime().join_phases(*arguments)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arranged(dtype):
    rng = np.random.default_rng(0)
    for shape in ((70, 33, 3, 4), (3, 5), (40, 1, 2, 3, 4)):
        source = rng.standard_normal(shape[::-1]).astype(dtype).T[..., ::-1]
        for threads in (1, 3):
            target = np.full(shape, np.nan, dtype)
            runtime().arrange(source, target, threads)
            np.testing.assert_array_equal(target, source)
    with pytest.raises(ValueError, match="target must be as source"):
        runtime().arrange(source, target[:1])
    with pytest.raises(ValueError, match="float32 or float64"):
        runtime().arrange(source.astype(np.int32), target)


def test_a_prepared_transposed_convolution_keeps_its_weights():
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((2, 56, 9, 9), np.float32), rng.standard_normal((56, 1, 9, 9), np.float32)
    operator = fastconv.prepare(w, stride=4, padding=4, transposed=True, backend="cython")
    expected = operator(x)
    w[:] = np.nan
    np.testing.assert_array_equal(operator(x), expected)
    x[1, 0, 0, 0] = np.inf
    np.testing.assert_array_equal(operator(x)[0], expected[0])
