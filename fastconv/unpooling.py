"""Max unpooling: values go back to where max pooling found them; everything else is 0.

It only moves elements, natively where it can, else with NumPy; there is no backend to choose. Names, order and meaning are
PyTorch's (`torch.nn.functional`).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from . import arrays, native, operands, settings, torch_arrays
from .arguments import axes_of, integer, normalize_layout
from .dtypes import TABLE
from .errors import shown
from .pool_calls import checked_indices, result_of
from .pool_problem import images, pool_dtype, pool_stride
from .problem import result_dtype


@torch_arrays.opaque
def max_unpool1d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None, *,
    layout: str = "channels_first", out: Any = None,
) -> Any:
    """Max unpooling in 1-D: input (N, C, W) or (C, W). Everything else as `max_unpool2d`."""
    return _unpool(1, input, indices, (kernel_size, stride, padding, output_size), layout, out)


@torch_arrays.opaque
def max_unpool2d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None, *,
    layout: str = "channels_first", out: Any = None,
) -> Any:
    """Max unpooling in 2-D (`torch.nn.functional.max_unpool2d`): the values of `input` at the places that `indices` names, and
    zeros elsewhere.

    Args:
        input: (N, C, H, W), or (C, H, W) for one image; channels_last: (N, H, W, C) or (H, W, C). Any dtype of `max_pool2d`.
        indices: of the input's shape, as `max_pool2d` returns them: places in one channel of one image of the output. Of two
            values for one place the last stays.
        kernel_size, stride, padding: of the `max_pool2d`, integers; the output has (H - 1)·stride - 2·padding + kernel rows.
        output_size: the output's spatial size, where the `max_pool2d` left some input unread: less than a stride more, or less,
            than that. The whole shape in channels_first order is taken, too.
        layout: as for `conv2d`.
        out: array of exactly the output's shape and dtype, any strides; overwritten and returned.

    Returns:
        The output, of the input's dtype and kind, contiguous in `layout`.

    Raises:
        ValueError: an index outside of the output; an output size that no such pooling can have had.
        TypeError: as `max_pool2d`.
    """
    return _unpool(2, input, indices, (kernel_size, stride, padding, output_size), layout, out)


@torch_arrays.opaque
def max_unpool3d(
    input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None, *,
    layout: str = "channels_first", out: Any = None,
) -> Any:
    """Max unpooling in 3-D: input (N, C, D, H, W) or (C, D, H, W). Everything else as `max_unpool2d`."""
    return _unpool(3, input, indices, (kernel_size, stride, padding, output_size), layout, out)


@torch_arrays.opaque
def max_unpool1d_input(
    grad_output: Any, input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
    output_size: Any = None, *, layout: str = "channels_first", out: Any = None,
) -> Any:
    """Gradient of `max_unpool1d`'s input. Everything else as `max_unpool2d_input`."""
    return _gradient(1, grad_output, input, indices, (kernel_size, stride, padding, output_size), layout, out)


@torch_arrays.opaque
def max_unpool2d_input(
    grad_output: Any, input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
    output_size: Any = None, *, layout: str = "channels_first", out: Any = None,
) -> Any:
    """Gradient of `max_unpool2d`'s input: what `grad_output` holds at the places that `indices` names.

    Args:
        grad_output: of the output's shape; with the input it promotes to float32 or float64.
        input, indices, kernel_size, stride, padding, output_size, layout: as of the `max_unpool2d`.
        out: array of exactly the input's shape and the result's dtype, any strides; overwritten and returned.

    Returns:
        The gradient, of the input's shape and kind, of dtype ``np.result_type(grad_output, input)``.

    Raises:
        ValueError, TypeError: as `max_unpool2d`.
    """
    return _gradient(2, grad_output, input, indices, (kernel_size, stride, padding, output_size), layout, out)


@torch_arrays.opaque
def max_unpool3d_input(
    grad_output: Any, input: Any, indices: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
    output_size: Any = None, *, layout: str = "channels_first", out: Any = None,
) -> Any:
    """Gradient of `max_unpool3d`'s input. Everything else as `max_unpool2d_input`."""
    return _gradient(3, grad_output, input, indices, (kernel_size, stride, padding, output_size), layout, out)


def _unpool(ndim: int, input: Any, indices: Any, sizes: tuple[Any, ...], layout: str, out: Any) -> Any:
    kind, (x, i, y) = arrays.views({"input": input, "indices": indices}, out=out)
    kind, layout, (x, i, y) = _in_memory_order(kind, ndim, layout, (x,), (x, i, y))
    dtype = pool_dtype("max", x.dtype)
    shape, size, last = _shapes(ndim, x.shape, sizes, layout)
    places = checked_indices(i, x.shape, size)
    result, y = result_of(kind, shape, dtype, out, y, "output")
    direct = not (out is not None and arrays.needs_temporary(y, (x, i)))
    target = y if direct else np.empty(shape, dtype)
    if x.size == 0:
        target[...] = 0
    elif dtype in TABLE and operands.native_module() is not None:
        _scatter(arrays.ready(x, dtype), places, target, size, last)
    else:
        target[...] = _by_numpy(x, places, size, last)
    if not direct:
        y[...] = target
    return result


def _scatter(x: np.ndarray, places: np.ndarray, target: np.ndarray, size: tuple[int, ...], last: bool) -> None:
    """To arrays with or without a batch, any strides."""
    ndim = len(size)
    x, places, target = (a if a.ndim == ndim + 2 else a[None] for a in (x, places, target))
    inner = slice(1, -1) if last else slice(2, None)
    channels = x.shape[-1 if last else 1]
    pool = _pool(operands.native_module(), x.dtype.name, x.shape[0], channels, size, x.shape[inner], last)
    pool.scatter(x, places, target, False, settings.current().num_threads)


