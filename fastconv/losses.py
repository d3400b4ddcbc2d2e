"""softmax, log_softmax and cross entropy along an axis, with their gradients: PyTorch's meaning, natively where it can be.

exp(x - m) / Σ exp(x - m), m the largest of the row, so that nothing overflows. float32 is summed in float64, 16 values a lane
in float32 first: within 17u + n·2⁻⁵³ of the sum of n exponentials, u = 2⁻²⁴ (typical is 1u); float64 within n·2⁻⁵³. Results of
softmax are within that and some 5 ulp of those of the differences x - m.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import arrays, native, operands, settings, torch_arrays
from .errors import shown
from .problem import integer, number


@torch_arrays.opaque
def softmax(input: Any, axis: int = -1, *, out: Any = None) -> Any:
    """exp(input) / Σ exp(input) along an axis, as `torch.softmax`.

    Args:
        input: float32 or float64, any shape with at least one axis, any strides.
        axis: along which the results sum to 1; negative ones count from the last.
        out: array of the input's shape and dtype, any strides; overwritten and returned; may be the input itself.

    Returns:
        An array of the input's kind, shape, dtype and memory order. A row with a NaN, or of -inf alone, is NaN.

    Raises:
        ValueError: an axis that is not there, an `out` of another shape.
        TypeError: dtypes other than float32 and float64, or kinds of arrays that do not fit.
        Unsupported: arrays on a GPU.
    """
    return _along("softmax", input, None, axis, out)


@torch_arrays.opaque
def log_softmax(input: Any, axis: int = -1, *, out: Any = None) -> Any:
    """log(softmax(input)) along an axis, without the softmax's underflow: `torch.log_softmax`. Everything as `softmax`."""
    return _along("log_softmax", input, None, axis, out)


@torch_arrays.opaque
def softmax_input(grad_output: Any, output: Any, axis: int = -1, *, out: Any = None) -> Any:
    """Gradient of `softmax`'s input, from its output y: y·(grad_output - Σ grad_output·y). grad_output: of the output's shape
    and dtype. Everything else as `softmax`."""
    return _along("softmax_gradient", output, grad_output, axis, out)


@torch_arrays.opaque
def log_softmax_input(grad_output: Any, output: Any, axis: int = -1, *, out: Any = None) -> Any:
    """Gradient of `log_softmax`'s input, from its output y: grad_output - exp(y)·Σ grad_output. grad_output: of the output's
    shape and dtype. Everything else as `softmax`."""
    return _along("log_softmax_gradient", output, grad_output, axis, out)


@torch_arrays.opaque
def cross_entropy(
    input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """-log softmax(input) at the target's class, as `torch.nn.functional.cross_entropy` with class indices.

    Args:
        input: (C,), (N, C) or (N, C, ...): scores, float32 or float64.
        target: (), (N,) or (N, ...): integers, at least 0 and below C, or `ignore_index`.
        weight: (C,): of each class, or None: 1.
        ignore_index: targets whose rows count nothing.
        reduction: "none": a loss per target; "sum"; "mean": the sum divided by that of the targets' weights.
        label_smoothing: ε: the target's class counts 1 - ε, and each class, the target's too, ε/C.

    Returns:
        The loss, in the input's dtype and kind: of the target's shape ("none"), or a scalar. Sums are float64.

    Raises:
        ValueError: shapes that do not fit, a target that is no class, another reduction, label_smoothing outside of [0, 1].
        TypeError: dtypes or kinds of arrays that do not fit.
        Unsupported: arrays on a GPU.
    """
    kind, call = _understood(input, target, weight, ignore_index, reduction, label_smoothing)
    losses = call.losses()
    if reduction == "none":
        return operands.made_of(kind, losses.reshape(call.target.shape), call.dtype)
    total = float(losses.sum())
    if reduction == "mean":
        share = call.share()
        total = total / share if share else math.nan
    made = operands.made_of(kind, np.asarray(total), call.dtype)
    return made[()] if isinstance(made, np.ndarray) else made


@torch_arrays.opaque
def cross_entropy_input(
    grad_output: Any, input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0, *, out: Any = None,
) -> Any:
    """Gradient of `cross_entropy`'s input.

    Args:
        grad_output: of the loss's shape: a number, or, without reduction, an array of the target's shape.
        out: array of the input's shape and dtype, any strides; overwritten and returned; may be the input itself.
        input, target, weight, ignore_index, reduction, label_smoothing: as of the `cross_entropy`.

    Returns:
        An array of the input's kind, shape, dtype and memory order.

    Raises:
        ValueError, TypeError, Unsupported: as `cross_entropy`.
    """
    plain = isinstance(grad_output, (int, float, np.generic))
    kind, call = _understood(input, target, weight, ignore_index, reduction, label_smoothing,
                             grad_output=None if plain else grad_output, out=out)
    g = np.asarray(grad_output, np.float64) if plain else call.grad_output
    if g is None:
        raise TypeError("grad_output must be an array or a number, got None")
    expected = call.target.shape if reduction == "none" else ()
    if g.shape != expected:
        raise ValueError(f"grad_output must have the loss's shape {expected}, got {shown(tuple(g.shape))}")
    upstream = np.full(call.target.shape, g, np.float64).ravel()
    if reduction == "mean":
        share = call.share()
        upstream = upstream / share if share else np.full_like(upstream, math.nan)
    result, target_view = operands.result(kind, out, call.out, call.x, call.dtype)
    if call.x.size:
        operands.write(target_view, (call.x,), call.dtype, lambda to: call.gradient(to, upstream))
    return result


# ---- rows: (outer, length, inner)


def _rows(array: np.ndarray, axis: int, apart: bool) -> np.ndarray | None:
    """A view of three axes with adjacent elements along the last, or, where that is 1, along the middle; None where it takes a
    copy. apart: elements of a row are not adjacent. In either case the rows are in the order of the other axes."""
    if array.flags.c_contiguous and apart == (axis != array.ndim - 1):  # the usual case, told in a microsecond
        return array.reshape(math.prod(array.shape[:axis]), array.shape[axis], math.prod(array.shape[axis + 1:]))
    if apart:
        outer, inner = array.shape[:axis], array.shape[axis + 1:]
        seen = array.reshape(math.prod(outer), array.shape[axis], math.prod(inner))
        adjacent = seen.shape[2] > 1 and seen.strides[2] == array.itemsize
    else:
        seen = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])[..., None]
        adjacent = seen.shape[1] == 1 or seen.strides[1] == array.itemsize
    return seen if adjacent and operands.shared(seen, array) else None


