"""A problem as the native runtime takes it."""

from __future__ import annotations

import functools
from typing import Any

from .native import isa_module, runnable_isas, runtime
from .problem import ConvProblem


def fields(p: ConvProblem, tile: tuple[int, ...] | None = None) -> dict[str, Any]:
    """The keywords of `_runtime.Kernel`."""
    return {**_fields(p), "tile": tile}


@functools.lru_cache(maxsize=8)
def _fields(p: ConvProblem) -> dict[str, Any]:
    """The same whoever computes it: channels per group, one tuple per quantity."""
    name, parameter = p.activation or (None, 0.0)
    return dict(
        dtype=p.dtype, direction=p.direction, batch=p.batch, groups=p.groups, in_channels=p.in_channels // p.groups,
        out_channels=p.out_channels // p.groups, input=p.input_size, output=p.output_size, kernel=p.kernel_size,
        stride=p.stride, dilation=p.dilation, pad_lo=tuple(low for low, _ in p.padding),
        pad_hi=tuple(high for _, high in p.padding), padding_mode=p.padding_mode, activation=name,
        activation_parameter=parameter, has_bias=p.bias, has_residual=p.residual, strict=p.accuracy == "strict",
        channels_last=p.channels_last)


@functools.lru_cache(maxsize=32)
def products(p: ConvProblem) -> float:
    """Per output, without those of the taps that lie in the padding, as gemm and direct cut them (`kernels/regions.hpp`)."""
    if p.padding_mode != "zeros" or not any(map(any, p.padding)):
        return p.k
    return float(p.k * runtime().computed(isa_module(runnable_isas()[0]), "gemm", **fields(p)))
