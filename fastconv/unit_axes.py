"""Axes along which there is one input and one tap, and no padding: the native kernels leave them out."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from .problem import ConvProblem


@functools.lru_cache(maxsize=64)
def without_unit_axes(p: ConvProblem) -> tuple[ConvProblem, tuple[int, ...]]:
    """(the problem without these axes, which they were). One axis stays.

    Vectors lie along the last axis that is left, so that a column is as good as a row.
    """
    unit = [axis for axis, of in enumerate(zip(p.input_size, p.kernel_size, p.padding)) if of == (1, 1, (0, 0))]
    unit = unit[-(p.ndim - 1):] if p.ndim > 1 else []
    if not unit:
        return p, ()

    def left(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value for axis, value in enumerate(values) if axis not in unit)

    return dataclasses.replace(
        p, input_size=left(p.input_size), kernel_size=left(p.kernel_size), stride=left(p.stride), padding=left(p.padding),
        dilation=left(p.dilation)), tuple(unit)
