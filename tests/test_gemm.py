"""The gemm algorithm: what it reads of the caller's array, and inputs that several passes over the output channels share."""

from __future__ import annotations

import numpy as np
import pytest
from native_cases import same_bits, verify
from problems import problem

from fastconv.backends import Candidate, cython_native
from fastconv.problem import ConvProblem
from fastconv.verify import bounds, reference
from fastconv.verify.data import random_arrays

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("channels", [2, 3, 7, 16])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("lies", ["forwards", "backwards", "broadcast"])
def test_nothing_beyond_an_array_is_read(lies: str, kernel: int, channels: int, isa: str, guarded) -> None:
    p = ConvProblem((9, 17), (kernel, kernel), channels, 5, layout="channels_last", bias=True)
    x, w, b, _ = random_arrays(p, np.random.default_rng(0))
    if lies == "broadcast":
        seen = np.broadcast_to(guarded.copy(x[:, :, :1]), x.shape)
    else:
        seen = guarded.copy(x)[:, :, ::-1 if lies == "backwards" else 1]
    gemm = cython_native.NativeKernel(p, Candidate("gemm", isa))
    out = np.full(p.output_shape, np.nan, np.float32)
    gemm.run(seen, gemm.pack(w, b), out)
    expected, magnitude = reference.oracle(p, seen, w, b)
    assert bounds.compare(out, expected, bounds.bound(p, "gemm", expected, magnitude, seen, w)) <= 1


WIDE = [  # more output channels than one pass computes, with 16 bytes to 128 bytes of them side by side
    problem((300, 560), (5, 3), (1, 1), batch=2),  # several blocks of k
    problem((30, 560), (5, 6), (3, 3), stride=2, padding=1),  # slabs
    problem((300, 560), (3, 3), (3, 3), padding=1),  # several slabs, panels too large to be kept
    problem((3, 560), (9, 7), (2, 2), batch=2, padding=0, layout="channels_last"),  # few channels side by side
    problem((40, 560), (4, 5), (1, 1), layout="channels_last"),
]


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("p", WIDE, ids=lambda p: p.text)
def test_many_output_channels(p: ConvProblem, isa: str) -> None:
    verify(p, "gemm", isa)
    same_bits(p, "gemm", isa)
