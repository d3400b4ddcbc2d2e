"""`fastconv compare`: what one record says, what two of the same machine disagree on, and how machines differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ... import files
from ...errors import Unavailable, printable


def main(paths: Sequence[Path], html: Path | None = None, fail: bool = False) -> int:
    """Print the answer and the tables; with `html`, write the page too, and its figures as PNG files beside it.

    Returns:
        1 if `fail` and something got slower, else 0.

    Raises:
        ValueError: a file is no complete record of this format.
        OSError: a file cannot be read or written.
        Unavailable: rich is not installed.
    """
    from . import changes, contents, records, scene

    try:
        from rich.text import Text

        from ..table import console
        from .terminal import show
    except ImportError:
        raise Unavailable("fastconv compare needs rich: pip install 'fastconv[bench]'") from None
    if fail and len(paths) < 2:
        raise ValueError("--fail-on-regression needs two records of one machine, got one")
    loaded = records.read_all(paths)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        reason = files.refusal(html)
        if reason is not None:
            raise ValueError(f"cannot write {html}: {reason}")
    compared = [changes.compare(old, new) for old, new in changes.pairs(loaded)]
    if fail and not compared:
        raise ValueError("--fail-on-regression needs two records of one machine with the same threads, and these are of "
                         + ", ".join(dict.fromkeys(record.label for record in loaded)))
    sections = contents.sections(loaded, compared)
    said, first = contents.first(loaded, compared)
    out = console()
    for line in (said.headline, *said.lines):
        out.print(scene.clean(line), markup=False)
    for section in sections:
        out.rule(Text(section.title), align="left", style="none")
        for line in section.lines:
            out.print(line, markup=False)
        for table in section.tables:
            if not table.detail:
                show(table, out)
    if html is not None:
        from . import page

        for line in page.write(html, said, first, sections, [name for record in loaded for name in record.contenders]):
            out.print(printable(line), markup=False, soft_wrap=True)
    return 1 if fail and any(found.judgement.regression for found in compared) else 0
