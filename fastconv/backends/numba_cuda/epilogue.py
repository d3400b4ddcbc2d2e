"""The activations on the GPU: the scalar functions of `activations`, compiled as device functions.

float32 goes through float64 for those with an exponential (within 4 ulp by a wide margin; the price is double-precision
arithmetic once per output); the piecewise linear ones stay in the dtype, but for a slope that it cannot hold.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import numpy as np

from ... import activations
from .intrinsics import SIMULATOR, cuda, device_function, memory


@functools.cache
def activation_function(activation: tuple[str, float] | None, dtype: str) -> Any:
    """A device function of one number of `dtype`."""
    if activation is None:
        return device_function(lambda x: x)
    name, parameter = activation
    number = np.dtype(dtype).type
    if name in ("relu", "relu6") or name == "leaky_relu" and _holds(number, parameter):
        return device_function(_narrow(name, number, parameter))  # exact, or one rounding
    wide, cast = _on_device(name, parameter), memory(dtype).cast
    to_wide = memory("float64").cast

    @device_function
    def activate(x):  # type: ignore[no-untyped-def]
        return cast(wide(to_wide(x)))

    return activate


def _holds(number: Any, parameter: float) -> bool:
    """Whether a float of that dtype is as close to the parameter as to any."""
    return float(np.finfo(number).tiny) <= abs(parameter) <= float(np.finfo(number).max)


def _narrow(name: str, number: Any, parameter: float) -> Any:
    zero, six, slope = number(0), number(6), number(parameter)
    if name == "relu":
        return lambda x: zero if x < zero else x
    if name == "relu6":
        return lambda x: zero if x < zero else six if x > six else x
    return lambda x: x * slope if x < zero else x


@functools.cache
def _on_device(name: str, parameter: float) -> Any:
    """A function of `activations`, calling device functions where that calls Python."""
    if name == "leaky_relu":
        return device_function(_narrow(name, np.float64, parameter))
    function = activations.SCALAR[name]
    if SIMULATOR:
        return function
    if name == "tanh":
        return device_function(_tanh)
    helpers = {"two_product": device_function(_two_product), "logistic": device_function(activations.logistic)}
    return device_function(types.FunctionType(function.__code__, {**vars(activations), **helpers}, name))


def _tanh(x):  # type: ignore[no-untyped-def]
    return np.tanh(x)


def _two_product(a, b):  # type: ignore[no-untyped-def]
    """As in `activations`; its splitting would not survive the compiler's contraction of a·b + c, and needs none of it:
    the error of a product is one fused operation."""
    product = a * b
    return product, cuda.fma(a, b, -product)
