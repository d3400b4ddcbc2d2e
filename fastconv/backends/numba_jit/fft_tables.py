"""Tables of the Numba fft: programs of transforms along one axis, the tiles along one axis."""

from __future__ import annotations

import functools

import numpy as np

from .contexts import ENTRY, FROM_SECOND, INVERSE, OF_A_TILE, TO_SECOND, VECTOR_BYTES

IN_L1 = 24 << 10  # bytes of sequences, real and imaginary: what else passes through L1 has room


# ---- transforms


def radices(n: int) -> list[int]:
    found, rest = [], n
    for radix in (5, 3):
        while rest % radix == 0:
            rest //= radix
            found.append(radix)
    twos = rest.bit_length() - 1
    return [*found, *[2] * (twos % 2), *[4] * (twos // 2)]


@functools.lru_cache(maxsize=64)
def twiddles(n: int, dtype: str) -> np.ndarray:
    """Pairs (cos, sin) of all stages but the last, whose twiddles are 1."""
    parts, length = [], n
    for radix in radices(n):
        m = length // radix
        if m > 1:
            angle = -2 * np.pi / length * (np.arange(m)[:, None] * np.arange(1, radix) % length)
            parts.append(np.stack((np.cos(angle), np.sin(angle)), axis=-1).ravel())
        length = m
    return np.concatenate([*parts, np.zeros(1)]).astype(dtype)


def program(n: int, table: np.ndarray, inverse: bool) -> np.ndarray:
    """The stages of a transform, for `fourier.transform`: forward from the first arrays to the second, which are then worked
    in; the inverse in the first, its last stage to the second. What L1 does not hold is cut by a stage into sequences that go
    through all others alone."""
    stages: list[list[int]] = []
    each = radices(n)

    def follow(first: int, offset: int, length: int, place: int) -> None:
        m = length
        for s in range(first, len(each)):
            m //= each[s]
            stages.append([each[s], 0, offset * VECTOR_BYTES, length * VECTOR_BYTES, m * VECTOR_BYTES,
                           table.ctypes.data + place * table.itemsize])
            place += 2 * m * (each[s] - 1) if m > 1 else 0
            if m > 1 and length * 2 * VECTOR_BYTES > IN_L1:
                for q in range(each[s]):
                    follow(s + 1, offset + q * m, m, place)
                return

    follow(0, 0, n, 0)
    rows = np.zeros((len(stages) + 1, ENTRY // 8), np.int64)
    rows[:-1, :6] = stages[::-1] if inverse else stages
    if inverse:
        rows[:-1, 0] += INVERSE
        rows[-2, 1] = TO_SECOND
    else:
        rows[:-1, 1] = FROM_SECOND | TO_SECOND
        rows[0, 1] = TO_SECOND
    return rows


def places(n: int) -> np.ndarray:
    """Where X(k) is: the digits of k in the mixed radices, reversed."""
    k, at, length = np.arange(n), np.zeros(n, np.int64), n
    for radix in radices(n):
        length //= radix
        at += k % radix * length
        k = k // radix
    return at


# ---- tiles


class Cut:
    """The tiles along an axis: `count` of them, each of `useful` outputs; output o of a tile is at place (o + shift) mod n.

    With a stride the outputs between are computed too, and left out at last; not so along an axis that is not transformed,
    n = 1. Where zero padding fits behind all of the input, there is one tile, and outputs wrap around.
    """

    def __init__(self, zeros: bool, size: int, kernel: int, stride: int, dilation: int, outputs: int, padding: tuple[int, int],
                 n: int) -> None:
        self.n, self.size, self.low = n, size, padding[0]
        self.keep, self.step = (stride, 1) if n > 1 else (1, stride)
        self.outputs = (outputs - 1) * self.keep + 1
        self.reach = (kernel - 1) * dilation
        self.whole = zeros and n > 1 and n >= max(size + max(0, *padding), self.outputs)
        self.useful = self.outputs if self.whole else max(n - self.reach, 1)
        self.count = -(-self.outputs // self.useful)
        self.shift = (n - self.low) % n if self.whole else 0
        self.starts = np.arange(self.count) * self.useful
        self.most = np.minimum(self.useful, self.outputs - self.starts)  # outputs of each tile

    def inputs(self, index: np.ndarray) -> np.ndarray:
        """[tile][place] of the inputs, of those at padded coordinates in `index`."""
        place = np.arange(self.n)
        if self.whole:
            return np.where(place < self.size, place, -1)[None]
        at = self.starts[:, None] * self.step + place
        seen = (place < (self.most + self.reach)[:, None]) & (at < len(index))
        return np.where(seen, index[np.minimum(at, len(index) - 1)], -1)

    def results(self) -> np.ndarray:
        """[tile][place] of (output, number within the tile); -1 where there is none, or one that is left out."""
        place = np.arange(self.n)
        number = place - self.shift + np.where(place < self.shift, self.n, 0)
        output = self.starts[:, None] + number
        kept = (number < self.most[:, None]) & (output % self.keep == 0)
        return np.stack((np.where(kept, output // self.keep, -1), np.broadcast_to(number, kept.shape)), axis=-1)

    def described(self) -> np.ndarray:
        """[tile][OF_A_TILE]: see there."""
        rows = np.zeros((self.count, OF_A_TILE), np.int64)
        rows[:, 0], rows[:, 1], rows[:, 2] = self.starts * self.step, self.most, self.starts
        return rows


def runs(inputs: np.ndarray, rows: np.ndarray) -> None:
    """Of each tile the inputs that lie side by side, and whether there are no others."""
    for row, tile in zip(inputs, rows, strict=True):
        there = np.flatnonzero(row >= 0)
        begin, end = (int(there[0]), int(there[-1]) + 1) if len(there) else (0, 0)
        tile[3:7] = begin, end, row[begin], (np.diff(row[begin:end]) == 1).all()


def spread(kernel: int, dilation: int, n: int) -> np.ndarray:
    """[place] of taps."""
    place = np.arange(n)
    return np.where((place % dilation == 0) & (place // dilation < kernel), place // dilation, -1)
