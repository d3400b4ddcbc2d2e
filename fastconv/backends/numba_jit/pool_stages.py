# mypy: ignore-errors
# Numba compiles this file: calls of intrinsics leave out what mypy takes for their first argument.
"""The compiled loops of pooling, over the tables of a `PoolProblem`: one for what selects, one for what sums, their gradients.

A job is cut into items: a line of outputs (forward), or a plane, all outputs of which add to the same inputs (gradients). A
thread takes a contiguous range of items, and no item is cut, so results do not depend on threads.

What lies side by side is gone through together, in a line of scratch memory. With channels first these are the pixels of a row:
the rows of the windows are reduced into one, then the taps along it (a box is separable). With channels last these are `inside`
channels of a pixel: the taps are reduced one after the other.

Bottleneck: one vector compare or add per row tap, from L1; then one scalar per tap along the row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .pipeline import jit
from .vectors import load, store


@jit
def blocks(c: Any) -> Any:
    """How many blocks of channels there are."""
    return (c.channels + c.inside - 1) // c.inside


@jit
def line(c: Any, item: Any) -> Any:
    """(image, first channel, how many, plane, row) of an output line."""
    rest, row = item // c.rows, item % c.rows
    rest, plane = rest // c.depth, rest % c.depth
    begin = rest % blocks(c) * c.inside
    return rest // blocks(c), begin, min(c.inside, c.channels - begin), plane, row


@jit
def taps(c: Any, od: Any, oh: Any, ow: Any) -> Any:
    """Of an output's window, along each axis: (the first input, how many taps)."""
    return (load(c.first_d, od, 0), load(c.first_h, oh, 0), load(c.first_w, ow, 0),
            load(c.count_d, od, 0), load(c.count_h, oh, 0), load(c.count_w, ow, 0))


@jit
def better(value: Any, best: Any, largest: Any) -> Any:
    return (value > best if largest else value < best) | (value != value)


@jit
def keep(target: Any, source: Any, hop: Any, count: Any, largest: Any, like: Any, size: Any) -> None:
    """Where the `count` elements at `source`, `hop` bytes apart, are better than those side by side at `target`, these become
    them."""
    if hop == size and largest:
        for i in range(count):
            value, best = load(source, i, like), load(target, i, like)
            store(target, i, value if (value > best) | (value != value) else best, like)
    elif hop == size:
        for i in range(count):
            value, best = load(source, i, like), load(target, i, like)
            store(target, i, value if (value < best) | (value != value) else best, like)
    else:
        for i in range(count):
            value, best = load(source + i * hop, 0, like), load(target, i, like)
            store(target, i, value if better(value, best, largest) else best, like)


@jit
def copy(target: Any, step: Any, source: Any, hop: Any, count: Any, like: Any, size: Any) -> None:
    """`count` elements, `hop` bytes apart, to places `step` bytes apart."""
    if hop == size and step == size:
        for i in range(count):
            store(target, i, load(source, i, like), like)
    else:
        for i in range(count):
            store(target + i * step, 0, load(source + i * hop, 0, like), like)


