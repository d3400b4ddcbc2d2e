"""Convolutions, transposed convolutions and linear layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import directions, ops
from ..arguments import axes_of, flag, integer, normalize_layout
from ..errors import shown
from ..prepared import PreparedConv, prepare
from ..receptive_field import Window
from ..settings import current, using
from ..window import normalize_padding
from . import initializers
from .module import Module, Parameter, written


class Weighted(Module):
    """A layer of one linear map, act(weight · x + bias), that can be prepared together with what follows it.

    Attributes:
        weight, bias: Parameters; bias may be None.
        out_channels, layout: how many outputs a pixel has, and where they are.
    """

    weight: Parameter
    bias: Parameter | None
    out_channels: int
    layout: str

    def prepared(self, bias: np.ndarray | None, scale: np.ndarray | None, activation: Any) -> PreparedConv:
        """An operator of its weights, each output's times a factor of its own, with another bias and an activation."""
        raise NotImplementedError

    def _calls(self) -> using:
        """In training, calls have batches."""
        return using(current().in_training if self.training else current())

    def apply(self, operator: PreparedConv, input: np.ndarray, residual: np.ndarray | None = None,
              out: np.ndarray | None = None) -> np.ndarray:
        """What such an operator makes of an input."""
        return operator(input, residual=residual, out=out)


class _Conv(Weighted):
    """What convolutions of any number of axes share."""

    ndim: int
    transposed = False

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1, bias: bool = True, padding_mode: str = "zeros", *, layout: str = "channels_first", rng: Any = None,
    ) -> None:
        self.in_channels, self.out_channels = integer("in_channels", in_channels, 1), integer("out_channels", out_channels, 1)
        self.kernel_size = axes_of("kernel_size", kernel_size, self.ndim, 1)
        self.groups = integer("groups", groups, 1)
        for name, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise ValueError(f"{name} must be a multiple of groups, got {channels} and {self.groups}")
        self.layout = normalize_layout(layout, self.ndim)
        self.arguments = dict(stride=stride, padding=padding, dilation=dilation, groups=self.groups,
                              padding_mode=padding_mode, layout=self.layout)
        first, second = self.out_channels, self.in_channels // self.groups
        if self.transposed:
            first, second = self.in_channels, self.out_channels // self.groups
        self.weight = Parameter(np.zeros((first, second, *self.kernel_size), np.float32))
        self.bias = Parameter(np.zeros(self.out_channels, np.float32)) if flag("bias", bias) else None
        initializers.as_pytorch(self.weight, self.bias, second * math.prod(self.kernel_size), initializers.generator(rng))

    def _biases(self) -> np.ndarray | None:
        return None if self.bias is None else self.bias.data

    def forward(self, input: np.ndarray) -> np.ndarray:
        self.keep(input)
        with self._calls():
            return getattr(ops, f"conv{self.ndim}d")(input, self.weight.data, self._biases(), **self.arguments)

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        (x,) = self.kept()
        with self._calls():
            of_input, of_weight, of_bias = getattr(directions, f"conv{self.ndim}d_backward")(
                grad_output, x, self.weight.data, **self.arguments, needs=(needs_input, True, self.bias is not None))
        self.weight.add_grad(of_weight)
        if self.bias is not None:
            self.bias.add_grad(of_bias)
        return of_input

    def prepared(self, bias: np.ndarray | None, scale: np.ndarray | None, activation: Any) -> PreparedConv:
        return prepare(self.weight.data, bias, **self.arguments, activation=activation, transposed=self.transposed, scale=scale,
                       copy=False)

    def window(self) -> Window:
        stride, dilation = (axes_of(name, self.arguments[name], self.ndim) for name in ("stride", "dilation"))
        return Window(self.kernel_size, stride, dilation)

    def multiply_adds(self, input: tuple[int, ...], output: tuple[int, ...]) -> int:
        return math.prod(input if self.transposed else output) * math.prod(self.weight.shape[1:])

    def extra_repr(self) -> str:
        more = [f"{name}={value}" for name, value in self.arguments.items() if value != _USUAL[name]]
        more += ["bias=False"] if self.bias is None else []
        return ", ".join([str(self.in_channels), str(self.out_channels), f"kernel_size={self.kernel_size}", *more])