def _copied(array: np.ndarray, axis: int) -> np.ndarray:
    """Rows that are adjacent: a view where that is one, else a copy."""
    found = _rows(array, axis, False)
    return np.ascontiguousarray(np.moveaxis(array, axis, -1)).reshape(-1, array.shape[axis], 1) if found is None else found


def _run(kind: str, axis: int, x: np.ndarray, to: np.ndarray | None, dtype: str, g: np.ndarray | None = None,
         **more: Any) -> None:
    """A native kernel on arrays of any strides, which are copied where it takes others."""
    given, threads = (x, to, g), settings.current().num_threads
    for apart in (axis != x.ndim - 1, axis == x.ndim - 1):
        rows = [None if array is None else _rows(array, axis, apart) for array in given]
        if all(array is None or seen is not None for array, seen in zip(given, rows)):
            return native.runtime().rows(operands.native_module(), kind, *rows, threads=threads, **more)
    rows = [None if array is None else _copied(array, axis) for array in given]
    native.runtime().rows(operands.native_module(), kind, *rows, threads=threads, **more)
    if to is not None and rows[1] is not None:
        moved = np.moveaxis(to, axis, -1)
        moved[...] = rows[1].reshape(moved.shape)


def _along(kind_of: str, input: Any, grad_output: Any, axis: Any, out: Any) -> Any:
    name = "output" if kind_of.endswith("gradient") else "input"
    required = {name: input} if name == "input" else {"grad_output": grad_output, name: input}
    kind, (*given, y) = operands.views(required, out=out)
    x, g = given[-1], given[0] if len(given) == 2 else None
    dtype = operands.dtype_of(**{name: x}, grad_output=g)
    if g is not None:
        operands.same_shape("grad_output", g, x.shape, name)
    place = integer("axis", axis, None)
    if not -x.ndim <= place < x.ndim:
        raise ValueError(f"axis must be one of the {x.ndim} axes of {name}, got {shown(axis)}")
    place %= x.ndim
    result, target = operands.result(kind, out, y, x, dtype, name)
    x, g = arrays.ready(x, dtype), None if g is None else arrays.ready(g, dtype)

    def compute(to: np.ndarray) -> None:
        if operands.native_module() is not None:
            _run(kind_of, place, x, to, dtype, g)
        else:
            to[...] = _by_numpy(kind_of, x.astype(np.float64), g, place)

    if x.size:
        operands.write(target, (x, g), dtype, compute)
    return result


def _by_numpy(kind_of: str, x: np.ndarray, g: np.ndarray | None, axis: int) -> np.ndarray:
    """In float64."""
    with np.errstate(all="ignore"):
        if g is not None:
            if kind_of == "softmax_gradient":
                return x * (g - (g.astype(np.float64) * x).sum(axis, keepdims=True))
            return g - np.exp(x) * g.astype(np.float64).sum(axis, keepdims=True)
        x = x - x.max(axis, keepdims=True)
        e = np.exp(x)
        total = e.sum(axis, keepdims=True)
        return e / total if kind_of == "softmax" else x - np.log(total)


