"""The table that tells a CUDA kernel its sizes and strides: int64 numbers at fixed places, then a row of four int32 per k
(offset of the tap from where its window starts, in elements, and its coordinates within the window).

One pointer instead of thirty arguments: an argument costs about half a microsecond of every launch.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from ...problem import ConvProblem

(N, M, GROUPS, STEPS, TOTAL_STEPS, MP, BIAS, TAPS, OUT_D, OUT_H, OUT_W, IN_D, IN_H, IN_W, STRIDE_D, STRIDE_H, STRIDE_W, PAD_D,
 PAD_H, PAD_W, KERNEL_D, KERNEL_H, KERNEL_W, DILATION_D, DILATION_H, DILATION_W, X_N, X_G, X_C, X_D, X_H, X_W, Y_N, Y_C, Y_D,
 Y_H, Y_W, R_N, R_C, R_D, R_H, R_W, PARTS, CHANNELS, ROW_BLOCKS) = range(45)
HEADER = 48  # numbers
TAPS_AT = 8 * HEADER  # bytes: a multiple of 16
OUTSIDE = 2**30  # a coordinate that no input contains: k past the sum


def three(values: Any, fill: int) -> tuple[int, int, int]:
    """One value per axis (depth, height, width); absent leading axes get `fill`."""
    values = tuple(values)
    return (fill,) * (3 - len(values)) + values


def steps_of(problem: ConvProblem, strides: tuple[int, ...]) -> tuple[int, int, tuple[int, int, int]]:
    """(image, channel, (depth, height, width)) of an array's strides in this problem's layout; 0 for absent axes."""
    if problem.channels_last:
        return strides[0], strides[-1], three(strides[1:-1], 0)
    return strides[0], strides[1], three(strides[2:], 0)


def tap_order(problem: ConvProblem, channels_inner: bool) -> np.ndarray:
    """Rows (channel, depth, height, width) of the taps, in the order in which they are summed."""
    channels = range(problem.in_channels // problem.groups)
    kernel = [range(k) for k in three(problem.kernel_size, 1)]
    if channels_inner:
        rows = [(c, *tap) for tap in itertools.product(*kernel) for c in channels]
    else:
        rows = list(itertools.product(channels, *kernel))
    return np.array(rows, dtype=np.int64).reshape(-1, 4)


def build(problem: ConvProblem, order: np.ndarray, rows: int, x: tuple[int, ...], y: tuple[int, ...],
          residual: tuple[int, ...] | None, **numbers: int) -> np.ndarray:
    """The table as int64 numbers. `x`, `y`, `residual`: strides in elements; `rows`: taps, rounded up to whole steps, or
    0 for a table without them; `numbers`: further entries by name."""
    header = np.zeros(HEADER, np.int64)

    def put(first: int, *values: int) -> None:
        header[first:first + len(values)] = values

    group_inputs = problem.in_channels // problem.groups
    put(N, problem.batch * math.prod(problem.output_size), problem.out_channels // problem.groups, problem.groups)
    put(OUT_D, *three(problem.output_size, 1), *three(problem.input_size, 1), *three(problem.stride, 1),
        *three((low for low, _ in problem.padding), 0), *three(problem.kernel_size, 1), *three(problem.dilation, 1))
    image, channel, space = steps_of(problem, x)
    put(X_N, image, channel * group_inputs, channel, *space)
    for first, strides in ((Y_N, y), (R_N, residual or y)):
        put(first, *itertools.chain.from_iterable(_flat(steps_of(problem, strides))))
    put(TAPS, len(order))
    for name, value in numbers.items():
        header[globals()[name]] = value
    return np.concatenate([header, _tap_rows(problem, order, rows, channel, space)]) if rows else header


def _tap_rows(problem: ConvProblem, order: np.ndarray, rows: int, channel: int, space: tuple[int, int, int]) -> np.ndarray:
    reach = order[:, 1:] * np.array(three(problem.dilation, 1))
    offsets = order[:, 0] * channel + reach @ np.array(space)
    if np.abs(offsets).max() >= 2**31 or reach.max() >= OUTSIDE:
        raise OverflowError("a window spans more than 2**31 elements")
    taps = np.zeros((rows, 4), np.int32)
    taps[:, 1:] = OUTSIDE
    taps[: len(order), 0], taps[: len(order), 1:] = offsets, reach
    return taps.view(np.int64).ravel()


def _flat(steps: tuple[int, int, tuple[int, int, int]]) -> tuple[tuple[int, ...], ...]:
    image, channel, space = steps
    return (image, channel), space
