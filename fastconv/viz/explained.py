"""Pictures that say why: what a unit reads of an image, what a class depends on, what a channel answers to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .canvas import GAP, HEAT, ORANGE, Sheet, columns_for, picture, signed, size_within
from .maps import deconvolved, grad_cam_map, maximised, receptive_box, saliency_map
from .passes import Layer, batch, located, up_to

_SIZE = 2.2  # inches, of an image


def receptive_field(model: Any, image: Any, layer: Layer, position: Any, *, title: str | None = None) -> Any:
    """The receptive field of a unit, drawn on the image: exactly the pixels that it can depend on.

    Beside it the layer's maps (the mean over the channels) with the unit, and what lies in the field.

    Args:
        model: it stays as it is.
        image: (C, H, W), (1, C, H, W) or (H, W).
        layer, position: (row, column) of the unit in the layer's maps.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: no such layer, or no such position.
        Unavailable: matplotlib is not installed.
    """
    x, place = batch(model, image), located(model, layer)
    box = receptive_box(model, x.shape[1:], place, position)
    maps = up_to(model, place)(x)[0]
    height, width = box.bottom - box.top, box.right - box.left
    across, down = size_within(x.shape[2:], _SIZE)
    side = across + 0.35
    sheet = Sheet(side + (across + 0.35 if maps.ndim == 3 else 0) + across, down + (0.45 if maps.ndim == 3 else 0.28),
                  title or f"The receptive field of a unit of {place}",
                  f"{height} × {width} pixels of {x.shape[2]} × {x.shape[3]}: rows {box.top} to {box.bottom - 1}, columns "
                  f"{box.left} to {box.right - 1}")
    from matplotlib.patches import Rectangle

    seen, colours = picture(x)
    axes = sheet.tile(0, 0, across, down, seen, **colours)
    shade = np.full((*x.shape[2:], 4), (1.0, 1.0, 1.0, 0.6))
    shade[box.top:box.bottom, box.left:box.right, 3] = 0
    axes.imshow(shade, interpolation="nearest", aspect="auto")
    axes.add_patch(Rectangle((box.left - 0.5, box.top - 0.5), width, height, fill=False, edgecolor=ORANGE, linewidth=1.8,
                             clip_on=False, label="receptive field"))
    sheet.text(0, down + 0.16, "image")
    if maps.ndim == 3:
        row, column = (entry % size for entry, size in zip(position, maps.shape[1:]))
        mean = maps.mean(0)
        unit = sheet.tile(side, 0, across, down, mean, **signed(mean))
        unit.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=ORANGE, linewidth=1.8, clip_on=False))
        sheet.text(side, down + 0.16, f"{place}: unit ({row}, {column}) of {maps.shape[1]} × {maps.shape[2]}")
        sheet.text(side, down + 0.33, "mean over channels: red above 0, blue below")
        side += across + 0.35
    part, (wide, high) = seen[box.top:box.bottom, box.left:box.right], size_within((height, width), min(across, down))
    sheet.tile(side, 0, wide, high, part, **colours)
    sheet.text(side, high + 0.16, "what the unit sees")
    return sheet.figure


def _named(number: int, names: Sequence[str] | None) -> str:
    return f"class {number}" if names is None or number >= len(names) else str(names[number])


def saliency(model: Any, image: Any, target: Any = None, *, names: Sequence[str] | None = None,
             title: str | None = None) -> Any:
    """The pixels that a class's score depends on most: see `saliency_map` (arXiv:1312.6034).

    Args:
        model: gives scores (N, classes); it stays as it is.
        image: (C, H, W), (1, C, H, W) or (H, W).
        target: the class; None: that of the highest score.
        names: of the classes.

    Returns:
        A matplotlib Figure: the image, and the map beside it.

    Raises:
        ValueError: a class that there is not; a model that gives no scores.
        Unavailable: matplotlib is not installed.
    """
    found, chosen = saliency_map(model, image, target)
    return _beside(image, found, title or f"What “{_named(chosen, names)}” depends on",
                   "saliency: how much the score changes with each pixel", ("none", "most"), glows=False)


def grad_cam(model: Any, image: Any, layer: Layer, target: Any = None, *, names: Sequence[str] | None = None,
             title: str | None = None) -> Any:
    """Where a layer finds what speaks for a class: see `grad_cam_map` (arXiv:1610.02391).

    Args:
        layer: usually the last one with maps; the rest as of `saliency`.

    Returns:
        A matplotlib Figure: the image, and the map over it.

    Raises:
        ValueError: no such layer or class; a layer without maps.
        Unavailable: matplotlib is not installed.
    """
    place = located(model, layer)
    found, chosen = grad_cam_map(model, image, place, target)
    what = "Grad-CAM: its maps, weighed by what they add to the score" if found.any() else "Grad-CAM: nothing speaks for it"
    return _beside(image, found, title or f"Where {place} finds “{_named(chosen, names)}”", what, ("nothing", "most"),
                   glows=True)


def _beside(image: Any, heat: np.ndarray, title: str, subtitle: str, ends: tuple[str, str], glows: bool) -> Any:
    """The image, and a map from 0 up, over the whole of it.

    Args:
        glows: the image is seen through the map, where that is small.
    """
    seen, colours = picture(image)
    across, down = size_within(seen.shape[:2], _SIZE)
    sheet = Sheet(2 * across + 0.2, down + 0.35, title, subtitle)
    sheet.tile(0, 0, across, down, seen, **colours)
    axes = sheet.tile(across + 0.2, 0, across, down, seen, **colours)
    extent = axes.images[0].get_extent()
    drawn = axes.imshow(heat, cmap=_glow() if glows else HEAT, vmin=0, vmax=heat.max() if heat.max() > 0 else 1.0,
                        extent=extent, interpolation="bicubic" if glows else "nearest", aspect="auto")
    sheet.scale(across + 0.2, down + 0.2, drawn, ends)
    return sheet.figure


def _glow() -> Any:
    """The colours of heat, the less of them the less there is."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    share = np.linspace(0, 1, 256)
    colours = matplotlib.colormaps[HEAT](0.3 + 0.55 * share)
    colours[:, 3] = 0.9 * share**0.6
    return ListedColormap(colours)


