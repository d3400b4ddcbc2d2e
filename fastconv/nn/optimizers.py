"""Optimisers: what a step does with the gradients. Formulas, names and defaults are PyTorch's.

A step reads and writes each array once, natively and threaded where it can be; otherwise NumPy goes through chunks that stay in
the cache. Nothing is allocated that is as large as a parameter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import native, operands, settings
from ..arguments import flag
from ..errors import shown
from ..problem import number
from .module import Parameter

_CHUNK = 1 << 14  # elements: the parameter, its gradient, two moments and two temporaries fit into L2


class Optimizer:
    """Changes `parameters` by their gradients. `lr`, the learning rate, may be assigned at any time.

    Attributes:
        slots: by its name, one array per parameter of what is remembered from step to step (None before the first).
    """

    remembers: tuple[str, ...] = ()
    rule: str

    def __init__(self, parameters: Iterable[Parameter], lr: float, weight_decay: float) -> None:
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("an optimiser needs at least one parameter, got none")
        self.lr, self.weight_decay = _positive("lr", lr), _positive("weight_decay", weight_decay)
        self.steps = 0
        self.slots: dict[str, list[np.ndarray | None]] = {name: [None] * len(self.parameters) for name in self.remembers}

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Change all parameters that have a gradient."""
        self.steps += 1
        numbers, module, threads = self.numbers(), operands.native_module(), settings.current().num_threads
        for number_, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            if not parameter.data.flags.writeable:
                raise RuntimeError("a parameter is read-only: the model is in eval mode; call its train() first")
            for name in self.remembers:
                if self.slots[name][number_] is None:
                    self.slots[name][number_] = np.zeros_like(parameter.data)
            arrays: list[Any] = [parameter.data, parameter.grad, *(self.slots[name][number_] for name in self.remembers)]
            if module is not None and all([each.flags.c_contiguous and each.dtype == arrays[0].dtype for each in arrays]):
                native.runtime().update(module, self.rule, *arrays, threads=threads, **numbers)
                continue
            for chunk in _chunks(arrays):
                self.update(numbers, *chunk)

    def numbers(self) -> dict[str, Any]:
        """What `update` and the native kernel of `rule` take for this step: see `Update` in kernels/pointwise_abi.hpp."""
        raise NotImplementedError

    def update(self, of: dict[str, Any], values: np.ndarray, gradient: np.ndarray, *remembered: np.ndarray) -> None:
        """Change values, and what is remembered, in place; not the gradient. of: `numbers`."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all that the next step depends on, but for parameters and gradients."""
        made = {"steps": np.array(self.steps), "lr": np.array(self.lr)}
        for name, arrays in self.slots.items():
            made.update({f"{name}.{number_}": array.copy() for number_, array in enumerate(arrays) if array is not None})
        return made

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        Raises:
            ValueError: what was remembered is of other parameters.
        """
        expected = {"steps", "lr", *(f"{name}.{n}" for name in self.remembers for n in range(len(self.parameters)))}
        unknown = sorted(set(state) - expected)
        if unknown or not {"steps", "lr"} <= set(state):
            raise ValueError(f"the state is not one of {type(self).__name__} with {len(self.parameters)} parameters: "
                             f"{shown(unknown or sorted({'steps', 'lr'} - set(state)))}")
        for name in self.remembers:
            for number_, parameter in enumerate(self.parameters):
                array = state.get(f"{name}.{number_}")
                if array is not None and np.shape(array) != parameter.shape:
                    raise ValueError(f"{name}.{number_} must have shape {parameter.shape}, got {np.shape(array)}")
                self.slots[name][number_] = None if array is None else np.array(array, parameter.dtype)
        self.steps, self.lr = int(state["steps"]), float(state["lr"])


class SGD(Optimizer):
    """v ← momentum·v + (1 - dampening)·g, w ← w - lr·v, g = ∂w + weight_decay·w; with nesterov w ← w - lr·(g + momentum·v).

    Args:
        parameters: of `model.parameters()`.
        lr, momentum, dampening, weight_decay, nesterov: as in PyTorch.
    """

    rule = "sgd"

    def __init__(self, parameters: Iterable[Parameter], lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
                 weight_decay: float = 0.0, nesterov: bool = False) -> None:
        self.momentum, self.dampening = _positive("momentum", momentum), number("dampening", dampening)
        self.nesterov = flag("nesterov", nesterov)
        if self.nesterov and (not self.momentum or self.dampening):
            raise ValueError(f"nesterov needs momentum and no dampening, got momentum={momentum} and dampening={dampening}")
        self.remembers = ("momentum",) if self.momentum else ()
        super().__init__(parameters, lr, weight_decay)

    def numbers(self) -> dict[str, Any]:
        return dict(rate=self.lr, decay=self.weight_decay, momentum=self.momentum, nesterov=self.nesterov,
                    more=1.0 if self.steps == 1 else 1 - self.dampening)

    def update(self, of: dict[str, Any], values: np.ndarray, gradient: np.ndarray, *remembered: np.ndarray) -> None:
        g = gradient + of["decay"] * values if of["decay"] else gradient
        for velocity in remembered:
            velocity *= of["momentum"]
            velocity += of["more"] * g
            g = g + of["momentum"] * velocity if of["nesterov"] else velocity
        values -= of["rate"] * g


class Adam(Optimizer):
    """Kingma and Ba 2014 (arXiv:1412.6980): m and v are running means of g and g², w ← w - lr·m̂ / (√v̂ + eps).

    Args:
        parameters: of `model.parameters()`.
        lr, betas, eps, weight_decay: as in PyTorch; the decay is added to the gradient.
    """

    remembers = ("mean", "square")
    decoupled = False
    rule = "adam"

    def __init__(self, parameters: Iterable[Parameter], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, lr, weight_decay)
        first, second = betas
        for beta in betas:
            if not 0 <= number("betas", beta) < 1:
                raise ValueError(f"betas must be at least 0 and below 1, got {shown(betas)}")
        self.betas, self.eps = (float(first), float(second)), _positive("eps", eps)

    def numbers(self) -> dict[str, Any]:
        first, second = self.betas
        return dict(rate=self.lr / (1 - first**self.steps), decay=0.0 if self.decoupled else self.weight_decay, momentum=first,
                    more=second, correction=math.sqrt(1 - second**self.steps), epsilon=self.eps,
                    shrink=1 - self.lr * self.weight_decay if self.decoupled else 1.0)

    def update(self, of: dict[str, Any], values: np.ndarray, gradient: np.ndarray, *remembered: np.ndarray) -> None:
        mean, square = remembered
        values *= of["shrink"]
        g = gradient + of["decay"] * values if of["decay"] else gradient
        mean += (1 - of["momentum"]) * (g - mean)
        square *= of["more"]
        square += (1 - of["more"]) * (g * g)
        values -= of["rate"] * (mean / (np.sqrt(square) / of["correction"] + of["epsilon"]))


class AdamW(Adam):
    """Adam whose decay shrinks the weights themselves (Loshchilov and Hutter 2017, arXiv:1711.05101)."""

    decoupled = True

    def __init__(self, parameters: Iterable[Parameter], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 1e-2) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay)


class StepLR:
    """lr times `gamma` every `step_size` steps of this schedule, which are usually epochs."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.optimizer, self.step_size, self.gamma = optimizer, step_size, gamma
        self.base, self.steps = optimizer.lr, 0

    def at(self, step: int) -> float:
        return self.base * self.gamma ** (step // self.step_size)

    def step(self) -> None:
        self.steps += 1
        self.optimizer.lr = self.at(self.steps)


class CosineAnnealingLR(StepLR):
    """lr along half a cosine from its first value to `eta_min` in `T_max` steps (arXiv:1608.03983)."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:  # noqa: N803
        super().__init__(optimizer, T_max)
        self.eta_min = eta_min

    def at(self, step: int) -> float:
        return self.eta_min + (self.base - self.eta_min) * (1 + math.cos(math.pi * step / self.step_size)) / 2


def _chunks(arrays: list[Any]) -> Iterator[list[np.ndarray]]:
    """Views of the same elements of each; arrays of other strides than the first's are copied, but never what is written."""
    shape = arrays[0].shape
    if arrays[0].size <= _CHUNK or not all(array.flags.c_contiguous for array in (arrays[0], *arrays[2:])):
        yield arrays
        return
    flat = [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    for begin in range(0, math.prod(shape), _CHUNK):
        yield [array[begin:begin + _CHUNK] for array in flat]


def _positive(name: str, value: Any) -> float:
    found = number(name, value)
    if found < 0:
        raise ValueError(f"{name} must not be negative, got {shown(value)}")
    return found
