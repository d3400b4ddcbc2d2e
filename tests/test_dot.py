"""The dot algorithm: weights that are read where they lie, and not a byte beyond them; when it is chosen."""

from __future__ import annotations

import dataclasses
import gc

import numpy as np
import pytest
from native_cases import same_bits, stays_inside, verify
from problems import problem

import fastconv
from fastconv import plan
from fastconv.backends import Candidate, cython_native
from fastconv.problem import ConvProblem
from fastconv.verify import bounds, reference
from fastconv.verify.data import random_arrays

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)

CASES = [
    problem((37, 19), (1, 1), (1, 1)),  # one pixel
    problem((1100, 30), (1, 1), (1, 1), batch=9),  # pixels of several images in a tile; several blocks of k
    problem((70, 33), (7, 7), (3, 3), activation="relu"),
    problem((300, 5), (5, 4), (3, 3), batch=2, dtype="float64"),  # a block of k ends between the taps of a channel
    problem((3, 270), (4, 3), (2, 2), layout="channels_last"),  # two chunks of output channels
    problem((33, 300), (10, 13), (1, 1), activation="gelu"),  # several blocks of pixels, transposed
    problem((33, 21), (10, 13), (1, 1), stride=2, padding=1),
    problem((300, 50), (3, 5), (1, 1), layout="channels_last", batch=3, dtype="float64"),  # read where they lie
    problem((20, 30), (6, 7), (6, 7), padding=0),  # likewise: the kernel is the image
    problem((3, 8), (40, 9), (12, 1), padding=0, layout="channels_last"),
    problem((12, 18), (16,), (3,), groups=2, batch=3),
    problem((9, 9), (8, 9), (3, 3), groups=9),
    problem((5, 7), (4, 5, 6), (2, 3, 2), stride=2, padding=1, dilation=(1, 2, 1)),
    *(problem((8, 9), (9, 8), (3, 2), dilation=2, padding=2, padding_mode=mode)
      for mode in ("reflect", "symmetric", "replicate", "circular")),
    problem((1, 2), (40,), (9000,), stride=150, padding=5000),  # so many taps that a block has few pixels
    # transposed: three blocks of k that end with a whole channel, the last pixel's before the sums of those gone by
    *(problem((channels, 9), (3,) * len(kernel), kernel, layout="channels_last", dtype=dtype)
      for dtype, times in (("float32", 2), ("float64", 1))
      for channels, kernel in ((264 * times, (3,)), (168 * times, (5,)), (120 * times, (3, 3)))),
    problem((515, 9), (3,), (3,), stride=3, padding_mode="reflect", padding=1,
            layout="channels_last", batch=3, dtype="float64"),
]


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("p", CASES, ids=lambda p: p.text)
def test_right_and_the_same_whatever_batch_and_threads(p: ConvProblem, isa: str) -> None:
    verify(p, "dot", isa)
    same_bits(p, "dot", isa)


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_where_it_is_seen(value: float, isa: str) -> None:
    stays_inside(problem((7, 9), (9, 8), (3, 3)), "dot", isa, value)
    stays_inside(problem((700, 6), (3, 3), (1, 1)), "dot", isa, value)


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size, kernel", [(1, 1), (2, 1), (3, 3), (4, 2)])
def test_nothing_beyond_the_weights_is_read(size: int, kernel: int, dtype: str, bias: bool, isa: str, guarded) -> None:
    """By calls that pack nothing: the first goes the long way, the second takes the shortcut."""
    for channels, outputs in ((1, 1), (3, 5), (7, 4), (16, 9), (31, 2), (515, 6)):
        p = ConvProblem((size, size), (kernel, kernel), channels, outputs, bias=bias, dtype=dtype)
        arrays = random_arrays(p, np.random.default_rng(0))
        x, w, b = (None if a is None else guarded.copy(a) for a in arrays[:3])
        expected, magnitude = reference.oracle(p, *arrays[:3])
        with fastconv.config(isa=isa):
            for _ in range(2):
                out = fastconv.conv2d(x, w, b, algorithm="dot", backend="cython")
                assert bounds.compare(out, expected, bounds.bound(p, "dot", expected, magnitude, x, w)) <= 1


def test_calls_follow_the_weights_and_operators_keep_a_copy() -> None:
    x, w, b = np.ones((1, 3, 2, 2), np.float32), np.ones((2, 3, 1, 1), np.float32), np.zeros(2, np.float32)
    operator = fastconv.prepare(w, b, algorithm="dot", backend="cython", input_shape=x.shape)
    assert operator.packed_bytes == w.nbytes + b.nbytes
    for value in (1, 2, 3):
        w[...], b[...] = value, 10 * value
        assert (fastconv.conv2d(x, w, b, algorithm="dot", backend="cython") == 13 * value).all()
        assert (operator(x) == 3).all()


def test_weights_of_other_strides_are_copied() -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((2, 6, 3, 3), (5, 6, 3, 2)))
    expected = fastconv.conv2d(x, w, backend="naive")
    for lies in (np.asfortranarray(w), w[::-1].copy()[::-1], np.repeat(w, 2, axis=1)[:, ::2]):
        for _ in range(2):
            assert np.array_equal(fastconv.conv2d(x, lies, algorithm="dot", backend="cython"), expected)


def test_strict_is_refused() -> None:
    """Its sums run in one order, packed beforehand or not."""
    p = dataclasses.replace(problem((512, 512), (1, 1), (1, 1)), accuracy="strict")
    assert "strict" in (cython_native.backend.refuses(p, Candidate("dot", "baseline")) or "")
    assert fastconv.explain(p, backend="cython").algorithm != "dot"


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
def test_chosen_where_packing_would_take_longer(isa: str) -> None:
    few = [problem((2048, 1000), (1, 1), (1, 1)), problem((512, 512), (1, 1), (1, 1)), problem((512, 512), (4, 4), (3, 3)),
           problem((1024, 512), (1,), (3,))]
    many = [problem((512, 512), (28, 28), (3, 3)), problem((64, 64), (56, 56), (1, 1)), problem((3, 16), (64, 64), (3, 3))]
    with fastconv.config(isa=isa):
        for p in few:
            assert plan.plan(p, "cython").algorithm == "dot", p.text
        for p in many:
            assert plan.plan(p, "cython").algorithm != "dot", p.text
        assert plan.plan(problem((512, 512), (14, 14), (3, 3)), "cython", prepared=True).algorithm != "dot"


def test_weights_that_are_read_where_they_lie_survive_a_collection_of_garbage():
    """In a cycle, the packed ones are cleared first and freed last, and must still know that the memory is not theirs."""
    candidate = Candidate("dot", cython_native.chosen_isas()[0])
    kernel = cython_native.NativeKernel(problem((3, 4), (7, 8), (3, 3), bias=False), candidate)

    class Weight(np.ndarray):
        back: object

    gc.disable()
    try:
        for _ in range(20):
            weight = np.ones((4, 3, 3, 3), np.float32).view(Weight)
            weight.flags.writeable = False
            gc.collect(0)  # what is younger is cleared first
            weight.back = kernel.pack(weight, None)
            del weight
            assert gc.collect() > 0
    finally:
        gc.enable()
