"""``fastconv tune``: what it prints, line by line as it is found out."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

from .. import settings, wisdom
from ..bench import suites
from ..errors import Unsupported
from ..problem import ConvProblem
from . import store
from .measure import Tuned, measure

_INTERRUPTED = 130


def main(arguments: argparse.Namespace) -> int:
    """One of: tune, export, import, clear, list.

    Raises:
        ValueError, OSError, Unavailable: wrong input; the command line says so.
    """
    manage: dict[str, Callable[[Path], str]] = {
        "export": lambda path: f"{_entries(store.export(path, arguments.export))} written to {arguments.export}",
        "import_": lambda path: _imported(path, arguments.import_),
        "clear": lambda path: f"{_entries(store.clear(path))} of this machine removed from {path}",
        "list": _listed,
    }
    chosen = [name for name in manage if getattr(arguments, name)]
    if len(chosen) + bool(arguments.what) != 1:
        raise ValueError("tune takes suites, files or problems, or one of --export, --import, --clear, --list")
    path = store.place(arguments.wisdom)
    if not chosen:
        return _tune(arguments, path)
    print(manage[chosen[0]](path))
    return 0


def _entries(count: int) -> str:
    return f"{count} {'entry' if count == 1 else 'entries'}"


def _imported(path: Path, source: Path) -> str:
    count, useful = store.merge(path, source)
    return f"{_entries(count)} of {source} merged into {path}; {useful} of them for this machine and version"


def _listed(path: Path) -> str:
    found = store.listed(path)
    if not found:
        return f"{path} has nothing that this machine and version use"
    rows = [(kind, f"{entry.backend} {entry.candidate}", _ms(entry.seconds), _share(entry.gain), problem)
            for problem, kind, entry in found]
    return "\n".join(_aligned([("", "chosen", "ms / image", "gain", "problem"), *rows]))


def _tune(arguments: argparse.Namespace, path: Path) -> int:
    problems = _problems(arguments.what, arguments.accuracy)
    asked = [*([False] if arguments.per_call else []), *([True] if arguments.prepared else [])] or [False, True]
    store.put(path, [])  # that it cannot be written is said now, not after minutes of measuring
    width = max(len(_title(problem)) for problem in problems)
    wrong, done = 0, 0
    print(f"fastconv tune, {_count(len(problems), 'problem')}, {_count(settings.get_num_threads(), 'thread')}; ms per image",
          flush=True)
    try:
        for problem in problems:
            for prepared in asked:
                wrong += _one(problem, prepared, arguments, path, width)
            done += 1
    except KeyboardInterrupt:
        print(f"interrupted; {done} of {_count(len(problems), 'problem')} done, what was found is kept", file=sys.stderr)
        return _INTERRUPTED
    print(f"wisdom: {path}; used where FASTCONV_WISDOM names that file")
    return 1 if wrong else 0


def _problems(what: list[str], accuracy: str | None) -> list[ConvProblem]:
    """Each once, however large its batches."""
    found: dict[str, ConvProblem] = {}
    for problem in suites.load(what):
        if accuracy is not None:
            problem = dataclasses.replace(problem, accuracy=accuracy)
        found.setdefault(wisdom.key(problem), problem)
    return list(found.values())


def _one(problem: ConvProblem, prepared: bool, arguments: argparse.Namespace, path: Path, width: int) -> int:
    """Tune, keep and tell; how many results were wrong."""
    head = f"{_title(problem):<{width}}  {wisdom.mode(prepared):<8}  "
    try:
        tuned = measure(problem, prepared, arguments.seconds)
    except Unsupported:
        print(f"{head}refused by every backend; fastconv explain tells why", flush=True)
        return 0
    entry = tuned.entry
    if entry is not None:
        store.put(path, [(problem, prepared, entry)])
    print(head + _line(tuned), flush=True)
    for out in tuned.wrong:
        print(f"  WRONG    {out.backend} {out.candidate}: {out.reason}")
    for out in tuned.dropped if arguments.verbose else ():
        print(f"  dropped  {out.backend} {out.candidate}: {out.reason}")
    return len(tuned.wrong)


def _line(tuned: Tuned) -> str:
    counts = f"{tuned.measured} raced, {len(tuned.dropped)} dropped early"
    if tuned.chosen is None:
        return f"nobody computes it right; {counts}"
    theirs = "-" if tuned.model_seconds is None else _ms(tuned.model_seconds)
    model = "the model's choice" if tuned.chosen == tuned.model else f"the model: {tuned.model} {theirs}"
    return f"{str(tuned.chosen):<30} {_ms(tuned.seconds):>8}  gain {_share(tuned.gain):>6}  {model:<45}  {counts}"


def _title(problem: ConvProblem) -> str:
    return problem.name or problem.text


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.4g}"


def _share(gain: float) -> str:
    return f"{gain:.1%}" if gain > 0 else "-"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
