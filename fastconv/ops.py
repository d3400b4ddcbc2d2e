"""The functional API: conv1d, conv2d, conv3d, and `explain`.

A call is: arguments -> ConvProblem (validated) -> Plan -> Kernel -> run. Everything before `run` depends only on shapes,
dtypes and plain arguments, and is remembered under them (`_memo`). Where the kernel offers a shortcut, a plain repetition of
the call takes that (`_shortcuts`), and costs about a microsecond; what is not plain goes the long way, which knows the rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import arrays, settings, torch_arrays
from .arguments import integer
from .backends import Kernel, Shortcut
from .errors import shown
from .lowering import pack_once
from .plan import Plan, chosen_kernel, plan
from .problem import ConvProblem, result_dtype

_MEMO_SIZE = 1024
_SHORTCUTS_PER_SHAPE = 16
_LAYOUT = 5  # its place in `arguments` of `_conv`


@dataclass(frozen=True, slots=True)
class Bound:
    """What a call needs once its arguments are understood."""

    problem: ConvProblem
    kernel: Kernel
    batched: bool
    output_shape: tuple[int, ...]  # as returned: without the batch axis where the input had none


_memo: dict[Any, Bound] = {}
_shortcuts: dict[Any, list[Shortcut]] = {}  # by axes and shapes, the latest first; they compare the rest themselves


@torch_arrays.opaque
def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", layout: str = "channels_first", activation: Any = None, residual: Any = None, out: Any = None,
    backend: str = "auto", algorithm: str | None = None, accuracy: str | None = None,
) -> Any:
    """1-D convolution: input (N, C, W) or (C, W), weight (out, C / groups, kW). Everything else as `conv2d`."""
    return _conv(1, input, weight, bias, residual, out, (stride, padding, dilation, groups, padding_mode, layout, activation,
                                                        backend, algorithm, accuracy))


@torch_arrays.opaque
def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", layout: str = "channels_first", activation: Any = None, residual: Any = None, out: Any = None,
    backend: str = "auto", algorithm: str | None = None, accuracy: str | None = None,
) -> Any:
    """2-D convolution ``act(conv(input, weight) + bias + residual)``: PyTorch's arguments, meaning and order.

    "Convolution" is cross-correlation, as in every deep-learning library; `fastconv.convolve` flips the kernel.

    Args:
        input: (N, C, H, W), or (C, H, W) for one image; channels_last: (N, H, W, C) or (H, W, C).
        weight: (out, C / groups, kH, kW), in every layout.
        bias: (out,), or None.
        stride, dilation: an int, one per axis, or one in a sequence for all axes.
        padding: as those; one entry per axis, each an int or (low, high); "valid"; "same" (with any stride: the SAME_UPPER
            of TensorFlow and ONNX), "same_lower"; "full".
        groups: divides the input and output channels.
        padding_mode: zeros, reflect, symmetric, replicate or circular: the input is continued as `numpy.pad` does it, then
            convolved. Padded zeros are multiplied like any other value: an infinite weight over them gives NaN.
        layout: channels_first (NCHW) or channels_last (NHWC).
        activation: None, a name or (name, parameter): relu, relu6, leaky_relu (negative slope, 0.01), sigmoid, tanh,
            gelu (erf), gelu_tanh, silu, hardswish.
        residual: added before the activation; of exactly the output's shape and dtype; may be `out` itself.
        out: array of exactly the output's shape and dtype, any strides; overwritten and returned.
        backend: "auto", or one of `fastconv.backends()`.
        algorithm: None, or direct, gemm, im2col, ... of that backend.
        accuracy: "strict" sums the products themselves, and in native kernels with one input channel per group rounds each,
            so that opposite taps cancel exactly on flat data; "fast" (default) admits algorithms of at most 4x its RMS error
            on zero-mean data and may flush denormals; "loose" admits all.

    Returns:
        The output, contiguous in `layout`, of the kind (NumPy, torch, ...) and on the device of the input. Its dtype is
        ``np.result_type(input, weight)``, which must be float32 or float64, under torch's autocast, too. Of tensors in torch's
        channels_last memory format it has that format. Nothing is recorded for autograd, so tensors that require grad are
        taken under `torch.no_grad` only.

    Raises:
        ValueError: shapes or values that no backend may compute.
        TypeError: dtypes or kinds of arrays that do not fit; tensors whose operations torch records, transforms or traces.
        Unsupported: what was asked for by name refuses the problem.
        Unavailable: what was asked for by name cannot run here.
    """
    return _conv(2, input, weight, bias, residual, out, (stride, padding, dilation, groups, padding_mode, layout, activation,
                                                        backend, algorithm, accuracy))


@torch_arrays.opaque
def conv3d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", layout: str = "channels_first", activation: Any = None, residual: Any = None, out: Any = None,
    backend: str = "auto", algorithm: str | None = None, accuracy: str | None = None,
) -> Any:
    """3-D convolution: input (N, C, D, H, W) or (C, D, H, W), weight (out, C / groups, kD, kH, kW). Everything else as
    `conv2d`."""
    return _conv(3, input, weight, bias, residual, out, (stride, padding, dilation, groups, padding_mode, layout, activation,
                                                        backend, algorithm, accuracy))


def _conv(ndim: int, input: Any, weight: Any, bias: Any, residual: Any, out: Any, arguments: tuple[Any, ...]) -> Any:
    """A call of convNd; `arguments` as `bind` takes them, from stride on."""
    current = settings.current()
    if type(input) is np.ndarray and type(weight) is np.ndarray:
        for shortcut in _shortcuts.get((ndim, input.shape, weight.shape), ()):
            result = shortcut.take(current, arguments, input, weight, bias, residual, out)
            if result is not None:
                return result
    kind, arguments, (x, w, b, r, y) = _seen(ndim, input, weight, bias, residual, out, arguments)
    key: tuple[Any, ...] | None
    try:
        key = (ndim, x.shape, w.shape, x.dtype, w.dtype, None if b is None else b.shape, r is None, kind.device,
               current.planning, *map(typed, arguments))
        bound = _memo.get(key)
    except Exception:  # an argument that cannot be hashed: the validation names it
        bound = key = None
    if bound is None:
        bound = bind(ndim, x, w, b, r, kind.device, *arguments)
        if key is not None:
            _remember(key, bound, current, arguments)
    packed = pack_once(bound.kernel, *weights_ready(bound, w, b))
    return execute(bound, kind, x, packed, r, out, y, (w, b))


def _seen(ndim: int, input: Any, weight: Any, bias: Any, residual: Any, out: Any,
          arguments: tuple[Any, ...]) -> tuple[arrays.Kind, tuple[Any, ...], list[Any]]:
    """The kind of the arrays, the arguments that hold for how the backends see them, and how these do."""
    kind, views = arrays.views({"input": input, "weight": weight}, bias=bias, residual=residual, out=out)
    if kind.name == "torch":
        x, w, b, r, y = views
        kind, layout, (x, r, y) = torch_arrays.in_memory_order(kind, ndim, arguments[_LAYOUT], (x, w), (x, r, y))
        arguments, views = (*arguments[:_LAYOUT], layout, *arguments[_LAYOUT + 1:]), [x, w, b, r, y]
    return kind, arguments, views


def bind(ndim: int, x: Any, w: Any, b: Any, residual: Any, device: str, stride: Any, padding: Any, dilation: Any, groups: Any,
         padding_mode: str, layout: str, activation: Any, backend: str, algorithm: str | None, accuracy: str | None,
         prepared: bool = False) -> Bound:
    """Understand the arguments of a call: problem, plan, kernel."""
    problem = ConvProblem.from_shapes(
        x.shape, w.shape, ndim=ndim, bias_shape=None if b is None else b.shape, stride=stride, padding=padding,
        dilation=dilation, groups=groups, padding_mode=padding_mode, layout=layout, activation=activation,
        residual=residual is not None, dtype=result_dtype(x.dtype, w.dtype),
        accuracy=settings.current().accuracy if accuracy is None else accuracy)
    batched = len(x.shape) == ndim + 2
    kernel = chosen_kernel(problem, backend, algorithm, device.partition(":")[0], prepared)
    return Bound(problem, kernel, batched, problem.output_shape if batched else problem.output_shape[1:])


def _remember(key: Any, bound: Bound, made_for: settings.Settings, arguments: tuple[Any, ...]) -> None:
    if len(_memo) >= _MEMO_SIZE:
        _memo.clear()
        _shortcuts.clear()
    _memo[key] = bound
    shortcut = shortcut_of(bound, made_for, arguments) if _unchangeable(arguments) else None
    if shortcut is not None:
        found = _shortcuts.setdefault(key[:3], [])
        found.insert(0, shortcut)  # whoever goes through the list meanwhile sees one of them twice
        del found[_SHORTCUTS_PER_SHAPE:]


def shortcut_of(bound: Bound, made_for: settings.Settings, arguments: tuple[Any, ...], packed: Any = None) -> Shortcut | None:
    """The kernel's shortcut for a call that has been bound, if it offers any."""
    make = getattr(bound.kernel, "shortcut", None)
    return None if make is None else make(made_for, arguments, bound.batched, packed)


