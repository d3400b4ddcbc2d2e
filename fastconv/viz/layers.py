"""Pictures of layers: their filters, and what they make of an image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import nn
from ..arguments import integer
from ..errors import shown
from ..nn.observation import Seen
from .canvas import GAP, INK, Sheet, columns_for, picture, plural, signed, size_within
from .passes import batch, located, twin

_ROWS = 12  # of activation maps
_TELLING = nn.Activation, nn.MaxPool2d, nn.AvgPool2d  # what the next layer sees
_FINE, _LINE = 8, 3  # a weight's side, and a line between maps


def filters(layer: Any, *, most: int = 64, inputs: int = 16, title: str | None = None) -> Any:
    """The filters of a layer as tiles, one for each output channel.

    Those of three input channels (a first layer of colour images) are RGB, each with its least value black and its largest
    white. Others are grids with a map for each input channel, on one scale: white is 0, red above, blue below.

    Args:
        layer: a convolution of `fastconv.nn`, or a weight (out, in, kH, kW) or (out, in, kW).
        most, inputs: at most so many output and input channels are shown; a note says how many there are.

    Returns:
        A matplotlib Figure.

    Raises:
        TypeError, ValueError: `layer` is neither.
        Unavailable: matplotlib is not installed.
    """
    weight = _weight(layer)
    outputs, channels, height, width = weight.shape
    coloured = channels == 3
    part = weight[:integer("most", most, 1), :channels if coloured else integer("inputs", inputs, 1)].astype(np.float64)
    across = 1 if coloured else _across(part.shape[1])
    tiles = [_stretched(each) if coloured else _grid(each, across) for each in part]
    ratio = max(tiles[0].shape[:2]) / min(tiles[0].shape[:2])
    wide, down = size_within(tiles[0].shape[:2], min(1.6, max(0.55, 0.55 * ratio / 2, 0.3 * across if across > 1 else 0)))
    columns = columns_for(len(tiles), 16 if across == 1 else 8)
    apart = GAP if across == 1 else 2 * GAP
    below = -(-len(tiles) // columns) * (down + apart) - apart
    left_out = [f"{count} of {plural(whole, word)}" for count, whole, word in (
        (len(part), outputs, "output channel"), (part.shape[1], channels, "input channel")) if count < whole]
    sheet = Sheet(columns * (wide + apart) - apart, below + (0 if coloured else 0.3),
                  title or f"{plural(outputs, 'filter')} of {height} × {width}" + ("" if channels == 1 else f" × {channels}"),
                  "each from its least value to its largest" if coloured else "a tile is an output channel" if across == 1 else
                  "a grid is an output channel, its maps are the input channels",
                  "shown: " + ", ".join(left_out) if left_out else "")
    colours = {} if coloured else signed(part)
    for number, image in enumerate(tiles):
        row, column = divmod(number, columns)
        axes = sheet.tile(column * (wide + apart), row * (down + apart), wide, down, image, **colours)
        if across > 1:
            axes.set_frame_on(False)
    if not coloured:
        sheet.scale(0, below + 0.22, axes.images[0], (f"−{colours['vmax']:.2g}", f"{colours['vmax']:.2g}"))
    return sheet.figure


def _across(count: int) -> int:
    """Maps in a row of a grid, which is about square: without a rest, where one of the next few numbers has none."""
    least = math.ceil(math.sqrt(count))
    return next((each for each in range(least, 2 * least + 1) if count % each == 0), least)


def _grid(maps: np.ndarray, across: int) -> np.ndarray:
    """Maps (channels, kH, kW) side by side, `across` in a row; lines between them, and what is left over, are NaN."""
    if len(maps) == 1:
        return maps[0]
    fine = np.pad(maps.repeat(_FINE, 1).repeat(_FINE, 2), ((0, 0), (0, _LINE), (0, _LINE)), constant_values=np.nan)
    rows, (_, height, width) = -(-len(maps) // across), fine.shape
    cells = np.full((rows * across, height, width), np.nan)
    cells[:len(maps)] = fine
    joined = cells.reshape(rows, across, height, width).swapaxes(1, 2).reshape(rows * height, across * width)
    return joined[:-_LINE, :-_LINE]


def _weight(layer: Any) -> np.ndarray:
    weight = getattr(layer, "weight", None) if isinstance(layer, nn.Module) else layer
    try:
        found = np.asarray(weight)
    except Exception:  # whatever an object does when NumPy looks at it
        found = np.empty(0)
    if found.dtype.kind not in "fiu":
        raise TypeError(f"layer must be a convolution or its weight, got {shown(layer)}")
    found = found[:, :, None] if found.ndim == 3 else found
    if found.ndim != 4 or 0 in found.shape:
        raise ValueError(f"layer must have a weight (out, in, kH, kW) or (out, in, kW), got shape {shown(found.shape)}")
    return found


def _stretched(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return ((values - low) / (high - low if high > low else 1)).transpose(1, 2, 0)


def activation_maps(model: Any, image: Any, layers: Any = None, channels: int = 8, *, title: str | None = None) -> Any:
    """What the layers make of an image: a row of maps for each, the first channels of its output.

    The maps of a layer are on one scale: white is 0, red above, blue below.

    Args:
        model: it computes in eval mode, and stays as it is.
        image: (C, H, W), (1, C, H, W) or (H, W).
        layers: places such as ["conv1", "features.3"], or modules; None: all that give maps (N, C, H, W), or of many what
            activations and pooling give, twelve at most.
        channels: at most so many of each.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: a layer that the model has not, or whose output is no maps.
        Unavailable: matplotlib is not installed.
    """
    x, channels = batch(model, image), integer("channels", channels, 1)
    chosen, note = _rows(_observed(model, x), model, layers)
    of_place = dict(model.named_modules())
    kinds = [f"{type(of_place[each.place]).__name__}, {' × '.join(map(str, each.output.shape[1:]))}" for each in chosen]
    size, left = 0.72, 0.2 + max(0.062 * max(map(len, kinds)), 0.068 * max(len(each.place) for each in chosen))
    shown_of = [each.output[0, :channels] for each in chosen]
    shape = [size_within(maps.shape[1:], size) for maps in shown_of]
    heights = [size_within(x.shape[2:], size)[1], *(down for _, down in shape)]
    widest = max(len(maps) * (across + GAP) - GAP for maps, (across, _) in zip(shown_of, shape))
    below = sum(heights) + GAP * len(chosen)
    sheet = Sheet(left + widest, below + 0.3, title or "What each layer sees",
                  f"the first {plural(channels, 'channel')} of each layer, from the image down, each on its own scale", note)
    seen, colours = picture(x)
    sheet.text(left - 0.15, heights[0] / 2, "image", align="right", colour=INK)
    sheet.tile(left, 0, *size_within(x.shape[2:], size), seen, **colours)
    top = heights[0] + GAP
    for each, kind, maps, (across, down) in zip(chosen, kinds, shown_of, shape):
        sheet.text(left - 0.15, top + down / 2 - 0.07, each.place or "output", align="right", colour=INK)
        sheet.text(left - 0.15, top + down / 2 + 0.08, kind, align="right", size=6.5)
        for number, values in enumerate(maps):
            axes = sheet.tile(left + number * (across + GAP), top, across, down, values, **signed(maps))
        top += down + GAP
    sheet.scale(left, below + 0.22, axes.images[0], ("below 0", "above 0"))
    return sheet.figure


def _observed(model: Any, x: np.ndarray) -> list[Seen]:
    """Of a copy, which shares the parameters: a model that is not in eval mode would have to change for it."""
    found = twin(model)
    with nn.observed(found) as seen:
        found(x)
    return seen


def _rows(seen: list[Seen], model: Any, layers: Any) -> tuple[list[Seen], str]:
    """The layers that are shown, and a note on those that are not."""
    with_maps = [each for each in seen if each.output.ndim == 4]
    if layers is not None:
        named = {each.place: each for each in seen}
        given = [layers] if isinstance(layers, (str, nn.Module)) else list(layers)
        places = [located(model, layer) for layer in given]
        for place in places:
            if place not in named or named[place].output.ndim != 4:
                raise ValueError(f"layers must be without layers of their own and give maps (N, C, H, W), got {shown(place)}")
        with_maps = [named[place] for place in places]
    if not with_maps:
        raise ValueError("layers must be at least one that gives maps (N, C, H, W), got none")
    if layers is not None or len(with_maps) <= _ROWS:
        return with_maps, ""
    telling = [each for each in with_maps if each.output[0, 0].size > 1 and isinstance(each.module, _TELLING)] or with_maps
    kept = sorted({round(number) for number in np.linspace(0, len(telling) - 1, _ROWS)})
    return [telling[number] for number in kept], f"{len(kept)} of {len(with_maps)} layers; layers= names others"
