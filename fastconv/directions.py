"""The other directions of convolution: gradients of the input and of the weight, and transposed convolution.

Names, order and meaning are PyTorch's (`torch.nn.grad`, `torch.nn.functional.conv_transpose2d`). A call is: arguments ->
ConvProblem of its direction -> Plan -> Kernel -> run, as in `ops`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import arrays, ops, settings, torch_arrays
from .arguments import axes_of, flag, image_sizes, normalize_layout, shape
from .channels import sums
from .errors import shown
from .lowering import pack_once
from .plan import chosen_kernel
from .problem import ConvProblem, result_dtype
from .window import normalize_padding

_REMEMBERED = 512
_memo: dict[Any, Any] = {}

# ---- gradient of the input


@torch_arrays.opaque
def conv1d_input(
    input_size: Any, weight: Any, grad_output: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", layout: str = "channels_first", out: Any = None, backend: str = "auto",
    algorithm: str | None = None, accuracy: str | None = None,
) -> Any:
    """Gradient of `conv1d`'s input: input_size (N, C, W) or (C, W). Everything else as `conv2d_input`."""
    return _input(1, input_size, weight, grad_output, out,
                  (stride, padding, dilation, groups, padding_mode, layout, backend, algorithm, accuracy))


@torch_arrays.opaque
def conv2d_input(
    input_size: Any, weight: Any, grad_output: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", layout: str = "channels_first", out: Any = None, backend: str = "auto",
    algorithm: str | None = None, accuracy: str | None = None,
) -> Any:
    """Gradient of `conv2d`'s input, for a gradient of its output: `torch.nn.grad.conv2d_input`.

    Args:
        input_size: the input's shape, (N, C, H, W) or (C, H, W) for one image; channels_last: (N, H, W, C) or (H, W, C).
        weight: (out, C / groups, kH, kW), in every layout.
        grad_output: of the output's shape.
        stride, padding, dilation, groups, padding_mode, layout, backend, algorithm, accuracy: as of the `conv2d`. Where padding
            repeats the input, what the border gets is added to what it repeats.
        out: array of exactly the input's shape and the result's dtype, any strides; overwritten and returned.

    Returns:
        The gradient, of shape `input_size` and dtype ``np.result_type(weight, grad_output)`` (float32 or float64), of the
        arrays' kind. Input that no window reads has the gradient 0.

    Raises:
        ValueError, TypeError, Unsupported, Unavailable: as `conv2d`.
    """
    return _input(2, input_size, weight, grad_output, out,
                  (stride, padding, dilation, groups, padding_mode, layout, backend, algorithm, accuracy))


@torch_arrays.opaque
def conv3d_input(
    input_size: Any, weight: Any, grad_output: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", layout: str = "channels_first", out: Any = None, backend: str = "auto",
    algorithm: str | None = None, accuracy: str | None = None,
) -> Any:
    """Gradient of `conv3d`'s input: input_size (N, C, D, H, W) or (C, D, H, W). Everything else as `conv2d_input`."""
    return _input(3, input_size, weight, grad_output, out,
                  (stride, padding, dilation, groups, padding_mode, layout, backend, algorithm, accuracy))


# ---- gradient of the weight


@torch_arrays.opaque
def conv1d_weight(
    input: Any, weight_size: Any, grad_output: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", layout: str = "channels_first", out: Any = None, backend: str = "auto",
    algorithm: str | None = None, accuracy: str | None = None,
) -> Any:
    """Gradient of `conv1d`'s weight: weight_size (out, C / groups, kW). Everything else as `conv2d_weight`."""
    return _weight(1, input, weight_size, grad_output, out,
                   (stride, padding, dilation, groups, padding_mode, layout, backend, algorithm, accuracy))


