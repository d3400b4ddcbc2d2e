"""Ctrl-C that cannot get lost."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """While entered, remembers Ctrl-C besides raising KeyboardInterrupt.

    An exception raised within a callback from C (LLVM announcing compiled code, say) is printed and forgotten there; `check`
    raises it again.
    """

    asked = False
    _previous: Any = None

    def __enter__(self) -> Interrupt:
        # not where SIGINT is ignored (nohup, background jobs) or somebody else's; handlers belong to the main thread
        ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def check(self) -> None:
        if self.asked:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        raise KeyboardInterrupt
