"""Type in, type out: what kinds of arrays the API takes, and how each is seen by the backends.

A *kind* knows one family of arrays: how to view one without a copy, and how to make an empty one. CPU kinds are viewed as
`numpy.ndarray`; the CUDA kinds of torch, CuPy and Numba through ``__cuda_array_interface__``, by the `cuda` backend itself.
Subclasses, wherever they are defined, are of their base's kind. What torch's tensors need is in `torch_arrays`.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from . import cuda_arrays, torch_arrays
from .dtypes import NATIVE, name_of
from .errors import clipped, printable, shown


class Kind(Protocol):
    """One family of arrays."""

    name: str
    device: str  # "cpu", or "cuda:<index>"

    def view(self, name: str, array: Any) -> Any: ...  # an object with shape and dtype; a numpy.ndarray on the CPU
    def empty(self, shape: tuple[int, ...], dtype: str) -> Any: ...  # a new array of this kind


class NumpyKind:
    """NumPy arrays, and whatever `np.asarray` takes."""

    name = "numpy"
    device = "cpu"

    def view(self, name: str, array: Any) -> np.ndarray:
        if type(array) is np.ndarray and array.dtype != object:  # the usual case, told without asking for all the others
            return array
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError(f"{name} is a masked array; its mask would be ignored: pass array.filled(value)")
        if any(cls.__module__.startswith(("scipy.sparse", "sparse")) for cls in type(array).__mro__):
            raise TypeError(f"{name} is a sparse array; pass a dense one ({type(array).__name__}.toarray())")
        if name == "out" and not isinstance(array, np.ndarray):
            raise TypeError(f"out must be an array to write into, got {_type(array)}")
        try:
            view = np.asarray(array)
        except MemoryError:
            raise
        except Exception as error:  # ragged lists; whatever an object's __array__ does
            reason = f"of which NumPy says: {printable(clipped(str(error), 200))}"
            raise TypeError(f"{name} must be an array, got {_type(array)}, {reason}") from error
        if view.dtype == object:
            raise TypeError(f"{name} must be numeric, got {_type(array)}, which NumPy sees as an object array")
        return view

    def empty(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return np.empty(shape, NATIVE[dtype])


class CudaKind:
    """CUDA arrays of CuPy or Numba; they stay where they are."""

    def __init__(self, name: str, device: str, example: Any) -> None:
        self.name, self.device, self._example = name, device, example

    def view(self, name: str, array: Any) -> Any:
        return cuda_arrays.device_view(array)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return cuda_arrays.empty_like(self._example, shape, dtype)


def _type(array: Any) -> str:
    return clipped(type(array).__name__)


NUMPY = NumpyKind()
_ARRAY = frozenset({np.ndarray})
_PLAIN = frozenset({np.ndarray, type(None)})


def kind_of(array: Any) -> Kind:
    """The kind of one argument."""
    if type(array) is np.ndarray:
        return NUMPY
    torch = torch_arrays.library()
    if torch is not None:
        if isinstance(array, torch.Tensor):
            return torch_arrays.TorchKind(array)
        if hasattr(type(array), "__torch_function__") and not isinstance(array, np.ndarray):
            raise TypeError(f"array arguments must be arrays, got {type(array).__name__}, which only stands for a tensor")
    if hasattr(array, "__cuda_array_interface__"):
        index = getattr(getattr(array, "device", None), "id", 0)
        return CudaKind(cuda_arrays.library_of(array), f"cuda:{index}", array)
    return NUMPY


def common_kind(arguments: dict[str, Any]) -> Kind:
    """The one kind of all array arguments that are not None.

    Raises:
        TypeError: they are of different kinds or on different devices.
    """
    kinds = {name: kind_of(array) for name, array in arguments.items() if array is not None}
    first = next(iter(kinds.values()), NUMPY)  # all None: whoever needs one says so
    for kind in kinds.values():
        if (kind.name, kind.device) != (first.name, first.device):
            described = ", ".join(f"{key} is {value.name} on {value.device}" for key, value in kinds.items())
            raise TypeError(f"array arguments must be of one kind and on one device: {described}")
    if isinstance(first, torch_arrays.TorchKind):
        first.join([array for array in arguments.values() if array is not None])
    return first


def views(required: dict[str, Any], **optional: Any) -> tuple[Kind, list[Any]]:
    """The common kind of the array arguments, and how the backends see each (an optional None stays None).

    Raises:
        TypeError: as `common_kind`.
    """
    if _ARRAY.issuperset(map(type, required.values())) and _PLAIN.issuperset(map(type, optional.values())):
        return NUMPY, [*required.values(), *optional.values()]  # the usual case, told without asking each for its kind
    kind = common_kind({**required, **optional})
    seen = [kind.view(name, array) for name, array in required.items()]
    return kind, seen + [None if array is None else kind.view(name, array) for name, array in optional.items()]


def ready(array: np.ndarray, dtype: str) -> np.ndarray:
    """`array` in native, aligned `dtype`; the same object when it already is, else a copy."""
    native = NATIVE[dtype]
    if array.dtype == native and array.flags.aligned:
        return array
    return array.astype(native, order="K", copy=True)


def check_like(name: str, array: Any, shape: tuple[int, ...], dtype: str, note: str = "", of: str = "output") -> None:
    """
    Raises:
        ValueError, TypeError: `array` has not exactly this shape and dtype, which are those of the `of`.
    """
    if tuple(array.shape) != shape:
        raise ValueError(f"{name} must have the {of}'s shape {shape}, got {shown(tuple(array.shape))}{note}")
    if name_of(array.dtype) != dtype:
        raise TypeError(f"{name} must have the {of}'s dtype {dtype}, got {array.dtype.name}")


def needs_temporary(y: np.ndarray, read: tuple[Any, ...], residual: np.ndarray | None = None) -> bool:
    """Whether a kernel could not write `y`, which a user gave, directly: odd bytes, or memory that it still reads.

    Raises:
        ValueError: it must not be written at all.
    """
    if not y.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    if y.size and any(n > 1 and step == 0 for n, step in zip(y.shape, y.strides)):
        raise ValueError(f"out must have a place for each element, got strides {y.strides} of shape {y.shape}")
    if not (y.dtype.isnative and y.flags.aligned) or any(a is not None and np.may_share_memory(a, y) for a in read):
        return True
    if residual is None or not np.may_share_memory(residual, y):
        return False
    same = (residual.__array_interface__["data"] == y.__array_interface__["data"] and residual.strides == y.strides)
    return not same
