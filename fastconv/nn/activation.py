"""Activations, softmax and dropout."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .. import losses, pointwise
from ..arguments import integer
from ..problem import number
from . import initializers
from .module import Module


class Activation(Module):
    """A function of single elements.

    Attributes:
        epilogue: it, as the `activation` of a convolution.
        arguments: what the function takes beside its input.
        by_output: whether its gradient can be told from its output, which the next layer keeps as well.
    """

    name: ClassVar[str]
    arguments: dict[str, Any] = {}
    by_output: ClassVar[bool] = False

    @property
    def epilogue(self) -> Any:
        return self.name

    def forward(self, input: np.ndarray) -> np.ndarray:
        made = getattr(pointwise, self.name)(input, **self.arguments)
        self.keep(made if self.by_output else input)
        return made

    def done(self) -> str:
        """The module in front applies it, by its name, and does as much in its backward."""
        self.keep(None)
        return self.name

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        (kept,) = self.kept()
        if kept is None or not needs_input:
            return grad_output if needs_input else None
        return getattr(pointwise, f"{self.name}_input")(grad_output, kept, **self.arguments)


def _layer(kind: str, says: str, by_output: bool = False) -> Any:
    return type(kind, (Activation,), {"__module__": __name__, "__doc__": says, "name": kind.lower(), "by_output": by_output})


ReLU = _layer("ReLU", "max(x, 0).", by_output=True)
ReLU6 = _layer("ReLU6", "min(max(x, 0), 6).", by_output=True)
Sigmoid = _layer("Sigmoid", "1 / (1 + exp(-x)).")
Tanh = _layer("Tanh", "The hyperbolic tangent.")
SiLU = _layer("SiLU", "x·sigmoid(x).")
Hardswish = _layer("Hardswish", "x·min(max(x + 3, 0), 6)/6.")


class LeakyReLU(Activation):
    """x, or negative_slope·x where x is negative."""

    name = "leaky_relu"

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = number("negative_slope", negative_slope)
        self.arguments = {"negative_slope": self.negative_slope}

    @property
    def epilogue(self) -> Any:
        return self.name, self.negative_slope

    def extra_repr(self) -> str:
        return f"{self.negative_slope:g}"


class GELU(Activation):
    """x·Φ(x); approximate: "none" or "tanh", as in PyTorch."""

    name = "gelu"

    def __init__(self, approximate: str = "none") -> None:
        pointwise.gelu(np.zeros(1, np.float32), approximate)  # whoever reads the argument says what is wrong with it
        self.approximate = approximate
        self.arguments = {"approximate": approximate}

    @property
    def epilogue(self) -> Any:
        return "gelu" if self.approximate == "none" else "gelu_tanh"


class Softmax(Module):
    """exp(x) / Σ exp(x) along an axis, `dim`; a network that `CrossEntropyLoss` trains ends without it."""

    def __init__(self, dim: int = -1) -> None:
        self.dim = integer("dim", dim, None)

    def forward(self, input: np.ndarray) -> np.ndarray:
        made = losses.softmax(input, self.dim)
        self.keep(made)
        return made

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        (y,) = self.kept()
        return losses.softmax_input(grad_output, y, self.dim) if needs_input else None

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Dropout(Module):
    """In training each element is 0 with probability p, the others are divided by 1 - p (Srivastava et al. 2014).

    Args:
        p: at least 0, below 1.
        rng: the numpy.random.Generator that decides; `reseed` gives all of a model new ones.
    """

    def __init__(self, p: float = 0.5, *, rng: Any = None) -> None:
        self.p = number("p", p)
        if not 0 <= self.p < 1:
            raise ValueError(f"p must be at least 0 and below 1, got {p}")
        self.rng = initializers.generator(rng)

    def layers(self, place: str = "") -> list[tuple[str, Module]]:
        return []

    def _dropped_together(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def forward(self, input: np.ndarray) -> np.ndarray:
        if not self.training or self.p == 0:
            self.keep(None)
            return input
        drawn = self.rng.random(self._dropped_together(input.shape), np.float32)
        factor = np.where(drawn < self.p, 0, 1 / (1 - self.p)).astype(input.dtype)
        self.keep(factor)
        return input * factor

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        (factor,) = self.kept()
        return grad_output if factor is None or not needs_input else grad_output * factor

    def extra_repr(self) -> str:
        return f"p={self.p:g}"


class Dropout2d(Dropout):
    """Whole channels of (N, C, ...) are dropped (Tompson et al. 2015, arXiv:1411.4280)."""

    def _dropped_together(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:2], *[1] * (len(shape) - 2))


def reseed(model: Module, rng: np.random.Generator) -> None:
    """New generators for all dropout of a model, in its order."""
    dropped = [module for module in model.modules() if isinstance(module, Dropout)]
    for module, made in zip(dropped, rng.spawn(len(dropped))):
        module.rng = made
