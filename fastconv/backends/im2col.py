"""im2col: columns of input patches times the weight matrix, by NumPy and its BLAS.

For each image and group, out[oc, pixels] = W[oc, K] · columns[K, pixels] with K = channels·taps. The columns of a block of
output rows are written tap by tap (one strided copy each), small enough to stay in cache, multiplied, and finished by the
epilogue while they are hot. A 1x1 kernel without padding needs no columns: the input is the matrix.

Bottleneck: the copy into columns is one thread's memory traffic, K·pixels elements; BLAS does the rest.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from .. import activations
from ..padding import pad
from ..problem import ConvProblem
from . import Candidate, refuses_direction

COLUMN_BYTES = 1 << 20  # of one block; measured best from 0.5 to 2 MB (half of L2 to all of it) on 3x3 layers


class Im2colKernel:
    pack_key = "im2col"

    def __init__(self, problem: ConvProblem) -> None:
        self.problem = problem
        self.itemsize = np.dtype(problem.dtype).itemsize
        self.pointwise = (problem.taps * problem.groups == problem.in_channels and not any(map(any, problem.padding))
                          and set(problem.stride) == {1})
        row = problem.taps * math.prod(problem.output_size[1:]) * self.itemsize  # columns of one output row (or plane)
        self.block = max(1, min(problem.output_size[0], COLUMN_BYTES // max(1, row)))
        self.workspace_bytes = 0 if self.pointwise else self.block * row
        self.packed_bytes = math.prod(problem.weight_shape) * self.itemsize

    def pack(self, weight: np.ndarray, bias: np.ndarray | None) -> Any:
        p = self.problem
        matrices = np.array(weight, order="C").reshape(p.groups, p.out_channels // p.groups, p.taps)
        return matrices, None if bias is None else bias.copy()

    @np.errstate(all="ignore")  # NaN, Inf and denormals in the data are results, no reason to warn
    def run(self, array: np.ndarray, packed: Any, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        p = self.problem
        matrices, bias = packed
        if p.channels_last:
            array, out = np.moveaxis(array, -1, 1), np.moveaxis(out, -1, 1)
            residual = None if residual is None else np.moveaxis(residual, -1, 1)
        padded = array if self.pointwise else pad(array, p)
        columns = None if self.pointwise else np.empty(self.workspace_bytes // self.itemsize, p.dtype)
        inputs, outputs = p.in_channels // p.groups, p.out_channels // p.groups
        for n, g in itertools.product(range(p.batch), range(p.groups)):
            image, matrix = padded[n, g * inputs:(g + 1) * inputs], matrices[g]
            channels = slice(g * outputs, (g + 1) * outputs)
            for start in range(0, p.output_size[0], self.block):
                rows = slice(start, min(start + self.block, p.output_size[0]))
                place = (n, channels, rows)
                self._block(self._columns(image, columns, rows), matrix, out[place],
                            None if bias is None else bias[channels], None if residual is None else residual[place])

    def _columns(self, image: np.ndarray, columns: np.ndarray | None, rows: slice) -> np.ndarray:
        """The matrix (K, pixels) of one block of output rows."""
        p = self.problem
        if columns is None:
            return image[:, rows].reshape(p.taps, -1)
        height = rows.stop - rows.start
        size = (height, *p.output_size[1:])
        block = columns[: p.taps * math.prod(size)].reshape(image.shape[0], *p.kernel_size, *size)
        for tap in itertools.product(*map(range, p.kernel_size)):
            starts = [t * d for t, d in zip(tap, p.dilation)]
            starts[0] += rows.start * p.stride[0]
            window = tuple(slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, size, p.stride))
            block[(slice(None), *tap)] = image[(slice(None), *window)]
        return block.reshape(p.taps, -1)

    def _block(self, columns: np.ndarray, matrix: np.ndarray, out: np.ndarray, bias: np.ndarray | None,
               residual: np.ndarray | None) -> None:
        direct = out.reshape(len(matrix), -1) if out.flags.c_contiguous else None  # a view: written in place
        if residual is not None and np.may_share_memory(residual, out):
            direct = None
        result = np.matmul(matrix, columns, out=direct)
        if bias is not None:
            result += bias[:, None]
        shaped = result.reshape(out.shape)
        if residual is not None:
            shaped += residual
        activations.apply(self.problem.activation, shaped)
        if direct is None:
            out[...] = shaped


class Im2colBackend:
    name = "im2col"
    device = "cpu"

    def unavailable(self) -> str | None:
        return None

    def candidates(self, problem: ConvProblem) -> tuple[Candidate, ...]:
        return (Candidate("im2col"),)

    def refuses(self, problem: ConvProblem, candidate: Candidate) -> str | None:
        return refuses_direction(problem)

    def seconds(self, problem: ConvProblem, candidate: Candidate, machine: Any) -> float | None:
        return None

    def bind(self, problem: ConvProblem, candidate: Candidate) -> Im2colKernel:
        return Im2colKernel(problem)


backend = Im2colBackend()
