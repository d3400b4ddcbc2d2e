"""How the Numba kernels cut a winograd problem: tiles, components, tables, blocks, in plain Python (the loops are in
`winograd_stages`).

All that a stage asks of geometry is in tables, of inputs by their coordinates, -1 for a zero: padding of any mode, strides,
dilation. With a dilation every d-th output is a convolution of its own; the tiles of these phases follow each other. A kernel
that is strided or large is a sum of components (see `algorithms/winograd.py`), which are further input channels. A component
that lacks its last taps has no product at infinity: there are four kinds of products, by whether they are at infinity along
either axis, and each kind has its own list of terms.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from ...algorithms import winograd
from ...problem import ConvProblem
from . import blocking
from .compile import stage
from .contexts import MOST_SHARERS, ROWS, VECTOR_BYTES

BLOCK_BYTES = 384 << 10  # of V and M: within L2
FEW_TILES = 24  # of a block, at least: the transformed weights are read once for each


class Axis:
    """Tiles and components along one axis."""

    def __init__(self, p: ConvProblem, axis: int | None, m: int) -> None:
        kernel, self.stride, dilation, self.outputs = ((1, 1, 1, 1) if axis is None else (
            p.kernel_size[axis], p.stride[axis], p.dilation[axis], p.output_size[axis]))
        self.kernel, self.m = kernel, m
        self.taps, self.number, self.full = winograd.components(kernel, self.stride)
        self.n = winograd.size(m, self.taps)
        self.dilation = dilation if self.taps > 1 else 1
        phases = min(self.dilation, self.outputs)
        # per tile: its phase, and the first output of it
        self.tiles = [(phase, begin) for phase in range(phases) for begin in range(0, self._length(phase), m)]
        pieces = range(math.ceil(self.number / min(kernel, self.stride)))
        self.first_taps = [phase + piece * self.taps * self.stride for piece in pieces
                           for phase in range(min(kernel, self.stride))]

    def _length(self, phase: int) -> int:
        return -(-(self.outputs - phase) // self.dilation)

    @property
    def first_outputs(self) -> list[int]:
        return [phase + begin * self.dilation for phase, begin in self.tiles]

    @property
    def outputs_left(self) -> list[int]:
        """From a tile's first one to the end of its phase."""
        return [self._length(phase) - begin for phase, begin in self.tiles]

    def coordinates(self, first_output: int, count: int) -> np.ndarray:
        """[component][i] of padded coordinates, of the inputs from that output's on."""
        at = (first_output + np.arange(count) * self.dilation) * self.stride
        return np.array(self.first_taps)[:, None] * self.dilation + at

    def tap(self, component: int, i: int) -> int | None:
        """The kernel's tap that is number i of a component."""
        found = self.first_taps[component] + i * self.stride
        return found if found < self.kernel else None

    @property
    def window(self) -> int:
        """Inputs under the outputs of a tile, a dilation apart."""
        return (self.m - 1) * self.stride + self.kernel


