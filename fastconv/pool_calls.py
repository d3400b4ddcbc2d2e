"""A call of pooling: arguments -> PoolProblem (validated) -> the first backend that pools -> run.

Everything before `run` depends only on shapes, dtypes and plain arguments, and is remembered under them, as in `ops`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import arrays, ops, settings, torch_arrays
from .arguments import flag
from .backends import PoolKernel
from .errors import shown
from .kept import Kept
from .plan import chosen_pool_kernel
from .pool_problem import PoolProblem, pool_dtype
from .problem import result_dtype


class Call(NamedTuple):
    """What a user wrote beside the arrays."""

    function: str  # its name without 1d, 2d, 3d: "max_pool"
    ndim: int
    op: str
    stated: dict[str, Any]  # as `PoolProblem.from_shape` takes it; with an `output_size`, `PoolProblem.adaptive`
    layout: str
    backend: str

    @property
    def name(self) -> str:
        return self.function if self.function.startswith("global") else f"{self.function}{self.ndim}d"


def windows(function: str, ndim: int, op: str, layout: str, backend: str, kernel_size: Any, stride: Any = None,
            padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, **more: Any) -> Call:
    """A call with windows of one size."""
    return Call(function, ndim, op, dict(kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation,
                                         ceil_mode=ceil_mode, **more), layout, backend)


def sized(function: str, ndim: int, op: str, layout: str, backend: str, output_size: Any) -> Call:
    """A call with an output of one size."""
    return Call(function, ndim, op, dict(output_size=output_size), layout, backend)


@dataclass(frozen=True, slots=True)
class Bound:
    """What a call needs once its arguments are understood."""

    problem: PoolProblem
    kernel: PoolKernel
    batched: bool
    absolute: bool  # of the input only its absolute value counts: the norms of infinity

    def run(self, *given: np.ndarray | None) -> None:
        """The kernel's run, on arrays as the user has them: without the batch axis where the input has none."""
        self.kernel.run(*(a if a is None or self.batched else a[None] for a in given))  # type: ignore[arg-type]

    def shape(self, batched_shape: tuple[int, ...]) -> tuple[int, ...]:
        return batched_shape if self.batched else batched_shape[1:]


_memo = Kept(16 << 20)  # Bounds: their tables are as long as the axes


def forward(call: Call, input: Any, out: Any, return_indices: Any = False) -> Any:
    """What the function returns: the output, with `return_indices` (output, indices)."""
    return_indices = flag("return_indices", return_indices)
    kind, (x, y) = arrays.views({"input": input}, out=out)
    kind, call, (x, y) = _in_memory_order(kind, call, (x,), (x, y))
    bound = _known(call, x, pool_dtype(call.op, x.dtype), kind.device, "forward", return_indices)
    shape = bound.shape(bound.problem.output_shape)
    result, y = result_of(kind, shape, bound.problem.dtype, out, y, "output")
    indices = kind.empty(shape, "int64") if return_indices else None
    if bound.problem.batch:
        x = arrays.ready(x, bound.problem.dtype)
        target = np.empty(y.shape, bound.problem.dtype) if out is not None and arrays.needs_temporary(y, (x,)) else y
        bound.run(np.abs(x) if bound.absolute else x, target, None if indices is None else kind.view("out", indices))
        if target is not y:
            y[...] = target
    return result if indices is None else (result, indices)


def gradient(call: Call, grad_output: Any, input: Any, out: Any, indices: Any = None) -> Any:
    """The gradient of the input."""
    kind, (g, x, i, y) = arrays.views({"grad_output": grad_output, "input": input}, indices=indices, out=out)
    kind, call, (x, g, i, y) = _in_memory_order(kind, call, (x, g), (x, g, i, y))
    bound = _known(call, x, result_dtype(g.dtype, x.dtype, ("grad_output", "input")), kind.device, "backward_input", False)
    p, shape = bound.problem, bound.shape(bound.problem.output_shape)
    if tuple(g.shape) != shape:
        raise ValueError(f"grad_output must have the output's shape {shape}, which input {shown(tuple(x.shape))} gives with "
                         f"these arguments, got {shown(tuple(g.shape))}")
    if i is not None:
        i = checked_indices(i, shape, p.input_size)
    result, y = result_of(kind, bound.shape(p.input_shape), p.dtype, out, y, "input")
    if not p.batch:
        return result
    magnitudes = np.abs(x) if bound.absolute else x
    reads = p.op == "lp"  # whether the kernel looks at the input
    if p.op in ("max", "min") and i is None:
        reads = getattr(bound.kernel, "finds_extremes", False)
        i = None if reads else _found(call, magnitudes, kind.device)
    target = np.empty(y.shape, p.dtype) if out is not None and arrays.needs_temporary(y, (g, x, i)) else y
    bound.run(arrays.ready(g, p.dtype), target, i, arrays.ready(magnitudes, p.dtype) if reads else None)
    if bound.absolute:
        np.multiply(target, np.sign(x), out=target, where=target != 0)
    if target is not y:
        y[...] = target
    return result


