"""Kernels of the `cuda` backend bound to a problem: tables, packed weights, staging, launches.

The host prepares what does not change between calls (tables, by the strides of the arrays) once, and launches one kernel
per call, or two where the sum is split into parts; one more for each array that must be brought into shape first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from ...cuda_arrays import CudaView, contiguous_strides, device_view, empty_like
from ...problem import ConvProblem
from ...window import index_map
from .. import weights_of
from . import intrinsics as device
from . import kernels
from .gemm import GemmSpec, gemm_kernel
from .kernels import THREADS, DirectSpec
from .table import build, steps_of, tap_order, three
from .tiles import choose

_LARGEST_GRID = 65535
_LARGEST_LAUNCH = 2**31 - 1  # pixels: what 32-bit division takes


class Packed(NamedTuple):
    """Weights (group, k, channel), zero to whole tiles, then the bias; `buffer` keeps the memory."""

    address: int
    buffer: Any
    device: int


class _Kernel:
    """What both algorithms share: getting arrays to the device and into shape."""

    workspace_bytes = 0

    def __init__(self, problem: ConvProblem) -> None:
        self.given = problem
        # a continued border is written out first; zeros come from the bounds checks
        self.padded = problem.padding_mode != "zeros" and any(map(any, problem.padding))
        self.problem = problem
        if self.padded:
            self.problem = dataclasses.replace(problem, input_size=problem.padded_size, padding=((0, 0),) * problem.ndim,
                                               padding_mode="zeros")
        self.item = np.dtype(problem.dtype).itemsize
        self.groups, self.rows, self.pitch, self.order = self._packing()
        self.packed_bytes = (self.groups * self.rows * self.pitch + problem.out_channels) * self.item
        self.pack_key = ("cuda", self.groups, self.rows, self.pitch, self._channels_inner(), *weights_of(problem))
        self._tables: dict[Any, Any] = {}

    def _packing(self) -> tuple[int, int, int, np.ndarray]:
        """(groups, rows of k, channels per row, order of the taps) of the packed weights."""
        raise NotImplementedError

    def _channels_inner(self) -> bool:
        return False

    def _launch(self, x: CudaView, packed: Packed, y: CudaView, residual: CudaView | None) -> None:
        raise NotImplementedError

    # ---- weights

    def pack(self, weight: Any, bias: Any) -> Packed:
        host = isinstance(weight, np.ndarray)
        w, b = (None if a is None else _on_device(a) for a in (weight, bias))
        assert w is not None
        with _context(w.device):
            w = self._converted(w)
            b = None if b is None else self._converted(b)
            size = self.packed_bytes // self.item
            buffer = device.allocate(size, self.problem.dtype) if host else empty_like(w.owner, (size,), self.problem.dtype)
            target = device.address(buffer) if host else device_view(buffer).address
            channels, outputs = self.problem.out_channels, self.problem.out_channels // self.groups
            offsets = np.array([c * w.strides[1] + sum(t * s for t, s in zip(tap[-self.problem.ndim:], w.strides[2:]))
                                for c, *tap in self.order.tolist()], np.int64)
            numbers = [self.groups, self.rows, self.pitch, outputs, len(offsets), self.groups * self.rows * self.pitch,
                       w.strides[0], 0 if b is None else b.strides[0]]
            table = self._table(("pack", tuple(numbers), w.strides, w.device), lambda: np.concatenate([numbers, offsets]))
            grid = -(-self.pitch // THREADS), min(self.groups * self.rows, _LARGEST_GRID)
            kernel = kernels.pack_kernel(self.problem.dtype)
            device.launch(kernel, grid, THREADS, w.stream, w.address, b.address if b else 0, table, target)
            if host:  # usable from any stream
                _synchronize()
        return Packed(target, (buffer, channels), w.device)

    # ---- running

    def run(self, array: Any, packed: Packed, out: Any, residual: Any = None) -> None:
        if isinstance(out, np.ndarray):
            return self._run_from_host(array, packed, out, residual)
        if out.readonly:
            raise ValueError("out must be writeable, got a read-only array")
        if packed.device != out.device:
            raise ValueError(f"the weights are on CUDA device {packed.device}, the arrays on {out.device}")
        x, y, r = (None if a is None else self._batched(a) for a in (array, out, residual))
        assert x is not None and y is not None
        with _context(y.device):
            if self.padded:
                x = self._staged(x, self.given)
            x = self._converted(x)
            r_safe = r is None or not _overlap(r, y) or (r.address, r.strides) == (y.address, y.strides)
            if _overlap(x, y) or not r_safe:
                target = _empty(y, y.shape, self.problem.dtype)
                self._launch(x, packed, target, r)
                _gather(self, target, y)
            else:
                self._launch(x, packed, y, r)

    def _run_from_host(self, array: np.ndarray, packed: Packed, out: np.ndarray, residual: np.ndarray | None) -> None:
        with _context(packed.device):
            y = _on_device(np.empty(out.shape, out.dtype), copy=False)
            self.run(_on_device(array), packed, y, None if residual is None else _on_device(residual))
            out[...] = _to_host(y)

    def _batched(self, view: CudaView) -> CudaView:
        if len(view.shape) == self.problem.ndim + 2:
            return view
        return dataclasses.replace(view, shape=(1, *view.shape), strides=(0, *view.strides))

    def _converted(self, view: CudaView) -> CudaView:
        if view.dtype.name == self.problem.dtype:
            return view
        made = _empty(view, view.shape, self.problem.dtype)
        _gather(self, view, made)
        return made

    def _staged(self, x: CudaView, problem: ConvProblem) -> CudaView:
        """The input with its border continued, contiguous."""
        shape = self.problem.input_shape
        made = _empty(x, shape, self.problem.dtype)
        maps = [index_map(problem, axis) for axis in range(problem.ndim)]
        images, channels = np.arange(problem.batch), np.arange(problem.in_channels)
        order = [images, *maps, channels] if problem.channels_last else [images, channels, *maps]
        _gather(self, x, made, order)
        return made

    def _table(self, key: Any, make: Any) -> int:
        """Address of a table in device memory; a few are kept per kernel."""
        found = self._tables.get(key)
        if found is None:
            if len(self._tables) >= 64:
                self._tables.clear()  # kernels that still read one finish first: freeing device memory waits for them
            found = self._tables[key] = device.upload(np.ascontiguousarray(make(), np.int64))
        return device.address(found)

    def _problem_table(self, problem: ConvProblem, x: CudaView, y: CudaView, r: CudaView | None, rows: int,
                       **numbers: int) -> int:
        key = (problem.batch, x.strides, y.strides, None if r is None else r.strides, x.device)
        return self._table(key, lambda: build(problem, self.order, rows, x.strides, y.strides,
                                                         None if r is None else r.strides,
                                                         BIAS=self.groups * self.rows * self.pitch, **numbers))


class GemmKernel(_Kernel):
    """Implicit GEMM; see `gemm`."""

    def __init__(self, problem: ConvProblem) -> None:
        self.choice = choose(problem)
        super().__init__(problem)
        tile = self.choice.tile
        self.steps = self.rows // tile.bk
        self.part_steps = -(-self.steps // self.choice.parts)
        self.parts = -(-self.steps // self.part_steps)
        if self.parts > 1:
            self.workspace_bytes = self.parts * math.prod(problem.output_shape) * self.item
        low_or_high = [axis for axis, (low, high) in zip("dhw"[-problem.ndim:], self.problem.padding) if low > 0 or high > 0]
        self.checked = "".join(sorted({*low_or_high, *("w" if self.rows != problem.taps else "")}))

    def _packing(self) -> tuple[int, int, int, np.ndarray]:
        p, tile = self.problem, self.choice.tile
        rows, outputs = -(-p.taps // tile.bk) * tile.bk, p.out_channels // p.groups
        return p.groups, rows, -(-outputs // tile.bm) * tile.bm, tap_order(p, self._channels_inner())

    def _channels_inner(self) -> bool:
        return self.problem.channels_last and self.problem.in_channels // self.problem.groups % self.choice.width == 0

    def _launch(self, x: CudaView, packed: Packed, y: CudaView, residual: CudaView | None) -> None:
        limit = max(1, _LARGEST_LAUNCH // math.prod(self.problem.output_size))
        for first in range(0, self.problem.batch, limit):
            count = min(limit, self.problem.batch - first)
            part = self.problem if count == self.problem.batch else dataclasses.replace(self.problem, batch=count)
            r = None if residual is None else _images(residual, first)
            self._launch_images(part, _images(x, first), _images(y, first), r, packed)

    def _launch_images(self, p: ConvProblem, x: CudaView, y: CudaView, r: CudaView | None, packed: Packed) -> None:
        tile, width = self.choice.tile, self.choice.width
        outputs, pixels = p.out_channels // p.groups, p.batch * math.prod(p.output_size)
        table = self._problem_table(p, x, y, r, self.rows, STEPS=self.part_steps, TOTAL_STEPS=self.steps, MP=self.pitch,
                                    PARTS=self.parts, CHANNELS=p.out_channels)
        split = self.parts > 1
        spec = GemmSpec(p.dtype, tile, width, self._loader(x), self.checked, r is not None and not split,
                        None if split else p.activation, split, p.channels_last and not split)
        grid = -(-pixels // tile.bn), -(-outputs // tile.bm), p.groups * self.parts
        extra = 0 if r is None else r.address
        partial = _empty(x, (self.parts, p.out_channels, pixels), p.dtype) if split else y
        device.launch(gemm_kernel(spec), grid, tile.threads, y.stream, x.address, packed.address, table, partial.address, extra)
        if split:
            kernel = kernels.reduce_kernel(p.dtype, r is not None, p.activation)
            blocks = -(-pixels // THREADS), min(p.out_channels, _LARGEST_GRID)
            device.launch(kernel, blocks, THREADS, y.stream, partial.address, packed.address, table, y.address, extra)

    def _loader(self, x: CudaView) -> str:
        """How the input can be read: in vectors, where they are aligned and lie in one tap."""
        p, width = self.problem, self.choice.width
        image, channel, space = steps_of(p, x.strides)
        aligned = x.address % (width * self.item) == 0
        if self._channels_inner() and channel == 1 and aligned and not any(step % width for step in (image, *space)):
            return "channels"
        pointwise = set(p.kernel_size) == set(p.stride) == {1} and not any(map(any, p.padding))
        flat = contiguous_strides(p.input_size)
        dense = all(size == 1 or step == expected for size, step, expected in zip(p.input_size, space[-p.ndim:], flat))
        if (pointwise and dense and aligned and math.prod(p.input_size) % width == 0 and channel % width == 0
                and (image % width == 0 or p.batch == 1)):
            return "pixels"
        return "scalar"


class DirectKernel(_Kernel):
    """One thread per column of outputs; see `kernels`."""

    def __init__(self, problem: ConvProblem) -> None:
        super().__init__(problem)
        height = three(problem.output_size, 1)[1]
        stride, dilation = three(problem.stride, 1)[1], three(problem.dilation, 1)[1]
        self.per_thread = 1 if height == 1 else 4 if height <= 8 else 8
        self.slide = stride == dilation and self.per_thread > 1
        self.blocks = -(-height // self.per_thread)

    def _packing(self) -> tuple[int, int, int, np.ndarray]:
        return 1, self.problem.taps, self.problem.out_channels, tap_order(self.problem, False)

    def _launch(self, x: CudaView, packed: Packed, y: CudaView, residual: CudaView | None) -> None:
        p = self.problem
        table = self._problem_table(p, x, y, residual, 0, CHANNELS=p.out_channels, ROW_BLOCKS=self.blocks,
                                    M=p.in_channels // p.groups, PARTS=p.out_channels // p.groups)
        spec = DirectSpec(p.dtype, self.per_thread, self.slide, p.channels_last, residual is not None, p.activation)
        depth, _, width = three(p.output_size, 1)
        grid = -(-depth * self.blocks * width * p.out_channels // THREADS), 1, p.batch
        device.launch(kernels.direct_kernel(spec), grid, THREADS, y.stream, x.address, packed.address, table, y.address,
                      residual.address if residual else 0)


def _images(view: CudaView, first: int) -> CudaView:
    if first == 0:
        return view
    return dataclasses.replace(view, address=view.address + first * view.strides[0] * view.dtype.itemsize)


def _gather(kernel: _Kernel, source: CudaView, target: CudaView, maps: list[np.ndarray] | None = None) -> None:
    """target[...] = source[...], through a map of coordinates per axis, converting dtypes."""
    absent = 5 - len(target.shape)

    def numbers() -> np.ndarray:
        each = [np.arange(1)] * absent + (maps or [np.arange(size) for size in target.shape])
        starts = itertools.accumulate([kernels.MAPS_AT, *map(len, each[:-1])])
        lead = [0] * absent
        return np.concatenate([[1] * absent, target.shape, lead, source.strides, lead, target.strides, [*starts], *each])

    key = ("gather", source.shape, source.strides, target.shape, target.strides, maps is None, source.device)
    table = kernel._table(key, numbers)
    shape = (1,) * absent + target.shape
    grid = -(-shape[3] * shape[4] // THREADS), min(math.prod(shape[:3]), _LARGEST_GRID)
    copy = kernels.gather_kernel(source.dtype.name, target.dtype.name)
    device.launch(copy, grid, THREADS, target.stream, source.address, table, target.address)


def _overlap(a: CudaView, b: CudaView) -> bool:
    (a_first, a_last), (b_first, b_last) = a.span, b.span
    return a_first < b_last and b_first < a_last


def _empty(like: CudaView, shape: tuple[int, ...], dtype: str) -> CudaView:
    """Scratch memory, from the library that owns `like`: its allocator orders reuse by stream."""
    return dataclasses.replace(device_view(empty_like(like.owner, shape, dtype)), stream=like.stream)


def _on_device(array: Any, copy: bool = True) -> CudaView:
    """A view of device memory; a NumPy array is copied there (or only given room)."""
    if not isinstance(array, np.ndarray):
        return array
    contiguous = np.asarray(array, order="C")
    return device_view(device.upload(contiguous) if copy else device.allocate(array.shape, array.dtype))


def _to_host(view: CudaView) -> np.ndarray:
    return view.owner if device.SIMULATOR else view.owner.copy_to_host()


def _context(index: int) -> Any:
    return contextlib.nullcontext() if device.SIMULATOR else device.cuda.gpus[index]


def _synchronize() -> None:
    if not device.SIMULATOR:
        device.cuda.default_stream().synchronize()
