"""A network of `fastconv.nn` as PyTorch modules: eager, NCHW, activations and sums in place, as torchvision has them.

`Permute` is a view, so that what is channels_last in between lies in memory as it does in torchvision's ConvNeXt.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn

NAMELESS = "_"  # PyTorch's modules need names; fastconv's children called "" add none to the state's


class Branches(nn.Module):
    def __init__(self, branches: OrderedDict[str, nn.Module]) -> None:
        super().__init__()
        for name, module in branches.items():
            self.add_module(name, module)


class Residual(Branches):
    def forward(self, x: Any) -> Any:
        made, *shortcut = [branch(x) for branch in self.children()]
        made += shortcut[0] if shortcut else x
        return made


class Concat(Branches):
    def __init__(self, branches: OrderedDict[str, nn.Module], axis: int) -> None:
        super().__init__(branches)
        self.axis = axis

    def forward(self, x: Any) -> Any:
        return torch.cat([branch(x) for branch in self.children()], self.axis)


class Permute(nn.Module):
    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Any) -> Any:
        return x.permute(self.dims)


class Scale(nn.Module):
    def __init__(self, name: str, channels: int, last: bool) -> None:
        super().__init__()
        self.name, self.shape = name, (channels,) if last else (channels, 1, 1)
        self.register_parameter(name, nn.Parameter(torch.empty(channels, 1, 1)))

    def forward(self, x: Any) -> Any:
        return x * getattr(self, self.name).view(self.shape)


def _children(m: Any) -> OrderedDict[str, nn.Module]:
    return OrderedDict((name or NAMELESS, _made(child)) for name, child in m.named_children())


def _arguments(m: Any) -> dict[str, Any]:
    return {name: value for name, value in m.arguments.items() if name != "layout"}


def _convolution(kind: Any) -> Any:
    return lambda m: kind(m.in_channels, m.out_channels, m.kernel_size, bias=m.bias is not None, **_arguments(m))


def _pooling(kind: Any) -> Any:
    return lambda m: kind(**_arguments(m))


MADE = {
    "Sequential": lambda m: nn.Sequential(_children(m)), "Residual": lambda m: Residual(_children(m)),
    "Concat": lambda m: Concat(_children(m), m.axis), "Identity": lambda m: nn.Identity(),
    "Flatten": lambda m: nn.Flatten(m.start_dim, m.end_dim), "Permute": lambda m: Permute(*m.dims),
    "Conv2d": _convolution(nn.Conv2d), "ConvTranspose2d": _convolution(nn.ConvTranspose2d),
    "Linear": lambda m: nn.Linear(m.in_features, m.out_features, m.bias is not None),
    "BatchNorm2d": lambda m: nn.BatchNorm2d(m.num_features, m.eps, m.momentum),
    "LayerNorm": lambda m: nn.LayerNorm(m.normalized_shape, m.eps),
    "Scale": lambda m: Scale(m.name, m.num_features, m.layout == "channels_last"),
    "MaxPool2d": _pooling(nn.MaxPool2d), "AvgPool2d": _pooling(nn.AvgPool2d),
    "AdaptiveAvgPool2d": _pooling(nn.AdaptiveAvgPool2d), "GlobalAvgPool": lambda m: nn.AdaptiveAvgPool2d(1),
    "ReLU": lambda m: nn.ReLU(inplace=True), "ReLU6": lambda m: nn.ReLU6(inplace=True),
    "GELU": lambda m: nn.GELU(m.approximate), "Tanh": lambda m: nn.Tanh(), "Dropout": lambda m: nn.Dropout(m.p),
}


def _made(m: Any) -> nn.Module:
    kind = type(m).__name__
    if kind not in MADE:
        raise ValueError(f"no PyTorch module is known for {kind}; there are {', '.join(MADE)}")
    made = MADE[kind](m)
    if getattr(m, "arguments", {}).get("layout") == "channels_last":
        return nn.Sequential(OrderedDict({"first": Permute(0, 3, 1, 2), NAMELESS: made, "last": Permute(0, 2, 3, 1)}))
    return made


def plain(name: str) -> str:
    """A name in the state of such a network, as `fastconv.nn` has it."""
    return ".".join(part for part in name.split(".") if part != NAMELESS)


def as_torch(model: Any) -> nn.Module:
    """The same network, with the same state, which it takes by name.

    Raises:
        ValueError: a module that `MADE` does not have.
        KeyError, RuntimeError: the states do not have the same names and shapes.
    """
    made, state = _made(model), model.state_dict()
    made.load_state_dict({name: torch.from_numpy(state.pop(plain(name))) for name in made.state_dict()})
    if state:
        raise KeyError(f"PyTorch's network has no {', '.join(state)}")
    return made
