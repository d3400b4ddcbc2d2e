"""ResNet: He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2015 (arXiv:1512.03385).

The 50-layer one strides in its 3x3 convolutions, as torchvision's (v1.5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import BatchNorm2d, Conv2d, Flatten, GlobalAvgPool, Linear, MaxPool2d, Module, ReLU, Residual, Sequential
from ..initializers import generator

Block = Callable[[int, int, int, np.random.Generator], tuple[Module, int]]


def resnet18(num_classes: int = 1000, *, rng: Any = None) -> Sequential:
    """Of images of 3 x 224 x 224: 11,689,512 parameters."""
    return _resnet(_basic, (2, 2, 2, 2), num_classes, generator(rng))


def resnet50(num_classes: int = 1000, *, rng: Any = None) -> Sequential:
    """Of images of 3 x 224 x 224: 25,557,032 parameters."""
    return _resnet(_bottleneck, (3, 4, 6, 3), num_classes, generator(rng))


def _resnet(block: Block, depths: tuple[int, ...], num_classes: int, rng: np.random.Generator) -> Sequential:
    layers: dict[str, Module] = {
        "conv1": Conv2d(3, 64, 7, 2, 3, bias=False, rng=rng), "bn1": BatchNorm2d(64), "relu": ReLU(),
        "maxpool": MaxPool2d(3, 2, 1)}
    channels = 64
    for stage, depth in enumerate(depths):
        blocks: list[Module] = []
        for number in range(depth):
            made, channels = block(channels, 64 << stage, 2 if stage and not number else 1, rng)
            blocks.append(Sequential({"": made, "relu_out": ReLU()}))
        layers[f"layer{stage + 1}"] = Sequential(*blocks)
    return Sequential({**layers, "avgpool": GlobalAvgPool(), "flatten": Flatten(),
                       "fc": Linear(channels, num_classes, rng=rng)})


def _basic(channels: int, width: int, stride: int, rng: np.random.Generator) -> tuple[Module, int]:
    body = Sequential({
        "conv1": Conv2d(channels, width, 3, stride, 1, bias=False, rng=rng), "bn1": BatchNorm2d(width), "relu": ReLU(),
        "conv2": Conv2d(width, width, 3, 1, 1, bias=False, rng=rng), "bn2": BatchNorm2d(width)})
    return _around(body, channels, width, stride, rng), width


def _bottleneck(channels: int, width: int, stride: int, rng: np.random.Generator) -> tuple[Module, int]:
    body = Sequential({
        "conv1": Conv2d(channels, width, 1, bias=False, rng=rng), "bn1": BatchNorm2d(width), "relu1": ReLU(),
        "conv2": Conv2d(width, width, 3, stride, 1, bias=False, rng=rng), "bn2": BatchNorm2d(width), "relu2": ReLU(),
        "conv3": Conv2d(width, 4 * width, 1, bias=False, rng=rng), "bn3": BatchNorm2d(4 * width)})
    return _around(body, channels, 4 * width, stride, rng), 4 * width


def _around(body: Module, channels: int, out: int, stride: int, rng: np.random.Generator) -> Residual:
    """With x itself as the shortcut where that has the right shape."""
    if stride == 1 and channels == out:
        return Residual(body, names=("", "downsample"))
    projection = Sequential(Conv2d(channels, out, 1, stride, bias=False, rng=rng), BatchNorm2d(out))
    return Residual(body, projection, names=("", "downsample"))
