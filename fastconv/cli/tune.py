"""``fastconv tune``: what it prints, line by line as it is found out."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path

from .. import settings, wisdom, wisdom_file
from ..bench import suites
from ..bench.grid import packed, width_of
from ..errors import Unsupported
from ..machine import Machine
from ..problem import ConvProblem
from ..terminal import aligned
from ..tuning import store
from ..tuning.measure import Tuned, measure

_INTERRUPTED = 130


def main(arguments: argparse.Namespace) -> int:
    """One of: tune, machine, export, import, clear, list.

    Raises:
        ValueError, OSError, Unavailable: wrong input; the command line says so.
    """
    manage: dict[str, Callable[[Path], str]] = {
        "export": lambda path: f"{_entries(store.export(path, arguments.export))} written to {arguments.export}",
        "import_": lambda path: _imported(path, arguments.import_),
        "clear": lambda path: f"{_entries(store.clear(path))} of this machine removed from {path}",
        "list": _listed,
        "machine": _machine,
    }
    chosen = [name for name in manage if getattr(arguments, name)]
    if len(chosen) + bool(arguments.what) != 1:
        raise ValueError("tune takes suites, files or problems, or one of --machine, --export, --import, --clear, --list")
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


def _machine(path: Path) -> str:
    from ..tuning import own_machine

    store.put(path, [])  # that it cannot be written is said now
    found = own_machine.measure()
    store.put_machine(path, found)
    return f"{_row(found)}\nwisdom: {path}; used where FASTCONV_WISDOM names that file"


def _row(machine: Machine) -> str:
    rates = ", ".join(f"{isa} {rate / 1e9:.2f}" for isa, rate in machine.multiply_adds.items() if rate)
    speeds = ", ".join(f"{level.speed / 1e9:.0f} of {_mb(level.size)} in {level.name}" for level in machine.levels)
    return f"machine  vectors of multiply-adds / ns: {rates}; GB/s: {speeds}; call: {machine.call * 1e6:.2g} us"


def _mb(size: float) -> str:
    return "more" if math.isinf(size) else f"{size / 1e6:.0f} MB"


def _listed(path: Path) -> str:
    found, row = store.listed(path), store.listed_machine(path)
    told = [] if row is None else [_row(row)]
    if not found:
        return "\n".join(told) or f"{path} has nothing that this machine and version use"
    rows: list[tuple[str, ...]] = [
        (kind, f"{entry.backend} {entry.candidate}", _ms(entry.seconds), _share(entry.gain), problem)
        for problem, kind, entry in found]
    rows.insert(0, ("", "chosen", "ms / image", "gain", "problem"))
    lines, width = aligned(rows), width_of(sys.stdout)
    if max(map(len, lines)) <= width:
        return "\n".join([*told, *lines])
    return "\n".join([*told, *(line for cells in rows for line in packed([cells[-1], *cells[:-1]], width))])


def _tune(arguments: argparse.Namespace, path: Path) -> int:
    problems = _problems(arguments.what, arguments.accuracy)
    asked = [*([False] if arguments.per_call else []), *([True] if arguments.prepared else [])] or [False, True]
    store.put(path, [])  # that it cannot be written is said now, not after minutes of measuring
    columns = max(len(_title(problem)) for problem in problems)
    wrong, done = 0, 0
    print(f"fastconv tune, {_count(len(problems), 'problem')}, {_count(settings.get_num_threads(), 'thread')}; ms per image",
          flush=True)
    try:
        for problem in problems:
            for prepared in asked:
                wrong += _one(problem, prepared, arguments, path, columns)
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


def _one(problem: ConvProblem, prepared: bool, arguments: argparse.Namespace, path: Path, columns: int) -> int:
    """Tune, keep and tell; how many results were wrong."""
    head = [f"{_title(problem):<{columns}}", f"{wisdom_file.mode(prepared):<8}"]
    try:
        tuned = measure(problem, prepared, arguments.seconds)
    except Unsupported:
        _tell([*head, "refused by every backend; fastconv explain tells why"])
        return 0
    entry = tuned.entry
    if entry is not None:
        store.put(path, [(problem, prepared, entry)])
    _tell([*head, *_parts(tuned)])
    for out in tuned.wrong:
        _tell(["", "WRONG  ", f"{out.backend} {out.candidate}:", out.reason.why])
    for out in tuned.dropped if arguments.verbose else ():
        _tell(["", "dropped", f"{out.backend} {out.candidate}:", str(out.reason)])
    return len(tuned.wrong)


def _parts(tuned: Tuned) -> list[str]:
    counts = f"{tuned.measured} raced, {len(tuned.dropped)} dropped early"
    if tuned.chosen is None:
        return ["nobody computes it right;", counts]
    theirs = "-" if tuned.model_seconds is None else _ms(tuned.model_seconds)
    model = "the model's choice" if tuned.chosen == tuned.model else f"the model: {tuned.model} {theirs}"
    return [f"{str(tuned.chosen):<30}", f"{_ms(tuned.seconds):>7}", f"gain {_share(tuned.gain):>6}", f"{model:<45}", counts]


def _tell(parts: list[str]) -> None:
    """One line, where that fits; the parts of a line that does not are not padded."""
    width = width_of(sys.stdout)
    line = "  ".join(parts)
    print(line if len(line) <= width else "\n".join(packed([part.strip() for part in parts], width)), flush=True)


def _title(problem: ConvProblem) -> str:
    return problem.name or problem.text


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.4g}"


def _share(gain: float) -> str:
    return f"{gain:.1%}" if gain > 0 else "-"
