"""VGG: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014 (arXiv:1409.1556)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import AdaptiveAvgPool2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, Module, ReLU, Sequential
from ..initializers import generator

POOL = 0
A = (64, POOL, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL)  # the paper's names; channels of 3x3 convolutions
D = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512, 512, POOL)


def vgg11(num_classes: int = 1000, *, rng: Any = None) -> Sequential:
    """Configuration A, of images of 3 x 224 x 224: 132,863,336 parameters."""
    return _vgg(A, num_classes, generator(rng))


def vgg16(num_classes: int = 1000, *, rng: Any = None) -> Sequential:
    """Configuration D, of images of 3 x 224 x 224: 138,357,544 parameters."""
    return _vgg(D, num_classes, generator(rng))


def _vgg(configuration: tuple[int, ...], num_classes: int, rng: np.random.Generator) -> Sequential:
    layers: list[Module] = []
    channels = 3
    for out in configuration:
        if out == POOL:
            layers.append(MaxPool2d(2))
        else:
            layers += [Conv2d(channels, out, 3, padding=1, rng=rng), ReLU()]
            channels = out
    classifier = Sequential(
        Linear(512 * 7 * 7, 4096, rng=rng), ReLU(), Dropout(rng=rng),
        Linear(4096, 4096, rng=rng), ReLU(), Dropout(rng=rng),
        Linear(4096, num_classes, rng=rng))
    return Sequential({"features": Sequential(*layers), "avgpool": AdaptiveAvgPool2d(7), "flatten": Flatten(),
                       "classifier": classifier})
