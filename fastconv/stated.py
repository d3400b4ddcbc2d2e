"""A problem as the public call that states it: for the benchmark, which times what users write, and for random tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import directions, ops, prepared
from .errors import Unsupported
from .problem import ConvProblem

_FORWARD = (ops.conv1d, ops.conv2d, ops.conv3d)
_OF_INPUT = (directions.conv1d_input, directions.conv2d_input, directions.conv3d_input)
_OF_WEIGHT = (directions.conv1d_weight, directions.conv2d_weight, directions.conv3d_weight)
_TRANSPOSED = (directions.conv_transpose1d, directions.conv_transpose2d, directions.conv_transpose3d)

Call = Callable[..., Any]  # of (first, second, bias, residual, out)


def per_call(problem: ConvProblem, **more: Any) -> Call:
    """A function of (first, second, bias, residual, out) that calls convNd, or the function of the problem's direction; `more`:
    its backend and algorithm."""
    p, at = problem, problem.ndim - 1
    if p.direction == "forward":
        arguments = {**_arguments(p), **_epilogue(p), **more}
        return lambda x, w, b, residual, out: _FORWARD[at](x, w, b, residual=residual, out=out, **arguments)
    if p.direction == "backward_weight":
        arguments = {**_arguments(p), **more}
        return lambda x, g, b, residual, out: _OF_WEIGHT[at](x, p.weight_shape, g, out=out, **arguments)
    if is_transposed(p):
        arguments = {**_transposed(p), **more}
        return lambda x, w, b, residual, out: _TRANSPOSED[at](x, w, b, residual=residual, out=out, **arguments)
    arguments = {**_arguments(p), **more}
    return lambda g, w, b, residual, out: _OF_INPUT[at](p.input_shape, w, g, out=out, **arguments)


def operator(problem: ConvProblem, second: Any, bias: Any, **more: Any) -> prepared.PreparedConv:
    """The operator of `prepare` with these weights.

    Raises:
        Unsupported: the second array is no weight, or padding repeats the input of a gradient.
    """
    if problem.direction == "forward":
        return prepared.prepare(second, bias, **{**_arguments(problem), **_epilogue(problem), **more})
    if problem.direction == "backward_weight" or problem.padding_mode != "zeros":
        raise Unsupported("only convolution and transposed convolution are prepared")
    return prepared.prepare(second, bias, transposed=True, **{**_transposed(problem), **more})


def is_transposed(problem: ConvProblem) -> bool:
    """Whether it is more than the gradient."""
    return problem.direction == "backward_input" and (problem.bias or problem.residual or problem.activation is not None)


def _arguments(p: ConvProblem) -> dict[str, Any]:
    return dict(stride=p.stride, padding=padding(p), dilation=p.dilation, groups=p.groups, padding_mode=p.padding_mode,
                layout=p.layout, accuracy=p.accuracy)


def _epilogue(p: ConvProblem) -> dict[str, Any]:
    """The activation as a user writes it: only leaky_relu takes a parameter."""
    if p.activation is None or p.activation[0] == "leaky_relu":
        return {"activation": p.activation}
    return {"activation": p.activation[0]}


def _transposed(p: ConvProblem) -> dict[str, Any]:
    arguments = {**_arguments(p), **_epilogue(p), "output_padding": output_padding(p)}
    del arguments["padding_mode"]
    return arguments


def output_padding(p: ConvProblem) -> tuple[int, ...]:
    """Of a transposed convolution: how much of its result's far end no window reaches."""
    return tuple(max(0, -high) for _, high in p.padding)


def padding(p: ConvProblem) -> tuple[tuple[int, int], ...]:
    """((low, high), ...) without the negative ones, which only tell what no window reads: the output is the same size."""
    return tuple((low, max(0, high)) for low, high in p.padding)
