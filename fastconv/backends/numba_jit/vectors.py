# mypy: disable-error-code="import-untyped"
"""The parts of the Numba kernels that are written as LLVM vector code: register tiles, a transpose, loads and stores.

Numba's own loop nests reach about a third of the FMA peak: the accumulators do not stay in registers. So the innermost loop
over k is emitted here, with one phi node per accumulator. Memory is reached through addresses (int64), since the arrays
have any strides and the offsets come from tables. `like` is a scalar whose type says what is computed in.

Both tiles compute, for k = 0 .. depth-1 in this order, sum = fma(pixel, weight, sum); so any tile, any blocking and any
vector width give the same bits, except where the CPU has no FMA.

    pixels_tiles    `rows` pixels, broadcast, times `vectors` vectors of output channels      (algorithm "gemm")
    channels_tiles  `rows` output channels, broadcast, times vectors of neighbouring pixels   (algorithm "direct")

Registers: rows·vectors accumulators, the vectors, one broadcast. With 16 registers 6x2 keeps 12 of them busy, enough to hide
a latency of 4 at 2 FMAs per cycle, and needs 9 loads in 6 cycles.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .contexts import ARM, FEATURES, FUSED, SPAN, VECTOR_BYTES

# of inline assembly: a vector register
_REGISTER = "w" if ARM else "v" if VECTOR_BYTES == 64 else "x" if FEATURES else None

_INT = ir.IntType(64)
_BYTE = ir.IntType(8).as_pointer()


def _llvm_type(scalar: Any) -> tuple[Any, int, int]:
    """(LLVM type, bytes, lanes of a vector) of a Numba float."""
    size = scalar.bitwidth // 8
    return (ir.FloatType() if size == 4 else ir.DoubleType()), size, VECTOR_BYTES // size


def _pointer(builder: Any, address: Any, offset: Any, element: Any) -> Any:
    """Pointer to an `element` at `address` (a byte pointer) plus `offset` bytes."""
    return builder.bitcast(builder.gep(address, [offset]), element.as_pointer())


def _element(builder: Any, base: Any, index: Any, element: Any) -> Any:
    return builder.gep(builder.inttoptr(base, element.as_pointer()), [index])


@intrinsic
def load(typingctx: Any, base: Any, index: Any, like: Any) -> Any:
    """The element number `index` at the address `base`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_element(builder, args[0], args[1], context.get_value_type(like)))

    return like(types.int64, types.int64, like), codegen


@intrinsic
def store(typingctx: Any, base: Any, index: Any, value: Any, like: Any) -> Any:
    """Write `value`, rounded to the type of `like`, as the element number `index` at the address `base`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rounded = context.cast(builder, args[2], value, like)
        builder.store(rounded, _element(builder, args[0], args[1], rounded.type))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, value, like), codegen


@intrinsic
def invoke(typingctx: Any, address: Any, arguments: Any) -> Any:
    """Call the C function at `address`: void(int64, ...)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = [builder.extract_value(args[1], i) for i in range(arguments.count)]
        function = ir.FunctionType(ir.VoidType(), [_INT] * arguments.count)
        builder.call(builder.inttoptr(args[0], function.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, len(arguments))), codegen


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    vector = ir.VectorType(value.type, lanes)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    if not FUSED:
        return builder.fadd(builder.fmul(a, b), c)
    vector = a.type  # llvmlite's declare_intrinsic knows no vector types
    name = f"llvm.fma.v{vector.count}f{32 if vector.element == ir.FloatType() else 64}"
    function = builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
    return builder.call(function, [a, b, c])


