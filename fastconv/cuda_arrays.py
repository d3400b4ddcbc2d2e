"""CUDA arrays: what anything with ``__cuda_array_interface__`` says of its memory."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class CudaView:
    """An array in device memory, as the kernels see it."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements
    dtype: np.dtype[Any]
    owner: Any  # the array itself: keeps the memory, and says how to make another
    stream: int = 0  # handle of the stream its work is ordered by
    device: int = 0
    readonly: bool = False

    @property
    def span(self) -> tuple[int, int]:
        """First and one past the last byte that elements occupy."""
        steps = [(size - 1) * stride * self.dtype.itemsize for size, stride in zip(self.shape, self.strides)]
        return (self.address + sum(min(0, step) for step in steps),
                self.address + sum(max(0, step) for step in steps) + self.dtype.itemsize)


def device_view(array: Any) -> CudaView:
    """A view of anything with ``__cuda_array_interface__``; no copy, no synchronisation."""
    if not hasattr(array, "__cuda_array_interface__"):
        host = getattr(array, "_ary", array)  # Numba's simulator: its device memory is the host's
        return CudaView(host.ctypes.data, host.shape, tuple(step // host.itemsize for step in host.strides), host.dtype, host)
    interface = array.__cuda_array_interface__
    dtype, shape = np.dtype(interface["typestr"]), tuple(interface["shape"])
    if interface.get("mask") is not None:
        raise TypeError("masked CUDA arrays are not supported: their mask would be ignored")
    if not dtype.isnative:
        raise TypeError(f"CUDA arrays must be of native byte order, got {dtype.str}")
    address, readonly = interface["data"]
    steps = interface.get("strides")
    if steps is None:
        strides = contiguous_strides(shape)
    elif any(step % dtype.itemsize for step in steps):
        raise ValueError(f"CUDA arrays must have strides of whole elements, got {tuple(steps)} bytes of {dtype.name}")
    else:
        strides = tuple(step // dtype.itemsize for step in steps)
    stream, device = _place(array, interface)
    return CudaView(address or 0, shape, strides, dtype, array, stream, device, readonly)


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1:]) for axis in range(len(shape)))


def library_of(array: Any) -> str:
    """The library that an array, or the base of its class, comes from: "torch", "cupy", ...; else its own module."""
    modules = [cls.__module__.partition(".")[0] for cls in type(array).__mro__]
    return next((module for module in modules if module in ("torch", "cupy", "numba")), modules[0])


def _place(array: Any, interface: dict[str, Any]) -> tuple[int, int]:
    """(stream, device) of an array: the library's current stream, where there is such a thing."""
    library = library_of(array)
    if library == "torch":
        index = array.device.index
        return sys.modules["torch"].cuda.current_stream(index).cuda_stream, index
    if library == "cupy":
        return sys.modules["cupy"].cuda.get_current_stream().ptr, array.device.id
    device = getattr(getattr(array, "device", None), "id", 0)
    return interface.get("stream") or 0, device if isinstance(device, int) else 0


def empty_like(example: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """A new, contiguous device array of the library and on the device of `example`."""
    library = library_of(example)
    if library == "cupy":
        cupy = sys.modules["cupy"]
        with example.device:
            return cupy.empty(shape, dtype)
    if not hasattr(example, "__cuda_array_interface__"):  # Numba's simulator
        return np.empty(shape, dtype)
    from numba import cuda

    return cuda.device_array(shape, dtype)
