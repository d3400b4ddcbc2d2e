"""How long a call would take, from smaller problems of the same kind: `naive` needs hours where others need milliseconds."""

from __future__ import annotations

import dataclasses
import math

from ..errors import Unsupported
from ..problem import ConvProblem
from . import verify
from .admission import Admission
from .contenders import Contender, Entry
from .timing import Clock

FIRST = 1e6  # flops of the first try
GROWTH = 4  # a fast backend's fixed costs weigh too much in a small problem, so a bad estimate is made again
PATIENCE = 0.05  # seconds: a try that took this long is believed; less may be another process in the way


def reduced(problem: ConvProblem, flops: float) -> ConvProblem:
    """The same kind of work in about `flops` (or as few as one output row of one channel takes): one image, fewer output rows
    and output channels (or groups)."""
    if problem.flops <= flops:
        return problem
    small = dataclasses.replace(problem, batch=1)
    small = _fewer_rows(small, math.sqrt(flops / small.flops))  # half by rows, the rest by channels
    small = _fewer_channels(small, flops / small.flops)
    return _fewer_rows(small, flops / small.flops)


def _fewer_rows(problem: ConvProblem, share: float) -> ConvProblem:
    if share >= 1:
        return problem
    rows = max(1, int(problem.output_size[0] * share))
    size = (rows - 1) * problem.stride[0] + (problem.kernel_size[0] - 1) * problem.dilation[0] + 1
    return dataclasses.replace(problem, input_size=(size, *problem.input_size[1:]), padding=((0, 0), *problem.padding[1:]))


def _fewer_channels(problem: ConvProblem, share: float) -> ConvProblem:
    if share >= 1:
        return problem
    if problem.groups == 1:
        return dataclasses.replace(problem, out_channels=max(1, int(problem.out_channels * share)))
    groups = max(1, int(problem.groups * share))
    return dataclasses.replace(problem, groups=groups, in_channels=problem.in_channels // problem.groups * groups,
                               out_channels=problem.out_channels // problem.groups * groups)


def estimate(contender: Contender, problem: ConvProblem, limit: float, clock: Clock) -> Admission | None:
    """None if a call takes less than about `limit` seconds, or nobody can tell; else how long it would take, or what was wrong.

    The result of the small problem is checked like any other.
    """
    flops = FIRST
    while True:
        small = reduced(problem, flops)
        if small.flops * 2 > problem.flops:
            return None  # too little to gain from an estimate
        arrays = verify.arrays_for(small)
        try:
            entry = contender.enter(small, arrays)
        except Unsupported:  # of a smaller problem it may not even be the same kind
            return None
        elapsed = _quickest(entry, clock)
        seconds = elapsed * problem.flops / small.flops
        if seconds <= limit:
            return None
        if elapsed >= PATIENCE:
            break
        flops = max(flops, small.flops) * GROWTH
    checked, reason = verify.wrong(small, entry.bound, arrays, entry.result(), entry.tile)
    if reason is not None:
        return Admission(reason)
    return Admission(None, entry.algorithm, entry.isa, checked, seconds, estimate=True)


def _quickest(entry: Entry, clock: Clock) -> float:
    """Seconds of a call that neither compiled nor was disturbed: two that agree, or the best of three."""
    times: list[float] = []
    while len(times) < 2 or len(times) < 3 and max(times) > 2 * min(times):
        clock.settle()
        start = clock.now()
        entry.call()
        times.append(clock.now() - start)
    return min(times)