@torch_arrays.opaque
def conv2d_weight(
    input: Any, weight_size: Any, grad_output: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", layout: str = "channels_first", out: Any = None, backend: str = "auto",
    algorithm: str | None = None, accuracy: str | None = None,
) -> Any:
    """Gradient of `conv2d`'s weight, for a gradient of its output: `torch.nn.grad.conv2d_weight`.

    Args:
        input: as of the `conv2d`.
        weight_size: the weight's shape, (out, C / groups, kH, kW).
        grad_output: of the output's shape.
        stride, padding, dilation, groups, padding_mode, layout, backend, algorithm, accuracy: as of the `conv2d`.
        out: array of exactly the weight's shape and the result's dtype, any strides; overwritten and returned.

    Returns:
        The gradient, summed over all images, of shape `weight_size` and dtype ``np.result_type(input, grad_output)`` (float32
        or float64), of the arrays' kind. Of no image it is 0.

    Raises:
        ValueError, TypeError, Unsupported, Unavailable: as `conv2d`.
    """
    return _weight(2, input, weight_size, grad_output, out,
                   (stride, padding, dilation, groups, padding_mode, layout, backend, algorithm, accuracy))


@torch_arrays.opaque
def conv3d_weight(
    input: Any, weight_size: Any, grad_output: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", layout: str = "channels_first", out: Any = None, backend: str = "auto",
    algorithm: str | None = None, accuracy: str | None = None,
) -> Any:
    """Gradient of `conv3d`'s weight: weight_size (out, C / groups, kD, kH, kW). Everything else as `conv2d_weight`."""
    return _weight(3, input, weight_size, grad_output, out,
                   (stride, padding, dilation, groups, padding_mode, layout, backend, algorithm, accuracy))


# ---- all gradients


@torch_arrays.opaque
def conv1d_backward(
    grad_output: Any, input: Any, weight: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", layout: str = "channels_first", needs: Any = (True, True, True), backend: str = "auto",
    algorithm: str | None = None, accuracy: str | None = None,
) -> tuple[Any, Any, Any]:
    """All gradients of `conv1d`. Everything as `conv2d_backward`."""
    return _backward(1, grad_output, input, weight, needs,
                     (stride, padding, dilation, groups, padding_mode, layout, backend, algorithm, accuracy))


@torch_arrays.opaque
def conv2d_backward(
    grad_output: Any, input: Any, weight: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", layout: str = "channels_first", needs: Any = (True, True, True), backend: str = "auto",
    algorithm: str | None = None, accuracy: str | None = None,
) -> tuple[Any, Any, Any]:
    """The gradients of `conv2d`'s input, weight and bias, for a gradient of its output.

    Args:
        grad_output, input, weight, stride, padding, ...: as of `conv2d_input` and `conv2d_weight`.
        needs: which of the three are computed.

    Returns:
        (gradient of the input, of the weight, of the bias): None for those that are not needed. The bias's is the sum of
        `grad_output` over images and positions.

    Raises:
        ValueError, TypeError, Unsupported, Unavailable: as `conv2d`.
    """
    return _backward(2, grad_output, input, weight, needs,
                     (stride, padding, dilation, groups, padding_mode, layout, backend, algorithm, accuracy))


@torch_arrays.opaque
def conv3d_backward(
    grad_output: Any, input: Any, weight: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, *,
    padding_mode: str = "zeros", layout: str = "channels_first", needs: Any = (True, True, True), backend: str = "auto",
    algorithm: str | None = None, accuracy: str | None = None,
) -> tuple[Any, Any, Any]:
    """All gradients of `conv3d`. Everything as `conv2d_backward`."""
    return _backward(3, grad_output, input, weight, needs,
                     (stride, padding, dilation, groups, padding_mode, layout, backend, algorithm, accuracy))


# ---- transposed convolution


