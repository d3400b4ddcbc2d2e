"""What ``FASTCONV_AUTOTUNE=1`` turns on: a problem is measured when it is planned first, and remembered."""

from __future__ import annotations

import threading
import warnings

from .. import settings, wisdom
from ..problem import ConvProblem
from . import measure, store

SECONDS = 0.3  # of taking turns per problem
_lock = threading.RLock()  # one measures at a time; a backend that itself calls fastconv must not wait for itself


def measured(problem: ConvProblem, prepared: bool) -> wisdom.Entry | None:
    """The fastest candidate: measured now, or earlier in this process. None: nothing could be measured.

    Also written to the file of ``FASTCONV_WISDOM``, if that is set. Never raises: the model's choice is always there.
    """
    with _lock:
        known, entry = wisdom.remembered(problem, prepared)
        if known:
            return entry
        try:
            entry = measure.measure(problem, prepared, SECONDS).entry
        except Exception as error:
            warnings.warn(f"fastconv could not tune {problem.text}: {error}", stacklevel=2)
        wisdom.remember(problem, prepared, entry)
        path = settings.current().wisdom
        if entry is not None and path is not None:
            try:
                store.put(store.place(path), [(problem, prepared, entry)])
            except Exception as error:  # no filelock, no room, a folder that is gone
                warnings.warn(f"fastconv remembers what it tuned for this process only: {error}", stacklevel=2)
        return entry
