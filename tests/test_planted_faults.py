"""Do the checks bite? A right backend with one fault each, and `check`, which must find it.

The faults are those that kernels have: tails, borders, offsets, order, races. A check that passes one of them is no check.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from stepwise_backend import StepwiseBackend, StepwiseKernel

import fastconv
from fastconv import activations, settings
from fastconv.backends import register
from fastconv.verify.matrix import matrix
from fastconv.window import NUMPY_MODES


class WrongTail(StepwiseKernel):
    """Pixels past the last multiple of 4 repeat their neighbour."""

    def epilogue(self, result: np.ndarray, bias: np.ndarray, residual: np.ndarray | None) -> np.ndarray:
        result = super().epilogue(result, bias, residual)
        tail = result.shape[-1] // 4 * 4
        result[..., tail + 1:] = result[..., tail:tail + 1]
        return result


class LowAndHighPaddingSwapped(StepwiseKernel):
    def padded(self, array: np.ndarray) -> np.ndarray:
        p = self.problem
        widths = [(max(0, high), low) for low, high in p.padding]
        padded = np.pad(array, [(0, 0), (0, 0), *widths], mode=NUMPY_MODES[p.padding_mode])
        return padded[(..., *(slice(0, size) for size in p.padded_size))]


class PaddingDropped(StepwiseKernel):
    """The border is zero, whatever the mode."""

    def padded(self, array: np.ndarray) -> np.ndarray:
        widths = [(low, max(0, high)) for low, high in self.problem.padding]
        return np.pad(array, [(0, 0), (0, 0), *widths])[(..., *(slice(0, size) for size in self.problem.padded_size))]


class StridesSwapped(StepwiseKernel):
    def windows(self, padded: np.ndarray) -> np.ndarray:
        p = self.problem
        every = np.lib.stride_tricks.sliding_window_view(
            padded, [d * (k - 1) + 1 for k, d in zip(p.kernel_size, p.dilation)], axis=tuple(range(2, 2 + p.ndim)))
        swapped = every[(..., *(slice(None, None, s) for s in p.stride[::-1]), *(slice(None, None, d) for d in p.dilation))]
        short = [(0, max(0, o - n)) for o, n in zip(p.output_size, swapped.shape[2:])]
        filled = np.pad(swapped, [(0, 0), (0, 0), *short, *[(0, 0)] * p.ndim])
        return filled[(slice(None), slice(None), *map(slice, p.output_size))]


class OutputNotWritten(StepwiseKernel):
    """The last output channel is left as it was."""

    def store(self, result: np.ndarray, out: np.ndarray) -> None:
        out[:, :-1] = result[:, :-1]


class WrongGroupOffset(StepwiseKernel):
    def inputs(self, group: int) -> slice:
        size = self.problem.in_channels // self.problem.groups
        start = min(group, 1) * size
        return slice(start, start + size)


class LastChannelLost(StepwiseKernel):
    """One input channel past a multiple of 4."""

    def multiply(self, windows: np.ndarray, weight: np.ndarray) -> np.ndarray:
        channels = windows.shape[1]
        used = channels - 1 if channels > 4 and channels % 4 == 1 else channels
        return super().multiply(windows[:, :used], weight[:, :used])


class BiasOfTheNextChannel(StepwiseKernel):
    def shaped(self, bias: np.ndarray) -> np.ndarray:
        return super().shaped(np.roll(bias, 1))


class DilationIgnored(StepwiseKernel):
    """Along the last axis: the right number of taps, side by side."""

    def windows(self, padded: np.ndarray) -> np.ndarray:
        p = self.problem
        right = super().windows(padded)
        every = np.lib.stride_tricks.sliding_window_view(
            padded, [d * (k - 1) + 1 for k, d in zip(p.kernel_size, p.dilation)], axis=tuple(range(2, 2 + p.ndim)))
        strides = tuple(slice(None, None, s) for s in p.stride)
        steps = (*(slice(None, None, d) for d in p.dilation[:-1]), slice(0, p.kernel_size[-1]))
        wrong = every[(..., *strides, *steps)]
        assert wrong.shape == right.shape
        return wrong


class ResidualAfterActivation(StepwiseKernel):
    def epilogue(self, result: np.ndarray, bias: np.ndarray, residual: np.ndarray | None) -> np.ndarray:
        result = super().epilogue(result, bias, None)
        return result if residual is None else result + residual


class BiasAfterActivation(StepwiseKernel):
    def epilogue(self, result: np.ndarray, bias: np.ndarray, residual: np.ndarray | None) -> np.ndarray:
        result = result if residual is None else result + residual
        activations.apply(self.problem.activation, result)
        return result + bias


class FirstImageForAll(StepwiseKernel):
    def padded(self, array: np.ndarray) -> np.ndarray:
        return super().padded(np.broadcast_to(array[:1], array.shape))


class SpoilsItsSurroundings(StepwiseKernel):
    """Writes what lies between the elements of a strided output."""

    def store(self, result: np.ndarray, out: np.ndarray) -> None:
        out[...] = result
        step = out.strides[-1]
        if not self.problem.channels_last and step == 2 * out.itemsize and out.shape[-1] > 1:
            between = np.lib.stride_tricks.as_strided(out[..., :-1], (*out.shape[:-1], 2 * out.shape[-1] - 1),
                                                      (*out.strides[:-1], step // 2))
            between[..., 1::2] = 0


class HalfPrecisionWeights(StepwiseKernel):
    """11 bits instead of 24: right on small integers."""

    def pack(self, weight: np.ndarray, bias: np.ndarray | None) -> Any:
        return super().pack(weight.astype(np.float16).astype(weight.dtype), bias)


class ResidualReadTooLate(StepwiseKernel):
    """Wrong only where the residual is the output itself."""

    def epilogue(self, result: np.ndarray, bias: np.ndarray, residual: np.ndarray | None) -> np.ndarray:
        self.late = residual
        return super().epilogue(result, bias, None) if residual is not None else super().epilogue(result, bias, residual)

    def store(self, result: np.ndarray, out: np.ndarray) -> None:
        out[...] = result
        if self.late is not None and self.problem.activation is None:
            out[...] += self.late


class Race(StepwiseKernel):
    """With threads, one run in 97 adds two partial sums in the other order: the last bits differ, within every bound."""

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        self.runs = 0
        self.lock = threading.Lock()

    def multiply(self, windows: np.ndarray, weight: np.ndarray) -> np.ndarray:
        with self.lock:
            self.runs += settings.current().num_threads > 1
            other = self.runs % 97 == 96
        parts = [super(Race, self).multiply(windows[:, c:c + 1], weight[:, c:c + 1]) for c in range(windows.shape[1])]
        return sum(parts[::-1] if other else parts)


FAULTS = [WrongTail, LowAndHighPaddingSwapped, PaddingDropped, StridesSwapped, OutputNotWritten, WrongGroupOffset,
          LastChannelLost, BiasOfTheNextChannel, DilationIgnored, ResidualAfterActivation, BiasAfterActivation,
          FirstImageForAll, SpoilsItsSurroundings, HalfPrecisionWeights, ResidualReadTooLate]


def backend_with(kernel: type[StepwiseKernel]) -> StepwiseBackend:
    made = StepwiseBackend()
    made.kernel = kernel
    made.refuses = lambda problem, candidate: None
    return made


def test_without_a_fault_it_passes(toy_registry):
    register(backend_with(StepwiseKernel))
    report = fastconv.check(matrix(), backends=["stepwise"])
    assert report.ok, str(report)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found(fault, toy_registry):
    register(backend_with(fault))
    report = fastconv.check(matrix(), backends=["stepwise"])  # the other directions would find it as well, in twice the time
    assert not report.ok
    assert all("stepwise direct" in str(failure) for failure in report.failures)
    print(f"{fault.__name__}: found by {len({failure.problem.name for failure in report.failures})} geometries")
    failure = report.failures[0]  # says what, and the problem as text that can be run again
    assert "WRONG" in str(failure) and any(part in failure.what for part in ("instead of", "not written", "beside the output"))
    assert not fastconv.check([failure.problem.text], backends=["stepwise"]).ok


PROBLEM = "mb1_ic9ih7_oc5oh7_kh3ph1"


def test_a_race_is_found_by_repeating(toy_registry):
    register(backend_with(Race))
    assert fastconv.check([PROBLEM], backends=["stepwise"]).ok  # every single result is within its bound
    report = fastconv.check([PROBLEM], backends=["stepwise"], repeats=200)
    assert not report.ok
    assert "threads gives other bits" in str(report)


def test_no_backend_races(backend):
    """200 runs with 2 threads and 200 with 8."""
    if backend == "naive":
        pytest.skip("has no threads, and no time")
    report = fastconv.check([PROBLEM, "mb2_ic17ih9_oc33oh9_kh1", "mb1_g16ic16ih12_oc16oh12_kh3ph1",
                             "--stag=axb mb1_ic70ih5_oc20oh5_kh3ph1"], backends=[backend], repeats=200)
    assert report.ok, str(report)


def test_an_exception_is_a_failure(toy_registry):
    class Raises(StepwiseKernel):
        def padded(self, array: np.ndarray) -> np.ndarray:
            raise RuntimeError("lost my way")

    register(backend_with(Raises))
    report = fastconv.check([PROBLEM], backends=["stepwise"])
    assert not report.ok and "RuntimeError: lost my way" in str(report)


def test_nothing_checked_is_not_ok(toy_registry):
    class Refuses(StepwiseBackend):
        def refuses(self, problem: Any, candidate: Any) -> str | None:
            return "does nothing"

    register(Refuses())
    report = fastconv.check(quick=True, backends=["stepwise"])
    assert not report.ok and "none" in str(report) and "does nothing" in str(report)
