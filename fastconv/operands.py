"""What functions beside convolution have in common: which arrays they take, what they write to, who computes.

They take float32 or float64 on the CPU, all of one dtype. They compute natively where they can, else with NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import arrays, native, settings
from .backends.cython_native import chosen_isas
from .dtypes import DTYPES, NATIVE, name_of
from .errors import Unsupported, shown

_PLAIN = frozenset(NATIVE[name] for name in DTYPES)
_chosen: tuple[Any, Any] = (None, None)  # the settings that were asked for last, and their native module


def native_module() -> Any:
    """The kernels of the best ISA, or of the forced one; None: NumPy computes.

    Raises:
        Unavailable: FASTCONV_ISA names an ISA that cannot run here.
    """
    global _chosen
    current = settings.current()
    made_for, module = _chosen
    if made_for is not current:
        module = None
        if not current.no_native and native.runtime() is not None and native.runnable_isas():
            module = native.isa_module(chosen_isas()[0])
        _chosen = current, module
    return module


def plain(array: Any) -> bool:
    """Whether it is an array that kernels take as it is."""
    return type(array) is np.ndarray and array.dtype in _PLAIN and array.flags.c_contiguous and array.flags.aligned


def views(required: dict[str, Any], **optional: Any) -> tuple[arrays.Kind, list[Any]]:
    """As `arrays.views`, on the CPU only.

    Raises:
        Unsupported: the arrays are on a GPU.
    """
    for name, array in required.items():
        if array is None:
            raise TypeError(f"{name} must be an array, got None")
    kind, seen = arrays.views(required, **optional)
    if kind.device != "cpu":
        raise Unsupported(f"{next(iter(required))} is on {kind.device}, and only convolutions run there; copy it to the CPU")
    return kind, seen


def dtype_of(**named: np.ndarray | None) -> str:
    """The one dtype of all arrays.

    Raises:
        TypeError: it is neither float32 nor float64, or there are two.
    """
    first: tuple[str, str] | None = None
    for name, array in named.items():
        if array is None:
            continue
        found = name_of(array.dtype)
        if found not in DTYPES:
            raise TypeError(f"{name} must be float32 or float64, got {found}; convert it")
        if first is None:
            first = name, found
        elif found != first[1]:
            raise TypeError(f"{name} must have the dtype of {first[0]}, {first[1]}, got {found}; convert one")
    assert first is not None
    return first[1]


def same_shape(name: str, array: np.ndarray, shape: tuple[int, ...], of: str) -> None:
    """
    Raises:
        ValueError: `array` has another shape than that of the argument `of`.
    """
    if tuple(array.shape) != tuple(shape):
        raise ValueError(f"{name} must have the shape of {of}, {shown(tuple(shape))}, got {shown(tuple(array.shape))}")


def empty_like(kind: arrays.Kind, like: np.ndarray, dtype: str) -> Any:
    """A new array of this kind, of the shape and in the memory order of `like`."""
    if like.flags.c_contiguous:
        return kind.empty(like.shape, dtype)
    order = sorted(range(like.ndim), key=lambda axis: -abs(like.strides[axis]))
    made = kind.empty(tuple(like.shape[axis] for axis in order), dtype)
    back = tuple(order.index(axis) for axis in range(like.ndim))
    return made.transpose(back) if isinstance(made, np.ndarray) else made.permute(back)


def made_of(kind: arrays.Kind, values: np.ndarray, dtype: str) -> Any:
    """A new array of this kind with these values."""
    made = kind.empty(values.shape, dtype)
    (made if isinstance(made, np.ndarray) else kind.view("out", made))[...] = values
    return made


def result(kind: arrays.Kind, out: Any, seen: np.ndarray | None, like: np.ndarray, dtype: str,
           of: str = "input") -> tuple[Any, np.ndarray]:
    """(what the user gets, its view): `out`, seen as `seen`, once it is checked, or a new array like `like`.

    Raises:
        ValueError, TypeError: `out` has another shape or dtype than `like`, or is read-only.
    """
    if out is None:
        made = empty_like(kind, like, dtype)
        return made, made if isinstance(made, np.ndarray) else kind.view("out", made)
    assert seen is not None
    same_shape("out", seen, like.shape, of)
    if name_of(seen.dtype) != dtype:
        raise TypeError(f"out must have the dtype of {of}, {dtype}, got {seen.dtype.name}")
    if not seen.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    return out, seen


def write(target: np.ndarray, reads: tuple[np.ndarray | None, ...], dtype: str, compute: Callable[[np.ndarray], Any]) -> None:
    """compute(target), or through a temporary array where a kernel could not write it: odd bytes, or memory that it still
    reads and that is not the very array it reads."""
    flags = target.flags
    usable = flags.aligned and target.dtype.isnative and (flags.c_contiguous or not any(
        step == 0 and length > 1 for step, length in zip(target.strides, target.shape)))
    if usable and not any(array is not None and _overlaps(target, array) for array in reads):
        compute(target)
    else:
        temporary = np.empty(target.shape, dtype)
        compute(temporary)
        target[...] = temporary


def _overlaps(target: np.ndarray, array: np.ndarray) -> bool:
    """Whether they share memory in another way than element by element."""
    return np.may_share_memory(target, array) and not (
        target.strides == array.strides and target.ctypes.data == array.ctypes.data and array.dtype == target.dtype)


def shared(made: np.ndarray, array: np.ndarray) -> bool:
    """Whether `made`, a reshaped `array`, is a view of it."""
    return bool(np.may_share_memory(made, array)) or array.size == 0
