# mypy: disable-error-code="import-untyped"
"""Register tiles of broadcast as LLVM vector code: pixels, broadcast from where they lie, times vectors of output channels.

All products of an output in one pass; with the bias they go to the output, or to where they are transposed. Tiles have 24 sums
(12 with 16 registers), and at the end of a block half as many pixels, where these are enough. As in gemm's and direct's tiles
the order of a sum is that of k, so the bits are the same.

Bottleneck: multiply-adds; per k a tile loads its vectors and its pixels, 10 for 24 of them at 6x4.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .contexts import PIXELS, VECTOR_BYTES
from .rows import _SHORT, _mask, _masked
from .vectors import (
    _BYTE,
    _INT,
    _bases,
    _element,
    _function,
    _in_order,
    _llvm_type,
    _loop,
    _multiply_add,
    _pointer,
    _splat,
    _tile_after_tile,
)


def _emit_tile(scalar: Any, rows: int, vectors: int, each: bool) -> Any:
    element, size, lanes = _llvm_type(scalar)
    vector = ir.VectorType(element, lanes)
    width = vectors * VECTOR_BYTES

    def emit(builder: Any, args: Any) -> None:
        count, depth, taps, pixels, places, x, weights, target, bias, last, relu = args
        taps = builder.inttoptr(taps, _INT.as_pointer())
        weights, bias = builder.inttoptr(weights, _BYTE), builder.inttoptr(bias, _BYTE)
        zero, least = (ir.Constant(vector, [value] * lanes) for value in (0.0, float("-inf")))
        floor = builder.select(builder.icmp_signed("!=", relu, _INT(0)), zero, least)

        def line(base: Any, offset: Any) -> list[Any]:
            return [builder.load(_pointer(builder, base, builder.add(offset, _INT(j * VECTOR_BYTES)), vector), align=size)
                    for j in range(vectors)]

        def tile(pixels: Any, places: Any) -> None:
            bases = _bases(builder, x, pixels, rows)

            def body(k: Any, acc: list[Any]) -> list[Any]:
                offset, factors = builder.load(builder.gep(taps, [k])), line(weights, builder.mul(k, _INT(width)))
                result = []
                for i in range(rows):
                    if each:
                        pixel = builder.load(_pointer(builder, bases[i], offset, vector), align=size)
                    else:
                        pixel = _splat(builder, builder.load(_pointer(builder, bases[i], offset, element)), lanes)
                    sums = [_multiply_add(builder, pixel, factors[j], acc[i * vectors + j]) for j in range(vectors)]
                    result += _in_order(builder, sums)
                return result

            final = _loop(builder, depth, [ir.Constant(vector, None)] * (rows * vectors), body)
            final = [builder.fadd(value, added) for value, added in zip(final, line(bias, _INT(0)) * rows, strict=True)]
            final = [builder.select(builder.fcmp_ordered("<", value, floor), floor, value) for value in final]  # NaN stays
            places = [builder.add(target, builder.load(_element(builder, places, _INT(i), _INT))) for i in range(rows)]
            _put(builder, places, final, last, size)

        _tile_after_tile(builder, count, [(pixels, rows * 8), (places, rows * 8)], tile)

    return emit


def _put(builder: Any, places: list[Any], values: list[Any], last: Any, size: int) -> None:
    """As many vectors to each place, of the last of them so many lanes."""
    vectors, kind = len(values) // len(places), values[0].type
    at = [builder.inttoptr(builder.add(place, _INT(j * VECTOR_BYTES)), kind.as_pointer())
          for place in places for j in range(vectors)]
    pairs = list(zip(values, at, strict=True))
    ends = pairs[vectors - 1::vectors]
    for i, (value, place) in enumerate(pairs):
        if i % vectors < vectors - 1:
            builder.store(value, place, align=size)
    with builder.if_else(builder.icmp_signed("==", last, _INT(kind.count))) as (whole, part):
        with whole:
            for value, place in ends:
                builder.store(value, place, align=size)
        with part:
            mask = _mask(builder, last, kind.count)
            for value, place in ends:
                _masked(builder, "store", kind, [value, place, _SHORT(size), mask])


def broadcast_tiles(scalar: Any, vectors: int, each: bool = False) -> Any:
    """(count, depth, taps, pixels, places, x, weights, target, bias, last, relu):

    target[places[i] ...][o] = Σ_k x[pixels[i] + taps[k]] · weights[k][o] + bias[o], at least 0 if `relu`, for i < count and
    o < vectors·lanes, of the last vector `last` lanes.

    count > 0; up to SURPLUS more are read of the tables, and computed as well. All but weights and bias are byte offsets.
    each: every output channel has an input channel of its own (depthwise), x[... + o]; one vector.
    """
    rows = PIXELS[vectors - 1]
    half = (rows + 1) // 2

    def emit(builder: Any, args: Any) -> None:
        count, depth, taps, pixels, places, *rest = args
        name = f"fastconv.broadcast.{scalar}"
        tiles = builder.sdiv(builder.add(count, _INT(rows - 1 - half)), _INT(rows))
        done = builder.mul(tiles, _INT(8 * rows))
        with builder.if_then(builder.icmp_signed(">", tiles, _INT(0))):
            tile = _function(builder.module, f"{name}.{rows}x{vectors}", 11, _emit_tile(scalar, rows, vectors, each))
            builder.call(tile, [tiles, depth, taps, pixels, places, *rest])
        with builder.if_then(builder.icmp_signed(">", count, builder.mul(tiles, _INT(rows)))):
            tile = _function(builder.module, f"{name}.{half}x{vectors}", 11, _emit_tile(scalar, half, vectors, each))
            builder.call(tile, [_INT(1), depth, taps, builder.add(pixels, done), builder.add(places, done), *rest])

    return emit
