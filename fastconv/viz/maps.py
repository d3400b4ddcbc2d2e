"""The arrays behind the pictures: what of an image a unit reads, and what a class or a channel answers to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import image as filters
from .. import nn
from ..arguments import integer, shape
from ..errors import shown
from ..nn.convolution import Weighted
from ..nn.module import Module, Parameter
from ..nn.normalization import Affine
from ..problem import number
from ..settings import config
from .passes import Layer, back, batch, located, tapped, twin, up_to


class Box(NamedTuple):
    """A part of an image: rows top to bottom and columns left to right, the last ones excluded."""

    top: int
    bottom: int
    left: int
    right: int


# ---- what a unit reads


def receptive_box(model: Any, image_size: Any, layer: Layer, position: Any) -> Box:
    """The pixels that a unit depends on, through windows alone: whatever the weights and the image.

    It is the support of a gradient: that of the same network with all weights positive, without what acts on single elements,
    and with means for maxima. (Normalisation over a whole image counts as acting on single elements.)

    Args:
        image_size: (C, H, W).
        layer, position: of the unit: (row, column) of the layer's output, of which negative ones count from the end; where
            the layer gives a vector: ().

    Raises:
        ValueError: a layer that the model has not, or a position that it has not.
    """
    network = up_to(model, located(model, layer), _without_values)
    for module in network.modules():
        _positive(module)
    with config(accuracy="strict"):  # sums of the products themselves: 0 where there are none
        made = network(np.ones((1, *_image_shape("image_size", image_size))))
        place = _position(position, made.shape)
        seed = np.zeros(made.shape)
        np.moveaxis(seed[0], 0, -1)[place] = 1
        read = back(network, seed)[0].any(0)
    rows, columns = (np.flatnonzero(read.any(axis)) for axis in (1, 0))
    if not len(rows):
        raise ValueError(f"position {shown(position)} of layer {shown(layer)} reads padding only")
    return Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def _image_shape(name: str, value: Any) -> tuple[int, ...]:
    found = shape(name, value)
    if len(found) != 3 or 0 in found:
        raise ValueError(f"{name} must be (C, H, W), none of them 0, got {shown(value)}")
    return found


def _without_values(module: Module) -> Module | None:
    """What acts on single elements, or along the channels of one pixel, moves nothing."""
    return nn.Identity() if isinstance(module, (nn.Activation, Affine, nn.Softmax, nn.GroupNorm, nn.LayerNorm)) else None


def _positive(module: Module) -> None:
    if isinstance(module, Weighted):
        size = module.weight.shape
        module.weight, module.bias = Parameter(np.full(size, 1 / math.prod(size[1:]))), None
    function = vars(type(module)).get("function", "")
    if "max" in function or "min" in function:
        module.function = function.replace("max", "avg").replace("min", "avg")  # type: ignore[attr-defined]


def _position(position: Any, output: tuple[int, ...]) -> tuple[int, ...]:
    """Of an element in the maps of such an output (N, C, ...)."""
    try:
        given = tuple(position)
    except TypeError:
        given = (position,)
    if len(given) != len(output) - 2:
        raise ValueError(f"position must have {len(output) - 2} entries for output of shape {output}, got {shown(position)}")
    for entry, size in zip(given, output[2:]):
        if not -size <= integer("position", entry, None, whole=position) < size:
            raise ValueError(f"position must be within the layer's maps of {output[2:]}, got {shown(position)}")
    return tuple(int(entry) % size for entry, size in zip(given, output[2:]))


def _channel(channel: Any, output: tuple[int, ...]) -> int:
    found = integer("channel", channel, 0)
    if found >= output[1]:
        raise ValueError(f"channel must be below the layer's {output[1]}, got {found}")
    return found


# ---- what a class depends on


def _scored(model: Any) -> Module:
    """A twin that ends with scores: of a softmax at the end its input (as both papers have it)."""
    last = model.layers()[-1][1] if model.layers() else None
    return twin(model, lambda module: nn.Identity() if isinstance(module, nn.Softmax) and module is last else None)


def _of_class(network: Module, x: np.ndarray, target: Any) -> tuple[np.ndarray, int, np.ndarray]:
    """The gradient of a class's score by the image, the class, and all scores."""
    scores = network(x)
    if scores.ndim != 2:
        raise ValueError(f"model must give one score per class, got output of shape {scores.shape}")
    chosen = int(scores[0].argmax()) if target is None else integer("target", target, 0)
    if chosen >= scores.shape[1]:
        raise ValueError(f"target must be below the model's {scores.shape[1]} classes, got {chosen}")
    seed = np.zeros_like(scores)
    seed[0, chosen] = 1
    return back(network, seed), chosen, scores[0]


