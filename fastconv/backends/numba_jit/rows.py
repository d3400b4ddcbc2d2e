# mypy: disable-error-code="import-untyped"
"""Rows and squares of elements as LLVM vector code: copied, transposed, finished; some of a vector's lanes may not be there."""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .contexts import LEAST_HOP, MOST_HOP, VECTOR_BYTES
from .vectors import _BYTE, _INT, _dispatch, _function, _llvm_type, _loop, _pointer, _splat

_SHORT = ir.IntType(32)


def _calls(name: str, count: int, emit: Any, like: Any) -> Any:
    """What an intrinsic gives Numba that is a function of so many int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.call(_function(builder.module, f"fastconv.{name}.{like}", count, emit), list(args[:count]))
        return context.get_dummy_value()

    return types.void(*[types.int64] * count, like), codegen


def _mask(builder: Any, count: Any, lanes: int) -> Any:
    """Lanes below `count`."""
    places = ir.Constant(ir.VectorType(_SHORT, lanes), list(range(lanes)))
    return builder.icmp_signed("<", places, _splat(builder, builder.trunc(count, _SHORT), lanes))


def _masked(builder: Any, name: str, vector: Any, arguments: list[Any]) -> Any:
    """A call of ``llvm.masked.load`` or ``store``."""
    bits = ir.VectorType(ir.IntType(1), vector.count)
    word = f"llvm.masked.{name}.v{vector.count}f{32 if vector.element == ir.FloatType() else 64}.p0"
    taken = [vector.as_pointer(), _SHORT, bits, vector] if name == "load" else [vector, vector.as_pointer(), _SHORT, bits]
    kind = ir.FunctionType(vector if name == "load" else ir.VoidType(), taken)
    function = builder.module.globals.get(word) or ir.Function(builder.module, kind, word)
    return builder.call(function, arguments)


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """The columns of a square.

    log2(lanes) stages; the stage of `step` swaps the off-diagonal step x step blocks of each 2·step square.
    """
    rows, lanes, step = list(rows), len(rows), 1
    places = ir.VectorType(ir.IntType(32), lanes)
    while step < lanes:
        low = ir.Constant(places, [lanes + (i ^ step) if i & step else i for i in range(lanes)])
        high = ir.Constant(places, [lanes + i if i & step else i | step for i in range(lanes)])
        for i in range(lanes):
            if not i & step:
                pair = rows[i], rows[i | step]
                rows[i] = builder.shuffle_vector(*pair, low)
                rows[i | step] = builder.shuffle_vector(*pair, high)
        step *= 2
    return rows


def _emit_copy(builder: Any, args: Any, like: Any) -> None:
    source, target, begin, end, length = args
    element, size, lanes = _llvm_type(like)
    vector = ir.VectorType(element, lanes)
    last = builder.sub(length, _INT(lanes))

    def at(base: Any, i: Any) -> Any:
        return builder.inttoptr(builder.add(base, builder.mul(i, _INT(size))), vector.as_pointer())

    def part(i: Any) -> Any:
        """The vector that begins at number i."""
        below, there = (_mask(builder, builder.sub(limit, i), lanes) for limit in (begin, end))
        there = builder.and_(there, builder.not_(below))
        return _masked(builder, "load", vector, [at(source, i), _SHORT(size), there, ir.Constant(vector, None)])

    def body(_: Any, now: list[Any]) -> list[Any]:
        i = now[0]
        inside = builder.and_(builder.icmp_signed("<=", begin, i), builder.icmp_signed("<=", builder.add(i, _INT(lanes)), end))
        with builder.if_else(inside) as (then, otherwise):
            with then:
                builder.store(builder.load(at(source, i), align=size), at(target, i), align=size)
            with otherwise:
                builder.store(part(i), at(target, i), align=size)
        following = builder.add(i, _INT(lanes))
        return [builder.select(builder.icmp_signed("<", following, last), following, last)]

    with builder.if_else(builder.icmp_signed(">=", last, _INT(0))) as (then, otherwise):
        with then:
            _loop(builder, builder.sdiv(builder.add(length, _INT(lanes - 1)), _INT(lanes)), [_INT(0)], body)
        with otherwise:
            _masked(builder, "store", vector, [part(_INT(0)), at(target, _INT(0)), _SHORT(size), _mask(builder, length, lanes)])


@intrinsic
def copy_row(typingctx: Any, source: Any, target: Any, begin: Any, end: Any, length: Any, like: Any) -> Any:
    """target[i] = source[i] for begin <= i < end, else 0; i < length. What is not there is not read. By whole vectors, of which
    the last overlaps its neighbour: stores of some lanes take several times as long (Zen 4)."""

    return _calls("copy", 5, lambda builder, args: _emit_copy(builder, args, like), like)


@intrinsic
def copy_vector(typingctx: Any, source: Any, target: Any, like: Any) -> Any:
    """The vector at `source` (0: zeros) to `target`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element, size, lanes = _llvm_type(like)
        vector = ir.VectorType(element, lanes)
        before, reading, after = builder.block, builder.append_basic_block("reading"), builder.append_basic_block("read")
        builder.cbranch(builder.icmp_signed("!=", args[0], _INT(0)), reading, after)
        builder.position_at_end(reading)
        found = builder.load(builder.inttoptr(args[0], vector.as_pointer()), align=size)
        builder.branch(after)
        builder.position_at_end(after)
        value = builder.phi(vector)
        value.add_incoming(ir.Constant(vector, None), before)
        value.add_incoming(found, reading)
        builder.store(value, builder.inttoptr(args[1], vector.as_pointer()), align=size)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, like), codegen


