"""Arrays of any strides, flush against memory that no one may touch: backwards, apart, broadcast, permuted, gigabytes apart.

Beside an array that ends where forbidden memory starts lie NaNs up to the page where it begins, and between its elements as
well, so that what is read there spoils a result, and what is written there is seen.
"""

from __future__ import annotations

import ctypes
import mmap
import random

import numpy as np
from helpers import Guarded

_PAGE = mmap.PAGESIZE
FAR = 3 << 31  # bytes: more than 32 bits can say, in elements as well


class Arena:
    """Memory between two forbidden pages, used again for one array after the other."""

    def __init__(self, size: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self.size = -(-size // _PAGE) * _PAGE
        self.memory = mmap.mmap(-1, self.size + 2 * _PAGE, flags=flags)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory)) + _PAGE
        self.read_only = False
        for edge in (self.start - _PAGE, self.start + self.size):
            Guarded._protect(edge, _PAGE, 0)

    def place(self, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype, side: str) -> Placed:
        """An array of these strides (in elements) at the start or the end; everything around it is NaN."""
        low = sum(min(0, (n - 1) * s) for n, s in zip(shape, strides)) * dtype.itemsize
        extent = sum((n - 1) * abs(s) for n, s in zip(shape, strides)) * dtype.itemsize + dtype.itemsize
        first = 0 if side == "start" else self.size - extent
        if self.read_only:
            Guarded._protect(self.start, self.size, mmap.PROT_READ | mmap.PROT_WRITE)
            self.read_only = False
        near = min(-(-extent // _PAGE) * _PAGE, self.size)
        near = 0 if near > 1 << 24 else near  # pages that are touched exist
        around = np.frombuffer(self.memory, np.uint8, near, _PAGE + (0 if side == "start" else self.size - near))
        around[...] = 0xff
        array = np.ndarray(shape, dtype, self.memory, _PAGE + first - low, tuple(s * dtype.itemsize for s in strides))
        return Placed(self, array, around)


class Placed:
    def __init__(self, arena: Arena, array: np.ndarray, around: np.ndarray) -> None:
        self.arena, self.array, self.around = arena, array, around

    def read_only(self) -> np.ndarray:
        Guarded._protect(self.arena.start, self.arena.size, mmap.PROT_READ)
        self.arena.read_only, self.array.flags.writeable = True, False
        return self.array

    def spoiled(self) -> bool:
        """Whether anything beside the elements was written; they are lost."""
        self.array.view(f"u{self.array.itemsize}")[...] = 2 ** (8 * self.array.itemsize) - 1
        return bool((self.around != 0xff).any())


def odd_strides(shape: tuple[int, ...], dice: random.Random, broadcast: bool, far: bool) -> tuple[int, ...]:
    """In elements; every kind of oddness rare or common. `broadcast`: axes may repeat; `far`: one has gigabytes between."""
    order, odd = list(range(len(shape))), dice.choice((0.1, 0.4))
    if dice.random() < odd:
        dice.shuffle(order)
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        if shape[axis] == 1 and dice.random() < 0.2:
            strides[axis] = dice.choice((-1, 0, 1)) * 1_234_567_891
            continue
        if broadcast and dice.random() < odd / 2:
            continue
        step *= dice.choice((2, 3)) if dice.random() < odd / 2 else 1
        strides[axis] = -step if dice.random() < odd else step
        step *= shape[axis]
        step += dice.choice((1, 5)) if dice.random() < odd else 0
    if far:  # one axis of few elements, whatever its place in the order
        axis = dice.choice([a for a, n in enumerate(shape) if 1 < n <= 4] or [0])
        if 1 < shape[axis] <= 4:
            strides[axis] = dice.choice((-1, 1)) * (FAR // 8 // (shape[axis] - 1) - dice.randint(0, 99))
    return tuple(strides)


def contiguous(array: np.ndarray) -> tuple[int, ...]:
    return tuple(s // array.itemsize for s in np.empty(array.shape, array.dtype).strides)


def extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the first to the last in memory."""
    return sum((n - 1) * abs(s) for n, s in zip(shape, strides)) + 1


def repeated(array: np.ndarray, strides: tuple[int, ...]) -> np.ndarray:
    """Values that an array of these strides can hold."""
    first = tuple(slice(0, 1) if s == 0 and n > 1 else slice(None) for n, s in zip(array.shape, strides))
    return np.broadcast_to(array[first], array.shape)
