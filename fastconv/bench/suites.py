"""Suites: text files with one problem per line (see `fastconv.problem_text`); ``#`` starts a comment."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from ..problem import ConvProblem

DEFAULT = "quick"
_COMMENT = re.compile(r"(?:^|\s)#.*")
_LIKE_A_PROBLEM = re.compile(r"--\w|_*(?:g|mb|ic|id|ih|iw)-?\d")  # how a problem text starts


def names() -> tuple[str, ...]:
    """The suites that come with fastconv."""
    return tuple(sorted(entry.name.removesuffix(".txt") for entry in _folder().iterdir() if entry.name.endswith(".txt")))


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


def parse(text: str, source: str) -> list[ConvProblem]:
    """The problems of a suite's text; `source` names it in messages."""
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = _COMMENT.sub("", line).strip()
        if not stripped:
            continue
        try:
            problems.append(ConvProblem.from_text(stripped))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{source}, line {number}: {error}") from None
    if not problems:
        raise ValueError(f"{source} contains no problems")
    return problems


def _problems(source: str) -> list[ConvProblem]:
    if source in names():
        return parse((_folder() / f"{source}.txt").read_text("utf-8"), f"{source}.txt")
    if _LIKE_A_PROBLEM.match(source):
        return [ConvProblem.from_text(source)]
    path = Path(source)
    if not path.exists():
        raise ValueError(f"there is no suite or file {source!r}; suites are {', '.join(names())}; a problem is written like "
                         "mb1_ic64ih56_oc64oh56_kh3ph1")
    try:
        return parse(path.read_text("utf-8"), source)
    except UnicodeDecodeError:
        raise ValueError(f"{source} is not a text file") from None


def _folder() -> resources.abc.Traversable:
    return resources.files(__package__) / "suites"