def _emit_copy_every(builder: Any, args: Any, like: Any, hop: int) -> None:
    source, target, count = args
    element, size, lanes = _llvm_type(like)
    vector = ir.VectorType(element, lanes)
    there = builder.add(builder.mul(builder.sub(count, _INT(1)), _INT(hop)), _INT(1))  # elements to the last one

    def at(base: Any, i: Any) -> Any:
        return builder.inttoptr(builder.add(base, builder.mul(i, _INT(size))), vector.as_pointer())

    def body(k: Any, _: list[Any]) -> list[Any]:
        found = None
        for j in range(hop):
            i = builder.add(builder.mul(k, _INT(hop * lanes)), _INT(j * lanes))
            mask = _mask(builder, builder.sub(there, i), lanes)
            some = _masked(builder, "load", vector, [at(source, i), _SHORT(size), mask, ir.Constant(vector, None)])
            places = [lanes + lane * hop % lanes if lane * hop // lanes == j else lane for lane in range(lanes)]
            found = builder.shuffle_vector(some if found is None else found, some,
                                           ir.Constant(ir.VectorType(_SHORT, lanes), places))
        builder.store(found, at(target, builder.mul(k, _INT(lanes))), align=size)
        return []

    _loop(builder, builder.sdiv(builder.add(count, _INT(lanes - 1)), _INT(lanes)), [], body)


@intrinsic
def copy_every(typingctx: Any, source: Any, target: Any, count: Any, hop: Any, like: Any) -> Any:
    """target[i] = source[i * hop] for i < count, count > 0, LEAST_HOP <= hop <= MOST_HOP. Up to a vector less one element
    beyond the last is written; what is not there is not read."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        choices = {}
        for hop in range(LEAST_HOP, MOST_HOP + 1):
            emit = functools.partial(_emit_copy_every, like=like, hop=hop)
            choices[hop] = _function(builder.module, f"fastconv.every.{hop}.{like}", 3, emit)
        _dispatch(builder, args[3], choices, list(args[:3]))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, like), codegen


def _emit_finish(builder: Any, args: Any, like: Any) -> None:
    line, out, count, bias, relu, past = args
    element, size, lanes = _llvm_type(like)
    vector = ir.VectorType(element, lanes)
    zero, least = ir.Constant(vector, [0.0] * lanes), ir.Constant(vector, [float("-inf")] * lanes)
    bias, relu = _splat(builder, bias, lanes), builder.icmp_signed("!=", relu, _INT(0))
    floor, zeros = builder.select(relu, zero, least), zero

    def finished(value: Any) -> Any:
        value = builder.fadd(value, bias)
        return builder.select(builder.fcmp_ordered("<", value, floor), floor, value)  # NaN stays

    def at(base: Any, offset: Any) -> Any:
        return builder.inttoptr(builder.add(base, offset), vector.as_pointer())

    def some(offset: Any, number: Any) -> None:
        mask = _mask(builder, number, lanes)
        value = finished(_masked(builder, "load", vector, [at(line, offset), _SHORT(size), mask, zeros]))
        _masked(builder, "store", vector, [value, at(out, offset), _SHORT(size), mask])

    past = builder.icmp_signed("!=", past, _INT(0))
    apart = builder.sdiv(builder.and_(builder.neg(out), _INT(VECTOR_BYTES - 1)), _INT(size))  # up to a whole vector's place
    head = builder.select(past, builder.select(builder.icmp_signed("<", apart, count), apart, count), _INT(0))
    some(_INT(0), head)
    whole = builder.sdiv(builder.sub(count, head), _INT(lanes))
    begin = builder.mul(head, _INT(size))
    for wanted in (True, False):
        here = builder.and_(builder.icmp_signed(">", whole, _INT(0)), past if wanted else builder.not_(past))
        with builder.if_then(here):
            def body(k: Any, _: list[Any], wanted: bool = wanted) -> list[Any]:
                offset = builder.add(begin, builder.mul(k, _INT(VECTOR_BYTES)))
                value = finished(builder.load(at(line, offset), align=size))
                stored = builder.store(value, at(out, offset), align=VECTOR_BYTES if wanted else size)
                if wanted:
                    stored.set_metadata("nontemporal", builder.module.add_metadata([_SHORT(1)]))
                return []

            _loop(builder, whole, [], body)
            if wanted:
                builder.fence("seq_cst")
    done = builder.add(head, builder.mul(whole, _INT(lanes)))
    some(builder.mul(done, _INT(size)), builder.sub(count, done))


@intrinsic
def finish_row(typingctx: Any, line: Any, out: Any, count: Any, bias: Any, relu: Any, past: Any, like: Any) -> Any:
    """out[i] = line[i] + bias, at least 0 if `relu`, i < count; past the caches if `past`, for results that do not fit there:
    else each line of the result would be read first."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        name = f"fastconv.finish.{like}"
        function = builder.module.globals.get(name)
        if function is None:
            kinds = [args[3].type if i == 3 else _INT for i in range(6)]
            function = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), kinds), name)
            function.linkage = "internal"
            function.attributes.add("noinline")
            inner = ir.IRBuilder(function.append_basic_block("entry"))
            _emit_finish(inner, function.args, like)
            inner.ret_void()
        builder.call(function, list(args[:6]))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3, like, *[types.int64] * 2, like), codegen


