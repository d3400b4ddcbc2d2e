"""A contender in a process of its own (see `worker`), stopped while it is not its turn.

Thread pools go on spinning after a call, some for a tenth of a second, on the cores that the next contender needs. A stopped
process uses no CPU, so nobody has to wait for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from typing import IO, Any

from .. import reasons, settings
from ..problem import ConvProblem
from ..reasons import Failed, Reason, TimedOut
from ..timing.paired import Lost
from .admission import Admission, Limits
from .contenders import Contender
from .worker import BOOTSTRAP, CAN_STOP

LIVES = 3  # a contender whose process ended so often is not started again
_IMPORT = 120.0  # seconds for starting up
_QUIT = 5.0


class Remote:
    """One contender, in its process.

    Args:
        patience: seconds after which a silent process is ended; None: never.
    """

    def __init__(self, contender: Contender, limits: Limits, patience: float | None = 120.0) -> None:
        self.contender = contender
        self.name = contender.name
        self._limits = limits
        self._patience = patience
        self._process: subprocess.Popen[str] | None = None
        self._lives = LIVES
        self._threads = 1

    def start(self, threads: int) -> tuple[str, float]:
        """Start the process; (library and version, seconds of its import).

        Raises:
            Lost: it does not start.
        """
        self._threads = threads
        chosen = {**dataclasses.asdict(settings.current()), "num_threads": threads}
        del chosen["generation"]
        self._errors = tempfile.TemporaryFile("w+", errors="replace")
        path = os.pathsep.join(entry for entry in sys.path if entry)  # the fastconv that runs here, and what it finds
        self._process = subprocess.Popen(
            [sys.executable, "-c", BOOTSTRAP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            env={**os.environ, "PYTHONPATH": path})
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(self._process.stdout, self._answers), daemon=True).start()
        self._send({"contender": self.name, "limits": dataclasses.asdict(self._limits), "settings": chosen})
        library, seconds = self._ask(_IMPORT, "start", threads)
        return library, seconds

    def admit(self, problem: ConvProblem) -> Admission:
        """As `Local.admit`; one that crashes or hangs got no number, and starts afresh at the next problem."""
        try:
            if self._process is None:
                if self._lives == 0:
                    return Admission(Failed(f"its process ended {LIVES} times"))
                self.start(self._threads)
            return Admission.of(self._ask(self._patience, "admit", problem.text))
        except Lost as lost:
            return Admission(lost.reason)

    def renew(self) -> None:
        self._ask(self._patience, "renew")

    def block(self) -> float:
        """As `Local.block`.

        Raises:
            Lost: the process crashed or hangs.
        """
        return self._ask(self._patience, "block")

    def leave(self) -> None:
        with contextlib.suppress(Lost):
            if self._process is not None:
                self._ask(self._patience, "leave")

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()  # stopped as it may be
        process.wait()
        for stream in (process.stdin, process.stdout, self._errors):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]

    def _ask(self, patience: float | None, *request: Any) -> Any:
        """The answer to a request; the process runs from here until it has answered, and at no other time.

        Raises:
            Lost: there is none; the process is ended.
        """
        self._signal("SIGCONT")
        self._send(request)
        try:
            line = self._answers.get(timeout=patience)
        except queue.Empty:
            raise self._end(f"no answer within {patience:g} s", 0, TimedOut) from None
        if line is None:
            raise self._end("its process ended", _QUIT, Failed)
        self._signal("SIGSTOP")
        answer = json.loads(line)
        if "lost" in answer:
            raise Lost(reasons.read(answer["lost"]))
        return answer["value"]

    def _send(self, message: Any) -> None:
        process = self._process
        if process is None:
            raise Lost(Failed("its process ended"))
        with contextlib.suppress(OSError):  # it died; the missing answer will tell
            process.stdin.write(json.dumps(message) + "\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]

    def _signal(self, name: str) -> None:
        if CAN_STOP and self._process is not None:
            self._process.send_signal(getattr(signal, name))

    def _end(self, why: str, patience: float, kind: type[Reason]) -> Lost:
        """What is known of a process that no longer answers, or ends within `patience` seconds."""
        process = self._process
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(patience)
                why += f" ({_ended_by(code)})"
            self._errors.seek(0)
            lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
            why += f": {lines[-1][:200]}" if lines else ""
        self._lives -= 1
        self.close()
        return Lost(kind(why))


def _read(stream: IO[str], answers: queue.SimpleQueue[str | None]) -> None:
    with contextlib.suppress(ValueError, OSError):  # closed meanwhile
        for line in stream:
            answers.put(line)
    answers.put(None)


def _ended_by(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
