"""Functions of single elements, the activations of networks, and their gradients: natively, by vectors and threads.

`<name>(input)` is the function, `<name>_input(grad_output, input)` the gradient of its input, as PyTorch's backward computes
it. All take float32 or float64 arrays of any shape and strides, NumPy's or torch's on the CPU. The result is a new array of the
input's kind, shape, dtype and memory order, or `out`, of the same shape and dtype, which is overwritten and returned; it may be
one of the other arrays itself. Values are within 4 ulp (`kernels/activations.hpp`), the same bits wherever an element lies and
as the activation of a native convolution; NaN passes through, infinities give the limits.

They raise TypeError for other dtypes (float16 and integers are not converted silently), ValueError for shapes that differ, and
Unsupported for arrays on a GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import activations, arrays, native, operands, settings, torch_arrays
from .errors import shown
from .problem import number


@torch_arrays.opaque
def relu(input: Any, *, out: Any = None) -> Any:
    """max(input, 0): `torch.nn.functional.relu`. Arrays, errors: see `fastconv.pointwise`."""
    return _value("relu", input, out)


@torch_arrays.opaque
def relu_input(grad_output: Any, input: Any, *, out: Any = None) -> Any:
    """Gradient of `relu`'s input: grad_output where input > 0, else 0. grad_output: of the input's shape and dtype."""
    return _gradient("relu", grad_output, input, out)


@torch_arrays.opaque
def relu6(input: Any, *, out: Any = None) -> Any:
    """min(max(input, 0), 6): `torch.nn.functional.relu6`. Arrays, errors: see `fastconv.pointwise`."""
    return _value("relu6", input, out)


@torch_arrays.opaque
def relu6_input(grad_output: Any, input: Any, *, out: Any = None) -> Any:
    """Gradient of `relu6`'s input: grad_output where 0 < input < 6, else 0. grad_output: of the input's shape and dtype."""
    return _gradient("relu6", grad_output, input, out)


@torch_arrays.opaque
def leaky_relu(input: Any, negative_slope: float = 0.01, *, out: Any = None) -> Any:
    """input where it is positive, else input·negative_slope: `torch.nn.functional.leaky_relu`. negative_slope: a finite number;
    0 is `relu`. Arrays, errors: see `fastconv.pointwise`."""
    slope = number("negative_slope", negative_slope)
    return _value(_leaky(slope), input, out, slope)


@torch_arrays.opaque
def leaky_relu_input(grad_output: Any, input: Any, negative_slope: float = 0.01, *, out: Any = None) -> Any:
    """Gradient of `leaky_relu`'s input: grad_output where input > 0, else grad_output·negative_slope. grad_output: of the
    input's shape and dtype."""
    slope = number("negative_slope", negative_slope)
    return _gradient(_leaky(slope), grad_output, input, out, slope)


@torch_arrays.opaque
def sigmoid(input: Any, *, out: Any = None) -> Any:
    """1 / (1 + exp(-input)): `torch.sigmoid`. Arrays, errors: see `fastconv.pointwise`."""
    return _value("sigmoid", input, out)


@torch_arrays.opaque
def sigmoid_input(grad_output: Any, input: Any, *, out: Any = None) -> Any:
    """Gradient of `sigmoid`'s input: grad_output·s·(1 - s). grad_output: of the input's shape and dtype."""
    return _gradient("sigmoid", grad_output, input, out)


@torch_arrays.opaque
def tanh(input: Any, *, out: Any = None) -> Any:
    """The hyperbolic tangent: `torch.tanh`. Arrays, errors: see `fastconv.pointwise`."""
    return _value("tanh", input, out)


@torch_arrays.opaque
def tanh_input(grad_output: Any, input: Any, *, out: Any = None) -> Any:
    """Gradient of `tanh`'s input: grad_output·(1 - tanh²). grad_output: of the input's shape and dtype."""
    return _gradient("tanh", grad_output, input, out)


@torch_arrays.opaque
def gelu(input: Any, approximate: str = "none", *, out: Any = None) -> Any:
    """input·Φ(input), Φ the normal distribution's: `torch.nn.functional.gelu` (Hendrycks, Gimpel 2016). approximate: "none", or
    "tanh", input/2·(1 + tanh(√(2/π)·(input + 0.044715·input³))). Arrays, errors: see `fastconv.pointwise`."""
    return _value(_gelu(approximate), input, out)


