# mypy: ignore-errors
# Numba compiles this file: calls of intrinsics leave out what mypy takes for their first argument.
"""The compiled loops of winograd: F(m x n, r x s), fused (the native one is `kernels/winograd.cpp`, the mathematics are in
`algorithms/winograd.py`, the tables in `winograd.py`).

A block of tiles goes all the way before the next begins, in the caches of one thread:

    V[product][vector of channels][tile][lanes]   transformed inputs, the channels of components being more of them: rows of the
                          input are transposed; the vertical transform is done once per column, the horizontal writes to V
    M[product][tile][2 vectors of oc]   one matrix product per product, by gemm's register tiles
    Y                     from M; rows of outputs are transposed back

A *strip* is the tiles of a block that follow each other along a row. The transforms of an axis are stages of their own, which
all shapes share: nothing is compiled for the sake of a size, a stride or a number of channels.

Bottleneck: multiply-adds in the products (36 of direct's 144 for F(4x4, 3x3)), then the transforms.
"""

from __future__ import annotations

from typing import Any

from .contexts import SPOILT, VECTOR_BYTES
from .kernels import finish_line
from .pipeline import jit
from .rows import put_square, take_square, transpose
from .shares import next_item
from .vectors import invoke, load, store


@jit
def strip(c: Any, tile: Any, end: Any) -> Any:
    """Where a strip lies: (image, output plane, row of tiles, column of tiles, tiles)."""
    row, column = tile // c.tiles_w, tile % c.tiles_w
    slice_, row = row // c.tiles_h, row % c.tiles_h
    return slice_ // c.planes, slice_ % c.planes, row, column, min(load(c.left_w, column, 0), end - tile)


@jit
def clear(target: Any, count: Any, like: Any) -> None:
    for i in range(count):
        store(target, i, like, like)


# ---- V


@jit
def fill_row(c: Any, source: Any, target: Any, column: Any, pixels: Any, channels: Any, shared: Any, like: Any,
             size: Any) -> None:
    """[pixel][lanes] of a row of the input at `source` (0: zeros), whose columns are in the table from number `column` on;
    lanes beyond `channels` are 0. Up to a vector less one pixel beyond the last may be written. shared: lanes are 0 before, and
    the others belong to other components."""
    lanes = VECTOR_BYTES // size
    if source == 0:
        if not shared:
            clear(target, pixels * lanes, like)
        return
    i = 0
    while i < pixels:
        place = load(c.column_at, column + i, 0)
        if place < 0:
            if not shared:
                clear(target + i * VECTOR_BYTES, lanes, like)
            i += 1
            continue
        run = min(load(c.runs, column + i, 0), pixels - i)  # of columns `hop_w` apart
        begin, hop = source + place * c.xw, c.hop_w * c.xw
        if not shared and (hop == size or run == 1):
            for j in range(0, run, lanes):
                take_square(begin + j * size, c.xc, target + (i + j) * VECTOR_BYTES, VECTOR_BYTES, channels,
                            min(lanes, run - j), like)
        else:
            if not shared:
                clear(target + i * VECTOR_BYTES, run * lanes, like)
            if c.xc == size:  # a row is a pixel here
                for j in range(run):
                    for channel in range(channels):
                        store(target, (i + j) * lanes + channel, load(begin + j * hop, channel, like), like)
            else:
                for channel in range(channels):
                    for j in range(run):
                        store(target, (i + j) * lanes + channel, load(begin + channel * c.xc + j * hop, 0, like), like)
        i += run


@jit
def fill_vector(c: Any, vector: Any, image: Any, group: Any, plane: Any, row: Any, column: Any, pixels: Any, rows: Any,
                like: Any, size: Any) -> None:
    """The rows that a strip of tiles reads, one vector of them: channels of one component, or of several."""
    lanes = VECTOR_BYTES // size
    lane, end = vector * lanes, min((vector + 1) * lanes, c.components * c.share)
    shared = c.share % lanes != 0
    if shared:
        clear(rows, c.n_h * pixels * lanes, like)
    while lane < end:
        component, channel = lane // c.share, lane % c.share
        d = load(c.plane_at, load(c.component_at, 3 * component, 0) * c.planes + plane, 0)
        h = (load(c.component_at, 3 * component + 1, 0) * c.tiles_h + row) * c.n_h
        w = load(c.component_at, 3 * component + 2, 0) * c.columns_in + load(c.column_of, column, 0)
        x = c.x + image * c.xn + (group * c.inputs + channel) * c.xc + d * c.xd
        target = rows + lane % lanes * size
        for i in range(c.n_h):
            y = load(c.row_at, h + i, 0)
            fill_row(c, x + y * c.xh if y >= 0 and d >= 0 else 0, target + i * pixels * VECTOR_BYTES, w, pixels,
                     min(c.inputs - channel, end - lane), shared, like, size)
        lane = min((component + 1) * c.share, end)


