"""The report as one HTML file that needs nothing else, the answer first; and its figures as PNG files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from ... import __version__, files
from ..palette import DARK, LIGHT, looks
from . import raster, scene
from .answer import Answer
from .contents import Section
from .figures import CARD, WIDTHS, Drawing
from .tables import Cell, Column, Row, Table

_HERE = Path(__file__).parent
# nothing is fetched, whatever a record's texts contain
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'"


def write(path: Path, said: Answer, first: Drawing | None, sections: Sequence[Section], contenders: Iterable[str]) -> list[str]:
    """Write the page and its figures (none beside a device or a pipe); lines that say where they are.

    Raises:
        OSError: a file cannot be written.
    """
    files.write(path, render(said, first, sections, list(dict.fromkeys(contenders))))
    lines = [f"report: {path}"]
    if files.streams(path):
        return lines
    for drawing in [*_some(first), *(drawing for section in sections for drawing in section.drawings)]:
        target = path.with_name(f"{path.stem}-{drawing.key}.png")
        try:
            picture = raster.content(drawing.draw(CARD, True), ".png")
        except ImportError:
            return [*lines, "no pictures beside it: matplotlib is not installed (pip install 'fastconv[bench]')"]
        files.write(target, picture)
        lines.append(f"figure: {target}")
    return lines


def render(said: Answer, first: Drawing | None, sections: Sequence[Section], contenders: Sequence[str]) -> str:
    """The page's text."""
    body = "\n".join(_section(section) for section in sections)
    about = escape(" ".join((*said.lines, f"{said.basis}.")))
    title = escape(said.headline)
    return scene.clean(f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">
<title>{title}</title>
<meta name="description" content="{about}">
<meta property="og:type" content="article">
<meta property="og:title" content="{title}">
<meta property="og:description" content="{about}">
<style>
{_colours()}{(_HERE / "page.css").read_text("utf-8")}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the figures</a>
<header>
<p class="kicker">fastconv benchmark</p>
<h1>{title}</h1>
{_lede(said)}
{"".join(_picture(drawing) for drawing in _some(first))}
<p class="note">{escape(said.basis)}.</p>
</header>
<nav aria-label="Contents"><ol>{"".join(map(_entry, sections))}</ol></nav>
{_filters(contenders)}
<main id="content" tabindex="-1">
{body}
</main>
<footer><p>Made by fastconv {escape(__version__)}. Times are medians of calls with results checked in the same run.
GFLOP/s count the operations of the direct algorithm for everyone.</p></footer>
<script>
{(_HERE / "page.js").read_text("utf-8")}</script>
</body>
</html>
""")


def _some(drawing: Drawing | None) -> list[Drawing]:
    return [] if drawing is None else [drawing]


def _colours() -> str:
    """Light, dark where the reader's system is, light again on paper."""
    light, dark = ("".join(f" --{name}: {colour};" for name, colour in theme.items()) for theme in (LIGHT, DARK))
    return (f":root {{ color-scheme: light dark;{light} }}\n"
            f"@media screen and (prefers-color-scheme: dark) {{ :root {{{dark} }} }}\n")


def _lede(said: Answer) -> str:
    if len(said.lines) < 4:
        return f'<p class="lede">{escape(" ".join(said.lines))}</p>' if said.lines else ""
    return '<ul class="lede">' + "".join(f"<li>{escape(line)}</li>" for line in said.lines) + "</ul>"


def _filters(contenders: Sequence[str]) -> str:
    look = looks(contenders)
    boxes = "".join(
        f'<label><input type="checkbox" checked value="{escape(name)}">'
        f'<span class="swatch{" hollow" if look[name].hollow else ""}" style="--colour: {look[name].colour}"></span>'
        f"{escape(name)}</label>" for name in contenders)
    return (f'<form class="filters" role="search" aria-label="Filter tables and figures">'
            f'<label>Filter <input type="search" id="find" autocomplete="off" placeholder="layer, contender …"></label>'
            f'<details><summary>Contenders</summary><fieldset><legend>Shown in tables and figures</legend>{boxes}'
            f'<button type="button" id="all">All</button> <button type="button" id="none">None</button></fieldset></details>'
            f'<output id="status" aria-live="polite"></output></form>')


def _entry(section: Section) -> str:
    tables = [(table.detail, _table_id(section, table), table.title) for table in section.tables if table.rows]
    inner = [(f"{section.key}-{d.key}", _short(section, d)) for d in section.drawings]
    inner += [(key, name) for _, key, name in sorted(tables, key=lambda table: table[0])]
    links = "".join(f'<li><a href="#{escape(key)}">{escape(name)}</a></li>' for key, name in inner)
    return f'<li><a href="#{escape(section.key)}">{escape(section.title)}</a><ul>{links}</ul></li>'


def _short(section: Section, drawing: Drawing) -> str:
    """Its title without what the section's says already."""
    return drawing.title.replace(f": {section.title}", "").replace(f" ({section.title})", "")


def _section(section: Section) -> str:
    """Words, pictures, tables, in this order; long tables last."""
    key = escape(section.key)
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in section.facts)
    tables = sorted((table for table in section.tables if table.rows), key=lambda table: table.detail)
    parts = [
        f'<section id="{key}" aria-labelledby="{key}-h"><h2 id="{key}-h">{escape(section.title)}</h2>',
        *(f"<p>{escape(line)}</p>" for line in section.lines),
        *(_figure(section, d) for d in section.drawings),
        f"<dl>{facts}</dl>" if facts else "",
        *(_table(table, _table_id(section, table)) for table in tables),
    ]
    return "".join(parts) + "</section>"


