# mypy: ignore-errors
# Numba compiles this file: calls of intrinsics leave out what mypy takes for their first argument.
"""The compiled loops of fft (the native one is `kernels/fft.cpp`, the tables are in `fft.py`).

A tile goes through *steps*, each a stage for some channels: rows are loaded, columns transformed, then rows to spectra,
products and back, columns back, rows finished. Where tiles are many, a thread does all steps of a tile; where they are few and
large, all threads share the items of one step. What is done to an item does not depend on who does it.

    area       [depth][strip: block of columns][halves][row][lanes], after columns [depth][strip][row k][real, real of partners,
               imaginary, imaginary of partners]: two columns are the real and imaginary part of one transform, and only the
               n1 / 2 + 1 rows that are not conjugates of others go on
    spectrum   [block of `lanes` rows][depth][real, imaginary][column frequency][lanes]

A *board* is the memory of a tile, a *desk* that of a part. Weights are packed by the first three steps, as tiles of a batch.

Bottleneck: arithmetic of the transforms.
"""

from __future__ import annotations

from typing import Any

from .contexts import CHUNK, FINE, OF_A_TILE, SPOILT, VECTOR_BYTES
from .fourier import transform
from .kernels import finish_line
from .pipeline import jit
from .rows import put_square, take_square, transpose
from .shares import next_item
from .spectra import clear_vectors, copy_vectors, deal_row, gather_row, join_columns, products, split_columns, turn_columns
from .vectors import invoke, load, store

turn_there, turn_back = turn_columns(False), turn_columns(True)


@jit
def spot(c: Any, tile: Any) -> Any:
    """(image, group, tile along depth, height and width)."""
    rest, w = tile // c.tiles_w, tile % c.tiles_w
    rest, h = rest // c.tiles_h, rest % c.tiles_h
    rest, d = rest // c.tiles_d, rest % c.tiles_d
    return rest // c.groups, rest % c.groups, d, h, w


@jit
def spectra_place(c: Any, tile: Any, board: Any, desk: Any) -> Any:
    """Where the inputs' spectra of a tile are: on the desk those of a block of rows, on the board all; or packed."""
    if c.stored == 0:
        return desk + c.own
    return board + c.spectra if c.stored == 1 else c.weights + tile * c.inputs * c.spectrum_bytes