# ---- cross entropy


class _Call:
    """A cross entropy whose arguments are understood."""

    def __init__(self, x: np.ndarray, target: np.ndarray, weight: np.ndarray | None, ignored: int, smoothing: float,
                 grad_output: np.ndarray | None, out: np.ndarray | None) -> None:
        self.dtype = operands.dtype_of(input=x)
        self.x, self.target, self.weight = arrays.ready(x, self.dtype), target, weight
        self.ignored, self.smoothing, self.grad_output, self.out = ignored, smoothing, grad_output, out
        self.axis = 0 if x.ndim == 1 else 1
        self.index = np.ascontiguousarray(target, np.int64).ravel()

    def _more(self, loss: np.ndarray) -> dict[str, Any]:
        return dict(target=self.index, weight=self.weight, smoothing=self.smoothing, ignored=self.ignored, loss=loss)

    def share(self) -> float:
        """The sum of the weights of the targets that count."""
        counted = self.index[self.index != self.ignored]
        return float(len(counted) if self.weight is None else self.weight[counted].sum())

    def losses(self) -> np.ndarray:
        """One per row, float64."""
        losses = np.zeros(self.index.shape)
        if self.x.size and operands.native_module() is not None:
            _run("cross_entropy", self.axis, self.x, None, self.dtype, **self._more(losses))
        elif self.x.size:
            logs = _by_numpy("log_softmax", self._matrix(), None, 1)
            with np.errstate(invalid="ignore"):
                losses = -(logs * self._shares()).sum(1)
            losses[self.index == self.ignored] = 0
        return losses

    def gradient(self, to: np.ndarray, upstream: np.ndarray) -> None:
        if operands.native_module() is not None:
            return _run("cross_entropy_gradient", self.axis, self.x, to, self.dtype, **self._more(upstream))
        shares = self._shares()
        found = upstream[:, None] * (_by_numpy("softmax", self._matrix(), None, 1) * shares.sum(1, keepdims=True) - shares)
        found[self.index == self.ignored] = 0
        moved = np.moveaxis(to, self.axis, -1)
        moved[...] = found.reshape(moved.shape)

    def _matrix(self) -> np.ndarray:
        return np.moveaxis(self.x, self.axis, -1).reshape(-1, self.x.shape[self.axis]).astype(np.float64)

    def _shares(self) -> np.ndarray:
        """What each row's loss takes of the -log softmax of each class."""
        classes = self.x.shape[self.axis]
        weight = np.ones(classes) if self.weight is None else self.weight
        shares = np.tile(self.smoothing / classes * weight, (len(self.index), 1))
        rows = np.flatnonzero(self.index != self.ignored)
        shares[rows, self.index[rows]] += (1 - self.smoothing) * weight[self.index[rows]]
        return shares


def _understood(input: Any, target: Any, weight: Any, ignore_index: Any, reduction: Any, label_smoothing: Any,
                **more: Any) -> tuple[arrays.Kind, _Call]:
    kind, (x, t, w, *rest) = operands.views({"input": input, "target": target}, weight=weight, **more)
    if not isinstance(reduction, str) or reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got {shown(reduction)}")
    ignored, smoothing = integer("ignore_index", ignore_index, None), number("label_smoothing", label_smoothing)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"label_smoothing must be between 0 and 1, got {shown(label_smoothing)}")
    if x.ndim == 0 or x.shape[min(1, x.ndim - 1)] == 0:
        raise ValueError("input must have shape (C,), (N, C) or (N, C, ...), with a class at least, got "
                         f"{shown(tuple(x.shape))}")
    classes, expected = x.shape[min(1, x.ndim - 1)], () if x.ndim == 1 else (x.shape[0], *x.shape[2:])
    if tuple(t.shape) != expected:
        raise ValueError(f"target must have shape {expected} for input of shape {shown(tuple(x.shape))}, got "
                         f"{shown(tuple(t.shape))}")
    if t.dtype.kind not in "iu":
        raise TypeError(f"target must be integers, the indices of classes, got {t.dtype.name}")
    wrong = t[((t < 0) | (t >= classes)) & (t != ignored)]
    if wrong.size:
        raise ValueError(f"target must be at least 0 and below {classes}, or ignore_index ({ignored}), got "
                         f"{int(wrong.flat[0])}")
    if w is not None:
        if tuple(w.shape) != (classes,):
            raise ValueError(f"weight must have shape ({classes},), one value per class, got {shown(tuple(w.shape))}")
        if w.dtype.kind not in "fiu":
            raise TypeError(f"weight must be of a real dtype, got {w.dtype.name}")
        w = np.ascontiguousarray(w, np.float64)
    return kind, _Call(x, t, w, ignored, smoothing, *(rest or (None, None)))
