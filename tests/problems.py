"""How tests make problems of sizes; those of arrays are `helpers.problem_of`, those of text `ConvProblem.from_text`."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from fastconv.problem import ConvProblem


def problem(channels: tuple[int, int], size: tuple[int, ...], kernel: tuple[int, ...] | int, batch: int = 1, *, groups: int = 1,
            bias: bool = True, padding: Any = "same", name: str = "", layout: str = "channels_first",
            direction: str = "forward", **keywords: Any) -> ConvProblem:
    """(in, out) channels; a kernel of one number holds for all axes."""
    kernel = kernel if isinstance(kernel, tuple) else (kernel,) * len(size)
    made = ConvProblem.from_shapes((batch, channels[0], *size), (channels[1], channels[0] // groups, *kernel), ndim=len(size),
                                   bias_shape=(channels[1],) if bias else None, groups=groups, padding=padding, **keywords)
    return dataclasses.replace(made, name=name, layout=layout, direction=direction)


plain = functools.partial(problem, bias=False, padding=0)  # convNd's defaults


def stated(text: str, **changes: Any) -> ConvProblem:
    """A problem text's, but for some fields."""
    return dataclasses.replace(ConvProblem.from_text(text), **changes)
