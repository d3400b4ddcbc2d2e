"""correlate and convolve for images and signals: no channels, no batch, the borders of the image libraries."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from . import arrays, ops, torch_arrays
from .problem import result_dtype

MODES = ("same", "valid", "full")
BOUNDARIES = {"zeros": "zeros", "constant": "zeros", "reflect": "reflect", "symmetric": "symmetric", "edge": "replicate",
              "wrap": "circular"}


@torch_arrays.opaque
def correlate(image: Any, kernel: Any, mode: str = "same", boundary: str = "zeros", fill: float = 0, axes: Any = None) -> Any:
    """Cross-correlation of an image (1-D signal, volume) with a kernel of as many axes as it slides along.

    Args:
        image: any shape of at least as many axes as the kernel.
        kernel: 1, 2 or 3 axes.
        mode: "same" (output of the image's size; the kernel's centre is at index k // 2, as in `scipy.ndimage.correlate`,
            `scipy.signal.correlate` and OpenCV's filter2D), "valid" (only where the kernel fits) or "full" (wherever it
            touches).
        boundary: how the image is continued: "zeros", "constant" (with `fill`), "reflect", "symmetric", "edge" or "wrap",
            as `numpy.pad` does it.
        axes: the axes that the kernel slides along; the leading ones by default, so that (H, W, C) images work as they are.

    Returns:
        An array of the image's kind, with its axis order; dtype ``np.result_type(image, kernel)``, which must be float32 or
        float64.
    """
    return _filter(image, kernel, mode, boundary, fill, axes, flip=False)


@torch_arrays.opaque
def convolve(image: Any, kernel: Any, mode: str = "same", boundary: str = "zeros", fill: float = 0, axes: Any = None) -> Any:
    """True convolution: `correlate` with the kernel flipped along all its axes.

    "same" is the centre of "full", as in `numpy.convolve` and `scipy.signal.convolve`.
    """
    return _filter(image, kernel, mode, boundary, fill, axes, flip=True)


def _filter(image: Any, kernel: Any, mode: str, boundary: str, fill: float, axes: Any, flip: bool) -> Any:
    kind, (x, w) = arrays.views({"image": image, "kernel": kernel})
    if kind.device != "cpu":
        raise TypeError(f"correlate and convolve take arrays on the CPU, got {kind.name} on {kind.device}; use conv{{1,2,3}}d")
    axes = _axes(x, w, axes)
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary must be one of {', '.join(BOUNDARIES)}, got {boundary!r}")
    if flip:
        w = np.flip(w)
    moved = np.moveaxis(x, axes, range(-w.ndim, 0))
    padding = [{"same": (k // 2, k - 1 - k // 2), "valid": (0, 0), "full": (k - 1, k - 1)}[mode] for k in w.shape]
    others = moved.shape[:-w.ndim]
    batch = moved.reshape(math.prod(others), 1, *moved.shape[-w.ndim:])
    if boundary == "constant" and fill != 0:
        batch = batch.astype(result_dtype(x.dtype, w.dtype), copy=False)
        batch = np.pad(batch, [(0, 0), (0, 0), *padding], constant_values=fill)
        padding = [(0, 0)] * w.ndim
    conv = (ops.conv1d, ops.conv2d, ops.conv3d)[w.ndim - 1]
    result = conv(batch, w[None, None], padding=tuple(padding), padding_mode=BOUNDARIES[boundary])
    result = np.moveaxis(result.reshape(*others, *result.shape[2:]), range(-w.ndim, 0), axes)
    if kind is arrays.NUMPY:
        return np.ascontiguousarray(result)
    out = kind.empty(result.shape, result.dtype.name)
    kind.view("out", out)[...] = result
    return out


def _axes(x: np.ndarray, w: np.ndarray, axes: Any) -> tuple[int, ...]:
    if w.ndim not in (1, 2, 3) or w.size == 0:
        raise ValueError(f"kernel must have 1, 2 or 3 axes and not be empty, got shape {w.shape}")
    if x.ndim < w.ndim:
        raise ValueError(f"image must have at least as many axes as the kernel ({w.ndim}), got shape {x.shape}")
    chosen = tuple(range(w.ndim)) if axes is None else tuple(axes) if isinstance(axes, (tuple, list)) else (axes,)
    chosen = tuple(operator.index(axis) for axis in chosen)
    outside = any(not -x.ndim <= axis < x.ndim for axis in chosen)
    if outside or not len(chosen) == len({axis % x.ndim for axis in chosen}) == w.ndim:
        raise ValueError(f"axes must be {w.ndim} different axes of an image of shape {x.shape}, got {axes!r}")
    return tuple(axis % x.ndim for axis in chosen)
