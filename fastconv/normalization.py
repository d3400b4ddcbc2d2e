"""Batch normalisation and its gradients: PyTorch's arguments, meaning and order, natively where it can be.

y = (x - mean)·scale + bias, scale = weight / √(variance + eps), for each channel (S. Ioffe, C. Szegedy, "Batch normalization",
2015). Statistics are summed block by block (`kernels/batch_norm.hpp`), in an order that no number of threads changes, less the
channel's first value x₀, then less the mean so far; float32 in float64, 16 values a lane in float32 first. With u = 2⁻²⁴
(float64: 2⁻⁵³) and n values per channel, the mean is within (17u + n·2⁻⁵³)·mean|x - x₀| of the exact one, and the variance
within three times as much, relative to itself; typical are some 2u. (x - mean) is rounded in the input's dtype: where |mean| is
large beside the deviation, y has an error of u·|mean|·scale.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import activations, arrays, native, operands, settings, torch_arrays
from .arguments import one_of
from .channels import copied, cube
from .dtypes import DTYPES, name_of
from .errors import shown
from .problem import flag, normalize_layout, number

ACTIVATIONS = ("relu", "relu6")  # that may follow at once


@torch_arrays.opaque
def batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5, *, activation: str | None = None, return_stats: bool = False,
    layout: str = "channels_first", out: Any = None,
) -> Any:
    """Normalise each channel, as `torch.nn.functional.batch_norm`, then apply an activation.

    Args:
        input: (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W), float32 or float64; with channels_last C is the last axis.
        running_mean, running_var: (C,), float32 or float64. The statistics, unless in training; in training updated in place
            to (1 - momentum)·running + momentum·batch's, the variance of the batch being the unbiased one; None: not kept.
        weight, bias: (C,), of any real dtype, or None: 1 and 0.
        training: normalise by the batch's own mean and (biased) variance.
        momentum: the share of this batch in the running statistics.
        eps: added to the variance.
        activation: None, relu or relu6.
        return_stats: also return what `batch_norm_backward` takes as save_mean and save_invstd, as
            `torch.native_batch_norm` does.
        layout: channels_first or channels_last, or their names for the input's axes (NCHW, NHWC, ...).
        out: array of the input's shape and dtype, any strides; overwritten and returned; may be the input itself.

    Returns:
        An array of the input's kind, shape, dtype and memory order; with return_stats (output, mean, 1 / √(variance + eps)),
        the statistics that it was normalised by, (C,), of the input's dtype and kind.

    Raises:
        ValueError: shapes that do not fit; no running statistics, and no training; training with one value a channel.
        TypeError: dtypes other than float32 and float64, or kinds of arrays that do not fit.
        Unsupported: arrays on a GPU.
    """
    training, eps, momentum = flag("training", training), epsilon(eps), number("momentum", momentum)
    return_stats = flag("return_stats", return_stats)
    if activation is not None:
        one_of("activation", activation, ACTIVATIONS)
    kind, (x, mean, variance, w, b, y) = operands.views(
        {"input": input}, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias, out=out)
    call = _call(x, mean, variance, w, b, training, eps, layout, activation)
    result, target = operands.result(kind, out, y, x, call.dtype)
    if x.size:
        operands.write(target, (x,), call.dtype, lambda to: _forward(call, to))
        if training:
            count = x.size // len(call.mean)
            _update("running_mean", mean, call.mean, momentum)
            _update("running_var", variance, call.variance * (count / (count - 1)), momentum)
    if not return_stats:
        return result
    statistics = call.mean, _inverse(call.variance, eps, training)
    return result, *(operands.made_of(kind, values, call.dtype) for values in statistics)


@torch_arrays.opaque
def batch_norm_backward(
    grad_output: Any, input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, training: bool = False,
    eps: float = 1e-5, *, save_mean: Any = None, save_invstd: Any = None, bias: Any = None, activation: str | None = None,
    layout: str = "channels_first", out: Any = None,
) -> tuple[Any, Any, Any]:
    """Gradients of `batch_norm`: of input, weight and bias.

    Args:
        grad_output: of the input's shape and dtype.
        input, weight, eps, layout: as of the `batch_norm`.
        running_mean, running_var: read where it was not training.
        training: whether the statistics were the batch's own, and are differentiated.
        save_mean, save_invstd: (C,), float32 or float64, both or none: what `batch_norm` returned with return_stats, which
            saves a third of the work; in training None means that they are computed again.
        bias, activation: as of the `batch_norm`; grad_output is that of the activation's output. Without one no bias is read.
        out: for the gradient of the input: array of its shape and dtype, any strides; may be grad_output or input itself.

    Returns:
        (∂input, ∂weight, ∂bias): of the input's shape, (C,) and (C,), all of the input's dtype and kind; sums in float64.

    Raises:
        ValueError, TypeError, Unsupported: as `batch_norm`.
    """
    training, eps = flag("training", training), epsilon(eps)
    if activation is not None:
        one_of("activation", activation, ACTIVATIONS)
    kind, (g, x, mean, variance, w, b, saved, inverse, y) = operands.views(
        {"grad_output": grad_output, "input": input}, running_mean=running_mean, running_var=running_var, weight=weight,
        bias=bias, save_mean=save_mean, save_invstd=save_invstd, out=out)
    call = _call(x, mean, variance, w, b, training, eps, layout, activation, (saved, inverse))
    operands.dtype_of(input=x, grad_output=g)
    operands.same_shape("grad_output", g, x.shape, "input")
    result, target = operands.result(kind, out, y, x, call.dtype)
    sums = np.zeros((2, len(call.mean)))
    if x.size:
        operands.write(target, (x, g), call.dtype, lambda to: _backward(call, arrays.ready(g, call.dtype), to, sums))
    of_weight, of_bias = (operands.made_of(kind, values, call.dtype) for values in sums)
    return result, of_weight, of_bias


def _inverse(variance: np.ndarray, eps: float, of_batch: bool) -> np.ndarray:
    if of_batch and eps:  # the usual case, in which nothing is to be silenced
        return 1 / np.sqrt(variance + eps)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 / np.sqrt(variance + eps)


class _Call(NamedTuple):
    """What both directions need once their arguments are understood."""

    x: np.ndarray
    channel: int  # the axis
    mean: np.ndarray  # of each channel, like all that follows; in training, unless known, written
    variance: np.ndarray
    known: bool
    weight: np.ndarray
    bias: np.ndarray
    training: bool
    eps: float
    activation: str | None
    dtype: str


def _call(x: np.ndarray, mean: Any, variance: Any, w: Any, b: Any, training: bool, eps: float, layout: str,
          activation: str | None, saved: tuple[Any, Any] = (None, None)) -> _Call:
    dtype = operands.dtype_of(input=x)
    if not 2 <= x.ndim <= 5:
        raise ValueError(f"input must have 2 to 5 axes, (N, C) and up to three of space, got shape {shown(tuple(x.shape))}")
    last = x.ndim == 2 or normalize_layout(layout, x.ndim - 2) == "channels_last"
    channel = x.ndim - 1 if last else 1
    channels = x.shape[channel]
    if training and x.size // max(channels, 1) < 2:
        raise ValueError(f"input must have more than one value per channel in training, got shape {shown(tuple(x.shape))}")
    known = saved[0] is not None
    if known != (saved[1] is not None):
        raise ValueError("save_mean and save_invstd must both be given, or none of them, got one")
    if not training and not known and (mean is None or variance is None):
        raise ValueError("running_mean and running_var must be given unless training is True, got None")
    for name, values in (("running_mean", mean), ("running_var", variance)):
        _check_channels(name, values, channels)
    if known:
        inverse = _per_channel("save_invstd", saved[1], channels, 1.0)
        with np.errstate(divide="ignore"):
            statistics, eps = (_per_channel("save_mean", saved[0], channels, 0.0), 1 / inverse**2), 0.0
    elif training:
        statistics = np.zeros(channels), np.zeros(channels)
    else:
        statistics = np.ascontiguousarray(mean, np.float64), np.ascontiguousarray(variance, np.float64)
    return _Call(arrays.ready(x, dtype), channel, *statistics, known, _per_channel("weight", w, channels, 1.0),
                 _per_channel("bias", b, channels, 0.0), training, eps, activation, dtype)


def _check_channels(name: str, values: np.ndarray | None, channels: int) -> None:
    """
    Raises:
        ValueError, TypeError: it has not one value for each channel, or another dtype than it may have.
    """
    if values is None:
        return
    if values.shape != (channels,):
        raise ValueError(f"{name} must have shape ({channels},), one value per channel, got {shown(tuple(values.shape))}")
    statistics = name.startswith(("running", "save"))
    if values.dtype.kind not in "fiu" or statistics and name_of(values.dtype) not in DTYPES:
        raise TypeError(f"{name} must be float32 or float64, got {values.dtype.name}")


def _per_channel(name: str, values: np.ndarray | None, channels: int, otherwise: float) -> np.ndarray:
    _check_channels(name, values, channels)
    return np.full(channels, otherwise) if values is None else np.ascontiguousarray(values, np.float64)


def epsilon(value: Any) -> float:
    """What is added to a variance."""
    found = number("eps", value)
    if found < 0:
        raise ValueError(f"eps must not be negative, got {shown(value)}")
    return found


def _update(name: str, running: np.ndarray | None, of_batch: np.ndarray, momentum: float) -> None:
    if running is None:
        return
    if not running.flags.writeable:
        raise ValueError(f"{name} must be writeable in training, got a read-only array")
    running += momentum * (of_batch - running)  # in float64, then rounded


def _cubes(call: _Call, *given: np.ndarray) -> tuple[bool, list[np.ndarray | None]]:
    """(whether most is adjacent along channels; such views of all arrays, None where that takes a copy)."""
    few = call.x.size == call.x.shape[0] * call.x.shape[call.channel]  # (N, C): nothing else to go along
    for last in (few, not few):
        seen = [cube(array, call.channel, last) for array in given]
        if all(view is not None for view in seen):
            return last, seen
    return few, [cube(array, call.channel, few) for array in given]


def _forward(call: _Call, to: np.ndarray) -> None:
    if operands.native_module() is None:
        return _forward_by_numpy(call, to)
    _natively(call, to)


def _backward(call: _Call, g: np.ndarray, to: np.ndarray, sums: np.ndarray) -> None:
    if operands.native_module() is None:
        return _backward_by_numpy(call, g, to, sums)
    _natively(call, to, g, known=call.known, grad_weight=sums[0], grad_bias=sums[1])


def _natively(call: _Call, to: np.ndarray, g: np.ndarray | None = None, **more: Any) -> None:
    read = (call.x,) if g is None else (call.x, g)
    last, (target, *seen) = _cubes(call, to, *read)
    x, *gradient = (copied(array, call.channel, last) if view is None else view for array, view in zip(read, seen))
    if gradient:
        more["grad_output"] = gradient[0]

    def compute(result: np.ndarray) -> None:
        native.runtime().batch_norm(
            operands.native_module(), x, result, call.weight, call.bias, call.mean, call.variance, training=call.training,
            epsilon=call.eps, activation=call.activation, channels_last=last, threads=settings.current().num_threads, **more)

    if target is not None:
        return compute(target)
    moved = np.moveaxis(to, call.channel, -1 if last else 1)
    made = np.empty(moved.shape, call.dtype)
    view = cube(made, made.ndim - 1 if last else 1, last)
    assert view is not None
    compute(view)
    moved[...] = made


# ---- without native kernels: the same formulas in float64


def _forward_by_numpy(call: _Call, to: np.ndarray) -> None:
    x = np.moveaxis(call.x, call.channel, -1).astype(np.float64)
    _statistics(call, x)
    with np.errstate(invalid="ignore", divide="ignore"):
        y = (x - call.mean) * (call.weight / np.sqrt(call.variance + call.eps)) + call.bias
    if call.activation is not None:
        activations.apply((call.activation, 0.0), y)
    np.moveaxis(to, call.channel, -1)[...] = y


def _backward_by_numpy(call: _Call, g: np.ndarray, to: np.ndarray, sums: np.ndarray) -> None:
    x, g = (np.moveaxis(array, call.channel, -1).astype(np.float64) for array in (call.x, g))
    _statistics(call, x)
    axes = tuple(range(x.ndim - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt(call.variance + call.eps)
        normal = (x - call.mean) / deviation
        if call.activation is not None:
            g = activations.gradient((call.activation, 0.0), g, (normal * call.weight + call.bias).astype(call.dtype))
        sums[0], sums[1] = (g * normal).sum(axes), g.sum(axes)
        if call.training:
            count = x.size / len(call.mean)
            g = g - sums[1] / count - normal * (sums[0] / count)
        np.moveaxis(to, call.channel, -1)[...] = g * (call.weight / deviation)


def _statistics(call: _Call, x: np.ndarray) -> None:
    if call.training and not call.known:
        axes = tuple(range(x.ndim - 1))
        with np.errstate(invalid="ignore"):
            x = x - (first := x[(0,) * len(axes)])
            mean = x.mean(axes)
            mean += (x - mean).mean(axes)
            call.mean[...] = first + mean
            call.variance[...] = ((x - mean) ** 2).mean(axes)
