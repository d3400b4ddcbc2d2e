"""Packed weights: kernels with equal keys accept each other's, and no others'."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from problems import plain

from fastconv import algorithms, config, conv2d
from fastconv.backends import Candidate, Kernel, cython_native, registry
from fastconv.problem import ConvProblem


def of(channels: tuple[int, int] = (6, 8), size: tuple[int, ...] = (12, 13), kernel: tuple[int, ...] = (3, 3),
       **keywords: object) -> ConvProblem:
    return plain(channels, size, kernel, **{"bias": True, **keywords})


OTHER_WEIGHTS = (
    of(), of(stride=2), of(stride=(2, 1)), of(dilation=2), of(dilation=(1, 2)), of(kernel=(1, 9)), of(kernel=(9, 1)),
    of((8, 6)), of((12, 8), groups=2), of((6, 8), (4, 12, 13), (1, 3, 3)), of((6, 8), (12, 4, 13), (3, 1, 3)),
    of((6, 8), (140,), (9,)), of(dtype="float64"), of(bias=False), of((6, 6), groups=6), of((6, 12), groups=6),
    of((6, 6), groups=6, stride=2))
SAME_WEIGHTS = (
    of(padding=1), of(padding=((2, 0), (0, 1)), padding_mode="reflect"), of(size=(19, 20)), of(activation="relu"),
    of(residual=True), of(accuracy="strict"),
    dataclasses.replace(of(), batch=3), dataclasses.replace(of(), layout="channels_last"))


def taken(backend: str, problem: ConvProblem) -> Iterator[Candidate]:
    """With every tile that is worth having: problems share some of them."""
    who = registry()[backend]
    for candidate in who.candidates(problem):
        if who.refuses(problem, candidate) is None:
            tiled = algorithms.tiled(candidate.algorithm)
            tiles = tiled.choices(problem) if tiled else (None,)
            yield from (candidate._replace(tile=tile) for tile in tiles)


def weights(problem: ConvProblem) -> tuple[np.ndarray, np.ndarray | None]:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal(problem.weight_shape).astype(problem.dtype)
    return weight, rng.standard_normal(problem.out_channels).astype(problem.dtype) if problem.bias else None


def result(kernel: Kernel, packed: object) -> np.ndarray:
    problem = kernel.problem
    rng = np.random.default_rng(2)
    x, r = (rng.standard_normal(shape).astype(problem.dtype) for shape in (problem.input_shape, problem.output_shape))
    out = np.full(problem.output_shape, np.nan, problem.dtype)
    kernel.run(x, packed, out, r if problem.residual else None)
    return out


def test_equal_keys_mean_equal_packings(backend):
    """What another problem packed, where the keys say so, gives the bits of a problem's own packing."""
    packers, shared = {}, 0
    for problem in (*SAME_WEIGHTS, *OTHER_WEIGHTS):
        weight, bias = weights(problem)
        for candidate in taken(backend, problem):
            kernel = registry()[backend].bind(problem, candidate)
            own = kernel.pack(weight, bias)
            first = packers.setdefault(kernel.pack_key, own)
            if first is not own:
                shared += 1
                assert np.array_equal(result(kernel, first), result(kernel, own)), f"{candidate}: {problem.text}"
    assert shared >= len(SAME_WEIGHTS)


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("channels", [(64, 48), (37, 70), (130, 5), (3, 200)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 2)])
def test_packed_for_one_call_or_for_many_the_bits_are_the_same(kernel, channels, dtype, isa):
    """One call's weights may be written past the caches, where several threads read them."""
    problem = of(channels, (33, 34), kernel, padding=1, dtype=dtype)
    weight, bias = weights(problem)
    x = np.random.default_rng(2).standard_normal(problem.input_shape).astype(dtype)
    with config(isa=isa, num_threads=2):
        for candidate in cython_native.backend.candidates(problem):
            if cython_native.backend.refuses(problem, candidate) is None and candidate.algorithm != "fft":
                prepared = cython_native.backend.bind(problem, candidate)
                expected = np.empty(problem.output_shape, dtype)
                prepared.run(x, prepared.pack(weight, bias), expected)
                for _ in range(3):
                    got = conv2d(x, weight, bias, padding=1, backend="cython", algorithm=candidate.algorithm)
                    assert np.array_equal(got, expected), candidate


def test_what_leaves_the_weights_alone_shares_them(backend):
    """Batch, sizes, padding, epilogue, accuracy, layout: an operator packs once for all of them."""
    keys: dict[Candidate, set[object]] = {}
    for problem in (of(), *SAME_WEIGHTS):
        for candidate in taken(backend, problem):
            keys.setdefault(candidate, set()).add(registry()[backend].bind(problem, candidate).pack_key)
    assert all(len(found) == 1 for found in keys.values()), keys


@pytest.mark.skipif(bool(cython_native.backend.unavailable()), reason="the native kernels are not available")
def test_a_native_kernel_rejects_what_is_not_its_own():
    made = []
    for problem in OTHER_WEIGHTS:
        kernels = [cython_native.backend.bind(problem, c) for c in taken("cython", problem) if c.isa == "baseline"]
        made += [(kernel, kernel.pack(*weights(problem))) for kernel in kernels]
    rejected = 0
    for kernel, _ in made[::20]:
        for other, packed in made:
            if kernel.pack_key != other.pack_key:
                rejected += 1
                with pytest.raises(ValueError, match="packed must come from"):
                    result(kernel, packed)
    assert rejected > 100


@pytest.mark.skipif(cython_native.backend.unavailable() is not None, reason="the native kernels are not available")
@pytest.mark.parametrize("problem", [
    *OTHER_WEIGHTS, of((6, 40), (8, 12, 13), (3, 1, 1)), of((37, 70), kernel=(5, 3)), of((9, 40), (2, 2), padding=1)], ids=str)
@pytest.mark.parametrize("spoiled", [False, True], ids=["finite", "infinite"])
def test_weights_in_any_order(problem, spoiled):
    """Packed as if they were C-contiguous: those of a gradient are a layer's with channels swapped and taps backwards. An
    infinite one is noticed, whose products with the zeros of the padding are not left out then."""
    (w, b), taps = weights(problem), tuple(range(2, 2 + problem.ndim))
    if spoiled:
        w.flat[-1] = np.inf
    orders = [np.asfortranarray(w), np.swapaxes(np.swapaxes(w, 0, 1).copy(), 0, 1), np.flip(np.flip(w, taps).copy(), taps),
              np.flip(np.flip(w).copy()), np.repeat(w, 2, axis=-1)[..., ::2]]
    for candidate in taken("cython", problem):
        kernel = registry()["cython"].bind(problem, candidate)
        expected = result(kernel, kernel.pack(w, b))
        for each in orders:
            np.testing.assert_array_equal(result(kernel, kernel.pack(each, b)), expected)
