# mypy: disable-error-code="import-untyped"
"""Register tiles of depthwise as LLVM vector code: rows of one vector of neighbouring outputs.

For each column of the kernel its taps stay in registers, and each input row is loaded once for all outputs that want it: 10
loads for 24 multiply-adds at 3x3. Rows are read where they lie; lanes beyond an edge are masked, in tiles of their own, whose
masks come from a table; where half a vector is enough, one takes half as long. A tile goes on from channel to channel, so that
where rows are and what is masked is found out once for all of them: of short rows that took as long as the multiply-adds. With
stride 2 the even and the odd elements of two loads serve two columns, or three: the third has the even ones, and one more.

Bottleneck: loads of a whole vector that begin anywhere, each of which takes as long as two; then L2.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .contexts import HALF, HALVES, MASKED, MOST_OF_THREE
from .rows import _SHORT, _masked
from .vectors import _BYTE, _INT, _dispatch, _function, _llvm_type, _loop, _multiply_add, _pointer, _splat


class _Tile:
    """What is known when a tile is written: its rows, the kernel and the stride, along both axes, a vector's lanes, and whether
    these are masked."""

    def __init__(self, scalar: Any, rows: int, kernel: int, stride: int, lanes: int, masked: bool) -> None:
        self.rows, self.kernel, self.stride, self.lanes, self.masked = rows, kernel, stride, lanes, masked
        self.element, self.size, _ = _llvm_type(scalar)
        self.vector = ir.VectorType(self.element, lanes)

    def constant(self, value: float) -> Any:
        return ir.Constant(self.vector, [value] * self.lanes)

    def emit(self, builder: Any, args: Any) -> None:
        (channels, blocks, table, x, pitch, x_step, zeros, weights, weights_step, bias, bias_step, out, out_step, out_pitch,
         relu, masks) = args
        self.words = builder.inttoptr(masks, _INT.as_pointer())
        table = builder.inttoptr(table, _INT.as_pointer())
        self.lines = []
        for i in range((self.rows - 1) * self.stride + self.kernel):
            index = builder.load(builder.gep(table, [_INT(i)]))
            place = builder.add(x, builder.mul(index, pitch))
            self.lines.append(builder.inttoptr(builder.select(builder.icmp_signed("<", index, _INT(0)), zeros, place), _BYTE))
        floor = builder.select(builder.icmp_signed("!=", relu, _INT(0)), self.constant(0.0), self.constant(float("-inf")))

        def channel(_: Any, now: list[Any]) -> list[Any]:
            offset, weights, bias, to = now
            self.weights = builder.inttoptr(weights, _BYTE)
            start = _splat(builder, builder.load(builder.inttoptr(bias, self.element.as_pointer())), self.lanes)

            def block(_: Any, now: list[Any]) -> list[Any]:
                self._write(builder, self._sums(builder, now[0], [start] * self.rows), floor, now[1], out_pitch)
                return [builder.add(now[0], _INT(self.stride * self.lanes * self.size)),
                        builder.add(now[1], _INT(self.lanes * self.size))]

            if self.masked:
                block(None, [offset, to])
            else:
                _loop(builder, blocks, [offset, to], block)
            steps = x_step, weights_step, bias_step, out_step
            return [builder.add(value, step) for value, step in zip(now, steps, strict=True)]

        _loop(builder, channels, [_INT(0), weights, bias, out], channel)

    def _write(self, builder: Any, sums: list[Any], floor: Any, to: Any, pitch: Any) -> None:
        for r, value in enumerate(sums):
            value = builder.select(builder.fcmp_ordered("<", value, floor), floor, value)  # NaN stays
            place = _pointer(builder, builder.inttoptr(to, _BYTE), builder.mul(pitch, _INT(r)), self.vector)
            if self.masked:
                mask = self._mask(builder, _INT(0), self.lanes)
                _masked(builder, "store", self.vector, [value, place, _SHORT(self.size), mask])
            else:
                builder.store(value, place, align=self.size)

    def _sums(self, builder: Any, offset: Any, sums: list[Any]) -> list[Any]:
        """Over the columns of the kernel, as many together as share loads: a loop, but for the smallest."""

        def add(kw: Any, sums: list[Any], together: int = self.stride) -> list[Any]:
            at = builder.add(offset, builder.mul(kw, _INT(self.size)))
            return self._columns(builder, kw, together, at, sums)

        whole, left = divmod(self.kernel, self.stride)
        if self.stride == 2 and self.kernel <= MOST_OF_THREE:
            whole, left = whole - 1, 3
        if self.kernel > 3:
            sums = _loop(builder, _INT(whole), sums, lambda i, now: add(builder.mul(i, _INT(self.stride)), now))
        else:
            for i in range(whole):
                sums = add(_INT(i * self.stride), sums)
        return add(_INT(whole * self.stride), sums, left) if left else sums

    def _columns(self, builder: Any, kw: Any, together: int, offset: Any, sums: list[Any]) -> list[Any]:
        sums, at = list(sums), builder.mul(kw, _INT(self.size))
        taps = [[self._tap(builder, at, i * self.kernel + j) for j in range(together)] for i in range(self.kernel)]
        first = builder.add(builder.mul(kw, _INT(self.stride)), _INT(1))
        for i, line in enumerate(self.lines):
            for j, value in enumerate(self._inputs(builder, line, offset, first, together)):
                for r in range(self.rows):
                    tap = i - r * self.stride
                    if 0 <= tap < self.kernel:
                        sums[r] = _multiply_add(builder, value, taps[tap][j], sums[r])
        return sums

    def _tap(self, builder: Any, at: Any, number: int) -> Any:
        place = _pointer(builder, self.weights, builder.add(at, _INT(number * self.size)), self.element)
        return _splat(builder, builder.load(place), self.lanes)

    def _mask(self, builder: Any, number: Any, lanes: int) -> Any:
        word = builder.load(builder.gep(self.words, [number]))
        return builder.bitcast(builder.trunc(word, ir.IntType(lanes)), ir.VectorType(ir.IntType(1), lanes))

    def _read(self, builder: Any, line: Any, offset: Any, mask: Any, lanes: int) -> Any:
        vector = ir.VectorType(self.element, lanes)
        place = _pointer(builder, line, offset, vector)
        if not self.masked:
            return builder.load(place, align=self.size)
        given = [place, _SHORT(self.size), self._mask(builder, mask, lanes), ir.Constant(vector, [0.0] * lanes)]
        return _masked(builder, "load", vector, given)

    def _inputs(self, builder: Any, line: Any, offset: Any, first: Any, together: int) -> list[Any]:
        """What the outputs of a vector read of a row for one column of the kernel; with stride 2 for the two or three that
        follow each other: the even elements, the odd ones, the next even ones. `first`: number of their first mask."""
        width = self.lanes * self.size
        loaded = [self._read(builder, line, builder.add(offset, _INT(i * width)), builder.add(first, _INT(i)), self.lanes)
                  for i in range(self.stride)]
        if self.stride == 1:
            return loaded
        places = ir.VectorType(_SHORT, self.lanes)
        found = [builder.shuffle_vector(*loaded, ir.Constant(places, [2 * i + j for i in range(self.lanes)]))
                 for j in range(min(together, 2))]
        if together == 3:
            few = 16 // self.size if self.masked else 1
            last = self._read(builder, line, builder.add(offset, _INT(2 * width)), builder.add(first, _INT(2)), few)
            some = ir.Constant(ir.VectorType(self.element, few), ir.Undefined)
            last = builder.shuffle_vector(last, some, ir.Constant(places, [0] * self.lanes))
            found.append(builder.shuffle_vector(found[0], last, ir.Constant(places, [i + 1 for i in range(self.lanes)])))
        return found


def tiles(kernel: int, stride: int, rows: int) -> Any:
    """An intrinsic: of `channels` > 0 the rows r of `blocks` > 0 vectors of outputs

        out[r][w] = max(floor, bias + Σ_kw,kh x[table[r · stride + kh]][w · stride + kw] · weights[kh][kw])

    r < `rows`; from channel to channel addresses move on by their steps. `table` has the input's rows, -1 for zeros, which move
    on as well. Where lanes are masked, there is one block, and `masks` has words whose bits say which are there: of outputs,
    then of what is loaded for each kw. Pitches and steps in bytes; floor is 0 if `relu`, else nothing is below it."""

    @intrinsic
    def depthwise_tiles(typingctx: Any, kind: Any, channels: Any, blocks: Any, table: Any, x: Any, pitch: Any, x_step: Any,
                        zeros: Any, weights: Any, weights_step: Any, bias: Any, bias_step: Any, out: Any, out_step: Any,
                        out_pitch: Any, relu: Any, masks: Any, like: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            choices, lanes = {}, _llvm_type(like)[2]
            for made in (0, MASKED, *([MASKED | HALF] if HALVES else [])):
                emit = _Tile(like, rows, kernel, stride, lanes // 2 if made & HALF else lanes, made > 0).emit
                choices[made] = _function(builder.module, f"fastconv.depthwise.{like}.{made}", 16, emit)
            _dispatch(builder, args[0], choices, list(args[1:17]))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 17, like), codegen

    return depthwise_tiles
