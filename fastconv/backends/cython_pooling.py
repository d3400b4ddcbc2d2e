"""Pooling of the cython backend: the native kernels of `kernels/pool*.cpp`, of the best ISA in use."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import settings
from ..dtypes import TABLE
from ..native import isa_module, runtime
from ..pool_problem import PoolProblem


class NativePool:
    """A pooling bound to the kernels of one ISA."""

    def __init__(self, problem: PoolProblem, isa: str) -> None:
        p = self.problem = problem
        whole = all((p.divisor[axis] == taps).all() for axis, taps in enumerate(p.kernel_size))  # each sum is what lp wants
        taps = p.kernel_size or tuple(int(count.max()) for count in p.count)
        dilation = tuple(step if number > 1 else 1 for step, number in zip(p.dilation, taps))
        self.native: Any = runtime().Pool(
            isa_module(isa), op=p.op, dtype=p.dtype, batch=p.batch, channels=p.channels, input=p.input_size,
            output=p.output_size, taps=taps, dilation=dilation, first=p.first, count=p.count, divisor=p.divisor,
            norm_type=p.norm_type or 0.0, divisor_override=p.divisor_override or 0, scale=0.0 if whole else p.scale,
            channels_last=p.channels_last)
        self.finds_extremes = p.direction == "backward_input" and p.op in ("max", "min") and self.native.apart

    def run(self, first: np.ndarray, result: np.ndarray, indices: np.ndarray | None = None, input: np.ndarray | None = None,
            /) -> None:
        threads = settings.current().num_threads
        if self.problem.direction == "forward":
            self.native.forward(first, result, indices, threads)
        elif indices is not None:
            self.native.scatter(first, indices, result, True, threads)
        elif self.problem.op != "lp":
            self.native.gradient(first, result, input, threads=threads)
        else:
            output = np.empty(self.problem.output_shape, self.problem.dtype)
            self.native.forward(input, output, None, threads)
            self.native.gradient(first, result, input, output, threads)


def refuses(p: PoolProblem) -> str | None:
    """Why the native kernels do not pool in this way; no ISA makes a difference."""
    if p.dtype not in TABLE:
        return f"pools float32 and float64, not {p.dtype}"
    if p.direction == "forward" or p.op in ("max", "min"):
        return None
    if any(d > 1 and k > 1 for d, k in zip(p.dilation, p.kernel_size)):
        return "computes no gradient of averages and norms with a dilation"
    if p.norm_type is not None and p.norm_type < 0:
        return "computes no gradient of a norm with a negative exponent"
    return None
