"""Batch, group and layer normalisation, and a scale of each channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import layer_normalization, normalization
from ..arguments import flag, integer
from ..errors import shown
from ..problem import number
from .activation import Activation
from .module import Buffer, Module, Parameter


class Affine(Module):
    """In eval mode x·scale + shift, per channel: the convolution in front of it may do that.

    Attributes:
        num_features: the channels.
        layout: where they are.
    """

    num_features: int
    layout: str

    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Both in float64; None where they depend on the batch."""
        raise NotImplementedError


class Scale(Affine):
    """x·scale, per channel (ConvNeXt's layer scale, CaiT's; arXiv:2103.17239).

    Args:
        num_features: channels.
        value: of the scale at first.
        name: of the Parameter (num_features, 1, 1) in the state.
        layout: channels_first (of images) or channels_last.
    """

    def __init__(self, num_features: int, value: float = 1.0, *, name: str = "scale", layout: str = "channels_first") -> None:
        self.num_features, self.name, self.layout = integer("num_features", num_features, 1), name, layout
        vars(self)[name] = Parameter(np.full((self.num_features, 1, 1), value, np.float32))

    @property
    def _along(self) -> np.ndarray:
        scale = vars(self)[self.name].data
        return scale.ravel() if self.layout == "channels_last" else scale

    def forward(self, input: np.ndarray) -> np.ndarray:
        self.keep(input)
        return input * self._along

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        (x,) = self.kept()
        channels = x.ndim - 1 if self.layout == "channels_last" else x.ndim - 3
        sums = (grad_output * x).sum(tuple(axis for axis in range(x.ndim) if axis != channels))
        vars(self)[self.name].add_grad(sums.reshape(-1, 1, 1))
        return grad_output * self._along if needs_input else None

    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray] | None:
        scale = vars(self)[self.name].data.ravel().astype(np.float64)
        return scale, np.zeros_like(scale)

    def extra_repr(self) -> str:
        return str(self.num_features)


class _BatchNorm(Affine):
    """What batch norms of any number of axes share.

    Attributes:
        weight, bias: Parameters (num_features,), at first 1 and 0; None without `affine`.
        running_mean, running_var, num_batches_tracked: Buffers; None without `track_running_stats`.
    """

    ndims: tuple[int, ...]

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, *, layout: str = "channels_first") -> None:
        self.num_features, self.eps = integer("num_features", num_features, 1), number("eps", eps)
        self.momentum = None if momentum is None else number("momentum", momentum)
        self.layout = layout
        self.weight, self.bias = _weight_and_bias(self.num_features, affine)
        tracks = flag("track_running_stats", track_running_stats)
        self.running_mean = Buffer(np.zeros(self.num_features, np.float32)) if tracks else None
        self.running_var = Buffer(np.ones(self.num_features, np.float32)) if tracks else None
        self.num_batches_tracked = Buffer(np.int64(0)) if tracks else None

    def _data(self, *names: str) -> tuple[np.ndarray | None, ...]:
        found = (getattr(self, name) for name in names)
        return tuple(None if buffer is None else buffer.data for buffer in found)

    def applies(self, behind: Module) -> bool:
        one_mode = self.training == behind.training
        return one_mode and isinstance(behind, Activation) and behind.name in normalization.ACTIVATIONS

    def forward(self, input: np.ndarray, behind: Activation | None = None) -> np.ndarray:
        if input.ndim not in self.ndims:
            raise ValueError(f"input must have {' or '.join(map(str, self.ndims))} axes, got shape {shown(input.shape)}")
        mean, variance, weight, bias = self._data("running_mean", "running_var", "weight", "bias")
        by_batch = self.training or mean is None
        share = 0.0
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.data = self.num_batches_tracked.data + 1
            share = self.momentum if self.momentum is not None else 1 / int(self.num_batches_tracked.data)
        function = None if behind is None else behind.done()
        made, *statistics = normalization.batch_norm(
            input, mean if share or not by_batch else None, variance if share or not by_batch else None, weight, bias, by_batch,
            share, self.eps, activation=function, return_stats=True, layout=self.layout)
        self.keep(input, *statistics, function)
        return made

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        x, mean, inverse, function = self.kept()
        weight, bias = self._data("weight", "bias")
        made, of_weight, of_bias = normalization.batch_norm_backward(
            grad_output, x, weight=weight, training=True, eps=self.eps, save_mean=mean, save_invstd=inverse, bias=bias,
            activation=function, layout=self.layout)
        if self.weight is not None and self.bias is not None:
            self.weight.add_grad(of_weight)
            self.bias.add_grad(of_bias)
        return made if needs_input else None

    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray] | None:
        if self.running_mean is None or self.running_var is None:
            return None
        scale = 1 / np.sqrt(self.running_var.data.astype(np.float64) + self.eps)
        scale = scale if self.weight is None else scale * self.weight.data
        shift = -self.running_mean.data * scale
        return scale, shift if self.bias is None else shift + self.bias.data

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps:g}, momentum={self.momentum}"


