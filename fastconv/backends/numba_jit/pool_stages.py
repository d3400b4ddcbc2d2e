# mypy: ignore-errors
# Numba compiles this file: calls of intrinsics leave out what mypy takes for their first argument.
"""The compiled loops of pooling over the tables of a `PoolProblem`: one for what selects, one for what sums, and their gradients.

A job is cut into items: a line of outputs (forward), or the plane of a channel, all outputs of which add to the same inputs
(gradients). A thread takes a contiguous range of items, and no item is cut, so results do not depend on threads. With channels
last, the channels of a pixel (`inside` of them) are gone through together, since they lie side by side.

Bottleneck: one compare or add per tap, through the tables; sums are kept in float64, gradients in the memory of the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .kernels import jit
from .vectors import load, store

_INTEGERS = (
    # addresses of the arrays (0: none), their strides in bytes; how many parts there are
    "first result indices source fn fc fd fh fw rn rc rd rh rw jn jc jd jh jw sn sc sd sh sw parts "
    # sizes: output, input; distance of the taps; channels gone through together
    "batch channels inside depth rows columns input_d input_h input_w step_d step_h step_w "
    # addresses of the tables, and of marks for what is read at all
    "first_d first_h first_w count_d count_h count_w divisor_d divisor_h divisor_w read_d read_h read_w "
    "largest override powers").split()
POOL_CONTEXT = np.dtype([(name, np.int64) for name in _INTEGERS] + [("scale", np.float64), ("norm", np.float64)])


@jit
def line(c: Any, item: Any) -> Any:
    """(image, block of channels, plane, row) of an output line."""
    rest, row = item // c.rows, item % c.rows
    rest, plane = rest // c.depth, rest % c.depth
    blocks = c.channels // c.inside
    return rest // blocks, rest % blocks, plane, row


@jit
def taps(c: Any, od: Any, oh: Any, ow: Any) -> Any:
    """Of an output's window, along each axis: (the first input, how many taps)."""
    return (load(c.first_d, od, 0), load(c.first_h, oh, 0), load(c.first_w, ow, 0),
            load(c.count_d, od, 0), load(c.count_h, oh, 0), load(c.count_w, ow, 0))


