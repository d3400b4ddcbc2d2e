"""numba: the CPU kernels that Numba compiles here, for this CPU, when first used; then cached on disk.

Three algorithms over the same frame (`kernels`: padded slabs in L2, tables of offsets, one chain of multiply-adds per
output), around register tiles written as LLVM vector code (`vectors`, `broadcast_tiles`), and three of their own:

    gemm       output channels on the vector, pixels broadcast: any geometry, at its best with many output channels
    direct     neighbouring pixels on the vector, weights broadcast: any geometry, few channels, images
    broadcast  output channels on the vector, more of them: inputs from where they lie, all products of an output in one pass
    winograd   fused, with gemm's tiles (`winograd`, `winograd_stages`, `transforms`): whatever `algorithms/winograd.py` takes
    fft        by tiles (`fft`, `fft_stages`, `fourier`, `spectra`, `fft_spoiled`): whatever `algorithms/fft.py` takes
    depthwise  rows where they lie (`depthwise`, `depthwise_stages`, `depthwise_tiles`): square kernels of 3, 5, 7 and 9;
               channels side by side as vectors, in broadcast's frame (`depthwise_last`): any kernel

The first three give the same bits; all do for any number of threads and for an image alone or in a batch.

What is compiled is bounded, whatever there is to compute: shapes are data, tables made in Python, but for the lengths of a
transform and the kernel, stride and rows of a depthwise tile; see `compile`.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import struct
from typing import Any

import numpy as np

from ... import algorithms, machine, native, settings
from ...dtypes import TABLE
from ...kept import Kept
from ...pool_problem import PoolProblem
from ...problem import ConvProblem
from ...spent import Parts
from ...unit_axes import with_near_strides, without_unit_axes
from .. import Candidate, PoolKernel, refuses_direction, weights_of
from .threads import perform

SERIAL_BELOW = 400_000  # multiply-adds: less is not worth waking a thread
ALGORITHMS = ("gemm", "direct", "broadcast", "winograd", "depthwise", "fft")
_LANES = {"baseline": 4, "avx2": 8, "avx512": 16}  # floats of a vector
_OF_A_CALL = struct.Struct("9q")  # the fields of a context that differ between calls: `contexts.CONTEXT` begins with them
_SPOILT = 9  # the field that follows: set by a call that has to be done again, see `blocking.Call`
_SHARES = 240  # where words begin that count what is gone of a round: `contexts.SHARES`
SMALL = 1 << 16  # bytes of tables that a kernel keeps for itself
LONGEST_AXIS = 1 << 27  # padded coordinates: a table of 1 GB


def address_of(array: np.ndarray) -> int:
    runtime = native.runtime()
    return array.ctypes.data if runtime is None else runtime.address_of(array)  # NumPy's way takes a microsecond


class Memory:
    """Uninitialised bytes that start at a multiple of 64."""

    def __init__(self, size: int) -> None:
        raw = np.empty(size + 64, np.uint8)
        self.size = size
        begin = address_of(raw)
        self.address = -(-begin // 64) * 64
        self.bytes = raw[self.address - begin:]


class Scratch(Memory):
    """What a call works in, its context included, so that its address is known."""

    CONTEXT_BYTES = 4096  # what parts share lies behind it (`shares`)

    def __init__(self, size: int) -> None:
        super().__init__(size + self.CONTEXT_BYTES)
        self.context = self.bytes[: self.CONTEXT_BYTES].view(np.int64)
        self.head = self.context.data
        self.size = size


class Packed:
    """Weights and bias, as the kernels read them; nothing writes to them."""

    def __init__(self, weights: Memory, bias: np.ndarray | None) -> None:
        self.weights, self._bias = weights, bias
        self.weights_address = weights.address
        self.bias_address = 0 if bias is None else address_of(bias)


class NumbaKernel:
    def __init__(self, problem: ConvProblem, algorithm: str, tile: tuple[int, ...] | None = None) -> None:
        from . import blocking, depthwise, depthwise_last, fft, winograd
        from .compile import spent

        begin = spent()

        given = problem
        unit: tuple[int, ...] = ()
        if algorithm in ("winograd", "fft"):
            problem, unit = without_unit_axes(problem)
        self.given = given
        problem = with_near_strides(problem)
        self.problem, self.algorithm = problem, algorithm
        self._unit = tuple(axis + (1 if problem.channels_last else 2) for axis in unit)
        rows = depthwise_last if problem.channels_last else depthwise
        self._cut: Any = {"winograd": winograd, "depthwise": rows, "fft": fft}.get(algorithm, blocking)
        self._shape = self._cut.Shape(problem, algorithm, tile)
        self._packing = self._shape.packing()
        self._flops = problem.flops
        self._latest: tuple[Any, Any] = (None, None)  # what the latest call depended on, and its blocking
        self._careful = False  # whether one has met what is not finite
        self.packed_bytes = self._shape.packed_bytes
        self.pack_key = ("numba", algorithm, *self._shape.packed_for, *weights_of(problem))
        self.workspace_bytes = self.plain_call().workspace_bytes
        self.compile_seconds = spent() - begin

    def plain_call(self) -> Any:
        """That of arrays without gaps."""
        empty, problem = np.lib.stride_tricks.as_strided, self.problem
        item = np.empty((), problem.dtype)  # only the strides count
        x, out = (empty(item, shape, _contiguous_strides(shape, item.itemsize))
                  for shape in (problem.input_shape, problem.output_shape))
        return self._call(x, out, out if problem.residual else None)

    def shortcut(self, made_for: settings.Settings, arguments: tuple[Any, ...], batched: bool,
                 packed: Packed | None = None) -> Any:
        runtime = None if made_for.no_native else native.runtime()
        if runtime is None or packed is None or self.problem.residual or self.problem.batch == 0:
            return None
        shapes = [shape[0 if batched else 1:] for shape in (self.given.input_shape, self.given.output_shape)]
        return runtime.Job(made_for, *shapes, np.dtype(self.problem.dtype).num, packed, self._plain_plan, Scratch.CONTEXT_BYTES)

    def _plain_plan(self, spoilt: bool) -> Any:
        if spoilt:
            self._careful, self._latest = True, (None, None)
        return self.plain_call()

    def pack(self, weight: np.ndarray, bias: np.ndarray | None) -> Packed:
        weight = np.ascontiguousarray(weight)
        packed = Memory(self.packed_bytes)
        threads = settings.current().num_threads if weight.size >= SERIAL_BELOW // 4 else 1
        parts = min(threads, self._shape.groups * self._shape.blocks)
        scratch = _borrow(parts * self._shape.packing_bytes)
        source = address_of(weight)
        if not self._packing:
            packed.bytes[: weight.nbytes] = weight.reshape(-1).view(np.uint8)
        for entry, template in self._packing:  # the first from the weights, the next from what it has packed
            self._perform(entry, template, parts, 1, scratch, source, packed.address)
            source = packed.address
        _give_back(scratch)
        self._shape.keep_plain(packed.bytes, weight)
        return Packed(packed, self._shape.bias(bias))

    def run(self, array: np.ndarray, packed: Packed, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        if self.problem.batch == 0:
            return
        if self._unit:
            array, out = array.squeeze(self._unit), out.squeeze(self._unit)
            residual = None if residual is None else residual.squeeze(self._unit)
        self._run(array, packed, out, residual)

    def _run(self, array: np.ndarray, packed: Packed, out: np.ndarray, residual: np.ndarray | None) -> None:
        current = settings.current()
        key = (array.strides, out.strides, residual is not None and residual.strides, current.num_threads, current.cache_dir)
        latest, call = self._latest  # in most cases
        if latest != key:
            call = self._call(array, out, residual)
            self._latest = (key, call) if call.nbytes < SMALL else (None, None)
        if not call.whole_steps:
            self._run_copies(array, packed, out, residual)
            return
        scratch = _borrow(call.workspace_bytes)
        self._perform(call.entry, call.template, call.parts, call.rounds, scratch, address_of(array), packed.weights_address,
                      packed.bias_address, address_of(out), 0 if residual is None else address_of(residual))
        spoilt = scratch.head[_SPOILT]
        _give_back(scratch)
        if spoilt:  # once more, by a careful one, as from now on all are
            self._careful, self._latest = True, (None, None)
            self._run(array, packed, out, residual)

    @staticmethod
    def _perform(entry: Any, template: np.ndarray, parts: int, rounds: int, scratch: Scratch, x: int, weights: int,
                 bias: int = 0, out: int = 0, residual: int = 0) -> None:
        context = scratch.address
        scratch.context[: len(template)] = template
        for first in range(0, parts * rounds, parts):
            if first and len(template) > _SHARES:
                scratch.context[_SHARES: len(template)] = 0
            _OF_A_CALL.pack_into(scratch.head, 0, context, x, weights, bias, out, residual,
                                 context + scratch.CONTEXT_BYTES, parts * rounds, first)
            perform(entry, parts, context)

    def _run_copies(self, array: np.ndarray, packed: Packed, out: np.ndarray, residual: np.ndarray | None) -> None:
        """Strides that are no multiple of the item size, or that a kernel does not take: legal, rare."""
        result = np.empty(out.shape, out.dtype)
        self._run(array.copy(), packed, result, None if residual is None else residual.copy())
        out[...] = result

    def _call(self, array: np.ndarray, out: np.ndarray, residual: np.ndarray | None) -> Any:
        """The blocking for arrays of these strides; it is kept."""
        threads = settings.current().num_threads
        if self._flops < 2 * SERIAL_BELOW:
            threads = 1
        cache_dir = settings.current().cache_dir  # which compiled stages a call leads to
        careful = self._careful or residual is not None  # which may be the output, and is gone after a first time
        key = (self.problem, self.algorithm, self._shape.packed_for, array.strides, out.strides,
               residual is not None and residual.strides, threads, careful, cache_dir)
        found = _calls.get(key)
        if found is None:
            found = self._cut.Call(self._shape, array, out, residual, threads, careful)
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
        return tuple(map(Candidate, ALGORITHMS))

    def refuses(self, problem: ConvProblem, candidate: Candidate) -> str | None:
        longest = max(problem.padded_size)
        if longest > LONGEST_AXIS:
            return f"keeps a table of each axis, and one of {longest} padded coordinates would take {8 * longest} bytes"
        tiled = algorithms.tiled(candidate.algorithm)
        if candidate.algorithm == "depthwise" and problem.direction == "forward":
            return _refuses_depthwise(problem)
        if tiled is None or problem.direction != "forward":
            return refuses_direction(problem)
        return tiled.refuses(without_unit_axes(problem)[0], candidate.tile)

    def seconds(self, problem: ConvProblem, candidate: Candidate, prepared: bool) -> float | None:
        parts, rate = self.spent(problem, candidate, prepared)
        return sum(parts.values()) / rate

    def spent(self, problem: ConvProblem, candidate: Candidate, prepared: bool) -> tuple[Parts, float]:
        """That of the native kernels with vectors of this CPU's length, whose tiles these are; a little more, so that what need
        not be compiled comes first. (Without asking LLVM how long they are: that takes as long as many a convolution.)"""
        runnable = native.runnable_isas()
        isa = settings.current().isa or (runnable[-1] if runnable else "avx2")
        problem, _ = without_unit_axes(problem)
        lanes = 4 * _LANES[isa] // TABLE[problem.dtype].itemsize
        parts = algorithms.spent(candidate.algorithm, problem, lanes, prepared)
        few = problem.in_channels < 3 * problem.groups and problem.stride[-1] == 1  # of which each takes a vector
        if candidate.algorithm == "winograd" and few:
            parts = {name: part * (1 if name == "packing" else 1 + lanes) for name, part in parts.items()}
        if candidate.algorithm == "direct" and problem.stride[-1] > 1:
            parts = {**parts, "inputs": parts.get("inputs", 0) + _phases(problem)}
        return parts, machine.this().multiply_adds[isa] / 1.05

    def bind(self, problem: ConvProblem, candidate: Candidate) -> NumbaKernel:
        return NumbaKernel(problem, candidate.algorithm, candidate.tile)

    def refuses_pool(self, problem: PoolProblem) -> str | None:
        return None

    def bind_pool(self, problem: PoolProblem) -> PoolKernel:
        from .pooling import NumbaPool

        return NumbaPool(problem)


def _phases(p: ConvProblem) -> int:
    """What direct spends in every row of an input on each phase of a stride, which the native kernels copy all at once."""
    return 24 * p.in_channels * math.prod(p.input_size[:-1]) * min(p.stride[-1], p.kernel_size[-1])


DEPTHWISE_KERNELS = (3, 5, 7, 9)  # square ones; with the strides these are all the tiles that are ever compiled
DEPTHWISE_STRIDES = (1, 2)


def _refuses_depthwise(p: ConvProblem) -> str | None:
    """Why it does not apply, in one line: rows are read where they lie, by tiles that were unrolled for the kernel."""
    if p.in_channels != p.groups:
        return "computes groups of one input channel"
    if p.channels_last:
        return _refuses_side_by_side(p)
    square = p.ndim == 2 and len({*p.kernel_size}) == len({*p.stride}) == 1
    if not (square and p.kernel_size[0] in DEPTHWISE_KERNELS and p.stride[0] in DEPTHWISE_STRIDES and set(p.dilation) == {1}):
        return "computes square kernels of 3, 5, 7 or 9 with stride 1 or 2, without dilation"
    if p.padding_mode != "zeros":
        return "reads rows where they lie: no padding but zeros"
    return "contracts products and sums" if p.accuracy == "strict" else None


def _refuses_side_by_side(p: ConvProblem) -> str | None:
    whole = 64 // TABLE[p.dtype].itemsize  # of the longest vectors, so that it does not depend on this CPU
    if p.out_channels != p.groups or p.groups % whole:
        return f"computes channels side by side by whole vectors: as many outputs as inputs, a multiple of {whole}"
    return "contracts products and sums" if p.accuracy == "strict" else None


backend = NumbaBackend()
