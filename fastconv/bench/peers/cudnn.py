"""cuDNN through PyTorch on a GPU, in IEEE float32 and in TF32, which keeps 10 bits of each factor's fraction.

The data is on the GPU before the clock starts; a call ends when the GPU is done. cuDNN searches among its algorithms, and
the better of channels-first and channels-last memory is kept.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...problem import ConvProblem
from ...verify.data import Arrays
from . import Bound, torch_eager
from .common import folder_of, library, missing

_RUNS = 5  # of each memory layout, to choose by


@dataclass
class CuDNN:
    precision: str  # "ieee" or "tf32"
    package = "torch"
    prepared = False
    _chosen: dict[ConvProblem, Any] = field(default_factory=dict)  # memory format by problem

    @property
    def name(self) -> str:
        return "cudnn" if self.precision == "ieee" else f"cudnn-{self.precision}"

    def unavailable(self) -> str | None:
        folder = folder_of("torch")
        if folder is None:
            return missing(self.package, "torch")
        if not _built_for_cuda(folder):
            return "this torch is built without CUDA"
        return "no CUDA GPU" if _gpus() == 0 else None

    def start(self, threads: int) -> str:
        torch = self._torch = library("torch")
        torch.set_num_threads(threads)
        cudnn = torch.backends.cudnn
        cudnn.benchmark = True
        if hasattr(cudnn, "conv"):  # the older switch may not be mixed with this one
            cudnn.conv.fp32_precision = self.precision
        else:
            cudnn.allow_tf32 = self.precision == "tf32"
        torch.cuda.init()
        return f"torch {torch.__version__}, cudnn {cudnn.version()}"

    def refuses(self, problem: ConvProblem) -> str | None:
        if self.precision == "tf32" and problem.dtype != "float32":
            return f"TF32 is a way to compute float32, not {problem.dtype}"
        if problem.direction != "forward":
            return "of gradients, none is timed on the GPU"
        return torch_eager.refuses(problem)

    def bind(self, problem: ConvProblem, arrays: Arrays) -> Bound:
        if problem not in self._chosen:
            seconds = {layout: _seconds(self._call(problem, arrays, layout)) for layout in self._layouts(problem)}
            self._chosen[problem] = min(seconds, key=seconds.__getitem__)
        return torch_eager.bound(problem, self._call(problem, arrays, self._chosen[problem]))

    def _layouts(self, problem: ConvProblem) -> list[Any]:
        torch = self._torch
        if problem.channels_last or problem.ndim == 1:
            return [torch_eager.memory_format(torch, problem)]
        return [torch.contiguous_format, torch.channels_last if problem.ndim == 2 else torch.channels_last_3d]

    def _call(self, problem: ConvProblem, arrays: Arrays, layout: Any) -> Callable[[], Any]:
        torch = self._torch
        x, w, b = torch_eager.tensors(torch, problem, arrays)
        x, w = (tensor.cuda().contiguous(memory_format=layout) for tensor in (x, w))
        b = None if b is None else b.cuda()
        convolve = torch_eager.convolution(torch, problem, x, w, b, layout)

        def call() -> Any:
            y = convolve()
            torch.cuda.synchronize()
            return y

        return call


def _seconds(call: Callable[[], Any]) -> float:
    """The quickest of a few calls, after one in which cuDNN searches."""
    best = float("inf")
    call()
    for _ in range(_RUNS):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def _built_for_cuda(folder: Path) -> bool:
    return any((folder / "lib" / name).exists() for name in ("libtorch_cuda.so", "torch_cuda.dll"))


def _gpus() -> int:
    """How many GPUs the driver offers; 0 without a driver. Makes no context."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    working = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if working else 0


peers = (CuDNN("ieee"), CuDNN("tf32"))
