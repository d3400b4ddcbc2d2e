"""The rules that every sliding window obeys, of convolution and of pooling: its padding, what it spans, how many there are; and
the padded input, as `numpy.pad` makes it: what the NumPy backends and the references slide their windows over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np

from .arguments import integer, one_of
from .errors import shown

PADDING_MODES = ("zeros", "reflect", "symmetric", "replicate", "circular")
PADDING_WORDS = ("valid", "same", "same_lower", "full")
NUMPY_MODES: dict[str, Literal["constant", "reflect", "symmetric", "edge", "wrap"]] = {
    "zeros": "constant", "reflect": "reflect", "symmetric": "symmetric", "replicate": "edge", "circular": "wrap"}
LARGEST = 2**62  # bytes of any one array, padded input included: far above memory, far below int64 overflow


def span(kernel: int, dilation: int) -> int:
    """How many coordinates a window covers."""
    return dilation * (kernel - 1) + 1


def outputs(padded: int, kernel: int, stride: int, dilation: int) -> int:
    """How many windows fit."""
    return (padded - span(kernel, dilation)) // stride + 1


def normalize_padding(padding: Any, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int],
                      dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """((low, high), ...) of what the user wrote: an int, one entry per axis (ints or pairs), or a word."""
    reach = [d * (k - 1) for k, d in zip(kernel, dilation)]
    if isinstance(padding, str):
        one_of("padding", padding, PADDING_WORDS)
        if padding == "valid":
            return ((0, 0),) * len(size)
        if padding == "full":
            return tuple((r, r) for r in reach)
        # TensorFlow and ONNX SAME_UPPER / SAME_LOWER: the output has ceil(input / stride) elements
        totals = [max((-(-i // s) - 1) * s + r + 1 - i, 0) for i, s, r in zip(size, stride, reach)]
        return tuple((t // 2, t - t // 2) if padding == "same" else (t - t // 2, t // 2) for t in totals)
    if not isinstance(padding, (tuple, list)):
        return ((integer("padding", padding, 0),) * 2,) * len(size)
    if len(padding) == 1 and not isinstance(padding[0], (tuple, list)):
        return ((integer("padding", padding[0], 0, whole=padding),) * 2,) * len(size)
    if len(padding) != len(size):
        raise ValueError(f"padding must be one entry per spatial axis ({len(size)}), or ((low, high), ...) per axis, "
                         f"got {shown(padding)}")
    return tuple(_padding_pair(entry, padding) for entry in padding)


def _padding_pair(entry: Any, padding: Any) -> tuple[int, int]:
    if not isinstance(entry, (tuple, list)):
        return (integer("padding", entry, 0, whole=padding),) * 2
    if len(entry) != 2:
        raise ValueError(f"padding of an axis must be an integer or (low, high), got {shown(entry)} in {shown(padding)}")
    return integer("padding", entry[0], 0, whole=padding), integer("padding", entry[1], 0, whole=padding)


def low_and_high(padding: Any, ndim: int) -> tuple[tuple[int, int], ...]:
    """The attribute `padding`, checked: high may be negative (see ConvProblem)."""
    if not isinstance(padding, tuple) or len(padding) != ndim or any(not isinstance(p, tuple) or len(p) != 2 for p in padding):
        raise ValueError(f"padding must be ((low, high), ...), one pair per spatial axis ({ndim}), got {shown(padding)}")
    return tuple((integer("padding", low, 0, whole=padding), integer("padding", high, None, whole=padding))
                 for low, high in padding)


def effective_padding(size: int, kernel: int, stride: int, dilation: int, padding: tuple[int, int],
                       unread: bool = False) -> tuple[int, int]:
    """`unread`: windows may leave more than a stride of the input unread."""
    low, high = padding
    if low < 0 or high <= -stride and not unread:
        raise ValueError(f"padding must not be negative, got {shown(padding)}")
    extent, padded = span(kernel, dilation), size + low + high
    if extent > padded:
        raise too_large(size, kernel, dilation, padding)
    return low, (padded - extent) // stride * stride + extent - size - low


def too_large(size: int, kernel: int, dilation: int, padding: tuple[int, int]) -> ValueError:
    """The error of a kernel that does not fit."""
    low, high = padding
    return ValueError(f"kernel does not fit: it spans {span(kernel, dilation)} ({kernel} taps, dilation {dilation}), but the "
                      f"padded input has {size + low + high} ({size} + {low} + {high})")


# ---- the padded input


class Padded(Protocol):
    """What is to be known of a padded input; a `ConvProblem` says it."""

    @property
    def input_size(self) -> tuple[int, ...]: ...
    @property
    def padding(self) -> tuple[tuple[int, int], ...]: ...  # (low, high) by axis; high may be negative: never read
    @property
    def padding_mode(self) -> str: ...
    @property
    def padded_size(self) -> tuple[int, ...]: ...


def pad(array: np.ndarray, windows: Padded) -> np.ndarray:
    """`array` (batch, channels, *space) with the padding of these windows; no copy where there is none."""
    widths = [(low, max(0, high)) for low, high in windows.padding]
    if any(map(any, widths)):
        array = _zero_pad(array, widths) if windows.padding_mode == "zeros" else np.pad(
            array, [(0, 0), (0, 0), *widths], mode=NUMPY_MODES[windows.padding_mode])
    # cropped only now: a border that is continued may repeat trailing input that no window reads
    return array[tuple(map(slice, (None, None, *windows.padded_size)))]


def _zero_pad(array: np.ndarray, widths: list[tuple[int, int]]) -> np.ndarray:
    """`np.pad` with zeros, in a fifth of its time for small images."""
    space = array.shape[2:]
    padded = np.zeros((*array.shape[:2], *(low + size + high for size, (low, high) in zip(space, widths))), array.dtype)
    inner = [slice(low, low + size) for size, (low, _) in zip(space, widths)]
    padded[tuple([slice(None), slice(None), *inner])] = array
    return padded


def index_map(windows: Padded, axis: int) -> np.ndarray:
    """For each padded coordinate along `axis`, the input coordinate it repeats, or -1 where a zero stands (int64)."""
    low, high = windows.padding[axis]
    widths = low, max(0, high)
    source = np.arange(windows.input_size[axis], dtype=np.int64)
    mapped = (np.pad(source, widths, constant_values=-1) if windows.padding_mode == "zeros" else
              np.pad(source, widths, mode=NUMPY_MODES[windows.padding_mode]))
    return mapped[: windows.padded_size[axis]]
