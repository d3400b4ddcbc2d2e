"""What the machine can do, measured beside the contenders: multiply-adds per second, bytes copied per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .. import native
from ..prepared import prepare
from ..settings import current

COPY_BYTES = 128 << 20  # read and written, 64 MB each: larger than most last-level caches
_MATRIX = 768  # of the fallback: 0.9 GFLOP a product, far above BLAS's overheads
_SECONDS = 0.010
_REPEATS = 5  # of the small work: 2 ms on two cores of 100 GFLOP/s


def peak(dtype: str, threads: int) -> tuple[Callable[[], float], str]:
    """(a function that measures flops per second, how): a loop of fused multiply-adds, or the BLAS where none is built."""
    module = _best_module()
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


def _best_module() -> Any:
    """The native kernels of the best ISA that this CPU runs, or None."""
    isas = () if current().no_native else native.runnable_isas()
    return native.isa_module(isas[-1]) if isas else None


def small_work() -> Callable[[], float] | None:
    """Seconds of a small convolution whose data fill much of the second-level cache: what disturbs others disturbs it, too.

    Runs on as many threads as the settings say. None where no native kernels are built (a BLAS would go on spinning).
    """
    if _best_module() is None:
        return None
    x, w = np.ones((1, 64, 28, 28), np.float32), np.ones((64, 64, 3, 3), np.float32)
    conv = prepare(w, padding=1, backend="cython", algorithm="gemm", input_shape=x.shape)
    out = np.empty_like(x)

    def work() -> float:
        times = [time.perf_counter()]
        for _ in range(_REPEATS):
            conv(x, out=out)
            times.append(time.perf_counter())
        return min(after - before for before, after in zip(times, times[1:]))  # the first ones wake the threads

    return work


class Copy:
    """Copies 64 MB in one part per thread."""

    def __init__(self, threads: int) -> None:
        self.source = np.zeros(COPY_BYTES // 2, np.uint8) + 1
        self.target = np.zeros_like(self.source) + 1  # written once: the pages exist
        self.method = f"copy, {COPY_BYTES >> 20} MiB read and written"
        self._pool = ThreadPoolExecutor(threads)
        self._parts = list(zip(np.array_split(self.target, threads), np.array_split(self.source, threads)))

    def __call__(self) -> float:
        """Bytes read and written per second."""
        start = time.perf_counter()
        list(self._pool.map(lambda part: np.copyto(*part), self._parts))
        return COPY_BYTES / (time.perf_counter() - start)

    def close(self) -> None:
        self._pool.shutdown()
