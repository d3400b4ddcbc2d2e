"""Gradients of pooling: what each input gets of a gradient of the output.

The gradient of ``f(input, ...)`` is ``f_input(grad_output, input, ...)``, with the same arguments. Gradients of max and min go
to where the output was found; `indices` says so without looking for it again.
"""

from __future__ import annotations

from typing import Any

from . import torch_arrays
from .adaptive_pooling import whole
from .pool_calls import gradient, sized, windows


@torch_arrays.opaque
def max_pool1d_input(
    grad_output: Any, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, *, indices: Any = None, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """Gradient of `max_pool1d`'s input (N, C, W) or (C, W). Everything else as `max_pool2d_input`."""
    call = windows("max_pool", 1, "max", layout, backend, kernel_size, stride, padding, dilation, ceil_mode)
    return gradient(call, grad_output, input, out, indices)


@torch_arrays.opaque
def max_pool2d_input(
    grad_output: Any, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, *, indices: Any = None, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """Gradient of `max_pool2d`'s input, for a gradient of its output.

    Args:
        grad_output: of the output's shape; with the input it promotes to float32 or float64.
        input: as of the `max_pool2d`.
        kernel_size, stride, padding, dilation, ceil_mode, layout, backend: as of the `max_pool2d`.
        indices: what it returned with `return_indices`; None: they are computed again.
        out: array of exactly the input's shape and the result's dtype, any strides; overwritten and returned.

    Returns:
        The gradient, of the input's shape and kind, of dtype ``np.result_type(grad_output, input)``. Overlapping windows add up
        in a fixed order: the same bits for any number of threads.

    Raises:
        ValueError, TypeError, Unsupported, Unavailable: as `max_pool2d`.
    """
    call = windows("max_pool", 2, "max", layout, backend, kernel_size, stride, padding, dilation, ceil_mode)
    return gradient(call, grad_output, input, out, indices)


@torch_arrays.opaque
def max_pool3d_input(
    grad_output: Any, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, *, indices: Any = None, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """Gradient of `max_pool3d`'s input (N, C, D, H, W) or (C, D, H, W). Everything else as `max_pool2d_input`."""
    call = windows("max_pool", 3, "max", layout, backend, kernel_size, stride, padding, dilation, ceil_mode)
    return gradient(call, grad_output, input, out, indices)


@torch_arrays.opaque
def min_pool1d_input(
    grad_output: Any, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, *, indices: Any = None, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """Gradient of `min_pool1d`'s input (N, C, W) or (C, W). Everything else as `max_pool2d_input`."""
    call = windows("min_pool", 1, "min", layout, backend, kernel_size, stride, padding, dilation, ceil_mode)
    return gradient(call, grad_output, input, out, indices)


@torch_arrays.opaque
def min_pool2d_input(
    grad_output: Any, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, *, indices: Any = None, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """Gradient of `min_pool2d`'s input (N, C, H, W) or (C, H, W). Everything else as `max_pool2d_input`."""
    call = windows("min_pool", 2, "min", layout, backend, kernel_size, stride, padding, dilation, ceil_mode)
    return gradient(call, grad_output, input, out, indices)


@torch_arrays.opaque
def min_pool3d_input(
    grad_output: Any, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, *, indices: Any = None, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """Gradient of `min_pool3d`'s input (N, C, D, H, W) or (C, D, H, W). Everything else as `max_pool2d_input`."""
    call = windows("min_pool", 3, "min", layout, backend, kernel_size, stride, padding, dilation, ceil_mode)
    return gradient(call, grad_output, input, out, indices)


@torch_arrays.opaque
def avg_pool1d_input(
    grad_output: Any, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, *, dilation: Any = 1, layout: str = "channels_first", out: Any = None,
    backend: str = "auto",
) -> Any:
    """Gradient of `avg_pool1d`'s input (N, C, W) or (C, W). Everything else as `avg_pool2d_input`."""
    call = windows("avg_pool", 1, "average", layout, backend, kernel_size, stride, padding, dilation, ceil_mode,
                   count_include_pad=count_include_pad)
    return gradient(call, grad_output, input, out)


@torch_arrays.opaque
def avg_pool2d_input(
    grad_output: Any, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None, *, dilation: Any = 1, layout: str = "channels_first",
    out: Any = None, backend: str = "auto",
) -> Any:
    """Gradient of `avg_pool2d`'s input, for a gradient of its output.

    Args:
        grad_output: of the output's shape; with the input it promotes to float32 or float64.
        input: as of the `avg_pool2d`; only its shape and dtype count.
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, dilation, layout, backend: as of the
            `avg_pool2d`.
        out: array of exactly the input's shape and the result's dtype, any strides; overwritten and returned.

    Returns, Raises:
        As `max_pool2d_input`.
    """
    call = windows("avg_pool", 2, "average", layout, backend, kernel_size, stride, padding, dilation, ceil_mode,
                   count_include_pad=count_include_pad, divisor_override=divisor_override)
    return gradient(call, grad_output, input, out)


@torch_arrays.opaque
def avg_pool3d_input(
    grad_output: Any, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None, *, dilation: Any = 1, layout: str = "channels_first",
    out: Any = None, backend: str = "auto",
) -> Any:
    """Gradient of `avg_pool3d`'s input (N, C, D, H, W) or (C, D, H, W). Everything else as `avg_pool2d_input`."""
    call = windows("avg_pool", 3, "average", layout, backend, kernel_size, stride, padding, dilation, ceil_mode,
                   count_include_pad=count_include_pad, divisor_override=divisor_override)
    return gradient(call, grad_output, input, out)


@torch_arrays.opaque
def lp_pool1d_input(
    grad_output: Any, input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False, *,
    padding: Any = 0, dilation: Any = 1, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """Gradient of `lp_pool1d`'s input (N, C, W) or (C, W). Everything else as `lp_pool2d_input`."""
    call = windows("lp_pool", 1, "lp", layout, backend, kernel_size, stride, padding, dilation, ceil_mode,
                   norm_type=norm_type)
    return gradient(call, grad_output, input, out)


@torch_arrays.opaque
def lp_pool2d_input(
    grad_output: Any, input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False, *,
    padding: Any = 0, dilation: Any = 1, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """Gradient of `lp_pool2d`'s input, for a gradient of its output. Where a window's sum of powers is 0, it is 0.

    Args:
        grad_output: of the output's shape; with the input it promotes to float32 or float64.
        input: as of the `lp_pool2d`.
        norm_type, kernel_size, stride, ceil_mode, padding, dilation, layout, backend: as of the `lp_pool2d`.
        out: array of exactly the input's shape and the result's dtype, any strides; overwritten and returned.

    Returns, Raises:
        As `max_pool2d_input`.
    """
    call = windows("lp_pool", 2, "lp", layout, backend, kernel_size, stride, padding, dilation, ceil_mode,
                   norm_type=norm_type)
    return gradient(call, grad_output, input, out)


@torch_arrays.opaque
def lp_pool3d_input(
    grad_output: Any, input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False, *,
    padding: Any = 0, dilation: Any = 1, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """Gradient of `lp_pool3d`'s input (N, C, D, H, W) or (C, D, H, W). Everything else as `lp_pool2d_input`."""
    call = windows("lp_pool", 3, "lp", layout, backend, kernel_size, stride, padding, dilation, ceil_mode,
                   norm_type=norm_type)
    return gradient(call, grad_output, input, out)


@torch_arrays.opaque
def adaptive_avg_pool1d_input(
    grad_output: Any, input: Any, output_size: Any, *, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """Gradient of `adaptive_avg_pool1d`'s input (N, C, W) or (C, W). Everything else as `avg_pool2d_input`."""
    call = sized("adaptive_avg_pool", 1, "average", layout, backend, output_size)
    return gradient(call, grad_output, input, out)


@torch_arrays.opaque
def adaptive_avg_pool2d_input(
    grad_output: Any, input: Any, output_size: Any, *, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """Gradient of `adaptive_avg_pool2d`'s input (N, C, H, W) or (C, H, W). Everything else as `avg_pool2d_input`."""
    call = sized("adaptive_avg_pool", 2, "average", layout, backend, output_size)
    return gradient(call, grad_output, input, out)


@torch_arrays.opaque
def adaptive_avg_pool3d_input(
    grad_output: Any, input: Any, output_size: Any, *, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """Gradient of `adaptive_avg_pool3d`'s input (N, C, D, H, W) or (C, D, H, W). Everything else as `avg_pool2d_input`."""
    call = sized("adaptive_avg_pool", 3, "average", layout, backend, output_size)
    return gradient(call, grad_output, input, out)


@torch_arrays.opaque
def adaptive_max_pool1d_input(
    grad_output: Any, input: Any, output_size: Any, *, indices: Any = None, layout: str = "channels_first", out: Any = None,
    backend: str = "auto",
) -> Any:
    """Gradient of `adaptive_max_pool1d`'s input (N, C, W) or (C, W). Everything else as `max_pool2d_input`."""
    call = sized("adaptive_max_pool", 1, "max", layout, backend, output_size)
    return gradient(call, grad_output, input, out, indices)


@torch_arrays.opaque
def adaptive_max_pool2d_input(
    grad_output: Any, input: Any, output_size: Any, *, indices: Any = None, layout: str = "channels_first", out: Any = None,
    backend: str = "auto",
) -> Any:
    """Gradient of `adaptive_max_pool2d`'s input (N, C, H, W) or (C, H, W). Everything else as `max_pool2d_input`."""
    call = sized("adaptive_max_pool", 2, "max", layout, backend, output_size)
    return gradient(call, grad_output, input, out, indices)


@torch_arrays.opaque
def adaptive_max_pool3d_input(
    grad_output: Any, input: Any, output_size: Any, *, indices: Any = None, layout: str = "channels_first", out: Any = None,
    backend: str = "auto",
) -> Any:
    """Gradient of `adaptive_max_pool3d`'s input (N, C, D, H, W) or (C, D, H, W). Everything else as `max_pool2d_input`."""
    call = sized("adaptive_max_pool", 3, "max", layout, backend, output_size)
    return gradient(call, grad_output, input, out, indices)


@torch_arrays.opaque
def global_max_pool_input(
    grad_output: Any, input: Any, *, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """Gradient of `global_max_pool`'s input. Everything else as `max_pool2d_input`."""
    return gradient(whole("global_max_pool", "max", input, layout, backend), grad_output, input, out)


@torch_arrays.opaque
def global_avg_pool_input(
    grad_output: Any, input: Any, *, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """Gradient of `global_avg_pool`'s input. Everything else as `avg_pool2d_input`."""
    return gradient(whole("global_avg_pool", "average", input, layout, backend), grad_output, input, out)