class BatchNorm1d(_BatchNorm):
    """Over (N, C) or (N, C, L). Everything as `BatchNorm2d`."""

    ndims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Normalises each channel of (N, C, H, W): see `fastconv.batch_norm`.

    Args:
        num_features: C.
        eps, momentum, affine, track_running_stats: as in PyTorch; momentum None: the mean over all batches.
        layout: channels_first or channels_last.
    """

    ndims = (4,)


class BatchNorm3d(_BatchNorm):
    """Over (N, C, D, H, W). Everything as `BatchNorm2d`."""

    ndims = (5,)


class GroupNorm(Module):
    """Normalises each image's groups of channels (Wu and He 2018, arXiv:1803.08494), channels_first.

    Args:
        num_groups, num_channels, eps, affine: as in PyTorch.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        self.num_groups, self.num_channels = integer("num_groups", num_groups, 1), integer("num_channels", num_channels, 1)
        if self.num_channels % self.num_groups:
            raise ValueError(f"num_channels must be a multiple of num_groups, got {num_channels} and {num_groups}")
        self.eps = number("eps", eps)
        self.weight, self.bias = _weight_and_bias(self.num_channels, affine)

    def forward(self, input: np.ndarray) -> np.ndarray:
        if input.ndim < 2 or input.shape[1] != self.num_channels:
            raise ValueError(f"input must have {self.num_channels} channels along its second axis, got {shown(input.shape)}")
        rows = input.reshape(len(input), self.num_groups, -1)
        made, *statistics = layer_normalization.layer_norm(rows, rows.shape[2:], eps=self.eps, return_stats=True)
        normal = made.reshape(input.shape)
        self.keep(rows, normal, *statistics)
        if self.weight is None or self.bias is None:
            return normal
        along = (self.num_channels, *[1] * (input.ndim - 2))
        return normal * self.weight.data.reshape(along) + self.bias.data.reshape(along)

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        rows, normal, mean, inverse = self.kept()
        if self.weight is not None and self.bias is not None:
            axes = (0, *range(2, grad_output.ndim))
            self.weight.add_grad((grad_output * normal).sum(axes))
            self.bias.add_grad(grad_output.sum(axes))
            grad_output = grad_output * self.weight.data.reshape(-1, *[1] * (normal.ndim - 2))
        if not needs_input:
            return None
        made, _, _ = layer_normalization.layer_norm_backward(
            grad_output.reshape(rows.shape), rows, rows.shape[2:], eps=self.eps, save_mean=mean, save_invstd=inverse)
        return made.reshape(normal.shape)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps:g}"


class LayerNorm(Module):
    """Normalises along the last axes (Ba et al. 2016, arXiv:1607.06450).

    Args:
        normalized_shape: of these axes: an int or several.
        eps, elementwise_affine, bias: as in PyTorch.
    """

    def __init__(self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True) -> None:
        self.normalized_shape = layer_normalization.shape_of(normalized_shape)
        self.eps = number("eps", eps)
        affine = flag("elementwise_affine", elementwise_affine)
        self.weight = Parameter(np.ones(self.normalized_shape, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(self.normalized_shape, np.float32)) if affine and flag("bias", bias) else None

    def forward(self, input: np.ndarray) -> np.ndarray:
        weight, bias = (None if each is None else each.data for each in (self.weight, self.bias))
        made, *statistics = layer_normalization.layer_norm(input, self.normalized_shape, weight, bias, self.eps,
                                                           return_stats=True)
        self.keep(input, *statistics)
        return made

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        x, mean, inverse = self.kept()
        made, of_weight, of_bias = layer_normalization.layer_norm_backward(
            grad_output, x, self.normalized_shape, None if self.weight is None else self.weight.data, self.eps, save_mean=mean,
            save_invstd=inverse)
        for parameter, gradient in ((self.weight, of_weight), (self.bias, of_bias)):
            if parameter is not None:
                parameter.add_grad(gradient)
        return made if needs_input else None

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps:g}"


def _weight_and_bias(size: int, affine: bool) -> tuple[Parameter | None, Parameter | None]:
    if not flag("affine", affine):
        return None, None
    return Parameter(np.ones(size, np.float32)), Parameter(np.zeros(size, np.float32))
