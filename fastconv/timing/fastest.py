"""The fastest call, in CPU time of this thread: another program only slows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

LOOK = 30e-6  # seconds of calls from which looking at the clock does not count


def fastest(calls: Sequence[Callable[[], object]], turn: float, rounds: int = 1) -> list[float]:
    """Seconds of each one's fastest call, or of the fastest few where calls are short; they take turns of so many seconds."""
    best, often = [math.inf] * len(calls), [1] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            end = time.thread_time() + turn
            while (begin := time.thread_time()) < end:
                for _ in range(often[i]):
                    call()
                taken = time.thread_time() - begin
                best[i] = min(best[i], taken / often[i])
                if taken < LOOK:
                    often[i] *= 2
    return best
