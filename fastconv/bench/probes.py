"""What the machine can do, measured beside the contenders: multiply-adds per second, bytes copied per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..prepared import prepare
from ..timing.peak import best_module
from ..timing.peak import peak as peak

COPY_BYTES = 128 << 20  # read and written, 64 MB each: larger than most last-level caches
_SECONDS = 0.010
_REPEATS = 5  # of the small work: 2 ms on two cores of 100 GFLOP/s


def small_work() -> Callable[[], float] | None:
    """Seconds of a small convolution whose data fill much of the second-level cache: what disturbs others disturbs it, too.

    Runs on as many threads as the settings say. None where no native kernels are built (a BLAS would go on spinning).
    """
    if best_module() is None:
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
