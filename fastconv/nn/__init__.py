"""Convolutional networks on NumPy arrays: PyTorch's names and argument order, `forward` and `backward` in each module."""

from __future__ import annotations

from ..storage import load, save
from . import functional
from . import initializers as init
from .activation import (
    GELU, Activation, Dropout, Dropout2d, Hardswish, LeakyReLU, ReLU, ReLU6, Sigmoid, SiLU, Softmax, Tanh, reseed,
)
from .containers import Concat, Flatten, Identity, Permute, Residual, Sequential
from .convolution import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, Linear
from .fit import History, evaluate, fit
from .loss import BCEWithLogitsLoss, CrossEntropyLoss, Loss, MSELoss
from .module import Buffer, Module, Parameter
from .normalization import Affine, BatchNorm1d, BatchNorm2d, BatchNorm3d, GroupNorm, LayerNorm, Scale
from .observation import observed
from .optimizers import SGD, Adam, AdamW, CosineAnnealingLR, Optimizer, StepLR
from .pooling import (
    AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d, AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d,
    AvgPool1d, AvgPool2d, AvgPool3d, GlobalAvgPool, GlobalMaxPool, LPPool1d, LPPool2d, LPPool3d, MaxPool1d, MaxPool2d,
    MaxPool3d, MinPool1d, MinPool2d, MinPool3d,
)
from .summary import summary

Module.summary = summary  # type: ignore[attr-defined]  # which looks at modules, and stands above them

__all__ = [
    "Activation", "Adam", "AdamW", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d", "AdaptiveMaxPool3d", "Affine", "AvgPool1d", "AvgPool2d", "AvgPool3d", "BCEWithLogitsLoss",
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "Buffer", "Concat", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d",
    "ConvTranspose2d", "ConvTranspose3d", "CosineAnnealingLR", "CrossEntropyLoss", "Dropout", "Dropout2d", "Flatten", "GELU",
    "GlobalAvgPool", "GlobalMaxPool", "GroupNorm", "Hardswish", "History", "Identity", "LPPool1d", "LPPool2d", "LPPool3d",
    "LayerNorm", "LeakyReLU", "Linear", "Loss", "MSELoss", "MaxPool1d", "MaxPool2d", "MaxPool3d", "MinPool1d", "MinPool2d",
    "MinPool3d", "Module", "Optimizer", "Parameter", "Permute", "ReLU", "ReLU6", "Residual", "SGD", "Scale", "Sequential",
    "SiLU", "Sigmoid", "Softmax", "StepLR", "Tanh", "evaluate", "fit", "functional", "init", "load", "observed", "reseed",
    "save", "summary",
]
