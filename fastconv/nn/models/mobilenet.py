"""MobileNetV2: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018 (arXiv:1801.04381)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import BatchNorm2d, Conv2d, Dropout, Flatten, GlobalAvgPool, Linear, Module, ReLU6, Residual, Sequential
from ..initializers import generator

# the paper's table 2: expansion, channels, how many, stride of the first
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2(num_classes: int = 1000, *, rng: Any = None) -> Sequential:
    """Of images of 3 x 224 x 224: 3,504,872 parameters."""
    rng = generator(rng)
    features: list[Module] = [_convolution(3, 32, 3, rng, 2)]
    channels = 32
    for expansion, out, number, stride in BLOCKS:
        for place in range(number):
            features.append(_block(channels, out, expansion, 1 if place else stride, rng))
            channels = out
    features.append(_convolution(channels, 1280, 1, rng))
    return Sequential({"features": Sequential(*features), "avgpool": GlobalAvgPool(), "flatten": Flatten(),
                       "classifier": Sequential(Dropout(0.2, rng=rng), Linear(1280, num_classes, rng=rng))})


def _block(channels: int, out: int, expansion: int, stride: int, rng: np.random.Generator) -> Module:
    width = channels * expansion
    layers: list[Module] = [] if expansion == 1 else [_convolution(channels, width, 1, rng)]
    layers += [_convolution(width, width, 3, rng, stride, width), Conv2d(width, out, 1, bias=False, rng=rng), BatchNorm2d(out)]
    if stride == 1 and channels == out:
        return Residual(Sequential(*layers), names=("conv", ""))
    return Sequential({"conv": Sequential(*layers)})


def _convolution(channels: int, out: int, kernel: int, rng: np.random.Generator, stride: int = 1,
                 groups: int = 1) -> Sequential:
    return Sequential(Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False, rng=rng), BatchNorm2d(out),
                      ReLU6())
