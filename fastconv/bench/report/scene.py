"""A picture as a list of shapes, in CSS pixels from the top left: written as SVG by itself, drawn by matplotlib in `raster.py`.

Colours are names of `palette.LIGHT` and `palette.DARK`, or written out. On a page a name is a CSS variable, so that one picture
serves light and dark; in a file it is the light one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby

from ..palette import LIGHT

Point = tuple[float, float]


@dataclass(frozen=True)
class Who:
    """Whom a shape is about, if the page's filter may hide it, and what pointing at it says."""

    contender: str = ""
    hint: str = ""


NOBODY = Who()


@dataclass(frozen=True)
class Path:
    points: Sequence[Point]
    fill: str = "none"
    stroke: str = "none"
    width: float = 1.0
    dash: tuple[float, float] | None = None
    closed: bool = False
    opacity: float = 1.0
    who: Who = NOBODY


@dataclass(frozen=True)
class Circle:
    x: float
    y: float
    radius: float
    fill: str = "none"
    stroke: str = "none"
    width: float = 1.0
    opacity: float = 1.0
    who: Who = NOBODY


@dataclass(frozen=True)
class Text:
    """`y` is the base line; `halo` keeps it readable on what it crosses."""

    x: float
    y: float
    text: str
    size: float = 12.0
    fill: str = "ink"
    anchor: str = "start"  # "middle" | "end"
    bold: bool = False
    halo: bool = False
    who: Who = NOBODY


@dataclass
class Scene:
    """`title` and `description` are for those who do not see it."""

    width: float
    height: float
    title: str
    description: str
    shapes: list[Path | Circle | Text] = field(default_factory=list)

    def add(self, *shapes: Path | Circle | Text) -> None:
        self.shapes += shapes

    def line(self, start: Point, end: Point, stroke: str = "line", width: float = 1.0, **more: object) -> None:
        self.add(Path((start, end), stroke=stroke, width=width, **more))  # type: ignore[arg-type]

    def box(self, x: float, y: float, width: float, height: float, fill: str, **more: object) -> None:
        corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
        self.add(Path(corners, fill=fill, closed=True, **more))  # type: ignore[arg-type]


def svg(scene: Scene, key: str, page: bool = False, hints: bool = True) -> str:
    """The scene as an <svg> element, `key` before its ids: in a page, or as a file of its own."""
    names = f"{key}-title", f"{key}-text"
    size = f'viewBox="0 0 {_n(scene.width)} {_n(scene.height)}" width="{_n(scene.width)}"'
    space = "" if page else f' xmlns="http://www.w3.org/2000/svg" height="{_n(scene.height)}"'
    ground = "" if page else f'<rect width="100%" height="100%" fill="{LIGHT["ground"]}"/>'
    body = _body(scene.shapes, page, hints)
    return clean(f'<svg {size}{space} role="img" aria-labelledby="{escape(" ".join(names))}" font-family="{_FONTS}">'
                 f'<title id="{escape(names[0])}">{escape(scene.title)}</title><desc id="{escape(names[1])}">'
                 f"{escape(scene.description)}</desc>{ground}\n{body}\n</svg>")


_FONTS = "system-ui, Helvetica, Arial, sans-serif"
_HARMFUL = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def _body(shapes: Sequence[Path | Circle | Text], page: bool, hints: bool) -> str:
    """The elements; those in a row that look the same share a group, as a page has thousands of them."""
    lines = []
    for look, run in groupby(shapes, lambda shape: _look(shape, page)):
        elements = [_element(shape, hints) for shape in run]
        if len(elements) == 1:
            (tag, rest), = elements
            lines.append(f"<{tag}{look}{rest}")
        else:
            lines += [f"<g{look}>", *(f"<{tag}{rest}" for tag, rest in elements), "</g>"]
    return "\n".join(lines)


