"""Pooling of the numba backend: a problem and its arrays as the compiled loops read them (see `pool_stages`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ... import settings
from ...pool_problem import PoolProblem
from .compile import stage
from .contexts import POOL_CONTEXT
from .threads import perform

SERIAL_BELOW = 200_000  # taps: fewer are not worth waking a thread
TOGETHER = 64  # channels of a pixel, side by side, at most


class NumbaPool:
    def __init__(self, problem: PoolProblem) -> None:
        p = self.problem = problem
        forward = p.direction == "forward"
        if p.op in ("average", "lp"):
            self._stage = "pool_sum" if forward else "pool_spread"
        else:
            self._stage = "pool_scatter" if not forward else "pool_find" if p.return_indices else "pool_select"
        self._dtype = "uint8" if p.dtype == "bool" else p.dtype
        inside = min(TOGETHER, p.channels) if p.channels_last else 1
        missing = 3 - p.ndim
        tables = {"first": (0, p.first), "count": (1, p.count), "divisor": (1, p.divisor), "read": (1, _read(p))}
        self._tables = {f"{name}_{axis}": np.ascontiguousarray(table) for name, (unit, along) in tables.items()
                        for axis, table in zip("dhw", (np.full(1, unit),) * missing + tuple(along))}
        self._fixed = np.zeros(1, POOL_CONTEXT)
        self._set(self._fixed, {name: table.ctypes.data for name, table in self._tables.items()})
        for name, values in (("input", p.input_size), ("step", p.dilation)):
            self._set(self._fixed, {f"{name}_{axis}": n for axis, n in zip("dhw", (1,) * missing + values)})
        self._set(self._fixed, dict(zip(("depth", "rows", "columns"), (1,) * missing + p.output_size)))
        self._set(self._fixed, dict(
            batch=p.batch, channels=p.channels, inside=inside, by_rows=not p.channels_last, largest=p.op == "max",
            override=p.divisor_override or 0, powers=p.norm_type is not None, scale=p.scale, norm=p.norm_type or 0))
        taps = math.prod(int(count.sum()) for count in p.count) * p.batch * p.channels
        lines = math.prod((1, *p.output_size[:-1])) if forward else 1
        self._most = 1 if taps < SERIAL_BELOW else p.batch * -(-p.channels // inside) * lines
        self._scratch_bytes = -(-8 * (inside if p.channels_last else p.input_size[-1]) // 64) * 64 + 64  # no line shared

    def run(self, first: np.ndarray, result: np.ndarray, indices: np.ndarray | None = None, input: np.ndarray | None = None,
            /) -> None:
        context = self._fixed.copy()
        for name, array in (("first", first), ("result", result), ("indices", indices), ("source", input)):
            if array is not None:
                self._place(context, name, array)
        parts = min(self._most, settings.current().num_threads)
        scratch = np.empty(parts * self._scratch_bytes, np.uint8)
        self._set(context, {"parts": parts, "scratch": scratch.ctypes.data, "scratch_bytes": self._scratch_bytes})
        perform(stage(self._stage, self._dtype), parts, context.ctypes.data)

    def _place(self, context: np.ndarray, name: str, array: np.ndarray) -> None:
        n, *steps = array.strides
        c = steps.pop(-1 if self.problem.channels_last else 0)
        letter = "j" if name == "indices" else name[0]
        strides = dict(zip("ncdhw", (n, c, *[0] * (3 - len(steps)), *steps)))
        self._set(context, {name: array.ctypes.data, **{letter + axis: step for axis, step in strides.items()}})

    @staticmethod
    def _set(context: np.ndarray, values: dict[str, Any]) -> None:
        for name, value in values.items():
            context[name] = value


def _read(p: PoolProblem) -> tuple[np.ndarray, ...]:
    """Along each axis, whether any window reads an input; of what asks for it, which is lp's gradient."""
    marks = [np.zeros(size, np.int64) for size in p.input_size]
    for mark, first, count, step in zip(marks, p.first, p.count, p.dilation):
        if p.norm_type is None or p.direction == "forward":
            break
        if count.max() > len(count):
            for begin, taps in zip(first.tolist(), count.tolist()):
                mark[begin:begin + (taps - 1) * step + 1:step] = 1
        else:
            for tap in range(int(count.max())):
                mark[first[count > tap] + tap * step] = 1
    return tuple(marks)
