"""A matplotlib figure as a piece of a page: SVG that takes the page's colours, with hints, and nothing a page cannot hold."""

from __future__ import annotations

import io
import re
from pathlib import Path
from xml.etree import ElementTree

from ... import files
from .figures import GRID, INK, PAGE, Drawing

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_POSITIONS = {"d", "x", "y", "transform"}
_DRAWN = (f"{_SVG}path", f"{_SVG}use")


def inline(drawing: Drawing) -> str:
    """The drawing as an <svg> element: ink is currentColor, points have <title> and data-contender, ids are its own."""
    from matplotlib import rc_context

    target = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": drawing.key, "font.family": "sans-serif"}):
        drawing.draw(PAGE).savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(target.getvalue())
    for metadata in root.findall(f"{_SVG}metadata"):
        root.remove(metadata)
    _hints(root, drawing)
    _own_ids(root, drawing.key)
    _round(root)
    _responsive(root, drawing)
    return _plain(ElementTree.tostring(root, encoding="unicode"))


def _hints(root: ElementTree.Element, drawing: Drawing) -> None:
    groups = {group.get("id", ""): group for group in root.iter(f"{_SVG}g")}
    for gid, points in drawing.points.items():
        if f"{gid}-stroke" in groups:
            groups[f"{gid}-stroke"].set("data-contender", points.contender)
        group = groups.get(gid)
        marks = [] if group is None else [e for e in _outside_defs(group) if e.tag in _DRAWN]
        if len(marks) != len(points.hints):
            raise RuntimeError(f"{drawing.key}: {len(marks)} marks in {gid} for {len(points.hints)} points")
        for mark, hint in zip(marks, points.hints):
            mark.set("data-contender", points.contender)
            ElementTree.SubElement(mark, f"{_SVG}title").text = hint


def _outside_defs(element: ElementTree.Element) -> list[ElementTree.Element]:
    """All descendants but what <defs> holds, which is not drawn where it stands."""
    found = []
    for child in element:
        if child.tag != f"{_SVG}defs":
            found += [child, *_outside_defs(child)]
    return found


def _own_ids(root: ElementTree.Element, key: str) -> None:
    """Several figures share a page: ids that something refers to get a prefix, the others go."""
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    for element in root.iter():
        name = element.attrib.pop("id", None)
        if name in used:
            element.set("id", f"{key}-{name}")
        target = element.attrib.pop(f"{_XLINK}href", None)
        if target is not None:
            element.set("href", f"#{key}-{target[1:]}")
        for attribute, value in element.attrib.items():
            if "url(#" in value:
                element.set(attribute, value.replace("url(#", f"url(#{key}-"))


def _round(root: ElementTree.Element) -> None:
    """A hundredth of a point is enough for a position; texts stay as they are."""
    for element in root.iter():
        for attribute in _POSITIONS & element.attrib.keys():
            element.set(attribute, re.sub(r"(\d+\.\d\d)\d+", r"\1", element.attrib[attribute]))


def _responsive(root: ElementTree.Element, drawing: Drawing) -> None:
    """The size is the page's to limit; the name is for those who do not see it."""
    root.set("role", "img")
    root.set("aria-label", f"{drawing.title}. {drawing.caption}")
    root.attrib.pop("height", None)
    root.set("width", f"{float(root.attrib['viewBox'].split()[2]) * 4 / 3:.0f}")  # points in CSS pixels


def _plain(svg: str) -> str:
    """HTML's SVG: no namespace prefixes; the sentinels become the page's colours."""
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r"(</?)ns\d+:", r"\1", svg)
    svg = svg.replace(INK, "currentColor").replace(GRID, "var(--line)")
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", svg)
    return re.sub(r">\s+<", "><", svg)


def save_png(drawing: Drawing, path: Path) -> None:
    """The same figure on white."""
    from .figures import FILE

    drawn = io.BytesIO()
    drawing.draw(FILE).savefig(drawn, dpi=130, format="png")
    files.write(path, drawn.getvalue())
