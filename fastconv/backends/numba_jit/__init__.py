"""numba: the CPU kernels that Numba compiles here, for this CPU, when first used; then cached on disk.

Two algorithms over the same frame (`kernels`: padded slabs in L2, tables of offsets, one chain of multiply-adds per
output), around register tiles written as LLVM vector code (`vectors`):

    gemm    output channels on the vector, pixels broadcast: any geometry, at its best with many output channels
    direct  neighbouring pixels on the vector, weights broadcast: depthwise, few channels, images

Both give the same bits, for any number of threads and for an image alone or in a batch.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from typing import Any

import numpy as np

from ... import settings
from ...kept import Kept
from ...pool_problem import PoolProblem
from ...problem import ConvProblem
from ...unit_axes import with_near_strides
from .. import Candidate, PoolKernel, refuses_direction, weights_of
from .threads import perform

SERIAL_BELOW = 400_000  # multiply-adds: less is not worth waking a thread
LONGEST_AXIS = 1 << 27  # padded coordinates: a table of 1 GB


class Memory:
    """Uninitialised bytes that start at a multiple of 64."""

    def __init__(self, size: int) -> None:
        raw = np.empty(size + 64, np.uint8)
        self.size = size
        self.address = -(-raw.ctypes.data // 64) * 64
        self.bytes = raw[self.address - raw.ctypes.data:]


class Scratch(Memory):
    """What a call works in, its context included, so that its address is known."""

    CONTEXT_BYTES = 1024

    def __init__(self, size: int) -> None:
        super().__init__(size + self.CONTEXT_BYTES)
        self.context = self.bytes[: self.CONTEXT_BYTES].view(np.int64)
        self.size = size


class Packed:
    """Weights and bias, as the kernels read them; nothing writes to them."""

    def __init__(self, weights: Memory, bias: np.ndarray | None) -> None:
        self.weights, self._bias = weights, bias
        self.bias_address = 0 if bias is None else bias.ctypes.data


class NumbaKernel:
    def __init__(self, problem: ConvProblem, algorithm: str) -> None:
        from . import blocking
        from .compile import stage

        problem = with_near_strides(problem)
        self.problem, self.algorithm = problem, algorithm
        self._blocking = blocking
        self._shape = blocking.Shape(problem, algorithm)
        self._pack, self._pack_template = stage("pack", problem.dtype), blocking.words(self._shape.common())
        self._flops = problem.flops
        self.packed_bytes = self._shape.packed_bytes
        self.pack_key = ("numba", algorithm, *weights_of(problem))
        empty = np.lib.stride_tricks.as_strided
        item = np.empty((), problem.dtype)  # only the strides count
        x, out = (_contiguous_strides(shape, item.itemsize) for shape in (problem.input_shape, problem.output_shape))
        like = [empty(item, shape, steps) for shape, steps in ((problem.input_shape, x), (problem.output_shape, out))]
        self.workspace_bytes = self._call(like[0], like[1], like[1] if problem.residual else None).workspace_bytes

    def pack(self, weight: np.ndarray, bias: np.ndarray | None) -> Packed:
        weight = np.ascontiguousarray(weight)
        packed = Memory(self.packed_bytes)
        threads = settings.current().num_threads if weight.size >= SERIAL_BELOW // 4 else 1
        parts = min(threads, self.problem.groups * self._shape.blocks)
        scratch = _borrow(0)
        self._perform(self._pack, self._pack_template, parts, 1, scratch, weight.ctypes.data, packed.address)
        _give_back(scratch)
        return Packed(packed, None if bias is None else np.array(bias))

    def run(self, array: np.ndarray, packed: Packed, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        if self.problem.batch == 0:
            return
        call = self._call(array, out, residual)
        if not call.whole_steps:
            self._run_copies(array, packed, out, residual)
            return
        scratch = _borrow(call.workspace_bytes)
        self._perform(call.entry, call.template, call.parts, call.rounds, scratch, array.ctypes.data, packed.weights.address,
                      packed.bias_address, out.ctypes.data, 0 if residual is None else residual.ctypes.data)
        _give_back(scratch)

    @staticmethod
    def _perform(entry: Any, template: np.ndarray, parts: int, rounds: int, scratch: Scratch, x: int, weights: int,
                 bias: int = 0, out: int = 0, residual: int = 0) -> None:
        context = scratch.address
        scratch.context[: len(template)] = template
        scratch.context[:8] = context, x, weights, bias, out, residual, context + scratch.CONTEXT_BYTES, parts * rounds
        for first in range(0, parts * rounds, parts):
            scratch.context[8] = first
            perform(entry, parts, context)

    def _run_copies(self, array: np.ndarray, packed: Packed, out: np.ndarray, residual: np.ndarray | None) -> None:
        """Strides that are no multiple of the item size: legal, very rare."""
        result = np.empty(out.shape, out.dtype)
        self.run(array.copy(), packed, result, None if residual is None else residual.copy())
        out[...] = result

    def _call(self, array: np.ndarray, out: np.ndarray, residual: np.ndarray | None) -> Any:
        """The blocking for arrays of these strides; it is kept."""
        threads = settings.current().num_threads
        if self._flops < 2 * SERIAL_BELOW:
            threads = 1
        cache_dir = settings.current().cache_dir  # which compiled stages a call leads to
        key = (self.problem, self.algorithm, array.strides, out.strides, residual is not None and residual.strides, threads,
               cache_dir)
        found = _calls.get(key)
        if found is None:
            found = self._blocking.Call(self._shape, array, out, residual, threads)
            _calls.put(key, found, found.nbytes)
        return found


_calls = Kept(32 << 20)  # by problem, strides and threads: their tables are as long as the axes


def _contiguous_strides(shape: tuple[int, ...], item: int) -> tuple[int, ...]:
    return tuple(item * math.prod(shape[axis + 1:]) for axis in range(len(shape)))


# ---- scratch memory


_idle: list[Scratch] = []  # append and pop are atomic


def _borrow(size: int) -> Scratch:
    """Scratch memory of at least that size; fresh pages would cost more than a small convolution."""
    try:
        scratch = _idle.pop()
    except IndexError:
        return Scratch(size)
    return scratch if scratch.size >= size else Scratch(size)


def _give_back(scratch: Scratch) -> None:
    if len(_idle) < 8 and scratch.size <= 1 << 25:
        _idle.append(scratch)


# ---- the backend


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("numba") is not None


class NumbaBackend:
    name = "numba"
    device = "cpu"

    def unavailable(self) -> str | None:
        if not _installed():
            return "numba is not installed: pip install 'fastconv[numba]'"
        return None

    def candidates(self, problem: ConvProblem) -> tuple[Candidate, ...]:
        order = ("direct", "gemm") if prefers_direct(problem) else ("gemm", "direct")
        return tuple(map(Candidate, order))

    def refuses(self, problem: ConvProblem, candidate: Candidate) -> str | None:
        longest = max(problem.padded_size)
        if longest > LONGEST_AXIS:
            return f"keeps a table of each axis, and one of {longest} padded coordinates would take {8 * longest} bytes"
        return refuses_direction(problem)

    def seconds(self, problem: ConvProblem, candidate: Candidate, prepared: bool) -> float | None:
        return None

    def bind(self, problem: ConvProblem, candidate: Candidate) -> NumbaKernel:
        return NumbaKernel(problem, candidate.algorithm)

    def refuses_pool(self, problem: PoolProblem) -> str | None:
        return None

    def bind_pool(self, problem: PoolProblem) -> PoolKernel:
        from .pooling import NumbaPool

        return NumbaPool(problem)


def prefers_direct(problem: ConvProblem) -> bool:
    """Whether `direct` comes first: few output channels per group would leave vectors of channels half empty, and with few
    products per output gemm's transposes cost too much. Measured (Zen 3, 28x28 maps, share of the FMA peak, direct / gemm):
    1 channel 12 / 6, 6 channels 44 / 34, 12 channels 57 / 52, 16 channels 60 / 69, 40 channels 71 / 77."""
    outputs = problem.out_channels // problem.groups
    item = 4 if problem.dtype == "float32" else 8
    return outputs * item < 64 or (problem.taps <= 32 and not problem.channels_last)


backend = NumbaBackend()
