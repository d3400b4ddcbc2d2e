"""Rows that are taken apart by a stride along w: every way of doing so, its tails and edges, and no read beyond the array."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from native_cases import same_bits, stays_inside, verify
from problems import problem

import fastconv
from fastconv.backends import Candidate, cython_native
from fastconv.problem import ConvProblem
from fastconv.verify import bounds, check, reference
from fastconv.verify.data import random_arrays

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)

ISAS = cython_native.runnable_isas()
# (taps, stride): as many taps as the stride, more, fewer; at, above and below multiples of 4, 8 and 16
SHAPES = ((3, 3), (5, 3), (2, 3), (4, 4), (5, 5), (6, 9), (7, 4), (8, 8), (9, 8), (10, 5), (14, 14), (16, 16), (19, 16),
          (5, 16), (12, 17), (17, 17))


def row(taps: int, stride: int, outputs: int, **keywords: object) -> ConvProblem:
    """One long row, as many inputs as its outputs read and not one more."""
    return problem((2, 7), ((outputs - 1) * stride + taps,), (taps,), stride=stride, padding=0, **keywords)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ["gemm", "direct"])
@pytest.mark.parametrize("taps, stride", SHAPES)
def test_a_row_of_any_length(taps: int, stride: int, algorithm: str, isa: str) -> None:
    for outputs in (1, 2, 7, 8, 9, 17, 41):
        for dtype in ("float32", "float64"):
            verify(dataclasses.replace(row(taps, stride, outputs), dtype=dtype), algorithm, isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ["gemm", "direct"])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
@pytest.mark.parametrize("taps, stride", SHAPES)
def test_edges_of_planes(taps: int, stride: int, mode: str, algorithm: str, isa: str) -> None:
    for padding in (((0, 1), (2, 0)), ((1, 0), (taps // 2, taps + 3))):
        for width in (7, 11):
            p = problem((2, 5), (7, width * stride + taps // 3), (2, taps), stride=(2, stride), padding=padding,
                        padding_mode=mode, layout="channels_last" if width == 7 else "channels_first", activation="relu")
            verify(p, algorithm, isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ["gemm", "direct"])
@pytest.mark.parametrize("kernel, stride, size", [
    ((3, 3), (3, 3), (57, 33)), ((4, 4), (4, 4), (12, 28)), ((2, 2), (2, 2), (9, 15)), ((2, 3), (5, 4), (23, 29)),
    ((16, 16), (16, 16), (48, 115)), ((5, 8), (6, 8), (17, 8)), ((3, 3), (3, 3), (3, 3)), ((1, 1), (3, 3), (20, 20))])
def test_patches(kernel: tuple[int, int], stride: tuple[int, int], size: tuple[int, int], algorithm: str, isa: str) -> None:
    """No input is read twice."""
    p = problem((3, 11), size, kernel, stride=stride, padding=0)
    for residual, activation in ((False, None), (True, "relu6")):
        verify(dataclasses.replace(p, residual=residual, activation=activation), algorithm, isa)
    for padding in (1, ((0, 2), (1, 0))):
        verify(problem((4, 10), size, kernel, stride=stride, padding=padding, groups=2, batch=2), algorithm, isa)
    verify(problem((2, 5), (5, *size), (2, *kernel), stride=(3, *stride), padding=0), algorithm, isa)
    verify(problem((2, 5), tuple(2 * n for n in size), kernel, stride=stride, dilation=2, padding=0), algorithm, isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ["gemm", "direct"])
@pytest.mark.parametrize("step", [1, -1, 2])
@pytest.mark.parametrize("taps, stride", SHAPES)
def test_nothing_beyond_an_array_is_read(taps: int, stride: int, step: int, algorithm: str, isa: str, guarded) -> None:
    for outputs in (1, 3, 9, 18):
        p = row(taps, stride, outputs)
        x, w, b, _ = random_arrays(p, np.random.default_rng(0))
        spread = np.zeros((*x.shape[:-1], (x.shape[-1] - 1) * abs(step) + 1), x.dtype)
        spread[..., ::abs(step)] = x
        seen = guarded.copy(spread)[..., ::step]
        kernel = cython_native.NativeKernel(p, Candidate(algorithm, isa))
        out = np.full(p.output_shape, np.nan, np.float32)
        kernel.run(seen, kernel.pack(w, b), out)
        expected, magnitude = reference.oracle(p, seen, w, b)
        assert bounds.compare(out, expected, bounds.bound(p, algorithm, expected, magnitude, seen, w)) <= 1


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ["gemm", "direct"])
def test_a_nan_stays_inside(algorithm: str, isa: str) -> None:
    for kernel in (3, 8, 16):
        p = problem((3, 9), (3 * kernel, 11 * kernel), (kernel, kernel), stride=kernel, padding=0)
        stays_inside(p, algorithm, isa, np.nan)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ["gemm", "direct"])
def test_the_same_bits_for_any_threads_and_batch(algorithm: str, isa: str) -> None:
    for kernel, channels in ((3, 40), (16, 2)):  # 360 and 512 products: several boxes
        p = problem((channels, 30), (5 * kernel, 23 * kernel), (kernel, kernel), batch=3, stride=kernel, padding=0)
        same_bits(p, algorithm, isa)


@pytest.mark.parametrize("isa", ISAS)
def test_the_last_vector_of_a_row_overlaps(isa: str) -> None:
    """direct stores whole vectors wherever a row is at least that long."""
    for width in (*range(1, 12), 15, 16, 17, 28, 31, 33, 65):
        for activation, residual in (("relu", False), ("relu6", False), (None, True)):
            verify(problem((2, 7), (3, width), (3, 3), activation=activation, residual=residual), "direct", isa)

# ---- axes that lie backwards in memory

GEOMETRIES = (
    problem((5, 7), (9, 23), (3, 3)), problem((3, 20), (8, 37), (1, 1), stride=2, padding=0), problem((2, 3), (41,), (5,)),
    problem((3, 4), (4, 6, 19), (3, 3, 3)), problem((1, 1), (19, 40), (17, 9)), problem((35, 35), (9, 21), (3, 3), groups=35),
    problem((20, 20), (13, 30), (5, 5), groups=20, stride=2, padding=2), problem((18, 18), (50,), (3,), groups=18),
    problem((19, 19), (11, 12), (3, 2), groups=19, padding=4, padding_mode="reflect"),
    problem((6, 12), (3, 7, 18), (1, 3, 3), groups=6, padding=(1, 1, 1)), problem((33, 40), (1, 50), (1, 1)),
    problem((18, 18), (4, 5, 17), (3, 3, 2), groups=18), problem((3, 3), (5, 38), (4, 5), groups=3),
    problem((17, 17), (4, 40), (2, 3), groups=17, dilation=2))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("algorithm", ["gemm", "direct", "depthwise", "winograd", "fft"])
def test_every_axis_backwards(algorithm: str, layout: str, isa: str) -> None:
    """One axis of all arrays, and all of one."""
    taken = 0
    for given in GEOMETRIES:
        p = dataclasses.replace(given, layout=layout, batch=2, residual=True, dtype="float64" if given.ndim == 3 else "float32")
        if cython_native.backend.refuses(p, Candidate(algorithm, isa)) is not None:
            continue
        taken += 1
        x, w, b, residual = random_arrays(p, np.random.default_rng(0))
        expected, magnitude = reference.oracle(p, x, w, b, residual)
        allowed = bounds.bound(p, algorithm, expected, magnitude, x, w)
        kernel = cython_native.NativeKernel(p, Candidate(algorithm, isa))
        every = tuple(range(p.ndim + 2))
        turned = [((axis,),) * 4 for axis in every] + [tuple(every if i == j else () for j in range(4)) for i in range(4)]
        for of_x, of_w, of_residual, of_out in turned:
            out = check.backwards(np.full(p.output_shape, np.nan, p.dtype), of_out)
            packed = kernel.pack(check.backwards(w, of_w), b)
            kernel.run(check.backwards(x, of_x), packed, out, check.backwards(residual, of_residual))
            assert bounds.compare(out, expected, allowed) <= 1, f"{p.text}: {of_x} {of_w} {of_residual} {of_out}"
    assert taken >= 3


@pytest.mark.parametrize("isa", ISAS)
def test_images_upside_down(isa: str) -> None:
    """Calls with default arguments, as they are written."""
    with fastconv.config(isa=isa):
        image = np.arange(40 * 50, dtype=np.float32).reshape(40, 50) % 17
        for seen in (image[::-1], image[:, ::-1], image[::-1, ::-1], image[::-2, ::-3]):
            assert np.array_equal(fastconv.correlate(seen, np.ones((3, 3))), fastconv.correlate(seen.copy(), np.ones((3, 3))))
        x, w = np.broadcast_to(image, (1, 9, 40, 50)), np.ones((9, 1, 3, 3), np.float32)
        for seen in (x[:, :, ::-1], x[..., ::-1], x[:, ::-1, ::-1, ::-1]):
            found, expected = (fastconv.conv2d(a, w, padding=1, groups=9) for a in (seen, seen.copy()))
            assert np.array_equal(found, expected)
