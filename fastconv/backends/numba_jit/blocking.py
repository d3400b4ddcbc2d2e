"""How the Numba kernels cut a convolution into blocks: sizes, tables and strides, in plain Python.

Nothing here changes a result: every output is summed in the same order however it is blocked.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from ...problem import ConvProblem
from ...window import index_map
from .compile import stage
from .contexts import (
    BROADCAST,
    CONTEXT,
    DIRECT,
    GEMM,
    HALF_BYTES,
    MOST_SHARERS,
    PIECES,
    PIXELS,
    ROWS,
    SHARES,
    SPAN,
    SURPLUS,
    VECTOR_BYTES,
)

SLAB_BYTES = 192 << 10  # of a slab: with the weights of a block, within L2
SUMS_BYTES = 28 << 10  # of a block of pixels and output channels of gemm: in L1 and L2
NEAR_BYTES = 64 << 10  # of the inputs of tiles that go through all blocks of output channels before the next ones
BROADCAST_BYTES = 128 << 10  # of broadcast, which reads the weights of a block once for each
LINES_BYTES = 96 << 10  # of direct, whose lines are as long as can be
ROUND_FLOPS = 1 << 30  # of a part in a round, after which Python may handle signals: some 20 ms
PASS_DEPTH = 128  # products per pass over the pixels of a block: 8 KB of weights and as many lines of pixels stay in L1
BEYOND = 8 << 20  # bytes of a result that is written past the caches
ALIGN = 64


def _up(size: int, multiple: int = ALIGN) -> int:
    return -(-size // multiple) * multiple


def with_shares(context: np.ndarray, parts: int) -> np.ndarray:
    """A context with the words of so many parts of a round behind it (`shares`), each in a cache line if there is room."""
    parts = max(1, parts)  # of a call without images
    named, apart = context.view(CONTEXT), min(8, MOST_SHARERS // parts)
    named["pieces"] = PIECES if parts > 1 else 1
    named["sharers"], named["shares"], named["shares_apart"] = parts, 8 * SHARES, 8 * apart
    return np.concatenate((context, np.zeros(SHARES - len(context) + parts * apart, np.int64)))


def words(context: np.ndarray) -> np.ndarray:
    """A context as plain integers, which are quicker to complete than named fields."""
    return context.reshape(1).view(np.int64)


class Shape:
    """A problem with three spatial axes, channels per group, and how its output channels are cut."""

    def __init__(self, problem: ConvProblem, algorithm: str, tile: tuple[int, ...] | None = None) -> None:
        p = self.problem = problem
        ones = (1,) * (3 - p.ndim)
        self.size = ones + p.input_size
        self.kernel = ones + p.kernel_size
        self.stride = ones + p.stride
        self.dilation = ones + p.dilation
        self.output = ones + p.output_size
        self.item = np.dtype(p.dtype).itemsize
        self.lanes = VECTOR_BYTES // self.item
        self.groups, self.depth = p.groups, p.k
        self.inputs, self.outputs = p.in_channels // p.groups, p.out_channels // p.groups
        self.algorithm = {"gemm": GEMM, "direct": DIRECT, "broadcast": BROADCAST}[algorithm]
        # output channels of a block, at most
        self.width = (2 * self.lanes, len(SPAN), len(PIXELS) * self.lanes)[self.algorithm]
        self.blocks = -(-self.outputs // self.width)
        self.vectors = -(-self.outputs // self.lanes)
        self.unit = (self.width, 1, self.lanes)[self.algorithm]
        self.units = -(-self.outputs // self.unit)
        self.stored = self.units * self.unit
        self.packed_bytes = self.groups * self.stored * self.depth * self.item
        self.unpadded = all(low == 0 and high <= 0 for low, high in p.padding)
        self.pointwise = self.unpadded and p.kernel_volume == 1
        # along an axis only every step-th padded coordinate is read
        self.step = [math.gcd(s, d if k > 1 else 0) for s, d, k in zip(self.stride, self.dilation, self.kernel, strict=True)]
        # slab coordinates from one output to the next, and of one window
        self.grow = [s // step for s, step in zip(self.stride, self.step, strict=True)]
        self.span = [d * (k - 1) // step + 1 for d, k, step in zip(self.dilation, self.kernel, self.step, strict=True)]

    def maps(self) -> list[np.ndarray]:
        """Per axis, the input coordinate of each padded coordinate, -1 for a zero."""
        missing = 3 - self.problem.ndim
        return [np.zeros(1, np.int64)] * missing + [index_map(self.problem, axis) for axis in range(self.problem.ndim)]

    def common(self) -> np.ndarray:
        """The fields that packing and convolving share."""
        c = np.zeros((), CONTEXT)
        c["algorithm"], c["groups"], c["blocks"] = self.algorithm, self.groups, self.blocks
        c["inputs"], c["outputs"], c["depth"] = self.inputs, self.outputs, self.depth
        c["packed"], c["units"], c["unit"] = self.stored, self.units, self.unit
        return c

    # ---- packing

    packing_bytes = 0  # scratch of a part
    packed_for: tuple[object, ...] = ()  # what packed weights depend on besides the problem's weights and the algorithm

    def packing(self) -> list[tuple[Any, np.ndarray]]:
        """Stages, one after the other, and their contexts."""
        return [(stage("pack", self.problem.dtype), words(self.common()))]

    def keep_plain(self, packed: np.ndarray, weight: np.ndarray) -> None:
        """What else than the stages have written belongs to packed weights."""

    def bias(self, bias: np.ndarray | None) -> np.ndarray:
        """As the kernels read it: like the weights of a k; zeros where there is none."""
        padded = np.zeros((self.groups, self.stored), self.problem.dtype)
        if bias is not None:
            padded[:, : self.outputs] = bias.reshape(self.groups, -1)
        return padded


def strides_of(array: np.ndarray, shape: Shape) -> list[int]:
    """[batch, channel, depth, height, width] in bytes; 0 for axes of length 1, whose strides mean nothing."""
    steps = [0 if length == 1 else step for length, step in zip(array.shape, array.strides, strict=True)]
    if shape.problem.channels_last:
        steps = [steps[0], steps[-1], *steps[1:-1]]
    return steps[:2] + [0] * (3 - shape.problem.ndim) + steps[2:]


def _one_row(steps: list[int], size: tuple[int, ...]) -> int | None:
    """The stride of all pixels of a channel taken as one row, None if they are not evenly spaced."""
    pitch = None
    length = 1
    for step, n in zip(steps[:1:-1], size[::-1], strict=True):
        if n == 1:
            continue
        if pitch is None:
            pitch = step
        elif step != pitch * length:
            return None
        length *= n
    return pitch or 0


def _rows(count: int) -> set[int]:
    """Of the register tiles that go through so many pixels, of equal sizes, to one: no small one at the end."""
    return shares(count, -(-count // ROWS))


def shares(length: int, pieces: int) -> set[int]:
    """Lengths of pieces of equal sizes, to one."""
    return {length // pieces, -(-length // pieces)}


class Call:
    """Everything about a call but the addresses: a context to be completed, and the tables it points to."""

    JOB = "convolve"
    TILES = ("pixels", "channels", "vectors")  # by algorithm
    tables: dict[str, np.ndarray] = {}  # more of them, by the fields that point there

    def __init__(self, shape: Shape, x: np.ndarray, out: np.ndarray, residual: np.ndarray | None, threads: int,
                 careful: bool) -> None:
        """careful: what is not finite is put right; else a call may say that it has to be done again, by one that is. So stages
        that hardly any call needs are compiled by those alone."""
        self.shape, self.careful = shape, careful
        # False: copies are computed with
        self.whole_steps = not any(step % shape.item for a in (x, out, residual) if a is not None for step in a.strides)
        self.steps = [strides_of(a, shape) if a is not None else [0] * 5 for a in (x, out, residual)]
        self.input, self.output = shape.size, shape.output
        self._flatten(residual is not None)
        self.slab = not self._in_place()
        self.straight, self.spreads, self.place_w, self.fit = False, False, shape.item, 1
        self._choose_blocks(threads)
        self._lay_out_slab()
        self._lay_out_scratch()
        self.workspace_bytes = self.scratch_bytes * self.parts
        self.template = self._complete(words(self._fill()))
        self.entry = stage(self.JOB, shape.problem.dtype)
        self.nbytes = sum(table.nbytes for table in (self.taps, *self.maps, *self.tables.values())) + 4096

    def _complete(self, context: np.ndarray) -> np.ndarray:
        """With what lies behind it."""
        return with_shares(context, self.parts)

    def _flatten(self, residual: bool) -> None:
        """A pointwise convolution sees one long row, where the arrays allow it."""
        s = self.shape
        if not s.pointwise or set(s.stride) != {1}:
            return
        pitches = [_one_row(steps, s.output) for steps in self.steps[: 3 if residual else 2]]
        if None in pitches:
            return
        for steps, pitch in zip(self.steps, pitches, strict=False):
            steps[2:] = [0, 0, pitch or 0]
        self.input = self.output = (1, 1, math.prod(s.output))

    def _in_place(self) -> bool:
        """Whether pixels can be read where they are."""
        s = self.shape
        if s.algorithm == BROADCAST:
            return s.unpadded
        if s.algorithm == GEMM:
            return s.pointwise and set(s.stride) == {1}
        return s.pointwise and s.stride[2] == 1 and self.steps[0][4] == s.item and self.output[2] >= s.lanes

    # ---- blocks

    def _reach(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the slab under a block of that size."""
        (grow_h, grow_w), (span_h, span_w) = self.shape.grow[1:], self.shape.span[1:]
        return (height - 1) * grow_h + span_h, (width - 1) * grow_w + span_w

    def _slab_bytes(self, height: int, width: int) -> int:
        s = self.shape
        if not self.slab:
            return 0
        rows, columns = self._reach(height, width)
        return s.inputs * s.kernel[0] * rows * columns * s.item

    def _choose_blocks(self, threads: int) -> None:
        s = self.shape
        planes, rows, columns = self.output
        width = columns
        room = (SUMS_BYTES, LINES_BYTES, BROADCAST_BYTES)[s.algorithm]
        pixels = room // (min(s.width, s.outputs if s.algorithm == DIRECT else s.vectors * s.lanes) * s.item)
        least = 4 * s.lanes
        while width > least and (self._slab_bytes(1, width) > SLAB_BYTES or width > pixels):
            width = -(-width // 2)
        self.blocks_w = -(-columns // width)
        height = 1
        while (height < rows and self._slab_bytes(height + 1, width) <= SLAB_BYTES and (height + 1) * width <= pixels):
            height += 1
        self.blocks_h = -(-rows // height)
        self._share(threads, s.problem.batch * s.groups * planes)
        self.height, self.width = -(-rows // self.blocks_h), -(-columns // self.blocks_w)
        items = self.outer * self.blocks_h * self.blocks_w * self.chunks
        self.parts = min(threads, items, MOST_SHARERS)
        self.rounds = max(1, min(s.problem.flops // (threads * ROUND_FLOPS), items // max(1, self.parts)))
        self._choose_places()

    def _choose_places(self) -> None:
        """Whether sums go from the registers to the output, and if not, whether they are but transposed."""
        s, out = self.shape, self.steps[1]
        limited = s.problem.activation in (None, ("relu", 0.0))
        plain = limited and not s.problem.residual
        if s.algorithm == BROADCAST:
            self.straight = plain and (out[1] == s.item or s.outputs == 1)
            self.spreads = plain and out[4] == s.item
            self.place_w = out[4] if self.straight else -(-s.vectors // s.blocks) * VECTOR_BYTES
        elif s.algorithm == DIRECT and limited and out[4] == s.item:
            self._choose_vectors()

    def _choose_vectors(self) -> None:
        """direct: whole vectors of pixels go straight, of which the last of a row may overlap its neighbour, unless their
        residual was where they are now. And how many go through all blocks of output channels together."""
        s, narrowest = self.shape, self.output[2] // self.blocks_w
        whole = self.blocks_w == 1 and narrowest % s.lanes == 0 and self.steps[1][3:] == self.steps[2][3:]
        self.straight = narrowest >= s.lanes and (not s.problem.residual or whole)
        rows = s.inputs * s.kernel[0] * s.kernel[1]
        tile = SPAN[-(-s.outputs // s.blocks) - 1]  # vectors of it
        self.fit = tile * max(1, NEAR_BYTES // (rows * tile * VECTOR_BYTES * min(s.stride[2], s.kernel[2])))

    def _share(self, threads: int, outer: int) -> None:
        """Blocks for all threads. Chunks of output channels where the weights are larger than the input: then each thread
        reads all pixels and its share of the weights, else the other way round."""
        s = self.shape
        self.outer, self.chunks = outer, 1
        if threads == 1:
            return
        pixels = math.prod(self.input) * s.inputs
        if outer < threads and s.blocks >= threads and s.outputs * s.depth > pixels:
            self.chunks = threads
            return
        places = outer * self.blocks_h * self.blocks_w
        if places % threads and places < 8 * threads:
            if self.output[1] > 1:
                self.blocks_h = self._rounded(outer * self.blocks_w, self.blocks_h, self.output[1], threads)
            elif self.output[2] >= 2 * s.lanes:
                self.blocks_w = self._rounded(outer, self.blocks_w, self.output[2] // s.lanes, threads)
        if outer * self.blocks_h * self.blocks_w < threads and s.blocks > 1:
            self.chunks = min(threads, s.blocks)

    @staticmethod
    def _rounded(others: int, blocks: int, most: int, threads: int) -> int:
        """At least `blocks`, at most `most`, such that all blocks share out evenly, if that is possible."""
        for more in range(blocks, min(blocks + threads, most) + 1):
            if others * more % threads == 0:
                return more
        return min(max(blocks, threads // others), most)

    def _tiles(self, counts: set[int]) -> np.ndarray:
        """Addresses of the register tiles that blocks of so many pixels need: gemm's by [vectors, 0: half a one][rows],
        direct's by output channels, broadcast's by vectors of these."""
        s = self.shape
        table = np.zeros((3, ROWS + 1), np.int64)
        if s.algorithm == GEMM:
            widths = {min(s.width, s.outputs - block * s.width) for block in (0, s.blocks - 1)}
            numbers = {-(-width // s.lanes) if width * s.item > HALF_BYTES else 0 for width in widths}
            for vectors, rows in itertools.product(numbers, set().union(*map(_rows, counts))):
                table[vectors, rows] = stage(f"pixels {rows} {vectors}", s.problem.dtype).address
        else:
            kind = self.TILES[s.algorithm]
            for size in shares(s.units, s.blocks):
                table.ravel()[size] = stage(f"{kind} {size}", s.problem.dtype).address
        return table

    # ---- memory

    def _lay_out_slab(self) -> None:
        """Strides of the slab: channels side by side as in a channels_last input (not direct), else rows, de-interleaved for
        direct so that neighbouring outputs read neighbouring columns."""
        s = self.shape
        rows, columns = self._reach(self.height, self.width)
        self.phases, self.slab_phase = 1, 0
        if s.algorithm != DIRECT and self.steps[0][1] == s.item and s.inputs > 1:
            self.slab_c, self.slab_w = s.item, s.inputs * s.item
            self.slab_h = columns * self.slab_w
            self.slab_d = rows * self.slab_h
            self.slab_bytes = s.kernel[0] * self.slab_d
            return
        self.slab_w = s.item
        self.slab_h = columns * s.item
        if s.algorithm == DIRECT:
            self.phases = s.grow[2]
            self.slab_phase = -(-columns // self.phases) * s.item
            if self.phases > 1:  # whole vectors are written
                self.slab_phase += VECTOR_BYTES - s.item
            self.slab_h = self.phases * self.slab_phase
        self.slab_c = rows * self.slab_h
        if self.slab_c % 1024 == 0:  # or all channels of a pixel would fall into few sets of L1
            self.slab_c += ALIGN
        self.slab_d = s.inputs * self.slab_c
        self.slab_bytes = s.kernel[0] * self.slab_d

    def _lay_out_scratch(self) -> None:
        """The scratch of one part: slab, sums, lines, tables; with room for what the tiles touch beyond the ends."""
        s = self.shape
        count = self.height * self.width
        self.line_pitch = _up(count * s.item + 2 * VECTOR_BYTES)
        if self.line_pitch % 1024 == 0:
            self.line_pitch += ALIGN
        self.sums = _up(self.slab_bytes + VECTOR_BYTES if self.slab else 0)
        vectors = (2, 0, -(-s.vectors // s.blocks))[s.algorithm]
        self.lines = self.sums + _up((count + s.lanes) * vectors * VECTOR_BYTES)
        self.pixels = self.lines + max(s.width, s.lanes) * self.line_pitch
        entries = self.height * -(-self.width // s.lanes) if s.algorithm == DIRECT else count
        self.places = self.pixels + _up((entries + SURPLUS) * 8)
        self.scratch_bytes = _up(self.places + (entries + SURPLUS) * 8, 4096) + ALIGN

    def _taps(self) -> np.ndarray:
        """Byte offset of each product's operand from its pixel, in the order of the weights: channel, then kernel axes."""
        s = self.shape
        if self.slab:
            channel = self.slab_c
            column = np.arange(s.kernel[2]) * s.dilation[2] // s.step[2]
            w = column % self.phases * self.slab_phase + column // self.phases * self.slab_w
            h = np.arange(s.kernel[1]) * (s.dilation[1] // s.step[1] if s.kernel[1] > 1 else 0) * self.slab_h
            d = np.arange(s.kernel[0]) * self.slab_d
        else:
            channel = self.steps[0][1]
            d, h, w = (np.arange(k) * dilation * step
                       for k, dilation, step in zip(s.kernel, s.dilation, self.steps[0][2:], strict=True))
        c = np.arange(s.inputs) * channel
        table = c[:, None, None, None] + d[:, None, None] + h[:, None] + w
        return np.ascontiguousarray(table.ravel(), np.int64)

    def _place(self, c: np.ndarray) -> None:
        for letter, steps in zip("xor", self.steps, strict=True):
            for axis, step in zip("ncdhw", steps, strict=True):
                c[letter + axis] = step

    def _fill(self) -> np.ndarray:
        s, p = self.shape, self.shape.problem
        self.taps = self._taps()
        self.maps = s.maps() if self.input == s.size else [np.arange(n) for n in self.input]  # one long row is not padded
        c = s.common()
        self._place(c)
        c["past"] = math.prod(p.output_shape) * s.item >= BEYOND
        name, c["parameter"] = p.activation or (None, 0.0)
        stages = {"tile": ("gemm", "direct", "broadcast")[s.algorithm]}
        if not self.straight:
            stages["finish"] = "spread" if self.spreads else "finish"
        if self.slab:
            stages["fill"] = "fill"
        heights, widths = shares(self.output[1], self.blocks_h), shares(self.output[2], self.blocks_w)
        self.tables = {"tile_of": self._tiles({h * w for h in heights for w in widths})}
        c["tile_of"] = self.tables["tile_of"].ctypes.data
        if name == "relu":
            c["relu"] = 1
        elif name is not None:
            stages["activate"] = name
        for role, what in stages.items():
            c[role] = stage(what, p.dtype).address
        c["batch"], c["slab"] = p.batch, self.slab
        c["planes"], c["rows"], c["columns"] = self.output
        c["stride_d"], c["stride_h"], c["stride_w"] = s.stride
        c["kernel_d"], c["dilation_d"] = s.kernel[0], s.dilation[0]
        c["map_d"], c["map_h"], c["map_w"] = (m.ctypes.data for m in self.maps)
        c["low_w"], c["size_w"] = p.padding[-1][0], self.input[2]
        c["step_h"], c["step_w"] = s.step[1:]
        c["zeros"] = p.padding_mode == "zeros"
        c["span_h"], c["span_w"] = s.span[1:]
        c["grow_h"], c["grow_w"] = s.grow[1:]
        c["taps"], c["pass_depth"] = self.taps.ctypes.data, PASS_DEPTH
        if self.slab:
            c["pixel_h"], c["pixel_w"] = s.grow[1] * self.slab_h, s.grow[2] // self.phases * self.slab_w
        else:
            c["pixel_h"], c["pixel_w"] = s.stride[1] * self.steps[0][3], s.stride[2] * self.steps[0][4]
        for name in ("blocks_h", "blocks_w", "chunks", "slab_c", "slab_d", "slab_h", "slab_w", "slab_phase", "phases", "sums",
                     "lines", "pixels", "places", "line_pitch", "scratch_bytes", "straight", "place_w",
                     "fit"):
            c[name] = getattr(self, name)
        return c