@torch_arrays.opaque
def conv_transpose1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
    dilation: Any = 1, *, layout: str = "channels_first", activation: Any = None, residual: Any = None, out: Any = None,
    backend: str = "auto", algorithm: str | None = None, accuracy: str | None = None,
) -> Any:
    """1-D transposed convolution: input (N, C, W) or (C, W), weight (C, out / groups, kW). Everything else as
    `conv_transpose2d`."""
    return _transposed(1, input, weight, bias, residual, out,
                       (stride, padding, output_padding, groups, dilation, layout, activation, backend, algorithm, accuracy))


@torch_arrays.opaque
def conv_transpose2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
    dilation: Any = 1, *, layout: str = "channels_first", activation: Any = None, residual: Any = None, out: Any = None,
    backend: str = "auto", algorithm: str | None = None, accuracy: str | None = None,
) -> Any:
    """2-D transposed convolution ``act(conv_transpose(input, weight) + bias + residual)``: PyTorch's arguments and order.

    It is the gradient of a convolution's input: each input adds the weight, times its value, to a window of the output; windows
    are `stride` apart. The output has (H - 1)·stride - low - high + dilation·(kH - 1) + output_padding + 1 rows.

    Args:
        input: (N, C, H, W), or (C, H, W) for one image; channels_last: (N, H, W, C) or (H, W, C).
        weight: (C, out / groups, kH, kW), in every layout.
        bias: (out,), or None.
        stride, dilation: an int, one per axis, or one in a sequence for all axes.
        padding: so much of each border of the output is left out: an int, or one entry per axis, each an int or (low, high).
        output_padding: so many rows and columns more at the far borders; less than the stride or the dilation.
        groups: divides the input and output channels.
        layout, activation, residual, out, backend, algorithm, accuracy: as for `conv2d`.

    Returns:
        The output, contiguous in `layout`, of the kind of the input; its dtype as of `conv2d`.

    Raises:
        ValueError, TypeError, Unsupported, Unavailable: as `conv2d`.
    """
    return _transposed(2, input, weight, bias, residual, out,
                       (stride, padding, output_padding, groups, dilation, layout, activation, backend, algorithm, accuracy))


@torch_arrays.opaque
def conv_transpose3d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
    dilation: Any = 1, *, layout: str = "channels_first", activation: Any = None, residual: Any = None, out: Any = None,
    backend: str = "auto", algorithm: str | None = None, accuracy: str | None = None,
) -> Any:
    """3-D transposed convolution: input (N, C, D, H, W) or (C, D, H, W), weight (C, out / groups, kD, kH, kW). Everything else
    as `conv_transpose2d`."""
    return _transposed(3, input, weight, bias, residual, out,
                       (stride, padding, output_padding, groups, dilation, layout, activation, backend, algorithm, accuracy))


# ---- calls

Arguments = tuple[Any, ...]  # stride, padding, dilation, groups, padding_mode, layout, backend, algorithm, accuracy
_LAYOUT = 5  # its place there, and in those of a transposed convolution


def _input(ndim: int, input_size: Any, weight: Any, grad_output: Any, out: Any, arguments: Arguments) -> Any:
    size = shape("input_size", input_size)
    kind, (g, w, y) = arrays.views({"grad_output": grad_output, "weight": weight}, out=out)
    kind, arguments, (g, y) = _in_memory_order(kind, ndim, arguments, (g, w), (g, y))
    if arguments[_LAYOUT] == "channels_last" and isinstance(kind, torch_arrays.ChannelsLastKind):
        size = (size[0], *size[2:], size[1])
    bound = _known(("backward_input", ndim, size, w.shape, w.dtype, g.shape, g.dtype), kind, arguments,
                   lambda: _bound_input(ndim, size, g, w, kind, arguments, ("input_size", "weight")))
    return _run_input(bound, kind, g, w, out, y)


def _bound_input(ndim: int, size: tuple[int, ...], g: Any, w: Any, kind: arrays.Kind, arguments: Arguments,
                 names: tuple[str, str]) -> ops.Bound:
    problem = _gradient("backward_input", ndim, size, w.shape, g, w.dtype, names, arguments)
    return _bound(problem, len(size) > ndim + 1, kind, arguments)


