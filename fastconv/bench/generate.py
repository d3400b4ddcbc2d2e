"""Random layers as networks have them: what nobody tuned for, `fastconv bench --generate N --seed S`.

Suites hold the famous shapes, which every library has been tuned on. Here each problem is drawn from a kind of layer, the
kinds roughly as often as networks contain them (`_KINDS`): most are 1x1, 3x3 and depthwise; stems, strides, dilations, groups,
factored kernels, batches, sound, video and image filters make up the rest. Sizes are what networks run at, beside odd and
prime ones; channels grow as maps shrink, and over a third of them are no multiple of 8.

What would be over in no time or take too long is drawn again (`WORK`, `BYTES`), so that 60 problems take minutes.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

from ..problem import ConvProblem

WORK = (2e6, 4e9)  # flops of a call: tens of microseconds to a fraction of a second
BYTES = 64e6  # of all arrays together: no laptop swaps, and im2col's columns fit

_MAPS = (7, 14, 28, 56, 112, 8, 16, 32, 64, 10, 13, 20, 26, 40, 52, 80, 104, 19, 38, 75, 33, 65, 35, 17, 73,
         5, 9, 11, 15, 23, 27, 29, 31, 37, 41, 47, 53, 55, 61, 67, 71, 83, 97, 101, 127)  # the second row: odd, mostly prime
_OBLONG = ((8, 25), (16, 50), (12, 40), (48, 160), (23, 40), (45, 80), (64, 128), (31, 57))  # lines of text, film, streets
_CHANNELS = (8, 16, 24, 32, 40, 48, 64, 80, 96, 112, 128, 144, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024, 1280,
             2048)
_RAGGED = (3, 6, 10, 12, 15, 18, 20, 27, 36, 42, 50, 54, 58, 67, 75, 85, 100, 116, 134, 147, 155, 174, 201, 227, 255, 300,
           348, 402, 487, 534, 699, 1001)  # of mobile, pruned and searched networks, and of outputs that count classes
_Item = TypeVar("_Item")
_Size = tuple[int, ...]


class _Dice:
    """Draws by `random.random` alone, the one sequence that Python promises never to change."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def pick(self, items: Sequence[_Item]) -> _Item:
        return items[int(self._random() * len(items))]

    def between(self, low: int, high: int) -> int:
        return low + int(self._random() * (high - low + 1))

    def one_in(self, n: int) -> bool:
        return self._random() * n < 1

    def map(self) -> _Size:
        return self.pick(_OBLONG) if self.one_in(8) else (self.pick(_MAPS),) * 2

    def channels(self, size: _Size) -> int:
        """A quarter to four times 3584 / map: 64 at 56x56, 256 at 14x14, as in most networks."""
        usual = 3584 / max(size)
        pool = self.pick((_CHANNELS, _CHANNELS, _RAGGED))
        return self.pick([c for c in pool if usual / 4 <= c <= usual * 4] or pool[-3:])


def generate(n: int, seed: int) -> list[ConvProblem]:
    """`n` different problems, named ``gen<seed>_<index>_<shape>``; more of the same seed begin with the same.

    The same on every machine and in every version of Python and NumPy.
    """
    if n < 1:
        raise ValueError(f"the number of problems to generate must be positive, got {n}")
    if seed < 0:
        raise ValueError(f"the seed must be at least 0, got {seed}")
    found = enumerate(islice(_different(_Dice(seed)), n))
    return [dataclasses.replace(problem, name=f"gen{seed}_{index:02d}_{_shape(problem)}") for index, problem in found]


def _different(dice: _Dice) -> Iterator[ConvProblem]:
    seen = set()
    while True:
        draw = dice.pick(_DECK)  # once: kinds that are often too large or too small keep their share
        problem = draw(dice)
        while problem in seen or not (WORK[0] <= problem.flops <= WORK[1] and problem.bytes <= BYTES):
            problem = draw(dice)
        seen.add(problem)
        yield problem


