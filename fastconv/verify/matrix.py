"""The problems that `fastconv check` and the tests go through: small, and each there for a reason.

Every line is one geometry, at most about 30,000 multiply-adds so that the plain loops of the oracle take milliseconds. It is
taken in two forms: float32 in one layout, and in the other as float64, or (every third) as float32 again. Sizes are chosen
around what kernels block by: 4, 6, 8, 14, 16, 32 and 48 output channels or pixels, K = 512 and more products, and one more or
one less of each.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from ..problem import ACTIVATIONS, ConvProblem
from ..window import PADDING_MODES


def matrix(quick: bool = False) -> tuple[ConvProblem, ...]:
    """All problems; `quick`: every fifth geometry (each still in both forms)."""
    return tuple(p for i, p in enumerate(_matrix()) if not quick or i // 2 % 5 == 0)


def other_directions(quick: bool = False) -> tuple[ConvProblem, ...]:
    """Each geometry as a gradient of the input and of the weight, one of them float64; `quick`: every fifth."""
    found = []
    for i, problem in enumerate(_geometries()):
        if not quick or i % 5 == 0:
            layouts = ("channels_first", "channels_last")
            of_input = dataclasses.replace(
                problem, direction="backward_input", layout=layouts[i % 2], dtype=("float32", "float64")[i // 2 % 2])
            if problem.padding_mode != "zeros":  # the gradient alone, then
                of_input = dataclasses.replace(of_input, bias=False, residual=False, activation=None)
            of_weight = dataclasses.replace(
                problem, direction="backward_weight", layout=layouts[i // 2 % 2], dtype=("float64", "float32")[i % 2],
                bias=False, residual=False, activation=None)
            found += [of_input, of_weight]
    return tuple(found)


@functools.cache
def _matrix() -> tuple[ConvProblem, ...]:
    return tuple(form for i, problem in enumerate(_geometries()) for form in _forms(problem, i))


@functools.cache
def _geometries() -> tuple[ConvProblem, ...]:
    return (*_one_axis(), *_two_axes(), *_tails(), *_groups(), *_padding(), *_deep(), *_transformed(), *_epilogues(),
            *_three_axes(), *_read_by_few(), *_products_of_some_images())


def _forms(problem: ConvProblem, index: int) -> Iterator[ConvProblem]:
    first, last = (dataclasses.replace(problem, layout=layout) for layout in ("channels_first", "channels_last"))
    one, other = ((first, last), (last, first), (first, last))[index % 3]
    yield one
    yield other if index % 3 == 2 else dataclasses.replace(other, dtype="float64")


def _case(name: str, channels: tuple[int, int], size: tuple[int, ...], kernel: Any, *, batch: int = 1, groups: int = 1,
          **keywords: Any) -> ConvProblem:
    """(in, out) channels; a kernel of one number holds for all axes."""
    kernel = kernel if isinstance(kernel, tuple) else (kernel,) * len(size)
    bias = (channels[1],) if keywords.pop("bias", True) else None
    made = ConvProblem.from_shapes((batch, channels[0], *size), (channels[1], channels[0] // groups, *kernel), ndim=len(size),
                                   bias_shape=bias, groups=groups, **keywords)
    return dataclasses.replace(made, name=name)


def _one_axis() -> Iterator[ConvProblem]:
    yield _case("1d", (3, 5), (17,), 3, padding=1, batch=2)
    yield _case("1d stride", (4, 6), (37,), 7, stride=2, padding=((3, 2),))
    yield _case("1d dilation, groups", (6, 9), (23,), 5, dilation=3, padding=6, groups=3, padding_mode="reflect")
    yield _case("1d depthwise", (19, 19), (29,), 3, padding=1, groups=19)
    yield _case("1d one pixel", (7, 3), (1,), 1)
    yield _case("1d kernel is input", (3, 4), (11,), 11)
    yield _case("1d stride over kernel", (2, 3), (41,), 3, stride=5)
    yield _case("1d pointwise", (13, 17), (31,), 1, batch=3)
    yield _case("1d long", (1, 1), (1009,), 9, padding="same")
    yield _case("1d full", (2, 3), (19,), 6, padding="full")


def _two_axes() -> Iterator[ConvProblem]:
    yield _case("3x3", (8, 8), (7, 6), 3, padding=1)
    yield _case("3x3 no padding, no bias", (5, 7), (9, 11), 3, bias=False)
    yield _case("3x3 stride", (4, 9), (11, 12), 3, stride=2, padding=1)
    yield _case("3x3 strides 3, 1", (3, 8), (13, 9), 3, stride=(3, 1), padding=1, batch=2)
    yield _case("7x7 stride", (3, 4), (13, 14), 7, stride=2, padding=3)
    yield _case("stride over kernel", (6, 5), (13, 17), (1, 2), stride=(2, 3), batch=2)
    yield _case("dilation", (4, 5), (11, 13), 3, dilation=(2, 3), padding=(2, 3))
    yield _case("dilation, stride", (5, 6), (17, 12), (3, 2), dilation=(3, 5), stride=2, padding=3)
    yield _case("dilation over input", (6, 5), (7, 9), 3, dilation=(7, 12), padding=(7, 12))
    yield _case("dilation near input", (5, 17), (9, 11), 3, dilation=(5, 7), padding=(5, 7))
    yield _case("1xk", (5, 8), (5, 19), (1, 7), padding=(0, 3))
    yield _case("kx1", (5, 8), (19, 5), (7, 1), padding=(3, 0))
    yield _case("5x5", (3, 6), (7, 9), 5, padding=2)
    yield _case("one pixel", (37, 29), (1, 1), 1)
    yield _case("one pixel, 3x3", (5, 16), (1, 1), 3, padding=1)
    yield _case("one channel", (1, 1), (23, 29), 3, padding=1)
    yield _case("one channel in", (1, 16), (13, 13), 3)
    yield _case("kernel is input", (9, 11), (5, 7), (5, 7), batch=3)
    yield _case("one row", (7, 8), (1, 47), (1, 3), padding=(0, 1))
    yield _case("one column", (7, 8), (47, 1), (3, 1), padding=(1, 0))
    yield _case("batch", (3, 5), (5, 6), 3, padding=1, batch=7)
    yield _case("strict", (6, 7), (9, 8), 3, padding=1, accuracy="strict")
    yield _case("loose", (6, 7), (9, 8), 3, padding=1, accuracy="loose")


def _tails() -> Iterator[ConvProblem]:
    """Channels and pixels just beside multiples of the tiles."""
    for channels, size in (((3, 3), (5, 15)), ((2, 7), (7, 13)), ((5, 9), (4, 14)), ((4, 15), (5, 7)), ((3, 17), (3, 17)),
                           ((2, 31), (4, 9)), ((3, 33), (5, 5)), ((2, 49), (3, 6))):
        yield _case("3x3 tails", channels, size, 3, padding=1)
    for channels, size in (((17, 49), (5, 7)), ((16, 47), (1, 29)), ((31, 33), (3, 9)), ((33, 15), (7, 8)), ((64, 16), (2, 13)),
                           ((7, 97), (5, 6))):
        yield _case("1x1 tails", channels, size, 1)
    yield _case("1x1 stride", (11, 19), (8, 8), 1, stride=2)  # the last row and column are never read: high padding -1
    yield _case("1x1 stride 3", (8, 13), (9, 11), 1, stride=3, batch=2)


def _groups() -> Iterator[ConvProblem]:
    yield _case("2 groups", (6, 8), (7, 9), 3, padding=1, groups=2)
    yield _case("3 groups of 5 and 7", (15, 21), (5, 4), 3, padding=1, groups=3)
    yield _case("groups, 1x1", (24, 36), (5, 7), 1, groups=4, batch=2)
    yield _case("groups, one output each", (8, 4), (7, 8), 3, groups=4, padding=1, stride=2)
    yield _case("depthwise", (17, 17), (9, 11), 3, padding=1, groups=17)
    yield _case("depthwise, 8 channels", (8, 8), (13, 14), 3, padding=1, groups=8, batch=2)
    yield _case("depthwise stride", (33, 33), (9, 8), 3, padding=1, stride=2, groups=33)
    yield _case("depthwise 5x5", (16, 16), (9, 7), 5, padding=2, groups=16)
    yield _case("depthwise dilation", (7, 7), (11, 17), 3, padding=2, dilation=2, groups=7, padding_mode="replicate")
    yield _case("depthwise multiplier 2", (5, 10), (9, 7), 3, padding=1, groups=5)
    yield _case("depthwise multiplier 3", (9, 27), (6, 9), (3, 2), padding=((1, 1), (0, 1)), groups=9)
    yield _case("depthwise 7x7", (3, 3), (15, 23), 7, padding=3, groups=3)
    yield _case("depthwise 5x5 stride", (5, 5), (17, 19), 5, padding=2, stride=2, groups=5)
    yield _case("depthwise 7x7 stride", (3, 3), (16, 17), 7, padding=3, stride=2, groups=3, residual=True)
    yield _case("depthwise, strides 2, 1", (4, 4), (13, 18), 3, padding=1, stride=(2, 1), groups=4)
    yield _case("depthwise, strides 1, 3", (4, 4), (11, 22), 3, padding=(0, 2), stride=(1, 3), groups=4)
    yield _case("depthwise 9x2", (3, 3), (19, 17), (9, 2), padding=(4, 0), groups=3)
    yield _case("depthwise 1x3x3", (4, 4), (3, 6, 9), (1, 3, 3), padding=(1, 1, 1), groups=4)
    yield _case("depthwise 5x6, 3 channels", (3, 3), (7, 33), (5, 6), padding=((2, 2), (0, 3)), groups=3, batch=2)
    yield _case("depthwise 4x4 stride", (17, 17), (9, 21), 4, padding=1, stride=2, groups=17, padding_mode="reflect")
    yield _case("depthwise 2x5 dilation 3", (16, 16), (5, 29), (2, 5), padding=(1, 2), dilation=(2, 3), groups=16)
    yield _case("depthwise 1x4, stride, dilation 4", (18, 18), (3, 37), (1, 4), padding=2, stride=2, dilation=4, groups=18,
                residual=True)
    yield _case("depthwise, one image row", (12, 12), (1, 31), (1, 5), padding=(0, 2), groups=12)


def _padding() -> Iterator[ConvProblem]:
    for mode in PADDING_MODES:
        yield _case(f"asymmetric {mode}", (3, 5), (9, 8), (3, 4), padding=((0, 2), (3, 1)), padding_mode=mode)
        yield _case(f"over the input {mode}", (2, 3), (3, 4), 3, padding=((4, 5), (7, 3)), padding_mode=mode, stride=(1, 2))
        yield _case(f"low only, last unread {mode}", (4, 5), (8, 9), 2, padding=((1, 0), (1, 0)), stride=3, padding_mode=mode)
    yield _case("same, even kernel", (4, 5), (9, 10), (2, 4), padding="same")
    yield _case("same_lower, stride", (4, 5), (10, 9), (4, 2), padding="same_lower", stride=(2, 3))
    yield _case("full", (3, 4), (7, 6), (3, 4), padding="full")


def _deep() -> Iterator[ConvProblem]:
    """More products per output than a block of K holds."""
    yield _case("deep 3x3", (69, 5), (3, 3), 3, padding=1)
    yield _case("deep 1x1", (641, 9), (1, 5), 1)
    yield _case("deeper 1x1", (1301, 5), (2, 2), 1)
    yield _case("deep 1d", (211, 3), (14,), 3, padding=1)
    yield _case("deep groups", (262, 4), (4, 3), 3, groups=2)
    yield _case("fully connected", (29, 6), (5, 5), 5)
    yield _case("many outputs of a pixel", (35, 263), (1, 1), 1, batch=7)  # dot: two chunks, a tile of all images and one more
    yield _case("deep, blocks of k within a channel's taps", (131, 5), (3, 2), 5, padding=2)
    yield _case("dot blocks of pixels", (3, 7), (5, 13), (2, 1), batch=2)


def _transformed() -> Iterator[ConvProblem]:
    """More than a few tiles along a row, more channels than a block of the transformed weights holds, one axis only."""
    yield _case("3x3 many tiles", (2, 3), (19, 29), 3, padding=1)
    yield _case("3x3 many tiles, loose", (3, 2), (23, 21), 3, padding=1, accuracy="loose")
    yield _case("3x3 wide", (2, 67), (5, 4), 3, padding=1, activation="relu")
    yield _case("3x3 deep and wide", (37, 9), (3, 3), 3, padding=1, batch=2)
    yield _case("1x3", (5, 11), (6, 23), (1, 3), padding=(0, 1))
    yield _case("3x1", (11, 5), (23, 6), (3, 1), padding=(1, 0), residual=True)
    yield _case("large kernel", (1, 1), (17, 18), (9, 8), padding="same")
    yield _case("large kernel, tiles", (1, 1), (39, 5), (17, 3), padding=(1, 2))
    yield _case("large kernel, wrapped", (1, 1), (14, 15), 9, padding=((7, 5), (2, 8)), padding_mode="circular")
    yield _case("1x3x3", (3, 5), (3, 9, 7), (1, 3, 3), padding=(0, 1, 1), stride=(2, 1, 1))
    yield _case("long kernel", (1, 1), (41,), 150, padding="full", batch=2)
    yield _case("long kernel, tiles", (1, 2), (701,), 19, padding=(5,), dilation=3, padding_mode="symmetric")
    yield _case("long kernel, groups", (4, 4), (97,), 61, padding="same", groups=4, activation="relu")
    yield _case("large kernel, dilation", (2, 2), (23, 19), 5, padding=(9, 4), dilation=(4, 3), groups=2, residual=True)
    yield _case("large kernel, volume", (1, 1), (7, 9, 8), (5, 3, 4), padding="same")
    yield _case("large kernel, volume, tiles", (1, 1), (23, 3, 5), (9, 2, 3), padding=(4, 1, 2), padding_mode="replicate")


def _epilogues() -> Iterator[ConvProblem]:
    for i, name in enumerate(ACTIVATIONS):
        yield _case(name, (5, 9), (6, 7), 3, padding=1, activation=name, bias=i % 2 == 0, residual=i % 3 == 0)
    yield _case("leaky_relu, steep", (4, 17), (5, 6), 1, activation=("leaky_relu", -1.75), residual=True)
    yield _case("residual", (3, 7), (9, 8), 3, bias=False, residual=True, stride=2, padding=1)
    yield _case("bias, residual, relu, batch", (16, 8), (5, 5), 1, residual=True, activation="relu", batch=3)
    yield _case("depthwise, residual, relu6", (9, 9), (7, 8), 3, padding=1, groups=9, residual=True, activation="relu6")


def _read_by_few() -> Iterator[ConvProblem]:
    """Inputs that few windows read, or none: what the phases of a gradient are."""
    yield _case("phases without taps", (3, 4), (13, 11), (2, 1), stride=(4, 3), padding=(1, 0), batch=2)
    yield _case("phases, dilation shares the stride", (4, 3), (17, 15), (3, 4), stride=(4, 2), dilation=(2, 2), padding=(3, 4))
    yield _case("phases, dilation 3 and stride 2", (2, 5), (14, 13), 3, stride=2, dilation=3, padding=2, groups=1)
    yield _case("phases, trailing input", (5, 2), (9, 10), (1, 2), stride=(5, 4), batch=3)
    yield _case("phases, wide padding", (3, 3), (5, 4), 3, stride=2, padding=((4, 1), (0, 5)))
    yield _case("phases, border repeated", (4, 4), (9, 8), 3, stride=2, padding=2, groups=2, padding_mode="replicate")


def _products_of_some_images() -> Iterator[ConvProblem]:
    """The gradient of their weight is added up of two images, two more, and the last one (see `weight_gradient`)."""
    yield _case("many pixels, five images", (1, 2), (35, 34), (1, 2), batch=5)


def _three_axes() -> Iterator[ConvProblem]:
    yield _case("3d", (3, 3), (5, 4, 6), 3, padding=1)
    yield _case("3d along depth", (5, 9), (9, 3, 4), (3, 1, 1), padding=(1, 0, 0), batch=2, activation="relu")
    yield _case("3d stride, dilation", (2, 5), (7, 8, 9), (2, 3, 2), stride=(2, 1, 3), dilation=(1, 2, 3), padding=(0, 2, 1))
    yield _case("3d groups, asymmetric", (4, 6), (4, 5, 6), 2, padding=((1, 0), (0, 1), (2, 1)), groups=2,
                padding_mode="symmetric", batch=2)
    yield _case("3d depthwise", (9, 9), (4, 5, 6), 3, padding=1, groups=9)
    yield _case("3d depthwise, strides, dilation", (17, 17), (5, 4, 19), (3, 2, 4), stride=(2, 1, 2), dilation=(1, 2, 1),
                padding=(3, 0, 2), groups=17, padding_mode="circular")
    yield _case("3d depthwise along depth", (5, 5), (9, 3, 18), (5, 1, 1), padding=(2, 0, 0), groups=5, residual=True)
    yield _case("3d depthwise multiplier 2", (4, 8), (4, 6, 17), (2, 5, 3), padding=((0, 1), (2, 2), (1, 1)), groups=4,
                activation="relu6")
    yield _case("3d pointwise", (17, 19), (2, 3, 5), 1, residual=True, activation="silu")
    yield _case("3d one voxel", (5, 7), (1, 1, 1), 1)
    yield _case("3d kernel is input", (4, 5), (3, 4, 5), (3, 4, 5), batch=2)