def _run_input(bound: ops.Bound, kind: arrays.Kind, g: Any, w: Any, out: Any = None, y: Any = None) -> Any:
    return ops.execute(bound, kind, g, pack_once(bound.kernel, *ops.weights_ready(bound, w, None)), None, out, y, (w,))


def _weight(ndim: int, input: Any, weight_size: Any, grad_output: Any, out: Any, arguments: Arguments) -> Any:
    size = shape("weight_size", weight_size)
    kind, (x, g, y) = arrays.views({"input": input, "grad_output": grad_output}, out=out)
    kind, arguments, (x, g) = _in_memory_order(kind, ndim, arguments, (x,), (x, g))
    bound = _known(("backward_weight", ndim, x.shape, x.dtype, size, g.shape, g.dtype), kind, arguments,
                   lambda: _bound_weight(ndim, size, g, x, kind, arguments, ("input", "weight_size")))
    plain = kind.kind if isinstance(kind, torch_arrays.ChannelsLastKind) else kind  # weights have no memory format of their own
    return _run_weight(bound, plain, ndim, x, g, out, y)


def _bound_weight(ndim: int, size: tuple[int, ...], g: Any, x: Any, kind: arrays.Kind, arguments: Arguments,
                  names: tuple[str, str]) -> ops.Bound:
    return _bound(_gradient("backward_weight", ndim, x.shape, size, g, x.dtype, names, arguments), True, kind, arguments)


def _run_weight(bound: ops.Bound, kind: arrays.Kind, ndim: int, x: Any, g: Any, out: Any = None, y: Any = None) -> Any:
    if len(x.shape) == ndim + 1:
        x, g = x[None], g[None]
    packed = pack_once(bound.kernel, *ops.weights_ready(bound, g, None)) if bound.problem.batch else None
    return ops.execute(bound, kind, x, packed, None, out, y, (g,))


def _backward(ndim: int, grad_output: Any, input: Any, weight: Any, needs: Any, arguments: Arguments) -> tuple[Any, Any, Any]:
    wanted = needs if isinstance(needs, (tuple, list)) else ()
    if len(wanted) != 3:
        raise ValueError(f"needs must be three of True or False, for input, weight and bias, got {shown(needs)}")
    of_input, of_weight, of_bias = (flag("needs", each) for each in wanted)
    kind, (g, x, w) = arrays.views({"grad_output": grad_output, "input": input, "weight": weight})
    seen, names = ("backward", ndim, x.shape, x.dtype, w.shape, w.dtype, g.shape, g.dtype), ("input", "weight")

    def checked() -> list[ops.Bound | None]:  # of input and weight, once they are wanted
        _gradient("backward_input", ndim, x.shape, w.shape, g, w.dtype, names, arguments)
        return [None, None]

    bound = _known(seen, kind, arguments, checked)
    made_bias = _bias(ndim, kind, g, w.dtype, arguments) if of_bias else None
    if kind.name == "torch":  # whose memory formats each direction understands in its own way
        return (_input(ndim, tuple(x.shape), weight, grad_output, None, arguments) if of_input else None,
                _weight(ndim, input, tuple(w.shape), grad_output, None, arguments) if of_weight else None, made_bias)
    if of_input and bound[0] is None:
        bound[0] = _bound_input(ndim, x.shape, g, w, kind, arguments, names)
    if of_weight and bound[1] is None:
        bound[1] = _bound_weight(ndim, w.shape, g, x, kind, arguments, names)
    return (_run_input(bound[0], kind, g, w) if of_input else None,
            _run_weight(bound[1], kind, ndim, x, g) if of_weight else None, made_bias)


