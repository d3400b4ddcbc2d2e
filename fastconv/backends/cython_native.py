"""cython: the native C++ kernels, one build per ISA, chosen at run time (see kernels/README.md)."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import Any

import numpy as np

from .. import algorithms, machine, native, settings
from ..dtypes import TABLE
from ..errors import Unavailable
from ..native import isa_module, runnable_isas, runtime
from ..native_problem import fields
from ..pool_problem import PoolProblem
from ..problem import ConvProblem
from ..spent import Parts
from ..unit_axes import without_unit_axes
from . import Candidate, Kernel, cython_pooling, refuses_direction

NEAR = 6  # tiles that are worth measuring

_BUILD = "build it with a C++17 compiler (g++ 11 or clang 15 and newer): pip install --force-reinstall fastconv"


def chosen_isas() -> tuple[str, ...]:
    """The ISAs to use, best first: the forced one, or all that run here.

    Raises:
        Unavailable: FASTCONV_ISA names one that cannot run here.
    """
    forced = settings.current().isa
    runnable = runnable_isas()
    if forced is None:
        return runnable[::-1]
    if forced not in runnable:
        reason = native.failures().get(forced)
        raise Unavailable(f"FASTCONV_ISA={forced} is not available: this CPU and build run {', '.join(runnable) or 'none'}"
                          + (f"; {reason}" if reason else ""))
    return (forced,)


class NativeKernel:
    """A native algorithm bound to a problem."""

    def __init__(self, problem: ConvProblem, candidate: Candidate) -> None:
        assert candidate.isa is not None
        self.problem = problem
        computed, unit = without_unit_axes(problem)
        described = _described(computed, candidate.algorithm, candidate.tile)
        self.native = runtime().Kernel(isa_module(candidate.isa), candidate.algorithm, **described, unit=unit)
        self.packed_bytes = self.native.packed_bytes
        self.pack_key: Hashable = (candidate[:2], self.native.packing, self.native.in_place)

    @property
    def workspace_bytes(self) -> int:
        return self.native.workspace_bytes(settings.current().num_threads)

    def pack(self, weight: np.ndarray, bias: np.ndarray | None) -> Any:
        contiguous = None if bias is None else np.ascontiguousarray(bias)
        return self.native.pack(weight, contiguous, settings.current().num_threads)

    def once(self, weight: np.ndarray, bias: np.ndarray | None) -> Any:
        contiguous = None if bias is None else np.ascontiguousarray(bias)
        return self.native.pack(weight, contiguous, settings.current().num_threads, True)

    def run(self, array: np.ndarray, packed: Any, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        self.native.run(array, packed, out, residual, settings.current().num_threads)

    def shortcut(self, made_for: settings.Settings, arguments: tuple[Any, ...], batched: bool, packed: Any = None) -> Any:
        return runtime().Shortcut(self.native, made_for, arguments, batched, packed)


class _Gradient:
    """A native algorithm bound to a problem whose direction is a gradient; both operands are read where they lie."""

    packed_bytes = 0

    def __init__(self, problem: ConvProblem, candidate: Candidate) -> None:
        self.native = NativeKernel(problem, candidate).native
        self.pack_key: Hashable = ("in place", problem.second_shape)

    @property
    def workspace_bytes(self) -> int:
        return self.native.workspace_bytes(settings.current().num_threads)


class NativeWeightGradient(_Gradient):
    """That of the weight."""

    def pack(self, gradient: np.ndarray, bias: np.ndarray | None) -> Any:
        return gradient

    def run(self, array: np.ndarray, gradient: np.ndarray, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        self.native.run_weight(array, gradient, out, settings.current().num_threads)


class NativeInputGradient(_Gradient):
    """That of the input."""

    def pack(self, weight: np.ndarray, bias: np.ndarray | None) -> Any:
        contiguous = None if bias is None else np.ascontiguousarray(bias)
        return self.native.in_order(weight, settings.current().num_threads), contiguous

    def run(self, gradient: np.ndarray, packed: Any, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        weight, bias = packed
        self.native.run_input(gradient, weight, bias, out, residual, settings.current().num_threads)


def _described(p: ConvProblem, algorithm: str, tile: tuple[int, ...] | None) -> dict[str, Any]:
    """With the tile that the algorithm chooses if none is given."""
    tiled = algorithms.tiled(algorithm)
    return fields(p, tile or (tiled.tile(p) if tiled else None))


@functools.lru_cache(maxsize=32)
def _refusal(p: ConvProblem, algorithm: str, tile: tuple[int, ...] | None) -> str | None:
    """No ISA makes a difference."""
    tiled = algorithms.tiled(algorithm)
    reason = refuses_direction(p, algorithms.directions(algorithm)) or (tiled and tiled.refuses(p, tile))
    return reason or runtime().refuses(isa_module(runnable_isas()[0]), algorithm, **_described(p, algorithm, tile))


class NativeBackend:
    name = "cython"
    device = "cpu"

    def unavailable(self) -> str | None:
        if settings.current().no_native:
            return "FASTCONV_NO_NATIVE is set"
        if runtime() is None:
            reason = native.why_not()
            return f"the native kernels do not load: {reason}" if reason else f"the native kernels were not built; {_BUILD}"
        if not runnable_isas():
            return "; ".join(native.failures().values()) or "none of the built ISAs runs on this CPU"
        return None

    def candidates(self, problem: ConvProblem) -> tuple[Candidate, ...]:
        return tuple(Candidate(algorithm, isa) for isa in chosen_isas() for algorithm in isa_module(isa).algorithms)

    def refuses(self, problem: ConvProblem, candidate: Candidate) -> str | None:
        if candidate.isa not in chosen_isas():
            return f"ISA {candidate.isa} is not in use"
        if candidate.tile is not None and algorithms.tiled(candidate.algorithm) is None:
            return "has no tiles"
        return _refusal(without_unit_axes(problem)[0], candidate.algorithm, candidate.tile)

    def variants(self, problem: ConvProblem, candidate: Candidate) -> tuple[Candidate, ...]:
        tiled = algorithms.tiled(candidate.algorithm)
        if tiled is None:
            return ()
        problem, _ = without_unit_axes(problem)
        favourite = tiled.tile(problem)
        return tuple(candidate._replace(tile=tile) for tile in tiled.choices(problem)[:NEAR] if tile != favourite)

    def seconds(self, problem: ConvProblem, candidate: Candidate, prepared: bool) -> float | None:
        """Per image, so that batch changes nothing."""
        parts, rate = self.spent(problem, candidate, prepared)
        return sum(parts.values()) / rate

    def spent(self, problem: ConvProblem, candidate: Candidate, prepared: bool) -> tuple[Parts, float]:
        """In vectors of multiply-adds."""
        assert candidate.isa is not None
        problem, _ = without_unit_axes(problem)
        lanes = isa_module(candidate.isa).lanes * 4 // TABLE[problem.dtype].itemsize
        tile = () if candidate.tile is None else (candidate.tile,)
        parts = algorithms.spent(candidate.algorithm, problem, lanes, prepared, *tile)
        return parts, machine.this().multiply_adds[candidate.isa]

    def computes(self, direction: str, candidate: Candidate) -> bool:
        return direction in algorithms.directions(candidate.algorithm)

    def bind(self, problem: ConvProblem, candidate: Candidate) -> Kernel:
        if problem.direction == "backward_weight":
            return NativeWeightGradient(problem, candidate)
        if problem.direction == "backward_input":
            return NativeInputGradient(problem, candidate)
        return NativeKernel(problem, candidate)

    def refuses_pool(self, problem: PoolProblem) -> str | None:
        return cython_pooling.refuses(problem)

    def bind_pool(self, problem: PoolProblem) -> cython_pooling.NativePool:
        return cython_pooling.NativePool(problem, chosen_isas()[0])


backend = NativeBackend()
