"""What several algorithms spend time on, in the unit of `Algorithm.cost`."""

from __future__ import annotations

import functools
import math

from .. import machine
from ..dtypes import TABLE
from ..problem import ConvProblem
from ..settings import current
from ..spent import Parts

MOST_KEPT = 128 << 20  # bytes of packed weights that are kept for the next call (kernels/runtime.hpp)
MOST_POSITIONS = 2048  # of small planes with their padding, and the outputs (kernels/depthwise_planes.hpp)


def reached(p: ConvProblem) -> list[float]:
    """Inputs along each axis that windows reach."""
    return [n * min(1, k / s) for n, k, s in zip(p.input_size, p.kernel_size, p.stride, strict=True)]


def slab(p: ConvProblem, shortest: int = 0) -> float:
    """The copy with the padding written out, row by row: in one pass, or, where a few taps lie far apart, each on its own.
    Other rows are copied if they are shorter than `shortest`. Where channels lie side by side, pixel by pixel."""
    short = p.output_size[-1] < shortest and p.kernel_volume > 1
    if p.stride[-1] == 1 and not short and not any(map(any, p.padding)):
        return 0
    read = reached(p)
    if p.channels_last:
        return math.prod(read) * (10 * p.groups + 0.4 * p.in_channels)
    taps, stride, width = p.kernel_size[-1], p.stride[-1], p.input_size[-1]
    row = 50 + width if stride <= 2 or taps >= min(4, stride) else 60 * taps + 3 * width * taps / stride
    return p.in_channels * math.prod(read[:-1]) * row


def weight_bytes(p: ConvProblem) -> int:
    return p.out_channels * p.k * TABLE[p.dtype].itemsize


def with_weights(p: ConvProblem, lanes: int, computed: Parts, slower: float = 1.0) -> Parts:
    """What is computed while the weights are read, once for all images that a call is expected to have: where it weighs these
    are small. slower: than they can be read."""
    return while_read(p, lanes, computed, weight_bytes(p), slower / (current().expected_batch or 1))


def called(p: ConvProblem, lanes: int, spent: Parts, calls: float) -> Parts:
    """With what a call takes before and after, so many times the least, once for all images; and with the arrays of an image
    where these are read from memory, and written there."""
    size, here = _image_bytes(p), machine.this()
    if size > here.levels[-2].size:
        spent = while_read(p, lanes, spent, size, 1, "memory")
    images = 1 if p.direction == "backward_weight" else current().expected_batch or 1
    spent["call"] = calls / images * here.call * here.rates[lanes * TABLE[p.dtype].itemsize]
    return spent


@functools.lru_cache(maxsize=32)
def _image_bytes(p: ConvProblem) -> int:
    """Of both arrays of one; a gradient of the weight has all images."""
    if p.direction == "backward_weight":
        return 0
    inputs, outputs = p.in_channels * math.prod(p.input_size), p.out_channels * math.prod(p.output_size)
    return (inputs + outputs) * TABLE[p.dtype].itemsize


def while_read(p: ConvProblem, lanes: int, computed: Parts, size: float, times: float, what: str = "",
               here: machine.Machine | None = None) -> Parts:
    """The same of so many bytes, from the caches or from memory. The shorter of the two is hidden but for a third."""
    here = here or machine.this()
    level = here.level(size)
    read = size * times / level.speed * here.rates[lanes * TABLE[p.dtype].itemsize]
    if read > sum(computed.values()):
        computed = {name: part / 3 for name, part in computed.items()}
    else:
        read /= 3
    computed[what or "weights from " + level.name] = read
    return computed


def packed_once(p: ConvProblem, lanes: int, each: float = 9) -> float:
    """Each weight is read, transposed and written, not in the order of memory."""
    return while_packed(p, lanes, each * p.out_channels * p.k / lanes, weight_bytes(p), 1.6)


def packed_in_panels(p: ConvProblem, lanes: int) -> float:
    """The same in blocks of a few output channels."""
    return packed_once(p, lanes, 18)


def while_packed(p: ConvProblem, lanes: int, computed: float, written: float, slower: float = 1.0) -> float:
    """What is computed while the weights are read, and so many bytes of packed ones written. A line that is written is read
    first, and then both is over; more than the runtime keeps for the next call lies on fresh pages."""
    size, here = weight_bytes(p) + written, machine.this()
    rate = here.rates[lanes * TABLE[p.dtype].itemsize]
    moved = slower * (size + written / 2) / here.level(size).speed * rate
    fresh = written * here.fresh * rate if written > MOST_KEPT else 0
    return max(computed, moved) + min(computed, moved) / 3 + fresh


def small_planes(p: ConvProblem, lanes: int, arranged: bool = False) -> Parts:
    """Depthwise with channels on the vector: transposed on the way in and out, `lanes` elements of `lanes` channels at a time.
    arranged: so are the weights, once for several images."""
    inputs, outputs, taps = math.prod(p.input_size), math.prod(p.output_size), p.kernel_volume
    blocks, weights = math.ceil(p.groups / lanes), math.ceil(taps / lanes) / 4 if arranged else 0
    chunk = blocks * lanes * (4 + 0.7 * lanes)
    return {"products": blocks * taps * outputs * (1.6 if is_widest(p, lanes) else 1.3),
            "inputs": chunk * (math.ceil(inputs / lanes) + weights), "outputs": chunk * math.ceil(outputs / lanes),
            "start": 200 * blocks}


def is_widest(p: ConvProblem, lanes: int) -> bool:
    """Whether vectors are 64 bytes long, of which fewer are loaded in a cycle."""
    return lanes * TABLE[p.dtype].itemsize >= 64