def _in_order(builder: Any, values: list[Any]) -> list[Any]:
    """The same values, computed before anything is loaded that follows in the program: LLVM's scheduler would bring all loads
    of a tile forward, and then spill its sums in every round of the loop (12x2: 35 instead of 110 GFLOP/s, Zen 4)."""
    if _REGISTER is None:
        return values
    kinds = [value.type for value in values]
    constraints = ",".join([f"={_REGISTER}"] * len(values) + [str(i) for i in range(len(values))] + ["~{memory}"])
    result = kinds[0] if len(values) == 1 else ir.LiteralStructType(kinds)
    kept = builder.asm(ir.FunctionType(result, kinds), "", constraints, values, side_effect=True)
    return [kept] if len(values) == 1 else [builder.extract_value(kept, i) for i in range(len(values))]


def _loop(builder: Any, count: Any, carried: list[Any], body: Any) -> list[Any]:
    """``for k in range(count): carried = body(k, carried)``, count > 0, with the carried values in registers."""
    before, head = builder.block, builder.append_basic_block("loop")
    after = builder.append_basic_block("after")
    builder.branch(head)
    builder.position_at_end(head)
    k = builder.phi(_INT)
    k.add_incoming(_INT(0), before)
    phis = [builder.phi(value.type) for value in carried]
    for phi, value in zip(phis, carried, strict=True):
        phi.add_incoming(value, before)
    results = body(k, phis)
    following = builder.add(k, _INT(1))
    k.add_incoming(following, builder.block)
    for phi, value in zip(phis, results, strict=True):
        phi.add_incoming(value, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), head, after)
    builder.position_at_end(after)
    return results


def _function(module: Any, name: str, arguments: int, emit: Any) -> Any:
    """The function `name` of this module, `arguments` int64 values; written by `emit(builder, args)` the first time."""
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_INT] * arguments), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        emit(builder, function.args)
        builder.ret_void()
    return function


def _dispatch(builder: Any, selector: Any, choices: dict[int, Any], arguments: list[Any]) -> None:
    """Call the function that belongs to the value of `selector`."""
    done = builder.append_basic_block("done")
    switch = builder.switch(selector, done)
    for value, function in choices.items():
        block = builder.append_basic_block("case")
        switch.add_case(_INT(value), block)
        with builder.goto_block(block):
            builder.call(function, arguments)
            builder.branch(done)
    builder.position_at_end(done)


def _tile_after_tile(builder: Any, count: Any, addresses: list[tuple[Any, int]], tile: Any) -> None:
    """``tile(*addresses)`` `count` times; each address, given with its step in bytes, moves on in between."""

    def body(_: Any, now: list[Any]) -> list[Any]:
        tile(*now)
        return [builder.add(address, _INT(step)) for address, (_, step) in zip(now, addresses, strict=True)]

    _loop(builder, count, [address for address, _ in addresses], body)


def _bases(builder: Any, x: Any, table: Any, count: int) -> list[Any]:
    """Byte pointers to x + table[i]."""
    table = builder.inttoptr(table, _INT.as_pointer())
    return [builder.inttoptr(builder.add(x, builder.load(builder.gep(table, [_INT(i)]))), _BYTE) for i in range(count)]


def _start(builder: Any, fresh: Any, places: list[Any], vector: Any) -> list[Any]:
    """Accumulators: zeros if `fresh`, else what lies at `places`."""
    before, reading, after = builder.block, builder.append_basic_block("reading"), builder.append_basic_block("ready")
    builder.cbranch(builder.icmp_signed("!=", fresh, _INT(0)), after, reading)
    builder.position_at_end(reading)
    values = [builder.load(place, align=VECTOR_BYTES) for place in places]
    builder.branch(after)
    builder.position_at_end(after)
    phis = [builder.phi(vector) for _ in places]
    for phi, value in zip(phis, values, strict=True):
        phi.add_incoming(ir.Constant(vector, None), before)
        phi.add_incoming(value, reading)
    return phis


