"""Smaller problems of the same kind, and what they tell of the whole one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ..problem import ConvProblem
from .paired import Clock

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


class Less(NamedTuple):
    """What a smaller problem told."""

    problem: ConvProblem
    made: Any  # what was made of it
    seconds: float  # that a call of the whole problem would take


def by_less(problem: ConvProblem, make: Callable[[ConvProblem], tuple[Any, Callable[[], object]]], limit: float,
            clock: Clock) -> Less | None:
    """How long a call would take, from smaller problems of the same kind: `naive` needs hours where others need milliseconds.

    Args:
        make: what is made of a problem, and a call of it. (A smaller problem may not even be of the same kind: what it raises
            passes through.)
        limit: seconds.

    Returns:
        None if a call takes less than about `limit`, or nobody can tell.
    """
    flops = FIRST
    while True:
        small = reduced(problem, flops)
        if small.flops * 2 > problem.flops:
            return None  # too little to gain from an estimate
        made, call = make(small)
        elapsed = _quickest(call, clock)
        seconds = elapsed * problem.flops / small.flops
        if seconds <= limit:
            return None
        if elapsed >= PATIENCE:
            return Less(small, made, seconds)
        flops = max(flops, small.flops) * GROWTH


def _quickest(call: Callable[[], object], clock: Clock) -> float:
    """Seconds of a call that neither compiled nor was disturbed: two that agree, or the best of three."""
    times: list[float] = []
    while len(times) < 2 or len(times) < 3 and max(times) > 2 * min(times):
        clock.settle()
        start = clock.now()
        call()
        times.append(clock.now() - start)
    return min(times)
