"""Random poolings from arrays of any strides beside forbidden memory: part of `fuzz.py`."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pooling_cases
from odd_arrays import Arena, extent, odd_strides, repeated

from fastconv import settings
from fastconv.backends import Pooling, cython_native, get
from fastconv.backends.cython_pooling import NativePool
from fastconv.pool_problem import PoolProblem


class PoolFuzz:
    """Goes through problems, as `fuzz.Fuzz` does."""

    def __init__(self, backends: list[str], note: Callable[[str], None], fail: Callable[[str], None], room: int) -> None:
        self.backends = [name for name in backends if isinstance(get(name), Pooling)]
        self.note, self.fail, self.room = note, fail, room
        self.arenas = {name: Arena(room) for name in ("first", "indices", "source", "result", "found")}
        self.calls = 0

    def problem(self, number: int) -> None:
        """All backends, the native one with each ISA."""
        dice, rng = random.Random(-number), np.random.default_rng(number)
        problem = odd_pooling(dice, rng)
        poles = problem.direction != "forward" and (problem.norm_type or 1) < 1  # 0^(p - 1) times a sum that rounding makes 0
        arrays = pooling_cases.random_arrays(rng, problem, special=dice.random() < 0.3 and not poles)
        strides = [None if a is None else odd_strides(a.shape, dice, True, False) for a in arrays]
        arrays = [None if a is None else repeated(a, s) for a, s in zip(arrays, strides)]
        for name, isa in self._kernels(problem):
            label = f"problem {number}: {name} {isa or ''} {problem}"
            self.note(label)
            self.calls += 1
            try:
                wrong = self._one(name, isa, problem, arrays, strides, dice)
                if isa and not wrong and NativePool(problem, isa).finds_extremes:
                    wrong = self._searched(isa, problem, dice, rng)
            except Exception as error:
                wrong = f"{type(error).__name__}: {error}"
            if wrong:
                self.fail(f"{label}\n    strides {strides}\n    {wrong}")

    def _kernels(self, problem: PoolProblem) -> list[tuple[str, str | None]]:
        found: list[tuple[str, str | None]] = []
        for name in self.backends:
            if get(name).refuses_pool(problem) is None:  # type: ignore[attr-defined]
                found += [(name, isa) for isa in (cython_native.runnable_isas() if name == "cython" else (None,))]
        return found

    def _one(self, name: str, isa: str | None, problem: PoolProblem, arrays: list[Any], strides: list[Any],
             dice: random.Random) -> str | None:
        side = dice.choice(("start", "end"))
        given = []
        for arena, array, steps in zip(("first", "indices", "source"), arrays, strides):
            if array is None:
                given.append(None)
                continue
            placed = self.arenas[arena].place(array.shape, steps, array.dtype, side)
            placed.array[...] = array
            given.append(placed.read_only())
        result = self._made("result", problem.result_shape, np.dtype(problem.dtype), dice, side)
        found = self._made("found", problem.output_shape, np.dtype(np.int64), dice, side) if problem.return_indices else None
        kernel = NativePool(problem, isa) if isa else get(name).bind_pool(problem)  # type: ignore[attr-defined]
        with settings.config(num_threads=dice.choice((1, 2, 3))):
            kernel.run(given[0], result.array, found.array if found else given[1], given[2])
        expected = pooling_cases.check(problem, result.array.copy(), *arrays)
        if expected is not None and not np.array_equal(found.array if found else None, expected):
            return "wrong places"
        if result.spoiled() or found and found.spoiled():
            return f"memory beside the output was written; its strides {result.array.strides}"
        return None

    def _searched(self, isa: str, problem: PoolProblem, dice: random.Random, rng: np.random.Generator) -> str | None:
        """A gradient of maxima that are searched for, not told."""
        forward = dataclasses.replace(problem, direction="forward", return_indices=True)
        x, side = pooling_cases.random_arrays(rng, forward, special=dice.random() < 0.5)[0], dice.choice(("start", "end"))
        found = np.empty(problem.output_shape, np.int64)
        get("im2col").bind_pool(forward).run(x, np.empty(problem.output_shape, problem.dtype), found)  # type: ignore[attr-defined]
        g = rng.standard_normal(problem.output_shape).astype(problem.dtype)
        expected = np.empty(problem.input_shape, problem.dtype)
        kernel = NativePool(problem, isa)
        kernel.run(g, expected, found)
        source, first = (self._made(arena, a.shape, a.dtype, dice, side) for arena, a in (("source", x), ("first", g)))
        source.array[...], first.array[...] = x, g
        result = self._made("result", problem.result_shape, np.dtype(problem.dtype), dice, side)
        kernel.run(first.read_only(), result.array, None, source.read_only())
        if not np.array_equal(result.array, expected):
            return f"not the gradient by indices; strides {result.array.strides}, {source.array.strides}"
        return "memory beside the output was written" if result.spoiled() else None

    def _made(self, arena: str, shape: tuple[int, ...], dtype: np.dtype[Any], dice: random.Random, side: str) -> Any:
        """For a result, of any strides; poisoned."""
        steps = odd_strides(shape, dice, False, False)
        if extent(shape, steps) * dtype.itemsize > self.room:
            steps = tuple(s // dtype.itemsize for s in np.empty(shape, dtype).strides)
        placed = self.arenas[arena].place(shape, steps, dtype, side)
        placed.array[...] = np.nan if dtype.kind == "f" else 1
        return placed


def odd_pooling(dice: random.Random, rng: np.random.Generator) -> PoolProblem:
    """Any valid combination, small; rows of a few vectors now and then."""
    op = dice.choice(pooling_cases.OPS)
    ndim = dice.choice((1, 1, 2, 2, 3))
    most = dice.choice((None, {1: 300, 2: 40, 3: 9}[ndim]))
    return pooling_cases.random_problem(rng, op, ndim, dice.choice(pooling_cases.LAYOUTS),
                                        dice.choice(("forward", "forward", "backward_input")), most)