def checked_indices(indices: np.ndarray, shape: tuple[int, ...], plane: Sequence[int]) -> np.ndarray:
    """`indices` as int64, if they are of that shape and lie in the plane.

    Raises:
        ValueError, TypeError: otherwise.
    """
    if indices.dtype.kind not in "iu":
        raise TypeError(f"indices must be integers, got {indices.dtype.name}")
    if indices.shape != shape:
        raise ValueError(f"indices must have the shape {shape}, one per pooled value, got {shown(indices.shape)}")
    size = math.prod(plane)
    if indices.size and not 0 <= indices.min() <= indices.max() < size:
        wrong = indices[(indices < 0) | (indices >= size)].flat[0]
        raise ValueError(f"indices must lie in a plane of {' x '.join(map(str, plane))}, from 0 to {size - 1}, got {wrong}")
    return arrays.ready(indices, "int64")


def _found(call: Call, x: np.ndarray, device: str) -> np.ndarray:
    """Where the forward call found its outputs."""
    bound = _known(call, x, pool_dtype(call.op, x.dtype), device, "forward", True)
    shape = bound.shape(bound.problem.output_shape)
    indices = np.empty(shape, np.int64)
    bound.run(arrays.ready(x, bound.problem.dtype), np.empty(shape, bound.problem.dtype), indices)
    return indices


def _in_memory_order(kind: Any, call: Call, deciding: tuple[Any, ...], views: tuple[Any, ...]) -> tuple[Any, Call, Any]:
    """See `torch_arrays.in_memory_order`."""
    if kind.name != "torch":
        return kind, call, views
    kind, layout, views = torch_arrays.in_memory_order(kind, call.ndim, call.layout, deciding, views)
    return kind, call._replace(layout=layout), views


def result_of(kind: arrays.Kind, shape: tuple[int, ...], dtype: str, out: Any, y: Any, of: str) -> tuple[Any, Any]:
    """(what the user gets, its view): made, or `out` if it is right."""
    if out is not None:
        arrays.check_like("out", y, shape, dtype, of=of)
        return out, y
    made = kind.empty(shape, dtype)
    return made, kind.view("out", made)


def _known(call: Call, x: Any, dtype: str, device: str, direction: str, return_indices: bool) -> Bound:
    """What a call needs, remembered under what it depends on."""
    key: Any = (call.name, x.shape, dtype, device, direction, settings.current().planning, return_indices,
                ops.typed(call.layout), ops.typed(call.backend), *map(ops.typed, call.stated.values()))
    try:
        found = _memo.get(key)
    except TypeError:  # an argument that cannot be hashed: the validation names it
        return _bound(call, x, dtype, device, direction, return_indices)
    if found is None:
        found = _bound(call, x, dtype, device, direction, return_indices)
        p = found.problem  # a step of `sliced_pooling` takes 200 bytes, the entries of the tables the rest
        _memo.put(key, found, 4096 + 300 * sum(p.output_size) + 8 * sum(p.input_size))
    return found


def _bound(call: Call, x: Any, dtype: str, device: str, direction: str, return_indices: bool) -> Bound:
    op, stated = call.op, dict(call.stated)
    norm = stated.get("norm_type")
    absolute = isinstance(norm, (float, np.floating)) and math.isinf(norm)
    if absolute:  # the limit of (Σ |x|^p)^(1/p)
        op = "max" if stated.pop("norm_type") > 0 else "min"
    make = PoolProblem.adaptive if "output_size" in stated else PoolProblem.from_shape
    problem = make(op, x.shape, ndim=call.ndim, function=call.name, layout=call.layout, dtype=dtype, direction=direction,
                   return_indices=return_indices, **stated)
    kernel = chosen_pool_kernel(problem, call.backend, device.partition(":")[0])
    return Bound(problem, kernel, len(x.shape) == call.ndim + 2, absolute)
