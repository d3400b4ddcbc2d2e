"""direct: pixels on the vector (`kernels/direct.cpp`)."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

from ..native_problem import products
from ..problem import ConvProblem
from ..spent import Parts
from ._bounds import summed as bound
from ._costs import is_widest, packed_once, reached, slab, with_weights

__all__ = ["CALLS", "SUMS_PRODUCTS", "bound", "cost", "packing_cost"]

SUMS_PRODUCTS = True
CALLS = 3
MOST_PLANES = 640  # products for which the input is copied to planes (kernels/direct.cpp)

_LOADS = {1: 1.3, 2: 0.8, 3: 0.4, 4: 0.05}  # beside one multiply-add, by output channels of a group


def cost(p: ConvProblem, lanes: int) -> Parts:
    """Vectors of pixels along rows times output channels; loads bound it below four output channels, and the caches where the
    inputs of 16 pixels take much of L1, the more the fewer products share an input; not so where the copy has a plane for each
    tap, whose lines are read whole, where a tile's inputs are gathered, nor in the tiles of AVX-512, which load less. Regions
    narrower than a vector are copied, a tap at a time. Inputs and outputs whose channels are side by side move one by one, the
    slower the farther pixels are apart."""
    p = _merged(p)
    rows, width, channels = math.prod(p.output_size[:-1]), p.output_size[-1], p.out_channels // p.groups
    planes = _has_planes(p)
    if planes or (p.kernel_volume == 1 and set(p.stride) == {1}):
        rows, width = 1, rows * width
    inputs = p.in_channels // p.groups * math.prod(p.kernel_size[:-1]) * (2 * lanes * p.stride[-1] + p.kernel_size[-1])
    widest = is_widest(p, lanes)
    gathers = not widest and channels > 12 and not p.channels_last and _is_plain(p)
    loads = _LOADS.get(channels, 0.09) + (0.1 if planes and p.kernel_volume == 1 else 0)
    loads += 1.11 if widest else 0.87 if gathers else 0.9 + (0.01 * inputs / p.k if inputs > 1500 and not planes else 0)
    computed, vectors = products(p), p.groups * rows * math.ceil(width / lanes) * channels
    spent = with_weights(p, lanes, {"products": vectors * computed * loads, "outputs": (4.5 if widest else 6) * vectors})
    spent["inputs"] = slab(p) * (0.5 if widest else 0.7) + (1.5 * vectors / channels * computed if gathers else 0)
    if computed < p.k and _narrowest(p) < lanes:
        spent["inputs"] += 55 * p.groups * math.prod(p.output_size[:-1]) * computed
    if p.channels_last:  # to a plane of each channel
        each = 3 if p.kernel_volume == 1 else 1 + 0.02 * p.in_channels
        spent["inputs"] += p.in_channels * math.prod(reached(p)) * each
        spent["outputs"] += 3.8 * p.out_channels * math.prod(p.output_size)
    return spent


def packing_cost(p: ConvProblem, lanes: int) -> float:
    """Transposed for few output channels at a time, which are less than a vector."""
    return packed_once(p, lanes, 12.6)


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


def _is_plain(p: ConvProblem) -> bool:
    """A 1x1 kernel over inputs that are read where they lie."""
    return p.kernel_volume == 1 and set(p.stride) == {1} and not any(map(any, p.padding))


def _has_planes(p: ConvProblem) -> bool:
    """Whether the input is copied to planes of the outputs, or to rows of whole vectors, which are as good: no input is read
    twice, and there are not too many products."""
    once = all(n * k <= (n - 1) * s + (k - 1) * d + 1
               for n, k, s, d in zip(p.output_size, p.kernel_size, p.stride, p.dilation, strict=True))
    return once and p.k <= MOST_PLANES and (p.stride[-1] > 1 or any(map(any, p.padding)))
