"""The report as one HTML file that needs nothing else, and its figures as PNG files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from ... import __version__, files
from ..palette import looks
from .contents import Section
from .tables import Cell, Column, Row, Table

_HERE = Path(__file__).parent
# nothing is fetched, whatever a record's texts contain
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'"


def write(path: Path, sections: Sequence[Section], contenders: Iterable[str]) -> list[str]:
    """Write the page and its figures (none beside a device or a pipe); lines that say where they are.

    Raises:
        OSError: a file cannot be written.
    """
    lines = []
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        drawn: dict[str, str] = {}
        lines.append("no figures: matplotlib is not installed (pip install 'fastconv[bench]')")
    else:
        from . import svg

        drawn = {drawing.key: svg.inline(drawing) for section in sections for drawing in section.drawings}
    files.write(path, render(sections, list(dict.fromkeys(contenders)), drawn))
    lines.append(f"report: {path}")
    if files.streams(path):
        return lines
    for section in sections:
        for drawing in section.drawings:
            if drawing.key in drawn:
                target = path.with_name(f"{path.stem}-{drawing.key}.png")
                svg.save_png(drawing, target)
                lines.append(f"figure: {target}")
    return lines


def render(sections: Sequence[Section], contenders: Sequence[str], drawn: dict[str, str]) -> str:
    """The page's text; `drawn` has the figures' SVG by key."""
    title = "fastconv: " + (sections[-1].title if len(sections) == 1 else "benchmark report")
    body = "\n".join(_section(section, drawn) for section in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">
<title>{escape(title)}</title>
<style>
{(_HERE / "page.css").read_text("utf-8")}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the figures</a>
<header>
<h1>{escape(title)}</h1>
<nav aria-label="Contents"><ol>{"".join(_entry(section, drawn) for section in sections)}</ol></nav>
</header>
{_filters(contenders)}
<main id="content" tabindex="-1">
{body}
</main>
<footer><p>Made by fastconv {escape(__version__)}. Times are medians of calls with results checked in the same run.</p></footer>
<script>
{(_HERE / "page.js").read_text("utf-8")}</script>
</body>
</html>
"""


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


def _entry(section: Section, drawn: dict[str, str]) -> str:
    tables = [(table.detail, _table_id(section, table), table.title) for table in section.tables if table.rows]
    figures = [(f"{section.key}-{d.key}", d.title.replace(f": {section.title}", "").replace(f" ({section.title})", ""))
               for d in section.drawings if d.key in drawn]
    inner = [(key, name) for detail, key, name in tables if not detail] + figures
    inner += [(key, name) for detail, key, name in tables if detail]
    links = "".join(f'<li><a href="#{escape(key)}">{escape(name)}</a></li>' for key, name in inner)
    return f'<li><a href="#{escape(section.key)}">{escape(section.title)}</a><ul>{links}</ul></li>'


def _section(section: Section, drawn: dict[str, str]) -> str:
    key = escape(section.key)
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in section.facts)
    tables = [(table.detail, _table(table, _table_id(section, table))) for table in section.tables if table.rows]
    parts = [
        f'<section id="{key}" aria-labelledby="{key}-h"><h2 id="{key}-h">{escape(section.title)}</h2>',
        f"<dl>{facts}</dl>" if facts else "",
        *(f"<p>{escape(line)}</p>" for line in section.lines),
        *(text for detail, text in tables if not detail),  # what sums up stands before the figures, long tables after them
        *(_figure(f"{section.key}-{d.key}", d.title, d.caption, drawn[d.key]) for d in section.drawings if d.key in drawn),
        *(text for detail, text in tables if detail),
    ]
    return "".join(parts) + "</section>"


def _figure(key: str, title: str, caption: str, svg: str) -> str:
    return (f'<figure id="{escape(key)}"><h3>{escape(title)}</h3><div class="scroll" tabindex="0" role="region" '
            f'aria-label="{escape(title)}">{svg}</div><figcaption>{escape(caption)}</figcaption></figure>')


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
    return (f'<th scope="col"{_class("n" if column.numeric else "")}><button type="button">{escape(column.name)}'
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