def _figure(section: Section, drawing: Drawing) -> str:
    key, heading = f"{section.key}-{drawing.key}", _short(section, drawing)
    return (f'<figure id="{escape(key)}"><h3>{escape(heading)}</h3>{_drawn(drawing)}'
            f"<figcaption>{escape(drawing.caption)}</figcaption></figure>")


def _picture(drawing: Drawing) -> str:
    """The one above all: the headline is its heading."""
    return f"<figure>{_drawn(drawing)}<figcaption>{escape(drawing.caption)}</figcaption></figure>"


def _drawn(drawing: Drawing) -> str:
    """In all widths; the page's style shows the one that fits."""
    if drawing.fixed:
        only = scene.svg(drawing.draw(WIDTHS["wide"], False), drawing.key, page=True)
        return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(drawing.title)}">{only}</div>'
    svg = {name: scene.svg(drawing.draw(width, False), f"{drawing.key}-{name}", page=True, hints=name != "narrow")
           for name, width in WIDTHS.items()}  # nobody points with a mouse at a phone
    return "".join(f'<div class="{name}">{drawn}</div>' for name, drawn in svg.items())


def _table_id(section: Section, table: Table) -> str:
    return f"{section.key}-{re.sub('[^a-z]+', '-', table.title.lower())}"


def _table(table: Table, key: str) -> str:
    heads = "".join(_head(column) for column in table.columns)
    rows = "\n".join(_row(row, table.columns) for row in table.rows)
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    tall = " tall" if len(table.rows) > 15 else ""
    return (f'<div class="table" id="{escape(key)}"><h3>{escape(table.title)}</h3>{note}'
            f'<div class="scroll{tall}" tabindex="0" role="region" aria-label="{escape(table.title)}">'
            f"<table><thead><tr>{heads}</tr></thead><tbody>\n{rows}\n</tbody></table></div></div>")


def _head(column: Column) -> str:
    names = f"{'n' if column.numeric else ''} {'long' if len(column.name) > 20 else ''}".strip()
    return (f'<th scope="col"{_class(names)}><button type="button">{escape(column.name)}'
            f'<span aria-hidden="true"></span></button></th>')


def _row(row: Row, columns: Sequence[Column]) -> str:
    about = "" if row.contender is None else f' data-contender="{escape(row.contender)}"'
    first, *rest = (_cell(cell, column, index == 0) for index, (cell, column) in enumerate(zip(row.cells, columns)))
    return f"<tr{about}>{first}{''.join(rest)}</tr>"


def _cell(cell: Cell, column: Column, head: bool) -> str:
    tag, scope = ("th", ' scope="row"') if head else ("td", "")
    names = " ".join(filter(None, ("n" if column.numeric else "", cell.tone)))
    value = "" if cell.value is None or cell.text == f"{cell.value:g}" else f' data-v="{cell.value:.6g}"'
    return f"<{tag}{scope}{_class(names)}{value}>{escape(cell.text)}</{tag}>"


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""
