"""Pooling layers: the arguments of the functions of `fastconv.pooling`, in PyTorch's order."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import numpy as np

from .. import adaptive_pooling, pooling, pooling_gradients
from ..arguments import axes_of
from ..receptive_field import Window
from .module import Module


class _Pool(Module):
    """What all pooling shares: the function that has the class's name, its arguments, and its gradient."""

    function: ClassVar[str]
    arguments: dict[str, Any]

    def __init_subclass__(cls) -> None:
        cls.function = re.sub(r"(?<=[a-zP])(?=[A-Z][a-z])", "_", cls.__name__).lower()  # MaxPool2d: max_pool2d

    def forward(self, input: np.ndarray) -> np.ndarray:
        self.keep(input)
        made = getattr(pooling, self.function, None) or getattr(adaptive_pooling, self.function)
        return made(input, **self.arguments)

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        (x,) = self.kept()
        return getattr(pooling_gradients, f"{self.function}_input")(grad_output, x, **self.arguments) if needs_input else None

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.arguments.items() if value not in (None, "channels_first"))

    def window(self) -> Window | None:
        if "kernel_size" not in self.arguments:
            return None
        ndim, given = int(self.function[-2]), self.arguments
        kernel = axes_of("kernel_size", given["kernel_size"], ndim)
        stride = kernel if given["stride"] is None else axes_of("stride", given["stride"], ndim)
        return Window(kernel, stride, axes_of("dilation", given.get("dilation", 1), ndim))


class _Extreme(_Pool):
    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, *,
                 layout: str = "channels_first") -> None:
        self.arguments = dict(kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode,
                              layout=layout)


class AvgPool1d(_Pool):
    """Arguments: see `fastconv.avg_pool1d`."""

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True, *, layout: str = "channels_first") -> None:
        self.arguments = dict(kernel_size=kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode,
                              count_include_pad=count_include_pad, layout=layout)


class AvgPool2d(AvgPool1d):
    """Arguments: see `fastconv.avg_pool2d`."""

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True, divisor_override: int | None = None, *,
                 layout: str = "channels_first") -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad, layout=layout)
        self.arguments["divisor_override"] = divisor_override


class AvgPool3d(AvgPool2d):
    """Arguments: see `fastconv.avg_pool3d`."""


class _LPPool(_Pool):
    def __init__(self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False, *,
                 layout: str = "channels_first") -> None:
        self.arguments = dict(norm_type=norm_type, kernel_size=kernel_size, stride=stride, ceil_mode=ceil_mode, layout=layout)


class _Adaptive(_Pool):
    def __init__(self, output_size: Any, *, layout: str = "channels_first") -> None:
        self.arguments = dict(output_size=output_size, layout=layout)


class _Global(_Pool):
    def __init__(self, *, layout: str = "channels_first") -> None:
        self.arguments = dict(layout=layout)


def _layer(name: str, base: type[_Pool]) -> Any:
    made: Any = type(name, (base,), {"__module__": __name__})
    made.__doc__ = f"Arguments: see `fastconv.{made.function}`."
    return made


MaxPool1d, MaxPool2d, MaxPool3d = (_layer(f"MaxPool{n}d", _Extreme) for n in (1, 2, 3))
MinPool1d, MinPool2d, MinPool3d = (_layer(f"MinPool{n}d", _Extreme) for n in (1, 2, 3))
LPPool1d, LPPool2d, LPPool3d = (_layer(f"LPPool{n}d", _LPPool) for n in (1, 2, 3))
AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d = (_layer(f"AdaptiveAvgPool{n}d", _Adaptive) for n in (1, 2, 3))
AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d = (_layer(f"AdaptiveMaxPool{n}d", _Adaptive) for n in (1, 2, 3))
GlobalAvgPool, GlobalMaxPool = _layer("GlobalAvgPool", _Global), _layer("GlobalMaxPool", _Global)
