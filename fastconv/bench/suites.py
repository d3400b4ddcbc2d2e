"""Suites: text files with one problem per line (see `fastconv.problem_text`); ``#`` starts a comment.

A suite that gives a count (``*N``, even ``*1``) with any of its problems is a network: its times, each as often as its layer
occurs, sum up to something; where it has several kinds of problems, such as a training step's, so do those of each kind. The
suite ``all`` has no file: it is every problem of the others, once.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from .. import files
from ..errors import shown
from ..problem import ConvProblem
from ..stated import is_transposed

DEFAULT = "quick"
ALL = "all"
_COMMENT = re.compile(r"(?:^|\s)#.*")
_COUNT = re.compile(r'\*\d+"?\s*$')  # at the end of a name, which ends a problem
_KINDS = ("forward", "transposed", "gradients of inputs", "gradients of weights")
_LIKE_A_PROBLEM = re.compile(r"--\w|_*(?:g|mb|ic|id|ih|iw)-?\d")  # how a problem text starts


def names() -> tuple[str, ...]:
    """The suites that come with fastconv."""
    return tuple(sorted([*_files(), ALL]))


def load(sources: Iterable[str]) -> list[ConvProblem]:
    """The problems of suites, files and problem texts, in order, each once.

    Raises:
        ValueError: a malformed problem (with file and line), an empty file, or something that is neither.
        OSError: a file cannot be read.
    """
    found: dict[tuple[ConvProblem, str], ConvProblem] = {}
    for source in sources:
        for problem in _problems(source):
            found.setdefault((problem, problem.name), problem)
    return list(found.values())


def networks(sources: Iterable[str]) -> dict[str, list[ConvProblem]]:
    """Those of the sources that are networks, with their layers: the sum of time times count is the network's. One with several
    kinds of problems is followed by the layers of each kind, as networks of their own.

    Raises:
        ValueError, OSError: as `load`.
    """
    texts = {source: _read(source) for source in sources if source != ALL and not _LIKE_A_PROBLEM.match(source)}
    found: dict[str, list[ConvProblem]] = {}
    for source, text in texts.items():
        if any(map(_COUNT.search, _lines(text[0]).values())):
            found |= _with_kinds(source, parse(*text))
    return found


def _with_kinds(network: str, layers: list[ConvProblem]) -> dict[str, list[ConvProblem]]:
    """A network's layers, and those of each kind where there are several."""
    parts = {kind: [layer for layer in layers if _kind(layer) == kind] for kind in _KINDS}
    if layers in parts.values():
        return {network: layers}
    return {network: layers} | {f"{network} ({kind})": found for kind, found in parts.items() if found}


def _kind(layer: ConvProblem) -> str:
    if layer.direction == "backward_input":
        return "transposed" if is_transposed(layer) else "gradients of inputs"
    return "forward" if layer.direction == "forward" else "gradients of weights"


def title(source: str) -> str:
    """A source's name in records, which tell no paths: that of a file without its folders."""
    name = source if _LIKE_A_PROBLEM.match(source) else Path(source).name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")  # whatever the locale


def parse(text: str, source: str) -> list[ConvProblem]:
    """The problems of a suite's text; `source` names it in messages."""
    problems = []
    for number, line in _lines(text).items():
        try:
            problems.append(ConvProblem.from_text(line))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{source}, line {number}: {error}") from None
    if not problems:
        raise ValueError(f"{source} contains no problems")
    return problems


def _lines(text: str) -> dict[int, str]:
    """What is left of a text without comments and empty lines, by line number."""
    stripped = {number: _COMMENT.sub("", line).strip() for number, line in enumerate(text.splitlines(), 1)}
    return {number: line for number, line in stripped.items() if line}


def _problems(source: str) -> list[ConvProblem]:
    if source == ALL:
        return _everything()
    if _LIKE_A_PROBLEM.match(source):
        return [ConvProblem.from_text(source)]
    return parse(*_read(source))


def _everything() -> list[ConvProblem]:
    """Every suite's problems under the first name they have; how often a network contains one says nothing here."""
    found: dict[ConvProblem, ConvProblem] = {}
    for name in _files():
        for problem in parse(*_read(name)):
            found.setdefault(problem, dataclasses.replace(problem, count=1))
    return list(found.values())


def _read(source: str) -> tuple[str, str]:
    """The text of a suite or file, and its name in messages."""
    if source in _files():
        return (_folder() / f"{source}.txt").read_text("utf-8"), f"{source}.txt"
    path = Path(source)
    if not path.exists():
        raise ValueError(f"there is no suite or file {shown(source)}; suites are {', '.join(names())}; a problem is written "
                         "like mb1_ic64ih56_oc64oh56_kh3ph1")
    try:
        return files.read(path).decode(), source
    except UnicodeDecodeError:
        raise ValueError(f"{source} is not a text file") from None


def _files() -> list[str]:
    return sorted(entry.name.removesuffix(".txt") for entry in _folder().iterdir() if entry.name.endswith(".txt"))


def _folder() -> resources.abc.Traversable:
    return resources.files(__package__) / "suites"