class Shape(blocking.Shape):
    """A problem, its tile and its components; a kernel along depth alone has depth and height in each other's place."""

    def __init__(self, problem: ConvProblem, algorithm: str, tile: tuple[int, ...] | None = None) -> None:
        self.tile = ((1,) + (tile or winograd.tile(problem)))[-2:]
        p = winograd.upright(problem)
        super().__init__(p, "gemm")
        self.turned = p != problem  # equal ones may be other objects
        self.h, self.w = Axis(p, p.ndim - 2 if p.ndim > 1 else None, self.tile[0]), Axis(p, p.ndim - 1, self.tile[1])
        axes = range(self.kernel[0]), range(self.h.number), range(self.w.number)
        self.components = list(itertools.product(*axes))
        self.products = self.h.n * self.w.n
        # by kind (not at infinity, along w, along h, both): the components that have such products
        self.having = [[i for i, (_, h, w) in enumerate(self.components)
                        if (h < self.h.full or not kind & 2) and (w < self.w.full or not kind & 1)] for kind in range(4)]
        self.kinds = [2 * (i == self.h.n - 1 > 0) + (j == self.w.n - 1 > 0) for i in range(self.h.n) for j in range(self.w.n)]
        self.depths = [len(having) * self.inputs for having in self.having]
        self.terms = sum(self.depths[kind] for kind in self.kinds)
        # lanes of V for each component: those of few channels share vectors, unless inputs side by side come by whole squares
        shared = self.w.stride * self.w.dilation > 1 and len(self.components) > 1
        self.share = self.inputs if shared else blocking._up(self.inputs, self.lanes)
        self.vectors = -(-len(self.components) * self.share // self.lanes)
        self.plain_bytes = self.packed_bytes
        self.packed_bytes = self.plain_bytes + p.groups * self.blocks * self.terms * 2 * VECTOR_BYTES
        self.packed_for = (self.tile, self.h.stride, self.w.stride)
        taps = self.h.taps * self.w.taps
        self._dealt = blocking._up(taps * 2 * VECTOR_BYTES)
        self._half = self._dealt + blocking._up(self.h.n * self.w.taps * 2 * VECTOR_BYTES)
        self.packing_bytes = self._half + blocking._up(self.products * 2 * VECTOR_BYTES)

    def cut(self, tables: dict[str, np.ndarray]) -> np.ndarray:
        """The fields that transforming weights, inputs and outputs share."""
        c = self.common()
        c["m_h"], c["m_w"], c["n_h"], c["n_w"] = self.h.m, self.w.m, self.h.n, self.w.n
        c["components"], c["vectors"], c["share"] = len(self.components), self.vectors, self.share
        c["products"], c["terms"] = self.products, self.terms
        c["transformed"] = self.plain_bytes
        for name, table in tables.items():
            c[name] = table.ctypes.data
        return c

    def packing(self) -> list[tuple[Any, np.ndarray]]:
        within = list(itertools.product(range(self.h.taps), range(self.w.taps)))
        taps = [[self._tap(component, i, j) for i, j in within] for component in self.components]
        first = [[having.index(i) * self.inputs if i in having else -1 for i in range(len(self.components))]
                 for having in self.having]
        tables = {"kinds": self.kinds, "depths": self.depths, "column_at": taps, "rows_left": first}
        self._packing_tables = {name: np.array(table, np.int64) for name, table in tables.items()}  # addresses point there
        c = self.cut(self._packing_tables)
        c["window_rows"], c["window_columns"], c["pass_depth"] = self.h.taps, self.w.taps, self.problem.kernel_volume
        c["inputs_at"], c["half_at"], c["outputs_at"], c["scratch_bytes"] = 0, self._dealt, self._half, self.packing_bytes
        for role, axis in (("in_h", self.h), ("in_w", self.w)):
            c[role] = stage(f"weights {axis.m} {axis.taps}", self.problem.dtype).address
        return [*super().packing(), (stage("winograd weights", self.problem.dtype), blocking.words(c))]

    def _tap(self, component: tuple[int, int, int], i: int, j: int) -> int:
        d, (h, w) = component[0], (self.h.tap(component[1], i), self.w.tap(component[2], j))
        return -1 if h is None or w is None else (d * self.kernel[1] + h) * self.kernel[2] + w


class Call(blocking.Call):
    """A call's context, the tables it points to, and how its tiles are cut into blocks."""

    JOB = "winograd"
    shape: Shape

    def _flatten(self, residual: bool) -> None:
        if self.shape.turned:
            for steps in self.steps:
                steps[2], steps[3] = steps[3], steps[2]

    def _in_place(self) -> bool:
        return False

    # ---- blocks

    def _choose_blocks(self, threads: int) -> None:
        s = self.shape
        self.tiles = max(1, s.problem.batch * s.output[0] * len(s.h.tiles) * len(s.w.tiles))  # an empty batch has none
        each = s.products * (s.vectors + 2) * VECTOR_BYTES
        fits = max(FEW_TILES, BLOCK_BYTES // each // ROWS * ROWS)
        sharing = 1 if s.problem.groups > 1 else min(threads, self.tiles)  # so many work at one group's blocks
        self.chunks = 1
        if threads > 1 and s.problem.groups < threads and s.blocks >= threads and self.tiles < FEW_TILES * threads:
            self.chunks, sharing = threads, 1  # all transform the same tiles, for channels of their own
        blocks = sharing * -(-self.tiles // (sharing * (fits + fits // 4)))  # a quarter more, rather than twice as many halves
        self.blocks_h, self.blocks_w = 1, min(blocks, self.tiles)
        self.most = -(-self.tiles // self.blocks_w)
        items = s.problem.groups * self.blocks_w * self.chunks
        self.parts = min(threads, items, MOST_SHARERS)
        self.rounds = max(1, min(s.problem.flops // (threads * blocking.ROUND_FLOPS), items // max(1, self.parts)))

    # ---- memory

    def _lay_out_slab(self) -> None:
        self.slab_bytes = 0

    def _lay_out_scratch(self) -> None:
        s = self.shape
        strip = min(self.most, len(s.w.tiles)) * s.w.m + s.w.n - s.w.m + s.lanes  # pixels; whole squares are written
        tile = s.h.m * s.w.m
        self.v_plane = s.vectors * self.most * VECTOR_BYTES + blocking.ALIGN
        self.m_plane = self.most * 2 * VECTOR_BYTES + blocking.ALIGN
        self.outputs_plane = s.h.m * strip * VECTOR_BYTES
        self.line_pitch = blocking._up(strip * s.item + 2 * VECTOR_BYTES)
        sizes = {"v": s.products * self.v_plane, "m": s.products * self.m_plane, "inputs_at": s.h.n * strip * VECTOR_BYTES,
                 "half_at": s.h.n * strip * VECTOR_BYTES, "outputs_at": 2 * self.outputs_plane + s.lanes * VECTOR_BYTES,
                 "flag": VECTOR_BYTES, "lines": s.lanes * self.line_pitch, "sums": tile * 2 * VECTOR_BYTES, "pixels": tile * 8,
                 "window": s.inputs * s.kernel[0] * s.h.window * s.w.window * s.item}
        self.offsets: dict[str, int] = {}
        end = 0
        for name, size in sizes.items():
            self.offsets[name], end = end, end + blocking._up(size)
        self.scratch_bytes = blocking._up(end, 4096) + blocking.ALIGN


    def _tables(self) -> dict[str, np.ndarray]:
        s, maps = self.shape, self.maps
        inputs = [_inputs(maps[1], s.h.coordinates(first, s.h.n)) for first in s.h.first_outputs]
        columns, starts = self._columns(maps[2])
        phases = [phase for phase, _ in s.w.tiles]
        lanes = [np.add.outer(np.array(having, np.int64) * s.share, np.arange(s.inputs)).ravel() for having in s.having]
        self.terms = [lane // s.lanes * self.most * VECTOR_BYTES + lane % s.lanes * s.item for lane in lanes]
        depth = np.array([d * s.dilation[0] + np.arange(s.output[0]) * s.stride[0] for d in range(s.kernel[0])])
        tables = {
            "component_at": s.components, "plane_at": _inputs(maps[0], depth), "row_at": np.array(inputs).swapaxes(0, 1),
            "column_at": columns, "runs": _runs(columns, s.w.stride * s.w.dilation), "column_of": starts,
            "left_w": [sum(other == phase for other in phases[i:]) for i, phase in enumerate(phases)],
            "out_row": s.h.first_outputs, "rows_left": np.minimum(s.h.outputs_left, s.h.m), "out_column": s.w.first_outputs,
            "columns_left": s.w.outputs_left, "kinds": s.kinds, "depths": s.depths,
            "tile_of": self._tiles(self._counts()),
            "taps_of": [each.ctypes.data for each in self.terms], "pixel_at": np.arange(self.most) * VECTOR_BYTES}
        return {name: np.ascontiguousarray(table, np.int64) for name, table in tables.items()}

    def _counts(self) -> set[int]:
        """Pixels of gemm's blocks: tiles, and outputs of a tile."""
        return blocking.shares(self.tiles, self.blocks_w) | ({self.shape.h.m * self.shape.w.m} if self.careful else set())

    def _columns(self, index: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """([component][phase and column] of input columns, where each tile begins among them)."""
        w = self.shape.w
        parts, starts, begin = [], [], 0
        for _, group in itertools.groupby(zip(w.tiles, w.first_outputs), key=lambda tile: tile[0][0]):
            outputs = [first for _, first in group]
            length = (len(outputs) - 1) * w.m + w.n
            parts.append(_inputs(index, w.coordinates(outputs[0], length)))
            starts += [begin + i * w.m for i in range(len(outputs))]
            begin += length
        return np.concatenate(parts, axis=1), starts

    def _taps(self) -> np.ndarray:
        """In a tile's window, see `fill_window`."""
        s = self.shape
        size = s.inputs, s.kernel[0], s.h.window, s.w.window
        within = np.arange(math.prod(size), dtype=np.int64).reshape(size) * s.item
        return np.ascontiguousarray(within[:, :, : s.kernel[1], : s.kernel[2]].ravel())

    def _fill(self) -> np.ndarray:
        s, p = self.shape, self.shape.problem
        self.maps, self.taps = s.maps(), self._taps()
        self.tables = self._tables()
        c = s.cut(self.tables)
        self._place(c)
        name, c["parameter"] = p.activation or (None, 0.0)
        roles = {"tile": "gemm", "fill": "winograd inputs", "finish": "winograd outputs"}
        if self.careful:
            roles["repair"] = "winograd repair"
        for axis, letter in ((s.h, "h"), (s.w, "w")):
            roles[f"in_{letter}"] = f"in {axis.n - 1} 2" if axis.n > 1 else "in 1 1"  # the same, however many taps
        roles["out_h"], roles["out_w"] = f"last {s.h.m} {s.h.taps}", f"out {s.w.m} {s.w.taps}"
        c["relu"] = name == "relu"
        if name not in (None, "relu"):
            roles["activate"] = name
        for role, what in roles.items():
            c[role] = stage(what, p.dtype).address
        c["planes"], c["rows"], c["columns"] = self.output
        c["stride_d"], c["stride_h"], c["stride_w"] = s.stride
        c["kernel_d"], c["dilation_d"] = s.kernel[0], s.dilation[0]
        c["dilation_h"], c["dilation_w"] = s.h.dilation, s.w.dilation
        c["map_d"], c["map_h"], c["map_w"] = (m.ctypes.data for m in self.maps)
        c["span_h"], c["span_w"] = len(self.maps[1]), len(self.maps[2])
        c["taps"], c["pass_depth"] = self.taps.ctypes.data, blocking.PASS_DEPTH
        c["hop_w"], c["columns_in"] = s.w.stride * s.w.dilation, self.tables["column_at"].shape[1]
        c["tiles"], c["tiles_h"], c["tiles_w"] = self.tiles, len(s.h.tiles), len(s.w.tiles)
        c["window_rows"], c["window_columns"] = s.h.window, s.w.window
        for field in ("blocks_w", "chunks", "v_plane", "m_plane", "outputs_plane", "line_pitch", "most", "scratch_bytes"):
            c[field] = getattr(self, field)
        for field, place in self.offsets.items():
            c[field] = place
        return c


def _inputs(index: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """The inputs at padded coordinates; beyond them lies what no output needs."""
    return np.where(coordinates < len(index), index[np.minimum(coordinates, len(index) - 1)], -1)


def _runs(columns: np.ndarray, hop: int) -> np.ndarray:
    """How many columns from each on are inputs, `hop` apart."""
    runs = np.ones(columns.shape, np.int64)
    for i in range(columns.shape[1] - 2, -1, -1):
        following = (columns[:, i] >= 0) & (columns[:, i + 1] == columns[:, i] + hop)
        runs[:, i] += np.where(following, runs[:, i + 1], 0)
    return runs
