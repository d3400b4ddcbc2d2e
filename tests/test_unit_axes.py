"""Axes of length 1 with one tap: the native kernels leave them out, so that a column is as good as a row."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import CONV, error, problem_of

import fastconv
from fastconv.problem import ConvProblem
from fastconv.unit_axes import without_unit_axes
from fastconv.verify.data import Arrays

SHAPES = [((50, 1), (3, 1)), ((1, 50), (1, 3)), ((1, 1), (1, 1)), ((50, 1), (1, 1)), ((7, 1, 1), (3, 1, 1)),
          ((7, 1, 30), (3, 1, 3)), ((1, 30, 1), (1, 5, 1)), ((40, 1, 1), (1, 1, 1)), ((1, 1, 1), (1, 1, 1))]
ALGORITHMS = (None, "gemm", "direct", "winograd", "depthwise", "fft")


@pytest.mark.skipif(fastconv.backends()["cython"] is not None, reason="the native kernels were not built")
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize(("size", "kernel"), SHAPES)
def test_in_any_place(size, kernel, layout):
    """Called and prepared, twice, as a repeated call goes another way; with a residual."""
    rng = np.random.default_rng(0)
    refused = 0
    for groups, batch in ((1, 2), (8, 2), (1, None)):
        x = rng.standard_normal((batch or 1, 8, *size), np.float32)
        w, b = rng.standard_normal((8, 8 // groups, *kernel), np.float32), rng.standard_normal(8, np.float32)
        x = np.moveaxis(x, 1, -1).copy() if layout == "channels_last" else x
        keywords = dict(padding=tuple(k // 2 for k in kernel), groups=groups, layout=layout)
        for residual in (None, rng.standard_normal(problem_of(x, w, **keywords).output_shape, np.float32)):
            problem = problem_of(x, w, bias=b, residual=residual is not None, **keywords)
            given, added = (a if a is None or batch else a[0] for a in (x, residual))
            for algorithm in ALGORITHMS:
                how = dict(backend="cython", algorithm=algorithm, **keywords)
                try:
                    operator = fastconv.prepare(w, b, **how)
                    found = [operator(given, residual=added) for _ in range(2)]
                    found += [CONV[len(size)](given, w, b, residual=added, **how) for _ in range(2)]
                except fastconv.Unsupported:
                    refused += 1
                    continue
                used = algorithm or fastconv.explain(problem, backend="cython").algorithm
                for y in found:
                    assert y.shape == (problem.output_shape if batch else problem.output_shape[1:])
                    assert error(problem, Arrays(x, w, b, residual), y.reshape(problem.output_shape), used) <= 1
    assert refused < 2 * 13


def test_which_are_left_out():
    column = ConvProblem((50, 1), (3, 1), 4, 4, stride=(2, 1), padding=((1, 1), (0, 0)), dilation=(2, 1))
    row = ConvProblem((50,), (3,), 4, 4, stride=(2,), padding=((1, 1),), dilation=(2,))
    assert without_unit_axes(column) == (row, (1,))
    assert without_unit_axes(ConvProblem((1, 1, 1), (1, 1, 1), 4, 4))[1] == (1, 2)  # one stays
    padded, wide = ConvProblem((50, 1), (3, 1), 4, 4, padding=((1, 1), (0, 1))), ConvProblem((50, 2), (3, 2), 4, 4)
    shifted = ConvProblem((50, 1), (3, 1), 4, 4, stride=(1, 4), padding=((1, 1), (3, 0)))  # its only column is padding
    assert shifted.padded_size[1] == 1
    for needed in (padded, wide, row, shifted, ConvProblem((1,), (1,), 4, 4)):
        assert without_unit_axes(needed) == (needed, ())


@pytest.mark.parametrize("stride", [20, 1000, 2**31, 2**40])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_a_stride_far_beyond_the_input_costs_nothing(layout, stride):
    """One output along each axis, whoever computes it: what is as long as a stride would not fit into memory."""
    rng, seen = np.random.default_rng(0), 0
    for groups, channels in ((1, 8), (8, 8), (1, 1)):
        x = rng.standard_normal((2, channels, 9, 20), np.float32)
        x = np.moveaxis(x, 1, -1).copy() if layout == "channels_last" else x
        w = rng.standard_normal((channels, channels // groups, 3, 3), np.float32)
        keywords = dict(padding=1, groups=groups, layout=layout)
        near = fastconv.conv2d(x, w, stride=(9, 20), backend="naive", **keywords)
        for backend in fastconv.backends():
            for algorithm in (None, "gemm", "direct", "winograd", "depthwise", "fft", "dot"):
                try:
                    found = fastconv.conv2d(x, w, stride=stride, backend=backend, algorithm=algorithm, **keywords)
                except (fastconv.Unavailable, fastconv.Unsupported, ValueError):
                    continue
                np.testing.assert_allclose(found, near, rtol=1e-4, atol=1e-4)
                seen += 1
    assert seen >= 3
