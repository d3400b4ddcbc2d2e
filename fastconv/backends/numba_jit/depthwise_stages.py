# mypy: ignore-errors
# Numba compiles this file: calls of intrinsics leave out what mypy takes for their first argument.
"""The compiled loops of depthwise: items, (image, output channel, band of rows), by register tiles (see `depthwise_tiles`),
which write the outputs themselves, or, for what else there is to do, to a vector of each row first. Each kernel, stride and
number of rows has a stage of its own, the only thing that is compiled for the sake of a shape."""

from __future__ import annotations

from typing import Any

from .contexts import VECTOR_BYTES
from .depthwise_tiles import tiles
from .kernels import finish_line, jit
from .vectors import invoke, load


@jit
def place(c: Any, item: Any) -> Any:
    """(image, output channel, first row)."""
    rest, h = item // c.blocks_h, load(c.row_at, item % c.blocks_h, 0)
    channels = c.groups * c.outputs
    return rest // channels, rest % channels, h


def tile_stage(kernel: int, stride: int, rows: int) -> Any:
    tile = tiles(kernel, stride, rows)

    def stage(c, begin, end, lines, first, last, like, size):  # type: ignore[no-untyped-def]
        """Columns first .. last of these items, a vector more or less; to `lines`, a vector of each row, unless that is 0."""
        lanes = VECTOR_BYTES // size
        for item in range(begin, end):
            image, channel, h = place(c, item)
            x = c.x + image * c.xn + channel // c.outputs * c.xc
            out = lines if lines != 0 else c.out + image * c.on + channel * c.oc + h * c.oh
            bias = c.bias + channel * size if c.bias != 0 else c.column_at
            w = first
            while w < last:
                column = w * stride - c.low_w
                inside = min((last - w) // lanes, (c.size_w - kernel + 1 - column) // (stride * lanes)) if column >= 0 else 0
                blocks = max(inside, 1)
                tile(inside < 1, blocks, c.map_h + 8 * h * stride, x + column * size, c.xh, c.column_at,
                     c.weights + channel * c.depth * size, bias, out + (w - first) * size, VECTOR_BYTES if lines != 0 else c.oh,
                     c.relu if lines == 0 else 0, column, c.size_w, c.columns - w, like)
                w += blocks * lanes

    return stage


@jit
def finish_block(c: Any, lines: Any, count: Any, out: Any, residual: Any, like: Any, size: Any) -> None:
    for r in range(c.m_h):
        finish_line(c, lines + r * VECTOR_BYTES, count, out + r * c.oh, c.ow // size,
                    residual + r * c.rh if residual != 0 else 0, c.rw // size, 0, 0, like, size)


def depthwise_stage(c: Any, part: Any, like: Any, size: Any) -> None:
    """The items of one part of a round."""
    lanes = VECTOR_BYTES // size
    items = c.batch * c.groups * c.outputs * c.blocks_h
    lines = c.scratch + part * c.scratch_bytes
    part += c.first
    begin, end = part * items // c.parts, (part + 1) * items // c.parts
    if c.residual == 0 and c.activate == 0 and c.ow == size:
        invoke(c.tile, (c.self, begin, end, 0, 0, c.columns))
        return
    for item in range(begin, end):
        image, channel, h = place(c, item)
        for w in range(0, c.columns, lanes):
            last = min(w + lanes, c.columns)
            invoke(c.tile, (c.self, item, item + 1, lines, w, last))
            out = c.out + image * c.on + channel * c.oc + h * c.oh + w * c.ow
            residual = c.residual + image * c.rn + channel * c.rc + h * c.rh + w * c.rw
            finish_block(c, lines, last - w, out, residual if c.residual != 0 else 0, like, size)
