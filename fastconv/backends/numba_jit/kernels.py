# mypy: ignore-errors
# Numba compiles this file: calls of intrinsics leave out what mypy takes for their first argument.
"""The compiled loops of the Numba backend, as *stages*: C functions ``void(Context*, int64 ...)`` that find each other by
address, in the context.

A convolution is cut into items: (chunk of output channels, image, group, output plane, block of rows and columns), which
threads take as `shares` deals them out. For each block it fills a *slab*, a padded copy of what the block reads that fits in
L2, so that everything after it is a valid convolution: pixel p of the block reads tap k at ``pixels[p] + taps[k]``, two
tables of byte offsets. Where nothing is padded and pixels can be read in place, the slab is the input itself.

k runs over (channel, kernel axes) in the order of the weights. Each sum is one chain of multiply-adds in that order,
whatever the blocks, threads and tiles, so results do not depend on any of them.

Arrays are addressed by bytes: any strides, and nothing here needs the GIL or allocates.

Stages rather than one program: one that a problem does not need is not compiled. Folding shapes in as constants was not worth a
compilation per shape: the inner loop already has its tile size fixed, and reads its offsets from L1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.extending import register_jitable

from ... import activations
from .contexts import BROADCAST, DIRECT, GEMM, HALF_BYTES, LEAST_HOP, MOST_HOP, ROWS, SURPLUS, VECTOR_BYTES
from .pipeline import jit
from .rows import copy_every, copy_row, copy_vector, finish_row, transpose
from .shares import next_item
from .vectors import invoke, load, store

for _function in (activations.two_product, activations.logistic):
    register_jitable(_function)


# ---- the slab


@jit
def copy_line(source: Any, step: Any, target: Any, count: Any, like: Any) -> None:
    """`count` elements, `step` elements apart, to neighbouring ones."""
    if step == 1:
        if count > 0:
            copy_row(source, target, 0, count, count, like)
    else:
        for i in range(count):
            store(target, i, load(source, i * step, like), like)


@jit
def fill_line(c: Any, source: Any, hop: Any, line: Any, start: Any, step: Any, length: Any, begin: Any, end: Any, like: Any,
              size: Any) -> None:
    """`length` padded coordinates start, start + step, ... of an input row (address `source`, 0: all padding); those from
    number `begin` to `end` lie in the input, `hop` elements apart."""
    first = source + (start - c.low_w) * c.xw
    if source == 0:
        begin, end, first = 0, 0, line  # where lanes that are not read can be: else each vector takes as long as a fault
    if hop == 1:
        copy_row(first, line, begin, end, length, like)
        if c.zeros != 0:
            return
    elif LEAST_HOP <= hop <= MOST_HOP:
        if begin < end:
            copy_every(first + begin * hop * size, line + begin * size, end - begin, hop, like)
    else:
        copy_line(first + begin * hop * size, hop, line + begin * size, end - begin, like)
    for i in range(length - (end - begin)):
        if i >= begin:
            i += end - begin
        index = load(c.map_w, start + i * step, 0) if source != 0 else -1
        store(line, i, load(source + index * c.xw, 0, like) if index >= 0 else like, like)


@jit
def fill_pixels(c: Any, source: Any, target: Any, first: Any, count: Any, like: Any, size: Any) -> None:
    """The same with the channels of a pixel side by side, as they are in the input."""
    for i in range(count):
        index = load(c.map_w, first + i * c.step_w, 0) if source != 0 else -1
        line = target + i * c.slab_w
        if c.slab_w == VECTOR_BYTES:
            copy_vector(source + index * c.xw if index >= 0 else 0, line, like)
        elif index >= 0:
            copy_line(source + index * c.xw, 1, line, c.inputs, like)
        else:
            for channel in range(c.inputs):
                store(line, channel, like, like)


def fill_stage(c: Any, image: Any, slab: Any, od: Any, h0: Any, height: Any, w0: Any, width: Any, like: Any, size: Any) -> None:
    """Copy what the block at rows h0.., columns w0.. of output plane `od` reads of the group whose data are at `image`."""
    spans_h = c.span_h + (height - 1) * c.grow_h
    spans_w = c.span_w + (width - 1) * c.grow_w
    together = c.inputs > 1 and c.slab_c == size and c.slab_w == c.inputs * size
    step = c.phases * c.step_w
    hop = step * c.xw // size
    for phase in range(c.phases):
        length = (spans_w - phase + c.phases - 1) // c.phases
        start = w0 * c.stride_w + phase * c.step_w
        begin = min(max(-((start - c.low_w) // step), 0), length)
        end = max(min(-((start - c.low_w - c.size_w) // step), length), begin)
        for d in range(c.kernel_d):
            plane = load(c.map_d, od * c.stride_d + d * c.dilation_d, 0)
            for channel in range(1 if together else c.inputs):
                for h in range(spans_h):
                    row = load(c.map_h, h0 * c.stride_h + h * c.step_h, 0)
                    source = image + channel * c.xc + plane * c.xd + row * c.xh if plane >= 0 and row >= 0 else 0
                    target = slab + channel * c.slab_c + d * c.slab_d + h * c.slab_h + phase * c.slab_phase
                    if together:
                        fill_pixels(c, source, target, start, length, like, size)
                    else:
                        fill_line(c, source, hop, target, start, step, length, begin, end, like, size)


@jit
def list_pixels(c: Any, pixels: Any, places: Any, height: Any, width: Any, size: Any) -> Any:
    """Write the tables of a block, and return their length.

    gemm: where each pixel reads; broadcast: and where its sums go. direct: where each vector of pixels reads, and where it
    belongs in a line of sums or in the output. The last vector of a row begins earlier, and is computed in part again; one
    that is longer than the row has a surplus, which the next row overwrites.
    """
    count = 0
    step = VECTOR_BYTES // size if c.algorithm == DIRECT else 1
    pitch = c.oh if c.straight != 0 else width * c.place_w
    for h in range(height):
        for w in range(0, width, step):
            if c.algorithm == DIRECT:
                w = min(w, max(width - step, 0))
            store(pixels, count, h * c.pixel_h + w * c.pixel_w, 0)
            store(places, count, h * pitch + w * c.place_w, 0)
            count += 1
    for i in range(SURPLUS):  # a tile may take more vectors than there are
        store(pixels, count + i, load(pixels, count - 1, 0), 0)
        store(places, count + i, load(places, count - 1, 0), 0)
    return count


# ---- one block of output channels over one block of pixels


def gemm_stage(c: Any, x: Any, weights: Any, pixels: Any, sums: Any, taps: Any, all_taps: Any, channels: Any, count: Any,
               like: Any, size: Any) -> None:
    """Output channels on the vector: sums of `all_taps` products, `pass_depth` at a time: their weights stay in L1 for all
    pixels."""
    vectors = 2 if channels * size > VECTOR_BYTES else 1
    pitch = vectors * VECTOR_BYTES
    tiles = (count + ROWS - 1) // ROWS  # see `blocking._rows`
    rows, larger = count // tiles, count % tiles
    tile_of = c.tile_of + 8 * ((vectors if channels * size > HALF_BYTES else 0) * (ROWS + 1) + rows)
    split = larger * (rows + 1)  # so many pixels are in the larger tiles
    k = 0
    while k < all_taps:  # a range of unknown step could raise
        depth = min(c.pass_depth, all_taps - k)
        fresh, left = np.int64(k == 0), tiles - larger
        offsets, factors = taps + 8 * k, weights + k * pitch
        if larger > 0:
            invoke(load(tile_of, 1, 0), (larger, depth, offsets, pixels, x, factors, sums, fresh))
        invoke(load(tile_of, 0, 0), (left, depth, offsets, pixels + 8 * split, x, factors, sums + split * pitch, fresh))
        k += c.pass_depth


def direct_stage(c: Any, x: Any, weights: Any, pixels: Any, target: Any, channels: Any, count: Any, bias: Any, residual: Any,
                 like: Any, size: Any) -> None:
    """Neighbouring pixels on the vector, `count` of them: to the output at `target`, or to lines."""
    invoke(load(c.tile_of, channels, 0), (
        count, c.depth, c.taps, pixels, pixels + c.places - c.pixels, x, weights, target,
        c.oc if c.straight != 0 else c.line_pitch, bias, residual, c.rc, c.relu * c.straight))


# ---- the epilogue


@jit
def finish_line(c: Any, line: Any, count: Any, out: Any, out_step: Any, residual: Any, residual_step: Any, bias: Any,
                bias_step: Any, like: Any, size: Any) -> None:
    """out = act(line + bias + residual) for `count` elements; steps in elements. The line is in L1, so passes are cheap; what
    is most common takes one."""
    if residual == 0 and c.activate == 0 and out_step == 1 and bias_step == 0:
        finish_row(line, out, count, load(bias, 0, like) if bias != 0 else like, c.relu, c.past, like)
        return
    if bias != 0 and bias_step == 0:
        b = load(bias, 0, like)
        for i in range(count):
            store(line, i, load(line, i, like) + b, like)
    elif bias != 0:
        for i in range(count):
            store(line, i, load(line, i, like) + load(bias, i, like), like)
    if residual != 0:
        if residual_step == 1:
            for i in range(count):
                store(line, i, load(line, i, like) + load(residual, i, like), like)
        else:
            for i in range(count):
                store(line, i, load(line, i, like) + load(residual, i * residual_step, like), like)
    if c.activate != 0:
        invoke(c.activate, (c.self, line, count))
    if c.relu != 0:
        for i in range(count):
            v = load(line, i, like)
            store(line, i, like if v < like else v, like)
    if out_step == 1:
        for i in range(count):
            store(out, i, load(line, i, like), like)
    else:
        for i in range(count):
            store(out, i * out_step, load(line, i, like), like)


def finish_stage(c: Any, scratch: Any, channels: Any, height: Any, width: Any, out: Any, residual: Any, bias: Any, like: Any,
                 size: Any) -> None:
    """Sums to outputs. But for direct these are a line of channels per pixel: transposed, unless the output is channels_last as
    well."""
    lanes = VECTOR_BYTES // size
    count = height * width
    vectors = (channels + lanes - 1) // lanes
    pitch = c.place_w if c.algorithm == BROADCAST else vectors * VECTOR_BYTES
    sums, lines = scratch + c.sums, scratch + c.lines
    if c.algorithm != DIRECT and c.oc == size and channels > 1:
        for p in range(count):
            h, w = p // width, p % width
            finish_line(c, sums + p * pitch, channels, out + h * c.oh + w * c.ow, 1,
                        residual + h * c.rh + w * c.rw if residual != 0 else 0, c.rc // size, bias, 1, like, size)
        return
    if c.algorithm != DIRECT:
        for v in range(vectors):
            for p in range(0, count, lanes):
                transpose(sums + p * pitch + v * VECTOR_BYTES, pitch, lines + v * lanes * c.line_pitch + p * size, c.line_pitch,
                          like)
    if c.oh == width * c.ow and (residual == 0 or c.rh == width * c.rw):
        height, width = 1, count  # rows that follow each other in memory are finished as one
    for i in range(channels * height):
        o, h = i // height, i % height
        finish_line(c, lines + o * c.line_pitch + h * width * size, width, out + o * c.oc + h * c.oh, c.ow // size,
                    residual + o * c.rc + h * c.rh if residual != 0 else 0, c.rw // size,
                    bias + o * size if bias != 0 else 0, 0, like, size)


def activation_stage(name: str) -> Any:
    """The stage that applies an activation to a line in place. float32 is computed in float64 and rounded once."""
    if name == "leaky_relu":

        def activate(c, line, count, like, size):  # type: ignore[no-untyped-def]
            for i in range(count):
                v = np.float64(load(line, i, like))
                store(line, i, v * c.parameter if v < 0 else v, like)
    else:
        scalar = math.tanh if name == "tanh" else jit(activations.SCALAR[name])

        def activate(c, line, count, like, size):  # type: ignore[no-untyped-def]
            for i in range(count):
                store(line, i, scalar(np.float64(load(line, i, like))), like)

    return activate


# ---- the two jobs


@jit
def channel_range(c: Any, block: Any) -> Any:
    """First and last output channel of a block: an equal share of single ones (direct), of vectors (broadcast) or of pairs."""
    return block * c.units // c.blocks * c.unit, min((block + 1) * c.units // c.blocks * c.unit, c.outputs)


@jit
def compute_block(c: Any, x: Any, scratch: Any, group: Any, block: Any, begin: Any, count: Any, height: Any, width: Any,
                  out: Any, residual: Any, size: Any) -> None:
    """A block of output channels, at `count` entries of the table of pixels; `out` and `residual`: of channel 0."""
    first, last = channel_range(c, block)
    channel, channels = group * c.outputs + first, last - first
    stored = (group * c.packed + first) * size  # before it, of the bias, and of each k of the weights
    weights, bias, pixels = c.weights + stored * c.depth, c.bias + stored, scratch + c.pixels + 8 * begin
    out += channel * c.oc
    residual = residual + channel * c.rc if residual != 0 else 0
    if c.straight != 0:
        invoke(c.tile, (c.self, x, weights, pixels, out, channels, count, bias, residual))
    elif c.algorithm != GEMM:
        sums = scratch + (c.lines if c.algorithm == DIRECT else c.sums)
        invoke(c.tile, (c.self, x, weights, pixels, sums, channels, count, bias, 0))
        invoke(c.finish, (c.self, scratch, channels, height, width, out, residual, 0))
    else:
        invoke(c.tile, (c.self, x, weights, pixels, scratch + c.sums, c.taps, c.depth, channels, count))
        invoke(c.finish, (c.self, scratch, channels, height, width, out, residual, bias))


def convolve_stage(c: Any, part: Any, like: Any, size: Any) -> None:
    """What one part gets of the items of a round."""
    places = c.batch * c.groups * c.planes * c.blocks_h * c.blocks_w
    scratch = c.scratch + part * c.scratch_bytes
    filled, listed, count = -1, -1, 0
    item, end = -1, 0
    while True:
        item, end = next_item(c, places * c.chunks, part, item, end)
        if item < 0:
            return
        chunk, place = item // places, item % places
        rest, block_w = place // c.blocks_w, place % c.blocks_w
        rest, block_h = rest // c.blocks_h, rest % c.blocks_h
        rest, od = rest // c.planes, rest % c.planes
        n, g = rest // c.groups, rest % c.groups
        h0, w0 = block_h * c.rows // c.blocks_h, block_w * c.columns // c.blocks_w
        height, width = (block_h + 1) * c.rows // c.blocks_h - h0, (block_w + 1) * c.columns // c.blocks_w - w0
        x = c.x + n * c.xn + g * c.inputs * c.xc
        if c.slab == 0:
            x += od * c.stride_d * c.xd + h0 * c.pixel_h + w0 * c.pixel_w
        else:
            if place != filled:
                invoke(c.fill, (c.self, x, scratch, od, h0, height, w0, width))
            x, filled = scratch, place
        if height * c.columns + width != listed:
            count = list_pixels(c, scratch + c.pixels, scratch + c.places, height, width, size)
            listed = height * c.columns + width
        out = c.out + n * c.on + od * c.od + h0 * c.oh + w0 * c.ow
        residual = c.residual + n * c.rn + od * c.rd + h0 * c.rh + w0 * c.rw if c.residual != 0 else 0
        fit = c.fit if c.algorithm == DIRECT and c.straight != 0 else count
        vector = 0
        while vector < count:  # a range of unknown step could raise
            for block in range(chunk * c.blocks // c.chunks, (chunk + 1) * c.blocks // c.chunks):
                compute_block(c, x, scratch, g, block, vector, min(fit, count - vector), height, width, out, residual, size)
            vector += fit


def pack_stage(c: Any, part: Any, like: Any, size: Any) -> None:
    """Weights (output, k) at c.x to [block][k][width] at c.weights; full vectors but for direct, with zeros beyond the last."""
    lanes = VECTOR_BYTES // size
    units = c.groups * c.blocks
    for unit in range(part * units // c.parts, (part + 1) * units // c.parts):
        group, block = unit // c.blocks, unit % c.blocks
        first, last = channel_range(c, block)
        source = c.x + (group * c.outputs + first) * c.depth * size
        target = c.weights + (group * c.packed + first) * c.depth * size
        count = width = last - first
        if c.algorithm != DIRECT:
            width = (count + lanes - 1) // lanes * lanes
        whole = count // lanes * lanes  # channels in full vectors: transposed a square at a time
        even = c.depth // lanes * lanes if whole > 0 else 0
        for k in range(0, even, lanes):
            for o in range(0, whole, lanes):
                transpose(source + (o * c.depth + k) * size, c.depth * size, target + (k * width + o) * size, width * size,
                          like)
        for k in range(c.depth):
            for o in range(0 if k >= even else whole, width):
                store(target, k * width + o, load(source, o * c.depth + k, like) if o < count else like, like)
