"""Multiply-adds per second, as they are measured: what speeds are shares of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import native
from ..settings import current

_MATRIX = 768  # of the fallback: 0.9 GFLOP a product, far above BLAS's overheads
_SECONDS = 0.010


def peak(dtype: str, threads: int) -> tuple[Callable[[], float], str]:
    """(a function that measures flops per second, how): a loop of fused multiply-adds, or the BLAS where none is built."""
    module = best_module()
    if module is not None:
        return lambda: module.peak_flops(dtype, threads, _SECONDS), f"multiply-add loop, {module.isa}"
    a = np.ones((_MATRIX, _MATRIX), dtype)
    product = np.empty_like(a)

    def matmul() -> float:
        start = time.perf_counter()
        repeats = 0
        while time.perf_counter() - start < _SECONDS:
            np.matmul(a, a, out=product)
            repeats += 1
        return 2 * _MATRIX**3 * repeats / (time.perf_counter() - start)

    return matmul, "NumPy's matrix product"


def best_module() -> Any:
    """The native kernels of the best ISA that this CPU runs, or None."""
    isas = () if current().no_native else native.runnable_isas()
    return native.isa_module(isas[-1]) if isas else None
