# mypy: disable-error-code="import-untyped"
"""What lies around the Fourier transforms of fft as LLVM vector code: rows of inputs dealt out to blocks of columns and
gathered from them, two columns' spectra told apart and put together again, turns of a folded axis, products of spectra."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .contexts import VECTOR_BYTES
from .fourier import read, turned, vector_of, write
from .rows import _calls, _masked
from .vectors import _INT, _llvm_type, _loop, _multiply_add, _splat

LARGEST = {4: 1e30, 8: 1e300}  # of a float of so many bytes, what is transformed: `algorithms.fft.LARGEST`


def _bits(builder: Any, lanes: Any) -> Any:
    """Which of a vector's lanes are true, as a number."""
    return builder.zext(builder.bitcast(lanes, ir.IntType(lanes.type.count)), _INT)


def _counts(like: Any, count: int, emit: Callable[[Any, Any], Any]) -> Any:
    """What an intrinsic gives Numba that takes so many int64 and has one as its result."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return emit(builder, list(args[:count]))

    return types.int64(*[types.int64] * count, like), codegen


def _emit_deal(builder: Any, args: Any, like: Any) -> Any:
    source, begin, end, blocks, target, pitch, half, partner, apart, factor = args
    element, size, lanes = _llvm_type(like)
    vector = vector_of(like)
    zero, most = (ir.Constant(vector, [value] * lanes) for value in (0.0, LARGEST[size]))
    places = ir.Constant(ir.VectorType(_INT, lanes), list(range(lanes)))
    factor = _splat(builder, builder.load(builder.inttoptr(factor, element.as_pointer())), lanes)
    last = builder.sub(end, _INT(lanes))

    def taken(column: Any) -> tuple[Any, Any]:
        at = builder.add(source, builder.mul(column, _INT(size)))
        inside = builder.and_(builder.icmp_signed(">=", column, begin), builder.icmp_signed("<=", column, last))
        with builder.if_else(inside) as (whole, part):
            with whole:
                one, from_one = read(builder, at, vector), builder.block
            with part:
                columns = builder.add(_splat(builder, column, lanes), places)
                there = builder.and_(builder.icmp_signed(">=", columns, _splat(builder, begin, lanes)),
                                     builder.icmp_signed("<", columns, _splat(builder, end, lanes)))
                place = builder.inttoptr(at, vector.as_pointer())
                other = _masked(builder, "load", vector, [place, ir.IntType(32)(size), there, zero])
                from_other = builder.block
        value = builder.phi(vector)
        value.add_incoming(one, from_one)
        value.add_incoming(other, from_other)
        good = builder.and_(builder.fcmp_ordered("<=", value, most), builder.fcmp_ordered(">=", value, builder.fneg(most)))
        return builder.fmul(builder.select(good, value, zero), factor), good

    def body(_: Any, now: list[Any]) -> list[Any]:
        column, go, all_good = now
        for at, here in ((column, go), (builder.add(column, partner), builder.add(go, half))):
            value, good = taken(at)
            write(builder, value, here)
            all_good = builder.and_(all_good, good)
        return [builder.add(column, apart), builder.add(go, pitch), all_good]

    good = ir.Constant(ir.VectorType(ir.IntType(1), lanes), [1] * lanes)
    *_, good = _loop(builder, blocks, [_INT(0), target, good], body)
    return _bits(builder, builder.not_(good))


@intrinsic
def deal_row(typingctx: Any, source: Any, begin: Any, end: Any, blocks: Any, target: Any, pitch: Any, half: Any, partner: Any,
             apart: Any, factor: Any, like: Any) -> Any:
    """A row at `source`, of which elements begin .. end - 1 are there and the others are 0, times the number at `factor`: its
    vectors from element i·apart on to target + i·pitch, and those `partner` elements further to half behind, i < blocks.

    blocks > 0. What is not finite or very large counts as 0. Returns whether there is such.
    """

    return _counts(like, 10, lambda builder, args: _emit_deal(builder, args, like))


def _emit_gather(builder: Any, args: Any, like: Any) -> Any:
    source, pitch, half, blocks, target, partner, apart = args
    _, size, lanes = _llvm_type(like)
    vector = vector_of(like)
    zero = ir.Constant(vector, [0.0] * lanes)
    step, sums = builder.mul(apart, _INT(size)), zero
    for _ in range(2):

        def body(_: Any, now: list[Any]) -> list[Any]:
            come, go, sums = now
            value = read(builder, come, vector)
            write(builder, value, go)
            return [builder.add(come, pitch), builder.add(go, step), _multiply_add(builder, value, zero, sums)]

        *_, sums = _loop(builder, blocks, [source, target, sums], body)
        source, target = builder.add(source, half), builder.add(target, builder.mul(partner, _INT(size)))
    return _bits(builder, builder.fcmp_unordered("!=", sums, zero))


@intrinsic
def gather_row(typingctx: Any, source: Any, pitch: Any, half: Any, blocks: Any, target: Any, partner: Any, apart: Any,
               like: Any) -> Any:
    """The opposite of `deal_row`, to a whole row; a short block is overwritten by the next. Returns whether anything in it is
    not finite."""

    return _counts(like, 7, lambda builder, args: _emit_gather(builder, args, like))


@intrinsic
def copy_vectors(typingctx: Any, source: Any, source_step: Any, target: Any, target_step: Any, count: Any, like: Any) -> Any:
    """`count` > 0 vectors, of places that lie apart."""

    def emit(builder: Any, args: Any) -> None:
        source, source_step, target, target_step, count = args

        def body(_: Any, now: list[Any]) -> list[Any]:
            write(builder, read(builder, now[0], vector_of(like)), now[1])
            return [builder.add(now[0], source_step), builder.add(now[1], target_step)]

        _loop(builder, count, [source, target], body)

    return _calls("vectors", 5, emit, like)


@intrinsic
def clear_vectors(typingctx: Any, target: Any, count: Any, like: Any) -> Any:
    """`count` > 0 vectors of zeros."""

    def emit(builder: Any, args: Any) -> None:
        target, count = args
        zero = ir.Constant(vector_of(like), [0.0] * vector_of(like).count)

        def body(_: Any, now: list[Any]) -> list[Any]:
            write(builder, zero, now[0])
            return [builder.add(now[0], _INT(VECTOR_BYTES))]

        _loop(builder, count, [target], body)

    return _calls("clear", 2, emit, like)


def _pair(builder: Any, places: Any, re: Any, im: Any) -> tuple[Any, Any, Any, Any]:
    """Where a frequency and its opposite are: real and imaginary part of each."""
    words = builder.inttoptr(places, _INT.as_pointer())
    a, b = (builder.load(builder.gep(words, [_INT(i)])) for i in (0, 1))
    return builder.add(re, a), builder.add(im, a), builder.add(re, b), builder.add(im, b)


@intrinsic
def split_columns(typingctx: Any, re: Any, im: Any, places: Any, count: Any, target: Any, like: Any) -> Any:
    """Twice the spectra of two real columns, which were the real and the imaginary part of one: [real, real of partners,
    imaginary, imaginary of partners] of frequencies k < count, whose places and those of -k are in a table."""

    def emit(builder: Any, args: Any) -> None:
        re, im, places, count, target = args
        vector = vector_of(like)

        def body(_: Any, now: list[Any]) -> list[Any]:
            places, go = now
            xr, xi, yr, yi = (read(builder, at, vector) for at in _pair(builder, places, re, im))
            parts = builder.fadd(xr, yr), builder.fadd(xi, yi), builder.fsub(xi, yi), builder.fsub(yr, xr)
            for i, value in enumerate(parts):
                write(builder, value, builder.add(go, _INT(i * VECTOR_BYTES)))
            return [builder.add(places, _INT(16)), builder.add(go, _INT(4 * VECTOR_BYTES))]

        _loop(builder, count, [places, target], body)

    return _calls("split", 5, emit, like)


@intrinsic
def join_columns(typingctx: Any, source: Any, places: Any, count: Any, re: Any, im: Any, like: Any) -> Any:
    """The opposite of `split_columns`."""

    def emit(builder: Any, args: Any) -> None:
        source, places, count, re, im = args
        vector = vector_of(like)

        def body(_: Any, now: list[Any]) -> list[Any]:
            come, places = now
            xr, yr, xi, yi = (read(builder, builder.add(come, _INT(i * VECTOR_BYTES)), vector) for i in range(4))
            a_re, a_im, b_re, b_im = _pair(builder, places, re, im)
            write(builder, builder.fadd(xr, yi), b_re)  # of the frequency 0, whose opposite it is, the next two stay
            write(builder, builder.fsub(yr, xi), b_im)
            write(builder, builder.fsub(xr, yi), a_re)
            write(builder, builder.fadd(xi, yr), a_im)
            return [builder.add(come, _INT(4 * VECTOR_BYTES)), builder.add(places, _INT(16))]

        _loop(builder, count, [source, places], body)

    return _calls("join", 5, emit, like)


def turn_columns(conjugate: bool) -> Any:
    """`lanes` columns from number `column` on, real parts at `re` and imaginary ones `apart` behind, turned by w^(row · column)
    = coarse[column / 16] · fine[column % 16], or by its conjugate; the tables have vectors, one lane for each row."""

    def emit(builder: Any, args: Any, like: Any) -> None:
        re, apart, column, coarse, fine = args
        vector = vector_of(like)

        def factor(table: Any, index: Any) -> tuple[Any, Any]:
            at = builder.add(table, builder.mul(index, _INT(2 * VECTOR_BYTES)))
            return read(builder, at, vector), read(builder, builder.add(at, _INT(VECTOR_BYTES)), vector)

        def body(k: Any, now: list[Any]) -> list[Any]:
            here, j = now[0], builder.add(column, k)
            by = turned(builder, factor(coarse, builder.lshr(j, _INT(4))), factor(fine, builder.and_(j, _INT(15))), False)
            value = read(builder, here, vector), read(builder, builder.add(here, apart), vector)
            new_re, new_im = turned(builder, value, by, conjugate)
            write(builder, new_re, here)
            write(builder, new_im, builder.add(here, apart))
            return [builder.add(here, _INT(VECTOR_BYTES))]

        _loop(builder, _INT(vector.count), [re], body)

    @intrinsic
    def turn(typingctx: Any, re: Any, apart: Any, column: Any, coarse: Any, fine: Any, like: Any) -> Any:
        return _calls(f"turn.{conjugate}", 5, lambda builder, args: emit(builder, args, like), like)

    return turn


def _emit_products(builder: Any, args: Any, like: Any) -> None:
    x, x_step, weights, weights_step, channels, block, target = args
    vector = vector_of(like)
    zero = ir.Constant(vector, [0.0] * vector.count)

    def at(place: Any) -> list[Any]:
        """Of all depths, one part follows the other."""

        def body(_: Any, now: list[Any]) -> list[Any]:
            come, factors, re, im = now
            xr, xi = read(builder, come, vector), read(builder, builder.add(come, block), vector)
            wr, wi = read(builder, factors, vector), read(builder, builder.add(factors, block), vector)
            re = _multiply_add(builder, xr, wr, _multiply_add(builder, xi, wi, re))
            im = _multiply_add(builder, xi, wr, _multiply_add(builder, builder.fneg(xr), wi, im))
            return [builder.add(come, x_step), builder.add(factors, weights_step), re, im]

        return _loop(builder, channels, [builder.add(x, place), builder.add(weights, place), zero, zero], body)[2:]

    def body(_: Any, now: list[Any]) -> list[Any]:
        re, im = at(now[0])
        here = builder.add(target, now[0])
        write(builder, re, here)
        write(builder, im, builder.add(here, block))
        return [builder.add(now[0], _INT(VECTOR_BYTES))]

    _loop(builder, builder.sdiv(block, _INT(VECTOR_BYTES)), [_INT(0)], body)


@intrinsic
def products(typingctx: Any, x: Any, x_step: Any, weights: Any, weights_step: Any, channels: Any, block: Any, target: Any,
             like: Any) -> Any:
    """target = Σ over channels of x · conj(weights), of the spectra of a block of rows at one depth: `block` bytes of real
    parts, as many of imaginary ones. channels > 0."""

    return _calls("products", 7, lambda builder, args: _emit_products(builder, args, like), like)