def inputs_stage(c: Any, group: Any, first: Any, end: Any, scratch: Any, like: Any, size: Any) -> None:
    """V of the tiles first .. end."""
    rows, half = scratch + c.inputs_at, scratch + c.half_at
    tile = first
    while tile < end:
        image, plane, row, column, count = strip(c, tile, end)
        pixels = (count - 1) * c.m_w + c.n_w
        line = pixels * VECTOR_BYTES
        for vector in range(c.vectors):
            fill_vector(c, vector, image, group, plane, row, column, pixels, rows, like, size)
            source = rows
            if c.n_h > 1:
                invoke(c.in_h, (rows, line, VECTOR_BYTES, half, line, VECTOR_BYTES, pixels, 0, 0))
                source = half
            v = scratch + c.v + (vector * c.most + tile - first) * VECTOR_BYTES
            for i in range(c.n_h):
                invoke(c.in_w, (source + i * line, VECTOR_BYTES, c.m_w * VECTOR_BYTES, v + i * c.n_w * c.v_plane,
                                c.v_plane, VECTOR_BYTES, count, 0, 0))
        tile += count


# ---- Y


@jit
def write_row(c: Any, source: Any, pixels: Any, channels: Any, out: Any, residual: Any, lines: Any, like: Any,
              size: Any) -> None:
    """out = act(source + residual) for the pixels of a row and a vector of output channels."""
    lanes = VECTOR_BYTES // size
    hop, residual_hop = c.dilation_w * c.ow, c.dilation_w * c.rw
    if hop == size and residual == 0 and c.activate == 0:
        for i in range(0, pixels, lanes):
            put_square(source + i * VECTOR_BYTES, VECTOR_BYTES, out + i * size, c.oc, channels, min(lanes, pixels - i), c.relu,
                       like)
        return
    count, step, residual_step, line = channels, c.oc, c.rc, VECTOR_BYTES  # a pixel's channels are a line, where they lie so
    lengths = pixels, hop, residual_hop
    if c.oc != size or channels == 1:  # else a row's pixels
        for i in range(0, pixels, lanes):
            transpose(source + i * VECTOR_BYTES, VECTOR_BYTES, lines + i * size, c.line_pitch, like)
        source, line = lines, c.line_pitch
        count, step, residual_step = lengths
        lengths = channels, c.oc, c.rc
    for i in range(lengths[0]):
        finish_line(c, source + i * line, count, out + i * lengths[1], step // size,
                    residual + i * lengths[2] if residual != 0 else 0, residual_step // size, 0, 0, like, size)


def outputs_stage(c: Any, group: Any, pair: Any, first: Any, end: Any, scratch: Any, like: Any, size: Any) -> None:
    """Y of a pair of vectors of output channels from M."""
    lanes = VECTOR_BYTES // size
    channels = min(2 * lanes, c.outputs - pair * 2 * lanes)
    vectors = 2 if channels > lanes else 1
    half, flag = scratch + c.half_at, scratch + c.flag
    tile = first
    while tile < end:
        image, plane, row, column, count = strip(c, tile, end)
        line = count * c.m_w * VECTOR_BYTES
        width, height = min(count * c.m_w, load(c.columns_left, column, 0)), load(c.rows_left, row, 0)
        spoilt = False
        for v in range(vectors):
            m = scratch + c.m + ((tile - first) * vectors + v) * VECTOR_BYTES
            for i in range(c.n_h):
                invoke(c.out_w, (m + i * c.n_w * c.m_plane, c.m_plane, vectors * VECTOR_BYTES, half + i * line,
                                 VECTOR_BYTES, c.m_w * VECTOR_BYTES, count, 0, 0))
            outputs = scratch + c.outputs_at + v * c.outputs_plane
            invoke(c.out_h, (half, line, VECTOR_BYTES, outputs, line, VECTOR_BYTES, width,
                             c.bias + ((group * c.blocks + pair) * 2 + v) * VECTOR_BYTES, flag))
            for i in range(lanes):
                spoilt |= not load(flag, i, like) == like
        if spoilt and c.repair == 0:
            store(c.self, SPOILT, 1, 0)
        elif spoilt:
            invoke(c.repair, (c.self, group, pair, tile, count, scratch))
        for v in range(vectors):
            channel = group * c.outputs + (pair * 2 + v) * lanes
            for i in range(height):
                h, w = load(c.out_row, row, 0) + i * c.dilation_h, load(c.out_column, column, 0)
                out = c.out + image * c.on + channel * c.oc + plane * c.od + h * c.oh + w * c.ow
                residual = c.residual + image * c.rn + channel * c.rc + plane * c.rd + h * c.rh + w * c.rw
                write_row(c, scratch + c.outputs_at + v * c.outputs_plane + i * line, width, min(lanes, channels - v * lanes),
                          out, residual if c.residual != 0 else 0, scratch + c.lines, like, size)
        tile += count


# ---- what is not finite stays in its windows


@jit
def fill_window(c: Any, x: Any, plane: Any, h: Any, w: Any, target: Any, like: Any, size: Any) -> None:
    """[channel][kd][row][column] of what a tile reads whose first output is (h, w), the padding written out."""
    for channel in range(c.inputs):
        for a in range(c.kernel_d):
            d = load(c.map_d, plane * c.stride_d + a * c.dilation_d, 0)
            for i in range(c.window_rows):
                y = h * c.stride_h + i * c.dilation_h
                row = load(c.map_h, y, 0) if y < c.span_h else -1
                for j in range(c.window_columns):
                    z = w * c.stride_w + j * c.dilation_w
                    column = load(c.map_w, z, 0) if z < c.span_w else -1
                    inside = d >= 0 and row >= 0 and column >= 0
                    value = load(x + channel * c.xc + d * c.xd + row * c.xh + column * c.xw, 0, like) if inside else like
                    store(target, ((channel * c.kernel_d + a) * c.window_rows + i) * c.window_columns + j, value, like)


def repair_stage(c: Any, group: Any, pair: Any, tile: Any, count: Any, scratch: Any, like: Any, size: Any) -> None:
    """Each tile of a strip with a NaN or infinity among its outputs once more, its products summed as gemm does."""
    lanes = VECTOR_BYTES // size
    channels = min(2 * lanes, c.outputs - pair * 2 * lanes)
    vectors = 2 if channels > lanes else 1
    image, plane, row, column, _ = strip(c, tile, tile + count)
    line = count * c.m_w * lanes
    height, all_columns = load(c.rows_left, row, 0), load(c.columns_left, column, 0)
    outputs, window, sums = scratch + c.outputs_at, scratch + c.window, scratch + c.sums
    for t in range(count):
        width = min(c.m_w, all_columns - t * c.m_w)
        total = like
        for v in range(vectors):
            for i in range(height):
                for j in range(width * lanes):
                    total += load(outputs + v * c.outputs_plane, i * line + t * c.m_w * lanes + j, like) * like
        if total == like:
            continue
        fill_window(c, c.x + image * c.xn + group * c.inputs * c.xc, plane, load(c.out_row, row, 0),
                    load(c.out_column, column + t, 0), window, like, size)
        for i in range(c.m_h * c.m_w):  # beyond the output as well, so that there are two sizes of register tiles, not all
            place = i // c.m_w * c.stride_h * c.window_columns + i % c.m_w * c.stride_w
            store(scratch + c.pixels, i, place * size, 0)
        weights = c.weights + (group * c.blocks + pair) * c.depth * 2 * VECTOR_BYTES
        invoke(c.tile, (c.self, window, weights, scratch + c.pixels, sums, c.taps, c.depth, channels, c.m_h * c.m_w))
        bias = c.bias + (group * c.blocks + pair) * 2 * VECTOR_BYTES
        for i in range(height * width):
            y, z = i // width, i % width
            for v in range(vectors):
                source, target = ((y * c.m_w + z) * vectors + v) * lanes, y * line + (t * c.m_w + z) * lanes
                for lane in range(lanes):
                    value = load(sums, source + lane, like) + load(bias, v * lanes + lane, like)
                    store(outputs + v * c.outputs_plane, target + lane, value, like)


# ---- the two jobs


def winograd_stage(c: Any, part: Any, like: Any, size: Any) -> None:
    """What one part gets of the items of a round: (chunk of output channels, group, block of tiles)."""
    item, end = -1, 0
    while True:
        item, end = next_item(c, c.groups * c.blocks_w * c.chunks, part, item, end)
        if item < 0:
            return
        convolve(c, item, c.scratch + part * c.scratch_bytes, size)


@jit
def convolve(c: Any, item: Any, scratch: Any, size: Any) -> None:
    """A block of tiles, of a chunk of the output channels."""
    lanes, places = VECTOR_BYTES // size, c.groups * c.blocks_w
    chunk, place = item // places, item % places
    group, block = place // c.blocks_w, place % c.blocks_w
    first, end = block * c.tiles // c.blocks_w, (block + 1) * c.tiles // c.blocks_w
    invoke(c.fill, (c.self, group, first, end, scratch))
    for pair in range(chunk * c.blocks // c.chunks, (chunk + 1) * c.blocks // c.chunks):
        channels = min(2 * lanes, c.outputs - pair * 2 * lanes)
        pitch = 2 * VECTOR_BYTES if channels > lanes else VECTOR_BYTES
        u = c.weights + c.transformed + (group * c.blocks + pair) * c.terms * 2 * VECTOR_BYTES
        for product in range(c.products):
            kind = load(c.kinds, product, 0)
            depth = load(c.depths, kind, 0)
            invoke(c.tile, (c.self, scratch + c.v + product * c.v_plane, u, c.pixel_at, scratch + c.m + product * c.m_plane,
                            load(c.taps_of, kind, 0), depth, channels, end - first))
            u += depth * pitch
        invoke(c.finish, (c.self, group, pair, first, end, scratch))


def transform_weights_stage(c: Any, part: Any, like: Any, size: Any) -> None:
    """U of the pairs of one part, from what gemm packs at c.x: a component's taps of an input channel at a time."""
    lanes = VECTOR_BYTES // size
    scratch = c.scratch + part * c.scratch_bytes
    dealt, half, whole = scratch + c.inputs_at, scratch + c.half_at, scratch + c.outputs_at
    units = c.groups * c.blocks
    for unit in range(part * units // c.parts, (part + 1) * units // c.parts):
        vectors = 2 if c.outputs - unit % c.blocks * 2 * lanes > lanes else 1
        pitch = vectors * VECTOR_BYTES
        plain = c.x + unit * c.depth * 2 * VECTOR_BYTES
        target = c.weights + c.transformed + unit * c.terms * 2 * VECTOR_BYTES
        for component in range(c.components):
            for channel in range(c.inputs):
                for tap in range(c.window_rows * c.window_columns):  # those of a component; -1: it lacks this one
                    at = load(c.column_at, component * c.window_rows * c.window_columns + tap, 0)
                    for i in range(vectors * lanes):
                        value = load(plain + (channel * c.pass_depth + at) * pitch, i, like) if at >= 0 else like
                        store(dealt, tap * vectors * lanes + i, value, like)
                line = c.window_columns * pitch
                invoke(c.in_h, (dealt, line, VECTOR_BYTES, half, line, VECTOR_BYTES, c.window_columns * vectors, 0, 0))
                for i in range(c.n_h):
                    invoke(c.in_w, (half + i * line, pitch, VECTOR_BYTES, whole + i * c.n_w * pitch, pitch,
                                    VECTOR_BYTES, vectors, 0, 0))
                u = target
                for product in range(c.products):
                    kind = load(c.kinds, product, 0)
                    first = load(c.rows_left, kind * c.components + component, 0)  # -1: it has no such product
                    if first >= 0:
                        for i in range(vectors * lanes):
                            value = load(whole, product * vectors * lanes + i, like)
                            store(u, (first + channel) * vectors * lanes + i, value, like)
                    u += load(c.depths, kind, 0) * pitch


STAGES = {
    "winograd": (winograd_stage, 1),
    "winograd inputs": (inputs_stage, 4),
    "winograd outputs": (outputs_stage, 5),
    "winograd repair": (repair_stage, 5),
    "winograd weights": (transform_weights_stage, 1),
}
