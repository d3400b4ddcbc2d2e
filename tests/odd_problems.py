"""Odd problems from a number: any valid combination, small, around the sizes that kernels block by."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from typing import Any

from fastconv.problem import ACTIVATIONS, ConvProblem
from fastconv.window import PADDING_MODES

_CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 65)
_LENGTHS = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 18, 23, 31, 32, 33, 47, 64, 65, 66)
_KERNELS = (1, 1, 2, 3, 3, 3, 4, 5, 6, 7, 9)
_LARGEST, _MOST = 60_000, 8_000  # multiply-adds, outputs


def odd_problem(dice: random.Random) -> ConvProblem:
    ndim = dice.choice((1, 2, 2, 2, 3))

    def per_axis(values: Sequence[Any]) -> tuple[Any, ...]:
        return (dice.choice(values),) * ndim if dice.random() < 0.6 else tuple(dice.choice(values) for _ in range(ndim))

    size, kernel = tuple(dice.choice(_LENGTHS) for _ in range(ndim)), per_axis(_KERNELS)
    if dice.random() < 0.05:
        kernel = (*kernel[:-1], dice.choice((11, 15, 31)))
    stride = per_axis((1, 1, 1, 1, 2, 2, 3, 4, 6))
    dilation = per_axis((1, 1, 1, 1, 2, 3, 6))
    padding = _padding(dice, kernel, dilation)
    kernel = tuple(min(k, (i + lo + hi - 1) // d + 1) for i, (lo, hi), k, d in zip(size, padding, kernel, dilation))
    groups, inputs, outputs = _channels(dice)
    batch = dice.choice((1, 1, 1, 2, 3))
    size, groups, inputs, outputs = _smaller(size, kernel, stride, padding, dilation, batch, groups, inputs, outputs)
    activation: Any = dice.choice((None, None, None, *ACTIVATIONS, ("leaky_relu", dice.randint(-20, 20) / 10)))
    made = ConvProblem(
        size, kernel, groups * inputs, groups * outputs, batch, groups, stride, padding, dilation,
        dice.choice(("zeros", "zeros", *PADDING_MODES)), dice.choice(("float32", "float32", "float64")),
        dice.choice(("channels_first", "channels_last")), bias=dice.random() < 0.5, residual=dice.random() < 0.3,
        activation=activation, accuracy=dice.choice(("fast", "fast", "loose", "strict")))
    return _of_other_direction(made, dice) if dice.random() < 0.25 else made


def odd_depthwise(dice: random.Random) -> ConvProblem:
    """One of a channel per group: mostly the gradient of the input, mostly with a stride of 2 along the last axis."""
    made = odd_problem(dice)
    stride = dice.choice((made.stride, (*made.stride[:-1], 2), (2,) * made.ndim))
    padding = tuple((low, max(0, high)) for low, high in made.padding)
    size, groups, _, _ = _smaller(made.input_size, made.kernel_size, stride, padding, made.dilation, made.batch,
                                  dice.choice(_CHANNELS), 1, 1)
    groups = max(1, min(groups, 400_000 // (made.batch * math.prod(size))))  # few outputs may read more than there is room for
    return dataclasses.replace(
        made, input_size=size, in_channels=groups, out_channels=groups, groups=groups, stride=stride, padding=padding,
        padding_mode="zeros", direction=dice.choice(("forward", "backward_input", "backward_input")))


def odd_square(dice: random.Random) -> ConvProblem:
    """One of a channel per group, of images, with a square kernel: what tiles are written for that are unrolled."""
    made = odd_problem(dice)
    kernel, stride = dice.choice((3, 3, 5, 7, 9)), dice.choice((1, 2))
    padding = tuple((kernel // 2 + dice.choice((0, 0, 1, kernel)), kernel // 2) for _ in range(2))
    size, groups, _, outputs = _smaller((dice.choice(_LENGTHS), dice.choice(_LENGTHS)), (kernel,) * 2, (stride,) * 2, padding,
                                        (1, 1), made.batch, dice.choice(_CHANNELS), 1, dice.choice((1, 1, 2)))
    layout = dice.choice(("channels_first", "channels_first", "channels_last"))
    return dataclasses.replace(
        made, input_size=size, kernel_size=(kernel,) * 2, in_channels=groups, out_channels=groups * outputs, groups=groups,
        stride=(stride,) * 2, padding=padding, dilation=(1, 1), padding_mode="zeros", layout=layout, direction="forward")


def _of_other_direction(problem: ConvProblem, dice: random.Random) -> ConvProblem:
    """A gradient, or a transposed convolution."""
    direction = dice.choice(("backward_input", "backward_weight"))
    if direction == "backward_weight" or problem.padding_mode != "zeros":
        problem = dataclasses.replace(problem, bias=False, residual=False, activation=None)
    return dataclasses.replace(problem, direction=direction)


def _padding(dice: random.Random, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    kind = dice.randrange(4)
    if kind == 0:
        return ((0, 0),) * len(kernel)
    if kind == 1:  # "same"
        return tuple((d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2) for k, d in zip(kernel, dilation))
    return tuple((dice.randint(0, 2 + kind * k), dice.randint(0, 2 + kind * k)) for k in kernel)


def _channels(dice: random.Random) -> tuple[int, int, int]:
    """(groups, input channels of a group, output channels of a group)."""
    kind = dice.randrange(6)
    if kind == 0:  # depthwise
        return dice.choice(_CHANNELS), 1, dice.choice((1, 1, 1, 2))
    if kind == 1:
        return dice.choice((2, 3, 5, 8, 13)), dice.choice(_CHANNELS[:10]), dice.choice(_CHANNELS[:10])
    if kind == 2:  # many products, or many outputs
        return 1, *dice.sample((dice.choice((260, 515, 600)), dice.choice(_CHANNELS)), 2)
    return 1, dice.choice(_CHANNELS), dice.choice(_CHANNELS)


def _smaller(size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[tuple[int, int], ...],
             dilation: tuple[int, ...], batch: int, groups: int, inputs: int, outputs: int
             ) -> tuple[tuple[int, ...], int, int, int]:
    """What is too large shrinks: the larger of channels and pixels by a third, again and again."""
    while True:
        axes = zip(size, padding, kernel, dilation, stride)
        pixels = batch * math.prod((i + lo + hi - d * (k - 1) - 1) // s + 1 for i, (lo, hi), k, d, s in axes)
        channels = groups * inputs * outputs
        if pixels * math.prod(kernel) * channels <= _LARGEST and pixels * groups * outputs <= _MOST:
            return size, groups, inputs, outputs
        axis = max(range(len(size)), key=size.__getitem__)
        needed = max(1, dilation[axis] * (kernel[axis] - 1) + 1 - sum(padding[axis]))
        if pixels > channels and size[axis] > needed:
            size = (*size[:axis], max(needed, size[axis] * 2 // 3), *size[axis + 1:])
        elif max(groups, inputs, outputs) > 1:
            most = max(groups, inputs, outputs)
            if groups == most:
                groups = groups * 2 // 3
            elif inputs == most:
                inputs = inputs * 2 // 3
            else:
                outputs = outputs * 2 // 3
        elif size[axis] > needed:
            size = (*size[:axis], needed, *size[axis + 1:])
        else:
            return size, groups, inputs, outputs