def _unchangeable(value: Any) -> bool:
    """Whether an argument that is the same object has the same meaning, for ever."""
    return type(value) in (type(None), int, str, float) or type(value) is tuple and all(map(_unchangeable, value))


def typed(value: Any) -> Any:
    """`value` such that equal keys mean equal meaning: 1, 1.0 and True hash alike, but only one is a stride. Not hashable where
    the same object may have another meaning later, as a tensor for an integer."""
    if value is None or type(value) is int or type(value) is str:
        return value
    if type(value) is tuple:
        return tuple(map(typed, value))
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(typed, value))
    return (type(value), value) if isinstance(value, (float, int, str, np.generic)) else [value]  # a list: what may change


def weights_ready(bound: Bound, w: Any, b: Any) -> tuple[Any, Any]:
    """Weight and bias in the problem's dtype."""
    if not isinstance(w, np.ndarray):
        return w, b
    dtype = bound.problem.dtype
    return arrays.ready(w, dtype), None if b is None else arrays.ready(_plain(b, "bias"), dtype)


def _plain(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} must be of a real dtype, got {array.dtype.name}")
    return array


def execute(bound: Bound, kind: arrays.Kind, x: Any, packed: Any, residual: Any, out: Any, y: Any,
            weights: tuple[Any, ...] = ()) -> Any:
    """Run a bound kernel: make `out`, or check it by its view `y`; add the batch axis, avoid overlaps, return what the user
    gets."""
    result = out
    if out is None:
        result = kind.empty(bound.output_shape, bound.problem.dtype)
        y = kind.view("out", result)
    else:
        arrays.check_like("out", y, bound.output_shape, bound.problem.dtype)
    if residual is not None:
        arrays.check_like("residual", residual, bound.output_shape, bound.problem.dtype, " (residual never broadcasts)")
    if bound.problem.batch == 0:
        if bound.problem.direction == "backward_weight":
            y[...] = 0
        return result
    if kind.device == "cpu":
        _run_on_cpu(bound, x, packed, y, residual, None if out is None else (x, *weights))
    else:
        bound.kernel.run(x, packed, y, residual)
    return result


