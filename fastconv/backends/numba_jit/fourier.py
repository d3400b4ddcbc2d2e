# mypy: disable-error-code="import-untyped"
"""Fourier transforms of `lanes` sequences at once as LLVM vector code: element k of all is one vector, of real and of imaginary
parts, that lie apart.

A transform is a *program*, a table of its stages (`fft.program`). A stage of radix r on sequences of n vectors does n / (r m)
butterflies, of elements m apart, for each of m twiddles. Forward: decimation in frequency; inverse: in time, without the factor
1/n. So neither reorders, and products of spectra need no order.

Bottleneck: about 7 additions and multiplications per element and stage of radix 4, and as many cycles for loads and stores.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .contexts import ENTRY, FROM_SECOND, INVERSE, TO_SECOND, VECTOR_BYTES
from .vectors import _BYTE, _INT, _dispatch, _function, _llvm_type, _loop, _multiply_add, _pointer, _splat

RADICES = (2, 3, 4, 5)

Complex = tuple[Any, Any]


def vector_of(like: Any) -> Any:
    element, _, lanes = _llvm_type(like)
    return ir.VectorType(element, lanes)


def read(builder: Any, address: Any, vector: Any) -> Any:
    return builder.load(builder.inttoptr(address, vector.as_pointer()), align=VECTOR_BYTES // vector.count)


def write(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=VECTOR_BYTES // value.type.count)


def turned(builder: Any, value: Complex, by: Complex, conjugate: bool) -> Complex:
    """value · by, or by its conjugate."""
    (re, im), (c, s) = value, by
    across = builder.fmul(im, s), builder.fmul(re, s)
    if conjugate:
        return _multiply_add(builder, re, c, across[0]), _multiply_add(builder, im, c, builder.fneg(across[1]))
    return _multiply_add(builder, re, c, builder.fneg(across[0])), _multiply_add(builder, im, c, across[1])


def _plus(builder: Any, a: Complex, b: Complex) -> Complex:
    return builder.fadd(a[0], b[0]), builder.fadd(a[1], b[1])


def _minus(builder: Any, a: Complex, b: Complex) -> Complex:
    return builder.fsub(a[0], b[0]), builder.fsub(a[1], b[1])


def _scaled(builder: Any, a: Complex, factor: float, more: Complex | None = None) -> Complex:
    """a · factor + more."""
    constant = ir.Constant(a[0].type, [factor] * a[0].type.count)
    if more is None:
        return builder.fmul(a[0], constant), builder.fmul(a[1], constant)
    return _multiply_add(builder, a[0], constant, more[0]), _multiply_add(builder, a[1], constant, more[1])


def _cross(builder: Any, a: Complex, b: Complex, inverse: bool) -> tuple[Complex, Complex]:
    """a + i b and a - i b; exchanged forward, where i is -i."""
    up = builder.fsub(a[0], b[1]), builder.fadd(a[1], b[0])
    down = builder.fadd(a[0], b[1]), builder.fsub(a[1], b[0])
    return (up, down) if inverse else (down, up)


def _butterfly(builder: Any, a: list[Complex], inverse: bool) -> list[Complex]:
    """The transform of as many elements."""
    if len(a) == 2:
        return [_plus(builder, *a), _minus(builder, *a)]
    if len(a) == 4:
        even, odd = _plus(builder, a[0], a[2]), _plus(builder, a[1], a[3])
        one, three = _cross(builder, _minus(builder, a[0], a[2]), _minus(builder, a[1], a[3]), inverse)
        return [_plus(builder, even, odd), one, _minus(builder, even, odd), three]
    if len(a) == 3:
        total = _plus(builder, a[1], a[2])
        turn = _scaled(builder, _minus(builder, a[1], a[2]), math.sqrt(3) / 2)
        return [_plus(builder, a[0], total), *_cross(builder, _scaled(builder, total, -0.5, a[0]), turn, inverse)]
    (c1, s1), (c2, s2) = ((math.cos(2 * math.pi * k / 5), math.sin(2 * math.pi * k / 5)) for k in (1, 2))
    p, q = _plus(builder, a[1], a[4]), _plus(builder, a[2], a[3])
    m, n = _minus(builder, a[1], a[4]), _minus(builder, a[2], a[3])
    u, v = (_scaled(builder, q, two, _scaled(builder, p, one, a[0])) for one, two in ((c1, c2), (c2, c1)))
    x = _scaled(builder, n, s2, _scaled(builder, m, s1))
    y = _scaled(builder, n, -s1, _scaled(builder, m, s2))
    one, four = _cross(builder, u, x, inverse)
    two, three = _cross(builder, v, y, inverse)
    return [_plus(builder, a[0], _plus(builder, p, q)), one, two, three, four]


def _emit_stage(like: Any, radix: int, inverse: bool) -> Any:
    vector = vector_of(like)
    element, size, lanes = _llvm_type(like)

    def butterflies(builder: Any, here: list[Any], count: Any, m: Any, twiddles: list[Complex]) -> None:
        """`count` of them, r m apart; from and to: `here`."""
        step, places = builder.mul(m, _INT(radix)), [builder.mul(m, _INT(q)) for q in range(radix)]

        def body(_: Any, now: list[Any]) -> list[Any]:
            from_re, from_im, to_re, to_im = now
            values = [(read(builder, builder.add(from_re, place), vector), read(builder, builder.add(from_im, place), vector))
                      for place in places]
            if twiddles and inverse:
                values[1:] = [turned(builder, value, by, True) for value, by in zip(values[1:], twiddles, strict=True)]
            values = _butterfly(builder, values, inverse)
            if twiddles and not inverse:
                values[1:] = [turned(builder, value, by, False) for value, by in zip(values[1:], twiddles, strict=True)]
            for (re, im), place in zip(values, places, strict=True):
                write(builder, re, builder.add(to_re, place))
                write(builder, im, builder.add(to_im, place))
            return [builder.add(address, step) for address in now]

        _loop(builder, count, here, body)

    def emit(builder: Any, args: Any) -> None:
        *here, n, m, table = args
        count = builder.sdiv(n, builder.mul(m, _INT(radix)))
        butterflies(builder, here, count, m, [])
        with builder.if_then(builder.icmp_signed(">", m, _INT(VECTOR_BYTES))):

            def body(_: Any, now: list[Any]) -> list[Any]:
                *here, table = now
                base = builder.inttoptr(table, _BYTE)
                factors = [_splat(builder, builder.load(_pointer(builder, base, _INT(i * size), element)), lanes)
                           for i in range(2 * (radix - 1))]
                butterflies(builder, here, count, m, list(zip(factors[::2], factors[1::2], strict=True)))
                return [*(builder.add(address, _INT(VECTOR_BYTES)) for address in here),
                        builder.add(table, _INT(2 * (radix - 1) * size))]

            others = builder.sub(builder.sdiv(m, _INT(VECTOR_BYTES)), _INT(1))
            second = [builder.add(address, _INT(VECTOR_BYTES)) for address in here]
            _loop(builder, others, [*second, builder.add(table, _INT(2 * (radix - 1) * size))], body)

    return emit


def _emit_program(like: Any, stages: dict[int, Any]) -> Any:
    def emit(builder: Any, args: Any) -> None:
        program, *arrays = args
        before, head = builder.block, builder.append_basic_block("stage")
        builder.branch(head)
        builder.position_at_end(head)
        entry = builder.phi(_INT)
        entry.add_incoming(program, before)
        words = builder.inttoptr(entry, _INT.as_pointer())
        radix, which, offset, n, m, table = (builder.load(builder.gep(words, [_INT(i)])) for i in range(6))
        come, go = (builder.icmp_signed("!=", builder.and_(which, _INT(bit)), _INT(0)) for bit in (FROM_SECOND, TO_SECOND))
        places = [builder.select(come, arrays[2 + i], arrays[i]) for i in (0, 1)]
        places += [builder.select(go, arrays[2 + i], arrays[i]) for i in (0, 1)]
        _dispatch(builder, radix, stages, [*(builder.add(place, offset) for place in places), n, m, table])
        following = builder.add(entry, _INT(ENTRY))
        entry.add_incoming(following, builder.block)
        after = builder.append_basic_block("after")
        more = builder.load(builder.inttoptr(following, _INT.as_pointer()))
        builder.cbranch(builder.icmp_signed("!=", more, _INT(0)), head, after)
        builder.position_at_end(after)

    return emit


@intrinsic
def transform(typingctx: Any, program: Any, re: Any, im: Any, second_re: Any, second_im: Any, like: Any) -> Any:
    """All stages of a program, on a first and a second pair of arrays."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        stages = {}
        for inverse in (False, True):
            for radix in RADICES:
                name = f"fastconv.fourier.{like}.{radix}.{inverse}"
                stages[radix + INVERSE * inverse] = _function(builder.module, name, 7, _emit_stage(like, radix, inverse))
        whole = _function(builder.module, f"fastconv.fourier.{like}", 5, _emit_program(like, stages))
        builder.call(whole, list(args[:5]))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, like), codegen
