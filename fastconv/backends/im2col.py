"""im2col: columns of input patches times the weight matrix, by NumPy and its BLAS.

For each image and group, out[oc, pixels] = W[oc, K] · columns[K, pixels] with K = channels·taps. The columns of a block of
output rows are written, small enough to stay in cache, multiplied, and finished by the epilogue while they are hot. A 1x1
kernel without padding needs no columns: the input is the matrix. With a stride along the last axis, each of its phases is
first made contiguous, so that whole rows are copied.

Bottleneck: the copy into columns is one thread's memory traffic, K·pixels elements; BLAS does the rest.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import activations
from ..pool_problem import PoolProblem
from ..problem import ConvProblem
from ..window import pad
from . import Candidate, refuses_direction, weights_of
from .sliced_pooling import SlicedPool

BLOCK_BYTES = 3 << 19  # of columns and products of one block: less costs BLAS, more costs cache; within noise from 1 to 2 MB


_kept = threading.local()


@contextmanager
def _scratch(size: int) -> Iterator[np.ndarray]:
    """Uninitialised bytes, kept by this thread from call to call: fresh megabytes would be mapped and cleared each time. A
    call inside a call (of a signal handler, a finalizer) finds none kept, and has its own."""
    found = _kept.__dict__.pop("scratch", None)
    if found is None or found.size < size:
        found = np.empty(max(size, 1 << 22), np.uint8)  # from 4 MB on NumPy asks for huge pages
    yield found[:size]
    if size <= 8 * BLOCK_BYTES:
        _kept.scratch = found


class Im2colKernel:
    def __init__(self, problem: ConvProblem) -> None:
        p = self.problem = problem
        itemsize = np.dtype(p.dtype).itemsize
        self.inputs, self.outputs = p.in_channels // p.groups, p.out_channels // p.groups
        self.pointwise = p.taps == self.inputs and not any(map(any, p.padding)) and set(p.stride) == {1}
        self.phases = p.stride[-1] if p.kernel_size[-1] > 1 else 1
        self.row = math.prod(p.output_size[1:])  # pixels of one output row (or plane)
        column = self.outputs + (0 if self.pointwise else p.taps)  # elements per pixel in flight
        self.block = max(1, min(p.output_size[0], BLOCK_BYTES // (column * self.row * itemsize)))
        self.workspace_bytes = self.block * self.row * column * itemsize
        self.pack_key = ("im2col", *weights_of(p))
        self.packed_bytes = math.prod(p.weight_shape) * itemsize

    def pack(self, weight: np.ndarray, bias: np.ndarray | None) -> Any:
        p = self.problem
        return weight.reshape(p.groups, self.outputs, p.taps), bias

    @np.errstate(all="ignore")  # NaN, Inf and denormals in the data are results, no reason to warn
    def run(self, array: np.ndarray, packed: Any, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        p = self.problem
        matrices, bias = packed
        if p.channels_last:
            array, out = np.moveaxis(array, -1, 1), np.moveaxis(out, -1, 1)
            residual = None if residual is None else np.moveaxis(residual, -1, 1)
        taps = [] if self.pointwise else self._taps(pad(array, p))
        with _scratch(self.workspace_bytes) as scratch:
            products, columns = np.split(scratch.view(p.dtype), [self.outputs * self.block * self.row])
            for n, g in itertools.product(range(p.batch), range(p.groups)):
                inputs = slice(g * self.inputs, (g + 1) * self.inputs)
                outputs = slice(g * self.outputs, (g + 1) * self.outputs)
                flat = array[n, inputs].reshape(p.taps, -1) if self.pointwise else None
                for start in range(0, p.output_size[0], self.block):
                    stop = min(start + self.block, p.output_size[0])
                    pixels = (stop - start) * self.row
                    matrix = (self._columns([tap[n, inputs] for tap in taps], columns, start, stop) if flat is None
                              else flat[:, start * self.row:stop * self.row])
                    product = products[: self.outputs * pixels].reshape(self.outputs, pixels)
                    np.matmul(matrices[g], matrix, out=product)
                    place = (n, outputs, slice(start, stop))
                    self._finish(product, out[place], None if bias is None else bias[outputs],
                                 None if residual is None else residual[place])

    def _taps(self, padded: np.ndarray) -> list[np.ndarray]:
        """For each tap of the last axis, what the other taps and the outputs read: (batch, channels, *kernel[:-1], *output)."""
        p = self.problem
        places = [divmod(tap * p.dilation[-1], self.phases) for tap in range(p.kernel_size[-1])]
        phases = {0: padded} if self.phases == 1 else {f: np.ascontiguousarray(padded[..., f::self.phases])
                                                       for f in {phase for _, phase in places}}
        views = []
        for first, phase in places:
            image = phases[phase][..., first:]
            outer, along = image.strides[2:-1], image.strides[-1]
            strides = (*image.strides[:2], *(d * step for d, step in zip(p.dilation[:-1], outer, strict=True)),
                       *(s * step for s, step in zip(p.stride[:-1], outer, strict=True)), p.stride[-1] // self.phases * along)
            shape = (*image.shape[:2], *p.kernel_size[:-1], *p.output_size)
            views.append(np.lib.stride_tricks.as_strided(image, shape, strides, writeable=False))
        return views

    def _columns(self, taps: list[np.ndarray], columns: np.ndarray, start: int, stop: int) -> np.ndarray:
        """The matrix (K, pixels) of output rows start to stop."""
        p = self.problem
        size = (stop - start, *p.output_size[1:])
        block = columns[: p.taps * math.prod(size)].reshape(self.inputs, *p.kernel_size, *size)
        rows = (slice(None),) * p.ndim  # channels and the outer taps
        for index, tap in enumerate(taps):
            at: tuple[slice | int, ...] = (*rows, index)
            block[at] = tap[(*rows, slice(start, stop))]
        return block.reshape(p.taps, -1)

    def _finish(self, product: np.ndarray, out: np.ndarray, bias: np.ndarray | None, residual: np.ndarray | None) -> None:
        """The epilogue, from the products to the output."""
        shaped = product.reshape(out.shape)
        if bias is None:
            bias = np.zeros(1, out.dtype)
        broadcast = bias.reshape(-1, *[1] * (out.ndim - 1))
        if residual is None:
            np.add(shaped, broadcast, out=out)
        else:
            shaped += broadcast
            np.add(shaped, residual, out=out)
        activations.apply(self.problem.activation, out)


class Im2colBackend:
    name = "im2col"
    device = "cpu"

    def unavailable(self) -> str | None:
        return None

    def candidates(self, problem: ConvProblem) -> tuple[Candidate, ...]:
        return (Candidate("im2col"),)

    def refuses(self, problem: ConvProblem, candidate: Candidate) -> str | None:
        return refuses_direction(problem)

    def seconds(self, problem: ConvProblem, candidate: Candidate, prepared: bool) -> float | None:
        return None

    def bind(self, problem: ConvProblem, candidate: Candidate) -> Im2colKernel:
        return Im2colKernel(problem)

    def refuses_pool(self, problem: PoolProblem) -> str | None:
        return None

    def bind_pool(self, problem: PoolProblem) -> SlicedPool:
        return SlicedPool(problem)


backend = Im2colBackend()