def _run_on_cpu(bound: Bound, x: np.ndarray, packed: Any, y: np.ndarray, residual: np.ndarray | None,
                read: tuple[Any, ...] | None) -> None:
    """Run on NumPy arrays; `read`: what else may lie in the memory of a given `out`."""
    dtype = bound.problem.dtype
    x = arrays.ready(x, dtype)
    r = None if residual is None else arrays.ready(residual, dtype)
    target = y
    if read is not None and arrays.needs_temporary(y, read, r):
        target = np.empty(y.shape, dtype)
    if bound.batched:
        bound.kernel.run(x, packed, target, r)
    else:
        bound.kernel.run(x[None], packed, target[None], None if r is None else r[None])
    if target is not y:
        y[...] = target


def explain(problem: Any, *arguments: Any, ndim: int = 2, backend: str = "auto", algorithm: str | None = None,
            **keywords: Any) -> Plan:
    """The plan of a problem: the choice, and why each other candidate was refused or lost. Print it.

    Args:
        problem: a ConvProblem, a problem text, or the arguments of `conv2d` (with ``ndim=1`` or 3: of `conv1d`, `conv3d`).
        backend, algorithm: as for `conv2d`.
    """
    ndim = integer("ndim", ndim, 1)
    if ndim > 3:
        raise ValueError(f"ndim must be 1, 2 or 3, got {shown(ndim)}")
    if not (arguments or "weight" in keywords or isinstance(problem, (str, ConvProblem))):
        raise TypeError(f"problem must be a ConvProblem, a problem text, or the arguments of conv{ndim}d, got {shown(problem)}")
    if isinstance(problem, str) and not arguments:
        problem = ConvProblem.from_text(problem)
    if isinstance(problem, ConvProblem):
        return plan(problem, backend, algorithm)
    return _explain_call(ndim, problem, *arguments, backend=backend, algorithm=algorithm, **keywords)


def _explain_call(
    ndim: int, input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    *, padding_mode: str = "zeros", layout: str = "channels_first", activation: Any = None, residual: Any = None,
    out: Any = None, backend: str = "auto", algorithm: str | None = None, accuracy: str | None = None,
) -> Plan:
    arguments = (stride, padding, dilation, groups, padding_mode, layout, activation, backend, algorithm, accuracy)
    kind, arguments, (x, w, b, r, _) = _seen(ndim, input, weight, bias, residual, out, arguments)
    bound = bind(ndim, x, w, b, r, kind.device, *arguments)
    return plan(bound.problem, backend, algorithm, kind.device.partition(":")[0])
