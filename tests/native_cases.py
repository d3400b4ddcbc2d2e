"""What the tests of single native algorithms share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

import fastconv
from fastconv.backends import Candidate, Kernel, cython_native, get
from fastconv.problem import ConvProblem
from fastconv.verify import bounds, check, reference
from fastconv.verify.data import Arrays, integer_arrays, random_arrays

LIE = (  # an array of the same values, in other strides
    np.asfortranarray, lambda a: a[..., ::-1].copy()[..., ::-1], lambda a: a[::-1].copy()[::-1],
    lambda a: np.repeat(a, 2, axis=-1)[..., ::2], lambda a: np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1))


def isas_and_numba() -> tuple[str, ...]:
    """The ISAs, and, where it is installed, the backend that computes the same algorithm: the tests of one are those of all."""
    return cython_native.runnable_isas() + (("numba",) if get("numba").unavailable() is None else ())


def kernel_of(p: ConvProblem, algorithm: str, isa: str, tile: tuple[int, ...] | None = None) -> Kernel:
    """Not `candidates.bind`, which remembers an earlier tile."""
    if isa == "numba":
        return get("numba").bind(p, Candidate(algorithm))
    return cython_native.backend.bind(p, Candidate(algorithm, isa, tile))


def runner(algorithm: str) -> Callable[..., np.ndarray]:
    """A function that computes a problem, in its direction, by that algorithm of an ISA."""

    def run(p: ConvProblem, isa: str, arrays: Arrays, threads: int = 2, out: np.ndarray | None = None,
            tile: tuple[int, ...] | None = None) -> np.ndarray:
        kernel = kernel_of(p, algorithm, isa, tile)
        made = np.full(p.result_shape, np.nan, p.dtype) if out is None else out
        with fastconv.config(num_threads=threads):
            kernel.run(arrays.x, kernel.pack(arrays.w, arrays.b), made, arrays.residual)
        return made

    return run


def verify(p: ConvProblem, algorithm: str, isa: str) -> None:
    """Random data, integers, strided arrays; whatever tile is chosen now."""
    for trial in check.trials(p):
        kernel = kernel_of(p, algorithm, isa)
        spoiled = False
        if trial.strided:
            out, spoiled = check.run_strided(kernel, p, trial)
        else:
            out = check.run(kernel, p, trial.judge.arrays)
        assert not spoiled, trial.name
        assert trial.judge.wrong(out, algorithm) is None, trial.name


def stays_inside(p: ConvProblem, algorithm: str, isa: str, value: float) -> None:
    """A value that is not finite, in the input's middle and corner and in a weight, reaches its outputs, and no other."""
    x, w, b, _ = random_arrays(p, np.random.default_rng(3))
    centre = [length // 2 for length in p.input_size]
    middle = (0, *centre, p.in_channels - 1) if p.channels_last else (0, p.in_channels - 1, *centre)
    for spoil, position in ((x, middle), (x, (0,) * x.ndim), (w, (p.out_channels // 2,) + (0,) * (w.ndim - 1))):
        kept = spoil[position]
        spoil[position] = value
        out = check.run(kernel_of(p, algorithm, isa), p, Arrays(x, w, b, None))
        expected, magnitude = reference.oracle(p, x, w, b)
        assert not np.isfinite(expected).all() and np.isfinite(expected).any()
        assert bounds.compare(out, expected, bounds.bound(p, algorithm, expected, magnitude, x, w)) <= 1
        spoil[position] = kept


def same_bits(p: ConvProblem, algorithm: str, isa: str) -> None:
    """Whatever batch an image is part of, and however many threads."""
    x, w, b, _ = random_arrays(p, np.random.default_rng(5))

    def run(problem: ConvProblem, x: np.ndarray) -> np.ndarray:
        kernel = kernel_of(problem, algorithm, isa)
        return check.run(kernel, problem, Arrays(x, w, b, None))

    with fastconv.config(num_threads=1):
        whole = run(p, x)
        for image in range(p.batch):
            assert np.array_equal(run(dataclasses.replace(p, batch=1), x[image:image + 1]), whole[image:image + 1])
    for threads in (2, 3, 8):
        with fastconv.config(num_threads=threads):
            for _ in range(5):
                assert np.array_equal(run(p, x), whole)


def any_strides(p: ConvProblem, isa: str, arrays: Arrays, run: Callable[..., np.ndarray]) -> None:
    """The same bits, however operands and result lie.

    Args:
        run: takes the first three of these, and `out`.
    """
    expected = run(p, isa, arrays)
    for turned in LIE:
        out = turned(np.full(p.result_shape, np.nan, p.dtype))
        residual = None if arrays.residual is None else turned(arrays.residual)
        run(p, isa, Arrays(turned(arrays.x), turned(arrays.w), arrays.b, residual), out=out)
        np.testing.assert_array_equal(out, expected)


def integers_exactly_and_random_data_within_bounds(p: ConvProblem, algorithm: str, run: Callable[..., np.ndarray]) -> None:
    """On every ISA.

    Args:
        run: takes the problem, an ISA and the arrays.
    """
    rng = np.random.default_rng(1)
    for exact, arrays in ((True, integer_arrays(p, rng)), (False, random_arrays(p, rng))):
        expected, magnitude = reference.oracle(p, arrays.x, arrays.w, arrays.b, arrays.residual)
        allowed = bounds.bound(p, algorithm, expected, magnitude, arrays.x, arrays.w, exact)
        for isa in cython_native.runnable_isas():
            assert bounds.compare(run(p, isa, arrays), expected, allowed) <= 1, isa
