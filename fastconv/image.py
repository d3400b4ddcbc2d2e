"""correlate and convolve for images and signals: no channels, no batch, the borders of the image libraries.

A call becomes one convN of a stack of planes with one channel: what image libraries mean by dtypes, borders and the kernel's
centre is decided here, and nothing else.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import arrays, ops, torch_arrays
from .dtypes import DTYPES
from .errors import shown
from .window import NUMPY_MODES

MODES = ("same", "valid", "full")
BOUNDARIES = {"zeros": "zeros", "constant": "zeros", "reflect": "reflect", "symmetric": "symmetric", "edge": "replicate",
              "wrap": "circular"}  # the padding mode of each
ELSEWHERE: dict[str | int, tuple[str, str]] = {  # what others call a boundary: whose word, ours
    "mirror": ("scipy.ndimage", "reflect"), "nearest": ("scipy.ndimage", "edge"), "grid-wrap": ("scipy.ndimage", "wrap"),
    "grid-constant": ("scipy.ndimage", "constant"), "grid-mirror": ("scipy.ndimage", "symmetric"),
    "fill": ("scipy.signal", "constant"), "symm": ("scipy.signal", "symmetric"), "circular": ("scipy.signal", "wrap"),
    "replicate": ("torch", "edge"), "BORDER_CONSTANT": ("OpenCV", "constant"), "BORDER_REPLICATE": ("OpenCV", "edge"),
    "BORDER_REFLECT": ("OpenCV", "symmetric"), "BORDER_REFLECT_101": ("OpenCV", "reflect"),
    "BORDER_REFLECT101": ("OpenCV", "reflect"), "BORDER_DEFAULT": ("OpenCV", "reflect"), "BORDER_WRAP": ("OpenCV", "wrap"),
    0: ("OpenCV", "constant"), 1: ("OpenCV", "edge"), 2: ("OpenCV", "symmetric"), 3: ("OpenCV", "wrap"),
    4: ("OpenCV", "reflect")}

_FEW_TAPS = 1024


@torch_arrays.opaque
def correlate(
    image: Any, kernel: Any, mode: str = "same", boundary: str = "zeros", fill: float = 0, axes: Any = None, *,
    origin: Any = None, out: Any = None, backend: str = "auto", algorithm: str | None = None, accuracy: str | None = None,
) -> Any:
    """Cross-correlation of an image (1-D signal, volume) with a kernel of as many axes as it slides along.

    Args:
        image: any shape of at least as many axes as the kernel.
        kernel: 1, 2 or 3 axes.
        mode: "same" (output of the image's size; the kernel's centre is at index k // 2, as in `scipy.ndimage.correlate`,
            `scipy.signal.correlate` and OpenCV's filter2D), "valid" (only where the kernel fits) or "full" (wherever it
            touches).
        boundary: how the image is continued: "zeros", "constant" (with `fill`), "reflect", "symmetric", "edge" or "wrap",
            as `numpy.pad` does it. In `scipy.ndimage` the default is "symmetric", which is called "reflect" there, and
            "reflect" is called "mirror".
        fill: one number that the result's dtype holds (NaN and infinity among them), for "constant" only.
        axes: the axes that the kernel slides along; the leading ones by default, so that (H, W, C) images work as they are.
        origin: for "same": the kernel's centre is at index k // 2 + origin, as in `scipy.ndimage`. An int, or one per axis of
            the kernel, from -(k // 2) to (k - 1) // 2. None is 0 here, and something else in `convolve`.
        out: array of exactly the result's shape and dtype, any strides; overwritten and returned. It may be the image.
        backend, algorithm, accuracy: as for `conv2d`.

    Returns:
        An array of the image's kind, with its axis order, always of float32 or float64. Where image or kernel is floating
        the dtype is ``np.result_type(image, kernel)``. Of integers or booleans it is float32 for images of at most 16 bits,
        else float64. A kernel that is a list has no say: float32 images stay float32.

    Raises:
        ValueError: shapes or values that do not fit.
        TypeError: dtypes or kinds of arrays that do not fit.
        Unsupported, Unavailable: as for `conv2d`.

    Large kernels are computed by FFT or Winograd's algorithm, whose rounding errors are relative to the brightest pixel of
    the neighbourhood that is transformed together, not to the result: beside a star of 1e8, a 15 x 15 box over a background of
    1 is off by several percent in float32. ``accuracy="strict"`` sums the products themselves (2e-6 there), and opposite
    products cancel: a derivative of a flat image is exactly 0.
    """
    return _filter(image, kernel, mode, boundary, fill, axes, origin, out, (backend, algorithm, accuracy), flip=False)


@torch_arrays.opaque
def convolve(
    image: Any, kernel: Any, mode: str = "same", boundary: str = "zeros", fill: float = 0, axes: Any = None, *,
    origin: Any = None, out: Any = None, backend: str = "auto", algorithm: str | None = None, accuracy: str | None = None,
) -> Any:
    """True convolution: `correlate` with the kernel flipped along all its axes.

    "same" is the centre of "full", as in `numpy.convolve` and `scipy.signal.convolve`. With an `origin`, 0 included, the
    kernel's centre is at index k // 2 + origin, as in `scipy.ndimage.convolve`: for kernels of even size 0 is one further.
    """
    return _filter(image, kernel, mode, boundary, fill, axes, origin, out, (backend, algorithm, accuracy), flip=True)


def _filter(image: Any, kernel: Any, mode: Any, boundary: Any, fill: Any, axes: Any, origin: Any, out: Any,
            how: tuple[Any, ...], flip: bool) -> Any:
    kind, x, w, y, dtype = _views(image, kernel, out)
    along = _axes(x, w, axes)
    padding_mode, fill = _border(boundary, fill, dtype)
    size = [x.shape[axis] for axis in along]
    padding = _padding(mode, origin, size, w.shape, flip)
    shape = list(x.shape)
    for axis, n, k, (low, high) in zip(along, size, w.shape, padding):
        shape[axis] = n + low + high - k + 1
    if out is None:
        out = kind.empty(tuple(shape), dtype)
        y = kind.view("out", out)
    else:
        _check_out(y, tuple(shape), dtype)
    if fill != 0:
        x, padding = _filled(x, along, padding, fill, dtype), [(0, 0)] * w.ndim
    _into(y, x, (np.flip(w) if flip else w).astype(dtype, copy=False), along, padding, padding_mode, how)
    return out


def _into(y: np.ndarray, x: np.ndarray, w: np.ndarray, along: tuple[int, ...], padding: list[tuple[int, int]],
          padding_mode: str, how: tuple[Any, ...]) -> None:
    """Correlate `x` with `w` into `y`: as one convN, of planes of one colour or of one plane with all colours."""
    conv: Callable[..., Any] = (ops.conv1d, ops.conv2d, ops.conv3d)[w.ndim - 1]
    backend, algorithm, accuracy = how
    colours = _colours(x, y, along, w.size)
    if colours > 1:  # rows of all colours, and the kernel's taps as far apart as pixels
        x, padding = _continued(x, padding, padding_mode)
        padding[-1] = (padding[-1][0] * colours, padding[-1][1] * colours)
        planes, results = _rows(x, w.ndim), _rows(y, w.ndim)
    else:
        planes, results = _planes(x, along), _planes(y, along)
    conv(planes, w[None, None], padding=tuple(padding), dilation=(1,) * (w.ndim - 1) + (colours,), padding_mode=padding_mode,
         out=results, backend=backend, algorithm=algorithm, accuracy=accuracy)
    if not np.may_share_memory(results, y):  # a copy: the axes across could not be merged
        moved = np.moveaxis(y, along, range(-w.ndim, 0))
        moved[...] = results.reshape(moved.shape)


# ---- arrays

def _views(image: Any, kernel: Any, out: Any) -> tuple[arrays.Kind, np.ndarray, np.ndarray, Any, str]:
    """The kind of the image, how NumPy sees the three arrays, and the dtype of the result."""
    plain = isinstance(kernel, (list, tuple))  # of no kind and no dtype of its own
    required = {"image": image} if plain else {"image": image, "kernel": kernel}
    kind = arrays.common_kind({**required, "out": out})
    if kind.device != "cpu":
        raise TypeError(f"correlate and convolve take arrays on the CPU, got {kind.name} on {kind.device}; use conv{{1,2,3}}d")
    x = kind.view("image", image)
    w = (arrays.NUMPY if plain else kind).view("kernel", kernel)
    for name, array in (("image", x), ("kernel", w)):
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise TypeError(f"{name} must be of a real dtype of at most 64 bits, got {array.dtype}")
    return kind, x, w, None if out is None else kind.view("out", out), _result_dtype(x.dtype, None if plain else w.dtype)


def _result_dtype(image: np.dtype[Any], kernel: np.dtype[Any] | None) -> str:
    """As `numpy.result_type`, but integers with integers (or a list, None) give what the image and float32 give."""
    if image.kind != "f" and (kernel is None or kernel.kind != "f"):
        return np.result_type(image, np.float32).name
    dtype = image if kernel is None else np.result_type(image, kernel)
    if dtype.name not in DTYPES:
        name = "image" if image == dtype else "kernel"
        raise TypeError(f"image and kernel must promote to float32 or float64, got {image.name} and "
                        f"{'a list' if kernel is None else kernel.name}: pass {name}.astype(np.float32)")
    return dtype.name


def _check_out(y: np.ndarray, shape: tuple[int, ...], dtype: str) -> None:
    if y.shape != shape:
        raise ValueError(f"out must have the result's shape {shape}, got {y.shape}")
    if y.dtype.name != dtype:
        raise TypeError(f"out must have the result's dtype {dtype}, got {y.dtype.name}")
    if not y.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")


def _planes(array: np.ndarray, along: tuple[int, ...]) -> np.ndarray:
    """(planes, 1, *space): a view, but where several axes across the planes cannot be merged into one."""
    if len(along) == array.ndim and along == tuple(range(array.ndim)):
        return array[None, None]
    moved = np.moveaxis(array, along, range(-len(along), 0))
    across = moved.shape[:-len(along)]
    return moved.reshape(math.prod(across), 1, *moved.shape[-len(along):])


def _rows(array: np.ndarray, ndim: int) -> np.ndarray:
    """(1, 1, *space) with the colours of a pixel side by side in the last axis: a view."""
    return array.reshape(1, 1, *array.shape[:ndim - 1], math.prod(array.shape[ndim - 1:]))


def _colours(x: np.ndarray, y: np.ndarray, along: tuple[int, ...], taps: int) -> int:
    """How many values lie side by side behind each pixel, if they can be convolved as they lie; else 1.

    Planes of single colours would be gathered from memory and scattered again: an RGB image of 1000 x 1000 with a 3 x 3 kernel
    takes 23 ms so, and 1 ms as rows. Kernels of many taps are for FFT, which takes the planes apart anyway.
    """
    ndim = len(along)
    if x.ndim == ndim or along != tuple(range(ndim)) or taps > _FEW_TAPS or x.size == 0:
        return 1
    for array in (x, y):
        for axis in range(ndim - 1, array.ndim - 1):
            if array.strides[axis] != array.strides[axis + 1] * array.shape[axis + 1]:
                return 1
    return math.prod(x.shape[ndim:])


def _continued(x: np.ndarray, padding: list[tuple[int, int]], padding_mode: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The image with the borders along its rows, whose colours would be continued as one, and the padding that is left."""
    row = len(padding) - 1
    if padding_mode == "zeros" or padding[row] == (0, 0):
        return x, list(padding)
    widths = [(0, 0)] * x.ndim
    widths[row] = padding[row]
    return np.pad(x, widths, mode=NUMPY_MODES[padding_mode]), [*padding[:row], (0, 0)]


def _filled(x: np.ndarray, along: tuple[int, ...], padding: Sequence[tuple[int, int]], fill: float, dtype: str) -> np.ndarray:
    """The image within a border of `fill`."""
    shape, inner = list(x.shape), [slice(None)] * x.ndim
    for axis, (low, high) in zip(along, padding):
        inner[axis] = slice(low, low + shape[axis])
        shape[axis] += low + high
    padded = np.full(shape, fill, dtype)
    padded[tuple(inner)] = x
    return padded


# ---- rules

def _axes(x: np.ndarray, w: np.ndarray, axes: Any) -> tuple[int, ...]:
    if w.ndim not in (1, 2, 3) or w.size == 0:
        raise ValueError(f"kernel must have 1, 2 or 3 axes and not be empty, got shape {w.shape}")
    if x.ndim < w.ndim:
        raise ValueError(f"image must have at least as many axes as the kernel ({w.ndim}), got shape {x.shape}")
    chosen = tuple(range(w.ndim)) if axes is None else _integers("axes", axes, 1)
    outside = any(not -x.ndim <= axis < x.ndim for axis in chosen)
    if outside or not len(chosen) == len({axis % x.ndim for axis in chosen}) == w.ndim:
        raise ValueError(f"axes must be {w.ndim} different axes of an image of shape {x.shape}, got {shown(axes)}")
    chosen = tuple(axis % x.ndim for axis in chosen)
    if any(x.shape[axis] == 0 for axis in chosen):
        raise ValueError(f"image must not be empty along the axes of the kernel, {chosen}, got shape {x.shape}")
    return chosen


def _padding(mode: Any, origin: Any, size: Sequence[int], kernel: tuple[int, ...], flip: bool) -> list[tuple[int, int]]:
    """(low, high) per axis: by how much the image is continued."""
    if not isinstance(mode, str) or mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {shown(mode)}{_boundary_hint(mode)}")
    origins = None if origin is None else _origins(origin, kernel)
    if mode == "same":
        if origins is None:
            low = [k // 2 for k in kernel]
        else:  # index k // 2 + o of the kernel lies at (k - 1) // 2 - o when it is flipped
            low = [(k - 1) // 2 - o if flip else k // 2 + o for k, o in zip(kernel, origins)]
        return [(n, k - 1 - n) for n, k in zip(low, kernel)]
    if origins is not None and any(origins):
        raise ValueError(f"origin moves the kernel in mode 'same' only, got origin={shown(origin)} and mode={mode!r}")
    if mode == "full":
        return [(k - 1, k - 1) for k in kernel]
    for axis, (n, k) in enumerate(zip(size, kernel)):
        if k > n:
            raise ValueError(f"kernel must fit into the image in mode 'valid': along its axis {axis} it spans {k}, "
                             f"and the image has {n}")
    return [(0, 0)] * len(kernel)


def _origins(origin: Any, kernel: tuple[int, ...]) -> tuple[int, ...]:
    origins = _integers("origin", origin, len(kernel))
    if len(origins) != len(kernel):
        raise ValueError(f"origin must be an integer or {len(kernel)} of them, one per axis of the kernel, "
                         f"got {shown(origin)}")
    for o, k in zip(origins, kernel):
        if not -(k // 2) <= o <= (k - 1) // 2:
            raise ValueError(f"origin must be from -(k // 2) to (k - 1) // 2 = {-(k // 2)} to {(k - 1) // 2} along an axis of "
                             f"{k} elements, got {shown(origin)}")
    return origins


def _border(boundary: Any, fill: Any, dtype: str) -> tuple[str, float]:
    """The padding mode, and what the border is filled with instead of zeros."""
    if not isinstance(boundary, str) or boundary not in BOUNDARIES:
        whose, ours = ELSEWHERE.get(boundary, ("", "")) if type(boundary) in (str, int) else ("", "")
        hint = f"; {whose}'s {boundary!r} is {ours!r} here" if whose else ""
        raise ValueError(f"boundary must be one of {', '.join(BOUNDARIES)}, got {shown(boundary)}{hint}")
    if not isinstance(fill, (numbers.Real, np.bool_)):
        raise TypeError(f"fill must be one real number, got {shown(fill)}")
    if boundary != "constant":
        if fill != 0:
            raise ValueError(f"fill must go with boundary='constant', got fill={shown(fill)} and boundary={boundary!r}")
        return BOUNDARIES[boundary], 0.0
    try:
        value = float(fill)
    except OverflowError:
        value = math.inf
    if abs(value) > float(np.finfo(dtype).max) and abs(fill) != math.inf:
        raise ValueError(f"fill must be a number that the result's dtype {dtype} holds, got {shown(fill)}")
    return BOUNDARIES[boundary], value


def _boundary_hint(mode: Any) -> str:
    """For those who call the boundary `mode`, as scipy.ndimage and skimage do."""
    if not isinstance(mode, str) or mode not in BOUNDARIES and mode not in ELSEWHERE:
        return ""
    ours = "symmetric" if mode == "reflect" else mode if mode in BOUNDARIES else ELSEWHERE[mode][1]
    return f"; how the image is continued is boundary={ours!r} here"


def _integers(name: str, value: Any, times: int) -> tuple[int, ...]:
    """The integers of a tuple or list, or one integer as often as it holds."""
    entries = tuple(value) if isinstance(value, (tuple, list)) else (value,) * times
    try:
        if not any(isinstance(entry, (bool, np.bool_)) for entry in entries):
            return tuple(map(operator.index, entries))
    except TypeError:
        pass
    raise TypeError(f"{name} must be an integer or several of them, got {shown(value)}")
