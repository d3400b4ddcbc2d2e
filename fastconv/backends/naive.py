"""naive: plain loops with a float64 accumulator. The specification: in float64 it is the oracle of every check."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import activations
from ..pool_problem import PoolProblem
from ..problem import DIRECTIONS, ConvProblem
from ..window import index_map, pad
from . import Candidate, weights_of
from .naive_pooling import NaivePool


class NaiveKernel:
    workspace_bytes = 0
    packed_bytes = 0

    def __init__(self, problem: ConvProblem) -> None:
        p = self.problem = problem
        self.pack_key = ("naive", p.direction, *weights_of(p))
        self.inputs, self.outputs = p.in_channels // p.groups, p.out_channels // p.groups  # of a group

    def pack(self, second: np.ndarray, bias: np.ndarray | None) -> Any:
        return second, np.zeros(self.problem.result_channels) if bias is None else bias

    @np.errstate(all="ignore")  # NaN, Inf and denormals in the data are results, no reason to warn
    def run(self, first: np.ndarray, packed: Any, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        second, bias = packed
        p = self.problem
        if p.direction == "backward_weight":
            self._weight_gradient(_channels_first(first, p), _channels_first(second, p), out)
            return
        compute = self._forward if p.direction == "forward" else self._input_gradient
        activate, result = activations.scalar(p.activation), _channels_first(out, p)
        added = None if residual is None else _channels_first(residual, p)
        for at, total in compute(_channels_first(first, p), second):
            total += float(bias[at[1]])
            if added is not None:
                total += float(added[at])
            result[at] = activate(total)

    def _forward(self, array: np.ndarray, weight: np.ndarray) -> Iterator[tuple[tuple[int, ...], float]]:
        """(position in the output, its sum), one after the other."""
        p = self.problem
        padded = pad(array, p)
        for n, o in itertools.product(range(p.batch), range(p.out_channels)):
            values, windows, taps = self._windows(padded[n, self._channels(o)])
            factors = weight[o].ravel().astype(np.float64).tolist()
            for position, start in windows:
                total = 0.0
                for tap, factor in zip(taps, factors):
                    total += values[start + tap] * factor
                yield (n, o, *position), total

    def _input_gradient(self, gradient: np.ndarray, weight: np.ndarray) -> Iterator[tuple[tuple[int, ...], float]]:
        """What each output's window has read gets the output's gradient times the weight; padding that repeats the input hands
        it on."""
        p = self.problem
        repeats = [index_map(p, axis).tolist() for axis in range(p.ndim)]
        for n, group in itertools.product(range(p.batch), range(p.groups)):
            sums, windows, taps = self._windows(np.zeros((self.inputs, *p.padded_size)))
            for position, start in windows:
                for o in range(group * self.outputs, (group + 1) * self.outputs):
                    value = float(gradient[(n, o, *position)])
                    for tap, factor in zip(taps, weight[o].ravel().astype(np.float64).tolist()):
                        sums[start + tap] += value * factor
            totals = dict.fromkeys(itertools.product(range(self.inputs), *map(range, p.input_size)), 0.0)
            for (c, *at), total in zip(itertools.product(range(self.inputs), *map(range, p.padded_size)), sums):
                source = (c, *(repeats[axis][i] for axis, i in enumerate(at)))
                if source in totals:  # not a zero of the padding
                    totals[source] += total
            yield from (((n, group * self.inputs + c, *at), total) for (c, *at), total in totals.items())

    def _weight_gradient(self, array: np.ndarray, gradient: np.ndarray, out: np.ndarray) -> None:
        p = self.problem
        padded = pad(array, p)
        for o in range(p.out_channels):
            sums = [0.0] * p.taps
            for n in range(p.batch):
                values, windows, taps = self._windows(padded[n, self._channels(o)])
                for position, start in windows:
                    value = float(gradient[(n, o, *position)])
                    for index, tap in enumerate(taps):
                        sums[index] += values[start + tap] * value
            out[o] = np.reshape(sums, out[o].shape)

    def _channels(self, o: int) -> slice:
        """Those of the input that an output channel reads."""
        first = o // self.outputs * self.inputs
        return slice(first, first + self.inputs)

    def _windows(self, image: np.ndarray) -> tuple[list[float], Iterator[tuple[tuple[int, ...], int]], list[int]]:
        """(an image's values, (position, where its window starts) of each output, where a window's values are from there)."""
        p = self.problem
        strides = [math.prod(image.shape[axis + 1:]) for axis in range(image.ndim)]
        taps = itertools.product(range(self.inputs), *map(range, p.kernel_size))
        offsets = [sum(i * d * step for i, d, step in zip(tap, (1, *p.dilation), strides)) for tap in taps]
        windows = ((position, sum(i * s * step for i, s, step in zip(position, p.stride, strides[1:])))
                   for position in itertools.product(*map(range, p.output_size)))
        return image.astype(np.float64).ravel().tolist(), windows, offsets


def _channels_first(array: np.ndarray, p: ConvProblem) -> np.ndarray:
    return np.moveaxis(array, -1, 1) if p.channels_last else array


class NaiveBackend:
    name = "naive"
    device = "cpu"
    directions = DIRECTIONS

    def unavailable(self) -> str | None:
        return None

    def candidates(self, problem: ConvProblem) -> tuple[Candidate, ...]:
        return (Candidate("direct"),)

    def refuses(self, problem: ConvProblem, candidate: Candidate) -> str | None:
        return None

    def seconds(self, problem: ConvProblem, candidate: Candidate, prepared: bool) -> float | None:
        return None

    def bind(self, problem: ConvProblem, candidate: Candidate) -> NaiveKernel:
        return NaiveKernel(problem)

    def refuses_pool(self, problem: PoolProblem) -> str | None:
        return None

    def bind_pool(self, problem: PoolProblem) -> NaivePool:
        return NaivePool(problem)


backend = NaiveBackend()
