# mypy: disable-error-code="import-untyped"
"""Winograd's transforms along one axis as LLVM vector code, with the constants of their matrices in it (see
`algorithms/winograd.py`).

Points ±a share their work: two rows of G or B^T are e + o and e - o, and what A^T makes of their products v, w is made of v + w
and v - w.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from ...algorithms import winograd
from .vectors import _BYTE, _INT, _llvm_type, _loop, _multiply_add, _pointer


def _pairs(m: int, taps: int) -> list[tuple[int, int]]:
    points = winograd.POINTS[winograd.size(m, taps)]
    return [(i, i + 1) for i in range(len(points) - 1) if points[i] == -points[i + 1] != 0]


def _clean(matrix: np.ndarray) -> np.ndarray:
    """Without what rounding left of zeros and whole quarters."""
    near = np.round(matrix * 4) / 4
    return np.where(abs(matrix - near) < 1e-12, near, matrix)


def _weighted(builder: Any, factors: Any, values: list[Any]) -> Any:
    """Σ factor · value, of which one at least is not 0."""
    terms = [(factor, value) for factor, value in zip(factors, values, strict=True) if factor != 0]
    terms.sort(key=lambda term: term[0] != 1)  # one that need not be multiplied comes first
    total = None
    for factor, value in terms:
        constant = ir.Constant(value.type, [float(factor)] * value.type.count)
        if total is None:
            total = value if factor == 1 else builder.fmul(constant, value)
        elif abs(factor) == 1:
            total = builder.fadd(total, value) if factor == 1 else builder.fsub(total, value)
        else:
            total = _multiply_add(builder, constant, value, total)
    return total


def _analysed(builder: Any, matrix: np.ndarray, pairs: list[tuple[int, int]], values: list[Any]) -> list[Any]:
    """G g or B^T d: of a pair of rows what is even and what is odd in the point."""
    result: list[Any] = [None] * len(matrix)
    for i, j in pairs:
        even, odd = (_weighted(builder, _clean((matrix[i] + sign * matrix[j]) / 2), values) for sign in (1, -1))
        result[i], result[j] = builder.fadd(even, odd), builder.fsub(even, odd)
    clean = _clean(matrix)
    return [_weighted(builder, clean[i], values) if found is None else found for i, found in enumerate(result)]


def _synthesised(builder: Any, matrix: np.ndarray, pairs: list[tuple[int, int]], values: list[Any]) -> list[Any]:
    """A^T v: even powers of a pair's points are equal, odd ones opposite."""
    sums = {i: (builder.fadd(values[i], values[j]), builder.fsub(values[i], values[j])) for i, j in pairs}
    paired, clean = {j for _, j in pairs}, _clean(matrix)
    rows = []
    for power, row in enumerate(clean):
        kept = [i for i in range(len(values)) if i not in paired]
        rows.append(_weighted(builder, row[kept], [sums[i][power % 2] if i in sums else values[i] for i in kept]))
    return rows


def _along(kind: str, m: int, taps: int) -> tuple[int, Callable[[Any, list[Any]], list[Any]]]:
    """(how many values go in, what is made of them)."""
    if m == taps == 1:
        return 1, lambda builder, values: values
    made, pairs = winograd.matrices(m, taps), _pairs(m, taps)
    if kind in ("out", "last"):
        return made.outputs.shape[1], lambda builder, values: _synthesised(builder, made.outputs, pairs, values)
    matrix = made.inputs if kind == "in" else made.weights
    return matrix.shape[1], lambda builder, values: _analysed(builder, matrix, pairs, values)


def columns(kind: str, scalar: Any, m: int, taps: int) -> Any:
    """(source, its stride and step, target, its stride and step, count, start, flag):

    target[:][i] = T source[:][i] for i < count, count > 0, with T one of the matrices of F(m, taps), of vectors `stride`
    bytes apart, and `step` from one i to the next.

    kind: "weights" G, "in" B^T, "out" A^T, or "last": A^T plus the vector at `start`, and at `flag` is put what is 0 in all
    lanes if all these are finite.
    """
    length, transform = _along(kind, m, taps)
    element, size, lanes = _llvm_type(scalar)
    vector = ir.VectorType(element, lanes)
    zero = ir.Constant(vector, [0.0] * lanes)

    def emit(builder: Any, args: Any) -> None:
        source, source_stride, source_step, target, target_stride, target_step, count, start, flag = args
        first = builder.load(builder.inttoptr(start, vector.as_pointer()), align=size) if kind == "last" else None

        def body(_: Any, now: list[Any]) -> list[Any]:
            come, go, spoilt = now
            base = builder.inttoptr(come, _BYTE)
            values = [builder.load(_pointer(builder, base, builder.mul(source_stride, _INT(k)), vector), align=size)
                      for k in range(length)]
            base = builder.inttoptr(go, _BYTE)
            for k, value in enumerate(transform(builder, values)):
                if first is not None:
                    value = builder.fadd(value, first)
                    spoilt = _multiply_add(builder, value, zero, spoilt)
                builder.store(value, _pointer(builder, base, builder.mul(target_stride, _INT(k)), vector), align=size)
            return [builder.add(come, source_step), builder.add(go, target_step), spoilt]

        *_, spoilt = _loop(builder, count, [source, target, zero], body)
        if first is not None:
            builder.store(spoilt, builder.inttoptr(flag, vector.as_pointer()), align=size)

    return emit
