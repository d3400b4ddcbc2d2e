"""How kernels that work channel by channel see an array: (batch, channels, space); and the sums over each channel."""

from __future__ import annotations

import numpy as np

from . import arrays, native, operands, settings
from .dtypes import DTYPES, name_of


def cube(array: np.ndarray, channel: int, last: bool) -> np.ndarray | None:
    """A view of three axes with adjacent elements along space, or along channels (last), or None where that takes a copy."""
    if array.flags.c_contiguous and channel == (array.ndim - 1 if last else 1):  # the usual case, told in a microsecond
        return array.reshape(-1, array.shape[channel]).T[None] if last else array.reshape(*array.shape[:2], -1)
    if last:
        flat = np.moveaxis(array, channel, -1).reshape(-1, array.shape[channel])
        seen = flat.T[None]
    else:
        first = np.moveaxis(array, channel, 1)
        seen = first.reshape(first.shape[0], first.shape[1], -1)
    axis = 1 if last else 2
    adjacent = seen.shape[axis] == 1 or seen.strides[axis] == array.itemsize
    return seen if adjacent and operands.shared(seen, array) else None


def copied(array: np.ndarray, channel: int, last: bool) -> np.ndarray:
    """The same of a copy."""
    moved = np.ascontiguousarray(np.moveaxis(array, channel, -1 if last else 1))
    seen = cube(moved, array.ndim - 1 if last else 1, last)
    assert seen is not None
    return seen


def sums(array: np.ndarray, channel: int) -> np.ndarray:
    """Of each channel, in float64; of any number of threads the same bits.

    Args:
        array: (N, C, ...) or (N, ..., C), float32 or float64.
        channel: the axis of C.
    """
    module = operands.native_module() if name_of(array.dtype) in DTYPES and array.size else None
    if module is None:
        return np.asarray(array.sum(tuple(axis for axis in range(array.ndim) if axis != channel), np.float64))
    last = channel == array.ndim - 1
    ready = arrays.ready(array, name_of(array.dtype))
    seen = cube(ready, channel, last)
    seen = copied(ready, channel, last) if seen is None else seen
    found, none = np.zeros((2, array.shape[channel])), np.zeros(array.shape[channel])
    native.runtime().batch_norm(module, seen, None, none, none, none, none, training=False, epsilon=1.0, channels_last=last,
                                threads=settings.current().num_threads, grad_output=seen, grad_weight=found[0],
                                grad_bias=found[1])
    return found[1]