def fft_stage(c: Any, part: Any, like: Any, size: Any) -> None:
    """What one part gets of the tiles of a round; or its share of one step of a tile, which is this round."""
    if c.sharing > 0:
        desk = c.scratch + c.board_bytes + part * c.desk_bytes
        perform(c, c.first // c.sharing // c.steps, c.first // c.sharing % c.steps, part, c.sharing, c.scratch, desk)
        return
    tiles = c.batch * c.groups * c.tiles_d * c.tiles_h * c.tiles_w
    board = c.scratch + part * (c.board_bytes + c.desk_bytes)
    if c.sharers == 0:  # packing
        for tile in range(part * tiles // c.parts, (part + 1) * tiles // c.parts):
            whole_tile(c, tile, board)
        return
    tile, end = -1, 0
    while True:
        tile, end = next_item(c, tiles, part, tile, end)
        if tile < 0:
            return
        whole_tile(c, tile, board)


@jit
def whole_tile(c: Any, tile: Any, board: Any) -> None:
    for step in range(c.steps):
        perform(c, tile, step, 0, 1, board, board + c.board_bytes)


@jit
def perform(c: Any, tile: Any, step: Any, part: Any, parts: Any, board: Any, desk: Any) -> None:
    first, count, items = load(c.step_at, 4 * step + 1, 0), load(c.step_at, 4 * step + 2, 0), load(c.step_at, 4 * step + 3, 0)
    begin, end = part * items // parts, (part + 1) * items // parts
    invoke(load(c.step_at, 4 * step, 0), (c.self, tile, first, count, begin, end, board, desk))


# ---- there


def load_stage(c: Any, tile: Any, first: Any, count: Any, begin: Any, end: Any, board: Any, desk: Any, like: Any,
               size: Any) -> None:
    """Rows to the area: whole ones, as columns of large images lie 4 KB apart, in the same few sets of L1."""
    image, group, tile_d, tile_h, tile_w = spot(c, tile)
    of_w = c.of_w + 8 * OF_A_TILE * tile_w
    side_by_side, strips = load(of_w, 6, 0), load(of_w, 7, 0)
    if first == 0:
        store(desk + c.flag, 0, 0, 0)
    for item in range(begin, end):
        rest, chunk = item // c.row_chunks, item % c.row_chunks
        channel, depth = first + rest // c.points_d, rest % c.points_d
        plane = load(c.depth_at, tile_d * c.points_d + depth, 0)
        if plane < 0:
            continue
        x = c.x + image * c.xn + (group * c.inputs + channel) * c.xc + plane * c.xd
        target = board + (channel - first) * c.area_bytes + depth * c.plane_bytes
        for r in range(chunk * CHUNK, min(chunk * CHUNK + CHUNK, c.points_h)):
            start = r * c.points_w if c.folded != 0 else 0
            row = load(c.row_at, tile_h * c.places_h + (0 if c.folded != 0 else r), 0)
            source, inside, last = x + row * c.xh, load(of_w, 3, 0) - start, load(of_w, 4, 0) - start
            if row < 0:
                last = inside
            if side_by_side != 0 and c.xw == size:
                source += (load(of_w, 5, 0) - inside) * size
            else:
                gather(c, source, row, tile_w * c.places_w + start, desk + c.buffer, like)
                source, inside, last = desk + c.buffer, 0, c.points_w
            odd = deal_row(source, inside, last, strips, target + r * VECTOR_BYTES, c.strip_bytes, c.points_h * VECTOR_BYTES,
                           c.partner, c.apart, c.factor, like)
            if odd != 0:
                store(desk + c.flag, 0, 1, 0)


@jit
def gather(c: Any, source: Any, row: Any, place: Any, target: Any, like: Any) -> None:
    """A row of the tile one by one: inputs apart, padding that repeats them."""
    for i in range(c.points_w):
        column = load(c.column_at, place + i, 0) if row >= 0 else -1
        store(target, i, load(source + column * c.xw, 0, like) if column >= 0 else like, like)


def columns_stage(c: Any, tile: Any, first: Any, count: Any, begin: Any, end: Any, board: Any, desk: Any, like: Any,
                  size: Any) -> None:
    """A strip of one depth, in the area."""
    _, _, tile_d, _, tile_w = spot(c, tile)
    re, im = desk + c.buffer, desk + c.buffer + c.points_h * VECTOR_BYTES
    for item in range(begin, end):
        rest, strip = item // c.column_blocks, item % c.column_blocks
        channel, depth = rest // c.points_d, rest % c.points_d
        target = board + channel * c.area_bytes + depth * c.plane_bytes + strip * c.strip_bytes
        if load(c.depth_at, tile_d * c.points_d + depth, 0) < 0 or strip >= load(c.of_w, OF_A_TILE * tile_w + 7, 0):
            clear_vectors(target, c.strip_bytes // VECTOR_BYTES, like)
            continue
        invoke(c.transform, (c.self, c.there_h, target, target + c.points_h * VECTOR_BYTES, re, im))
        split_columns(re, im, c.pairs, c.points_h // 2 + 1, target, like)


@jit
def depths(c: Any, program: Any, spectrum: Any, desk: Any, like: Any) -> None:
    """The transforms along depth of a block of rows."""
    re, im = desk + c.buffer, desk + c.buffer + c.points_d * VECTOR_BYTES
    for column in range(c.points_w):
        at = spectrum + column * VECTOR_BYTES
        copy_vectors(at, 2 * c.part_bytes, re, VECTOR_BYTES, c.points_d, like)
        copy_vectors(at + c.part_bytes, 2 * c.part_bytes, im, VECTOR_BYTES, c.points_d, like)
        invoke(c.transform, (c.self, program, re, im, re, im))
        copy_vectors(re, VECTOR_BYTES, at, 2 * c.part_bytes, c.points_d, like)
        copy_vectors(im, VECTOR_BYTES, at + c.part_bytes, 2 * c.part_bytes, c.points_d, like)


def spectra_stage(c: Any, tile: Any, first: Any, count: Any, begin: Any, end: Any, board: Any, desk: Any, like: Any,
                  size: Any) -> None:
    """A block of rows of a channel at all depths, from the area to its part of the spectrum."""
    lanes = VECTOR_BYTES // size
    for item in range(begin, end):
        block, channel = item // count, item % count
        target = spectra_place(c, tile, board, desk) + block * c.spectra_block + (first + channel) * c.spectra_channel
        for depth in range(c.points_d):
            re = target + depth * 2 * c.part_bytes
            source = board + channel * c.area_bytes + depth * c.plane_bytes + block * lanes * 4 * VECTOR_BYTES
            for strip in range(c.column_blocks):
                for v in range(4):
                    column = strip * c.apart + v % 2 * c.partner
                    width = lanes if c.apart > lanes else min(lanes, c.partner - column % c.partner)
                    at = source + strip * c.strip_bytes + v * VECTOR_BYTES
                    to = re + v // 2 * c.part_bytes + column * VECTOR_BYTES
                    if width == lanes:
                        transpose(at, 4 * VECTOR_BYTES, to, VECTOR_BYTES, like)
                    else:
                        put_square(at, 4 * VECTOR_BYTES, to, VECTOR_BYTES, width, lanes, 0, like)
                    if c.folded != 0 and v >= 2:
                        turns = c.turns + block * c.turns_bytes
                        turn_there(re + column * VECTOR_BYTES, c.part_bytes, column, turns,
                                   turns + c.points_w // FINE * 2 * VECTOR_BYTES, like)
            invoke(c.transform, (c.self, c.there_w, re, re + c.part_bytes, re, re + c.part_bytes))
        if c.points_d > 1:
            depths(c, c.there_d, target, desk, like)


# ---- and back


def products_stage(c: Any, tile: Any, first: Any, count: Any, begin: Any, end: Any, board: Any, desk: Any, like: Any,
                   size: Any) -> None:
    """A block of rows of a span of the output channels: products of spectra, and back to the area."""
    lanes = VECTOR_BYTES // size
    _, group, tile_d, _, _ = spot(c, tile)
    x, product = spectra_place(c, tile, board, desk), desk + c.product
    for item in range(begin, end):
        block, span = item // c.spans, item % c.spans
        if c.stored == 0:
            invoke(c.fill, (c.self, tile, 0, c.inputs, block * c.inputs, (block + 1) * c.inputs, board, desk))
        for i in range(count * span // c.spans, count * (span + 1) // c.spans):
            channel = group * c.outputs + first + i
            weights = c.weights + channel * c.inputs * c.spectrum_bytes + block * c.rows_bytes
            for depth in range(c.points_d):
                at = depth * 2 * c.part_bytes
                products(x + block * c.spectra_block + at, c.spectra_channel, weights + at, c.spectrum_bytes, c.inputs,
                         c.part_bytes, product + at, like)
            if c.points_d > 1:
                depths(c, c.back_d, product, desk, like)
            for depth in range(c.points_d):
                if load(c.depth_out, 2 * (tile_d * c.points_d + depth), 0) < 0:
                    continue
                target = board + i * c.area_bytes + depth * c.plane_bytes + block * lanes * 4 * VECTOR_BYTES
                rows_back(c, product + depth * 2 * c.part_bytes, block, target, lanes, like)


@jit
def rows_back(c: Any, re: Any, block: Any, target: Any, lanes: Any, like: Any) -> None:
    """A block of rows of one depth; the spectrum is overwritten."""
    invoke(c.transform, (c.self, c.back_w, re, re + c.part_bytes, re, re + c.part_bytes))
    for strip in range(c.column_blocks):
        for v in range(4):
            column = strip * c.apart + v % 2 * c.partner
            width = lanes if c.apart > lanes else min(lanes, c.partner - column % c.partner)
            if c.folded != 0 and v < 2:
                turns = c.turns + block * c.turns_bytes
                turn_back(re + column * VECTOR_BYTES, c.part_bytes, column, turns,
                          turns + c.points_w // FINE * 2 * VECTOR_BYTES, like)
            at, to = re + v // 2 * c.part_bytes + column * VECTOR_BYTES, target + strip * c.strip_bytes + v * VECTOR_BYTES
            if width == lanes:
                transpose(at, VECTOR_BYTES, to, 4 * VECTOR_BYTES, like)
            else:
                take_square(at, VECTOR_BYTES, to, 4 * VECTOR_BYTES, width, lanes, like)


def columns_back_stage(c: Any, tile: Any, first: Any, count: Any, begin: Any, end: Any, board: Any, desk: Any, like: Any,
                       size: Any) -> None:
    """Strips with outputs, back to rows at vector r of two halves."""
    _, _, tile_d, _, tile_w = spot(c, tile)
    re, im = desk + c.buffer, desk + c.buffer + c.points_h * VECTOR_BYTES
    for item in range(begin, end):
        rest, strip = item // c.column_blocks, item % c.column_blocks
        channel, depth = rest // c.points_d, rest % c.points_d
        wanted = load(c.strip_out, tile_w * c.column_blocks + strip, 0)
        if wanted == 0 or load(c.depth_out, 2 * (tile_d * c.points_d + depth), 0) < 0:
            continue
        target = board + channel * c.area_bytes + depth * c.plane_bytes + strip * c.strip_bytes
        join_columns(target, c.pairs, c.points_h // 2 + 1, re, im, like)
        invoke(c.transform, (c.self, c.back_h, re, im, target, target + c.points_h * VECTOR_BYTES))


@jit
def is_spoiled(c: Any, desk: Any) -> Any:
    """Whether anything in the tile has been taken for 0."""
    if c.sharing == 0:
        return load(desk + c.flag, 0, 0) != 0
    for part in range(c.sharing):
        if load(c.scratch + c.board_bytes + part * c.desk_bytes + c.flag, 0, 0) != 0:
            return True
    return False


@jit
def one_output(c: Any, x: Any, weights: Any, d: Any, h: Any, w: Any, like: Any) -> Any:
    """Its products themselves, where a transform has overflowed."""
    total = like
    for channel in range(c.inputs):
        for i in range(c.kernel_d):
            from_d = load(c.map_d, d * c.stride_d + i * c.dilation_d, 0)
            for j in range(c.kernel_h):
                from_h = load(c.map_h, h * c.stride_h + j * c.dilation_h, 0)
                for k in range(c.kernel_w):
                    from_w = load(c.map_w, w * c.stride_w + k * c.dilation_w, 0)
                    value = like
                    if from_d >= 0 and from_h >= 0 and from_w >= 0:
                        value = load(x + channel * c.xc + from_d * c.xd + from_h * c.xh + from_w * c.xw, 0, like)
                    total += value * load(weights, ((channel * c.kernel_d + i) * c.kernel_h + j) * c.kernel_w + k, like)
    return total


@jit
def finish_some(c: Any, line: Any, first: Any, o: Any, count: Any, odd: Any, extra: Any, x: Any, weights: Any, d: Any, h: Any,
                out: Any, residual: Any, bias: Any, like: Any, size: Any) -> None:
    """`count` outputs from o on, of a tile's row whose first is number `first`; those between strides are left out. x, weights:
    of the output, for what is not finite; extra: what is added to the others."""
    begin = (c.keep_w - (first + o) % c.keep_w) % c.keep_w
    place = (first + o + begin) // c.keep_w
    if odd != 0 or extra != 0 or c.keep_w > 1:
        kept = 0
        i = begin
        while i < count:
            value = load(line, i, like)
            if value * like != like:
                value = one_output(c, x, weights, d, h, place + kept, like)
            elif extra != 0:
                value += load(extra, o + i, like)
            store(line, kept, value, like)
            kept += 1
            i += c.keep_w
        count = kept
    if count > 0:
        finish_line(c, line, count, out + place * c.ow, c.ow // size, residual + place * c.rw if residual != 0 else 0,
                    c.rw // size, bias, 0, like, size)


def finish_rows_stage(c: Any, tile: Any, first: Any, count: Any, begin: Any, end: Any, board: Any, desk: Any, like: Any,
                      size: Any) -> None:
    """Rows of the area to the output, whole ones."""
    image, group, tile_d, tile_h, tile_w = spot(c, tile)
    start, columns = load(c.of_w, OF_A_TILE * tile_w + 2, 0), load(c.of_w, OF_A_TILE * tile_w + 1, 0)
    rows = load(c.of_h, OF_A_TILE * tile_h + 1, 0)
    spoiled, line = is_spoiled(c, desk), desk + c.buffer
    for item in range(begin, end):
        rest, chunk = item // c.row_chunks, item % c.row_chunks
        i, place = rest // c.points_d, rest % c.points_d
        at_d = 2 * (tile_d * c.points_d + place)
        d, o_d = load(c.depth_out, at_d, 0), load(c.depth_out, at_d + 1, 0)
        if d < 0:
            continue
        channel = group * c.outputs + first + i
        extra = board + c.sums + (i * c.most_outputs + o_d * rows * columns) * size
        if not spoiled and load(c.weights + c.odd, channel, 0) == 0:
            extra = 0
        elif c.repair == 0:
            store(c.self, SPOILT, 1, 0)
            return
        x, weights = c.x + image * c.xn + group * c.inputs * c.xc, c.weights + c.plain + channel * c.depth * size
        bias = c.bias + channel * size if c.bias != 0 else 0
        for r in range(chunk * CHUNK, min(chunk * CHUNK + CHUNK, c.points_h)):
            at_h = 2 * (tile_h * c.places_h + (0 if c.folded != 0 else r))
            h, o_h = load(c.row_out, at_h, 0), load(c.row_out, at_h + 1, 0)
            if h < 0:
                continue
            odd = gather_row(board + i * c.area_bytes + place * c.plane_bytes + r * VECTOR_BYTES, c.strip_bytes,
                             c.points_h * VECTOR_BYTES, c.column_blocks, line, c.partner, c.apart, like)
            out = c.out + image * c.on + channel * c.oc + d * c.od + h * c.oh
            residual = c.residual + image * c.rn + channel * c.rc + d * c.rd + h * c.rh if c.residual != 0 else 0
            more = extra + o_h * columns * size if extra != 0 else 0
            o = (r * c.points_w if c.folded != 0 else 0) - c.shift_w
            if o < 0:
                o += c.places_w
            before = min(c.points_w, c.places_w - o)  # the others are those from output 0 on
            if o < columns:
                finish_some(c, line, start, o, min(before, columns - o), odd, more, x, weights, d, h, out, residual, bias, like,
                            size)
            if before < c.points_w:
                finish_some(c, line + before * size, start, 0, min(c.points_w - before, columns), odd, more, x, weights, d, h,
                            out, residual, bias, like, size)


def transform_stage(c: Any, program: Any, re: Any, im: Any, second_re: Any, second_im: Any, like: Any, size: Any) -> None:
    """See `fourier.transform`."""
    transform(program, re, im, second_re, second_im, like)


STAGES = {
    "fft": (fft_stage, 1),
    "fft transform": (transform_stage, 5),
    "fft load": (load_stage, 7),
    "fft columns": (columns_stage, 7),
    "fft spectra": (spectra_stage, 7),
    "fft products": (products_stage, 7),
    "fft columns back": (columns_back_stage, 7),
    "fft finish": (finish_rows_stage, 7),
}
