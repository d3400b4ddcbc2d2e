"""The parts of a job, on several threads."""

from __future__ import annotations

import threading
from typing import Any

from ... import native, settings


def perform(entry: Any, parts: int, context: int) -> None:
    """Run all parts of a job: on the native pool, or without it on Python threads (ctypes releases the GIL)."""
    runtime = None if settings.current().no_native else native.runtime()
    if runtime is not None:  # for one part as well: ctypes takes 0.5 us longer
        runtime.parallel_for(parts, entry.address, context)
        return
    if parts == 1:
        entry.ctypes(context, 0)
        return
    started, mine = [], [0]
    for part in range(1, parts):
        thread = threading.Thread(target=entry.ctypes, args=(context, part))
        try:
            thread.start()
            started.append(thread)
        except RuntimeError:  # no more threads to be had
            mine.append(part)
    for part in mine:
        entry.ctypes(context, part)
    for thread in started:
        thread.join()