def select_stage(c: Any, part: Any, like: Any, size: Any) -> None:
    """The largest or smallest of each window, and where it is."""
    lines = c.batch * (c.channels // c.inside) * c.depth * c.rows
    largest, step_d, step_h, step_w = c.largest, c.step_d, c.step_h, c.step_w
    width, area = c.input_w, c.input_h * c.input_w
    fd, fh, fw = c.fd * step_d, c.fh * step_h, c.fw * step_w
    for item in range(part * lines // c.parts, (part + 1) * lines // c.parts):
        n, block, od, oh = line(c, item)
        for ow in range(c.columns):
            d, h, w, deep, high, wide = taps(c, od, oh, ow)
            origin = c.first + n * c.fn + d * c.fd + h * c.fh + w * c.fw
            for channel in range(block * c.inside, (block + 1) * c.inside):
                base = origin + channel * c.fc
                best, at = load(base, 0, like), d * area + h * width + w
                for j in range(deep):
                    for k in range(high):
                        for m in range(wide):
                            value = load(base + j * fd + k * fh + m * fw, 0, like)
                            if (value > best if largest else value < best) or value != value:
                                best = value
                                at = (d + j * step_d) * area + (h + k * step_h) * width + w + m * step_w
                store(c.result + n * c.rn + channel * c.rc + od * c.rd + oh * c.rh + ow * c.rw, 0, best, like)
                if c.indices != 0:
                    store(c.indices + n * c.jn + channel * c.jc + od * c.jd + oh * c.jh + ow * c.jw, 0, at, 0)


@jit
def scaled(c: Any, total: Any, od: Any, oh: Any, ow: Any) -> Any:
    """A window's sum over the average's divisor, times lp's scale."""
    if c.override != 0:
        return total / c.override * c.scale
    return total / (load(c.divisor_d, od, 0) * load(c.divisor_h, oh, 0) * load(c.divisor_w, ow, 0)) * c.scale


@jit
def window_sum(c: Any, base: Any, sd: Any, sh: Any, sw: Any, deep: Any, high: Any, wide: Any, like: Any) -> Any:
    """The sum of a window's values, or of their powers, in float64."""
    total = 0.0
    for j in range(deep):
        for k in range(high):
            for m in range(wide):
                value = float(load(base + j * sd + k * sh + m * sw, 0, like))
                total += value if c.powers == 0 else value ** c.norm
    return total


def sum_stage(c: Any, part: Any, like: Any, size: Any) -> None:
    """Averages and norms."""
    lines = c.batch * (c.channels // c.inside) * c.depth * c.rows
    fd, fh, fw = c.fd * c.step_d, c.fh * c.step_h, c.fw * c.step_w
    for item in range(part * lines // c.parts, (part + 1) * lines // c.parts):
        n, block, od, oh = line(c, item)
        for ow in range(c.columns):
            d, h, w, deep, high, wide = taps(c, od, oh, ow)
            origin = c.first + n * c.fn + d * c.fd + h * c.fh + w * c.fw
            for channel in range(block * c.inside, (block + 1) * c.inside):
                total = scaled(c, window_sum(c, origin + channel * c.fc, fd, fh, fw, deep, high, wide, like), od, oh, ow)
                if c.powers != 0:
                    total = total ** (1.0 / c.norm)
                store(c.result + n * c.rn + channel * c.rc + od * c.rd + oh * c.rh + ow * c.rw, 0, total, like)


@jit
def clear(c: Any, plane: Any, like: Any) -> None:
    """A plane of the result becomes 0."""
    for d in range(c.input_d):
        for h in range(c.input_h):
            for w in range(c.input_w):
                store(plane + d * c.rd + h * c.rh + w * c.rw, 0, like, like)


def spread_stage(c: Any, part: Any, like: Any, size: Any) -> None:
    """Gradients of averages and norms: each output's goes to all taps of its window."""
    blocks = c.channels // c.inside
    items = c.batch * blocks
    for item in range(part * items // c.parts, (part + 1) * items // c.parts):
        n, begin = item // blocks, item % blocks * c.inside
        for channel in range(begin, begin + c.inside):
            clear(c, c.result + n * c.rn + channel * c.rc, like)
        for od in range(c.depth):
            for oh in range(c.rows):
                for ow in range(c.columns):
                    for channel in range(begin, begin + c.inside):
                        spread(c, n, channel, od, oh, ow, like)
        if c.powers != 0:
            for channel in range(begin, begin + c.inside):
                finish(c, n, channel, like)


@jit
def spread(c: Any, n: Any, channel: Any, od: Any, oh: Any, ow: Any, like: Any) -> None:
    d, h, w, deep, high, wide = taps(c, od, oh, ow)
    share = float(load(c.first + n * c.fn + channel * c.fc + od * c.fd + oh * c.fh + ow * c.fw, 0, like))
    share = scaled(c, share, od, oh, ow)
    if c.powers != 0:
        base = c.source + n * c.sn + channel * c.sc + d * c.sd + h * c.sh + w * c.sw
        total = scaled(c, window_sum(c, base, c.sd * c.step_d, c.sh * c.step_h, c.sw * c.step_w, deep, high, wide, like),
                       od, oh, ow)
        share = share * (total ** (1.0 / c.norm - 1.0) if total != 0.0 else 0.0)
    base = c.result + n * c.rn + channel * c.rc + d * c.rd + h * c.rh + w * c.rw
    for j in range(deep):
        for k in range(high):
            for m in range(wide):
                place = base + j * c.step_d * c.rd + k * c.step_h * c.rh + m * c.step_w * c.rw
                store(place, 0, load(place, 0, like) + share, like)


@jit
def finish(c: Any, n: Any, channel: Any, like: Any) -> None:
    """What lp's inputs got, times x^(p - 1); what no window reads stays 0."""
    for d in range(c.input_d):
        for h in range(c.input_h):
            for w in range(c.input_w):
                if load(c.read_d, d, 0) * load(c.read_h, h, 0) * load(c.read_w, w, 0) != 0:
                    x = float(load(c.source + n * c.sn + channel * c.sc + d * c.sd + h * c.sh + w * c.sw, 0, like))
                    place = c.result + n * c.rn + channel * c.rc + d * c.rd + h * c.rh + w * c.rw
                    store(place, 0, load(place, 0, like) * x ** (c.norm - 1.0), like)


def scatter_stage(c: Any, part: Any, like: Any, size: Any) -> None:
    """Gradients of max and min: each output's goes to where it was found."""
    items, area, width = c.batch * c.channels, c.input_h * c.input_w, c.input_w
    for item in range(part * items // c.parts, (part + 1) * items // c.parts):
        n, channel = item // c.channels, item % c.channels
        plane = c.result + n * c.rn + channel * c.rc
        clear(c, plane, like)
        for od in range(c.depth):
            for oh in range(c.rows):
                for ow in range(c.columns):
                    at = load(c.indices + n * c.jn + channel * c.jc + od * c.jd + oh * c.jh + ow * c.jw, 0, 0)
                    place = plane + at // area * c.rd + at % area // width * c.rh + at % width * c.rw
                    share = load(c.first + n * c.fn + channel * c.fc + od * c.fd + oh * c.fh + ow * c.fw, 0, like)
                    store(place, 0, load(place, 0, like) + share, like)


STAGES = {"pool_select": select_stage, "pool_sum": sum_stage, "pool_spread": spread_stage, "pool_scatter": scatter_stage}
