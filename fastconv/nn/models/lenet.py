"""LeNet-5: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import AvgPool2d, Conv2d, Dropout, Flatten, Linear, Module, Sequential, Tanh
from ..initializers import generator


def lenet5(num_classes: int = 10, *, in_channels: int = 1, activation: Callable[[], Module] = Tanh,
           pooling: Callable[[int], Module] = AvgPool2d, dropout: float = 0.0, rng: Any = None) -> Sequential:
    """Of images of 32 x 32. Every map of the second convolution sees all of the first one's, and pooling has no weights, as
    in all later accounts of it: 61,706 parameters.

    Args:
        activation, pooling, dropout: the paper's; today most take ReLU and MaxPool2d, and drop some of the last but one layer.
    """
    rng = generator(rng)
    return Sequential({
        "conv1": Conv2d(in_channels, 6, 5, rng=rng), "act1": activation(), "pool1": pooling(2),
        "conv2": Conv2d(6, 16, 5, rng=rng), "act2": activation(), "pool2": pooling(2), "flatten": Flatten(),
        "fc1": Linear(16 * 5 * 5, 120, rng=rng), "act3": activation(), "dropout": Dropout(dropout, rng=rng),
        "fc2": Linear(120, 84, rng=rng), "act4": activation(),
        "fc3": Linear(84, num_classes, rng=rng),
    })