@intrinsic
def transpose(typingctx: Any, source: Any, source_pitch: Any, target: Any, target_pitch: Any, like: Any) -> Any:
    """target[j][i] = source[i][j] for a square of lanes x lanes; pitches in bytes."""

    def emit(builder: Any, args: Any) -> None:
        element, size, lanes = _llvm_type(like)
        vector = ir.VectorType(element, lanes)
        source, source_pitch, target, target_pitch = args
        source, target = builder.inttoptr(source, _BYTE), builder.inttoptr(target, _BYTE)
        rows = [builder.load(_pointer(builder, source, builder.mul(source_pitch, _INT(i)), vector), align=size)
                for i in range(lanes)]
        for i, row in enumerate(_transposed(builder, rows)):
            builder.store(row, _pointer(builder, target, builder.mul(target_pitch, _INT(i)), vector), align=size)

    return _calls("transpose", 4, emit, like)


def _emit_take(builder: Any, args: Any, like: Any) -> None:
    source, source_pitch, target, target_pitch, rows, count = args
    element, size, lanes = _llvm_type(like)
    vector = ir.VectorType(element, lanes)
    source, target = builder.inttoptr(source, _BYTE), builder.inttoptr(target, _BYTE)
    zero = ir.Constant(vector, [0.0] * lanes)
    loaded = []
    for i in range(lanes):
        there = builder.select(builder.icmp_signed("<", _INT(i), rows), count, _INT(0))
        place = _pointer(builder, source, builder.mul(source_pitch, _INT(i)), vector)
        loaded.append(_masked(builder, "load", vector, [place, _SHORT(size), _mask(builder, there, lanes), zero]))
    for i, row in enumerate(_transposed(builder, loaded)):
        builder.store(row, _pointer(builder, target, builder.mul(target_pitch, _INT(i)), vector), align=size)


def _emit_put(builder: Any, args: Any, like: Any) -> None:
    source, source_pitch, target, target_pitch, rows, count, relu = args
    element, size, lanes = _llvm_type(like)
    vector = ir.VectorType(element, lanes)
    source, target = builder.inttoptr(source, _BYTE), builder.inttoptr(target, _BYTE)
    zero, least = ir.Constant(vector, [0.0] * lanes), ir.Constant(vector, [float("-inf")] * lanes)
    floor = builder.select(builder.icmp_signed("!=", relu, _INT(0)), zero, least)
    loaded = [builder.load(_pointer(builder, source, builder.mul(source_pitch, _INT(i)), vector), align=size)
              for i in range(lanes)]
    for i, row in enumerate(_transposed(builder, loaded)):
        there = builder.select(builder.icmp_signed("<", _INT(i), rows), count, _INT(0))
        value = builder.select(builder.fcmp_ordered("<", row, floor), floor, row)  # NaN stays
        place = _pointer(builder, target, builder.mul(target_pitch, _INT(i)), vector)
        _masked(builder, "store", vector, [value, place, _SHORT(size), _mask(builder, there, lanes)])


@intrinsic
def take_square(typingctx: Any, source: Any, source_pitch: Any, target: Any, target_pitch: Any, rows: Any, count: Any,
                like: Any) -> Any:
    """target[j][i] = source[i][j], 0 unless i < rows and j < count; all of a square of lanes x lanes is written, and nothing
    else is read. Pitches in bytes."""

    return _calls("take", 6, lambda builder, args: _emit_take(builder, args, like), like)


@intrinsic
def put_square(typingctx: Any, source: Any, source_pitch: Any, target: Any, target_pitch: Any, rows: Any, count: Any,
               relu: Any, like: Any) -> Any:
    """target[j][i] = source[i][j] for j < rows and i < count, at least 0 if `relu`; all of a square of lanes x lanes is
    read."""

    return _calls("put", 7, lambda builder, args: _emit_put(builder, args, like), like)
