"""AlexNet: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014 (arXiv:1404.5997)."""

from __future__ import annotations

from typing import Any

from .. import AdaptiveAvgPool2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU, Sequential
from ..initializers import generator


def alexnet(num_classes: int = 1000, *, rng: Any = None) -> Sequential:
    """Of images of 3 x 224 x 224: 61,100,840 parameters."""
    rng = generator(rng)
    features = Sequential(
        Conv2d(3, 64, 11, 4, 2, rng=rng), ReLU(), MaxPool2d(3, 2),
        Conv2d(64, 192, 5, padding=2, rng=rng), ReLU(), MaxPool2d(3, 2),
        Conv2d(192, 384, 3, padding=1, rng=rng), ReLU(),
        Conv2d(384, 256, 3, padding=1, rng=rng), ReLU(),
        Conv2d(256, 256, 3, padding=1, rng=rng), ReLU(), MaxPool2d(3, 2))
    classifier = Sequential(
        Dropout(rng=rng), Linear(256 * 6 * 6, 4096, rng=rng), ReLU(),
        Dropout(rng=rng), Linear(4096, 4096, rng=rng), ReLU(),
        Linear(4096, num_classes, rng=rng))
    return Sequential({"features": features, "avgpool": AdaptiveAvgPool2d(6), "flatten": Flatten(), "classifier": classifier})