def _bias(ndim: int, kind: arrays.Kind, g: Any, weight_dtype: Any, arguments: Arguments) -> Any:
    dtype = result_dtype(g.dtype, weight_dtype, ("grad_output", "weight"))
    channels = -1 if normalize_layout(arguments[_LAYOUT], ndim) == "channels_last" else g.ndim - ndim - 1
    made = kind.empty((g.shape[channels],), dtype)
    kind.view("out", made)[...] = sums(g if g.ndim == ndim + 2 else g[None], channels % g.ndim + (g.ndim == ndim + 1))
    return made


def _transposed(ndim: int, input: Any, weight: Any, bias: Any, residual: Any, out: Any, arguments: Arguments) -> Any:
    kind, (x, w, b, r, y) = arrays.views({"input": input, "weight": weight}, bias=bias, residual=residual, out=out)
    kind, arguments, (x, r, y) = _in_memory_order(kind, ndim, arguments, (x, w), (x, r, y))
    bound = _known(("transposed", ndim, x.shape, x.dtype, w.shape, w.dtype, None if b is None else b.shape, r is None), kind,
                   arguments, lambda: bind_transposed(ndim, x, w, b, r, kind.device, *arguments))
    return ops.execute(bound, kind, x, pack_once(bound.kernel, *ops.weights_ready(bound, w, b)), r, out, y, (w, b))


def _in_memory_order(kind: Any, ndim: int, arguments: Arguments, deciding: tuple[Any, ...],
                     views: tuple[Any, ...]) -> tuple[Any, Arguments, tuple[Any, ...]]:
    """See `torch_arrays.in_memory_order`."""
    if kind.name != "torch":
        return kind, arguments, views
    kind, layout, views = torch_arrays.in_memory_order(kind, ndim, arguments[_LAYOUT], deciding, views)
    return kind, (*arguments[:_LAYOUT], layout, *arguments[_LAYOUT + 1:]), views


def _known(what: tuple[Any, ...], kind: arrays.Kind, arguments: Arguments, make: Callable[[], Any]) -> Any:
    """What a call needs, remembered under what it depends on."""
    key: Any = (*what, kind.device, settings.current().planning, *map(ops.typed, arguments))
    try:
        found = _memo.get(key)
    except TypeError:  # an argument that cannot be hashed: the validation names it
        return make()
    if found is None:
        if len(_memo) >= _REMEMBERED:
            _memo.clear()
        found = _memo[key] = make()
    return found


# ---- problems


def _gradient(direction: str, ndim: int, input_shape: Any, weight_shape: Any, g: Any, other_dtype: Any, names: tuple[str, str],
              arguments: Arguments) -> ConvProblem:
    """The problem of a gradient, whose grad_output fits."""
    stride, padding, dilation, groups, padding_mode, layout, _, _, accuracy = arguments
    other = names[1] if direction == "backward_input" else names[0]
    problem = ConvProblem.from_shapes(
        input_shape, weight_shape, ndim=ndim, stride=stride, padding=padding, dilation=dilation, groups=groups,
        padding_mode=padding_mode, layout=layout, dtype=result_dtype(g.dtype, other_dtype, ("grad_output", other)),
        accuracy=settings.current().accuracy if accuracy is None else accuracy, direction=direction, names=names)
    expected = problem.output_shape if len(input_shape) == ndim + 2 else problem.output_shape[1:]
    if tuple(g.shape) != expected:
        raise ValueError(f"grad_output must have the output's shape {expected}, which {names[0]} {shown(tuple(input_shape))} "
                         f"and {names[1]} {shown(tuple(weight_shape))} give with these arguments, got {shown(tuple(g.shape))}")
    return problem


def _bound(problem: ConvProblem, batched: bool, kind: arrays.Kind, arguments: Arguments) -> ops.Bound:
    *_, backend, algorithm, _ = arguments
    kernel = chosen_kernel(problem, backend, algorithm, kind.device.partition(":")[0])
    return ops.Bound(problem, kernel, batched, problem.result_shape if batched else problem.result_shape[1:])


