# mypy: ignore-errors
# Numba compiles this file: calls of intrinsics leave out what mypy takes for their first argument.
"""What is not finite, or very large, among the inputs of a tile and the weights, which fft's transforms have taken for 0: what
it adds to the outputs that see it (the native one is `kernels/fft_spoiled.hpp`).

A NaN makes them NaN whatever the weights are, so that it is enough to know how far the next one is, axis by axis. All else adds
its product with each weight of its channel. Where both factors are such, their product is added twice: it is NaN or infinite.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .contexts import OF_A_TILE
from .fft_stages import is_spoiled, spot
from .pipeline import jit
from .spectra import LARGEST
from .vectors import load, store

FAR = np.int32(1 << 30)
NEAR = np.int32(0)  # of the type that distances have


@jit
def counts(value: Any, size: Any) -> Any:
    most = LARGEST_FLOAT if size == 4 else LARGEST_DOUBLE
    return -most <= value <= most


LARGEST_FLOAT, LARGEST_DOUBLE = LARGEST[4], LARGEST[8]


@jit
def seen(c: Any, tile: Any) -> Any:
    """Along each axis the first padded coordinate that the outputs of a tile see, how many, and the outputs."""
    _, _, tile_d, tile_h, tile_w = spot(c, tile)
    d, h, w = c.of_d + 8 * OF_A_TILE * tile_d, c.of_h + 8 * OF_A_TILE * tile_h, c.of_w + 8 * OF_A_TILE * tile_w
    outputs = load(d, 1, 0), load(h, 1, 0), load(w, 1, 0)
    reach = (c.kernel_d - 1) * c.dilation_d, (c.kernel_h - 1) * c.dilation_h, (c.kernel_w - 1) * c.dilation_w
    return ((load(d, 0, 0), load(h, 0, 0), load(w, 0, 0)),
            (outputs[0] + reach[0], outputs[1] + reach[1], outputs[2] + reach[2]), outputs)


@jit
def element(c: Any, x: Any, d: Any, h: Any, w: Any, like: Any) -> Any:
    """That at padded coordinates."""
    from_d, from_h, from_w = load(c.map_d, d, 0), load(c.map_h, h, 0), load(c.map_w, w, 0)
    if from_d < 0 or from_h < 0 or from_w < 0:
        return like
    return load(x + from_d * c.xd + from_h * c.xh + from_w * c.xw, 0, like)


@jit
def sweep(at: Any, span: Any, step: Any, outputs: Any, dilation: Any, reach: Any) -> None:
    """How far it is to the next 0, tap by tap; then 0 for the outputs that see it."""
    for i in range(span - 1, -1, -1):
        there = load(at, (i + dilation) * step, NEAR) + dilation if i + dilation < span else FAR
        if load(at, i * step, NEAR) != 0:
            store(at, i * step, min(there, FAR), NEAR)
    for i in range(outputs):
        store(at, i * step, 0 if load(at, i * step, NEAR) <= reach else FAR, NEAR)


def find_stage(c: Any, tile: Any, first: Any, count: Any, begin: Any, end: Any, board: Any, desk: Any, like: Any,
               size: Any) -> None:
    """Which outputs of the tile see a NaN."""
    if begin == end or not is_spoiled(c, desk):
        return
    image, group, _, _, _ = spot(c, tile)
    (first_d, first_h, first_w), (span_d, span_h, span_w), (outputs_d, outputs_h, outputs_w) = seen(c, tile)
    at = board + c.next
    for i in range(span_d * span_h * span_w):
        store(at, i, FAR, NEAR)
    for channel in range(c.inputs):
        x = c.x + image * c.xn + (group * c.inputs + channel) * c.xc
        for d in range(span_d):
            for h in range(span_h):
                for w in range(span_w):
                    value = element(c, x, first_d + d, first_h + h, first_w + w, like)
                    if value != value:
                        store(at, (d * span_h + h) * span_w + w, 0, NEAR)
    for row in range(span_d * span_h):
        sweep(at + 4 * row * span_w, span_w, 1, outputs_w, c.dilation_w, span_w - outputs_w)
    for d in range(span_d):
        for w in range(outputs_w):
            sweep(at + 4 * (d * span_h * span_w + w), span_h, span_w, outputs_h, c.dilation_h, span_h - outputs_h)
    for h in range(outputs_h):
        for w in range(outputs_w):
            sweep(at + 4 * (h * span_w + w), span_d, span_h * span_w, outputs_d, c.dilation_d, span_d - outputs_d)


@jit
def scatter(c: Any, sums: Any, outputs: Any, d: Any, h: Any, w: Any, value: Any, weights: Any, like: Any) -> None:
    """An input times all weights of its channel."""
    for i in range(c.kernel_d):
        for j in range(c.kernel_h):
            o_d, o_h = d - i * c.dilation_d, h - j * c.dilation_h
            if o_d < 0 or o_d >= outputs[0] or o_h < 0 or o_h >= outputs[1]:
                continue
            for k in range(c.kernel_w):
                o_w = w - k * c.dilation_w
                if 0 <= o_w < outputs[2]:
                    at = (o_d * outputs[1] + o_h) * outputs[2] + o_w
                    weight = load(weights, (i * c.kernel_h + j) * c.kernel_w + k, like)
                    store(sums, at, load(sums, at, like) + value * weight, like)


@jit
def add_taps(c: Any, x: Any, sums: Any, first: Any, outputs: Any, weights: Any, like: Any, size: Any) -> None:
    """Weights of a channel times the inputs that they meet."""
    for tap in range(c.kernel_d * c.kernel_h * c.kernel_w):
        weight = load(weights, tap, like)
        if counts(weight, size):
            continue
        d = first[0] + tap // (c.kernel_h * c.kernel_w) * c.dilation_d
        h = first[1] + tap // c.kernel_w % c.kernel_h * c.dilation_h
        w = first[2] + tap % c.kernel_w * c.dilation_w
        at = 0
        for i in range(outputs[0]):
            for j in range(outputs[1]):
                for k in range(outputs[2]):
                    value = element(c, x, d + i, h + j, w + k, like)
                    store(sums, at, load(sums, at, like) + value * weight, like)
                    at += 1


def add_stage(c: Any, tile: Any, first: Any, count: Any, begin: Any, end: Any, board: Any, desk: Any, like: Any,
              size: Any) -> None:
    """The sums of each output channel that has any."""
    image, group, _, _, _ = spot(c, tile)
    spoiled = is_spoiled(c, desk)
    firsts, (span_d, span_h, span_w), outputs = seen(c, tile)
    for i in range(begin, end):
        channel = group * c.outputs + first + i
        odd = load(c.weights + c.odd, channel, 0) != 0
        if not spoiled and not odd:
            continue
        sums = board + c.sums + i * c.most_outputs * size
        at = 0
        for d in range(outputs[0]):
            for h in range(outputs[1]):
                for w in range(outputs[2]):
                    sees = spoiled and load(board + c.next, (d * span_h + h) * span_w + w, NEAR) == 0
                    store(sums, at, np.nan if sees else like, like)
                    at += 1
        for k in range(c.inputs):
            x = c.x + image * c.xn + (group * c.inputs + k) * c.xc
            weights = c.weights + c.plain + (channel * c.depth + k * c.kernel_d * c.kernel_h * c.kernel_w) * size
            if odd:
                add_taps(c, x, sums, firsts, outputs, weights, like, size)
            for place in range(span_d * span_h * span_w if spoiled else 0):
                d, h, w = place // (span_h * span_w), place // span_w % span_h, place % span_w
                value = element(c, x, firsts[0] + d, firsts[1] + h, firsts[2] + w, like)
                if value == value and not counts(value, size):
                    scatter(c, sums, outputs, d, h, w, value, weights, like)


STAGES = {"fft find": (find_stage, 7), "fft add": (add_stage, 7)}
