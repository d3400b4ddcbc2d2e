"""How the Numba kernels cut a depthwise problem: bands of rows, in plain Python (the loops are in `depthwise_stages`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...problem import ConvProblem
from . import blocking
from .compile import stage
from .contexts import HALF, HALVES, MASKED, MOST_SHARERS, OF_A_STRETCH, VECTOR_BYTES, rows_of

BAND_BYTES = 32 << 10  # of the inputs and outputs of a band of rows of channels that a tile goes through
ZERO_BYTES = 256 << 10  # between rows of zeros that move on from channel to channel, as those of the input do
ZEROS = np.zeros(2 * ZERO_BYTES, np.uint8)  # of all problems but those of very long rows
WAYS = 8  # lines of a set of L1
PIECES = 4  # items of a thread, at least, where there are as many


class Shape(blocking.Shape):
    """A problem whose weights are read as they are."""

    def __init__(self, problem: ConvProblem, algorithm: str, tile: tuple[int, ...] | None = None) -> None:
        super().__init__(problem, "direct")
        self.stride = (1, *[max(self.stride)] * 2)  # any is right along an axis of one output, where it has been brought near
        self.packed_bytes = problem.out_channels * problem.k * self.item

    def packing(self) -> list[tuple[Any, np.ndarray]]:
        return []


class Call(blocking.Call):
    JOB = "depthwise"

    def _in_place(self) -> bool:
        if self.shape.size[2] > 1 and self.steps[0][4] != self.shape.item:  # its elements lie apart, or are the same
            self.whole_steps = False
        return True

    def _choose_blocks(self, threads: int) -> None:
        s = self.shape
        rows = s.output[1]
        self.band = _rows_of_a_band(rows, s.kernel[1], s.stride[1], s.problem.residual, 4 if self._crowded() else 8)
        self.bands = [min(begin, rows - self.band) for begin in range(0, rows, self.band)]
        self.blocks_h, self.blocks_w = len(self.bands), 1
        each, lots = (s.problem.groups, 1) if s.outputs == 1 else (s.outputs, s.problem.groups)
        outer = s.problem.batch * lots * self.blocks_h
        self.chunks = max(-(-each // self._together()), min(each, -(-PIECES * threads // outer)) if threads > 1 else 1)
        self.longest = -(-each // self.chunks)
        items = outer * self.chunks
        self.parts = min(threads, items, MOST_SHARERS)
        self.rounds = max(1, min(s.problem.flops // (threads * blocking.ROUND_FLOPS), items // max(1, self.parts)))

    def _crowded(self) -> bool:
        """Whether the rows of a tile drive each other out of L1, whose sets repeat every 4 KB."""
        s = self.shape
        rows = 7 * s.stride[1] + s.kernel[1], 8
        return sum(-(-n * math.gcd(steps[3], 4096) // 4096) for n, steps in zip(rows, self.steps, strict=False)) > WAYS

    def _together(self) -> int:
        """Channels that a tile goes on to: so many that a band of theirs stays in L1, while it goes through the columns."""
        s = self.shape
        self.step = self.steps[0][1] if s.outputs == 1 else 0
        inputs = ((self.band - 1) * s.stride[1] + s.kernel[1]) * s.size[2] if s.outputs == 1 else 0
        room = BAND_BYTES // ((inputs + self.band * s.output[2]) * s.item)
        return max(1, min(room, ZERO_BYTES // self.step if self.step else room)) if self.step >= 0 else 1

    def _lay_out_slab(self) -> None:
        self.slab_bytes = 0

    def _lay_out_scratch(self) -> None:
        self.lines, self.scratch_bytes = 0, blocking._up(self.band * VECTOR_BYTES) + blocking.ALIGN

    def _fill(self) -> np.ndarray:
        s, p = self.shape, self.shape.problem
        self.taps = np.zeros(0, np.int64)
        self.maps = s.maps()
        padded = bool((self.maps[1] < 0).any())  # rows of zeros stand for those beyond the input
        row = s.stride[2] * (s.lanes + 1) + s.kernel[2]  # a tile may read beyond what it uses
        most = (row + s.size[2]) * s.item + (self.longest - 1) * self.step if padded else row * s.item
        stretches = _stretches(s)
        self.tables = {"row_at": np.array(self.bands, np.int64), "of_w": stretches}
        if most > ZEROS.size:
            self.tables["column_at"] = np.zeros(most, np.uint8)
        c = s.common()
        self._place(c)
        c["column_at"] = ZEROS.ctypes.data
        for field, table in self.tables.items():
            c[field] = table.ctypes.data
        c["tile"] = stage(f"tile {s.kernel[1]} {s.stride[1]} {self.band}", p.dtype).address
        c["m_h"], c["chunks"], c["tiles_w"], c["stride_w"] = self.band, self.chunks, len(stretches), s.stride[2]
        name, c["parameter"] = p.activation or (None, 0.0)
        c["relu"] = name == "relu"
        if name not in (None, "relu"):
            c["activate"] = stage(name, p.dtype).address
        c["batch"], c["map_h"], c["blocks_h"] = p.batch, self.maps[1].ctypes.data, self.blocks_h
        c["planes"], c["rows"], c["columns"] = self.output
        c["low_w"], c["size_w"] = p.padding[-1][0], s.size[2]
        c["lines"], c["scratch_bytes"] = self.lines, self.scratch_bytes
        return c


def _stretches(s: blocking.Shape) -> np.ndarray:
    """[stretch of columns][OF_A_STRETCH]: whole vectors that read nothing but the input are one, each of the others has its own
    masks; the last one is half a vector if that is enough."""
    low, step = s.problem.padding[-1][0], s.stride[2] * s.lanes
    all_of_them = -(-s.output[2] // s.lanes)
    begin = min(max(-(-low // step), 0), all_of_them)
    end = max(min(s.output[2] // s.lanes, (s.size[2] + low - s.kernel[2] + 1) // step), begin)
    found = [_stretch(s, i * s.lanes) for i in range(all_of_them) if not begin <= i < end]
    if begin < end:
        found.insert(begin, [0, begin * s.lanes, end - begin])
    table = np.zeros((len(found), OF_A_STRETCH), np.int64)
    for row, stretch in zip(table, found, strict=True):
        row[: len(stretch)] = stretch
    return table


def _stretch(s: blocking.Shape, w: int) -> list[int]:
    """The vector of outputs from w on: its masks are those of the outputs and of each vector of inputs (`depthwise_tiles`)."""
    left, column = s.output[2] - w, w * s.stride[2] - s.problem.padding[-1][0]
    half = HALVES and left <= s.lanes // 2
    lanes = s.lanes // 2 if half else s.lanes
    apart = range(4) if s.stride[2] == 2 else range(1)  # vectors, for every column of the kernel or every other one
    inputs = [column + kw + i * lanes for kw in range(0, s.kernel[2], s.stride[2]) for i in apart]
    return [MASKED | HALF * half, w, 1, _bits(0, left, lanes), *(_bits(-at, s.size[2] - at, lanes) for at in inputs)]


def _bits(begin: int, end: int, lanes: int) -> int:
    """Of a vector's lanes, those from begin to end."""
    begin, end = max(begin, 0), min(end, lanes)
    return (1 << end) - (1 << begin) if begin < end else 0


def _rows_of_a_band(rows: int, kernel: int, stride: int, apart: bool, most: int) -> int:
    """The same for all bands, so that there is one tile to compile; of what takes least, where each band costs as much as a row
    and a half. The last band begins earlier if it would reach too far, and computes what is there already; not where bands have
    to be `apart`, as with a residual that may be the output itself."""
    fitting = [n for n in rows_of(kernel, stride) if n <= min(rows, most) and not (apart and rows % n)]
    return min(fitting, key=lambda n: -(-rows // n) * (n + 1.5))
