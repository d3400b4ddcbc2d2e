"""GoogLeNet (Inception v1): Szegedy et al., "Going deeper with convolutions", 2014 (arXiv:1409.4842).

As torchvision has it: with batch norm, and 3x3 convolutions in the branch of the paper's 5x5 ones; without the auxiliary
classifiers, which training needs no longer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import BatchNorm2d, Concat, Conv2d, Dropout, Flatten, GlobalAvgPool, Linear, MaxPool2d, ReLU, Sequential
from ..initializers import generator

# of each module: channels of 1x1; 1x1 and 3x3; 1x1 and "5x5"; 1x1 behind the pooling (the paper's table 1)
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(num_classes: int = 1000, *, rng: Any = None) -> Sequential:
    """Of images of 3 x 224 x 224: 6,624,904 parameters."""
    rng = generator(rng)
    model: dict[str, Any] = {
        "conv1": _convolution(3, 64, 7, rng, 2), "maxpool1": MaxPool2d(3, 2, ceil_mode=True),
        "conv2": _convolution(64, 64, 1, rng), "conv3": _convolution(64, 192, 3, rng),
        "maxpool2": MaxPool2d(3, 2, ceil_mode=True)}
    channels = 192
    for name, widths in MODULES.items():
        model[f"inception{name}"] = _inception(channels, widths, rng)
        channels = widths[0] + widths[2] + widths[4] + widths[5]
        if name in ("3b", "4e"):
            model[f"maxpool{name[0]}"] = MaxPool2d(3 if name == "3b" else 2, 2, ceil_mode=True)
    return Sequential({**model, "avgpool": GlobalAvgPool(), "flatten": Flatten(), "dropout": Dropout(0.2, rng=rng),
                       "fc": Linear(channels, num_classes, rng=rng)})


def _inception(channels: int, widths: tuple[int, ...], rng: np.random.Generator) -> Concat:
    one, before_three, three, before_five, five, pooled = widths
    return Concat({
        "branch1": _convolution(channels, one, 1, rng),
        "branch2": Sequential(_convolution(channels, before_three, 1, rng), _convolution(before_three, three, 3, rng)),
        "branch3": Sequential(_convolution(channels, before_five, 1, rng), _convolution(before_five, five, 3, rng)),
        "branch4": Sequential(MaxPool2d(3, 1, 1, ceil_mode=True), _convolution(channels, pooled, 1, rng))})


def _convolution(channels: int, out: int, kernel: int, rng: np.random.Generator, stride: int = 1) -> Sequential:
    return Sequential({"conv": Conv2d(channels, out, kernel, stride, kernel // 2, bias=False, rng=rng),
                       "bn": BatchNorm2d(out, eps=1e-3), "relu": ReLU()})
