"""Layer normalisation and its gradients: PyTorch's arguments, meaning and order, natively where it can be.

y = (x - mean) / √(variance + eps) · weight + bias along the last axes (J. Ba, J. Kiros, G. Hinton, "Layer normalization",
arXiv:1607.06450): statistics are each row's own. They are summed as those of `batch_norm`, with its bounds
(`kernels/layer_norm.hpp`); a row's result depends on that row alone, and is the same for any number of threads.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from . import arrays, native, operands, settings, torch_arrays
from .arguments import axes_of
from .errors import shown
from .normalization import epsilon
from .problem import flag


@torch_arrays.opaque
def layer_norm(
    input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *, return_stats: bool = False,
    out: Any = None,
) -> Any:
    """Normalise along the last axes, as `torch.nn.functional.layer_norm`.

    Args:
        input: (..., *normalized_shape), float32 or float64.
        normalized_shape: of the axes that are normalised together: an int or several.
        weight, bias: of that shape and any real dtype, or None: 1 and 0.
        eps: added to the variance.
        return_stats: also return what `layer_norm_backward` takes as save_mean and save_invstd, as `torch.native_layer_norm`.
        out: array of the input's shape and dtype, any strides; overwritten and returned; may be the input itself.

    Returns:
        An array of the input's kind, shape and dtype; with return_stats (output, mean, 1 / √(variance + eps)), the statistics
        of the input's shape with axes of length 1 where it was normalised, of its dtype and kind.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: dtypes other than float32 and float64, or kinds of arrays that do not fit.
        Unsupported: arrays on a GPU.
    """
    eps, return_stats = epsilon(eps), flag("return_stats", return_stats)
    kind, (x, w, b, y) = operands.views({"input": input}, weight=weight, bias=bias, out=out)
    call = _call(x, normalized_shape, w, b, eps)
    result, target = operands.result(kind, out, y, x, call.dtype)
    if call.size:
        operands.write(target, (x,), call.dtype, lambda to: _written(call, to, _forward))
    if not return_stats:
        return result
    saved = (values.reshape(call.statistics) for values in (call.mean, call.inverse))
    return result, *(operands.made_of(kind, values, call.dtype) for values in saved)


@torch_arrays.opaque
def layer_norm_backward(
    grad_output: Any, input: Any, normalized_shape: Any, weight: Any = None, eps: float = 1e-5, *, save_mean: Any = None,
    save_invstd: Any = None, out: Any = None,
) -> tuple[Any, Any, Any]:
    """Gradients of `layer_norm`: of input, weight and bias.

    Args:
        grad_output: of the input's shape and dtype.
        input, normalized_shape, weight, eps: as of the `layer_norm`.
        save_mean, save_invstd: both or none: what `layer_norm` returned with return_stats; None: computed again.
        out: for the gradient of the input: array of its shape and dtype, any strides; may be grad_output or input itself.

    Returns:
        (∂input, ∂weight, ∂bias): of the input's shape and twice normalized_shape, all of the input's dtype and kind; sums in
        float64.

    Raises:
        ValueError, TypeError, Unsupported: as `layer_norm`.
    """
    kind, (g, x, w, mean, inverse, y) = operands.views(
        {"grad_output": grad_output, "input": input}, weight=weight, save_mean=save_mean, save_invstd=save_invstd, out=out)
    call = _call(x, normalized_shape, w, None, epsilon(eps), (mean, inverse))
    operands.dtype_of(input=x, grad_output=g)
    operands.same_shape("grad_output", g, x.shape, "input")
    result, target = operands.result(kind, out, y, x, call.dtype)
    sums = np.zeros((2, call.length))
    if call.size:
        rows = _rows(arrays.ready(g, call.dtype), call)
        operands.write(target, (x, g), call.dtype, lambda to: _written(call, to, _backward, rows, sums))
    return result, *(operands.made_of(kind, values.reshape(call.normalized), call.dtype) for values in sums)


class _Call(NamedTuple):
    """What both directions need once their arguments are understood."""

    x: np.ndarray  # (rows, length), contiguous
    normalized: tuple[int, ...]
    statistics: tuple[int, ...]  # the shape of theirs
    mean: np.ndarray  # of each row, float64, like the inverse deviation; written, unless known
    inverse: np.ndarray
    known: bool
    weight: np.ndarray | None
    bias: np.ndarray | None
    eps: float
    dtype: str

    @property
    def size(self) -> int:
        return self.x.size

    @property
    def length(self) -> int:
        return self.x.shape[1]


def _call(x: np.ndarray, normalized_shape: Any, w: Any, b: Any, eps: float, saved: tuple[Any, Any] = (None, None)) -> _Call:
    dtype = operands.dtype_of(input=x)
    normalized = shape_of(normalized_shape)
    if len(normalized) > x.ndim or tuple(x.shape[x.ndim - len(normalized):]) != normalized:
        raise ValueError(f"input must end in the axes of normalized_shape, {normalized}, got shape {shown(tuple(x.shape))}")
    before = tuple(x.shape[:x.ndim - len(normalized)])
    statistics, length = (*before, *[1] * len(normalized)), math.prod(normalized)
    if (saved[0] is None) != (saved[1] is None):
        raise ValueError("save_mean and save_invstd must both be given, or none of them, got one")
    for name, values in (("save_mean", saved[0]), ("save_invstd", saved[1])):
        if values is not None:
            operands.dtype_of(**{name: values})
            operands.same_shape(name, values, statistics, "the statistics")
    mean, inverse = (np.zeros(math.prod(before)) if each is None else np.array(each, np.float64).ravel() for each in saved)
    rows = np.ascontiguousarray(arrays.ready(x, dtype)).reshape(math.prod(before), length)
    weight, bias = (_per_position(name, values, normalized, dtype) for name, values in (("weight", w), ("bias", b)))
    return _Call(rows, normalized, statistics, mean, inverse, saved[0] is not None, weight, bias, eps, dtype)


def shape_of(normalized_shape: Any) -> tuple[int, ...]:
    """One or several axes, as a tuple."""
    one = isinstance(normalized_shape, (int, np.integer))
    given = (normalized_shape,) if one else tuple(normalized_shape)
    if not given:
        raise ValueError(f"normalized_shape must have at least one axis, got {shown(normalized_shape)}")
    return axes_of("normalized_shape", given, len(given))


def _per_position(name: str, values: np.ndarray | None, shape: tuple[int, ...], dtype: str) -> np.ndarray | None:
    if values is None:
        return None
    operands.same_shape(name, values, shape, "normalized_shape")
    if values.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be of real numbers, got {values.dtype.name}")
    return np.ascontiguousarray(values, dtype).ravel()


def _rows(array: np.ndarray, call: _Call) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(call.x.shape)


def _written(call: _Call, to: np.ndarray, compute: Any, *more: Any) -> None:
    """compute(call, rows of the result, *more): where it is, or through an array that is contiguous."""
    made = to if to.flags.c_contiguous else np.empty(to.shape, call.dtype)
    compute(call, made.reshape(call.x.shape), *more)
    if made is not to:
        to[...] = made


def _forward(call: _Call, to: np.ndarray) -> None:
    if operands.native_module() is None:
        return _forward_by_numpy(call, to)
    _natively(call, to)


def _backward(call: _Call, to: np.ndarray, g: np.ndarray, sums: np.ndarray) -> None:
    if operands.native_module() is None:
        return _backward_by_numpy(call, to, g, sums)
    _natively(call, to, grad_output=g, grad_weight=sums[0], grad_bias=sums[1])


def _natively(call: _Call, to: np.ndarray, **more: Any) -> None:
    native.runtime().layer_norm(operands.native_module(), call.x, to, call.weight, call.bias, call.mean, call.inverse,
                                epsilon=call.eps, known=call.known, threads=settings.current().num_threads, **more)


# ---- without native kernels: the same formulas in float64


def _forward_by_numpy(call: _Call, to: np.ndarray) -> None:
    x = call.x.astype(np.float64)
    _find_statistics(call, x)
    with np.errstate(invalid="ignore"):
        y = (x - call.mean[:, None]) * call.inverse[:, None]
        y = y if call.weight is None else y * call.weight
        to[...] = y if call.bias is None else y + call.bias


def _backward_by_numpy(call: _Call, to: np.ndarray, g: np.ndarray, sums: np.ndarray) -> None:
    x, g = call.x.astype(np.float64), g.astype(np.float64)
    _find_statistics(call, x)
    with np.errstate(invalid="ignore"):
        inverse = call.inverse[:, None]
        normal = (x - call.mean[:, None]) * inverse
        sums[0], sums[1] = (g * normal).sum(0), g.sum(0)
        h = g if call.weight is None else g * call.weight
        to[...] = inverse * (h - h.mean(1, keepdims=True) - normal * (h * normal).mean(1, keepdims=True))


def _find_statistics(call: _Call, x: np.ndarray) -> None:
    if call.known:
        return
    with np.errstate(invalid="ignore", divide="ignore"):
        x = x - (first := x[:, :1])
        mean = x.mean(1, keepdims=True)
        mean += (x - mean).mean(1, keepdims=True)
        call.mean[...] = (first + mean).ravel()
        call.inverse[...] = 1 / np.sqrt(((x - mean) ** 2).mean(1) + call.eps)
