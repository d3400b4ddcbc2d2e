"""Every candidate against the oracle: the matrix, random problems, any thread count, forbidden memory on both sides."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import numpy as np
import pytest
from conftest import backends_under_test
from helpers import Guarded, call, error
from hypothesis import given
from hypothesis import strategies as st
from strategies import problems

import fastconv
from fastconv import settings
from fastconv.algorithms import sums_products
from fastconv.backends import Candidate, registry
from fastconv.candidates import bind
from fastconv.problem import ConvProblem
from fastconv.verify import bounds, check, reference
from fastconv.verify.data import Arrays, integer_arrays, random_arrays
from fastconv.verify.judge import Judge
from fastconv.verify.matrix import matrix


def candidates(backend: str, problem: ConvProblem) -> list[Candidate]:
    who = registry()[backend]
    return [c for c in who.candidates(problem) if who.refuses(problem, c) is None]


def arrays_of(problem: ConvProblem, integers: bool = False) -> Arrays:
    rng = np.random.default_rng(zlib.crc32(problem.text.encode()))
    return integer_arrays(problem, rng) if integers else random_arrays(problem, rng)


def test_the_matrix(backend):
    report = fastconv.check(backends=[backend])
    print(report)
    assert report.ok, "\n".join(map(str, report.failures[:10]))
    assert all(row.passed == row.problems for row in report.rows)
    taken = sum(row.problems for row in report.rows)
    assert taken >= len(matrix()), "a forward problem that no candidate takes"


@given(problem=problems())
def test_random_problems(backend, problem):
    report = fastconv.check([problem], backends=[backend])
    assert not report.failures, str(report)


@given(problem=problems(largest=10_000))
def test_the_public_call_agrees(backend, problem):
    """From arguments to result: what `check` goes past."""
    arrays = arrays_of(problem)
    chosen = fastconv.explain(problem, backend=backend)
    y = call(problem, arrays, backend=backend)
    assert error(problem, arrays, y, chosen.algorithm) <= 1


# ---- threads and batches

STEADY = [problem for problem in matrix() if problem.name in (
    "3x3", "3x3 tails", "1x1 tails", "7x7 stride", "deep 3x3", "deep 1x1", "depthwise, 8 channels", "depthwise 5x5", "batch",
    "3 groups of 5 and 7", "1d long", "3d", "kernel is input", "gelu")]
LARGER = [ConvProblem.from_text(text) for text in (
    "mb3_ic24ih30iw31_oc40oh30_kh3ph1", "--stag=axb mb2_ic48ih17_oc33oh17_kh1", "--dt=f64 mb2_ic16ih19_oc20oh10_kh3sh2ph1",
    "mb2_g64ic64ih24_oc64oh24_kh3ph1", "--attr-post-ops=sum+relu mb2_ic512ih7_oc48oh7_kh3ph1")]


def test_any_number_of_threads_gives_the_same_bits(backend):
    if backend == "naive":
        pytest.skip("has no threads, and no time")
    for problem in (*STEADY, *LARGER):
        for candidate in candidates(backend, problem):
            integers = candidate.algorithm == "im2col"  # BLAS promises it on integers only
            arrays = arrays_of(problem, integers)
            kernel = bind(problem, backend, candidate)
            outputs = []
            for threads in (1, 2, 8, 3):
                with settings.config(num_threads=threads):
                    outputs.append(check.run(kernel, problem, arrays).tobytes())
            assert len(set(outputs)) == 1, f"{backend} {candidate}: {problem.text}"


def test_an_image_alone_or_in_a_batch_gives_the_same_bits(backend):
    for problem in STEADY if backend == "naive" else (*STEADY, *LARGER):
        five = dataclasses.replace(problem, batch=5)
        for candidate in candidates(backend, five):
            arrays = arrays_of(five, integers=candidate.algorithm == "im2col")
            whole = check.run(bind(five, backend, candidate), five, arrays)
            for first, last in ((0, 1), (4, 5), (1, 4)):
                some = dataclasses.replace(problem, batch=last - first)
                part = Arrays(arrays.x[first:last], arrays.w, arrays.b,
                              None if arrays.residual is None else arrays.residual[first:last])
                assert candidate in candidates(backend, some)
                alone = check.run(bind(some, backend, candidate), some, part)
                assert np.array_equal(alone, whole[first:last]), f"{backend} {candidate}: {problem.text}"


def test_the_plan_does_not_depend_on_batch_or_threads():
    for problem in STEADY:
        chosen = set()
        for batch in (1, 2, 17):
            for threads in (1, 2, 8):
                with settings.config(num_threads=threads):
                    made = fastconv.explain(dataclasses.replace(problem, batch=batch))
                chosen.add((made.backend, made.candidate))
        assert len(chosen) == 1, f"{problem.text}: {chosen}"


# ---- memory

def test_nothing_beyond_the_arrays_is_touched(backend, guarded):
    """Inputs read-only, every array flush against forbidden memory: one element too far ends the process."""
    for problem in matrix():
        for candidate in candidates(backend, problem):
            arrays = arrays_of(problem, integers=True)
            flush = Arrays(*(None if a is None else guarded.copy(a) for a in arrays))
            out = guarded.copy(np.full(problem.output_shape, np.nan, problem.dtype), read_only=False)
            kernel = bind(problem, backend, candidate)
            kernel.run(flush.x, kernel.pack(flush.w, flush.b), out, flush.residual)
            assert not np.isnan(out).any(), f"{backend} {candidate}: {problem.text}"
        guarded.maps.clear()


def test_the_guard_bites(guarded):
    """A read beyond the end does end a process (in a child, of course)."""
    import os
    import signal

    array = guarded.copy(np.arange(5.0))
    child = os.fork()
    if child == 0:
        import ctypes

        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        beyond = array.ctypes.data + (array.nbytes if guarded.side == "end" else -8)
        ctypes.string_at(beyond, 8)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGSEGV, signal.SIGBUS)


# ---- what ran is what was asked for

def test_asked_for_by_name_is_what_the_plan_says(backend):
    for problem in STEADY[:6]:
        for candidate in candidates(backend, problem):
            if problem.accuracy == "strict" and not sums_products(candidate.algorithm):
                continue
            with settings.config(isa=candidate.isa):
                made = fastconv.explain(problem, backend=backend, algorithm=candidate.algorithm)
            assert (made.backend, made.algorithm) == (backend, candidate.algorithm)
            assert candidate.isa is None or made.isa == candidate.isa


def test_a_forced_isa_really_runs():
    """`isa` in the settings leaves the native backend that build and no other; an unknown one is an error."""
    native = registry()["cython"]
    reason = native.unavailable()
    if reason is not None:
        pytest.skip(reason)
    problem = STEADY[0]
    isas = sorted({candidate.isa for candidate in native.candidates(problem)})
    assert "baseline" in isas
    arrays = arrays_of(problem)
    for isa in isas:
        with settings.config(isa=isa):
            made = fastconv.explain(problem, backend="cython")
            assert made.isa == isa and {c.isa for c in native.candidates(problem)} == {isa}
            assert f"/{isa}" in str(made)
            y = call(problem, arrays, backend="cython")
        assert np.array_equal(y, check.run(bind(problem, "cython", made.candidate), problem, arrays))


def test_an_isa_that_cannot_run_here_is_unavailable():
    native = registry()["cython"]
    if native.unavailable() is not None:
        pytest.skip(native.unavailable())
    here = {candidate.isa for candidate in native.candidates(STEADY[0])}
    for isa in set(settings.ISAS) - here:
        with settings.config(isa=isa), pytest.raises(fastconv.Unavailable, match=isa):
            fastconv.explain(STEADY[0], backend="cython")


# ---- exact identities, on integers: no reference needed

def integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-4, 5, shape).astype(np.float32)


def test_identities_on_integers(backend, rng):
    def conv(x: np.ndarray, w: np.ndarray, **keywords: Any) -> np.ndarray:
        return fastconv.conv2d(x, w, backend=backend, accuracy="strict", **keywords)

    x, y, w = integers(rng, 2, 6, 9, 10), integers(rng, 2, 6, 9, 10), integers(rng, 8, 6, 3, 3)
    grouped = integers(rng, 8, 3, 3, 3)
    base = conv(x, w)
    assert np.array_equal(conv(x + 2 * y, w), base + 2 * conv(y, w))  # linear
    assert np.array_equal(conv(x[:, :, 1:, 2:], w), base[:, :, 1:, 2:])  # shifted
    assert np.array_equal(conv(x, w, stride=(2, 3)), base[:, :, ::2, ::3])  # a stride takes every so many
    halves = [conv(x[:, 3 * g:3 * g + 3], grouped[4 * g:4 * g + 4]) for g in range(2)]
    assert np.array_equal(conv(x, grouped, groups=2), np.concatenate(halves, axis=1))
    stuffed = np.zeros((8, 6, 5, 7), np.float32)
    stuffed[:, :, ::2, ::3] = w
    assert np.array_equal(conv(x, w, dilation=(2, 3)), conv(x, stuffed))
    for mode, numpys in (("zeros", "constant"), ("reflect", "reflect"), ("symmetric", "symmetric"), ("replicate", "edge"),
                         ("circular", "wrap")):
        padded = np.pad(x, ((0, 0), (0, 0), (1, 3), (2, 0)), mode=numpys)
        assert np.array_equal(conv(x, w, padding=((1, 3), (2, 0)), padding_mode=mode), conv(padded, w))
    assert np.array_equal(base, np.concatenate([conv(image[None], w) for image in x]))
    last = conv(np.ascontiguousarray(np.moveaxis(x, 1, -1)), w, layout="NHWC")
    assert np.array_equal(np.moveaxis(last, -1, 1), base)


@given(seed=st.integers(0, 2**32 - 1), problem=problems(largest=5000))
def test_sampled_and_full_references_agree(seed, problem):
    """`sample` (windows gathered by index) and `oracle` (the naive loops) were written apart."""
    rng = np.random.default_rng(seed)
    arrays = random_arrays(problem, rng)
    expected, magnitude = reference.oracle(problem, *arrays)
    points = reference.sample_points(problem, 30, rng)
    judge = Judge(problem, arrays, points)
    some, allowed = judge.expected, judge.allowed("direct")
    whole = bounds.bound(problem, "direct", expected, magnitude, arrays.x, arrays.w)
    np.testing.assert_allclose(some, reference.at(problem, expected, points), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(allowed, reference.at(problem, whole, points), rtol=1e-9)


def test_an_unknown_algorithm_has_no_bound():
    problem = STEADY[0]
    arrays = arrays_of(problem)
    expected, magnitude = reference.oracle(problem, *arrays)
    with pytest.raises(ValueError, match="'guess'"):
        bounds.bound(problem, "guess", expected, magnitude, arrays.x, arrays.w)


def test_compare_lets_no_nan_pass():
    one = np.ones(3)
    assert bounds.compare(one, one, 0 * one) == 0
    assert bounds.compare(one + 0.5, one, one) == 0.5
    assert bounds.compare(np.array([1, np.nan, 1]), one, one) == np.inf
    assert bounds.compare(np.array([1, np.inf, 1]), one, one) == np.inf
    assert bounds.compare(one, np.array([1, np.nan, 1]), one) == np.inf
    assert bounds.compare(np.array([1, -np.inf, 1]), np.array([1, np.inf, 1]), one) == np.inf
    assert bounds.compare(np.array([1, np.inf, np.nan]), np.array([1, np.inf, np.nan]), one) == 0
    assert bounds.compare(one + 1e-9, one, 0 * one) == np.inf


def test_every_backend_is_tested(request):
    """Nothing drops out of the parametrisation unnoticed."""
    tested = backends_under_test(request.config)
    if not request.config.getoption("--backends"):
        assert tested == [n for n, reason in fastconv.backends().items() if reason is None and registry()[n].device == "cpu"]
    assert "naive" in tested or request.config.getoption("--backends")


def test_guarded_copies_are_where_they_should_be():
    import mmap

    for side in ("end", "start"):
        array = Guarded(side).copy(np.arange(7, dtype=np.float32))
        edge = array.ctypes.data + (array.nbytes if side == "end" else 0)
        assert edge % mmap.PAGESIZE == 0 and array.tolist() == list(range(7)) and not array.flags.writeable
