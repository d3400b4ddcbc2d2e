"""Kernels that are right but for one fault each, of the kinds that native kernels have: seen only beside forbidden memory, with
strides that lie backwards, scratch memory of the call before, weights packed for another problem, values that are not finite.
`python tests/fuzz.py --planted NAME` must find each."""

from __future__ import annotations

from typing import Any

import numpy as np
from stepwise_backend import StepwiseBackend, StepwiseKernel


class _Anywhere:
    """Memory that an array does not say it has."""

    def __init__(self, array: np.ndarray, element: int) -> None:
        self.__array_interface__ = {"version": 3, "typestr": array.dtype.str, "shape": (1,),
                                    "data": (array.ctypes.data + element * array.itemsize, False)}


def beyond(array: np.ndarray, element: int) -> np.ndarray:
    """The one element at a distance from an array's first."""
    return np.asarray(_Anywhere(array, element))


class ReadsOneTooFar(StepwiseKernel):
    """A last whole vector of the input, as a kernel without masks would load it."""

    def padded(self, array: np.ndarray) -> np.ndarray:
        if array.flags.c_contiguous and array.shape[-1] % 4:
            beyond(array, array.size).sum()
        return super().padded(array)


class ReadsOneTooEarly(StepwiseKernel):
    """The left neighbour of the first input, which padding hides."""

    def padded(self, array: np.ndarray) -> np.ndarray:
        if array.flags.c_contiguous and self.problem.padding[-1][0]:
            beyond(array, -1).sum()
        return super().padded(array)


class WritesOneTooFar(StepwiseKernel):
    def store(self, result: np.ndarray, out: np.ndarray) -> None:
        super().store(result, out)
        if out.flags.c_contiguous and out.shape[-1] % 4 == 3:
            beyond(out, out.size)[...] = 0


class WritesIntoTheInput(StepwiseKernel):
    """Flips the taps in place, and back."""

    def run(self, array: np.ndarray, packed: Any, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        beyond(array, 0)[...] *= 1
        super().run(array, packed, out, residual)


class NegativeOffsetsArePadding(StepwiseKernel):
    """A sentinel among numbers that may be negative themselves."""

    def padded(self, array: np.ndarray) -> np.ndarray:
        if array.strides[2] < 0:
            array = array.copy()
            array[:, :, 1:] = 0
        return super().padded(array)


class StaleScratch(StepwiseKernel):
    """What the call before left is multiplied by 0, and added."""

    scratch = np.zeros(8)

    def multiply(self, windows: np.ndarray, weight: np.ndarray) -> np.ndarray:
        made = super().multiply(windows, weight)
        stale, StaleScratch.scratch = StaleScratch.scratch, made.ravel()[:8].copy()
        return made + 0 * stale.sum().astype(made.dtype)


class PackedForItsDilation(StepwiseKernel):
    """Packing deals the taps out by stride and dilation, and its key names neither."""

    def pack(self, weight: np.ndarray, bias: np.ndarray | None) -> Any:
        weight, bias = super().pack(weight, bias)
        return np.roll(weight, self.problem.dilation[-1], axis=-1), bias

    def run(self, array: np.ndarray, packed: Any, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        weight, bias = packed
        super().run(array, (np.roll(weight, -self.problem.dilation[-1], axis=-1), bias), out, residual)


class LastColumnSkipped(StepwiseKernel):
    def store(self, result: np.ndarray, out: np.ndarray) -> None:
        width = out.shape[-1] - (out.shape[-1] % 16 == 1)
        super().store(result[..., :width], out[..., :width])


class HaloOffByOne(StepwiseKernel):
    """The first row of every tile of 4 but the first is its neighbour's last."""

    def store(self, result: np.ndarray, out: np.ndarray) -> None:
        result[:, :, 4::4] = result[:, :, 3:-1:4]
        super().store(result, out)


class NanReachesItsTile(StepwiseKernel):
    """As in a transform: 0 · NaN is NaN."""

    def store(self, result: np.ndarray, out: np.ndarray) -> None:
        bad = ~np.isfinite(result).all(axis=-1, keepdims=True)
        super().store(np.where(bad, np.nan, result), out)


class PartTwice(StepwiseKernel):
    """A block of products is added again where they are many."""

    def multiply(self, windows: np.ndarray, weight: np.ndarray) -> np.ndarray:
        made = super().multiply(windows, weight)
        return made + super().multiply(windows[:, :1], weight[:, :1]) if self.problem.k > 256 else made


class PartNever(StepwiseKernel):
    def multiply(self, windows: np.ndarray, weight: np.ndarray) -> np.ndarray:
        kept = weight.shape[1] - (weight.shape[1] > 32 and weight.shape[1] % 32 == 1)
        return super().multiply(windows[:, :kept], weight[:, :kept])


class WideStridesCutTo32Bits(StepwiseKernel):
    def padded(self, array: np.ndarray) -> np.ndarray:
        if any(abs(step) >= 2**31 for step, length in zip(array.strides, array.shape) if length > 1):
            array = np.broadcast_to(array[:1, :1], array.shape)
        return super().padded(array)


class RepeatedRowsTakenForOne(StepwiseKernel):
    """Rows with stride 0 are merged into one that goes on."""

    def padded(self, array: np.ndarray) -> np.ndarray:
        if array.strides[-1] == 0 and array.shape[-1] > 1:
            array = array.copy()
            array[..., 1:] = 0
        return super().padded(array)


PLANTED = {kernel.__name__: kernel for kernel in (
    ReadsOneTooFar, ReadsOneTooEarly, WritesOneTooFar, WritesIntoTheInput, NegativeOffsetsArePadding, StaleScratch,
    PackedForItsDilation, LastColumnSkipped, HaloOffByOne, NanReachesItsTile, PartTwice, PartNever, WideStridesCutTo32Bits,
    RepeatedRowsTakenForOne)}


def planted(name: str) -> StepwiseBackend:
    """A backend with that fault; with any other name, one without."""
    made = StepwiseBackend()
    made.kernel = PLANTED.get(name, StepwiseKernel)
    return made
