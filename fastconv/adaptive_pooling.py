"""Pooling to a size: adaptive windows, and one window over everything.

Names, order and meaning are PyTorch's (`torch.nn.functional`), global pooling's are ONNX's. Their gradients are in
`pooling_gradients`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import torch_arrays
from .arguments import normalize_layout
from .errors import shown
from .pool_calls import Call, forward, sized, windows


@torch_arrays.opaque
def adaptive_avg_pool1d(
    input: Any, output_size: Any, *, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """1-D average pooling to a size: input (N, C, W) or (C, W). Everything else as `adaptive_avg_pool2d`."""
    call = sized("adaptive_avg_pool", 1, "average", layout, backend, output_size)
    return forward(call, input, out)


@torch_arrays.opaque
def adaptive_avg_pool2d(
    input: Any, output_size: Any, *, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """2-D average pooling to a size (`torch.nn.functional.adaptive_avg_pool2d`): output o covers the inputs from
    floor(o·in / out) to ceil((o + 1)·in / out).

    Args:
        input: as for `avg_pool2d`.
        output_size: an int, one per axis, or one in a sequence for all axes; None keeps the size of an axis.
        layout, out, backend: as for `max_pool2d`.

    Returns, Raises:
        As `avg_pool2d`.
    """
    call = sized("adaptive_avg_pool", 2, "average", layout, backend, output_size)
    return forward(call, input, out)


@torch_arrays.opaque
def adaptive_avg_pool3d(
    input: Any, output_size: Any, *, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """3-D average pooling to a size: input (N, C, D, H, W) or (C, D, H, W). Everything else as `adaptive_avg_pool2d`."""
    call = sized("adaptive_avg_pool", 3, "average", layout, backend, output_size)
    return forward(call, input, out)


@torch_arrays.opaque
def adaptive_max_pool1d(
    input: Any, output_size: Any, return_indices: bool = False, *, layout: str = "channels_first", out: Any = None,
    backend: str = "auto",
) -> Any:
    """1-D max pooling to a size: input (N, C, W) or (C, W). Everything else as `adaptive_max_pool2d`."""
    call = sized("adaptive_max_pool", 1, "max", layout, backend, output_size)
    return forward(call, input, out, return_indices)


@torch_arrays.opaque
def adaptive_max_pool2d(
    input: Any, output_size: Any, return_indices: bool = False, *, layout: str = "channels_first", out: Any = None,
    backend: str = "auto",
) -> Any:
    """2-D max pooling to a size (`torch.nn.functional.adaptive_max_pool2d`): output o covers the inputs from
    floor(o·in / out) to ceil((o + 1)·in / out).

    Args:
        input: as for `max_pool2d`.
        output_size: an int, one per axis, or one in a sequence for all axes; None keeps the size of an axis.
        return_indices, layout, out, backend: as for `max_pool2d`.

    Returns, Raises:
        As `max_pool2d`.
    """
    call = sized("adaptive_max_pool", 2, "max", layout, backend, output_size)
    return forward(call, input, out, return_indices)


@torch_arrays.opaque
def adaptive_max_pool3d(
    input: Any, output_size: Any, return_indices: bool = False, *, layout: str = "channels_first", out: Any = None,
    backend: str = "auto",
) -> Any:
    """3-D max pooling to a size: input (N, C, D, H, W) or (C, D, H, W). Everything else as `adaptive_max_pool2d`."""
    call = sized("adaptive_max_pool", 3, "max", layout, backend, output_size)
    return forward(call, input, out, return_indices)


@torch_arrays.opaque
def global_max_pool(
    input: Any, *, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """The largest value of each channel of each image: ONNX's GlobalMaxPool.

    Args:
        input: (N, C, *space) with 1, 2 or 3 spatial axes; channels_last: (N, *space, C).
        layout, out, backend: as for `max_pool2d`.

    Returns:
        An array of the same rank whose spatial axes have size 1.

    Raises:
        As `max_pool2d`.
    """
    return forward(whole("global_max_pool", "max", input, layout, backend), input, out)


@torch_arrays.opaque
def global_avg_pool(
    input: Any, *, layout: str = "channels_first", out: Any = None, backend: str = "auto",
) -> Any:
    """The mean of each channel of each image: ONNX's GlobalAveragePool.

    Args:
        input: (N, C, *space) with 1, 2 or 3 spatial axes; channels_last: (N, *space, C).
        layout, out, backend: as for `max_pool2d`.

    Returns:
        An array of the same rank whose spatial axes have size 1.

    Raises:
        As `avg_pool2d`.
    """
    return forward(whole("global_avg_pool", "average", input, layout, backend), input, out)


def whole(function: str, op: str, input: Any, layout: str, backend: str) -> Call:
    """The call whose window is all of an image."""
    rank = np.ndim(input)
    if rank not in (3, 4, 5):
        raise ValueError(f"input of {function} must have shape (N, C, *space) with 1, 2 or 3 spatial axes, got "
                         f"{shown(tuple(np.shape(input)))}")
    ndim = rank - 2
    size = np.shape(input)[1:-1] if normalize_layout(layout, ndim) == "channels_last" else np.shape(input)[2:]
    return windows(function, ndim, op, layout, backend, tuple(size))
