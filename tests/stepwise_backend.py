"""A right backend whose every step is a method, so that a planted fault can get just one of them wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import activations
from fastconv.backends import Candidate, refuses_direction
from fastconv.window import pad


class StepwiseKernel:
    workspace_bytes = packed_bytes = 0
    pack_key = "stepwise"

    def __init__(self, problem: Any) -> None:
        self.problem = problem

    def pack(self, weight: np.ndarray, bias: np.ndarray | None) -> Any:
        return weight.copy(), np.zeros(len(weight), weight.dtype) if bias is None else bias.copy()

    def run(self, array: np.ndarray, packed: Any, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        p = self.problem
        weight, bias = packed
        if p.channels_last:
            array, out = np.moveaxis(array, -1, 1), np.moveaxis(out, -1, 1)
            residual = None if residual is None else np.moveaxis(residual, -1, 1)
        windows = self.windows(self.padded(array))
        size = p.out_channels // p.groups
        parts = [self.multiply(windows[:, self.inputs(g)], weight[g * size:(g + 1) * size]) for g in range(p.groups)]
        self.store(self.epilogue(np.concatenate(parts, axis=1), self.shaped(bias), residual), out)

    def padded(self, array: np.ndarray) -> np.ndarray:
        return pad(array, self.problem)

    def windows(self, padded: np.ndarray) -> np.ndarray:
        """(batch, channels, *output, *kernel)"""
        p = self.problem
        spans = [d * (k - 1) + 1 for k, d in zip(p.kernel_size, p.dilation)]
        every = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=tuple(range(2, 2 + p.ndim)))
        return every[(..., *(slice(None, None, s) for s in p.stride), *(slice(None, None, d) for d in p.dilation))]

    def inputs(self, group: int) -> slice:
        size = self.problem.in_channels // self.problem.groups
        return slice(group * size, (group + 1) * size)

    def multiply(self, windows: np.ndarray, weight: np.ndarray) -> np.ndarray:
        space, kernel = "xyz"[:self.problem.ndim], "uvw"[:self.problem.ndim]
        return np.einsum(f"nc{space}{kernel},oc{kernel}->no{space}", windows, weight)

    def shaped(self, bias: np.ndarray) -> np.ndarray:
        return bias.reshape(-1, *(1,) * self.problem.ndim)

    def epilogue(self, result: np.ndarray, bias: np.ndarray, residual: np.ndarray | None) -> np.ndarray:
        result = result + bias
        if residual is not None:
            result = result + residual
        activations.apply(self.problem.activation, result)
        return result

    def store(self, result: np.ndarray, out: np.ndarray) -> None:
        out[...] = result


class StepwiseBackend:
    name = "stepwise"
    device = "cpu"
    kernel: type[StepwiseKernel] = StepwiseKernel

    def unavailable(self) -> str | None:
        return None

    def candidates(self, problem: Any) -> tuple[Candidate, ...]:
        return (Candidate("direct"),)

    def refuses(self, problem: Any, candidate: Candidate) -> str | None:
        return refuses_direction(problem)

    def seconds(self, problem: Any, candidate: Candidate, prepared: bool) -> float | None:
        return None

    def bind(self, problem: Any, candidate: Candidate) -> StepwiseKernel:
        return self.kernel(problem)

