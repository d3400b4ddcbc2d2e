"""naive: plain loops with a float64 accumulator. The specification: in float64 it is the oracle of every check."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from .. import activations
from ..padding import pad
from ..problem import ConvProblem
from . import Candidate, refuses_direction, weights_of


class NaiveKernel:
    workspace_bytes = 0
    packed_bytes = 0

    def __init__(self, problem: ConvProblem) -> None:
        self.problem = problem
        self.pack_key = ("naive", *weights_of(problem))

    def pack(self, weight: np.ndarray, bias: np.ndarray | None) -> Any:
        return weight, np.zeros(len(weight)) if bias is None else bias

    @np.errstate(all="ignore")  # NaN, Inf and denormals in the data are results, no reason to warn
    def run(self, array: np.ndarray, packed: Any, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        p = self.problem
        if p.channels_last:
            array, out = np.moveaxis(array, -1, 1), np.moveaxis(out, -1, 1)
            residual = None if residual is None else np.moveaxis(residual, -1, 1)
        weight, bias = packed
        activate = activations.scalar(p.activation)
        group_inputs, group_outputs = p.in_channels // p.groups, p.out_channels // p.groups
        taps = list(itertools.product(range(group_inputs), *map(range, p.kernel_size)))
        padded = pad(array, p)
        for n, o in itertools.product(range(p.batch), range(p.out_channels)):
            first = o // group_outputs * group_inputs  # the first input channel of this group
            image = padded[n, first:first + group_inputs].astype(np.float64)
            strides = [step // image.itemsize for step in image.strides]
            values = np.lib.stride_tricks.as_strided(image, (image.size,), (image.itemsize,)).tolist()
            weights = weight[o].ravel().astype(np.float64).tolist()
            # where each tap reads, relative to where its window starts
            offsets = [sum(i * d * step for i, d, step in zip(tap, (1, *p.dilation), strides)) for tap in taps]
            for position in itertools.product(*map(range, p.output_size)):
                start = sum(i * s * step for i, s, step in zip(position, p.stride, strides[1:]))
                total = 0.0
                for offset, factor in zip(offsets, weights):
                    total += values[start + offset] * factor
                total += float(bias[o])
                if residual is not None:
                    total += float(residual[(n, o, *position)])
                out[(n, o, *position)] = activate(total)


class NaiveBackend:
    name = "naive"
    device = "cpu"

    def unavailable(self) -> str | None:
        return None

    def candidates(self, problem: ConvProblem) -> tuple[Candidate, ...]:
        return (Candidate("direct"),)

    def refuses(self, problem: ConvProblem, candidate: Candidate) -> str | None:
        return refuses_direction(problem)

    def seconds(self, problem: ConvProblem, candidate: Candidate, prepared: bool) -> float | None:
        return None

    def bind(self, problem: ConvProblem, candidate: Candidate) -> NaiveKernel:
        return NaiveKernel(problem)


backend = NaiveBackend()
