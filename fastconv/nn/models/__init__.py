"""Networks of the literature, one file each: their layers by PyTorch's names, so that torchvision's state dicts fit.

All take `num_classes` and `rng`, the numpy.random.Generator that first values are drawn from, and give scores without softmax.
"""

from __future__ import annotations

from .alexnet import alexnet
from .convnext import convnext_tiny
from .googlenet import googlenet
from .lenet import lenet5
from .mobilenet import mobilenet_v2
from .resnet import resnet18, resnet50
from .unet import unet
from .vgg import vgg11, vgg16

__all__ = ["alexnet", "convnext_tiny", "googlenet", "lenet5", "mobilenet_v2", "resnet18", "resnet50", "unet", "vgg11", "vgg16"]