_USUAL = dict(stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros", layout="channels_first", output_padding=0)


class Conv1d(_Conv):
    """`conv1d` with a weight (out_channels, in_channels / groups, kW) and a bias. Everything as `Conv2d`."""

    ndim = 1


class Conv2d(_Conv):
    """`conv2d` with a weight (out_channels, in_channels / groups, kH, kW) and a bias (out_channels,).

    Args:
        in_channels, out_channels, kernel_size, bias: as in PyTorch; first values are PyTorch's, too (uniform within
            1 / √(fan in)).
        stride, padding, dilation, groups, padding_mode, layout: as of `fastconv.conv2d`.
        rng: the numpy.random.Generator that first values are drawn from.
    """

    ndim = 2


class Conv3d(_Conv):
    """`conv3d` with a weight (out_channels, in_channels / groups, kD, kH, kW) and a bias. Everything as `Conv2d`."""

    ndim = 3


class _ConvTranspose(_Conv):
    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1, *, layout: str = "channels_first",
        rng: Any = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, layout=layout,
                         rng=rng)
        del self.arguments["padding_mode"]
        self.arguments["output_padding"] = output_padding

    def forward(self, input: np.ndarray) -> np.ndarray:
        self.keep(input)
        with self._calls():
            return getattr(directions, f"conv_transpose{self.ndim}d")(input, self.weight.data, self._biases(), **self.arguments)

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        """Its gradients are those of the convolution whose input's gradient it is, with the arrays in each other's place."""
        (x,) = self.kept()
        read, arguments = self._read(grad_output, x)
        self.weight.add_grad(getattr(directions, f"conv{self.ndim}d_weight")(read, self.weight.shape, x, **arguments))
        if self.bias is not None:
            channels = self._space(grad_output).start - 1 if self.layout == "channels_first" else grad_output.ndim - 1
            self.bias.add_grad(grad_output.sum(tuple(axis for axis in range(grad_output.ndim) if axis != channels)))
        with self._calls():
            return getattr(ops, f"conv{self.ndim}d")(read, self.weight.data, **arguments) if needs_input else None

    def _space(self, array: np.ndarray) -> slice:
        last = array.ndim - (self.layout == "channels_last")
        return slice(last - self.ndim, last)

    def _read(self, gradient: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """What that convolution reads, and its arguments: it pads the far end by an output_padding less, as there are as many
        windows as x has elements; of one beyond the padding it reads nothing."""
        space, arguments = self._space(gradient), dict(self.arguments)
        stride, dilation = (axes_of(name, arguments[name], self.ndim) for name in ("stride", "dilation"))
        more = axes_of("output_padding", arguments.pop("output_padding"), self.ndim, 0)
        pads = normalize_padding(arguments["padding"], x.shape[space], self.kernel_size, stride, dilation)
        arguments["padding"] = tuple((low, max(0, high - extra)) for (low, high), extra in zip(pads, more))
        index = [slice(None)] * gradient.ndim
        index[space] = [slice(size - max(0, extra - high)) for size, (_, high), extra in zip(gradient.shape[space], pads, more)]
        return gradient[tuple(index)], arguments

    def window(self) -> Window:
        kernel, strides, dilation = super().window()
        reached = tuple(math.ceil(taps / stride) for taps, stride in zip(kernel, strides))
        return Window(reached, tuple(1 / stride for stride in strides), dilation)


class ConvTranspose1d(_ConvTranspose):
    """`conv_transpose1d` with a weight (in_channels, out_channels / groups, kW) and a bias. Everything as `ConvTranspose2d`."""

    ndim = 1


class ConvTranspose2d(_ConvTranspose):
    """`conv_transpose2d` with a weight (in_channels, out_channels / groups, kH, kW) and a bias (out_channels,).

    Args:
        in_channels, out_channels, kernel_size, bias: as in PyTorch; first values are PyTorch's, too.
        stride, padding, output_padding, groups, dilation, layout: as of `fastconv.conv_transpose2d`.
        rng: the numpy.random.Generator that first values are drawn from.
    """

    ndim = 2


class ConvTranspose3d(_ConvTranspose):
    """`conv_transpose3d` with a weight (in_channels, out_channels / groups, kD, kH, kW) and a bias. Everything as
    `ConvTranspose2d`."""

    ndim = 3


class Linear(Weighted):
    """input · weightᵀ + bias along the last axis, with a weight (out_features, in_features) and a bias (out_features,).

    A convolution whose pixels are all that lies before the last axis: so it has the library's threads, and the same bits for
    any number of them, which a BLAS does not promise.

    Args:
        in_features, out_features, bias: as in PyTorch; first values are PyTorch's, too.
        rng: the numpy.random.Generator that first values are drawn from.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, rng: Any = None) -> None:
        self.in_features, self.out_features = integer("in_features", in_features, 1), integer("out_features", out_features, 1)
        self.out_channels, self.layout = self.out_features, "channels_last"
        self.weight = Parameter(np.zeros((self.out_features, self.in_features), np.float32))
        self.bias = Parameter(np.zeros(self.out_features, np.float32)) if flag("bias", bias) else None
        initializers.as_pytorch(self.weight, self.bias, self.in_features, initializers.generator(rng))

    def forward(self, input: np.ndarray) -> np.ndarray:
        self.keep(input)
        return linear(input, self.weight.data, None if self.bias is None else self.bias.data)

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        (x,) = self.kept()
        found = directions.conv1d_backward(_pixels(grad_output), _pixels(x), self.weight.data[..., None],
                                           layout="channels_last", needs=(needs_input, True, self.bias is not None))
        self.weight.add_grad(found[1][..., 0])
        if self.bias is not None:
            self.bias.add_grad(found[2])
        return found[0].reshape(x.shape) if needs_input else None

    def prepared(self, bias: np.ndarray | None, scale: np.ndarray | None, activation: Any) -> PreparedConv:
        return prepare(self.weight.data[..., None], bias, layout=self.layout, activation=activation, scale=scale, copy=False)

    def apply(self, operator: PreparedConv, input: np.ndarray, residual: np.ndarray | None = None,
              out: np.ndarray | None = None) -> np.ndarray:
        pixels, more = _pixels(input), None if residual is None else _pixels(residual)
        if out is not None and out.flags.c_contiguous:
            operator(pixels, residual=more, out=_pixels(out))
            return out
        return written(operator(pixels, residual=more).reshape(*input.shape[:-1], self.out_features), out)

    def multiply_adds(self, input: tuple[int, ...], output: tuple[int, ...]) -> int:
        return math.prod(output) * self.in_features

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}" + (", bias=False" if self.bias is None else "")


def linear(input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """input · weightᵀ + bias along the last axis: `torch.nn.functional.linear`.

    Args:
        input: (..., in_features), float32 or float64.
        weight: (out_features, in_features).
        bias: (out_features,), or None.

    Raises:
        ValueError: shapes that do not fit.
    """
    if weight.ndim != 2 or input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        raise ValueError(f"the last axis of input must have in_features elements, as that of weight (out_features, "
                         f"in_features) has; got {shown(input.shape)} and {shown(weight.shape)}")
    made = ops.conv1d(_pixels(input), weight[..., None], bias, layout="channels_last")
    return made.reshape(*input.shape[:-1], len(weight))


def _pixels(array: np.ndarray) -> np.ndarray:
    """One image of channels_last whose row has all pixels; of no pixel no image."""
    number = math.prod(array.shape[:-1])
    return array.reshape(*((1, number) if number else (0, 1)), array.shape[-1])
