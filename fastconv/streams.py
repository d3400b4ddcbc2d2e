"""Standard output and error of a command, whatever they are: closed, of a locale without the characters, or read by nobody."""

from __future__ import annotations

import codecs
import os
import sys
from contextlib import suppress
from typing import TextIO

READER_LEFT = 141  # 128 + SIGPIPE, as shells have it
_PLAIN = {"µ": "u", "×": "x", "–": "-", "—": "-", "…": "...", "·": "*"}  # what our own texts have beyond ASCII


def prepare() -> None:
    """What was closed is a stream to nowhere, and what cannot be written in the locale's encoding is written in another way."""
    _keep_numbers()
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w", encoding="utf-8") for stream in (sys.stdout, sys.stderr))
    codecs.register_error("fastconv.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # something else that somebody put there
            stream.reconfigure(errors="fastconv.plain")  # type: ignore[union-attr]


def finish() -> None:
    """Write what is buffered, now, where an error can still be told.

    Raises:
        BrokenPipeError: nobody reads. OSError: it cannot be written.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def abandon() -> None:
    """Drop what is buffered: Python would try once more to write it, at its exit, and complain."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # a stream that is no file
            _to_nowhere(stream)


def _to_nowhere(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _keep_numbers() -> None:
    """Let no file that is opened later become number 0, 1 or 2, where subprocesses would write into it."""
    with suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(number, True)
        os.close(number)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start:error.end]
    return "".join(_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in missing), error.end