@torch_arrays.opaque
def gelu_input(grad_output: Any, input: Any, approximate: str = "none", *, out: Any = None) -> Any:
    """Gradient of `gelu`'s input: grad_output·(Φ + input·φ), or that of the approximation. grad_output: of the input's shape
    and dtype."""
    return _gradient(_gelu(approximate), grad_output, input, out)


@torch_arrays.opaque
def silu(input: Any, *, out: Any = None) -> Any:
    """input·sigmoid(input): `torch.nn.functional.silu`. Arrays, errors: see `fastconv.pointwise`."""
    return _value("silu", input, out)


@torch_arrays.opaque
def silu_input(grad_output: Any, input: Any, *, out: Any = None) -> Any:
    """Gradient of `silu`'s input: grad_output·s·(1 + input·(1 - s)). grad_output: of the input's shape and dtype."""
    return _gradient("silu", grad_output, input, out)


@torch_arrays.opaque
def hardswish(input: Any, *, out: Any = None) -> Any:
    """input·min(max(input + 3, 0), 6)/6: `torch.nn.functional.hardswish`. Arrays, errors: see `fastconv.pointwise`."""
    return _value("hardswish", input, out)


@torch_arrays.opaque
def hardswish_input(grad_output: Any, input: Any, *, out: Any = None) -> Any:
    """Gradient of `hardswish`'s input: 0 up to -3, grad_output from 3, grad_output·(input/3 + 1/2) between. grad_output: of the
    input's shape and dtype."""
    return _gradient("hardswish", grad_output, input, out)


def _leaky(slope: float) -> str:
    return "leaky_relu" if slope else "relu"  # of which the limit at -inf is 0, not -inf times 0


def _gelu(approximate: Any) -> str:
    if not isinstance(approximate, str) or approximate not in ("none", "tanh"):
        raise ValueError(f"approximate must be 'none' or 'tanh', got {shown(approximate)}")
    return "gelu" if approximate == "none" else "gelu_tanh"


def _value(name: str, input: Any, out: Any, parameter: float = 0.0) -> Any:
    module = operands.native_module()
    if out is None and module is not None and operands.plain(input):  # the usual case, told in a microsecond
        out = np.empty(input.shape, input.dtype)
        native.runtime().apply_function(module, name, input, out, None, parameter, settings.current().num_threads)
        return out
    kind, (x, y) = operands.views({"input": input}, out=out)
    return _apply(name, parameter, kind, x, None, out, y)


def _gradient(name: str, grad_output: Any, input: Any, out: Any, parameter: float = 0.0) -> Any:
    module = operands.native_module()
    if (out is None and module is not None and operands.plain(input) and operands.plain(grad_output)
            and grad_output.shape == input.shape and grad_output.dtype == input.dtype):
        out = np.empty(input.shape, input.dtype)
        native.runtime().apply_function(module, name, input, out, grad_output, parameter, settings.current().num_threads)
        return out
    kind, (g, x, y) = operands.views({"grad_output": grad_output, "input": input}, out=out)
    operands.same_shape("grad_output", g, x.shape, "input")
    return _apply(name, parameter, kind, x, g, out, y)


def _apply(name: str, parameter: float, kind: arrays.Kind, x: np.ndarray, g: np.ndarray | None, out: Any,
           y: np.ndarray | None) -> Any:
    dtype = operands.dtype_of(input=x, grad_output=g)
    result, target = operands.result(kind, out, y, x, dtype)
    x, g = arrays.ready(x, dtype), None if g is None else arrays.ready(g, dtype)
    module = operands.native_module()

    def compute(to: np.ndarray) -> None:
        if module is not None:
            native.runtime().apply_function(module, name, x, to, g, parameter, settings.current().num_threads)
        elif g is None:
            with np.errstate(all="ignore"):  # infinities are results as good as any
                to[...] = x
                activations.apply((name, parameter), to)
        else:
            with np.errstate(all="ignore"):
                to[...] = activations.gradient((name, parameter), g, x)

    operands.write(target, (x, g), dtype, compute)
    return result