def select_stage(c: Any, part: Any, like: Any, size: Any) -> None:
    """The largest or smallest of each window."""
    lines, scratch = c.batch * blocks(c) * c.depth * c.rows, c.scratch + part * c.scratch_bytes
    largest, step_w, columns = c.largest, c.step_w, c.columns
    for item in range(part * lines // c.parts, (part + 1) * lines // c.parts):
        n, channel, inside, od, oh = line(c, item)
        origin = c.first + n * c.fn + channel * c.fc
        target = c.result + n * c.rn + channel * c.rc + od * c.rd + oh * c.rh
        d, h, _, deep, high, _ = taps(c, od, oh, 0)
        if c.by_rows:
            for tap in range(deep * high):
                row = origin + (d + tap // high * c.step_d) * c.fd + (h + tap % high * c.step_h) * c.fh
                if tap == 0:
                    copy(scratch, size, row, c.fw, c.input_w, like, size)
                else:
                    keep(scratch, row, c.fw, c.input_w, largest, like, size)
            first_w, count_w, rw = c.first_w, c.count_w, c.rw
            for ow in range(columns):
                w = load(first_w, ow, 0)
                best = load(scratch, w, like)
                for m in range(1, load(count_w, ow, 0)):
                    value = load(scratch, w + m * step_w, like)
                    best = value if better(value, best, largest) else best
                store(target + ow * rw, 0, best, like)
        else:
            for ow in range(columns):
                d, h, w, deep, high, wide = taps(c, od, oh, ow)
                for tap in range(deep * high * wide):
                    rest, m = tap // wide, tap % wide
                    place = (origin + (d + rest // high * c.step_d) * c.fd + (h + rest % high * c.step_h) * c.fh
                             + (w + m * step_w) * c.fw)
                    if tap == 0:
                        copy(scratch, size, place, c.fc, inside, like, size)
                    else:
                        keep(scratch, place, c.fc, inside, largest, like, size)
                copy(target + ow * c.rw, c.rc, scratch, size, inside, like, size)


def find_stage(c: Any, part: Any, like: Any, size: Any) -> None:
    """The largest or smallest of each window, and where it is: the first of equals, the last NaN."""
    lines = c.batch * blocks(c) * c.depth * c.rows
    largest, step_d, step_h, step_w = c.largest, c.step_d, c.step_h, c.step_w
    width, area = c.input_w, c.input_h * c.input_w
    fc, fd, fh, fw = c.fc, c.fd * step_d, c.fh * step_h, c.fw * step_w
    for item in range(part * lines // c.parts, (part + 1) * lines // c.parts):
        n, begin, inside, od, oh = line(c, item)
        for ow in range(c.columns):
            d, h, w, deep, high, wide = taps(c, od, oh, ow)
            origin = c.first + n * c.fn + d * c.fd + h * c.fh + w * c.fw
            for channel in range(begin, begin + inside):
                base = origin + channel * fc
                best, at = load(base, 0, like), d * area + h * width + w
                for j in range(deep):
                    for k in range(high):
                        place, start = base + j * fd + k * fh, (d + j * step_d) * area + (h + k * step_h) * width + w
                        for m in range(wide):
                            value = load(place + m * fw, 0, like)
                            wins = better(value, best, largest)
                            best = value if wins else best
                            at = start + m * step_w if wins else at
                store(c.result + n * c.rn + channel * c.rc + od * c.rd + oh * c.rh + ow * c.rw, 0, best, like)
                store(c.indices + n * c.jn + channel * c.jc + od * c.jd + oh * c.jh + ow * c.jw, 0, at, 0)


@jit
def scaled(c: Any, total: Any, od: Any, oh: Any, ow: Any) -> Any:
    """A window's sum over the average's divisor, times lp's scale."""
    if c.override != 0:
        return total / c.override * c.scale
    return total / (load(c.divisor_d, od, 0) * load(c.divisor_h, oh, 0) * load(c.divisor_w, ow, 0)) * c.scale


@jit
def power(value: Any, norm: Any) -> Any:
    """As NumPy: 0.5 is the square root, NaN of -Inf, for which C's pow gives Inf."""
    if norm == 2.0:
        return value * value
    return np.sqrt(value) if norm == 0.5 else value ** norm


@jit
def add(target: Any, source: Any, hop: Any, count: Any, powers: Any, norm: Any, like: Any, size: Any) -> None:
    """Add the `count` elements at `source`, `hop` bytes apart, or their powers, to the float64 side by side at `target`."""
    if powers:
        for i in range(count):
            store(target, i, load(target, i, 0.0) + power(float(load(source + i * hop, 0, like)), norm), 0.0)
    elif hop == size:
        for i in range(count):
            store(target, i, load(target, i, 0.0) + load(source, i, like), 0.0)
    else:
        for i in range(count):
            store(target, i, load(target, i, 0.0) + load(source + i * hop, 0, like), 0.0)


@jit
def zero(target: Any, count: Any) -> None:
    for i in range(count):
        store(target, i, 0.0, 0.0)


@jit
def finished(c: Any, total: Any, od: Any, oh: Any, ow: Any) -> Any:
    total = scaled(c, total, od, oh, ow)
    return total ** (1.0 / c.norm) if c.powers else total


def sum_stage(c: Any, part: Any, like: Any, size: Any) -> None:
    """Averages and norms; sums in float64."""
    lines, scratch = c.batch * blocks(c) * c.depth * c.rows, c.scratch + part * c.scratch_bytes
    powers, norm, step_w, rc = c.powers, c.norm, c.step_w, c.rc
    for item in range(part * lines // c.parts, (part + 1) * lines // c.parts):
        n, channel, inside, od, oh = line(c, item)
        origin = c.first + n * c.fn + channel * c.fc
        target = c.result + n * c.rn + channel * c.rc + od * c.rd + oh * c.rh
        d, h, _, deep, high, _ = taps(c, od, oh, 0)
        if c.by_rows:
            zero(scratch, c.input_w)
            for tap in range(deep * high):
                row = origin + (d + tap // high * c.step_d) * c.fd + (h + tap % high * c.step_h) * c.fh
                add(scratch, row, c.fw, c.input_w, powers, norm, like, size)
            for ow in range(c.columns):
                w = load(c.first_w, ow, 0)
                total = 0.0
                for m in range(load(c.count_w, ow, 0)):
                    total += load(scratch, w + m * step_w, 0.0)
                store(target + ow * c.rw, 0, finished(c, total, od, oh, ow), like)
        else:
            for ow in range(c.columns):
                d, h, w, deep, high, wide = taps(c, od, oh, ow)
                zero(scratch, inside)
                for tap in range(deep * high * wide):
                    rest, m = tap // wide, tap % wide
                    place = (origin + (d + rest // high * c.step_d) * c.fd + (h + rest % high * c.step_h) * c.fh
                             + (w + m * step_w) * c.fw)
                    add(scratch, place, c.fc, inside, powers, norm, like, size)
                for i in range(inside):
                    store(target + ow * c.rw + i * rc, 0, finished(c, load(scratch, i, 0.0), od, oh, ow), like)


@jit
def clear(c: Any, plane: Any, like: Any) -> None:
    """A plane of the result becomes 0."""
    for d in range(c.input_d):
        for h in range(c.input_h):
            for w in range(c.input_w):
                store(plane + d * c.rd + h * c.rh + w * c.rw, 0, like, like)


@jit
def add_back(target: Any, hop: Any, source: Any, count: Any, like: Any, size: Any) -> None:
    """Add the `count` float64 side by side at `source` to the elements at `target`, `hop` bytes apart."""
    if hop == size:
        for i in range(count):
            store(target, i, load(target, i, like) + load(source, i, 0.0), like)
    else:
        for i in range(count):
            store(target + i * hop, 0, load(target + i * hop, 0, like) + load(source, i, 0.0), like)


@jit
def share(c: Any, n: Any, channel: Any, od: Any, oh: Any, ow: Any, like: Any) -> Any:
    """What an output gives to each of its taps."""
    given = float(load(c.first + n * c.fn + channel * c.fc + od * c.fd + oh * c.fh + ow * c.fw, 0, like))
    given = scaled(c, given, od, oh, ow)
    if not c.powers:
        return given
    d, h, w, deep, high, wide = taps(c, od, oh, ow)
    base, total = c.source + n * c.sn + channel * c.sc, 0.0
    for j in range(deep):
        for k in range(high):
            row = base + (d + j * c.step_d) * c.sd + (h + k * c.step_h) * c.sh
            for m in range(wide):
                total += power(float(load(row + (w + m * c.step_w) * c.sw, 0, like)), c.norm)
    total = scaled(c, total, od, oh, ow)
    return given * (total ** (1.0 / c.norm - 1.0) if total != 0.0 else 0.0)


def spread_stage(c: Any, part: Any, like: Any, size: Any) -> None:
    """Gradients of averages and norms: each output's goes to all taps of its window."""
    planes, scratch = c.batch * blocks(c), c.scratch + part * c.scratch_bytes
    for item in range(part * planes // c.parts, (part + 1) * planes // c.parts):
        n, begin = item // blocks(c), item % blocks(c) * c.inside
        inside = min(c.inside, c.channels - begin)
        for channel in range(begin, begin + inside):
            clear(c, c.result + n * c.rn + channel * c.rc, like)
        target = c.result + n * c.rn + begin * c.rc
        for od in range(c.depth):
            for oh in range(c.rows):
                if c.by_rows:
                    spread_row(c, n, begin, od, oh, target, scratch, like, size)
                else:
                    spread_pixels(c, n, begin, inside, od, oh, target, scratch, like, size)
        if c.powers:
            for channel in range(begin, begin + inside):
                finish(c, n, channel, like)


@jit
def spread_row(c: Any, n: Any, channel: Any, od: Any, oh: Any, target: Any, scratch: Any, like: Any, size: Any) -> None:
    zero(scratch, c.input_w)
    step_w = c.step_w
    for ow in range(c.columns):
        given, w = share(c, n, channel, od, oh, ow, like), load(c.first_w, ow, 0)
        for m in range(load(c.count_w, ow, 0)):
            store(scratch, w + m * step_w, load(scratch, w + m * step_w, 0.0) + given, 0.0)
    d, h, _, deep, high, _ = taps(c, od, oh, 0)
    for j in range(deep):
        for k in range(high):
            row = target + (d + j * c.step_d) * c.rd + (h + k * c.step_h) * c.rh
            add_back(row, c.rw, scratch, c.input_w, like, size)


@jit
def spread_pixels(c: Any, n: Any, begin: Any, inside: Any, od: Any, oh: Any, target: Any, scratch: Any, like: Any,
                  size: Any) -> None:
    for ow in range(c.columns):
        for i in range(inside):
            store(scratch, i, share(c, n, begin + i, od, oh, ow, like), 0.0)
        d, h, w, deep, high, wide = taps(c, od, oh, ow)
        for j in range(deep):
            for k in range(high):
                row = target + (d + j * c.step_d) * c.rd + (h + k * c.step_h) * c.rh
                for m in range(wide):
                    add_back(row + (w + m * c.step_w) * c.rw, c.rc, scratch, inside, like, size)


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
    planes, area, width = c.batch * blocks(c), c.input_h * c.input_w, c.input_w
    rc, rd, rh, rw, fc, fw, jc, jw = c.rc, c.rd, c.rh, c.rw, c.fc, c.fw, c.jc, c.jw
    flat = rh == width * rw and rd == area * rw  # an index is a place
    for item in range(part * planes // c.parts, (part + 1) * planes // c.parts):
        n, begin = item // blocks(c), item % blocks(c) * c.inside
        inside = min(c.inside, c.channels - begin)
        target = c.result + n * c.rn + begin * rc
        for channel in range(inside):
            clear(c, target + channel * rc, like)
        for outer in range(c.depth * c.rows):
            od, oh = outer // c.rows, outer % c.rows
            places = c.indices + n * c.jn + begin * jc + od * c.jd + oh * c.jh
            given = c.first + n * c.fn + begin * fc + od * c.fd + oh * c.fh
            for ow in range(c.columns):
                for i in range(inside):
                    at = load(places + i * jc + ow * jw, 0, 0)
                    place = target + i * rc + (at * rw if flat else at // area * rd + at % area // width * rh + at % width * rw)
                    store(place, 0, load(place, 0, like) + load(given + i * fc + ow * fw, 0, like), like)


STAGES = {"pool_select": select_stage, "pool_find": find_stage, "pool_sum": sum_stage, "pool_spread": spread_stage,
          "pool_scatter": scatter_stage}