def deconvolution(model: Any, image: Any, layer: Layer, channel: Any, position: Any = "strongest", *,
                  title: str | None = None) -> Any:
    """What in an image a channel responds to: its response, back to the pixels (arXiv:1311.2901); see `deconvolved`.

    Args:
        model: it stays as it is.
        image: (C, H, W), (1, C, H, W) or (H, W).
        layer, channel: whose response.
        position: (row, column) of one unit, "strongest", or "all" of the channel's map.

    Returns:
        A matplotlib Figure: the image, and the signal of each pixel beside it.

    Raises:
        ValueError: no such layer, channel or position.
        Unavailable: matplotlib is not installed.
    """
    place = located(model, layer)
    found = deconvolved(model, image, place, channel, position)
    seen, colours = picture(image)
    across, down = size_within(seen.shape[:2], _SIZE)
    what = {"strongest": "its strongest response", "all": "all of its map"}.get(position if isinstance(position, str) else "",
                                                                                f"its response at {position}")
    sheet = Sheet(2 * across + 0.2, down + 0.35, title or f"What channel {channel} of {place} responds to",
                  f"deconvolution: {what}, back to the pixels")
    sheet.tile(0, 0, across, down, seen, **colours)
    if len(found) == 3:
        most = np.abs(found).max() or 1.0
        sheet.tile(across + 0.2, 0, across, down, (0.5 + 0.5 * found / most).transpose(1, 2, 0))
        sheet.text(across + 0.2, down + 0.2, "grey: nothing")
        return sheet.figure
    flat = found.mean(0)
    axes = sheet.tile(across + 0.2, 0, across, down, flat, **signed(flat))
    sheet.scale(across + 0.2, down + 0.2, axes.images[0], ("dark", "bright"))
    return sheet.figure


def responds_to(model: Any, layer: Layer, channel: Any, image_shape: Any, *, steps: int = 128, rate: float = 0.1,
                decay: float = 0.01, blur: int = 4, seed: int = 0, title: str | None = None) -> Any:
    """Images that a layer's channels respond to most, found by gradient ascent from noise: see `maximised`.

    Args:
        model: it stays as it is.
        layer: of maps, or of a vector (such as the scores of the classes).
        channel: one, or several.
        image_shape: (C, H, W), as the model takes it.
        steps, rate, decay, blur: of the ascent.
        seed: of the noise: the same one gives the same pictures.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: no such layer or channel.
        Unavailable: matplotlib is not installed.
    """
    place = located(model, layer)
    channels = list(channel) if np.ndim(channel) else [channel]
    found = maximised(model, place, channels, image_shape, steps, rate, decay, blur, seed)
    columns = columns_for(len(channels), 8)
    rows, size = -(-len(channels) // columns), 0.95 if len(channels) > 1 else _SIZE
    across, down = size_within(found.shape[2:], size)
    step = down + 0.28
    sheet = Sheet(columns * (across + GAP) - GAP, rows * step - 0.06,
                  title or f"What {place} responds to", f"what makes {'a channel' if len(channels) == 1 else 'each channel'} "
                                                        f"respond most, from noise in {steps} steps")
    for number, (each, values) in enumerate(zip(channels, found)):
        row, column = divmod(number, columns)
        seen, colours = picture(values)
        sheet.tile(column * (across + GAP), row * step, across, down, seen, **colours)
        sheet.text(column * (across + GAP), row * step + down + 0.1, f"channel {each}", size=6.5)
    return sheet.figure
