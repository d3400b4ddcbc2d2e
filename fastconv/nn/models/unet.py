"""U-Net: Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation", 2015
(arXiv:1505.04597)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import Concat, Conv2d, ConvTranspose2d, Identity, MaxPool2d, Module, ReLU, Sequential
from ..initializers import generator

WIDTHS = (64, 128, 256, 512, 1024)


def unet(num_classes: int = 2, *, in_channels: int = 1, rng: Any = None) -> Sequential:
    """Scores of each pixel of images of any size that 16 divides: 31,030,658 parameters. Convolutions are padded, so that the
    output has the input's size; the paper's are not."""
    rng = generator(rng)
    return Sequential({"body": _level(in_channels, WIDTHS, rng), "head": Conv2d(WIDTHS[0], num_classes, 1, rng=rng)})


def _level(channels: int, widths: tuple[int, ...], rng: np.random.Generator) -> Module:
    """Two convolutions; what they give beside what the level below makes of half the size of it; two convolutions."""
    width, below = widths[0], widths[1:]
    down = _two(channels, width, rng)
    if not below:
        return down
    inside = Sequential({"pool": MaxPool2d(2), "level": _level(width, below, rng),
                         "up": ConvTranspose2d(below[0], width, 2, 2, rng=rng)})
    return Sequential({"down": down, "skip": Concat({"same": Identity(), "inside": inside}), "up": _two(2 * width, width, rng)})


def _two(channels: int, out: int, rng: np.random.Generator) -> Sequential:
    return Sequential(Conv2d(channels, out, 3, padding=1, rng=rng), ReLU(), Conv2d(out, out, 3, padding=1, rng=rng), ReLU())
