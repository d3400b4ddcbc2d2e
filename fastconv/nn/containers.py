"""Modules made of modules: one after the other, around a shortcut, side by side."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..receptive_field import Window
from .inference import Container, Joined, Placed, Step, Sum, activation
from .module import Module, joined


class Sequential(Container):
    """One module after the other.

    Args:
        modules: the modules, called "0", "1", ...; or one mapping from names to modules.
    """

    def __init__(self, *modules: Any) -> None:
        self.adopt(*modules)

    def __len__(self) -> int:
        return len(list(self.named_children()))

    def __getitem__(self, place: int) -> Module:
        return [child for _, child in self.named_children()][place]

    def layers(self, place: str = "") -> list[Placed]:
        return [layer for name, child in self.named_children() for layer in child.layers(joined(place, name))]

    def forward(self, input: np.ndarray) -> np.ndarray:
        rest = [*self.named_children()][::-1]
        pairs = self.training and "_observed" not in vars(self)
        while rest:
            name, child = rest.pop()
            behind = [rest.pop()[1]] if pairs and rest and child.applies(rest[-1][1]) else []
            input = self.through(name, child, input, *behind)
        return input

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        children = [child for _, child in self.named_children()]
        first = 0 if needs_input else next((i for i, child in enumerate(children) if child.parameters()), len(children) - 1)
        gradient: Any = grad_output
        for place in reversed(range(len(children))[first:]):
            gradient = children[place].backward(gradient, needs_input or place > first)
        return gradient if needs_input or not children else None


class Residual(Container):
    """body(x) + shortcut(x) (He et al. 2015, arXiv:1512.03385).

    Args:
        body, shortcut: modules; shortcut None: x itself.
        names: under which they are found in the state; "": without one.
    """

    parallel = True

    def __init__(self, body: Module, shortcut: Module | None = None, *, names: tuple[str, str] = ("body", "shortcut")) -> None:
        self.adopt({names[0]: body} if shortcut is None else dict(zip(names, (body, shortcut))))
        self._branches = body, shortcut

    def forward(self, input: np.ndarray) -> np.ndarray:
        made = [self.through(name, child, input) for name, child in self.named_children()]
        other = made[1] if len(made) > 1 else input
        if made[0].shape != other.shape:
            raise ValueError(f"body gives shape {made[0].shape}, the shortcut {other.shape}")
        return made[0] + other

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        body, shortcut = self._branches
        first = body.backward(grad_output, needs_input)
        second = grad_output if shortcut is None else shortcut.backward(grad_output, needs_input)
        return first + second if needs_input and first is not None and second is not None else None

    def step(self, place: str, rest: list[Placed]) -> Step:
        return Sum(place, self, self.programs(place), activation(rest))


class Concat(Container):
    """The outputs of several branches, one behind the other along the channels.

    Args:
        branches: the modules, called "0", "1", ...; or one mapping from names to modules.
        axis: of the channels: 1, or -1 for channels_last.
    """

    parallel = True

    def __init__(self, *branches: Any, axis: int = 1) -> None:
        self.adopt(*branches)
        self.axis = axis

    def forward(self, input: np.ndarray) -> np.ndarray:
        made = [self.through(name, child, input) for name, child in self.named_children()]
        self.keep(np.cumsum([each.shape[self.axis] for each in made])[:-1])
        return np.concatenate(made, self.axis)

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        (ends,) = self.kept()
        total: np.ndarray | None = None
        for (_, child), part in zip(self.named_children(), np.split(grad_output, ends, self.axis)):
            made = child.backward(part, needs_input)
            total = made if total is None or made is None else total + made
        return total if needs_input else None

    def step(self, place: str, rest: list[Placed]) -> Step:
        return Joined(place, self, self.programs(place), self.axis)


class Identity(Module):
    """x itself."""

    def layers(self, place: str = "") -> list[Placed]:
        return []

    def forward(self, input: np.ndarray) -> np.ndarray:
        return input

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        return grad_output


class Flatten(Module):
    """All axes from `start_dim` to `end_dim` as one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: np.ndarray) -> np.ndarray:
        self.keep(input.shape)
        begin, end = self.start_dim % input.ndim, self.end_dim % input.ndim
        return input.reshape(*input.shape[:begin], math.prod(input.shape[begin:end + 1]), *input.shape[end + 1:])

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        (shape,) = self.kept()
        return grad_output.reshape(shape)

    def window(self) -> Window | None:
        return None  # whatever reads it sees all


class Permute(Module):
    """The axes in another order, as `numpy.transpose`: a view, as layers read any strides and mostly copy nothing for it."""

    def __init__(self, *dims: int) -> None:
        self.dims = dims

    def forward(self, input: np.ndarray) -> np.ndarray:
        return input.transpose(self.dims)

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        return grad_output.transpose(np.argsort(self.dims))

    def extra_repr(self) -> str:
        return str(self.dims)
