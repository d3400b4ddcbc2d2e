"""The process of one contender: reads requests from stdin, answers on stdout, one line of JSON each.

Several libraries in one process spoil each other's figures, and one that crashes would take the others along. `remote` is the
other end, and keeps what is written to stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from .. import settings
from ..problem import ConvProblem
from ..reasons import Failed
from ..timing.paired import Lost, WallClock
from .admission import Limits
from .contenders import named
from .local import Local

BOOTSTRAP = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
import time
import numpy
start = time.perf_counter()
import fastconv
seconds = time.perf_counter() - start
from fastconv.bench.worker import main
main(seconds)
"""
CAN_STOP = hasattr(signal, "SIGSTOP")  # else each waits for its own threads to go quiet
_PR_SET_PDEATHSIG = 1


def main(import_seconds: float) -> None:
    """Serve until stdin ends. `import_seconds`: what importing fastconv took."""
    _die_with_parent()
    answers = _answers()
    setup = json.loads(sys.stdin.readline())
    changes = setup["settings"]
    settings.update(**{**changes, "backends": tuple(changes["backends"])})
    seat = Local(named(setup["contender"]), Limits(**setup["limits"]))
    with _blas_threads(changes["num_threads"]):
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            try:
                answer = {"value": _serve(seat, name, arguments, import_seconds)}
            except Lost as lost:
                answer = {"lost": str(lost.reason)}
            except Exception as error:
                answer = {"lost": str(Failed.by(error))}
            if not CAN_STOP:
                WallClock().settle()
            print(json.dumps(answer), file=answers, flush=True)


def _serve(seat: Local, name: str, arguments: list[Any], import_seconds: float) -> Any:
    if name == "start":
        library, seconds = seat.start(*arguments)
        return library, seconds + (import_seconds if seat.contender.kind == "backend" else 0)
    if name == "admit":
        return seat.admit(ConvProblem.from_text(arguments[0])).message()
    return {"renew": seat.renew, "block": seat.block, "leave": seat.leave}[name]()


def _answers() -> TextIO:
    """A stream to the parent that nobody else writes to: what libraries print is not heard from now on."""
    kept = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return os.fdopen(kept, "w")


def _die_with_parent() -> None:
    """A stopped process does not notice that its parent was killed; Linux can send a signal then."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def _blas_threads(threads: int) -> Iterator[None]:
    """As many threads for NumPy's BLAS as for everyone, where threadpoolctl is installed."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(threads, user_api="blas"):
        yield
