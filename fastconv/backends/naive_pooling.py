"""Pooling of the naive backend: plain loops, sums in float64. The specification: in float64 it is the oracle of every check."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from ..pool_problem import PoolProblem

Position = tuple[int, ...]


class NaivePool:
    def __init__(self, problem: PoolProblem) -> None:
        self.problem = problem

    @np.errstate(all="ignore")  # NaN, Inf and denormals in the data are results, no reason to warn
    def run(self, first: np.ndarray, result: np.ndarray, indices: np.ndarray | None = None, input: np.ndarray | None = None,
            /) -> None:
        p = self.problem
        if p.channels_last:
            first, result = np.moveaxis(first, -1, 1), np.moveaxis(result, -1, 1)
            indices, input = (None if a is None else np.moveaxis(a, -1, 1) for a in (indices, input))
        for at in itertools.product(range(p.batch), range(p.channels)):
            x, y = first[at], result[at]
            where, source = (None if a is None else a[at] for a in (indices, input))
            if p.direction == "backward_input":
                y[...] = np.reshape(self._gradient(x, where, source), y.shape)
            elif p.op in ("max", "min"):
                self._select(x.ravel().tolist(), y, where)
            else:
                self._sum(x.ravel().tolist(), y)

    def _windows(self) -> Any:
        """(output position, flat indices of its window's taps in a plane of the input), one after the other."""
        p = self.problem
        steps = [math.prod(p.input_size[axis + 1:]) for axis in range(p.ndim)]
        for position in itertools.product(*map(range, p.output_size)):
            along = [[(int(p.first[axis][o]) + j * p.dilation[axis]) * steps[axis] for j in range(p.count[axis][o])]
                     for axis, o in enumerate(position)]
            yield position, list(map(sum, itertools.product(*along)))

    def _select(self, values: list[Any], y: np.ndarray, where: np.ndarray | None) -> None:
        sign = 1 if self.problem.op == "max" else -1
        for position, taps in self._windows():
            best = taps[0]
            for tap in taps[1:]:
                value = values[tap]
                if sign * value > sign * values[best] or value != value:
                    best = tap
            y[position] = values[best]
            if where is not None:
                where[position] = best

    def _sum(self, values: list[float], y: np.ndarray) -> None:
        for position, taps in self._windows():
            total = self._scaled(self._total(values, taps), position)
            y[position] = total if self.problem.norm_type is None else np.power(total, 1 / self.problem.norm_type)

    def _total(self, values: list[float], taps: list[int]) -> Any:
        total, norm = np.float64(0), self.problem.norm_type
        for tap in taps:
            total += values[tap] if norm is None else np.power(np.float64(values[tap]), norm)
        return total

    def _scaled(self, total: Any, position: Position) -> Any:
        """A window's sum over the average's divisor, times lp's scale."""
        p = self.problem
        return total / (p.divisor_override or math.prod(int(p.divisor[axis][o]) for axis, o in enumerate(position))) * p.scale

    def _gradient(self, gradient: np.ndarray, where: np.ndarray | None, source: np.ndarray | None) -> list[Any]:
        sums: list[Any] = [np.float64(0)] * math.prod(self.problem.input_size)
        values = [] if source is None else source.ravel().tolist()
        read = set()
        for position, taps in self._windows():
            share = np.float64(gradient[position])
            if where is not None:
                taps = [int(where[position])]
            else:
                share = self._scaled(share, position) * self._slope(values, taps, position)
            for tap in taps:
                sums[tap] += share
            read.update(taps)
        if source is None:
            return sums
        assert self.problem.norm_type is not None
        return [total * np.power(np.float64(values[tap]), self.problem.norm_type - 1) if tap in read else total
                for tap, total in enumerate(sums)]

    def _slope(self, values: list[float], taps: list[int], position: Position) -> Any:
        """s^(1/p - 1) of lp, 0 where s is."""
        norm = self.problem.norm_type
        if norm is None:
            return 1.0
        total = self._scaled(self._total(values, taps), position)
        return np.power(total, 1 / norm - 1) if total != 0 else 0.0
