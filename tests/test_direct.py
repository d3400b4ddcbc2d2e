"""The direct algorithm: residuals in registers, vectors across lines, boxes of patches, gathered inputs, panels by vectors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from native_cases import same_bits, verify
from problems import plain, problem

from fastconv import settings
from fastconv.backends import Candidate, cython_native
from fastconv.problem import ConvProblem
from fastconv.verify.data import integer_arrays

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)

ISAS = cython_native.runnable_isas()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize("pixels", [1, 15, 16, 17, 49, 1100])
def test_a_residual_that_is_the_output(pixels: int, activation: str | None, threads: int, isa: str) -> None:
    """The last vector of a row may not add it twice."""
    p = dataclasses.replace(problem((3, 19), (1, pixels), 1, batch=2, activation=activation), residual=True)
    x, w, b, residual = integer_arrays(p, np.random.default_rng(pixels))
    assert residual is not None
    kernel = cython_native.NativeKernel(p, Candidate("direct", isa))
    packed, apart, out = kernel.pack(w, b), np.full(p.output_shape, np.nan, np.float32), residual.copy()
    with settings.config(num_threads=threads):
        kernel.run(x, packed, apart, residual)
        kernel.run(x, packed, out, out)
    sums = np.einsum("ncdw,oc->nodw", x, w[:, :, 0, 0]) + b[:, None, None] + residual
    least, most = (-np.inf if activation is None else 0), (6 if activation == "relu6" else np.inf)
    np.testing.assert_array_equal(apart, np.clip(sums, least, most))
    np.testing.assert_array_equal(out, apart)


PATCHES = [  # read once each, more than one box holds
    plain((155, 9), (35, 23), 2, stride=2),
    plain((64, 20), (57, 57), 3, stride=3),
    plain((256, 7), (25, 41), 1, stride=2),
    plain((5, 9), (40, 33), 2, stride=3, padding=1),
    plain((150, 5), (3, 300), 1, stride=2),
    plain((40, 6), (3, 20, 21), (1, 2, 2), stride=(1, 2, 2)),
]
PANELS = [plain((channels, outputs), (3, 17), 1) for channels in (1, 15, 16, 17, 33) for outputs in (1, 5, 7, 8, 9, 25)]

GATHERED = [plain((channels, outputs), (1, pixels), 1) for channels in (1, 20, 300) for outputs in (11, 13, 40)
            for pixels in (7, 8, 9, 17, 33, 1100)]  # inputs of one tile, of several, of more than L1 holds


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", PATCHES + PANELS + GATHERED, ids=lambda p: p.text)
def test_patches_and_panels(p: ConvProblem, isa: str) -> None:
    verify(p, "direct", isa)
    verify(dataclasses.replace(p, dtype="float64"), "direct", isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("p", PATCHES, ids=lambda p: p.text)
def test_boxes_change_no_bit(p: ConvProblem, isa: str) -> None:
    same_bits(p, "direct", isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("beyond", [0, 4, 12, 16])
@pytest.mark.parametrize("width", [16, 31, 33])
def test_vectors_across_lines(width: int, beyond: int, isa: str, guarded) -> None:
    """Rows that begin anywhere in a line, and end at memory that is not ours."""
    p = plain((37, 100), (3, width), 1)
    x, w, _, _ = integer_arrays(p, np.random.default_rng(0))
    longer = np.concatenate([np.full(beyond, np.nan, np.float32), x.ravel()])
    seen = guarded.copy(longer)[beyond:].reshape(x.shape)
    kernel = cython_native.NativeKernel(p, Candidate("direct", isa))
    out = np.full(p.output_shape, np.nan, np.float32)
    kernel.run(seen, kernel.pack(w, None), out)
    np.testing.assert_array_equal(out, np.einsum("ncdw,oc->nodw", x, w[:, :, 0, 0]))
