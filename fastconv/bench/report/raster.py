"""A scene as a file: SVG as it is, PNG and PDF drawn by matplotlib."""

from __future__ import annotations

import io
import warnings
from typing import Any

from ..palette import LIGHT
from .scene import Circle, Path, Scene, Text, clean, svg

_POINTS = 0.72  # a pixel of a hundredth of an inch, in points
_DPI = 200
_ALIGN = {"start": "left", "middle": "center", "end": "right"}


def content(scene: Scene, suffix: str) -> bytes:
    """What a file of this suffix holds.

    Raises:
        ImportError: it needs matplotlib, which is not installed.
    """
    if suffix == ".svg":
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{svg(scene, "chart")}\n'.encode()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(scene.width / 100, scene.height / 100), facecolor=LIGHT["ground"])
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, scene.width), ylim=(scene.height, 0))
    axes.set_axis_off()
    for order, shape in enumerate(scene.shapes):
        _draw(axes, shape, order)
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that no font here has
        figure.savefig(target, format=suffix[1:], dpi=_DPI)
    return target.getvalue()


def _draw(axes: Any, shape: Path | Circle | Text, order: int) -> None:
    from matplotlib import patches
    from matplotlib.patheffects import withStroke

    if isinstance(shape, Text):
        # a weight between normal and bold would make matplotlib look for fonts that are not there
        axes.text(shape.x, shape.y, clean(shape.text).replace("\n", " "), fontsize=shape.size * _POINTS,
                  color=_paint(shape.fill), va="baseline", ha=_ALIGN[shape.anchor],
                  weight="bold" if shape.bold else "normal", zorder=order, parse_math=False,
                  path_effects=[withStroke(linewidth=2, foreground=LIGHT["ground"])] if shape.halo else None)
        return
    style: dict[str, Any] = {"facecolor": _paint(shape.fill), "edgecolor": _paint(shape.stroke), "zorder": order,
                             "linewidth": shape.width * _POINTS, "alpha": shape.opacity}
    if isinstance(shape, Circle):
        axes.add_patch(patches.Circle((shape.x, shape.y), shape.radius, **style))
        return
    dash = "solid" if shape.dash is None else (0, tuple(length / shape.width for length in shape.dash))
    axes.add_patch(patches.Polygon(shape.points, closed=shape.closed, fill=shape.fill != "none", linestyle=dash, **style))


def _paint(colour: str) -> str:
    return LIGHT.get(colour, colour)
