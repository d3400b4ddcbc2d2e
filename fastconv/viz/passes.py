"""Passes through a model in eval mode, and back: on a twin of it, so that the model itself stays as it was.

A twin has the model's parameters (read-only views, not copies) and modules of its own, which keep for `backward`. What behaves
otherwise in training is as in eval mode there: batch norm scales by its running statistics, dropout drops nothing.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import nn
from ..errors import shown
from ..nn.module import Buffer, Module
from ..nn.normalization import Affine

Replace = Callable[[Module], Module | None]
Layer = str | Module


def located(model: Any, layer: Any) -> str:
    """The place of a layer, given by its place or by itself."""
    checked(model)
    places = {place: module for place, module in model.named_modules() if place}
    if isinstance(layer, Module):
        for place, module in places.items():
            if module is layer:
                return place
        raise ValueError(f"layer must be one of the model's, got {shown(layer)}, which is none of {_listed(places)}")
    if not isinstance(layer, str) or layer not in places:
        raise ValueError(f"layer must be the place of one of the model's layers, of {_listed(places)}, got {shown(layer)}")
    return layer


def checked(model: Any) -> Module:
    if not isinstance(model, Module):
        raise TypeError(f"model must be a fastconv.nn Module, got {shown(model)}")
    return model


def _listed(places: dict[str, Module]) -> str:
    names = list(places)
    return ", ".join(map(repr, names)) if len(names) <= 12 else f"{', '.join(map(repr, names[:12]))}, ..."


class Scaled(Module):
    """x·scale + shift, per channel: a batch norm in eval mode."""

    def __init__(self, norm: Affine) -> None:
        found = norm.scale_and_shift()
        assert found is not None
        self.values, self.layout = found, norm.layout

    def _along(self, values: np.ndarray, x: np.ndarray) -> np.ndarray:
        behind = 0 if self.layout == "channels_last" else x.ndim - 2
        return values.astype(x.dtype).reshape(-1, *[1] * behind)

    def forward(self, input: np.ndarray) -> np.ndarray:
        scale, shift = self.values
        return input * self._along(scale, input) + self._along(shift, input)

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        return grad_output * self._along(self.values[0], grad_output)


def twin(model: Module, replace: Replace = lambda module: None) -> Module:
    """A model of the same parameters whose forward keeps for its backward; the model is not touched.

    Args:
        replace: gives what stands in a module's place, or None: a module like it.
    """
    memo: dict[int, Any] = {}  # what deepcopy takes instead of a copy, by the identity of the original
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, Buffer):
                view = value.data.view()
                view.flags.writeable = False
                memo[id(value.data)] = view
                if getattr(value, "grad", None) is not None:
                    memo[id(value.grad)] = None  # type: ignore[attr-defined]
            elif name in ("_program", "_kept"):
                memo[id(value)] = None
        other = replace(module)
        if other is None and isinstance(module, Affine) and module.scale_and_shift() is not None:
            other = Scaled(module)
        if other is not None:
            memo[id(module)] = other
    made = copy.deepcopy(model, memo)
    for module in made.modules():
        for name in ("_program", "_kept", "_observed", "forward"):
            vars(module).pop(name, None)
        module.training = True
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return made


def up_to(model: Module, layer: str, replace: Replace = lambda module: None) -> Module:
    """A twin of what stands between the model's input and the output of a layer."""
    place, found = located(model, layer), twin(model, replace)
    target = next(module for name, module in found.named_modules() if name == place)
    return nn.Sequential(*_before(found, target, place))


def _before(module: Module, target: Module, place: str) -> list[Module]:
    """Of one container: what runs before the layer, and it."""
    if module is target:
        return [module]
    if not (module.parallel or isinstance(module, nn.Sequential)):
        raise ValueError(f"layer must be in modules whose order is known (Sequential, Residual, Concat), got {shown(place)} in "
                         f"{type(module).__name__}")
    children = [child for _, child in module.named_children()]
    inside = next(number for number, child in enumerate(children) if any(each is target for each in child.modules()))
    before = [] if module.parallel else children[:inside]  # branches all read the input
    return [*before, *_before(children[inside], target, place)]


def back(model: Module, grad_output: np.ndarray) -> np.ndarray:
    """The gradient of the input of a twin's latest forward."""
    made = model.backward(grad_output)
    model.zero_grad()
    assert made is not None
    return made


@contextlib.contextmanager
def tapped(model: Module, place: str) -> Iterator[dict[str, np.ndarray]]:
    """Inside, what a layer of a twin gives ("output"), and the gradient of that ("gradient"), are written down."""
    layer = next(module for name, module in model.named_modules() if name == place)
    found: dict[str, np.ndarray] = {}
    forward, backward = layer.forward, layer.backward

    def watched(input: np.ndarray) -> np.ndarray:
        found["output"] = forward(input)
        return found["output"]

    def watched_back(grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        found["gradient"] = grad_output
        return backward(grad_output, needs_input)

    vars(layer).update(forward=watched, backward=watched_back)
    try:
        yield found
    finally:
        del vars(layer)["forward"], vars(layer)["backward"]


def batch(model: Any, image: Any) -> np.ndarray:
    """One image (C, H, W), (1, C, H, W) or (H, W) as a model takes it, in the dtype of its parameters."""
    x = np.asarray(image)
    x = x[None, None] if x.ndim == 2 else x[None] if x.ndim == 3 else x
    if x.ndim != 4 or len(x) != 1 or 0 in x.shape:
        raise ValueError(f"image must be one image (C, H, W), (1, C, H, W) or (H, W), got shape {shown(np.shape(image))}")
    if x.dtype.kind not in "fiub":
        raise TypeError(f"image must be of real numbers, got dtype {x.dtype}")
    return x.astype(next((p.dtype for p in checked(model).parameters()), np.dtype(np.float32)))
