"""How the Numba kernels cut a depthwise problem: bands of rows, in plain Python (the loops are in `depthwise_stages`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...problem import ConvProblem
from . import blocking
from .compile import stage
from .contexts import VECTOR_BYTES, rows_of


class Shape(blocking.Shape):
    """A problem whose weights are read as they are."""

    def __init__(self, problem: ConvProblem, algorithm: str, tile: tuple[int, ...] | None = None) -> None:
        super().__init__(problem, "direct")
        self.packed_bytes = problem.out_channels * problem.k * self.item

    def packing(self) -> list[tuple[Any, np.ndarray]]:
        return []


class Call(blocking.Call):
    JOB = "depthwise"

    def _in_place(self) -> bool:
        if self.steps[0][4] not in (0, self.shape.item):  # a row whose elements lie apart
            self.whole_steps = False
        return True

    def _choose_blocks(self, threads: int) -> None:
        s = self.shape
        rows = s.output[1]
        band = _rows_of_a_band(rows, s.kernel[1], s.stride[1], s.problem.residual)
        self.bands = [min(begin, rows - band) for begin in range(0, rows, band)]
        self.blocks_h, self.blocks_w, self.chunks = len(self.bands), 1, 1
        items = s.problem.batch * s.problem.out_channels * self.blocks_h
        self.parts = min(threads, items)
        self.rounds = max(1, min(s.problem.flops // (threads * blocking.ROUND_FLOPS), items // max(1, self.parts)))
        self.band = band

    def _lay_out_slab(self) -> None:
        self.slab_bytes = 0

    def _lay_out_scratch(self) -> None:
        self.lines, self.scratch_bytes = 0, blocking._up(self.band * VECTOR_BYTES) + blocking.ALIGN

    def _fill(self) -> np.ndarray:
        s, p = self.shape, self.shape.problem
        self.taps = np.zeros(0, np.int64)
        self.maps = s.maps()
        padded = bool((self.maps[1] < 0).any())  # rows of zeros stand for those beyond the input
        zeros = np.zeros((s.size[2] if padded else 0) + s.stride[2] * s.lanes + s.kernel[2], p.dtype)
        self.tables = {"row_at": np.array(self.bands, np.int64), "column_at": zeros}
        c = s.common()
        self._place(c)
        for field, table in self.tables.items():
            c[field] = table.ctypes.data
        c["tile"] = stage(f"tile {s.kernel[1]} {s.stride[1]} {self.band}", p.dtype).address
        c["m_h"], c["n_w"], c["stride_h"], c["stride_w"] = self.band, s.kernel[2], s.stride[1], s.stride[2]
        name, c["parameter"] = p.activation or (None, 0.0)
        c["relu"] = name == "relu"
        if name not in (None, "relu"):
            c["activate"] = stage(name, p.dtype).address
        c["batch"], c["map_h"], c["blocks_h"] = p.batch, self.maps[1].ctypes.data, self.blocks_h
        c["planes"], c["rows"], c["columns"] = self.output
        c["low_w"], c["size_w"] = p.padding[-1][0], s.size[2]
        c["lines"], c["scratch_bytes"] = self.lines, self.scratch_bytes
        return c


def _rows_of_a_band(rows: int, kernel: int, stride: int, apart: bool) -> int:
    """The same for all bands, so that there is one tile to compile; of what takes least, where each band costs as much as a row
    and a half. The last band begins earlier if it would reach too far, and computes what is there already; not where bands have
    to be `apart`, as with a residual that may be the output itself."""
    fitting = [n for n in rows_of(kernel, stride) if n <= rows and not (apart and rows % n)]
    return min(fitting, key=lambda n: -(-rows // n) * (n + 1.5))
