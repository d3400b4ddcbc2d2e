"""How the Numba kernels cut an fft problem: tiles, steps, tables, memory, in plain Python (the loops are in `fft_stages`, the
tile is that of `algorithms/fft.py`).

All that a stage asks of geometry is in tables: of inputs by place in a tile, -1 for a zero, and of outputs by place, -1 for one
that is left out. So padding of any mode, dilation of weights and outputs between strides are nothing else.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...algorithms import fft
from ...problem import ConvProblem
from ...unit_axes import without_unit_axes
from . import blocking
from .compile import stage
from .contexts import CHUNK, FINE, MOST_SHARERS, OF_A_TILE, VECTOR_BYTES
from .fft_tables import Cut, places, program, runs, spread, twiddles

MOST_AREAS, MOST_TOGETHER = 256 << 10, 8 << 20  # bytes of the channels that are transformed before the next
MOST_ALONE = 16 << 20  # bytes of a larger area are shared by all threads
APART = 8 << 10  # bytes between what two threads write: a core reads ahead beyond its own
WORTH_A_THREAD = 4000  # points of a step


class Shape(blocking.Shape):
    """A problem, its tile, and where its spectra lie (see `fft_stages`)."""

    def __init__(self, problem: ConvProblem, algorithm: str, tile: tuple[int, ...] | None = None) -> None:
        super().__init__(problem, "direct")
        missing = 3 - problem.ndim
        self.tile = (1,) * missing + (tile or fft.tile(problem))
        self.points = _points(self.tile)
        self.folded = self.tile[1] == 1
        zeros, padding = problem.padding_mode == "zeros", ((0, 0),) * missing + problem.padding
        axes: Any = zip(self.size, self.kernel, self.stride, self.dilation, self.output, padding, self.tile, strict=True)
        self.cuts = [Cut(zeros, *axis) for axis in axes]
        self.row_chunks = -(-self.points[1] // CHUNK)
        self._lay_out()
        self.blocks = self.outputs  # that packing is shared by
        self.packed_for = (self.tile, self.dilation)
        self.spectra_bytes = problem.out_channels * self.inputs * self.layout["spectrum_bytes"]
        self.plain_bytes = blocking._up(problem.out_channels * problem.k * self.item)
        self.packed_bytes = self.spectra_bytes + self.plain_bytes + 8 * problem.out_channels
        self.areas = self.areas_of(self.inputs, MOST_AREAS)
        self.board = self.areas * self.layout["area_bytes"]
        self.desk = blocking.ALIGN + self.buffer_bytes
        self.packing_bytes = self.board + self.desk

    def _lay_out(self) -> None:
        depths, rows, columns = self.points
        self.row_blocks = -(-(rows // 2 + 1) // self.lanes)
        even = columns % (2 * self.lanes) == 0  # pairs of vectors; else the two halves of a row
        self.partner, self.apart = (self.lanes, 2 * self.lanes) if even else (columns // 2, self.lanes)
        self.column_blocks = -(-self.partner // self.lanes) if not even else columns // self.apart
        strip = (self.row_blocks * self.lanes * 4 + 1) * VECTOR_BYTES
        part = columns * VECTOR_BYTES
        self.layout = {
            "points_d": depths, "points_h": rows, "points_w": columns, "partner": self.partner, "apart": self.apart,
            "column_blocks": self.column_blocks, "strip_bytes": strip, "plane_bytes": self.column_blocks * strip,
            "area_bytes": depths * self.column_blocks * strip, "part_bytes": part, "rows_bytes": depths * 2 * part,
            "spectrum_bytes": self.row_blocks * depths * 2 * part, "folded": self.folded, "row_chunks": self.row_chunks}
        # of columns; of a row, whose last block of columns may be short
        self.buffer_bytes = (max(2 * max(depths, rows), columns // self.lanes + 2)) * VECTOR_BYTES

    def areas_of(self, channels: int, room: int) -> int:
        """How many channels are transformed before their rows are."""
        return min(channels, max(1, room // self.layout["area_bytes"]))

    def transforms(self) -> dict[str, np.ndarray]:
        """Their programs and tables, by the fields that point there."""
        if not hasattr(self, "_transforms"):
            self._transforms = self._made_transforms()
        return self._transforms

    def _made_transforms(self) -> dict[str, np.ndarray]:
        made = {}
        for letter, n in zip("dhw", self.points, strict=True):
            if n == 1:
                continue
            table = twiddles(n, self.problem.dtype)
            made[f"there_{letter}"], made[f"back_{letter}"] = program(n, table, False), program(n, table, True)
            made[f"twiddles_{letter}"] = table
        rows = self.points[1]
        place, k = places(rows) * VECTOR_BYTES, np.arange(rows // 2 + 1)
        made["pairs"] = np.stack((place[k], place[-k % rows]), axis=-1)
        if self.folded:
            made["turns"] = self._turns()
        return {name: np.ascontiguousarray(table) for name, table in made.items()}

    def _turns(self) -> np.ndarray:
        """[block of rows k][coarse j / 16, fine j % 16][real, imaginary][lanes] of w_n^(j k)."""
        n, columns = self.tile[2], self.points[2]
        j = np.concatenate((np.arange(columns // FINE) * FINE, np.arange(FINE)))
        k = np.arange(self.row_blocks * self.lanes).reshape(-1, 1, self.lanes)
        angle = -2 * np.pi / n * (j[:, None] * k % n)
        return np.stack((np.cos(angle), np.sin(angle)), axis=2).astype(self.problem.dtype)

    def complete(self, tables: dict[str, np.ndarray]) -> np.ndarray:
        """The fields that packing and convolving share."""
        c = self.common()
        c["transform"] = stage("fft transform", self.problem.dtype).address
        for name, value in self.layout.items():
            c[name] = value
        for name, table in {**self.transforms(), **tables}.items():
            if name in (c.dtype.names or ()):
                c[name] = table.ctypes.data
        c["kernel_d"], c["kernel_h"], c["kernel_w"] = self.kernel
        if self.folded:
            c["turns_bytes"] = (self.points[2] // FINE + FINE) * 2 * VECTOR_BYTES
        c["places_h"], c["places_w"], c["flag"], c["buffer"] = self.tile[1], self.tile[2], 0, blocking.ALIGN
        return c

    def forward_steps(self, channels: int, areas: int, stored: bool) -> list[tuple[int, int, int, int]]:
        """(stage, first channel, channels, items)."""
        depths, found = self.points[0], []
        for first in range(0, channels, areas):
            count = min(areas, channels - first)
            items = {"load": depths * self.row_chunks, "columns": depths * self.column_blocks}
            if stored:
                items["spectra"] = self.row_blocks
            found += [(stage(f"fft {name}", self.problem.dtype).address, first, count, count * n) for name, n in items.items()]
        return found

    # ---- packing

    def packing(self) -> list[tuple[Any, np.ndarray]]:
        """Each output channel's weights as a tile of a batch."""
        taps = [spread(*of) for of in zip(self.kernel, self.dilation, self.tile, strict=True)]
        rows = np.zeros((1, OF_A_TILE), np.int64)
        runs(taps[2][None], rows)
        rows[:, 7] = self.strips((self.kernel[2] - 1) * self.dilation[2] + 1)
        steps = self.forward_steps(self.inputs, self.areas, True)
        scale = 0.25 / math.prod(self.points)  # forward gives twice the spectrum, here and of the input
        self._packing_tables = {
            "depth_at": taps[0], "row_at": taps[1], "column_at": taps[2], "of_w": rows,
            "step_at": np.array(steps, np.int64), "factor": np.array(scale, self.problem.dtype)}  # addresses point there
        c = self.complete(self._packing_tables)
        c["batch"], c["groups"], c["outputs"] = self.problem.out_channels, 1, 1
        c["xn"], c["xc"], c["xd"], c["xh"], c["xw"] = np.array(
            [self.problem.k, self.problem.kernel_volume, self.kernel[1] * self.kernel[2], self.kernel[2], 1]) * self.item
        c["tiles_d"] = c["tiles_h"] = c["tiles_w"] = 1
        c["steps"], c["stored"], c["board_bytes"], c["desk_bytes"] = len(steps), 2, self.board, self.desk
        c["spectra_block"], c["spectra_channel"] = self.layout["rows_bytes"], self.layout["spectrum_bytes"]
        return [(stage("fft", self.problem.dtype), blocking.words(c))]

    def strips(self, places: int) -> int:
        """Of so many places, those that have any."""
        return self.column_blocks if self.folded else min(self.column_blocks, -(-places // self.apart))

    def keep_plain(self, packed: np.ndarray, weight: np.ndarray) -> None:
        """The weights as they are, and which output channels have some that are not transformed."""
        most = fft.LARGEST[self.problem.dtype]
        packed[self.spectra_bytes:][: weight.nbytes] = weight.reshape(-1).view(np.uint8)
        odd = ~(np.abs(weight.reshape(len(weight), -1)) <= most).all(axis=1)
        packed[self.spectra_bytes + self.plain_bytes:][: 8 * len(odd)] = odd.astype(np.int64).view(np.uint8)


def _points(tile: tuple[int, ...]) -> tuple[int, int, int]:
    """Depths, rows and columns that are transformed: of a folded row n1 x n2, n2 the least power of two that is no less."""
    if tile[1] > 1:
        return tile[0], tile[1], tile[2]
    columns = 32
    while columns * columns < tile[2]:
        columns *= 2
    return 1, tile[2] // columns, columns


class Call(blocking.Call):
    """A call's context, the tables it points to, and its memory."""

    JOB = "fft"
    shape: Shape

    def _flatten(self, residual: bool) -> None:
        pass

    def _in_place(self) -> bool:
        return True

    def _choose_blocks(self, threads: int) -> None:
        s = self.shape
        area, channels = s.layout["area_bytes"], max(s.inputs, s.outputs)
        tiles = s.problem.batch * s.problem.groups * math.prod(cut.count for cut in s.cuts)
        worth = math.prod(s.points) * channels >= WORTH_A_THREAD * threads and threads > 1
        together = worth and ((tiles < 4 * threads and tiles % threads != 0) or area > MOST_ALONE)
        self.sharing = threads if together else 0
        self.areas = s.areas_of(channels, MOST_TOGETHER if together else MOST_AREAS)
        self.spans = 1
        if together and s.row_blocks < 4 * threads:
            self.spans = min(s.outputs, -(-4 * threads // s.row_blocks))
        self.stored = self.areas < channels or self.spans > 1
        self.step_at = np.array(self._steps(), np.int64)
        self.parts = threads if together else max(1, min(threads, tiles, MOST_SHARERS))
        spent = fft.cost(without_unit_axes(s.problem)[0], 8, s.tile[3 - s.problem.ndim:])
        flops = 16 * sum(spent.values()) * s.problem.batch
        self.rounds = tiles * len(self.step_at) if together else max(
            1, min(int(flops / (threads * blocking.ROUND_FLOPS)), tiles // max(1, self.parts)))

    def _steps(self) -> list[tuple[int, int, int, int]]:
        s, depths = self.shape, self.shape.points[0]
        found = s.forward_steps(s.inputs, self.areas, self.stored)
        dtype = s.problem.dtype
        if self.careful:
            found.append((stage("fft find", dtype).address, 0, s.inputs, 1))
        for first in range(0, s.outputs, self.areas):
            count = min(self.areas, s.outputs - first)
            items = {"products": s.row_blocks * self.spans, "columns back": count * depths * s.column_blocks,
                     **({"add": count} if self.careful else {}), "finish": count * depths * s.row_chunks}
            found += [(stage(f"fft {name}", dtype).address, first, count, n) for name, n in items.items()]
        return found

    # ---- memory

    def _lay_out_slab(self) -> None:
        self.slab_bytes = 0

    def _lay_out_scratch(self) -> None:
        s = self.shape
        span = math.prod(int(cut.most.max()) + cut.reach for cut in s.cuts)
        self.most_outputs = math.prod(int(cut.most.max()) for cut in s.cuts)
        rows = s.layout["rows_bytes"]
        alone = s.inputs == s.outputs == 1 and not self.stored  # products take their place
        board = {"": self.areas * s.layout["area_bytes"],
                 "spectra": s.inputs * s.layout["spectrum_bytes"] if self.stored else 0, "next": 4 * span,
                 "sums": self.areas * self.most_outputs * s.item}
        desk = {"flag": blocking.ALIGN, "buffer": s.buffer_bytes, "own": 0 if self.stored else s.inputs * rows,
                "product": 0 if alone else rows}
        self.offsets: dict[str, int] = {}
        self.board_bytes, self.desk_bytes = (self._placed(pieces) for pieces in (board, desk))
        if alone:
            self.offsets["product"] = self.offsets["own"]
        shared = -(-self.board_bytes // self.parts) if self.sharing else self.board_bytes
        self.scratch_bytes = blocking._up(shared + self.desk_bytes)

    def _placed(self, pieces: dict[str, int]) -> int:
        end = 0
        for name, size in pieces.items():
            self.offsets[name], end = end, end + blocking._up(size)
        return blocking._up(end, 4096) + (APART if self.sharing else blocking.ALIGN)

    def _fill(self) -> np.ndarray:
        s, p = self.shape, self.shape.problem
        self.taps, self.maps = np.zeros(0, np.int64), s.maps()
        self.tables = self._tables()
        c = s.complete(self.tables)
        self._place(c)
        name, c["parameter"] = p.activation or (None, 0.0)
        c["relu"] = name == "relu"
        if name not in (None, "relu"):
            c["activate"] = stage(name, p.dtype).address
        c["repair"] = self.careful
        c["past"] = math.prod(p.output_shape) * s.item >= blocking.BEYOND
        c["batch"], c["fill"] = p.batch, stage("fft spectra", p.dtype).address
        c["stride_d"], c["stride_h"], c["stride_w"] = s.stride
        c["dilation_d"], c["dilation_h"], c["dilation_w"] = s.dilation
        c["map_d"], c["map_h"], c["map_w"] = (m.ctypes.data for m in self.maps)
        c["tiles_d"], c["tiles_h"], c["tiles_w"] = (cut.count for cut in s.cuts)
        c["keep_w"], c["shift_w"] = s.cuts[2].keep, s.cuts[2].shift
        c["steps"], c["plain"], c["odd"] = len(self.step_at), s.spectra_bytes, s.spectra_bytes + s.plain_bytes
        c["spectra_block"] = s.inputs * s.layout["rows_bytes"] if self.stored else 0
        c["spectra_channel"] = s.layout["rows_bytes"]
        for field in ("sharing", "spans", "stored", "board_bytes", "desk_bytes", "most_outputs"):
            c[field] = getattr(self, field)
        for field, place in self.offsets.items():
            if field:
                c[field] = place
        return c

    def _complete(self, context: np.ndarray) -> np.ndarray:
        return context if self.sharing else blocking.with_shares(context, self.parts)

    def _tables(self) -> dict[str, np.ndarray]:
        s = self.shape
        inputs = [cut.inputs(index) for cut, index in zip(s.cuts, self.maps, strict=True)]
        described, results = ([made(cut) for cut in s.cuts] for made in (Cut.described, Cut.results))
        runs(inputs[2], described[2])
        described[2][:, 7] = [s.strips(int(np.flatnonzero(row >= 0)[-1:].max(initial=-1)) + 1) for row in inputs[2]]
        tables = {"depth_at": inputs[0], "row_at": inputs[1], "column_at": inputs[2], "depth_out": results[0],
                  "row_out": results[1], "strip_out": self._strips_out(results[2]), "of_d": described[0], "of_h": described[1],
                  "of_w": described[2], "step_at": self.step_at}
        made = {name: np.ascontiguousarray(table, np.int64) for name, table in tables.items()}
        return {**made, "factor": np.ones((), s.problem.dtype)}

    def _strips_out(self, results: np.ndarray) -> np.ndarray:
        """[tile][strip]: whether there are outputs in it."""
        s = self.shape
        if s.folded:
            return np.ones((len(results), s.column_blocks), np.int64)
        begin = np.arange(s.column_blocks)[:, None] * s.apart + np.arange(s.lanes)
        covered = np.minimum(np.concatenate((begin, begin + s.partner), axis=1), s.tile[2] - 1)
        return np.any(results[:, covered, 0] >= 0, axis=-1).astype(np.int64)
