# mypy: ignore-errors
# Numba compiles this file: calls of intrinsics leave out what mypy takes for their first argument.
"""The compiled loops of depthwise: items, (image, output channel, band of rows), by register tiles (see `depthwise_tiles`),
which write the outputs themselves, or, for what else there is to do, to a vector of each row first. Each kernel, stride and
number of rows has a stage of its own, the only thing that is compiled for the sake of a shape."""

from __future__ import annotations

from typing import Any

from .contexts import OF_A_STRETCH, VECTOR_BYTES
from .depthwise_tiles import tiles
from .kernels import finish_line
from .pipeline import jit
from .shares import next_item
from .vectors import invoke, load


@jit
def place(c: Any, item: Any) -> Any:
    """(image, first channel and how many, first row): outputs of one input channel, or one of each of so many."""
    each, lots = (c.groups, 1) if c.outputs == 1 else (c.outputs, c.groups)
    rest, h = item // c.blocks_h, load(c.row_at, item % c.blocks_h, 0)
    rest, chunk = rest // c.chunks, rest % c.chunks
    first = chunk * each // c.chunks
    return rest // lots, rest % lots * each + first, (chunk + 1) * each // c.chunks - first, h


@jit
def source(c: Any, image: Any, channel: Any, w: Any, size: Any) -> Any:
    """Of the first input, in row 0, that output column w reads."""
    return c.x + image * c.xn + channel // c.outputs * c.xc + (w * c.stride_w - c.low_w) * size


def tile_stage(kernel: int, stride: int, rows: int) -> Any:
    tile = tiles(kernel, stride, rows)

    def stage(c, stretch, blocks, h, x, channel, channels, out, pitch, relu, like, size):  # type: ignore[no-untyped-def]
        """Of channels from `channel` on, the rows from h on of so many vectors of columns, of a stretch."""
        step = c.depth * size
        tile(load(stretch, 0, 0), channels, blocks, c.map_h + 8 * h * stride, x, c.xh, c.xc if c.outputs == 1 else 0,
             c.column_at, c.weights + channel * step, step, c.bias + channel * size if c.bias != 0 else c.column_at,
             size if c.bias != 0 else 0, out, c.oc, pitch, relu, stretch + 24, like)

    return stage


@jit
def finish_block(c: Any, lines: Any, count: Any, out: Any, residual: Any, like: Any, size: Any) -> None:
    for r in range(c.m_h):
        finish_line(c, lines + r * VECTOR_BYTES, count, out + r * c.oh, c.ow // size,
                    residual + r * c.rh if residual != 0 else 0, c.rw // size, 0, 0, like, size)


def depthwise_stage(c: Any, part: Any, like: Any, size: Any) -> None:
    """What one part gets of the items of a round."""
    items = c.batch * (1 if c.outputs == 1 else c.groups) * c.chunks * c.blocks_h
    item, end = -1, 0
    while True:
        item, end = next_item(c, items, part, item, end)
        if item < 0:
            return
        image, channel, channels, h = place(c, item)
        for i in range(c.tiles_w):
            compute(c, c.of_w + 8 * OF_A_STRETCH * i, image, channel, channels, h, part, like, size)


@jit
def compute(c: Any, stretch: Any, image: Any, channel: Any, channels: Any, h: Any, part: Any, like: Any, size: Any) -> None:
    """A stretch of some channels."""
    if c.residual != 0 or c.activate != 0 or c.ow != size:
        for one in range(channel, channel + channels):
            by_lines(c, stretch, image, one, h, c.scratch + part * c.scratch_bytes, like, size)
        return
    w = load(stretch, 1, 0)
    out = c.out + image * c.on + channel * c.oc + h * c.oh + w * size
    x = source(c, image, channel, w, size)
    invoke(c.tile, (c.self, stretch, load(stretch, 2, 0), h, x, channel, channels, out, c.oh, c.relu))


@jit
def by_lines(c: Any, stretch: Any, image: Any, channel: Any, h: Any, lines: Any, like: Any, size: Any) -> None:
    """A stretch of one channel, of each block a line of each row first."""
    lanes = VECTOR_BYTES // size
    first, blocks = load(stretch, 1, 0), load(stretch, 2, 0)
    for w in range(first, first + blocks * lanes, lanes):
        invoke(c.tile, (c.self, stretch, 1, h, source(c, image, channel, w, size), channel, 1, lines, VECTOR_BYTES, 0))
        out = c.out + image * c.on + channel * c.oc + h * c.oh + w * c.ow
        residual = c.residual + image * c.rn + channel * c.rc + h * c.rh + w * c.rw
        finish_block(c, lines, min(lanes, c.columns - w), out, residual if c.residual != 0 else 0, like, size)
