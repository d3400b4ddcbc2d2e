"""A filter sliding over an image, value by value, as an animation."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import files, ops
from ..arguments import axes_of
from ..errors import shown
from .canvas import DIVERGING, INK, LINE, ORANGE, SOFT, Sheet, signed

MOST = 400  # values of the output: of each there is a frame
_DPI, _EMPTY = 110, "#e6eaee"


class Step(NamedTuple):
    """One value of the output."""

    row: int
    column: int
    window: np.ndarray
    products: np.ndarray
    value: float


def sliding(image: Any, kernel: Any, stride: Any = 1, padding: Any = 0) -> Iterator[Step]:
    """What a convolution of one image (H, W) with one kernel (kH, kW) computes, value by value, in float64."""
    x, k = _plane("image", image), _plane("kernel", kernel)
    steps, pads = axes_of("stride", stride, 2), axes_of("padding", padding, 2, 0)
    made = ops.conv2d(x[None], k[None, None], stride=steps, padding=pads, accuracy="strict")[0]
    padded = np.pad(x, [(pad, pad) for pad in pads])
    for row, column in np.ndindex(made.shape):
        top, left = row * steps[0], column * steps[1]
        window = padded[top:top + k.shape[0], left:left + k.shape[1]]
        yield Step(row, column, window, window * k, float(made[row, column]))


def _plane(name: str, values: Any) -> np.ndarray:
    found = np.asarray(values)
    if found.ndim != 2 or 0 in found.shape or found.dtype.kind not in "fiub":
        raise ValueError(f"{name} must have shape (H, W), of real numbers, got shape {shown(found.shape)}, {found.dtype.name}")
    return found.astype(np.float64)


def slide(image: Any, kernel: Any, path: files.Name | None = None, stride: Any = 1, padding: Any = 0, *,
          seconds: float = 0.25, title: str | None = None) -> str:
    """A filter sliding over an image, as an animated GIF: the window, its products with the filter, and their sum.

    Args:
        image: (H, W); with numbers in its pixels where it has at most 12 x 12.
        kernel: (kH, kW).
        path: of the GIF; None: `slide.gif`, here.
        stride, padding: as of `conv2d`, integers.
        seconds: that each value stays.

    Returns:
        The path.

    Raises:
        ValueError: arrays of other shapes, or an output of more than 400 values.
        OSError: it cannot be written.
        Unavailable: matplotlib is not installed.
    """
    steps = list(sliding(image, kernel, stride, padding))
    if len(steps) > MOST:
        raise ValueError(f"image must be so small that its output has at most {MOST} values, got {len(steps)}")
    if not seconds > 0:
        raise ValueError(f"seconds must be positive, got {shown(seconds)}")
    target = os.fspath("slide.gif" if path is None else path)
    scene = _Scene(_plane("image", image), _plane("kernel", kernel), steps, axes_of("stride", stride, 2),
                   axes_of("padding", padding, 2, 0), title)
    content = io.BytesIO()
    first, *others = [scene.frame(step) for step in steps]
    long = round(1000 * seconds)
    first.save(content, "GIF", save_all=True, append_images=others, duration=[long] * len(others) + [max(2000, long)], loop=0)
    files.write(target, content.getvalue())
    return os.fsdecode(target)


class _Scene:
    """The picture whose frames are shown."""

    def __init__(self, x: np.ndarray, k: np.ndarray, steps: list[Step], stride: tuple[int, ...], padding: tuple[int, ...],
                 title: str | None) -> None:
        self.steps, self.stride, self.shape = steps, stride, k.shape
        padded = np.pad(x, [(pad, pad) for pad in padding])
        self.made = np.full((steps[-1].row + 1, steps[-1].column + 1), np.nan)
        cell = min(0.36, 3.4 / max(padded.shape))
        of_filter = max(cell, min(0.3, 1.1 / max(k.shape)))
        (down, across), (high, wide), (out_down, out_across) = (
            (size * each.shape[0], size * each.shape[1])
            for size, each in ((cell, padded), (of_filter, k), (cell, self.made)))
        middle, right = across + 0.45, across + 0.45 + max(wide, 1.1) + 0.45
        more = [f"stride {' × '.join(map(str, stride))}"] if set(stride) != {1} else []
        more += [f"padding {' × '.join(map(str, padding))}"] if any(padding) else []
        self.sheet = Sheet(max(right + out_across, 5.6), max(down, 2 * high + 0.75, out_down) + 0.45,
                           title or f"A {k.shape[0]} × {k.shape[1]} filter slides over an image", ", ".join(more))
        every = np.array([value for step in steps for value in (*step.products.ravel(), step.value)])
        self.numbered = max(padded.shape) <= 12 and cell > 0.25
        self._labelled("image", 0, 0, down)
        axes = self._grid(0, 0, across, down, padded, _image_colours(x))
        self._outside(axes, x.shape, padding)
        self.window = self._outline(axes, k.shape)
        self._labelled("filter", middle, 0, high)
        self._grid(middle, 0, wide, high, k, signed(k))
        self.products, self.digits = self._changing("window × filter", middle, high + 0.6, wide, high, k.shape, every)
        self.output, self.written = self._changing("output", right, 0, out_across, out_down, self.made.shape, every)
        self.latest = self._outline(self.output.axes, (1, 1))
        self.still: Any = None
        self.palette = _palette()
        self.sum = self.sheet.text(0, max(down, 2 * high + 0.75, out_down) + 0.38, " ", size=8, colour=INK)
        self.moving = [self.products, *self.digits.values(), self.output, *self.written.values(), self.window, self.latest,
                       self.sum]

    def _labelled(self, text: str, x: float, y: float, height: float) -> None:
        self.sheet.text(x, y + height + 0.13, text)

    def _grid(self, x: float, y: float, width: float, height: float, values: np.ndarray, colours: dict[str, Any]) -> Any:
        axes = self.sheet.tile(x, y, width, height, values, **colours)
        if self.numbered:
            for place, value in np.ndenumerate(values):
                axes.text(place[1], place[0], _digits(value), ha="center", va="center_baseline", fontsize=6.5,
                          color=_on(axes.images[0], value))
        return axes

    def _changing(self, label: str, x: float, y: float, width: float, height: float, shape: tuple[int, ...],
                  every: np.ndarray) -> tuple[Any, dict[tuple[int, ...], Any]]:
        """A grid that is empty at first: its image, and its numbers by their places."""
        self._labelled(label, x, y, height)
        axes = self.sheet.tile(x, y, width, height, np.full(shape, np.nan), **signed(every))
        axes.set_facecolor(_EMPTY)
        written: dict[tuple[int, ...], Any] = {}
        if self.numbered:
            for row, column in np.ndindex(*shape):
                written[row, column] = axes.text(column, row, "", ha="center", va="center_baseline", fontsize=6.5)
        return axes.images[0], written

    def _outside(self, axes: Any, size: tuple[int, ...], padding: tuple[int, ...]) -> None:
        from matplotlib.patches import Rectangle

        if any(padding):
            axes.add_patch(Rectangle((padding[1] - 0.5, padding[0] - 0.5), size[1], size[0], fill=False, edgecolor=SOFT,
                                     linewidth=0.8, linestyle=(0, (3, 2))))

    def _outline(self, axes: Any, shape: tuple[int, ...]) -> Any:
        from matplotlib.patches import Rectangle

        made = Rectangle((-0.5, -0.5), shape[1], shape[0], fill=False, edgecolor=ORANGE, linewidth=2, clip_on=False, zorder=5)
        return axes.add_patch(made)

    def frame(self, step: Step) -> Any:
        """The picture of one value: what changes is drawn over the rest, which is drawn once (all of it takes 10x as long)."""
        from PIL import Image

        canvas = self.sheet.figure.canvas
        if self.still is None:
            for artist in self.moving:
                artist.set_animated(True)
            self.sheet.figure.set_dpi(_DPI)
            canvas.draw()
            self.still = canvas.copy_from_bbox(self.sheet.figure.bbox)
        self.window.set_xy((step.column * self.stride[1] - 0.5, step.row * self.stride[0] - 0.5))
        self.latest.set_xy((step.column - 0.5, step.row - 0.5))
        self.made[step.row, step.column] = step.value
        _fill(self.products, self.digits, step.products)
        _fill(self.output, self.written, self.made)
        self.sum.set_text(f"Σ window × filter = {_digits(step.value)}   at row {step.row}, column {step.column}")
        canvas.restore_region(self.still)
        for artist in self.moving:
            artist.draw(canvas.get_renderer())
        drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        return drawn.quantize(palette=self.palette, dither=Image.Dither.NONE)


def _palette() -> Any:
    """One for all frames: greys, the colours of values, and orange on white and on black.

    Pillow finds the nearest one to within 4 of 256: what must be right, white, has none as near as that.
    """
    import matplotlib
    from PIL import Image

    grey = np.linspace(0, 1, 33)[:, None].repeat(3, 1)
    orange = np.array([int(ORANGE[place:place + 2], 16) for place in (1, 3, 5)]) / 255
    share = np.linspace(0, 1, 16)[:, None]
    values = matplotlib.colormaps[DIVERGING](np.linspace(0, 1, 65))[:, :3]
    made = Image.new("P", (1, 1))
    colours = np.concatenate([grey, values, orange * share, 1 + (orange - 1) * share])
    made.putpalette(np.round(255 * colours).astype(np.uint8).tobytes())
    return made


def _image_colours(x: np.ndarray) -> dict[str, Any]:
    return signed(x) if x.min() < 0 else {"cmap": "gray", "vmin": 0, "vmax": x.max() or 1}


def _fill(image: Any, written: dict[tuple[int, ...], Any], values: np.ndarray) -> None:
    image.set_data(values)
    for place, text in written.items():
        value = values[place]
        text.set(text="" if np.isnan(value) else _digits(value), color=LINE if np.isnan(value) else _on(image, value))


def _digits(value: float) -> str:
    value += 0.0  # -0 is 0
    return f"{value:.3g}".replace("-", "−") if abs(value) < 100 else f"{value:.0f}".replace("-", "−")


def _on(image: Any, value: float) -> str:
    """Ink that is read on the colour of a value."""
    red, green, blue, _ = image.cmap(image.norm(value))
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