def saliency_map(model: Any, image: Any, target: Any = None) -> tuple[np.ndarray, int]:
    """|∂ score / ∂ pixel|, the largest over the channels (Simonyan et al. 2013, arXiv:1312.6034).

    Args:
        model: gives scores (N, classes); it stays as it is.
        image: (C, H, W), (1, C, H, W) or (H, W).
        target: the class; None: that of the highest score.

    Returns:
        The map (H, W), and the class.
    """
    x = batch(model, image)
    gradient, chosen, _ = _of_class(_scored(model), x, target)
    return np.abs(gradient[0]).max(0), chosen


def grad_cam_map(model: Any, image: Any, layer: Layer, target: Any = None) -> tuple[np.ndarray, int]:
    """max(0, Σ α·A) over a layer's maps A, α the mean of ∂ score / ∂ A (Selvaraju et al. 2016, arXiv:1610.02391).

    Args:
        layer: whose output is (N, C, H, W); the rest as of `saliency_map`.

    Returns:
        The map, of the size of the layer's, and the class.
    """
    x, place, network = batch(model, image), located(model, layer), _scored(model)
    with tapped(network, place) as found:
        _, chosen, _ = _of_class(network, x, target)
    maps, gradient = found["output"], found["gradient"]
    if maps.ndim != 4:
        raise ValueError(f"layer must have maps (N, C, H, W), got {shown(place)} with output of shape {maps.shape}")
    weights = gradient[0].mean((1, 2))
    return np.maximum(np.tensordot(weights, maps[0], 1), 0), chosen


# ---- what a channel answers to


class Rectified(Module):
    """A ReLU whose backward is a ReLU of the signal, whatever the input was: Zeiler and Fergus's."""

    def forward(self, input: np.ndarray) -> np.ndarray:
        return np.maximum(input, 0)

    def backward(self, grad_output: np.ndarray, needs_input: bool = True) -> np.ndarray | None:
        return np.maximum(grad_output, 0)


def deconvolved(model: Any, image: Any, layer: Layer, channel: Any, position: Any = "strongest") -> np.ndarray:
    """One channel's response, back to the pixels (Zeiler and Fergus 2013, arXiv:1311.2901).

    Back through a convolution by the transposed one, through max pooling to where the maxima were, through a ReLU by a ReLU of
    what comes back; through anything else by its gradient.

    Args:
        position: (row, column) of the one unit whose response is followed; "strongest": the channel's; "all": all of its map.

    Returns:
        Of the image's shape (C, H, W).
    """
    x = batch(model, image)
    network = up_to(model, located(model, layer), lambda module: Rectified() if isinstance(module, nn.ReLU) else None)
    made = network(x)
    number = _channel(channel, made.shape)
    seed, response = np.zeros_like(made), made[0, number]
    if isinstance(position, str) and position == "all":
        seed[0, number] = response
    else:
        strongest = isinstance(position, str) and position == "strongest"
        place = np.unravel_index(response.argmax(), response.shape) if strongest else _position(position, made.shape)
        seed[(0, number, *place)] = response[place]
    return back(network, seed)[0]


def maximised(model: Any, layer: Layer, channels: Sequence[int], image_shape: Any, steps: int = 128, rate: float = 0.1,
              decay: float = 0.01, blur: int = 4, seed: int = 0) -> np.ndarray:
    """Images that the mean response of a channel is large for, by gradient ascent from faint noise.

    A step is `rate` times the gradient over its root mean square; then pixels shrink by `decay`, and every `blur` steps
    neighbours are mixed: what is left is what the response depends on (Yosinski et al. 2015, arXiv:1506.06579).

    Args:
        channels: one image is made for each.
        image_shape: (C, H, W).
        blur: 0: never.
        seed: of the noise.

    Returns:
        (len(channels), C, H, W), in the dtype of the model's parameters.
    """
    network = up_to(model, located(model, layer))
    dtype = next((p.dtype for p in network.parameters()), np.dtype(np.float32))
    rate, decay, blur = number("rate", rate), number("decay", decay), integer("blur", blur, 0)
    if not len(channels):
        raise ValueError(f"channel must be at least one, got {shown(channels)}")
    noise = np.random.default_rng(integer("seed", seed, 0)).standard_normal(_image_shape("image_shape", image_shape))
    x = np.repeat((0.1 * noise).astype(dtype)[None], len(channels), 0)
    mixing = np.outer((1, 2, 1), (1, 2, 1)).astype(dtype) / 16
    for step in range(integer("steps", steps, 1)):
        made = network(x)
        wanted = np.zeros_like(made)
        for row, channel in zip(wanted, channels):
            row[_channel(channel, made.shape)] = 1
        gradient = back(network, wanted)
        size = np.sqrt(np.square(gradient).mean((1, 2, 3), keepdims=True))
        x = (1 - decay) * (x + rate * gradient / np.maximum(size, np.finfo(dtype).tiny))
        if blur and step % blur == blur - 1:
            x = filters.correlate(x, mixing, boundary="symmetric", axes=(2, 3))
    return x.astype(dtype, copy=False)
