"""The functions that layers are made of, under the names of `torch.nn.functional`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import (
    adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d, adaptive_max_pool1d, adaptive_max_pool2d,
    adaptive_max_pool3d, avg_pool1d, avg_pool2d, avg_pool3d, batch_norm, conv1d, conv2d, conv3d, conv_transpose1d,
    conv_transpose2d, conv_transpose3d, cross_entropy, gelu, hardswish, layer_norm, leaky_relu, log_softmax, lp_pool1d,
    lp_pool2d, lp_pool3d, max_pool1d, max_pool2d, max_pool3d, max_unpool1d, max_unpool2d, max_unpool3d, min_pool1d, min_pool2d,
    min_pool3d, relu, relu6, sigmoid, silu, softmax, tanh,
)
from .activation import Dropout, Dropout2d
from .convolution import linear
from .loss import BCEWithLogitsLoss, MSELoss
from .normalization import GroupNorm

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "adaptive_max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "batch_norm", "binary_cross_entropy_with_logits", "conv1d",
    "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "cross_entropy", "dropout", "dropout2d",
    "gelu", "group_norm", "hardswish", "layer_norm", "leaky_relu", "linear", "log_softmax", "lp_pool1d", "lp_pool2d",
    "lp_pool3d", "max_pool1d", "max_pool2d", "max_pool3d", "max_unpool1d", "max_unpool2d", "max_unpool3d", "min_pool1d",
    "min_pool2d", "min_pool3d", "mse_loss", "relu", "relu6", "sigmoid", "silu", "softmax", "tanh",
]


def dropout(input: Any, p: float = 0.5, training: bool = True, *, rng: Any = None) -> np.ndarray:
    """`Dropout` of an array; without training the array itself."""
    return Dropout(p, rng=rng).train(training)(input)


def dropout2d(input: Any, p: float = 0.5, training: bool = True, *, rng: Any = None) -> np.ndarray:
    """`Dropout2d` of an array; without training the array itself."""
    return Dropout2d(p, rng=rng).train(training)(input)


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> np.ndarray:
    """`GroupNorm` of an array (N, C, ...), with weight and bias (C,)."""
    module: Any = GroupNorm(num_groups, np.shape(input)[1], eps)
    for parameter, values in ((module.weight, weight), (module.bias, bias)):
        if values is not None:
            parameter.data = values
    return module.eval()(input)


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """`MSELoss` of two arrays."""
    return MSELoss(reduction)(input, target)


def binary_cross_entropy_with_logits(input: Any, target: Any, weight: Any = None, reduction: str = "mean",
                                     pos_weight: Any = None) -> Any:
    """`BCEWithLogitsLoss` of two arrays."""
    return BCEWithLogitsLoss(weight, reduction, pos_weight)(input, target)
