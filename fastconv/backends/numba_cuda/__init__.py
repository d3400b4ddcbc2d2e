"""cuda: implicit GEMM and direct convolution on NVIDIA GPUs, through numba-cuda.

CUDA arrays (torch, CuPy, Numba) are used where they are, on their stream. NumPy arrays are copied there and back, and only
when this backend is asked for by name. Importing this module imports nothing of Numba; `intrinsics` does.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import math
import os
from typing import Any

from ...problem import ConvProblem
from .. import Candidate, refuses_direction

_LARGEST_GRID = 65535  # blocks along y and z


class CudaBackend:
    name = "cuda"
    device = "cuda"

    def unavailable(self) -> str | None:
        return _unavailable(os.environ.get("NUMBA_ENABLE_CUDASIM", "0"))

    def candidates(self, problem: ConvProblem) -> tuple[Candidate, ...]:
        """GEMM needs channels to fill its tiles; below, a thread per output reads its window directly."""
        gemm, direct = Candidate("gemm"), Candidate("direct")
        few = problem.out_channels // problem.groups < 16
        return (direct, gemm) if few else (gemm, direct)

    def refuses(self, problem: ConvProblem, candidate: Candidate) -> str | None:
        reason = refuses_direction(problem)
        if reason is not None:
            return reason
        outputs = problem.out_channels * math.prod(problem.output_size)
        if candidate.algorithm == "direct":
            return "an image has 2**31 outputs or more" if outputs >= 2**31 or problem.batch > _LARGEST_GRID else None
        if problem.groups > _LARGEST_GRID // 32:
            return f"takes up to {_LARGEST_GRID // 32} groups, got {problem.groups}"
        if problem.out_channels // problem.groups > 32 * _LARGEST_GRID:
            return f"takes up to {32 * _LARGEST_GRID} output channels per group"
        if max(math.prod(problem.padded_size) * problem.in_channels, math.prod(problem.output_size)) >= 2**31:
            return "an image has 2**31 elements or more"
        return None

    def seconds(self, problem: ConvProblem, candidate: Candidate, prepared: bool) -> float | None:
        return None

    def bind(self, problem: ConvProblem, candidate: Candidate) -> Any:
        from .launch import DirectKernel, GemmKernel

        return GemmKernel(problem) if candidate.algorithm == "gemm" else DirectKernel(problem)


@functools.cache
def _unavailable(simulator: str) -> str | None:
    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed: pip install 'fastconv[cuda]'"
    if simulator not in ("", "0"):
        return None
    for name in ("libcuda.so.1", "libcuda.so", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
            break
        except OSError:
            continue
    else:
        return "no NVIDIA driver is installed (no libcuda)"
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status:
        return f"the NVIDIA driver reports error {status} (no usable GPU, or a driver too old)"
    return None if count.value else "the NVIDIA driver finds no GPU"


backend = CudaBackend()