@functools.lru_cache(maxsize=16)
def _pool(module: Any, dtype: str, batch: int, channels: int, size: tuple[int, ...], of: tuple[int, ...], last: bool) -> Any:
    """The native pooling from `size` to `of`: only its indices count, its windows do not."""
    ones = (1,) * len(size)
    return native.runtime().Pool(
        module, op="max", dtype=dtype, batch=batch, channels=channels, input=size, output=of, taps=ones, dilation=ones,
        first=[np.zeros(n, np.int64) for n in of], count=[np.ones(n, np.int64) for n in of],
        divisor=[np.ones(n, np.int64) for n in of], channels_last=last)


def _by_numpy(x: np.ndarray, places: np.ndarray, size: tuple[int, ...], last: bool) -> np.ndarray:
    ndim = len(size)
    filled = np.zeros((math.prod(_planes(x, last, ndim).shape[:-ndim]), math.prod(size)), x.dtype)
    to = np.ascontiguousarray(_flat(places, last, ndim))  # NumPy goes through arrays as they lie in memory
    np.put_along_axis(filled, to, _flat(x, last, ndim), 1)
    made = filled.reshape(*_planes(x, last, ndim).shape[:-ndim], *size)
    return np.moveaxis(made, -ndim - 1, -1) if last else made


def _gradient(ndim: int, grad_output: Any, input: Any, indices: Any, sizes: tuple[Any, ...], layout: str, out: Any) -> Any:
    kind, (g, x, i, y) = arrays.views({"grad_output": grad_output, "input": input, "indices": indices}, out=out)
    kind, layout, (x, g, i, y) = _in_memory_order(kind, ndim, layout, (x, g), (x, g, i, y))
    dtype = result_dtype(g.dtype, x.dtype, ("grad_output", "input"))
    shape, size, last = _shapes(ndim, x.shape, sizes, layout)
    if tuple(g.shape) != shape:
        raise ValueError(f"grad_output must have the output's shape {shape}, got {shown(tuple(g.shape))}")
    places = checked_indices(i, x.shape, size)
    made = np.take_along_axis(_flat(g, last, ndim), _flat(places, last, ndim), 1).reshape(_planes(x, last, ndim).shape)
    return _returned(kind, np.moveaxis(made, -ndim - 1, -1) if last else made, x.shape, dtype, out, y, "input")


def _in_memory_order(kind: Any, ndim: int, layout: str, deciding: tuple[Any, ...], views: tuple[Any, ...]) -> Any:
    """See `torch_arrays.in_memory_order`."""
    if kind.device != "cpu":
        raise TypeError(f"unpooling takes arrays on the CPU, got some on {kind.device}")
    return torch_arrays.in_memory_order(kind, ndim, layout, deciding, views) if kind.name == "torch" else (kind, layout, views)


def _planes(array: np.ndarray, last: bool, ndim: int) -> np.ndarray:
    """With the spatial axes last."""
    return np.moveaxis(array, -1, -ndim - 1) if last else array


def _flat(array: np.ndarray, last: bool, ndim: int) -> np.ndarray:
    """(planes, elements of a plane)."""
    planes = _planes(array, last, ndim)
    return planes.reshape(math.prod(planes.shape[:-ndim]), math.prod(planes.shape[-ndim:]))


def _returned(kind: Any, made: np.ndarray, shape: tuple[int, ...], dtype: str, out: Any, y: Any, of: str) -> Any:
    result, y = result_of(kind, shape, dtype, out, y, of)
    if out is not None:
        arrays.needs_temporary(y, ())  # says whether it may be written; `made` is one already
    y[...] = made
    return result


def _shapes(ndim: int, shape: tuple[int, ...], sizes: tuple[Any, ...],
            layout: str) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """(the output's shape, its spatial size, whether channels are last)."""
    kernel_size, stride, padding, output_size = sizes
    last = normalize_layout(layout, ndim) == "channels_last"
    _, channels, size = images(f"max_unpool{ndim}d", shape, ndim, "channels_last" if last else "channels_first")
    kernel = axes_of("kernel_size", kernel_size, ndim)
    steps = pool_stride(stride, kernel)
    usual = [(n - 1) * s + k - 2 * p for n, s, k, p in zip(size, steps, kernel, axes_of("padding", padding, ndim, 0))]
    made = tuple(usual) if output_size is None else _stated(ndim, output_size, usual, steps)
    if min(made) < 1:
        raise ValueError(f"the output would be empty: input {shown(size)} gives {shown(made)} with kernel_size "
                         f"{shown(kernel)}, stride {shown(steps)}, padding {shown(padding)}")
    batch = shape[:-ndim - 1]
    return (*batch, *made, channels) if last else (*batch, channels, *made), made, last


def _stated(ndim: int, output_size: Any, usual: list[int], steps: tuple[int, ...]) -> tuple[int, ...]:
    stated = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,)
    if len(stated) not in (ndim, ndim + 2):
        raise ValueError(f"output_size must have {ndim} entries, one per spatial axis, or {ndim + 2}, got {shown(output_size)}")
    wanted = tuple(integer("output_size", each, 1, whole=output_size) for each in stated[-ndim:])
    for want, size, step in zip(wanted, usual, steps):
        if abs(want - size) >= step:
            raise ValueError(f"output_size must be less than the stride {step} away from {size} along that axis, got "
                             f"{shown(output_size)}")
    return wanted