def _layer(size: _Size, kernel: _Size, channels: tuple[int, int], stride: int = 1, dilation: int = 1, groups: int = 1,
           batch: int = 1, same: bool = True) -> ConvProblem:
    """With bias; padded by half the kernel on both sides, or not at all. An axis without extent has no stride either."""
    strides = tuple(stride if k > 1 or max(kernel) == 1 else 1 for k in kernel)
    padding = tuple((dilation * (k // 2),) * 2 if same else (0, 0) for k in kernel)
    return ConvProblem(size, kernel, *channels, batch=batch, groups=groups, stride=strides, dilation=(dilation,) * len(kernel),
                       padding=padding, bias=True)


# ---- one function per kind


def _pointwise(dice: _Dice) -> ConvProblem:
    size = dice.map()
    return _layer(size, (1, 1), (dice.channels(size), dice.channels(size)), stride=2 if dice.one_in(8) else 1)


def _dense(dice: _Dice) -> ConvProblem:
    """3x3, half of them with as many channels out as in; a few unpadded."""
    size = dice.map()
    channels = dice.channels(size)
    return _layer(size, (3, 3), (channels, channels if dice.one_in(2) else dice.channels(size)), same=not dice.one_in(8))


def _strided(dice: _Dice) -> ConvProblem:
    size, k = dice.map(), dice.pick((3, 3, 3, 2, 4, 5))
    return _layer(size, (k, k), (dice.channels(size), dice.channels(size)), stride=2, same=k % 2 == 1)


def _wide(dice: _Dice) -> ConvProblem:
    size = dice.map()
    return _layer(size, dice.pick(((5, 5), (5, 5), (7, 7))), (dice.channels(size), dice.channels(size)))


def _stem(dice: _Dice) -> ConvProblem:
    """The first layer: few channels of a whole picture, or its patches."""
    side = dice.pick((160, 192, 224, 224, 227, 240, 256, 299, 320))
    k, stride = dice.pick(((7, 2), (3, 2), (3, 1), (11, 4), (4, 4), (16, 16)))
    channels = dice.pick((1, 3, 3, 3, 4)), dice.pick((16, 24, 32, 48, 64, 96))
    return _layer((side, side), (k, k), channels, stride, same=k % 2 == 1)


def _factored(dice: _Dice) -> ConvProblem:
    """1xk and kx1: half of a square kernel."""
    size, k = dice.map(), dice.pick((3, 5, 7, 7, 9))
    channels = dice.channels(size)
    return _layer(size, dice.pick(((1, k), (k, 1))), (channels, channels if dice.one_in(2) else dice.channels(size)))


def _dilated(dice: _Dice) -> ConvProblem:
    size = dice.map()
    return _layer(size, (3, 3), (dice.channels(size), dice.channels(size)), dilation=dice.pick((2, 2, 3, 4, 6, 12)))


def _depthwise(dice: _Dice) -> ConvProblem:
    """Of expanded layers, so twice as many channels."""
    size, k = dice.map(), dice.pick((3, 3, 3, 5, 5, 7, 9))
    channels = 2 * dice.channels(size)
    return _layer(size, (k, k), (channels, channels), stride=2 if dice.one_in(4) else 1, groups=channels)


def _grouped(dice: _Dice) -> ConvProblem:
    """2 to 32 groups of a few channels each, even or not."""
    size, groups = dice.map(), dice.pick((2, 3, 4, 8, 16, 32))
    inside, outside = (max(2, dice.channels(size) // groups) for _ in "io")
    return _layer(size, dice.pick(((3, 3), (3, 3), (1, 1), (5, 5))), (groups * inside, groups * outside), groups=groups)


def _batched(dice: _Dice) -> ConvProblem:
    size, k = dice.map(), dice.pick((1, 3, 3))
    return _layer(size, (k, k), (dice.channels(size), dice.channels(size)), batch=dice.pick((2, 3, 4, 6, 8, 16, 32)))


def _audio(dice: _Dice) -> ConvProblem:
    """One axis: dense, dilated, depthwise, or one long filter."""
    length = dice.pick((500, 799, 1000, 1024, 1999, 3000, 4000, 8000, 16000, 22050))
    if dice.one_in(5):
        return _layer((length,), (dice.pick((101, 256, 401, 1025)),), (1, dice.pick((1, 1, 40, 64))))
    channels, k = dice.pick((25, 32, 64, 80, 96, 128, 201, 256)), dice.pick((2, 3, 3, 5, 7, 9, 15))
    if dice.one_in(4):
        return _layer((length,), (dice.pick((3, 15, 31)),), (channels, channels), groups=channels)
    return _layer((length,), (k,), (channels, dice.pick((channels, 64, 128, 256))), stride=dice.pick((1, 1, 2)),
                  dilation=dice.pick((1, 1, 1, 2, 4, 16, 64)))


def _video(dice: _Dice) -> ConvProblem:
    """Three axes: whole, or factored into space and time."""
    size = (dice.pick((4, 7, 8, 13, 16)), *(dice.pick((7, 14, 28, 28, 40, 56)),) * 2)
    kernel = dice.pick(((3, 3, 3), (3, 3, 3), (1, 3, 3), (3, 1, 1), (1, 1, 1), (5, 1, 1)))
    return _layer(size, kernel, (dice.pick((3, 16, 24, 45, 64, 96, 144)), dice.pick((16, 32, 54, 64, 128))),
                  stride=2 if dice.one_in(5) else 1)


def _image(dice: _Dice) -> ConvProblem:
    """Filters of one channel, or of three each by itself, on pictures of any size."""
    size, k = (dice.between(200, 1400), dice.between(200, 1900)), dice.pick((3, 3, 5, 7, 9, 11, 15, 21, 31))
    planes = dice.pick((1, 1, 3))
    return _layer(size, (k, k), (planes, planes), groups=planes)


_KINDS = ((22, _pointwise), (20, _dense), (12, _depthwise), (8, _strided), (5, _wide), (5, _stem), (5, _dilated), (5, _batched),
          (4, _factored), (4, _grouped), (4, _audio), (3, _video), (3, _image))  # percent
_DECK = [draw for percent, draw in _KINDS for _ in range(percent)]


def _shape(problem: ConvProblem) -> str:
    """Such as ``3x3s2_96-192@57``, ``dw5_240@28``, ``b8_3x3d2_64@33``, as in the suites."""
    p = problem
    depthwise = p.groups == p.in_channels == p.out_channels > 1
    parts = [
        f"b{p.batch}_" if p.batch > 1 else "", "dw" + _short(p.kernel_size) if depthwise else "x".join(map(str, p.kernel_size)),
        f"s{max(p.stride)}" if max(p.stride) > 1 else "", f"d{max(p.dilation)}" if max(p.dilation) > 1 else "",
        f"_{p.in_channels}" + (f"-{p.out_channels}" if p.in_channels != p.out_channels else ""), "@" + _short(p.input_size),
        f"_g{p.groups}" if p.groups > 1 and not depthwise else ""]
    return "".join(parts)


def _short(axes: Sequence[int]) -> str:
    return str(axes[0]) if len(set(axes)) == 1 else "x".join(map(str, axes))
