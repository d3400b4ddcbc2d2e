"""ConvNeXt: Liu et al., "A ConvNet for the 2020s", 2022 (arXiv:2201.03545).

Inside, arrays are channels_last: layer norms and linear layers go along channels. Without stochastic depth.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import GELU, Conv2d, Flatten, GlobalAvgPool, LayerNorm, Linear, Permute, Residual, Scale, Sequential
from ..initializers import generator

LAST = "channels_last"


def convnext_tiny(num_classes: int = 1000, *, rng: Any = None) -> Sequential:
    """Of images of 3 x 224 x 224: 28,589,128 parameters."""
    return _convnext((3, 3, 9, 3), (96, 192, 384, 768), num_classes, generator(rng))


def _convnext(depths: tuple[int, ...], widths: tuple[int, ...], num_classes: int, rng: np.random.Generator) -> Sequential:
    features = [Sequential(Conv2d(3, widths[0], 4, 4, layout=LAST, rng=rng), LayerNorm(widths[0], eps=1e-6))]
    for stage, (depth, width) in enumerate(zip(depths, widths)):
        if stage:
            features.append(Sequential(LayerNorm(widths[stage - 1], eps=1e-6),
                                       Conv2d(widths[stage - 1], width, 2, 2, layout=LAST, rng=rng)))
        features.append(Sequential(*(_block(width, rng) for _ in range(depth))))
    classifier = Sequential(LayerNorm(widths[-1], eps=1e-6), Flatten(), Linear(widths[-1], num_classes, rng=rng))
    return Sequential({"permute": Permute(0, 2, 3, 1), "features": Sequential(*features), "avgpool": GlobalAvgPool(layout=LAST),
                       "classifier": classifier})


def _block(width: int, rng: np.random.Generator) -> Residual:
    """Numbered as torchvision's, which permutes in front of the norm ("1") and at the end ("6")."""
    layers = Sequential({
        "0": Conv2d(width, width, 7, padding=3, groups=width, layout=LAST, rng=rng),
        "2": LayerNorm(width, eps=1e-6), "3": Linear(width, 4 * width, rng=rng), "4": GELU(),
        "5": Linear(4 * width, width, rng=rng)})
    scale = Scale(width, 1e-6, name="layer_scale", layout=LAST)
    return Residual(Sequential({"block": layers, "": scale}), names=("", "shortcut"))