def bind_transposed(
    ndim: int, x: Any, w: Any, b: Any, residual: Any, device: str, stride: Any, padding: Any, output_padding: Any, groups: Any,
    dilation: Any, layout: str, activation: Any, backend: str, algorithm: str | None, accuracy: str | None,
    prepared: bool = False,
) -> ops.Bound:
    """Understand the arguments of a transposed convolution: problem, plan, kernel."""
    layout, x_shape, w_shape = normalize_layout(layout, ndim), shape("input", x.shape), shape("weight", w.shape)
    problem = _transposed_problem(ndim, x_shape, w_shape, b, stride, padding, output_padding, groups, dilation, layout, dict(
        activation=activation, residual=residual is not None, dtype=result_dtype(x.dtype, w.dtype),
        accuracy=settings.current().accuracy if accuracy is None else accuracy))
    kernel = chosen_kernel(problem, backend, algorithm, device.partition(":")[0], prepared)
    batched = len(x_shape) == ndim + 2
    return ops.Bound(problem, kernel, batched, problem.result_shape if batched else problem.result_shape[1:])


def _transposed_problem(ndim: int, x_shape: tuple[int, ...], w_shape: tuple[int, ...], b: Any, stride: Any, padding: Any,
                        output_padding: Any, groups: Any, dilation: Any, layout: str, more: dict[str, Any]) -> ConvProblem:
    """The gradient of the input of the convolution whose output is `x`."""
    batch, channels, size = image_sizes("input", f"conv_transpose{ndim}d", x_shape, ndim, layout)
    if len(w_shape) != ndim + 2 or 0 in w_shape:
        raise ValueError(f"weight of conv_transpose{ndim}d must have shape (in_channels, out_channels / groups, "
                         f"{', '.join('k' + axis for axis in 'DHW'[3 - ndim:])}), without a 0, got {shown(w_shape)}")
    groups, = axes_of("groups", groups, 1)
    if channels != w_shape[0]:
        raise ValueError(f"weight of shape {shown(w_shape)} expects {w_shape[0]} input channels, got {channels}")
    if channels % groups:
        raise ValueError(f"groups must divide the input channels, got groups={groups} and {channels} input channels")
    out_channels, kernel = w_shape[1] * groups, w_shape[2:]
    if b is not None and tuple(b.shape) != (out_channels,):
        raise ValueError(f"bias must have shape ({out_channels},), one value per output channel, got {shown(tuple(b.shape))}")
    stride, dilation = axes_of("stride", stride, ndim), axes_of("dilation", dilation, ndim)
    more_rows = axes_of("output_padding", output_padding, ndim, 0)
    if isinstance(padding, str):
        raise TypeError(f"padding of a transposed convolution must be integers, got {shown(padding)}")
    pads = normalize_padding(padding, size, kernel, stride, dilation)
    made = []
    for n, k, s, d, more_, (low, high) in zip(size, kernel, stride, dilation, more_rows, pads, strict=True):
        if more_ >= max(s, d):
            raise ValueError(f"output_padding must be less than the stride or the dilation, got {shown(output_padding)} with "
                             f"stride {shown(stride)} and dilation {shown(dilation)}")
        made.append((n - 1) * s - low - high + d * (k - 1) + more_ + 1)
    if min(size) < 1 or min(made) < 1:
        raise ValueError(f"the output would be empty: input {shown(size)} gives {shown(tuple(made))} with kernel "
                         f"{shown(kernel)}, stride {shown(stride)}, dilation {shown(dilation)}, padding {shown(pads)}")
    reached = tuple((low, high - more_) for (low, high), more_ in zip(pads, more_rows))
    return ConvProblem(
        input_size=tuple(made), kernel_size=kernel, in_channels=out_channels, out_channels=channels,
        batch=batch, groups=groups, stride=stride, padding=reached, dilation=dilation,
        layout=layout, direction="backward_input", bias=b is not None, **more)
