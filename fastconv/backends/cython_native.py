"""cython: the native C++ kernels, one build per ISA, chosen at run time (see kernels/README.md)."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import fourier, native, settings, winograd
from ..errors import Unavailable
from ..native import isa_module, runnable_isas, runtime
from ..problem import ConvProblem
from ..unit_axes import without_unit_axes
from . import Candidate, refuses_direction

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
        self.native = runtime().Kernel(isa_module(candidate.isa), candidate.algorithm, **fields(computed, candidate), unit=unit)
        self.packed_bytes = self.native.packed_bytes
        self.pack_key = (candidate[:2], self.native.packing)

    @property
    def workspace_bytes(self) -> int:
        return self.native.workspace_bytes(settings.current().num_threads)

    def pack(self, weight: np.ndarray, bias: np.ndarray | None) -> Any:
        contiguous = None if bias is None else np.ascontiguousarray(bias)
        return self.native.pack(np.ascontiguousarray(weight), contiguous, settings.current().num_threads)

    def run(self, array: np.ndarray, packed: Any, out: np.ndarray, residual: np.ndarray | None = None) -> None:
        self.native.run(array, packed, out, residual, settings.current().num_threads)

    def shortcut(self, made_for: settings.Settings, arguments: tuple[Any, ...], batched: bool, packed: Any = None) -> Any:
        return runtime().Shortcut(self.native, made_for, arguments, batched, packed)


def fields(p: ConvProblem, candidate: Candidate) -> dict[str, Any]:
    """The problem as `_runtime.Kernel` takes it for a candidate."""
    tiled = TILED.get(candidate.algorithm)
    return {**_described(p), "tile": candidate.tile or (tiled and tiled.tile(p))}


@functools.lru_cache(maxsize=8)
def _described(p: ConvProblem) -> dict[str, Any]:
    """The same whoever computes it: channels per group, one tuple per quantity."""
    name, parameter = p.activation or (None, 0.0)
    return dict(
        dtype=p.dtype, batch=p.batch, groups=p.groups, in_channels=p.in_channels // p.groups,
        out_channels=p.out_channels // p.groups, input=p.input_size, output=p.output_size, kernel=p.kernel_size,
        stride=p.stride, dilation=p.dilation, pad_lo=tuple(low for low, _ in p.padding),
        pad_hi=tuple(high for _, high in p.padding), padding_mode=p.padding_mode, activation=name,
        activation_parameter=parameter, has_bias=p.bias, has_residual=p.residual, strict=p.accuracy == "strict",
        channels_last=p.channels_last)


@functools.lru_cache(maxsize=32)
def _refusal(p: ConvProblem, algorithm: str, tile: tuple[int, ...] | None) -> str | None:
    """No ISA makes a difference."""
    tiled = TILED.get(algorithm)
    reason = refuses_direction(p) or (tiled and tiled.refuses(p, tile))
    return reason or runtime().refuses(isa_module(runnable_isas()[0]), algorithm, **fields(p, Candidate(algorithm, None, tile)))


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
        if candidate.tile is not None and candidate.algorithm not in TILED:
            return "has no tiles"
        return _refusal(without_unit_axes(problem)[0], candidate.algorithm, candidate.tile)

    def variants(self, problem: ConvProblem, candidate: Candidate) -> tuple[Candidate, ...]:
        tiled = TILED.get(candidate.algorithm)
        if tiled is None:
            return ()
        problem, _ = without_unit_axes(problem)
        favourite = tiled.tile(problem)
        return tuple(candidate._replace(tile=tile) for tile in tiled.choices(problem)[:NEAR] if tile != favourite)

    def seconds(self, problem: ConvProblem, candidate: Candidate, prepared: bool) -> float | None:
        """A rough model, good enough to rank the algorithms of this backend: multiply-adds of whole vectors at one per
        lane, unit and cycle, plus what each algorithm spends beside them. Per image, so that batch changes nothing."""
        assert candidate.isa is not None
        problem, _ = without_unit_axes(problem)
        lanes = isa_module(candidate.isa).lanes * 4 // np.dtype(problem.dtype).itemsize
        more = {} if candidate.tile is None else {"chosen": candidate.tile}
        packing = 0.0 if prepared else PACKING[candidate.algorithm](problem, lanes, **more)
        return (ESTIMATES[candidate.algorithm](problem, lanes, **more) + packing) / 6e9

    def bind(self, problem: ConvProblem, candidate: Candidate) -> NativeKernel:
        return NativeKernel(problem, candidate)


@functools.lru_cache(maxsize=32)
def _computed(p: ConvProblem) -> float:
    """Products per output, without those of the taps that lie in the padding (`kernels/regions.hpp`)."""
    if p.padding_mode != "zeros" or not any(map(any, p.padding)):
        return p.taps
    return p.taps * runtime().computed(isa_module(runnable_isas()[0]), "gemm", **fields(p, Candidate("gemm", None)))


def _gemm_cycles(p: ConvProblem, lanes: int) -> float:
    """Vectors of output channels times pixels, a last odd one at 4/3; inputs go to panels at the price of 1.4 more vectors of
    channels, and sums are read, written and transposed. One pixel takes as long as two, and both at least as long as reading
    the weights."""
    pixels, channels = math.prod(p.output_size), p.out_channels // p.groups
    vectors = math.ceil(channels / lanes)
    multiplied = p.groups * max(pixels, 2) * (vectors + vectors % 2 / 3 + 1.4) * _computed(p)
    finished = 15 * vectors + (30 if p.channels_last and channels % lanes else 0)
    return max(multiplied, _weights_read(p)) + p.groups * pixels * finished + _slab_cycles(p, 3 * lanes)


_LOADS = {1: 2.2, 2: 0.8, 3: 0.4, 4: 0.05}  # direct: beside one multiply-add, by output channels of a group


def _direct_cycles(p: ConvProblem, lanes: int) -> float:
    """Vectors of pixels along rows times output channels; loads bound it below four output channels, and the caches where the
    inputs of 16 pixels take much of L1, the more the fewer products share an input; not so where the copy has a plane for each
    tap, whose lines are read whole. Regions narrower than a vector are copied, tap by tap. Inputs and outputs whose channels
    are side by side move one by one, the slower the more planes they move to."""
    p = _merged(p)
    rows, width, channels = math.prod(p.output_size[:-1]), p.output_size[-1], p.out_channels // p.groups
    planes = _has_planes(p)
    if planes or (p.taps * p.groups == p.in_channels and set(p.stride) == {1}):
        rows, width = 1, rows * width
    inputs = p.in_channels // p.groups * math.prod(p.kernel_size[:-1]) * (2 * lanes * p.stride[-1] + p.kernel_size[-1])
    loads = 1 + _LOADS.get(channels, 0.09) + (0.01 * inputs / p.taps if inputs > 1500 and not planes else 0)
    moved = 0.0
    if p.channels_last:  # to a plane of each channel
        each = 3 if math.prod(p.kernel_size) == 1 else 6 + 0.07 * p.in_channels
        moved = p.in_channels * math.prod(_read(p)) * each + 6 * p.out_channels * math.prod(p.output_size)
    computed = _computed(p)
    copied = 55 * p.groups * math.prod(p.output_size[:-1]) * computed if computed < p.taps and _narrowest(p) < lanes else 0
    return p.groups * rows * math.ceil(width / lanes) * channels * (computed * loads + 7) + _slab_cycles(p) + copied + moved


@functools.lru_cache(maxsize=32)
def _merged(p: ConvProblem) -> ConvProblem:
    """Rows that follow each other are one (kernels/window.hpp: merge_rows)."""
    plain = [k == s == 1 and pads == (0, 0) for k, s, pads in zip(p.kernel_size, p.stride, p.padding, strict=True)]
    if p.ndim < 3 or p.channels_last or not (plain[1] and plain[2]):
        return p
    inputs, (depth, *_) = math.prod(p.input_size[1:]), p.input_size
    return dataclasses.replace(p, input_size=(depth, inputs), kernel_size=p.kernel_size[::2],
                               stride=p.stride[::2], padding=p.padding[::2], dilation=p.dilation[::2])


def _narrowest(p: ConvProblem) -> int:
    """Columns of the narrowest region, between those where a tap enters or leaves the input."""
    width, (pad, _), stride = p.output_size[-1], p.padding[-1], p.stride[-1]
    taps, edges = range(p.kernel_size[-1]), (pad, p.input_size[-1] + pad)
    borders = {-((tap * p.dilation[-1] - edge) // stride) for tap in taps for edge in edges}
    inside = sorted({0, width} | {border for border in borders if 0 < border < width})
    return min(end - begin for begin, end in itertools.pairwise(inside))


def _has_planes(p: ConvProblem) -> bool:
    """Whether direct copies the input to planes of the outputs, or to rows of whole vectors, which are as good: no input is
    read twice, and there are not too many products."""
    once = all(n * k <= (n - 1) * s + (k - 1) * d + 1
               for n, k, s, d in zip(p.output_size, p.kernel_size, p.stride, p.dilation, strict=True))
    return once and p.taps <= 640 and (p.stride[-1] > 1 or any(map(any, p.padding)))


def _slab_cycles(p: ConvProblem, shortest: int = 0) -> float:
    """The copy with the padding written out, row by row: in one pass, or, where a few taps lie far apart, each on its own.
    Other rows are copied if they are shorter than `shortest`. Where channels lie side by side, pixel by pixel."""
    short = p.output_size[-1] < shortest and math.prod(p.kernel_size) > 1
    if p.stride[-1] == 1 and not short and not any(map(any, p.padding)):
        return 0
    read = _read(p)
    if p.channels_last:
        return math.prod(read) * (10 + 0.4 * p.in_channels)
    taps, stride, width = p.kernel_size[-1], p.stride[-1], p.input_size[-1]
    row = 50 + width if stride <= 2 or taps >= min(4, stride) else 60 * taps + 3 * width * taps / stride
    return p.in_channels * math.prod(read[:-1]) * row


def _read(p: ConvProblem) -> list[float]:
    """Inputs along each axis that windows reach."""
    return [n * min(1, k / s) for n, k, s in zip(p.input_size, p.kernel_size, p.stride, strict=True)]


def _depthwise_cycles(p: ConvProblem, lanes: int) -> float:
    """Vectors along rows; loads, masks and stores beside the multiply-adds, more loads with stride 2, and the copy that splits
    the phases of longer strides, all of them. More loads but for square kernels of 3, 5, 7 and 9, and where rows of the tile
    share no input rows; a single row has one sum at a time, and each multiply-add waits for the one before. Channels side by
    side are vectors of a pixel's, or few of them of several pixels'; where each has several outputs, rows are widened, or if
    they take too much memory, outputs transposed."""
    rows, width = math.prod(p.output_size[:-1]), p.output_size[-1]
    few = 2 * p.out_channels <= lanes
    kept = math.prod(p.kernel_size[:-1]) * p.input_size[-1] * p.out_channels * np.dtype(p.dtype).itemsize  # of widened rows
    if p.channels_last and (p.groups == p.out_channels or kept <= 512 << 10) and not (few and p.stride[-1] > 1):
        edges = min(width, (p.kernel_size[-1] - 1) * p.dilation[-1]) if few else 0  # one by one
        together = 1.6 * p.out_channels / lanes if few else math.ceil(p.out_channels / lanes)
        vectors = 2 * edges + (width - edges) * together
        widened = 3.0 * math.prod(p.input_size) * p.groups if p.groups < p.out_channels else 0
        return rows * (vectors * (2.2 * p.taps + 9) + 100) + widened
    plane = p.kernel_size[-2:]
    depths = p.taps // math.prod(plane)
    tuned = plane in ((3, 3), (5, 5), (7, 7), (9, 9)) and set(p.dilation) == {1} and depths == 1
    near = p.dilation[-2:-1] == p.stride[-2:-1] == (1,) and plane[0] > 2
    copied = 0 if p.stride[-1] <= 2 else depths * (_slab_cycles(p) + p.in_channels * math.prod(p.input_size))
    loads = 8.0 if rows == 1 else (1.5 if tuned else 2.0 if near else 3.5)
    if p.stride[-1] == 2:
        loads *= 1.6 if width > lanes else 2.0  # masked at both ends
    transposed = 9.0 * p.out_channels * rows * width if p.channels_last and p.out_channels > 1 else 0
    return p.out_channels * (rows * math.ceil(width / lanes) * (loads * p.taps + 4) + 80) + copied + transposed


def _winograd_cycles(p: ConvProblem, lanes: int, chosen: tuple[int, ...] | None = None) -> float:
    return winograd.cost(p, chosen or winograd.tile(p), lanes)


def _dot_cycles(p: ConvProblem, lanes: int) -> float:
    """Vectors of products: the loads of a tile where it is small; inputs that are gathered one by one for every 256 output
    channels, or transposed, as are channels side by side; what each tile takes beside. Many weights for few pixels take as
    long as they take to be read."""
    pixels, channels, taps = math.prod(p.output_size), p.out_channels // p.groups, math.prod(p.kernel_size)
    rows, at_once = min(4, channels), min(6, pixels)
    step = max(1.35 * rows * at_once, 2.4 * rows + 1.2 * at_once, 5) * math.ceil(p.taps / lanes) + 160
    dense = taps == 1 and (p.channels_last or math.prod(p.input_size) == 1)
    if taps == 1:
        gathered = 0.5 if dense else 1.3 if set(p.stride) == {1} else 2.5
    else:
        gathered = 1.2 if p.channels_last and taps <= lanes <= p.in_channels // p.groups else 2.8
    gathered *= math.ceil(channels / 256)
    per_pixel = channels * step / (rows * at_once) + gathered * p.taps + 80
    return max(p.groups * (pixels * per_pixel + 200), _weights_read(p))


def _weights_read(p: ConvProblem) -> float:
    """From the caches, or from memory."""
    weights = p.out_channels * p.taps * np.dtype(p.dtype).itemsize
    return (0.05 if weights < 12e6 else 0.14) * weights


def _not_packed(p: ConvProblem, lanes: int) -> float:
    return 0


def _packed_once(p: ConvProblem, lanes: int) -> float:
    """Each weight is read, transposed and written; both beyond L2 if they are many."""
    weights = p.out_channels * p.taps
    return (24 if weights * np.dtype(p.dtype).itemsize > 3e6 else 9) * weights / lanes


def _packed_in_panels(p: ConvProblem, lanes: int) -> float:
    """The same in blocks of a few output channels."""
    return 2 * _packed_once(p, lanes)


def _transformed_once(p: ConvProblem, lanes: int, chosen: tuple[int, ...] | None = None) -> float:
    return winograd.packing_cost(p, chosen or winograd.tile(p), lanes)


TILED: dict[str, Any] = {"winograd": winograd, "fft": fourier}  # who chooses the tile
NEAR = 6  # tiles that are worth measuring
ESTIMATES: dict[str, Callable[..., float]] = {
    "gemm": _gemm_cycles, "direct": _direct_cycles, "winograd": _winograd_cycles, "depthwise": _depthwise_cycles,
    "fft": fourier.cost, "dot": _dot_cycles}
PACKING: dict[str, Callable[..., float]] = {
    "gemm": _packed_once, "direct": _packed_in_panels, "winograd": _transformed_once, "depthwise": _packed_in_panels,
    "fft": fourier.packing_cost, "dot": _not_packed}

backend = NativeBackend()
