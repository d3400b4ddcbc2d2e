"""Pooling: the largest, the smallest, the mean, or the norm of what a window holds.

Names, order and meaning are PyTorch's (`torch.nn.functional`); what PyTorch lacks (`min_pool`, averages and norms with
dilation, norms with padding, channels_last arrays, `out`) is keyword-only or new. Their gradients are in `pooling_gradients`.
"""

from __future__ import annotations

from typing import Any

from . import torch_arrays
from .pool_calls import forward, windows


@torch_arrays.opaque
def max_pool1d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False, *, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """1-D max pooling: input (N, C, W) or (C, W). Everything else as `max_pool2d`."""
    call = windows("max_pool", 1, "max", layout, backend, kernel_size, stride, padding, dilation, ceil_mode)
    return forward(call, input, out, return_indices)


@torch_arrays.opaque
def max_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False, *, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """2-D max pooling (`torch.nn.functional.max_pool2d`): the largest value of each window, and on demand where it is.

    Args:
        input: (N, C, H, W), or (C, H, W) for one image; channels_last: (N, H, W, C) or (H, W, C). float32, float64, any integer
            dtype, bool; any strides.
        kernel_size, stride, dilation: an int, one per axis, or one in a sequence for all axes; stride None is the kernel size.
        padding: as those; one entry per axis, each an int or (low, high); "valid", "same", "same_lower": see `conv2d`. At most
            half of what the kernel spans. Padding is no value: it only lets windows begin before the input.
        ceil_mode: the last window may reach beyond the far padding, if it begins before it.
        return_indices: return (output, indices) instead of the output.
        layout, out, backend: as for `conv2d`; a third party's backend may not pool.

    Returns:
        The output, of the input's dtype, contiguous in `layout`, of the kind (NumPy, torch) of the input. The indices (int64,
        of the output's shape) count along the spatial axes of one channel of one image, in every layout, as PyTorch's do: the
        first of equal values. A window that holds NaN gives NaN, and the index of its last one.

    Raises:
        ValueError: shapes or values that no backend may compute: a kernel larger than the padded input, a window that holds
            none of the input, ...
        TypeError: dtypes or kinds of arrays that do not fit; tensors whose operations torch records, transforms or traces.
        Unsupported, Unavailable: the backend that was asked for refuses the problem; cannot run here.
    """
    call = windows("max_pool", 2, "max", layout, backend, kernel_size, stride, padding, dilation, ceil_mode)
    return forward(call, input, out, return_indices)


@torch_arrays.opaque
def max_pool3d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False, *, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """3-D max pooling: input (N, C, D, H, W) or (C, D, H, W). Everything else as `max_pool2d`."""
    call = windows("max_pool", 3, "max", layout, backend, kernel_size, stride, padding, dilation, ceil_mode)
    return forward(call, input, out, return_indices)


@torch_arrays.opaque
def min_pool1d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False, *, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """1-D min pooling: the smallest value of each window of an input (N, C, W) or (C, W). Everything else as `max_pool1d`."""
    call = windows("min_pool", 1, "min", layout, backend, kernel_size, stride, padding, dilation, ceil_mode)
    return forward(call, input, out, return_indices)


@torch_arrays.opaque
def min_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False, *, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """2-D min pooling: the smallest value of each window of an input (N, C, H, W) or (C, H, W). Everything else as
    `max_pool2d`."""
    call = windows("min_pool", 2, "min", layout, backend, kernel_size, stride, padding, dilation, ceil_mode)
    return forward(call, input, out, return_indices)


@torch_arrays.opaque
def min_pool3d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False, *, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """3-D min pooling: the smallest value of each window of an input (N, C, D, H, W) or (C, D, H, W). Everything else as
    `max_pool3d`."""
    call = windows("min_pool", 3, "min", layout, backend, kernel_size, stride, padding, dilation, ceil_mode)
    return forward(call, input, out, return_indices)


