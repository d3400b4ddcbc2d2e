"""How every picture looks: inches for places, one margin, quiet text, tiles without axes.

No state of pyplot's, and nothing of a user's style: figures are made for themselves, all colours and sizes are stated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import Unavailable, shown

INK, SOFT, LINE, GROUND = "#1c2126", "#646e79", "#d8dee4", "#ffffff"
BLUE, ORANGE = "#0969a8", "#d9650b"  # everybody tells them apart
DIVERGING, HEAT = "RdBu_r", "inferno"
MARGIN, GAP, HEAD = 0.3, 0.08, 0.62  # inches: around all; between tiles; of the title and what stands below it
SMALL, TITLE = 7.5, 11.0  # points
_CHARACTER = 0.068  # inches, of small text, on average


def _figure_class() -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise Unavailable("matplotlib is not installed: pip install matplotlib") from None
    return Figure, FigureCanvasAgg


class Sheet:
    """A figure, whose content's places are inches from its upper left corner, below the title."""

    def __init__(self, width: float, height: float, title: str, subtitle: str = "", note: str = "") -> None:
        figure, canvas = _figure_class()
        words = [(title, 0.092), (subtitle, _CHARACTER), (note, _CHARACTER)]
        width = max(width, *(len(text) * each for text, each in words))
        self.head, foot = (HEAD if subtitle else HEAD - 0.2), 0.28 if note else 0.0
        self.width, self.height = width + 2 * MARGIN, height + self.head + foot + 2 * MARGIN
        self.figure = figure(figsize=(self.width, self.height), dpi=150, facecolor=GROUND)
        canvas(self.figure)
        self.text(0, 0.1 - self.head, title, size=TITLE, colour=INK)
        self.text(0, 0.34 - self.head, subtitle)
        self.text(0, height + 0.2, note)

    def _fractions(self, x: float, y: float) -> tuple[float, float]:
        return (MARGIN + x) / self.width, 1 - (MARGIN + self.head + y) / self.height

    def text(self, x: float, y: float, text: str, *, size: float = SMALL, colour: str = SOFT, align: str = "left",
             weight: str = "normal") -> Any:
        """Its middle line at y."""
        across, up = self._fractions(x, y)
        return self.figure.text(across, up, text, fontsize=size, color=colour, ha=align, va="center_baseline", weight=weight,
                                parse_math=False, family="DejaVu Sans")

    def _wide(self, text: Any) -> float:
        """Inches."""
        return text.get_window_extent(self.figure.canvas.get_renderer()).width / self.figure.dpi

    def axes(self, x: float, y: float, width: float, height: float) -> Any:
        left, top = self._fractions(x, y)
        made = self.figure.add_axes((left, top - height / self.height, width / self.width, height / self.height))
        made.set_facecolor(GROUND)
        return made

    def tile(self, x: float, y: float, width: float, height: float, picture: Any, **colours: Any) -> Any:
        """An image in a hairline, without ticks."""
        made = self.axes(x, y, width, height)
        colours = {"interpolation": "nearest", "aspect": "auto", **colours}
        made.imshow(picture, **colours)
        made.set(xticks=[], yticks=[])
        for spine in made.spines.values():
            spine.set(color=LINE, linewidth=0.5)
        return made

    def scale(self, x: float, y: float, image: Any, ends: tuple[str, str], width: float = 1.1) -> None:
        """A narrow bar of an image's colours, with words for its ends, to the right of x."""
        begin = x + 0.08 + self._wide(self.text(x, y, ends[0]))
        bar = self.axes(begin, y - 0.04, width, 0.08)
        bar.imshow(np.linspace(0, 1, 256)[None], cmap=image.get_cmap(), aspect="auto")
        bar.set_axis_off()
        self.text(begin + width + 0.08, y, ends[1])


def signed(values: np.ndarray) -> dict[str, Any]:
    """Colours of values: white is 0, red above, blue below."""
    most = _most(values)
    return {"cmap": DIVERGING, "vmin": -most, "vmax": most}


def _most(values: np.ndarray) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size and finite.max() > 0 else 1.0


def picture(image: Any, name: str = "image") -> tuple[np.ndarray, dict[str, Any]]:
    """What imshow takes of an image (C, H, W), (1, C, H, W) or (H, W): RGB within 0 and 1, or grey; and its colours.

    The least and the largest value are black and white, unless they are within 0 and 1 and fill half of that. Of channels that
    are neither one nor three the mean is shown.
    """
    x = np.asarray(image)
    x = x[0] if x.ndim == 4 and len(x) == 1 else x
    x = x[None] if x.ndim == 2 else x
    if x.ndim != 3 or 0 in x.shape:
        raise ValueError(f"{name} must be one image (C, H, W), (1, C, H, W) or (H, W), got shape {shown(np.shape(image))}")
    x = np.nan_to_num(x.astype(np.float64))
    low, high = (0.0, 1.0) if x.min() >= 0 and 0.5 <= x.max() <= 1 else (x.min(), x.max())
    x = (x - low) / (high - low if high > low else 1.0)
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1}
    return (x.transpose(1, 2, 0), {}) if len(x) == 3 else (x.mean(0), grey)


def size_within(pixels: Sequence[int], most: float) -> tuple[float, float]:
    """(width, height) in inches of a tile of (height, width) pixels, within a square."""
    height, width = pixels
    return most * min(1.0, width / height), most * min(1.0, height / width)


def columns_for(count: int, most: int) -> int:
    """Of a grid of so many tiles: as square as it may be, no wider than `most`."""
    return max(1, min(most, math.ceil(math.sqrt(1.8 * count))))


def plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