def _plus(builder: Any, address: Any, values: list[Any], places: Any, size: int) -> list[Any]:
    """The values, plus what lies at `places()` unless the address there is from is 0."""
    before, adding, after = builder.block, builder.append_basic_block("adding"), builder.append_basic_block("added")
    builder.cbranch(builder.icmp_signed("!=", address, _INT(0)), adding, after)
    builder.position_at_end(adding)
    sums = [builder.fadd(value, builder.load(place, align=size)) for value, place in zip(values, places(), strict=True)]
    builder.branch(after)
    builder.position_at_end(after)
    phis = [builder.phi(value.type) for value in values]
    for phi, value, total in zip(phis, values, sums, strict=True):
        phi.add_incoming(value, before)
        phi.add_incoming(total, adding)
    return phis


def _widened(builder: Any, value: Any, kind: Any) -> Any:
    """With zeros behind it."""
    places = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), list(range(kind.count)))
    return builder.shuffle_vector(value, ir.Constant(value.type, None), places)


def pixels_tiles(scalar: Any, rows: int, vectors: int) -> Any:
    """(count, depth, taps, pixels, x, weights, sums, fresh):

    sums[i][o] (+)= Σ_k x[pixels[i] + taps[k]] · weights[k][o], for i < count·rows, o < vectors·lanes.

    count > 0. `taps` and `pixels` are tables of byte offsets; `weights` and `sums` are aligned; `fresh` starts from zero, not
    from sums. vectors = 0: the first half of one, the other half of `sums` is 0.
    """
    element, size, lanes = _llvm_type(scalar)
    whole, half = ir.VectorType(element, lanes), vectors == 0
    vector = ir.VectorType(element, lanes // 2) if half else whole
    lanes, vectors = vector.count, max(vectors, 1)
    width = vectors * VECTOR_BYTES

    def emit(builder: Any, args: Any) -> None:
        count, depth, taps, pixels, x, weights, sums, fresh = args
        taps, weights = builder.inttoptr(taps, _INT.as_pointer()), builder.inttoptr(weights, _BYTE)

        def tile(pixels: Any, sums: Any) -> None:
            bases = _bases(builder, x, pixels, rows)
            sums = builder.inttoptr(sums, _BYTE)
            places = [_pointer(builder, sums, _INT(i * width + j * VECTOR_BYTES), vector)
                      for i in range(rows) for j in range(vectors)]

            def body(k: Any, acc: list[Any]) -> list[Any]:
                offset = builder.load(builder.gep(taps, [k]))
                row = builder.mul(k, _INT(width))
                factors = [builder.load(_pointer(builder, weights, builder.add(row, _INT(j * VECTOR_BYTES)), vector),
                                        align=VECTOR_BYTES) for j in range(vectors)]
                result = []
                for i in range(rows):
                    pixel = _splat(builder, builder.load(_pointer(builder, bases[i], offset, element)), lanes)
                    sums = [_multiply_add(builder, pixel, factors[j], acc[i * vectors + j]) for j in range(vectors)]
                    result += _in_order(builder, sums)
                return result

            sums = _loop(builder, depth, _start(builder, fresh, places, vector), body)
            for place, value in zip(places, sums, strict=True):
                if half:
                    value = _widened(builder, value, whole)
                builder.store(value, builder.bitcast(place, whole.as_pointer()), align=VECTOR_BYTES)

        _tile_after_tile(builder, count, [(pixels, rows * 8), (sums, rows * width)], tile)

    return emit


def _emit_channels_tile(scalar: Any, rows: int, span: int) -> Any:
    element, size, lanes = _llvm_type(scalar)
    vector = ir.VectorType(element, lanes)

    def emit(builder: Any, args: Any) -> None:
        count, depth, taps, pixels, places, x, weights, sums, pitch, bias, residual, residual_pitch, relu = args
        taps, weights = builder.inttoptr(taps, _INT.as_pointer()), builder.inttoptr(weights, _BYTE)

        def tile(pixels: Any, places: Any) -> None:
            bases = _bases(builder, x, pixels, span)

            def body(k: Any, acc: list[Any]) -> list[Any]:
                offset = builder.load(builder.gep(taps, [k]))
                row = builder.mul(k, _INT(rows * size))
                values = [builder.load(_pointer(builder, base, offset, vector), align=size) for base in bases]
                result = []
                for i in range(rows):
                    place = _pointer(builder, weights, builder.add(row, _INT(i * size)), element)
                    factor = _splat(builder, builder.load(place), lanes)
                    sums = [_multiply_add(builder, values[j], factor, acc[i * span + j]) for j in range(span)]
                    result += _in_order(builder, sums)
                return result

            final = _loop(builder, depth, [ir.Constant(vector, None)] * (rows * span), body)
            for i in range(rows):
                added = _splat(builder, builder.load(_element(builder, bias, _INT(i), element)), lanes)
                final[i * span:(i + 1) * span] = (builder.fadd(value, added) for value in final[i * span:(i + 1) * span])
            places = [builder.load(_element(builder, places, _INT(j), _INT)) for j in range(span)]
            final = _plus(builder, residual, final, lambda: at(residual, residual_pitch, places), size)
            for place, value in zip(at(sums, pitch, places), final, strict=True):
                value = builder.select(builder.fcmp_ordered("<", value, floor), floor, value)  # NaN stays
                builder.store(value, place, align=size)

        def at(base: Any, pitch: Any, places: list[Any]) -> list[Any]:
            lines = [builder.add(base, builder.mul(pitch, _INT(i))) for i in range(rows)]
            return [builder.inttoptr(builder.add(line, place), vector.as_pointer()) for line in lines for place in places]

        zero, least = (ir.Constant(vector, [value] * lanes) for value in (0.0, float("-inf")))
        floor = builder.select(builder.icmp_signed("!=", relu, _INT(0)), zero, least)

        _tile_after_tile(builder, count, [(pixels, span * 8), (places, span * 8)], tile)

    return emit


def channels_tiles(scalar: Any, rows: int) -> Any:
    """(count, depth, taps, pixels, places, x, weights, sums, pitch, bias, residual, residual pitch, relu):

    sums[i·pitch + places[j] ...] = Σ_k x[pixels[j] + taps[k] ...] · weights[k][i] + bias[i] + residual[i·residual_pitch +
    places[j] ...], i < rows, j < count; at least 0 if `relu`. residual = 0: none.

    count > 0; up to SURPLUS more are read of the tables, and computed as well. Each vector has its own place; they are stored
    in order, so a later one may overlap an earlier, unless there is a residual, which may lie where the sums go. All but the
    weights are byte offsets. Tiles of SPAN[rows - 1] vectors, and for the rest the least that is enough of half as many, a
    quarter, ... one: where there is but one vector of pixels, half of eight would take four times as long.
    """
    sizes = [SPAN[rows - 1]]
    while sizes[-1] > 1:
        sizes.append((sizes[-1] + 1) // 2)

    def emit(builder: Any, args: Any) -> None:
        count, depth, taps, pixels, places, *rest = args
        span = sizes[0]
        whole = builder.sdiv(count, _INT(span))
        done = builder.mul(whole, _INT(8 * span))
        left = builder.sub(count, builder.mul(whole, _INT(span)))

        def call(size: int, *arguments: Any) -> None:
            name = f"fastconv.channels.{scalar}.{rows}x{size}"
            tile = _function(builder.module, name, 13, _emit_channels_tile(scalar, rows, size))
            builder.call(tile, [arguments[0], depth, taps, *arguments[1:], *rest])

        with builder.if_then(builder.icmp_signed(">", whole, _INT(0))):
            call(span, whole, pixels, places)
        for size, less in zip(sizes, [*sizes[1:], 0], strict=True):
            enough = builder.and_(builder.icmp_signed("<=", left, _INT(size)), builder.icmp_signed(">", left, _INT(less)))
            with builder.if_then(enough):
                call(size, _INT(1), builder.add(pixels, done), builder.add(places, done))

    return emit