def _look(shape: Path | Circle | Text, page: bool) -> str:
    """The attributes that say how, not where."""
    fill = f' fill="{_paint(shape.fill, page)}"'
    if isinstance(shape, Text):
        halo = f' stroke="{_paint("ground", page)}" stroke-width="3" paint-order="stroke"' if shape.halo else ""
        anchor = "" if shape.anchor == "start" else f' text-anchor="{shape.anchor}"'
        weight = ' font-weight="650"' if shape.bold else ""
        return f' font-size="{_n(shape.size)}"{fill}{anchor}{weight}{halo}'
    stroke = "" if shape.stroke == "none" else f' stroke="{_paint(shape.stroke, page)}" stroke-width="{_n(shape.width)}"'
    opacity = "" if shape.opacity == 1 else f' fill-opacity="{shape.opacity:.2f}" stroke-opacity="{shape.opacity:.2f}"'
    dash = ""
    if isinstance(shape, Path) and shape.dash is not None:
        dash = f' stroke-dasharray="{_n(shape.dash[0])} {_n(shape.dash[1])}"'
    return fill + stroke + opacity + dash


def _element(shape: Path | Circle | Text, hints: bool) -> tuple[str, str]:
    """Its tag, and what comes after its look."""
    about = f' data-contender="{escape(shape.who.contender)}"' if shape.who.contender else ""
    hint = f"<title>{escape(shape.who.hint)}</title>" if shape.who.hint and hints else ""
    if isinstance(shape, Text):
        return "text", f' x="{_n(shape.x)}" y="{_n(shape.y)}"{about}>{escape(shape.text)}{hint}</text>'
    if isinstance(shape, Circle):
        tag, rest = "circle", f' cx="{_n(shape.x)}" cy="{_n(shape.y)}" r="{_n(shape.radius)}"{about}'
    else:
        route = "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in shape.points) + ("Z" if shape.closed else "")
        tag, rest = "path", f' d="{route}"{about}'
    return tag, f"{rest}>{hint}</{tag}>" if hint else f"{rest}/>"


def _paint(colour: str, page: bool) -> str:
    return colour if colour not in LIGHT else f"var(--{colour})" if page else LIGHT[colour]


def _n(value: float) -> str:
    """A tenth of a pixel is enough."""
    return f"{value:.1f}".removesuffix(".0")


def clean(text: str) -> str:
    """Without what XML cannot hold (control characters, lone surrogates, two noncharacters) or what turns the line around."""
    return _HARMFUL.sub("\ufffd", text)


def text_width(text: str, size: float, bold: bool = False) -> float:
    """About the widest that usual fonts set it."""
    return size * sum(map(_advance, text)) * (1.08 if bold else 1.0)


def _advance(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return 1.0
    if unicodedata.combining(character):
        return 0.0
    if character in "ijlItfr.,:;'|!()[]/- ":
        return 0.39
    return 0.95 if character in "mwMW@%—…" else 0.69 if character.isupper() else 0.63


def fit(text: str, size: float, width: float, bold: bool = False) -> str:
    """The text, its middle left out where it is too wide: names of layers differ at their ends."""
    if text_width(text, size, bold) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        shorter = text[:(kept + 1) // 2] + "…" + text[len(text) - kept // 2:]
        if text_width(shorter, size, bold) <= width:
            return shorter
    return "…"


def wrap(text: str, size: float, width: float, bold: bool = False) -> list[str]:
    """Lines that fit."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, bold) <= width:
            lines[-1] = longer
        else:
            lines.append(fit(word, size, width, bold))
    return lines


def balanced(text: str, size: float, width: float, bold: bool = False) -> list[str]:
    """Lines of about the same length, no more of them than `wrap` makes."""
    lines = wrap(text, size, width, bold)
    while len(lines) > 1 and len(tighter := wrap(text, size, width := width * 0.97, bold)) == len(lines):
        lines = tighter
    return lines


def spread(places: Iterable[float], gap: float, low: float, high: float) -> Iterator[float]:
    """Places for labels, each near the one it belongs to and `gap` from its neighbours, in the order of `places`."""
    wanted = list(places)
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    found: dict[int, float] = {}
    below = low - gap
    for index in order:
        below = found[index] = max(wanted[index], below + gap)
    above = high + gap
    for index in reversed(order):
        above = found[index] = min(found[index], above - gap)
    return (found[index] for index in range(len(wanted)))
