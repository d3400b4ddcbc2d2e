"""The same problem for a kernel: without axes of one input and one tap, and without strides that lead far beyond the input."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from .problem import ConvProblem


def with_near_strides(p: ConvProblem) -> ConvProblem:
    """A stride beyond the last window is as good as the least that is: what is as long as a stride must fit into memory."""
    windows = (n + low + max(high, 0) - (k - 1) * d
               for n, (low, high), k, d in zip(p.input_size, p.padding, p.kernel_size, p.dilation, strict=True))
    near = tuple(map(min, p.stride, windows))
    return p if near == p.stride else dataclasses.replace(p, stride=near)


@functools.lru_cache(maxsize=64)
def without_unit_axes(p: ConvProblem) -> tuple[ConvProblem, tuple[int, ...]]:
    """(the problem without axes of one input, one tap and no padding, which they were). One axis stays; strides are near.

    Vectors lie along the last axis that is left, so that a column is as good as a row.
    """
    p = with_near_strides(p)
    unit = [axis for axis, of in enumerate(zip(p.input_size, p.kernel_size, p.padding)) if of == (1, 1, (0, 0))]
    unit = unit[-(p.ndim - 1):] if p.ndim > 1 else []
    if not unit:
        return p, ()

    def left(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value for axis, value in enumerate(values) if axis not in unit)

    return dataclasses.replace(
        p, input_size=left(p.input_size), kernel_size=left(p.kernel_size), stride=left(p.stride), padding=left(p.padding),
        dilation=left(p.dilation)), tuple(unit)
