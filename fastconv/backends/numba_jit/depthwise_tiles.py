# mypy: disable-error-code="import-untyped"
"""Register tiles of depthwise as LLVM vector code: rows of one vector of neighbouring outputs.

For each column of the kernel its taps stay in registers, and each input row is loaded once for all outputs that want it: 10
loads for 24 multiply-adds at 3x3. Rows are read where they lie; lanes beyond an edge are masked, in tiles of their own. With
stride 2 the even and the odd elements of two loads serve two columns.

Bottleneck: loads of a whole vector that begin anywhere, each of which takes as long as two; then the edges.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .contexts import VECTOR_BYTES
from .rows import _mask, _masked
from .vectors import _BYTE, _INT, _dispatch, _function, _llvm_type, _loop, _multiply_add, _pointer, _splat


class _Tile:
    """What is known when a tile is written: its rows, the kernel and the stride, along both axes; whether lanes are masked."""

    def __init__(self, scalar: Any, rows: int, kernel: int, stride: int, masked: bool) -> None:
        self.rows, self.kernel, self.stride, self.masked = rows, kernel, stride, masked
        self.element, self.size, self.lanes = _llvm_type(scalar)
        self.vector = ir.VectorType(self.element, self.lanes)

    def constant(self, value: float) -> Any:
        return ir.Constant(self.vector, [value] * self.lanes)

    def emit(self, builder: Any, args: Any) -> None:
        blocks, table, x, pitch, zeros, weights, bias, out, out_pitch, relu, column, width, count = args
        self.width, self.weights = width, builder.inttoptr(weights, _BYTE)
        table = builder.inttoptr(table, _INT.as_pointer())
        self.lines = []
        for i in range((self.rows - 1) * self.stride + self.kernel):
            index = builder.load(builder.gep(table, [_INT(i)]))
            place = builder.add(x, builder.mul(index, pitch))
            self.lines.append(builder.inttoptr(builder.select(builder.icmp_signed("<", index, _INT(0)), zeros, place), _BYTE))
        start = _splat(builder, builder.load(builder.inttoptr(bias, self.element.as_pointer())), self.lanes)
        floor = builder.select(builder.icmp_signed("!=", relu, _INT(0)), self.constant(0.0), self.constant(float("-inf")))
        step = self.stride * self.lanes

        def block(_: Any, now: list[Any]) -> list[Any]:
            offset, to, column, left = now
            sums = self._sums(builder, offset, column, [start] * self.rows)
            to_address = builder.inttoptr(to, _BYTE)
            for r, value in enumerate(sums):
                value = builder.select(builder.fcmp_ordered("<", value, floor), floor, value)  # NaN stays
                place = _pointer(builder, to_address, builder.mul(out_pitch, _INT(r)), self.vector)
                if self.masked:
                    _masked(builder, "store", self.vector, [value, place, ir.IntType(32)(self.size),
                                                            _mask(builder, left, self.lanes)])
                else:
                    builder.store(value, place, align=self.size)
            return [builder.add(offset, _INT(step * self.size)), builder.add(to, _INT(VECTOR_BYTES)),
                    builder.add(column, _INT(step)), builder.sub(left, _INT(self.lanes))]

        _loop(builder, blocks, [_INT(0), out, column, count], block)

    def _sums(self, builder: Any, offset: Any, column: Any, sums: list[Any]) -> list[Any]:
        """Over the columns of the kernel, as many together as share loads: a loop, but for the smallest."""

        def add(kw: Any, sums: list[Any], together: int = self.stride) -> list[Any]:
            at = builder.add(offset, builder.mul(kw, _INT(self.size)))
            return self._columns(builder, kw, together, at, builder.add(column, kw), sums)

        whole, left = divmod(self.kernel, self.stride)
        if self.kernel > 3:
            sums = _loop(builder, _INT(whole), sums, lambda i, now: add(builder.mul(i, _INT(self.stride)), now))
        else:
            for i in range(whole):
                sums = add(_INT(i * self.stride), sums)
        return add(_INT(whole * self.stride), sums, left) if left else sums

    def _columns(self, builder: Any, kw: Any, together: int, offset: Any, column: Any, sums: list[Any]) -> list[Any]:
        sums, at = list(sums), builder.mul(kw, _INT(self.size))
        taps = [[self._tap(builder, at, i * self.kernel + j) for j in range(together)] for i in range(self.kernel)]
        masks = self._masks(builder, column)
        for i, line in enumerate(self.lines):
            for j, value in enumerate(self._inputs(builder, line, offset, masks, together)):
                for r in range(self.rows):
                    tap = i - r * self.stride
                    if 0 <= tap < self.kernel:
                        sums[r] = _multiply_add(builder, value, taps[tap][j], sums[r])
        return sums

    def _tap(self, builder: Any, at: Any, number: int) -> Any:
        place = _pointer(builder, self.weights, builder.add(at, _INT(number * self.size)), self.element)
        return _splat(builder, builder.load(place), self.lanes)

    def _masks(self, builder: Any, column: Any) -> list[Any]:
        """Of the vectors that are loaded from a row, the lanes that lie in the input."""
        if not self.masked:
            return [None] * self.stride
        masks = []
        for i in range(self.stride):
            first = builder.add(column, _INT(i * self.lanes))
            before = _mask(builder, builder.neg(first), self.lanes)
            masks.append(builder.and_(builder.not_(before), _mask(builder, builder.sub(self.width, first), self.lanes)))
        return masks

    def _inputs(self, builder: Any, line: Any, offset: Any, masks: list[Any], together: int) -> list[Any]:
        """What the outputs of a vector read of a row for one column of the kernel, or for two, which are side by side."""
        loaded = []
        for i, mask in enumerate(masks):
            place = _pointer(builder, line, builder.add(offset, _INT(i * VECTOR_BYTES)), self.vector)
            if mask is None:
                loaded.append(builder.load(place, align=self.size))
            else:
                given = [place, ir.IntType(32)(self.size), mask, self.constant(0.0)]
                loaded.append(_masked(builder, "load", self.vector, given))
        if self.stride == 1:
            return loaded
        lanes = ir.VectorType(ir.IntType(32), self.lanes)
        return [builder.shuffle_vector(*loaded, ir.Constant(lanes, [2 * i + j for i in range(self.lanes)]))
                for j in range(together)]


def tiles(kernel: int, stride: int, rows: int) -> Any:
    """An intrinsic: rows r of `blocks` vectors of outputs, blocks > 0, of which `count` are there,

        out[r][w] = max(floor, bias + Σ_kw,kh x[table[r · stride + kh]][w · stride + kw] · weights[kh][kw])

    r < `rows`. `table` has the input's rows, -1 for zeros; x begins at the column `column` of `width`; if not `masked`
    all columns are in the input and all outputs there. Pitches in bytes; floor is 0 if `relu`, else nothing is below it."""

    @intrinsic
    def depthwise_tiles(typingctx: Any, masked: Any, blocks: Any, table: Any, x: Any, pitch: Any, zeros: Any, weights: Any,
                        bias: Any, out: Any, out_pitch: Any, relu: Any, column: Any, width: Any, count: Any, like: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            choices = {}
            for kind in (0, 1):
                emit = _Tile(like, rows, kernel, stride, bool(kind)).emit
                choices[kind] = _function(builder.module, f"fastconv.depthwise.{like}.{kind}", 13, emit)
            _dispatch(builder, args[0], choices, list(args[1:14]))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 14, like), codegen

    return depthwise_tiles