@torch_arrays.opaque
def avg_pool1d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, *, dilation: Any = 1, layout: str = "channels_first", out: Any = None,
    backend: str = "auto",
) -> Any:
    """1-D average pooling: input (N, C, W) or (C, W). Everything else as `avg_pool2d`; there is no divisor_override, as in
    PyTorch."""
    call = windows("avg_pool", 1, "average", layout, backend, kernel_size, stride, padding, dilation, ceil_mode,
                   count_include_pad=count_include_pad)
    return forward(call, input, out)


@torch_arrays.opaque
def avg_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None, *, dilation: Any = 1, layout: str = "channels_first",
    out: Any = None, backend: str = "auto",
) -> Any:
    """2-D average pooling (`torch.nn.functional.avg_pool2d`): the mean of each window.

    Args:
        input: as for `max_pool2d`; float32 or float64.
        kernel_size, stride, padding, ceil_mode: as for `max_pool2d`.
        count_include_pad: whether padding counts in the divisor, as zeros would; what lies beyond the padding never does.
        divisor_override: divide by this instead of the number of taps; not 0.
        dilation: distance of the taps, as for `max_pool2d`.
        layout, out, backend: as for `max_pool2d`.

    Returns, Raises:
        As `max_pool2d`, without indices.
    """
    call = windows("avg_pool", 2, "average", layout, backend, kernel_size, stride, padding, dilation, ceil_mode,
                   count_include_pad=count_include_pad, divisor_override=divisor_override)
    return forward(call, input, out)


@torch_arrays.opaque
def avg_pool3d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None, *, dilation: Any = 1, layout: str = "channels_first",
    out: Any = None, backend: str = "auto",
) -> Any:
    """3-D average pooling: input (N, C, D, H, W) or (C, D, H, W). Everything else as `avg_pool2d`."""
    call = windows("avg_pool", 3, "average", layout, backend, kernel_size, stride, padding, dilation, ceil_mode,
                   count_include_pad=count_include_pad, divisor_override=divisor_override)
    return forward(call, input, out)


@torch_arrays.opaque
def lp_pool1d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False, *, padding: Any = 0,
    dilation: Any = 1, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """1-D power-average pooling: input (N, C, W) or (C, W). Everything else as `lp_pool2d`."""
    call = windows("lp_pool", 1, "lp", layout, backend, kernel_size, stride, padding, dilation, ceil_mode,
                   norm_type=norm_type)
    return forward(call, input, out)


@torch_arrays.opaque
def lp_pool2d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False, *, padding: Any = 0,
    dilation: Any = 1, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """2-D power-average pooling (`torch.nn.functional.lp_pool2d`): (Σ x^p)^(1/p) over each window, p = `norm_type`.

    Powers of negative values are what they are: an odd p may give NaN, and so does a p that is no integer. Where ceil_mode cuts
    a window short, its sum is scaled up to the whole kernel, as PyTorch does.

    Args:
        input: as for `max_pool2d`; float32 or float64.
        norm_type: p, not 0; infinity is the largest absolute value, -infinity the smallest.
        kernel_size, stride, ceil_mode: as for `max_pool2d`.
        padding, dilation: as for `max_pool2d`; padding adds nothing.
        layout, out, backend: as for `max_pool2d`.

    Returns, Raises:
        As `max_pool2d`, without indices.
    """
    call = windows("lp_pool", 2, "lp", layout, backend, kernel_size, stride, padding, dilation, ceil_mode,
                   norm_type=norm_type)
    return forward(call, input, out)


@torch_arrays.opaque
def lp_pool3d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False, *, padding: Any = 0,
    dilation: Any = 1, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """3-D power-average pooling: input (N, C, D, H, W) or (C, D, H, W). Everything else as `lp_pool2d`."""
    call = windows("lp_pool", 3, "lp", layout, backend, kernel_size, stride, padding, dilation, ceil_mode,
                   norm_type=norm_type)
    return forward(call, input, out)
